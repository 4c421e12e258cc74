//! Collects the acks of one pending checkpoint. Lives in the leader's memory only: a new leader gets the acks again,
//! from TaskManagers that hold them until they hear what became of the checkpoint.

use std::collections::{BTreeMap, BTreeSet};

use flott_node::Mutant;
use flott_proto::ids::{AttemptNumber, CheckpointId, SubtaskId};
use flott_proto::state_handle::SubtaskDelta;

/// One subtask's part of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    pub checkpoint: CheckpointId,
    pub attempt: AttemptNumber,
    /// What `delta` is a change against.
    pub base: CheckpointId,
    pub delta: SubtaskDelta,
}

/// What an ack leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Wait,
    /// Every subtask has acknowledged.
    Complete,
    /// It belongs to another checkpoint or attempt, or repeats one.
    Ignore,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PendingCheckpoint {
    pub id: CheckpointId,
    pub attempt: AttemptNumber,
    missing: BTreeSet<SubtaskId>,
    acks: BTreeMap<SubtaskId, (CheckpointId, SubtaskDelta)>,
}

impl PendingCheckpoint {
    pub fn new(
        id: CheckpointId,
        attempt: AttemptNumber,
        subtasks: impl IntoIterator<Item = SubtaskId>,
    ) -> Self {
        Self {
            id,
            attempt,
            missing: subtasks.into_iter().collect(),
            acks: BTreeMap::new(),
        }
    }

    pub fn on_ack(&mut self, ack: Ack) -> Step {
        let is_of_this = ack.checkpoint == self.id && ack.attempt == self.attempt;
        #[cfg(feature = "simulation")]
        if !is_of_this {
            flott_node::simulation::happened("an ack came too late");
        }
        if !(is_of_this || Mutant::AnyAckCounts.is_planted())
            || !self.missing.remove(&ack.delta.subtask)
        {
            return Step::Ignore;
        }
        self.acks
            .insert(ack.delta.subtask.clone(), (ack.base, ack.delta));
        if self.missing.is_empty() {
            Step::Complete
        } else {
            Step::Wait
        }
    }

    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// Those that have not acknowledged yet.
    pub fn missing(&self) -> &BTreeSet<SubtaskId> {
        &self.missing
    }

    /// By subtask: the base and the change.
    pub fn acks(&self) -> &BTreeMap<SubtaskId, (CheckpointId, SubtaskDelta)> {
        &self.acks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subtask(subtask: u32) -> SubtaskId {
        SubtaskId {
            vertex: "v".parse().unwrap(),
            subtask,
        }
    }

    fn ack(checkpoint: u64, attempt: u32, of: u32) -> Ack {
        Ack {
            checkpoint: CheckpointId(checkpoint),
            attempt: AttemptNumber(attempt),
            base: CheckpointId::NONE,
            delta: SubtaskDelta {
                subtask: subtask(of),
                operators: BTreeMap::new(),
                added: vec![],
                dropped: vec![],
                uploaded_bytes: 0,
                alignment: Default::default(),
            },
        }
    }

    #[test]
    fn completes_with_the_last_ack_and_ignores_what_does_not_belong() {
        let mut pending =
            PendingCheckpoint::new(CheckpointId(3), AttemptNumber(2), [subtask(0), subtask(1)]);
        assert_eq!(
            pending.on_ack(ack(2, 2, 0)),
            Step::Ignore,
            "late ack of an earlier checkpoint"
        );
        assert_eq!(
            pending.on_ack(ack(3, 1, 0)),
            Step::Ignore,
            "zombie of an earlier attempt"
        );
        assert_eq!(
            pending.on_ack(ack(3, 2, 7)),
            Step::Ignore,
            "no such subtask"
        );
        assert_eq!(pending.on_ack(ack(3, 2, 0)), Step::Wait);
        assert_eq!(pending.on_ack(ack(3, 2, 0)), Step::Ignore, "a repeated ack");
        assert!(!pending.is_complete());
        assert_eq!(pending.on_ack(ack(3, 2, 1)), Step::Complete);
        assert!(pending.is_complete());
    }
}
