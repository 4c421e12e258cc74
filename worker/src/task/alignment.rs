//! How a running task comes to its snapshots: it aligns the barriers of its channels, or overtakes with them.

use std::time::Duration;

use flott_node::Mutant;
use flott_proto::ids::CheckpointId;
use flott_proto::state_handle::Alignment;
use tracing::info;

use super::checkpoint::Snapshot;
use super::run::Task;
use crate::barrier::aligner::Step;
use crate::channel_state::{ChannelContent, ChannelState};
use crate::network::Barrier;
use crate::{Error, channel_state};

impl Task {
    /// The leader has begun a checkpoint, or a new one repeats it. A source, which no barrier reaches, takes its snapshot in
    /// the next step of the run loop; another task if it does not align in time.
    pub(super) fn on_trigger(&mut self, barrier: Barrier, unaligned_after: Option<Duration>) {
        let checkpoint = barrier.checkpoint;
        // A second snapshot under the same id would be of a later position than the barrier that went out.
        let is_new = self.progress.saw(checkpoint);
        // Others may have seen its barrier and still be aligning.
        let is_new = is_new || !self.chain.is_source() && checkpoint > self.taken;
        if is_new {
            let unaligned_after = unaligned_after.filter(|_| self.overtakes);
            let now = self.clock.monotonic();
            self.overtaking.on_trigger(barrier, unaligned_after, now);
        }
    }

    /// The leader has given the checkpoint up.
    pub(super) fn on_aborted(&mut self, checkpoint: CheckpointId) {
        self.checkpoints.on_aborted(checkpoint);
        self.overtaking.over(checkpoint);
        let aligner = self.aligner.as_mut();
        if aligner.is_some_and(|aligner| aligner.on_aborted(checkpoint)) {
            self.gate.unblock_all();
        }
    }

    /// Takes the snapshot that the task was told of, if the time for it has come. `clear`: nothing waits to be sent.
    pub(super) fn come_to_checkpoint(&mut self, clear: bool) -> Result<(), Error> {
        if self.overtaking.waiting().is_none() {
            return Ok(());
        }
        let now = self.clock.monotonic();
        let may_take_now = if self.chain.is_source() && clear {
            self.overtaking.waiting()
        } else {
            self.overtaking.due(now)
        };
        let Some((barrier, since)) = may_take_now else {
            return Ok(());
        };
        let (barrier, waited) = (barrier.clone(), now.saturating_sub(since));
        let mut input = Vec::new();
        if let Some(aligner) = &mut self.aligner {
            let Some(overtaken) = self.gate.overtaken(barrier.checkpoint) else {
                return Ok(());
            };
            if !self.restored.may_be_stored(overtaken.len()) {
                return Ok(());
            }
            if !aligner.on_overtaken(barrier.checkpoint) {
                self.overtaking.over(barrier.checkpoint);
                return Ok(());
            }
            input = channel_state::contents(&self.graph, self.restored.before(overtaken));
        }
        self.progress.saw(barrier.checkpoint);
        self.snapshot(barrier, waited, input)?;
        self.gate.unblock_all();
        Ok(())
    }

    pub(super) fn on_barrier(&mut self, channel: usize, barrier: Barrier) -> Result<(), Error> {
        self.progress.saw(barrier.checkpoint);
        let aligner = self
            .aligner
            .as_mut()
            .expect("barriers come through channels");
        let (id, was_aligning) = (barrier.checkpoint, aligner.aligning().is_some());
        match aligner.on_barrier(channel, barrier) {
            Step::Block => {
                if !was_aligning {
                    self.aligning_since = self.clock.monotonic();
                }
                self.gate.block(channel);
            }
            Step::Snapshot(barrier) => {
                let now = self.clock.monotonic();
                let since = if was_aligning {
                    self.aligning_since
                } else {
                    now
                };
                self.snapshot(barrier, now.saturating_sub(since), Vec::new())?;
                self.gate.unblock_all();
            }
            Step::Abort { superseded } => {
                info!(checkpoint = %superseded, by = %id, "alignment given up");
                self.gate.unblock_all();
                self.aligning_since = self.clock.monotonic();
                self.gate.block(channel);
            }
            Step::Ignore => (),
        }
        Ok(())
    }

    /// The synchronous part of a checkpoint, and the barrier to those after this task: ahead of what waits to be sent, which
    /// is stored then, as is the `input` that the barriers before this task overtook.
    fn snapshot(
        &mut self,
        barrier: Barrier,
        alignment: Duration,
        input: Vec<ChannelContent>,
    ) -> Result<(), Error> {
        assert!(barrier.checkpoint > self.taken, "checkpoints rise");
        self.taken = barrier.checkpoint;
        self.overtaking.over(barrier.checkpoint);
        let start = self.clock.monotonic();
        let (operators, keyed) = self.chain.snapshot(barrier.checkpoint)?;
        if Mutant::CommittedWithSnapshot.is_planted() {
            self.chain.commit(barrier.checkpoint)?;
        }
        let output = self.output.barrier(&barrier);
        let mut channels = ChannelState { input, output };
        if Mutant::OvertakenNotStored.is_planted() {
            channels = ChannelState::default();
        }
        let sync = self.clock.monotonic().saturating_sub(start);
        let alignment = Alignment {
            duration: alignment,
            unaligned: !channels.is_empty(),
            in_flight_bytes: channels.cost().bytes,
        };
        self.checkpoints.start(Snapshot {
            barrier,
            operators,
            keyed,
            channels,
            sync,
            alignment,
        });
        Ok(())
    }
}
