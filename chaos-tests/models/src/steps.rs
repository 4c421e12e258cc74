//! Everything that may happen next.

use stateright::{Model, Property};

use crate::names::{Attempt, Objects, Output, SUBTASKS};
use crate::state::{
    Ack, Breaches, Completed, Decided, Decision, Leader, Pending, State, Status, Task,
};
use crate::{Defect, Protocol, properties};

/// One thing that happens. Leaders and subtasks by their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// coordinator/src/leader/mod.rs, `take_office`: `ActivateJobManager` is applied. Who led before goes on, not knowing it.
    Elect,
    /// worker/src/gateway.rs: a TaskManager registers with a later leader, and refuses earlier ones from then on.
    Follow(usize, Attempt, usize),
    /// core/plan/: the leader in office proposes something.
    Propose(Decision),
    /// core/apply/: that comes out of the log.
    Apply,
    /// It never will.
    Drop,
    /// Nor is its proposer told that it will.
    LoseAnswer,
    ApplyLost,
    /// A deposed leader decides something from what it saw last.
    ApplyLate(usize, Decision),
    /// The user cancels the job: core/apply/job.rs, `cancel`.
    Cancel,
    /// core/plan/deploy.rs: a task begins, from the retained checkpoint; its sink makes visible what that has prepared
    /// (worker/src/connectors/filesystem/sink.rs).
    Deploy(usize, usize),
    /// core/plan/checkpoint.rs, `trigger`; worker/src/task/checkpoint.rs; statestore/src/snapshot/.
    Trigger(usize, usize, Attempt, Pending),
    /// core/checkpoint/pending.rs, `on_ack`.
    Acknowledge(usize, usize, Attempt),
    /// core/plan/checkpoint.rs, `announce`; the sink's commit.
    Announce(usize, usize, Attempt, u8),
    /// coordinator/src/leader/carry_out.rs, `delete_files`: what is retired.
    Delete(usize),
    /// core/apply/checkpoint.rs, `forget_files`.
    Forget,
    /// core/orphans.rs, when a user asks for it.
    Collect(usize),
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let decided = Decided {
            epoch: 1,
            status: Status::Running,
            attempt: 1,
            last_id: 0,
            pending: None,
            retained: None,
            retired: Objects::NONE,
            final_checkpoint: 0,
            covered: Output::default(),
            completed: 0,
            finished_at: [0; SUBTASKS],
        };
        let no_tasks = vec![None; usize::from(self.bounds.attempts)];
        let mut state = State {
            decided,
            leaders: vec![Leader::of(1)],
            lost: None,
            answers_lost: 0,
            tasks: [no_tasks.clone(), no_tasks],
            storage: Objects::NONE,
            visible: Output::default(),
            breaches: Breaches::default(),
        };
        for subtask in 0..SUBTASKS {
            state.tasks[subtask][0] = Some(Task::restored(1, subtask, None));
        }
        vec![state]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.leaders.len() < self.bounds.leaders {
            steps.push(Step::Elect);
        }
        for leader in 0..state.leaders.len() {
            self.of_leader(state, leader, steps);
        }
        let in_office = state.leaders.last().expect("somebody was elected");
        match in_office.proposed {
            None => {
                let leader = state.leaders.len() - 1;
                steps.extend(self.decisions(state, leader).into_iter().map(Step::Propose));
            }
            Some(_) => {
                steps.extend([Step::Apply, Step::Drop]);
                if state.lost.is_none() && state.answers_lost < self.bounds.answers_lost {
                    steps.push(Step::LoseAnswer);
                }
            }
        }
        if state.lost.is_some() {
            steps.push(Step::ApplyLost);
        }
        if matches!(state.decided.status, Status::Running | Status::Restarting) {
            steps.push(Step::Cancel);
        }
        let gone = state.decided.retired.without(state.storage);
        if !gone.is_empty() {
            steps.push(Step::Forget);
        }
    }

    fn next_state(&self, before: &State, step: Step) -> Option<State> {
        let mut state = before.clone();
        self.take(&mut state, step);
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}

