//! What the leader orders for attempts, carried out, and what tasks report, passed on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use flott_node::{OnFailure, SharedClock};
use flott_proto::ids::{AttemptNumber, JobId, SubtaskId, TaskId};
use flott_proto::wire::{DeployTasks, TaskCounters, TaskState};
use tracing::{info, warn};

use super::attempts::DeployStep;
use super::deployment::Deployment;
use super::{TaskHandle, TaskManager, local_dirs};
use crate::network::attempt;
use crate::task::run::{self, TaskEvent, TaskEvents, TaskSpec};
use crate::task::status::{Failure, Progress, TaskStatus};
use crate::{Error, metrics};

impl TaskManager {
    pub(super) fn on_deploy(&mut self, deploy: DeployTasks) {
        let (job, attempt) = (deploy.job_id.clone(), AttemptNumber(deploy.attempt));
        let named: Vec<_> = deploy
            .tasks
            .iter()
            .map(|task| (task.vertex.clone(), task.subtask))
            .collect();
        let deployment = match Deployment::read(deploy, self.core.epoch()) {
            Ok(deployment) => deployment,
            Err(error) => {
                warn!(job, %attempt, %error, "cannot deploy");
                let task = |(vertex, subtask): (String, u32)| flott_proto::wire::TaskId {
                    job_id: job.clone(),
                    vertex,
                    subtask,
                    attempt: attempt.0,
                };
                for task in named
                    .into_iter()
                    .map(task)
                    .filter_map(|task| TaskId::try_from(task).ok())
                {
                    self.report_unstarted(&task, Some(&error));
                }
                return;
            }
        };
        let (job, tasks) = (deployment.id.job.clone(), deployment.task_ids());
        let ids: Vec<_> = tasks
            .iter()
            .map(|subtask| task_id(&job, attempt, subtask))
            .collect();
        info!(%job, %attempt, tasks = ids.len(), epoch = %deployment.id.epoch, "deployment received");
        let now = self.clock.monotonic();
        match self
            .attempts
            .on_deploy(&job, attempt, tasks, deployment, now)
        {
            DeployStep::Known => info!(%job, %attempt, "deployed already"),
            DeployStep::Fenced { by } => {
                warn!(%job, %attempt, %by, "refused the deployment of an attempt that is over")
            }
            DeployStep::TooLarge { needed } => {
                let what = format!(
                    "needs {needed} slots of {}, which has {}",
                    self.config.id, self.config.slots
                );
                for task in &ids {
                    self.report_unstarted(task, Some(&Error::Fatal(what.clone())));
                }
            }
            DeployStep::Waits {
                interrupt,
                replaced,
            } => {
                self.core
                    .on_attempts_over(&job, AttemptNumber(attempt.0.saturating_sub(1)));
                self.interrupt(&interrupt);
                for task in &replaced {
                    self.report_unstarted(task, None);
                }
                self.start_what_can();
            }
        }
    }

    pub(super) fn on_cancel(&mut self, job: &JobId, up_to: AttemptNumber) {
        info!(%job, attempt = %up_to, "cancel received");
        self.core.on_attempts_over(job, up_to);
        let (interrupt, dropped) = self.attempts.on_cancel(job, up_to);
        self.interrupt(&interrupt);
        for task in &dropped {
            self.report_unstarted(task, None);
        }
        self.start_what_can();
    }

    pub(super) fn interrupt(&self, tasks: &[TaskId]) {
        for handle in tasks.iter().filter_map(|task| self.running.get(task)) {
            handle.mailbox.interrupt(Error::Canceled);
        }
    }

    /// A task that never had a thread: failed for that reason, or canceled without one.
    fn report_unstarted(&mut self, task: &TaskId, error: Option<&Error>) {
        let mut status = TaskStatus::default();
        match error {
            Some(error) => status.fail(Failure::from(error)),
            None => status.advance(TaskState::Canceled),
        }
        self.report_end(task, &status, &Progress::default());
    }

    /// Deployments that have waited too long for slots fail, so that the leader looks for others.
    pub(super) fn give_up_waiting(&mut self) {
        let patience = self.config.slot_request_timeout;
        let deployed_by = self.clock.monotonic().checked_sub(patience);
        let given_up = deployed_by.map(|by| self.attempts.give_up(by));
        for task in given_up.unwrap_or_default() {
            let what = format!(
                "{} had no free slot for it within {patience:?}",
                self.config.id
            );
            self.report_unstarted(&task, Some(&Error::Fatal(what)));
        }
    }

    fn start_what_can(&mut self) {
        while let Some((job, attempt, deployment)) = self.attempts.next_to_start() {
            let tasks = deployment.task_ids();
            if let Err(error) = self.start(deployment) {
                warn!(%job, %attempt, error = error.full_text(), "cannot start the tasks");
                for subtask in &tasks {
                    let task = task_id(&job, attempt, subtask);
                    if !self.running.contains_key(&task) {
                        if self.attempts.on_ended(&task) {
                            self.close_network(&job, attempt);
                        }
                        self.report_unstarted(&task, Some(&error));
                    }
                }
            }
        }
    }

