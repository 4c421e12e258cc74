//! The life of a checkpoint.
//!
//! ```text
//!  BeginCheckpoint ──► pending ── all acks ──► `_metadata` written ── CompleteCheckpoint ──► completed
//!   (replicated)          │                                              (replicated)           │
//!                         └── declined, expired, attempt over ── AbortCheckpoint                │ newer ones complete
//!                                                                                               ▼
//!            deleted ◄── ForgetFiles ── objects deleted by the leader of this epoch ◄── retired (its files listed)
//! ```
//!
//! A completed checkpoint that turns out to be unreadable is retired ahead of its time by DiscardCheckpoint: see
//! `core/plan/fallback.rs`. What it shares with a usable one stays.
//!
//! The replicated state holds the whole file set of each retained checkpoint, so a leader recovers a job without
//! reading object storage. A file may be deleted only if no retained checkpoint, savepoint or restore point names it:
//! [`CheckpointStore`] keeps that as plain set arithmetic, after each change.
//!
//! A savepoint lies in a directory of its own and is the user's, unless a job claims it (`core/apply/claim.rs`). What there is
//! of one that was given up is retired as a directory, since nobody has heard of all its files.
//!
//! - [`completed`]: retained, retired, deleted.
//! - [`pending`]: collects acks, in the leader's memory.

pub mod completed;
pub mod pending;

pub use completed::{
    CheckpointStore, CompletedCheckpoint, CompletionError, PendingRecord, RestorePoint, Summary,
};
pub use pending::{Ack, PendingCheckpoint, Step};

/// Why a checkpoint is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointKind {
    /// By the clock.
    Checkpoint,
    /// By a user; self-contained, and deleted by the system only if a job has claimed it.
    Savepoint,
    /// The last of a job whose input has ended.
    Final,
}

impl From<CheckpointKind> for flott_proto::wire::CheckpointKind {
    fn from(kind: CheckpointKind) -> Self {
        match kind {
            CheckpointKind::Checkpoint => Self::Checkpoint,
            CheckpointKind::Savepoint => Self::Savepoint,
            CheckpointKind::Final => Self::Final,
        }
    }
}

impl TryFrom<flott_proto::wire::CheckpointKind> for CheckpointKind {
    type Error = flott_proto::Malformed;
    fn try_from(kind: flott_proto::wire::CheckpointKind) -> Result<Self, Self::Error> {
        use flott_proto::wire::CheckpointKind as Wire;
        match kind {
            Wire::Checkpoint => Ok(Self::Checkpoint),
            Wire::Savepoint => Ok(Self::Savepoint),
            Wire::Final => Ok(Self::Final),
            Wire::Unspecified => Err(flott_proto::Malformed::new("checkpoint", "lacks a kind")),
        }
    }
}
