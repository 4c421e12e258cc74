//! TaskManagers that do what they are told, one message and one file at a time, whoever leads meanwhile.

use std::collections::{BTreeMap, VecDeque};

use flott_proto::ids::{CheckpointId, JobId, TaskId, TaskManagerId};
use flott_proto::wire::task_manager_message::Message as ToLeader;
use flott_proto::wire::{self, TaskState, job_manager_message::Message};

use super::super::observed::ConnectionId;
use super::Model;
use super::task::{Task, fresh_name};

/// More than a job of the model needs, so that it starts again while one of them is away.
pub(super) const TASK_MANAGERS: usize = 3;
const SLOTS: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct TaskManager {
    /// None: nobody hears of it, and it hears of nobody; its tasks go on.
    pub(super) connection: Option<ConnectionId>,
    pub(super) inbox: VecDeque<Message>,
    outbox: VecDeque<ToLeader>,
    pub(super) tasks: BTreeMap<TaskId, Task>,
    pub(super) held_acks: Vec<wire::CheckpointAck>,
    /// By job: the highest attempt that was deployed or cancelled. None up to it is deployed any more.
    fences: BTreeMap<JobId, u32>,
}

impl TaskManager {
    pub(super) fn say(&mut self, message: ToLeader) {
        if self.connection.is_some() {
            self.outbox.push_back(message);
        }
    }

    pub(super) fn say_status(&mut self, task: &TaskId) {
        let changed = wire::TaskStatusChanged {
            task: Some(self.tasks[task].report(task)),
            retryable: true,
            lost_peer: String::new(),
        };
        self.say(ToLeader::TaskStatus(changed));
    }

    pub(super) fn disconnect(&mut self) {
        self.connection = None;
        self.inbox.clear();
        self.outbox.clear();
    }
}

impl Model {
    pub(super) fn add_task_manager(&mut self) {
        self.task_managers_ever += 1;
        let id: TaskManagerId = format!("tm-{}", self.task_managers_ever).parse().unwrap();
        self.task_managers.insert(id, TaskManager::default());
    }

    /// One that nobody hears of registers with the leader.
    pub(super) fn connect(&mut self) -> Option<String> {
        let away = self
            .task_managers
            .iter()
            .filter(|(_, it)| it.connection.is_none());
        let id = self.random.pick(away.map(|(id, _)| id.clone()))?;
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        let task_manager = self.task_managers.get_mut(&id)?;
        task_manager.connection = Some(connection);
        let register = wire::Register {
            task_manager_id: id.to_string(),
            data_address: format!("{id}:1"),
            slots: SLOTS,
            tasks: task_manager
                .tasks
                .iter()
                .map(|(id, task)| task.report(id))
                .collect(),
            held_acks: task_manager.held_acks.clone(),
            ..Default::default()
        };
        self.leader.observed.on_state(&self.state, self.now);
        let registered = self
            .leader
            .observed
            .on_register(connection, register, self.now);
        registered.unwrap();
        Some(format!("{id} registers"))
    }

    /// A connection breaks.
    pub(super) fn disconnect(&mut self) -> Option<String> {
        let connected = self
            .task_managers
            .iter()
            .filter(|(_, it)| it.connection.is_some());
        let id = self.random.pick(connected.map(|(id, _)| id.clone()))?;
        let task_manager = self.task_managers.get_mut(&id)?;
        let connection = task_manager.connection?;
        task_manager.disconnect();
        self.leader
            .observed
            .on_disconnect(&id, connection, self.now);
        Some(format!("{id} is cut off"))
    }

    /// One dies with its tasks, and another comes.
    pub(super) fn kill_task_manager(&mut self) -> Option<String> {
        let id = self.random.pick(self.task_managers.keys().cloned())?;
        let mut dead = self.task_managers.remove(&id)?;
        if let Some(connection) = dead.connection {
            self.leader
                .observed
                .on_disconnect(&id, connection, self.now);
        }
        for task in dead.tasks.values_mut() {
            self.ghosts.extend(task.end(TaskState::Canceled));
        }
        self.add_task_manager();
        Some(format!("{id} dies"))
    }

