//! What every Flott process does alike.
//!
//! - [`clock`]: injected time. [`tasks`]: supervision of background tasks.
//! - [`failpoint`]: where a test may have the process die. [`mutant`]: defects that a simulation can plant.
//! - [`config`]: Flink's configuration keys, typed. [`telemetry`]: logs and metrics. [`health`]: the HTTP port.
//! - [`storage`]: an object store, opened by its URL. [`tls`]: how connections are made and accepted, and by whom.

pub mod clock;
pub mod config;
pub mod failpoint;
pub mod health;
pub mod mutant;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod storage;
pub mod tasks;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tls;

pub use clock::{Clock, SharedClock, SystemClock};
pub use failpoint::Failpoint;
pub use mutant::Mutant;
pub use tasks::{OnFailure, Tasks, spawn_blocking};
pub use tls::Transport;
