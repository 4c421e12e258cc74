//! One subtask of a job on a thread of its own.
//!
//! - [`status`] (pure): the states of a task. [`mailbox`]: how others reach its thread.
//! - [`run`]: the thread, from restoring to its end. [`checkpoint`]: from a barrier to the ack.
//!
//! What must stay true: everything of a task happens on its thread, but for uploads; the thread ends soon after it is
//! told to, with a reason; whatever happens on it, the process goes on.

pub mod checkpoint;
pub mod mailbox;
pub mod run;
pub mod status;
