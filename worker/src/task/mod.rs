//! One subtask of a job on a thread of its own.
//!
//! - [`status`] (pure): the states of a task. [`mailbox`]: how others reach its thread.
//! - [`run`]: the thread, from restoring to its end; `open` is its beginning. `alignment`: from barriers to a snapshot;
//!   [`checkpoint`]: from there to the ack. `pace`: sinks that are to take their time. `simulated`: the
//!   thread in a simulation, which is none.
//!
//! What must stay true: everything of a task happens on its thread, but for uploads; the thread ends soon after it is
//! told to, with a reason; whatever happens on it, the process goes on.

mod alignment;
pub mod checkpoint;
pub mod mailbox;
mod open;
mod pace;
pub mod run;
#[cfg(feature = "simulation")]
mod simulated;
pub mod status;