    /// A message reaches a TaskManager.
    pub(super) fn hear(&mut self) -> Option<String> {
        let waiting = self
            .task_managers
            .iter()
            .filter(|(_, it)| !it.inbox.is_empty());
        let id = self.random.pick(waiting.map(|(id, _)| id.clone()))?;
        let message = self.task_managers.get_mut(&id)?.inbox.pop_front()?;
        let what = format!("{id} hears {}", name(&message));
        self.obey(&id, message);
        Some(what)
    }

    /// A message reaches the leader.
    pub(super) fn tell_leader(&mut self) -> Option<String> {
        let waiting = self
            .task_managers
            .iter()
            .filter(|(_, it)| !it.outbox.is_empty());
        let id = self.random.pick(waiting.map(|(id, _)| id.clone()))?;
        let task_manager = self.task_managers.get_mut(&id)?;
        let (message, connection) = (task_manager.outbox.pop_front()?, task_manager.connection?);
        if let ToLeader::CheckpointAck(ack) = &message {
            self.note_late(ack);
        }
        let what = format!("leader hears {}", said(&message));
        self.leader.observed.on_state(&self.state, self.now);
        let observed = &mut self.leader.observed;
        observed
            .on_message(&id, connection, message, self.now)
            .unwrap();
        Some(format!("{what} of {id}"))
    }

    fn note_late(&mut self, ack: &wire::CheckpointAck) {
        let id: JobId = ack.task.as_ref().unwrap().job_id.parse().unwrap();
        let pending = self
            .state
            .jobs
            .get(&id)
            .and_then(|job| job.checkpoints.pending.as_ref());
        if pending.is_none_or(|pending| pending.id.0 != ack.checkpoint_id) {
            self.saw("late ack");
        }
    }

    fn obey(&mut self, to: &TaskManagerId, message: Message) {
        let Some(task_manager) = self.task_managers.get_mut(to) else {
            return;
        };
        let random = &mut self.random;
        let names = &mut self.names;
        let mut fresh = || fresh_name(names);
        let mut changed = Vec::new();
        match message {
            Message::Deploy(deploy) => {
                let job: JobId = deploy.job_id.parse().unwrap();
                let fence = task_manager.fences.entry(job.clone()).or_default();
                if deploy.attempt <= *fence {
                    return;
                }
                *fence = deploy.attempt;
                let old = task_manager.tasks.iter_mut();
                let old = old.filter(|(id, task)| id.job == job && task.is_live());
                for (id, task) in old {
                    self.ghosts.extend(task.end(TaskState::Canceled));
                    changed.push(id.clone());
                }
                for deployment in deploy.tasks {
                    let id = TaskId::try_from(wire::TaskId {
                        job_id: deploy.job_id.clone(),
                        vertex: deployment.vertex.clone(),
                        subtask: deployment.subtask,
                        attempt: deploy.attempt,
                    });
                    let id = id.unwrap();
                    let deployed = || Task::new(deployment);
                    task_manager
                        .tasks
                        .entry(id.clone())
                        .or_insert_with(deployed);
                    changed.push(id);
                }
            }
            Message::Cancel(wire::CancelTasks { job_id, attempt }) => {
                let job: JobId = job_id.parse().unwrap();
                let fence = task_manager.fences.entry(job.clone()).or_default();
                *fence = attempt.max(*fence);
                for (id, task) in &mut task_manager.tasks {
                    if id.job == job && id.attempt.0 <= attempt && task.is_live() {
                        self.ghosts.extend(task.end(TaskState::Canceled));
                        changed.push(id.clone());
                    }
                }
            }
            Message::Finish(wire::FinishTasks { job_id, .. }) => {
                for (id, task) in &mut task_manager.tasks {
                    if id.job.as_str() == job_id && task.is_live() {
                        self.ghosts.extend(task.end(TaskState::Finished));
                        changed.push(id.clone());
                    }
                }
            }
            Message::TriggerCheckpoint(trigger) => {
                for (id, task) in &mut task_manager.tasks {
                    if id.job.as_str() == trigger.job_id && id.attempt.0 == trigger.attempt {
                        task.on_trigger(&trigger, random, &mut fresh);
                    }
                }
            }
            Message::CheckpointCompleted(done) => {
                let checkpoint = CheckpointId(done.checkpoint_id);
                task_manager.release(&done.job_id, checkpoint);
                let mut committed = Vec::new();
                for (id, task) in &mut task_manager.tasks {
                    if id.job.as_str() == done.job_id && id.attempt.0 == done.attempt {
                        task.on_completed(checkpoint);
                        committed.push(wire::CheckpointCommitted {
                            task: Some(id.into()),
                            checkpoint_id: done.checkpoint_id,
                        });
                    }
                }
                for message in committed {
                    task_manager.say(ToLeader::CheckpointCommitted(message));
                }
            }
            Message::CheckpointAborted(aborted) => {
                let checkpoint = CheckpointId(aborted.checkpoint_id);
                task_manager.release(&aborted.job_id, checkpoint);
                for (id, task) in &mut task_manager.tasks {
                    if id.job.as_str() == aborted.job_id && id.attempt.0 == aborted.attempt {
                        self.ghosts.extend(task.on_aborted(checkpoint));
                    }
                }
            }
            Message::Registered(_) | Message::Heartbeat(_) => {}
        }
        for task in changed {
            task_manager.say_status(&task);
        }
    }

