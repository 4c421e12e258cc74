//! What there is at a moment: decided, in the leaders' heads, with the tasks, in storage, visible.

use crate::names::{
    Attempt, CHECKPOINTS_MAX, Checkpoint, Epoch, File, Interval, Objects, Output, SUBTASKS,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    Running,
    Restarting,
    Cancelling,
    Finished,
    Canceled,
}

impl Status {
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Finished | Self::Canceled)
    }
}

/// What one subtask's acknowledgement says, and a checkpoint has of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubtaskState {
    pub files: Objects,
    /// Intervals read.
    pub position: Interval,
    /// Written and closed, to become visible with this checkpoint at the latest.
    pub prepared: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pending {
    pub id: Checkpoint,
    pub attempt: Attempt,
    /// After it the job ends.
    pub is_final: bool,
    pub begun_in: Epoch,
}

/// A completed checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Completed {
    pub id: Checkpoint,
    pub states: [SubtaskState; SUBTASKS],
    /// Another leader began it.
    pub adopted: bool,
}

impl Completed {
    pub fn objects(&self) -> Objects {
        let files = self.states.iter().map(|state| state.files);
        files.fold(Objects::metadata(self.id), Objects::with)
    }
}

/// The replicated state: `ClusterState` with one job, of whose checkpoints the newest is retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decided {
    /// Who is in office.
    pub epoch: Epoch,
    pub status: Status,
    pub attempt: Attempt,
    pub last_id: Checkpoint,
    pub pending: Option<Pending>,
    pub retained: Option<Completed>,
    pub retired: Objects,
    /// The checkpoint with which the job ends, or 0.
    pub final_checkpoint: Checkpoint,
    /// Told only to the properties: everything that a completed checkpoint has ever covered.
    pub covered: Output,
    /// Told only to the properties: how many have completed.
    pub completed: u8,
    /// Told only to the properties: how far each subtask had read when the job finished.
    pub finished_at: [Interval; SUBTASKS],
}

/// A decision on its way through the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    Begin {
        id: Checkpoint,
        attempt: Attempt,
        is_final: bool,
    },
    Complete {
        id: Checkpoint,
        attempt: Attempt,
        states: [SubtaskState; SUBTASKS],
    },
    Abort {
        id: Checkpoint,
    },
    RecordFailure {
        attempt: Attempt,
    },
    StartAttempt {
        attempt: Attempt,
    },
    End {
        attempt: Attempt,
        status: Status,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ack {
    pub checkpoint: Checkpoint,
    pub state: SubtaskState,
}

/// A JobManager that leads, or believes that it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Leader {
    pub epoch: Epoch,
    /// Of one that was deposed and does not know it: the state that it saw last.
    pub stale: Option<Decided>,
    /// Acks for the pending checkpoint.
    pub acks: [Option<SubtaskState>; SUBTASKS],
    /// Its decision that is under way.
    pub proposed: Option<Decision>,
}

impl Leader {
    pub fn of(epoch: Epoch) -> Self {
        Self {
            epoch,
            stale: None,
            acks: [None; SUBTASKS],
            proposed: None,
        }
    }

    /// What it proposes to complete, if it does.
    pub fn completes(&self) -> Option<(Checkpoint, [SubtaskState; SUBTASKS])> {
        match self.proposed {
            Some(Decision::Complete { id, states, .. }) => Some((id, states)),
            _ => None,
        }
    }
}

/// One attempt of one subtask. It may be dead: then it does nothing more, which any task may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    /// The leader that its TaskManager listens to and tells.
    pub follows: Epoch,
    /// The newest checkpoint in which it has taken part.
    pub seen: Checkpoint,
    pub committed: Checkpoint,
    pub position: Interval,
    pub files: Objects,
    /// By checkpoint, the first at 0: the interval that its sink has closed for it and not committed.
    pub prepared: [Option<Interval>; CHECKPOINTS_MAX],
    /// Repeated to every leader until the checkpoint's fate is known.
    pub held: Option<Ack>,
}

impl Task {
    /// Goes on from that checkpoint, or from nothing.
    pub fn restored(follows: Epoch, subtask: usize, from: Option<&Completed>) -> Self {
        let state = from.map_or_else(SubtaskState::default, |from| from.states[subtask]);
        let id = from.map_or(0, |from| from.id);
        Self {
            follows,
            seen: id,
            committed: id,
            position: state.position,
            files: state.files,
            prepared: [None; CHECKPOINTS_MAX],
            held: None,
        }
    }

