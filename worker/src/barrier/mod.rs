//! When a task takes its snapshot.
//!
//! A barrier divides every channel into what belongs to a checkpoint and what comes after it. A task with several
//! channels holds back those whose barrier has come until it has come in all: [`aligner`] (pure). Under load that takes as
//! long as all that waits before the barriers; so after some time a task need not align any more: [`overtaking`] (pure). The
//! run loop in `task::alignment` does what they say.

pub mod aligner;
#[cfg(test)]
mod model;
pub mod overtaking;

/// A checkpoint's barrier, for tests.
#[cfg(test)]
fn barrier(checkpoint: u64) -> crate::network::Barrier {
    use flott_proto::ids::CheckpointId;
    crate::network::Barrier {
        checkpoint: CheckpointId(checkpoint),
        base: CheckpointId::NONE,
        kind: flott_proto::wire::CheckpointKind::Checkpoint,
        savepoint_directory: None,
    }
}