impl Protocol {
    fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    /// What that leader may do by itself, and with the tasks that listen to it.
    fn of_leader(&self, state: &State, leader: usize, steps: &mut Vec<Step>) {
        let Leader {
            epoch,
            stale,
            proposed,
            ..
        } = state.leaders[leader];
        let view = state.view(leader);
        if stale.is_some() {
            let late = self.decisions(state, leader).into_iter();
            steps.extend(late.map(|decision| Step::ApplyLate(leader, decision)));
        }
        if !self.deletes(state, leader).and(state.storage).is_empty() {
            steps.push(Step::Delete(leader));
        }
        if !self.orphans(state, leader).is_empty() {
            steps.push(Step::Collect(leader));
        }
        let heard_of = match proposed {
            Some(Decision::Begin {
                id,
                attempt,
                is_final,
            }) if self.has(Defect::TriggerBeforeApplied) => Some(Pending {
                id,
                attempt,
                is_final,
                begun_in: epoch,
            }),
            _ => view.pending,
        };
        let mut complete = view.retained.map_or(0, |retained| retained.id);
        if self.has(Defect::CommitBeforeApplied)
            && let Some((id, _)) = state.leaders[leader].completes()
        {
            complete = id;
        }
        for subtask in 0..SUBTASKS {
            if view.status == Status::Running && state.task(subtask, view.attempt).is_none() {
                steps.push(Step::Deploy(leader, subtask));
            }
            for attempt in state.deployed(subtask) {
                let Some(task) = state.task(subtask, attempt) else {
                    continue;
                };
                if task.follows < epoch {
                    steps.push(Step::Follow(subtask, attempt, leader));
                }
                if task.follows != epoch {
                    continue;
                }
                let fits = |of: Attempt| of == attempt || self.has(Defect::AckOfOlderAttempt);
                if let Some(pending) = heard_of
                    && fits(pending.attempt)
                    && task.seen < pending.id
                {
                    steps.push(Step::Trigger(leader, subtask, attempt, pending));
                }
                if self.counts(state, leader, subtask, attempt) {
                    steps.push(Step::Acknowledge(leader, subtask, attempt));
                }
                if attempt == view.attempt && task.committed < complete {
                    steps.push(Step::Announce(leader, subtask, attempt, complete));
                }
            }
        }
    }

    /// Whether the ack that a task holds is for the checkpoint that its leader has pending.
    fn counts(&self, state: &State, leader: usize, subtask: usize, attempt: Attempt) -> bool {
        let pending = state.view(leader).pending;
        let held = state.task(subtask, attempt).and_then(|task| task.held);
        let (Some(pending), Some(Ack { checkpoint, .. })) = (pending, held) else {
            return false;
        };
        let of_checkpoint = checkpoint == pending.id || self.has(Defect::AckOfOlderCheckpoint);
        let of_attempt = attempt == pending.attempt || self.has(Defect::AckOfOlderAttempt);
        of_checkpoint && of_attempt && state.leaders[leader].acks[subtask].is_none()
    }

    /// What that leader may propose, as far as it knows.
    fn decisions(&self, state: &State, leader: usize) -> Vec<Decision> {
        let view = state.view(leader);
        let attempt = view.attempt;
        let mut decisions = Vec::new();
        match view.status {
            Status::Running => {
                if attempt < self.bounds.attempts {
                    decisions.push(Decision::RecordFailure { attempt });
                }
                if let Some(Pending { id, .. }) = view.pending {
                    decisions.push(Decision::Abort { id });
                    if let [Some(first), Some(second)] = state.leaders[leader].acks {
                        decisions.push(Decision::Complete {
                            id,
                            attempt,
                            states: [first, second],
                        });
                    }
                } else if view.final_checkpoint != 0 {
                    if self.all_committed(state, leader) {
                        decisions.push(Decision::End {
                            attempt,
                            status: Status::Finished,
                        });
                    }
                } else {
                    let newest = match view.retained {
                        Some(retained) if self.has(Defect::IdReused) => retained.id,
                        None if self.has(Defect::IdReused) => 0,
                        _ => view.last_id,
                    };
                    if newest < self.bounds.checkpoints {
                        let begin = |is_final| Decision::Begin {
                            id: newest + 1,
                            attempt,
                            is_final,
                        };
                        decisions.extend([begin(false), begin(true)]);
                    }
                }
            }
            Status::Restarting => decisions.push(Decision::StartAttempt {
                attempt: attempt + 1,
            }),
            Status::Cancelling => decisions.push(Decision::End {
                attempt,
                status: Status::Canceled,
            }),
            Status::Finished | Status::Canceled => {}
        }
        decisions
    }

    /// Whether all tasks have told that leader that they have committed the final checkpoint.
    fn all_committed(&self, state: &State, leader: usize) -> bool {
        let view = state.view(leader);
        let epoch = state.leaders[leader].epoch;
        let mut tasks = (0..SUBTASKS).map(|subtask| state.task(subtask, view.attempt));
        self.has(Defect::EndBeforeCommitted)
            || tasks.all(|task| {
                task.is_some_and(|task| {
                    task.follows == epoch && task.committed >= view.final_checkpoint
                })
            })
    }

    /// What that leader deletes as retired.
    fn deletes(&self, state: &State, leader: usize) -> Objects {
        let view = state.view(leader);
        let mut unneeded = view.retired;
        if self.has(Defect::DeleteBeforeRetired)
            && let Some((id, states)) = state.leaders[leader].completes()
            && let Some(retained) = view.retained
        {
            let next = Completed {
                id,
                states,
                adopted: false,
            };
            unneeded = unneeded.with(retained.objects().without(next.objects()));
        }
        if self.has(Defect::DeposedLeaderDeletes) && state.leaders[leader].stale.is_some() {
            unneeded = unneeded.with(state.storage.without(needed(&view)));
        }
        unneeded
    }

