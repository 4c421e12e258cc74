//! When a task takes its snapshot without having aligned. Pure.
//!
//! ```text
//!          told of a checkpoint            aligned in time: `over`
//! nothing ─────────────────────▶ waiting ───────────────────────────▶ nothing
//!                                  │ └─ a later checkpoint: waits for that one
//!                                  └─ due: once the barriers of all channels have come in, wherever they stand in the gate,
//!                                     the snapshot is taken at once, with what stands before them
//! ```
//!
//! Why that is consistent (Chandy and Lamport 1985, with the recording done at one moment): what a sender had processed when
//! it took its snapshot is, for the receiver, either before the barrier in the channel, and then processed or stored by the
//! receiver; or it waited for credit, was overtaken, and is stored by the sender. What comes after is in neither. So any
//! task may align or overtake in the same checkpoint, in any mixture.
//!
//! Nothing is recorded over time: a barrier needs no credit, so it comes in as soon as its sender has taken its own snapshot
//! and the line is free, and until then the task goes on with its work. What is stored is what the credit allows at most.
//! A task whose channels have all ended still gets barriers.
//!
//! A source has no channels; one that waits for credit takes its snapshot when it is through or due.

use std::time::Duration;

use flott_proto::ids::CheckpointId;

use crate::network::Barrier;

#[derive(Clone, Debug)]
struct Waiting {
    barrier: Barrier,
    since: Duration,
    /// None: it is only taken aligned.
    due: Option<Duration>,
}

/// The checkpoint that a task was told of and has not taken.
#[derive(Clone, Debug, Default)]
pub struct Overtaking {
    waiting: Option<Waiting>,
}

impl Overtaking {
    /// The leader has begun a checkpoint, at `now` of the monotonic clock. After `unaligned_after` the task need not align.
    /// Not to be called for a checkpoint that was taken.
    pub fn on_trigger(
        &mut self,
        barrier: Barrier,
        unaligned_after: Option<Duration>,
        now: Duration,
    ) {
        let newer = |waiting: &Waiting| waiting.barrier.checkpoint < barrier.checkpoint;
        if self.waiting.as_ref().is_none_or(newer) {
            self.waiting = Some(Waiting {
                since: now,
                due: unaligned_after.map(|after| now.saturating_add(after)),
                barrier,
            });
        }
    }

    /// The checkpoint, and every earlier one, was taken or given up.
    pub fn over(&mut self, checkpoint: CheckpointId) {
        self.waiting
            .take_if(|waiting| waiting.barrier.checkpoint <= checkpoint);
    }

    /// The checkpoint that is waited for, and since when.
    pub fn waiting(&self) -> Option<(&Barrier, Duration)> {
        self.waiting
            .as_ref()
            .map(|waiting| (&waiting.barrier, waiting.since))
    }

    /// The same, if the task need not align any more.
    pub fn due(&self, now: Duration) -> Option<(&Barrier, Duration)> {
        let waiting = self.waiting.as_ref();
        let waiting = waiting.filter(|waiting| waiting.due.is_some_and(|due| due <= now))?;
        Some((&waiting.barrier, waiting.since))
    }

    /// How long the task may sleep, at most `most`: not beyond the time at which it need not align any more. After that it is
    /// woken by the barriers that come in.
    pub fn sleep(&self, now: Duration, most: Duration) -> Duration {
        let due = self.waiting.as_ref().and_then(|waiting| waiting.due);
        let left = due.map(|due| due.saturating_sub(now));
        left.filter(|left| !left.is_zero())
            .map_or(most, |left| left.min(most))
    }
}

#[cfg(test)]
mod tests {

    use super::super::barrier;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn due(overtaking: &Overtaking, now: Duration) -> Option<u64> {
        overtaking.due(now).map(|(barrier, _)| barrier.checkpoint.0)
    }

    #[test]
    fn a_checkpoint_is_due_after_its_time_and_a_task_does_not_sleep_over_it() {
        let mut overtaking = Overtaking::default();
        assert_eq!(overtaking.sleep(SECOND, SECOND), SECOND);
        overtaking.on_trigger(barrier(3), Some(SECOND), SECOND);
        let nearly = Duration::from_millis(1900);
        assert_eq!(due(&overtaking, nearly), None);
        assert_eq!(overtaking.sleep(nearly, SECOND), Duration::from_millis(100));
        assert_eq!(due(&overtaking, 2 * SECOND), Some(3));
        assert_eq!(
            overtaking.sleep(2 * SECOND, SECOND),
            SECOND,
            "barriers wake it"
        );
        // A new leader repeats the trigger: it has waited all along.
        overtaking.on_trigger(barrier(3), Some(SECOND), 2 * SECOND);
        assert_eq!(due(&overtaking, 2 * SECOND), Some(3));
        overtaking.over(CheckpointId(2));
        assert_eq!(due(&overtaking, 2 * SECOND), Some(3));
        overtaking.over(CheckpointId(3));
        assert!(overtaking.waiting().is_none());
    }

    #[test]
    fn a_later_checkpoint_takes_the_place_of_an_earlier_and_one_to_be_aligned_is_never_due() {
        let mut overtaking = Overtaking::default();
        overtaking.on_trigger(barrier(3), Some(Duration::ZERO), SECOND);
        overtaking.on_trigger(barrier(4), None, SECOND);
        overtaking.on_trigger(barrier(3), Some(Duration::ZERO), SECOND);
        assert_eq!(due(&overtaking, 99 * SECOND), None);
        assert_eq!(overtaking.sleep(99 * SECOND, SECOND), SECOND);
        assert_eq!(overtaking.waiting().unwrap().0.checkpoint.0, 4);
    }
}