    fn start(&mut self, deployment: Deployment) -> Result<(), Error> {
        let (job, attempt) = (deployment.id.job.clone(), deployment.id.attempt);
        let slot_memory_bytes = self.config.managed_memory_bytes / u64::from(self.config.slots);
        let local = if self.config.local_recovery {
            let now = self.clock.monotonic();
            Some(self.local_state.of(&job, &self.dirs, now)?)
        } else {
            None
        };
        let mut plans = BTreeMap::new();
        for subtask in deployment.tasks.keys() {
            plans.insert(
                subtask.clone(),
                deployment.state_plan(subtask, &self.dirs, slot_memory_bytes, local.as_ref())?,
            );
        }
        let mailboxes = plans
            .keys()
            .map(|subtask| (subtask.clone(), Arc::default()))
            .collect();
        let Deployment {
            id,
            graph,
            locations,
            sink_rows_per_second,
            ..
        } = deployment;
        let (network, mut ends) =
            attempt::open(&self.exchange, id, &graph, &locations, &mailboxes)?;
        self.networks.insert((job.clone(), attempt), network);
        for (subtask, state) in plans {
            let task = task_id(&job, attempt, &subtask);
            let (mailbox, progress) = (
                Arc::clone(&mailboxes[&subtask]),
                Arc::new(Progress::default()),
            );
            let handle = TaskHandle {
                status: TaskStatus::default(),
                mailbox: Arc::clone(&mailbox),
                progress: Arc::clone(&progress),
                counted: TaskCounters::default(),
            };
            let spec = TaskSpec {
                vertex: graph
                    .vertex(&subtask.vertex)
                    .expect("checked when the deployment was read")
                    .clone(),
                graph: Arc::clone(&graph),
                ends: ends.remove(&subtask).expect("every task has its ends"),
                events: TaskEvents::new(task.clone(), self.events.clone()),
                task: task.clone(),
                sink_rows_per_second,
                state,
                mailbox,
                progress,
                tasks: self.tasks.clone(),
                runtime: tokio::runtime::Handle::current(),
                clock: SharedClock::clone(&self.clock),
            };
            run::spawn(spec).map_err(|source| Error::Io {
                place: format!("cannot start a thread for {task}; raise the limit of threads"),
                source,
            })?;
            metrics::task_started();
            self.running.insert(task, handle);
        }
        Ok(())
    }

    pub(super) fn on_task(&mut self, task: &TaskId, event: TaskEvent) {
        let message = match event {
            TaskEvent::StateChanged(state) => {
                let Some(handle) = self.running.get_mut(task) else {
                    return;
                };
                handle.status.advance(state);
                info!(%task, state = state.as_str_name(), "task");
                let report = handle.progress.report(task, &handle.status);
                self.core.on_status(task, report, false)
            }
            TaskEvent::Acknowledged(ack) if self.running.contains_key(task) => {
                #[cfg(feature = "simulation")]
                flott_node::simulation::tell(flott_node::simulation::Told::TaskAcknowledged {
                    job: task.job.to_string(),
                    attempt: task.attempt.0,
                    subtask: task.subtask.to_string(),
                    checkpoint: ack.checkpoint_id,
                });
                self.core.on_ack(task, ack)
            }
            TaskEvent::Declined { checkpoint, reason } if self.running.contains_key(task) => {
                warn!(%task, %checkpoint, reason, "checkpoint declined");
                self.core.on_decline(task, checkpoint, reason)
            }
            // The upload of a task that has ended.
            TaskEvent::Acknowledged(_) | TaskEvent::Declined { .. } => None,
            TaskEvent::Committed(checkpoint) => self.core.on_committed(task, checkpoint),
            TaskEvent::Ended(result) => return self.on_ended(task, result),
        };
        self.send(message);
    }

    fn on_ended(&mut self, task: &TaskId, result: Result<(), Error>) {
        let Some(mut handle) = self.running.remove(task) else {
            return;
        };
        match &result {
            Ok(()) => handle.status.advance(TaskState::Finished),
            Err(Error::Canceled) => handle.status.advance(TaskState::Canceled),
            Err(error) => handle.status.fail(Failure::from(error)),
        }
        metrics::task_ended(handle.status.state().as_str_name());
        self.report_end(task, &handle.status, &handle.progress);
        if self.attempts.on_ended(task) {
            self.close_network(&task.job, task.attempt);
            self.remove_beside(self.dirs.attempt(&task.job, task.attempt));
            self.start_what_can();
        }
        self.leave_if_empty();
    }

    /// Deletes what is kept of jobs that do not run here any more.
    pub(super) fn give_up_local_state(&mut self) {
        let (attempts, now) = (&self.attempts, self.clock.monotonic());
        let runs = |job: &JobId| attempts.has_tasks_of(job);
        let unused = self.local_state.give_up(&self.dirs, runs, now);
        for dir in unused {
            self.remove_beside(dir);
        }
    }

    /// Removes a directory where nothing waits for it.
    fn remove_beside(&self, dir: PathBuf) {
        self.tasks.spawn("clean-up", OnFailure::Log, async move {
            flott_node::spawn_blocking(move || local_dirs::remove(&dir)).await
        });
    }

    fn close_network(&mut self, job: &JobId, attempt: AttemptNumber) {
        if let Some(network) = self.networks.remove(&(job.clone(), attempt)) {
            network.close();
        }
    }

    fn report_end(&mut self, task: &TaskId, status: &TaskStatus, progress: &Progress) {
        let report = progress.report(task, status);
        let cause = &report.failure;
        match status.state() {
            TaskState::Failed => {
                warn!(%task, cause, lost_peer = report.lost_peer, retryable = !report.failure_is_final, "task failed")
            }
            state => info!(%task, state = state.as_str_name(), "task ended"),
        }
        let message = self.core.on_status(task, report, true);
        self.send(message);
    }
}

fn task_id(job: &JobId, attempt: AttemptNumber, subtask: &SubtaskId) -> TaskId {
    TaskId {
        job: job.clone(),
        attempt,
        subtask: subtask.clone(),
    }
}
