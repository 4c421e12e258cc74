//! The protocol checkpoint – commit – retire – delete under changes of leader, in small, so that *every* order of events can
//! be searched. What it shows holds for all executions within the bounds, of the protocol as it is written down here; that
//! the product follows it is for the tests of the product: `coordinator/src/core/storage_model/` drives the real code by
//! chance, with more kinds of events.
//!
//! One job with two subtasks, each on a TaskManager of its own. JobManagers are elected one after another; whoever was in
//! office goes on with what it saw last, for ever. Messages are not modelled: a leader and a task that listens to it may
//! meet at any time or never, which is the same as being lost, late or repeated. A process that dies does nothing more,
//! which any process here may do.
//!
//! - [`names`]: epochs, attempts, checkpoints; sets of objects and of output.
//! - [`state`]: what there is. `decide`: what a decision does when it comes out of the log.
//! - [`steps`]: everything that may happen next, with the file of the product that each step stands for.
//! - [`properties`]: what must hold always, and what must happen sometimes, so that nothing is shown of nothing.
//!
//! Each [`Defect`] is a mistake that an implementation could make; the tests show that the search finds it. The same
//! protocol is in `tla/Checkpoints.tla`, for another checker and other eyes.

mod decide;
pub mod names;
pub mod properties;
pub mod state;
pub mod steps;
#[cfg(test)]
mod tests;

use self::names::{Attempt, Checkpoint};

/// How far the search goes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub leaders: usize,
    pub attempts: Attempt,
    pub checkpoints: Checkpoint,
    /// Decisions whose proposer is told that they failed, while they are still in the log.
    pub answers_lost: u8,
}

/// The protocol, with or without a mistake in it.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    pub bounds: Bounds,
    pub defect: Option<Defect>,
}

/// A planted mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// An entry of a deposed leader is applied.
    NoEpochCheck,
    /// Sinks are told of a completion when it is proposed.
    CommitBeforeApplied,
    /// Files are deleted when the completion that will retire them is proposed.
    DeleteBeforeRetired,
    /// A deposed leader deletes what nobody needs, as far as it knows.
    DeposedLeaderDeletes,
    /// What no checkpoint has is deleted although its writer may still name it in an ack.
    OpenWriterCollected,
    /// An attempt starts whatever has become of the job.
    TerminalJobRevived,
    /// Tasks of an older attempt take part in a checkpoint, and their acks count.
    AckOfOlderAttempt,
    /// An ack of a checkpoint that was given up counts for the one that is pending.
    AckOfOlderCheckpoint,
    /// A checkpoint may complete although its attempt is over.
    PendingSurvivesAttempt,
    /// The next id is that after the newest completed checkpoint.
    IdReused,
    /// Tasks hear of a checkpoint when it is proposed to begin it.
    TriggerBeforeApplied,
    /// A job has finished once its last checkpoint is complete, committed or not.
    EndBeforeCommitted,
    /// A task does not make visible what its checkpoint has prepared.
    RestoreWithoutCommit,
    /// A task forgets its ack once it has told it to some leader.
    AckNotHeld,
}
