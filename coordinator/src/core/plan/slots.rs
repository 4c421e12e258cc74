//! The slots that are free, counted once a plan however many jobs wait for some. What the start of a job takes is counted
//! from the moment at which it is planned.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use flott_proto::ids::{JobId, Namespace, TaskManagerId};

use super::{Presence, Situation};
use crate::core::job::JobStatus;
use crate::core::namespace::Usage;

/// Slots of one TaskManager: how many it has, and which job holds which.
#[derive(Debug, Default)]
struct Held<'a> {
    slots: u32,
    by_job: BTreeMap<&'a JobId, BTreeSet<u32>>,
    count: u32,
}

impl<'a> Held<'a> {
    fn hold(&mut self, job: &'a JobId, index: u32) {
        if self.by_job.entry(job).or_default().insert(index) {
            self.count += 1;
        }
    }
}

/// What is free, less what this plan has given away already.
#[derive(Debug)]
pub(super) struct Slots<'a> {
    situation: Situation<'a>,
    /// Counted when the first job asks.
    counted: OnceCell<BTreeMap<&'a TaskManagerId, Held<'a>>>,
    /// What this plan, or one before it, lets start, by namespace: its quota counts it once the decisions are applied.
    started: BTreeMap<&'a Namespace, u32>,
}

impl<'a> Slots<'a> {
    pub(super) fn new(situation: Situation<'a>) -> Self {
        let mut started: BTreeMap<_, u32> = BTreeMap::new();
        for (id, slots) in &situation.observed.starting {
            // Once it is applied, the namespace's usage has it.
            if let Some(job) = situation.state.jobs.get(id)
                && matches!(job.status, JobStatus::Created | JobStatus::Restarting)
            {
                let more = (slots.len() as u32).saturating_sub(Usage::of(job).slots);
                *started.entry(&job.namespace).or_default() += more;
            }
        }
        Self {
            situation,
            counted: OnceCell::new(),
            started,
        }
    }

    /// Slots of the TaskManagers that are there, less those that other jobs hold, get, or still have tasks in.
    pub(super) fn free(&self, but_for: &JobId) -> BTreeMap<TaskManagerId, u32> {
        let counted = self.counted.get_or_init(|| count(self.situation));
        let free = counted.iter().map(|(id, held)| {
            let own = held.by_job.get(but_for).map_or(0, BTreeSet::len) as u32;
            let free = held.slots.saturating_sub(held.count - own);
            ((*id).clone(), free)
        });
        free.collect()
    }

    /// Slots that jobs of the namespace get and that its usage does not have yet.
    pub(super) fn started_in(&self, namespace: &Namespace) -> u32 {
        self.started.get(namespace).copied().unwrap_or(0)
    }

    /// A job gets the slots: nobody else does in this plan. `more` of them are new to its namespace.
    pub(super) fn take(
        &mut self,
        namespace: &'a Namespace,
        job: &'a JobId,
        placed: &BTreeMap<u32, TaskManagerId>,
        more: u32,
    ) {
        *self.started.entry(namespace).or_default() += more;
        let Some(counted) = self.counted.get_mut() else {
            return;
        };
        for (index, task_manager) in placed {
            if let Some(held) = counted.get_mut(task_manager) {
                held.hold(job, *index);
            }
        }
    }
}

fn count(situation: Situation<'_>) -> BTreeMap<&TaskManagerId, Held<'_>> {
    let mut counted: BTreeMap<&TaskManagerId, Held<'_>> = BTreeMap::new();
    for (id, task_manager) in &situation.observed.task_managers {
        if task_manager.connection.is_none() || situation.presence(id) != Presence::There {
            continue;
        }
        let held = counted.entry(id).or_default();
        held.slots = task_manager.slots;
        for job in task_manager.tasks.jobs() {
            let live = task_manager.tasks.of_job(job);
            for (_, subtask, _) in live.filter(|(_, _, view)| view.is_live()) {
                held.hold(job, subtask.subtask);
            }
        }
    }
    for job in situation.state.active_jobs() {
        for (subtask, place) in &job.assignments {
            if let Some(held) = counted.get_mut(&place.task_manager) {
                held.hold(&job.id, subtask.subtask);
            }
        }
    }
    for (job, slots) in &situation.observed.starting {
        for (task_manager, index) in slots {
            if let Some(held) = counted.get_mut(task_manager) {
                held.hold(job, *index);
            }
        }
    }
    counted
}
