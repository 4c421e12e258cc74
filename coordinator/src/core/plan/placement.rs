//! Where the present attempt of a job runs and what is reported of it: looked up once for all that is planned for the
//! job after an event.

use std::collections::BTreeMap;

use flott_proto::ids::{SubtaskId, TaskManagerId};

use super::{Presence, Situation};
use crate::core::job::Job;
use crate::core::observed::{TaskManager, TaskView};
use crate::core::reported::AttemptTasks;

/// The TaskManagers of an attempt.
#[derive(Debug)]
pub(super) struct Placement<'a> {
    hosts: BTreeMap<&'a TaskManagerId, Host<'a>>,
}

/// One TaskManager of an attempt.
#[derive(Debug)]
pub(super) struct Host<'a> {
    pub(super) presence: Presence,
    pub(super) task_manager: Option<&'a TaskManager>,
    /// What it reports of the attempt.
    pub(super) reported: Option<&'a AttemptTasks>,
    /// What is assigned to it.
    pub(super) subtasks: Vec<&'a SubtaskId>,
}

impl<'a> Host<'a> {
    /// It, if a message would reach it.
    pub(super) fn connected(&self) -> Option<&'a TaskManager> {
        self.task_manager
            .filter(|task_manager| task_manager.connection.is_some())
    }

    /// What is assigned to it, with the reports.
    pub(super) fn tasks(&self) -> impl Iterator<Item = (&'a SubtaskId, Option<&'a TaskView>)> {
        let reported = self.reported;
        let view = move |subtask| reported.and_then(|tasks| tasks.get(subtask));
        self.subtasks
            .iter()
            .map(move |subtask| (*subtask, view(subtask)))
    }
}

impl<'a> Placement<'a> {
    pub(super) fn of(situation: Situation<'a>, job: &'a Job) -> Self {
        let mut hosts: BTreeMap<&TaskManagerId, Host<'_>> = BTreeMap::new();
        for (subtask, place) in &job.assignments {
            let id = &place.task_manager;
            let host = hosts.entry(id).or_insert_with(|| {
                let task_manager = situation.observed.task_managers.get(id);
                Host {
                    presence: situation.presence(id),
                    task_manager,
                    reported: task_manager.and_then(|tm| tm.tasks.of_attempt(&job.id, job.attempt)),
                    subtasks: Vec::new(),
                }
            });
            host.subtasks.push(subtask);
        }
        Self { hosts }
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = (&'a TaskManagerId, &Host<'a>)> {
        self.hosts.iter().map(|(id, host)| (*id, host))
    }

    /// Every subtask with its report.
    pub(super) fn tasks(&self) -> impl Iterator<Item = (&'a SubtaskId, Option<&'a TaskView>)> {
        self.hosts.values().flat_map(Host::tasks)
    }

    /// Whether every subtask is reported and `holds`.
    pub(super) fn all(&self, holds: impl Fn(&TaskView) -> bool) -> bool {
        !self.hosts.is_empty() && self.tasks().all(|(_, view)| view.is_some_and(&holds))
    }
}