    /// All input of a job has been read.
    pub(super) fn end_input_of(&mut self, job: &JobId) {
        for task_manager in self.task_managers.values_mut() {
            let of_job = task_manager
                .tasks
                .iter_mut()
                .filter(|(id, _)| id.job == *job);
            let running = of_job.filter(|(_, task)| task.state == TaskState::Running);
            let ended: Vec<TaskId> = running
                .map(|(id, task)| {
                    task.state = TaskState::EndOfData;
                    id.clone()
                })
                .collect();
            for id in ended {
                task_manager.say_status(&id);
            }
        }
    }
}

impl TaskManager {
    /// The fate of a checkpoint is known: its acks, and those before, are held no longer.
    fn release(&mut self, job: &str, checkpoint: CheckpointId) {
        self.held_acks.retain(|ack| {
            let of_job = ack.task.as_ref().is_some_and(|task| task.job_id == job);
            !of_job || ack.checkpoint_id > checkpoint.0
        });
    }
}

fn name(message: &Message) -> String {
    match message {
        Message::Deploy(it) => format!("deploy {} attempt {}", it.job_id, it.attempt),
        Message::Cancel(it) => format!("cancel {} attempt {}", it.job_id, it.attempt),
        Message::Finish(it) => format!("finish {}", it.job_id),
        Message::TriggerCheckpoint(it) => format!("trigger {} of {}", it.checkpoint_id, it.job_id),
        Message::CheckpointCompleted(it) => format!("{} complete", it.checkpoint_id),
        Message::CheckpointAborted(it) => format!("{} aborted", it.checkpoint_id),
        Message::Registered(_) | Message::Heartbeat(_) => "a greeting".to_owned(),
    }
}

fn said(message: &ToLeader) -> String {
    match message {
        ToLeader::CheckpointAck(ack) => format!("ack {}", ack.checkpoint_id),
        ToLeader::CheckpointCommitted(it) => format!("commit {}", it.checkpoint_id),
        ToLeader::TaskStatus(_) => "a status".to_owned(),
        _ => "something".to_owned(),
    }
}
