//! Barrier alignment of one task. Pure.
//!
//! ```text
//!          first barrier, others missing          barrier of the same id in the last channel
//! idle ───────────────────────────────▶ aligning ───────────────────────────────────────────▶ snapshot, idle
//!                                         │  └─ barrier of a higher id: the old one will never be whole; align anew
//!                                         ├─ aborted by the leader ─▶ idle
//!                                         └─ overtaken, from idle too ─▶ snapshot, idle
//! ```
//!
//! What must stay true: an aligned snapshot is taken when each channel has delivered the barrier, and any when none has
//! delivered anything behind it; ids of snapshots rise; a barrier of an id that was taken, given up or aborted changes nothing. Channels at
//! their end of data still deliver barriers, so they count like any other.

use flott_node::Mutant;
use flott_proto::ids::CheckpointId;

use crate::network::Barrier;

/// What the run loop is to do after a barrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Hold back the barrier's channel.
    Block,
    /// All channels are there: take the snapshot, pass the barrier on, release all channels.
    Snapshot(Barrier),
    /// A newer checkpoint has begun: release all channels, forget `superseded`, then hold back the barrier's channel.
    Abort { superseded: CheckpointId },
    /// The barrier of a checkpoint that is over.
    Ignore,
}

#[derive(Clone, Debug)]
struct Aligning {
    barrier: Barrier,
    arrived: Vec<bool>,
}

/// The alignment of a task with a fixed number of channels.
#[derive(Clone, Debug)]
pub struct BarrierAligner {
    channels: usize,
    current: Option<Aligning>,
    /// The highest checkpoint that was taken, given up or aborted here.
    over: CheckpointId,
}

impl BarrierAligner {
    /// For a task with that many channels, at least one.
    pub fn new(channels: usize) -> Self {
        assert!(channels > 0, "a task without channels aligns nothing");
        Self {
            channels,
            current: None,
            over: CheckpointId::NONE,
        }
    }

    /// A channel delivered a barrier.
    pub fn on_barrier(&mut self, channel: usize, barrier: Barrier) -> Step {
        assert!(channel < self.channels);
        let current = self
            .current
            .as_ref()
            .map(|current| current.barrier.checkpoint);
        if barrier.checkpoint <= self.over
            || current.is_some_and(|current| barrier.checkpoint < current)
        {
            return Step::Ignore;
        }
        let superseded = current.filter(|current| *current < barrier.checkpoint);
        if let Some(superseded) = superseded {
            self.end(superseded);
        }
        let (channels, id) = (self.channels, barrier.checkpoint);
        let aligning = self.current.get_or_insert_with(|| Aligning {
            barrier,
            arrived: vec![false; channels],
        });
        aligning.arrived[channel] = true;
        let may_take_now = Mutant::NoAlignment.is_planted();
        if aligning.arrived.iter().all(|arrived| *arrived) || may_take_now {
            let barrier = aligning.barrier.clone();
            self.end(id);
            return Step::Snapshot(barrier);
        }
        superseded.map_or(Step::Block, |superseded| Step::Abort { superseded })
    }

    /// The task takes its snapshot without having aligned, since the barriers of all channels have come in: see
    /// [`super::overtaking`]. False if the checkpoint is over; otherwise release all channels.
    pub fn on_overtaken(&mut self, checkpoint: CheckpointId) -> bool {
        let is_over = checkpoint <= self.over || self.aligning() > Some(checkpoint);
        if !is_over {
            self.end(checkpoint);
        }
        !is_over
    }

    /// The leader has given the checkpoint up, and so every earlier one is over, too: not every abort is heard of. True if an
    /// alignment was under way: release all channels.
    pub fn on_aborted(&mut self, checkpoint: CheckpointId) -> bool {
        let under_way = self.aligning().is_some_and(|current| current <= checkpoint);
        if under_way || self.current.is_none() {
            self.end(checkpoint);
        }
        under_way
    }

    /// The checkpoint that is being aligned.
    pub fn aligning(&self) -> Option<CheckpointId> {
        self.current
            .as_ref()
            .map(|current| current.barrier.checkpoint)
    }

