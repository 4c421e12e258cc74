//! What must hold in every state, and what must happen in some.

use stateright::Property;

use crate::Protocol;
use crate::names::{CHECKPOINTS_MAX, Interval, SUBTASKS};
use crate::state::{Decided, Decision, State, Status};

pub const FILES_EXIST: &str = "every object of the retained checkpoint exists";
pub const ONCE: &str = "the rows of an interval are visible of one attempt at most";
pub const COVERED: &str = "nothing is visible that no complete checkpoint covers";
pub const EXACTLY_ONCE: &str =
    "what the retained checkpoint has read is visible or will be by it, exactly once";
pub const FINISHED_WHOLE: &str = "a job that has finished has all its output visible";
pub const IDS_RISE: &str = "checkpoint ids rise";
pub const IDS_DECIDED: &str = "nobody hears of a checkpoint before it is decided";
pub const ENDED: &str = "a job that has ended never runs again";
pub const OFFICE: &str = "only who is in office decides";
pub const STALE_DELETE: &str = "a deposed leader deletes nothing that is or may yet be needed";

pub const ADOPTED: &str =
    "a later leader completes a checkpoint with acks that an earlier one has had";

/// All of them. The second kind keeps the first from holding because nothing happens.
pub fn all() -> Vec<Property<Protocol>> {
    let mut all = vec![
        Property::always(FILES_EXIST, |_, state: &State| {
            let retained = state.decided.retained;
            retained.is_none_or(|retained| state.storage.has(retained.objects()))
        }),
        Property::always(ONCE, |_, state: &State| {
            intervals().all(|(subtask, interval)| state.visible.times(subtask, interval) <= 1)
        }),
        Property::always(COVERED, |_, state: &State| {
            state.decided.covered.has(state.visible)
        }),
        Property::always(EXACTLY_ONCE, |_, state: &State| {
            let retained = state.decided.retained;
            retained.is_none_or(|retained| {
                intervals().all(|(subtask, interval)| {
                    let of = retained.states[subtask];
                    let somewhere = state.visible.with(of.prepared);
                    interval >= of.position || somewhere.times(subtask, interval) == 1
                })
            })
        }),
        Property::always(FINISHED_WHOLE, |_, state: &State| {
            state.decided.status != Status::Finished
                || intervals().all(|(subtask, interval)| {
                    let read = interval < state.decided.finished_at[subtask];
                    state.visible.times(subtask, interval) == usize::from(read)
                })
        }),
        Property::always(IDS_RISE, |_, state: &State| !state.breaches.id_not_above),
        Property::always(IDS_DECIDED, |_, state: &State| {
            !state.breaches.heard_of_undecided
        }),
        Property::always(ENDED, |_, state: &State| !state.breaches.revived),
        Property::always(OFFICE, |_, state: &State| {
            !state.breaches.decided_out_of_office
        }),
        Property::always(STALE_DELETE, |_, state: &State| {
            !state.breaches.stale_delete
        }),
    ];
    all.extend(sometimes());
    all
}

pub fn sometimes() -> [Property<Protocol>; 9] {
    [
        Property::sometimes(ADOPTED, |_, state: &State| {
            let earlier = state.leaders[0].acks.iter().all(Option::is_some);
            let retained = state.decided.retained;
            earlier && retained.is_some_and(|retained| retained.adopted && retained.id == 1)
        }),
        Property::sometimes(
            "a job finishes after a change of leader and a restart",
            |_, state: &State| {
                let job = &state.decided;
                job.status == Status::Finished && job.attempt > 1 && job.epoch > 1
            },
        ),
        Property::sometimes(
            "a job is canceled that had a checkpoint",
            |_, state: &State| {
                state.decided.status == Status::Canceled && !state.decided.retired.is_empty()
            },
        ),
        Property::sometimes(
            "retired files are deleted while others are retained",
            |_, state: &State| {
                let Decided {
                    retained, retired, ..
                } = state.decided;
                retained.is_some() && !retired.is_empty() && retired.and(state.storage).is_empty()
            },
        ),
        Property::sometimes(
            "a deposed leader knows of files to delete",
            |_, state: &State| {
                let stale = state.leaders[0].stale;
                stale.is_some_and(|view| !view.retired.and(state.storage).is_empty())
            },
        ),
        Property::sometimes(
            "a restored task makes visible what an attempt before has prepared",
            |_, state: &State| {
                (0..SUBTASKS).any(|subtask| {
                    let before = state.task(subtask, 1);
                    let uncommitted = before.is_some_and(|task| task.committed == 0);
                    let deployed = state.task(subtask, 2).is_some();
                    uncommitted && deployed && state.visible.times(subtask, 0) == 1
                })
            },
        ),
        Property::sometimes(
            "a task of an older attempt listens to a deposed leader beside one of the present",
            |_, state: &State| {
                let [older, present] = [1, 2].map(|attempt| state.task(0, attempt));
                older.zip(present).is_some_and(|(older, present)| {
                    older.follows < present.follows && older.held.is_some()
                })
            },
        ),
        Property::sometimes(
            "a file of a checkpoint that was given up is part of a later one",
            |_, state: &State| {
                let given_up_before = state.decided.completed == 1;
                state.decided.retained.is_some_and(|retained| {
                    let mut files = retained.objects().files();
                    given_up_before && files.any(|file| file.checkpoint < retained.id)
                })
            },
        ),
        Property::sometimes(
            "a decision is applied while its proposer tries again",
            |_, state: &State| {
                let again = state.leaders.last().and_then(|leader| leader.proposed);
                let pending = state.decided.pending.map(|pending| pending.id);
                matches!(again, Some(Decision::Begin { id, .. }) if pending == Some(id))
            },
        ),
    ]
}

fn intervals() -> impl Iterator<Item = (usize, Interval)> {
    let numbers = 0..CHECKPOINTS_MAX as Interval;
    (0..SUBTASKS).flat_map(move |subtask| numbers.clone().map(move |interval| (subtask, interval)))
}