    /// Takes its snapshot, uploads it, and holds its ack. Of the files so far it needs the newest.
    pub fn take_part(
        &mut self,
        subtask: usize,
        attempt: Attempt,
        checkpoint: Checkpoint,
    ) -> Objects {
        let written = Objects::file(File {
            subtask,
            attempt,
            checkpoint,
        });
        self.seen = checkpoint;
        self.files = self.files.newest().with(written);
        self.prepared[usize::from(checkpoint - 1)] = Some(self.position);
        self.position += 1;
        let prepared = self.prepared.iter().flatten();
        let prepared = prepared.map(|interval| Output::of(subtask, attempt, *interval));
        self.held = Some(Ack {
            checkpoint,
            state: SubtaskState {
                files: self.files,
                position: self.position,
                prepared: prepared.fold(Output::default(), Output::with),
            },
        });
        written
    }

    /// What it prepared for that checkpoint and earlier ones becomes visible.
    pub fn commit(&mut self, subtask: usize, attempt: Attempt, checkpoint: Checkpoint) -> Output {
        self.committed = checkpoint;
        if self.held.is_some_and(|held| held.checkpoint <= checkpoint) {
            self.held = None;
        }
        let prepared = self.prepared[..usize::from(checkpoint)].iter_mut();
        let visible = prepared.filter_map(Option::take);
        visible.fold(Output::default(), |all, interval| {
            all.with(Output::of(subtask, attempt, interval))
        })
    }
}

/// What must never happen, and shows in no state afterwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Breaches {
    /// Somebody decided who is not in office.
    pub decided_out_of_office: bool,
    /// A checkpoint got an id that is not above all before.
    pub id_not_above: bool,
    /// Somebody was told of a checkpoint that nobody had decided to begin.
    pub heard_of_undecided: bool,
    /// A job that had ended was changed.
    pub revived: bool,
    /// Somebody who was deposed deleted what is or may yet be needed.
    pub stale_delete: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub decided: Decided,
    /// In the order of their elections: the last is in office.
    pub leaders: Vec<Leader>,
    /// A decision whose answer was lost: it may yet come out of the log.
    pub lost: Option<(Epoch, Decision)>,
    pub answers_lost: u8,
    /// By subtask, by attempt, the first at 0.
    pub tasks: [Vec<Option<Task>>; SUBTASKS],
    pub storage: Objects,
    pub visible: Output,
    pub breaches: Breaches,
}

impl State {
    /// What a leader takes for decided.
    pub fn view(&self, leader: usize) -> Decided {
        self.leaders[leader].stale.unwrap_or(self.decided)
    }

    pub fn task(&self, subtask: usize, attempt: Attempt) -> Option<&Task> {
        let attempts = self.tasks[subtask].get(usize::from(attempt).checked_sub(1)?)?;
        attempts.as_ref()
    }

    pub fn task_mut(&mut self, subtask: usize, attempt: Attempt) -> &mut Task {
        let task = &mut self.tasks[subtask][usize::from(attempt - 1)];
        task.as_mut().expect("it was deployed")
    }

    /// Which attempts of a subtask were deployed.
    pub fn deployed(&self, subtask: usize) -> impl Iterator<Item = Attempt> {
        let attempts = self.tasks[subtask].iter().zip(1..);
        attempts.filter_map(|(task, attempt)| task.is_some().then_some(attempt))
    }

    /// What the retained checkpoint has, and what may yet become part of one.
    pub fn live(&self) -> Objects {
        let Decided {
            status,
            attempt,
            retained,
            ..
        } = &self.decided;
        let retained = retained.as_ref().map_or(Objects::NONE, Completed::objects);
        if status.is_terminal() {
            return retained;
        }
        let tasks = (0..SUBTASKS).filter_map(|subtask| self.task(subtask, *attempt));
        let tasks: Vec<&Task> = tasks.collect();
        let held = tasks.iter().filter_map(|task| task.held);
        let held = held.map(|ack| ack.state.files);
        let newest = tasks.iter().map(|task| task.files.newest());
        held.chain(newest).fold(retained, Objects::with)
    }
}