    fn end(&mut self, checkpoint: CheckpointId) {
        self.current = None;
        self.over = self.over.max(checkpoint);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use proptest::prelude::*;

    use super::super::barrier;
    use super::*;

    fn step(aligner: &mut BarrierAligner, channel: usize, checkpoint: u64) -> Step {
        aligner.on_barrier(channel, barrier(checkpoint))
    }

    #[test]
    fn one_channel_needs_no_waiting() {
        let mut aligner = BarrierAligner::new(1);
        assert_eq!(step(&mut aligner, 0, 1), Step::Snapshot(barrier(1)));
        assert_eq!(step(&mut aligner, 0, 1), Step::Ignore);
        assert_eq!(step(&mut aligner, 0, 3), Step::Snapshot(barrier(3)));
        assert_eq!(step(&mut aligner, 0, 2), Step::Ignore);
    }

    #[test]
    fn a_newer_checkpoint_ends_an_alignment() {
        let mut aligner = BarrierAligner::new(2);
        assert_eq!(step(&mut aligner, 0, 1), Step::Block);
        let superseded = CheckpointId(1);
        assert_eq!(step(&mut aligner, 1, 2), Step::Abort { superseded });
        assert_eq!(step(&mut aligner, 1, 1), Step::Ignore);
        assert_eq!(step(&mut aligner, 0, 2), Step::Snapshot(barrier(2)));
    }

    #[test]
    fn an_aborted_checkpoint_releases_and_its_late_barriers_change_nothing() {
        let mut aligner = BarrierAligner::new(3);
        step(&mut aligner, 0, 4);
        assert!(aligner.on_aborted(CheckpointId(4)));
        assert!(!aligner.on_aborted(CheckpointId(4)));
        assert_eq!(step(&mut aligner, 1, 4), Step::Ignore);
        assert!(
            !aligner.on_aborted(CheckpointId(5)),
            "aborted before its first barrier came"
        );
        assert_eq!(step(&mut aligner, 2, 5), Step::Ignore);
        assert_eq!(step(&mut aligner, 2, 6), Step::Block);
        assert!(
            !aligner.on_aborted(CheckpointId(5)),
            "an old abort does not end a newer alignment"
        );
        assert_eq!(aligner.aligning(), Some(CheckpointId(6)));
    }

    /// Found by `barrier/model.rs`: the task heard of the second abort only, and kept its channels back.
    #[test]
    fn an_abort_ends_the_alignment_of_an_earlier_checkpoint_whose_abort_was_not_heard() {
        let mut aligner = BarrierAligner::new(2);
        assert_eq!(step(&mut aligner, 0, 4), Step::Block);
        assert!(aligner.on_aborted(CheckpointId(5)));
        assert_eq!(step(&mut aligner, 1, 4), Step::Ignore);
        assert_eq!(step(&mut aligner, 1, 5), Step::Ignore);
        assert!(!aligner.on_overtaken(CheckpointId(5)));
        assert!(aligner.on_overtaken(CheckpointId(6)));
        assert_eq!(step(&mut aligner, 1, 6), Step::Ignore);
    }

    /// Whatever barriers are missing and whenever the leader aborts, channels are held back only for a good reason and
    /// never for ever, and a snapshot has seen each channel exactly up to its barrier.
    fn run(
        channels: Vec<Vec<u64>>,
        schedule: &[(usize, Option<u64>)],
    ) -> Result<Vec<u64>, TestCaseError> {
        let count = channels.len();
        let mut queues: Vec<VecDeque<u64>> = channels.into_iter().map(Into::into).collect();
        let mut aligner = BarrierAligner::new(count);
        let mut blocked = BTreeSet::new();
        let mut last = vec![0; count];
        let mut snapshots = Vec::new();
        let rounds = (0..count * 30).map(|at| (at % count, None));
        for (channel, abort) in schedule
            .iter()
            .copied()
            .map(|(c, a)| (c % count, a))
            .chain(rounds)
        {
            if let Some(aborted) = abort
                && aligner.on_aborted(CheckpointId(aborted))
            {
                blocked.clear();
            }
            if blocked.contains(&channel) {
                continue;
            }
            let Some(id) = queues[channel].pop_front() else {
                continue;
            };
            last[channel] = id;
            match step(&mut aligner, channel, id) {
                Step::Block => {
                    blocked.insert(channel);
                }
                Step::Snapshot(taken) => {
                    prop_assert!(
                        last.iter().all(|last| *last == taken.checkpoint.0),
                        "{last:?} at {taken:?}"
                    );
                    prop_assert!(
                        snapshots
                            .last()
                            .is_none_or(|before| *before < taken.checkpoint.0)
                    );
                    snapshots.push(taken.checkpoint.0);
                    blocked.clear();
                }
                Step::Abort { superseded } => {
                    prop_assert!(superseded.0 < id);
                    blocked = BTreeSet::from([channel]);
                }
                Step::Ignore => (),
            }
            prop_assert_eq!(blocked.is_empty(), aligner.aligning().is_none());
            prop_assert!(blocked.len() < count, "someone can always go on");
        }
        let stuck = queues
            .iter()
            .enumerate()
            .any(|(at, queue)| !queue.is_empty() && !blocked.contains(&at));
        prop_assert!(!stuck);
        Ok(snapshots)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn with_gaps_and_aborts_snapshots_are_still_whole(
            channels in prop::collection::vec(prop::collection::btree_set(1u64..20, 0..15), 1..5),
            schedule in prop::collection::vec((0usize..5, prop::option::weighted(0.2, 1u64..20)), 0..80),
        ) {
            run(channels.into_iter().map(|ids| ids.into_iter().collect()).collect(), &schedule)?;
        }

        #[test]
        fn without_gaps_every_checkpoint_is_taken(
            count in 1usize..5, checkpoints in 0u64..15, order in prop::collection::vec(0usize..5, 0..60),
        ) {
            let ids: Vec<u64> = (1..=checkpoints).collect();
            let schedule: Vec<_> = order.into_iter().map(|channel| (channel, None)).collect();
            prop_assert_eq!(run(vec![ids.clone(); count], &schedule)?, ids);
        }
    }
}