    /// What that leader takes for orphans.
    fn orphans(&self, state: &State, leader: usize) -> Objects {
        let view = state.view(leader);
        let mut present = view.attempt;
        if view.status.is_terminal() || self.has(Defect::OpenWriterCollected) {
            present += 1;
        }
        let closed = state.storage.of_closed_writers(present);
        closed.without(needed(&view).with(view.retired))
    }

    fn take(&self, state: &mut State, step: Step) {
        match step {
            Step::Elect => {
                let decided = state.decided;
                let deposed = state.leaders.last_mut().expect("somebody was elected");
                deposed.stale = Some(decided);
                // It may still propose the same, late.
                deposed.proposed = None;
                state.decided.epoch += 1;
                state.leaders.push(Leader::of(state.decided.epoch));
            }
            Step::Follow(subtask, attempt, leader) => {
                state.task_mut(subtask, attempt).follows = state.leaders[leader].epoch;
            }
            Step::Propose(decision) => {
                if let Decision::Complete { id, .. } = decision {
                    // leader/carry_out.rs, `write_metadata`, comes first.
                    state.storage = state.storage.with(Objects::metadata(id));
                }
                in_office(state).proposed = Some(decision);
            }
            Step::Apply => {
                let epoch = state.decided.epoch;
                if let Some(decision) = in_office(state).proposed.take() {
                    state.decide(self.defect, epoch, decision);
                }
            }
            Step::Drop => in_office(state).proposed = None,
            Step::LoseAnswer => {
                let epoch = state.decided.epoch;
                let decision = in_office(state).proposed.take();
                state.lost = decision.map(|decision| (epoch, decision));
                state.answers_lost += 1;
            }
            Step::ApplyLost => {
                if let Some((epoch, decision)) = state.lost.take() {
                    state.decide(self.defect, epoch, decision);
                }
            }
            Step::ApplyLate(leader, decision) => {
                let epoch = state.leaders[leader].epoch;
                if let Decision::Complete { id, .. } = decision {
                    state.storage = state.storage.with(Objects::metadata(id));
                }
                state.decide(self.defect, epoch, decision);
            }
            Step::Cancel => {
                state.decided.pending = None;
                state.decided.status = Status::Cancelling;
                in_office(state).acks = Default::default();
            }
            Step::Deploy(leader, subtask) => {
                let view = state.view(leader);
                let epoch = state.leaders[leader].epoch;
                let task = Task::restored(epoch, subtask, view.retained.as_ref());
                state.tasks[subtask][usize::from(view.attempt - 1)] = Some(task);
                if let Some(retained) = view.retained
                    && !self.has(Defect::RestoreWithoutCommit)
                {
                    let prepared = retained.states[subtask].prepared;
                    state.visible = state.visible.with(prepared);
                }
            }
            Step::Trigger(_, subtask, attempt, pending) => {
                state.breaches.heard_of_undecided |= pending.id > state.decided.last_id;
                let task = state.task_mut(subtask, attempt);
                let written = task.take_part(subtask, attempt, pending.id);
                state.storage = state.storage.with(written);
            }
            Step::Acknowledge(leader, subtask, attempt) => {
                let task = state.task_mut(subtask, attempt);
                let held = task.held.map(|ack| ack.state);
                if self.has(Defect::AckNotHeld) {
                    task.held = None;
                }
                state.leaders[leader].acks[subtask] = held;
            }
            Step::Announce(_, subtask, attempt, complete) => {
                let task = state.task_mut(subtask, attempt);
                let visible = task.commit(subtask, attempt, complete);
                state.visible = state.visible.with(visible);
            }
            Step::Delete(leader) => {
                let deleted = self.deletes(state, leader);
                remove(state, leader, deleted);
            }
            Step::Forget => {
                state.decided.retired = state.decided.retired.and(state.storage);
            }
            Step::Collect(leader) => {
                let deleted = self.orphans(state, leader);
                remove(state, leader, deleted);
            }
        }
    }
}

fn in_office(state: &mut State) -> &mut Leader {
    state.leaders.last_mut().expect("somebody was elected")
}

/// What a leader knows that somebody needs.
fn needed(view: &Decided) -> Objects {
    view.retained
        .as_ref()
        .map_or(Objects::NONE, Completed::objects)
}

fn remove(state: &mut State, leader: usize, deleted: Objects) {
    let is_stale = state.leaders[leader].stale.is_some();
    state.breaches.stale_delete |= is_stale && !deleted.and(state.live()).is_empty();
    state.storage = state.storage.without(deleted);
}
