//! The key-value space of a cluster, for programs: what `flott kv` and the benchmarks use.
//!
//! - [`Session`]: many callers, one connection, which follows the leader. Its `call` takes and gives wire messages.
//! - [`Space`]: one namespace of a session, with a function for each thing to do.
//! - [`Watch`]: the changes of a range, resumed at another member when one dies.
//! - [`Ephemeral`]: a lease that lives as long as its holder.
//! - [`KvError`]: says of a write whether it was applied, was not, or may have been.
//!
//! ```no_run
//! # async fn example() -> Result<(), flott_cli::kv::KvError> {
//! use flott_cli::kv::{Session, SessionOptions};
//! let (clock, tasks) = (flott_node::SystemClock::shared(), flott_node::Tasks::default());
//! let members = vec!["host1:6123".to_owned(), "host2:6123".to_owned()];
//! let space = Session::new(members, SessionOptions::default(), clock, &tasks)?.space("default");
//! let written = space.put("greeting", "hello").await?;
//! let read = space.get("greeting").await?;
//! assert_eq!(read.value.map(|entry| entry.mod_revision), Some(written.header.revision));
//! # Ok(())
//! # }
//! ```

mod ephemeral;
mod error;
pub mod keys;
mod session;
mod space;
mod watch;

pub use ephemeral::Ephemeral;
pub use error::{KvError, Outcome, Reason};
pub use session::{Session, SessionOptions};
pub use space::{Answer, Space};
pub use watch::{Watch, Watched};
