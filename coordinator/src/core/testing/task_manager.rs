//! TaskManagers that do at once what they are told.

use std::collections::{BTreeMap, BTreeSet};

use flott_proto::ids::{CheckpointId, JobId, TaskId, TaskManagerId};
use flott_proto::paths;
use flott_proto::wire::{self, TaskState, job_manager_message::Message, task_manager_message};

use super::World;

/// A TaskManager that does at once what it is told, and remembers it over a change of leader.
#[derive(Debug, Default)]
pub(super) struct FakeTaskManager {
    pub(super) tasks: BTreeMap<TaskId, FakeTask>,
    pub(super) held_acks: Vec<wire::CheckpointAck>,
    /// What it could not say because nobody led.
    pub(super) unsaid: Vec<task_manager_message::Message>,
}

#[derive(Debug)]
pub(super) struct FakeTask {
    pub(super) state: TaskState,
    pub(super) committed: CheckpointId,
    pub(super) seen: CheckpointId,
    pub(super) failure: String,
    unusable_state: Option<wire::UnusableState>,
    /// Where it writes.
    writer: String,
    /// What a change may be against: the checkpoint that it was restored from, and those that it has acknowledged.
    bases: BTreeSet<CheckpointId>,
    /// What it was restored with that is no base: the checkpoint, and its files by path.
    inherited: (CheckpointId, BTreeMap<String, wire::StateFile>),
}

impl World {
    pub(super) fn obey(&mut self, to: &TaskManagerId, message: Message) {
        let Some(task_manager) = self.task_managers.get_mut(to) else {
            return;
        };
        let mut changed = Vec::new();
        match message {
            Message::Deploy(deploy) => {
                let job: JobId = deploy.job_id.parse().unwrap();
                task_manager
                    .tasks
                    .retain(|task, _| task.job != job || task.attempt.0 >= deploy.attempt);
                for task in deploy.tasks {
                    let mut unusable_state = None;
                    for file in task.restore.iter().flat_map(|state| &state.files) {
                        let (path, root) = (&file.path, &task.restore_root);
                        let complete = format!("{root}/{path}");
                        let savepoint = self.savepoints.get(root);
                        assert!(
                            savepoint.is_none_or(|files| files.contains(path)),
                            "{path} is not in the savepoint {root}"
                        );
                        assert!(
                            !root.is_empty() || path.contains("/shared/"),
                            "{path} of a savepoint is looked for among the job's files"
                        );
                        assert!(
                            !self.deleted.contains(path) && !self.deleted.contains(&complete),
                            "restoring {path} of {root:?}, which was deleted"
                        );
                        if self.damaged.contains(path) || self.misread.contains(path) {
                            unusable_state = Some(wire::UnusableState {
                                checkpoint_id: task.restore_checkpoint_id,
                                path: path.clone(),
                                reason: format!("state file {path} is damaged"),
                            });
                        }
                    }
                    let restored = CheckpointId(task.restore_checkpoint_id);
                    self.restored
                        .entry(job.clone())
                        .or_default()
                        .insert(deploy.attempt, restored);
                    let id = TaskId::try_from(wire::TaskId {
                        job_id: deploy.job_id.clone(),
                        vertex: task.vertex,
                        subtask: task.subtask,
                        attempt: deploy.attempt,
                    });
                    let id = id.unwrap();
                    let (mut bases, mut inherited) =
                        (BTreeSet::from([CheckpointId::NONE]), BTreeMap::new());
                    if task.restore_is_base {
                        bases.insert(restored);
                    } else {
                        let files = task.restore.into_iter().flat_map(|state| state.files);
                        inherited.extend(files.map(|file| (file.path.clone(), file)));
                    }
                    let failure = unusable_state.as_ref().map(|unusable| &unusable.reason);
                    task_manager.tasks.entry(id.clone()).or_insert(FakeTask {
                        state: if failure.is_some() {
                            TaskState::Failed
                        } else {
                            TaskState::Running
                        },
                        committed: CheckpointId::NONE,
                        seen: CheckpointId::NONE,
                        failure: failure.cloned().unwrap_or_default(),
                        unusable_state,
                        writer: task.writer,
                        bases,
                        inherited: (restored, inherited),
                    });
                    changed.push(id);
                }
            }
            Message::Cancel(wire::CancelTasks { job_id, attempt }) => {
                for (task, fake) in &mut task_manager.tasks {
                    if task.job.as_str() == job_id
                        && task.attempt.0 <= attempt
                        && fake.state != TaskState::Failed
                    {
                        fake.state = TaskState::Canceled;
                        changed.push(task.clone());
                    }
                }
            }
            Message::Finish(wire::FinishTasks { job_id, .. }) => {
                for (task, fake) in task_manager
                    .tasks
                    .iter_mut()
                    .filter(|(task, _)| task.job.as_str() == job_id)
                {
                    fake.state = TaskState::Finished;
                    changed.push(task.clone());
                }
            }
            Message::TriggerCheckpoint(trigger) => self.acknowledge(to, &trigger),
            Message::CheckpointCompleted(done) => self.commit(to, &done),
            Message::CheckpointAborted(aborted) => {
                task_manager
                    .held_acks
                    .retain(|ack| ack.checkpoint_id > aborted.checkpoint_id);
            }
            Message::Registered(_) | Message::Heartbeat(_) => {}
        }
        for task in changed {
            self.say_status(to, &task);
        }
    }

    fn acknowledge(&mut self, to: &TaskManagerId, trigger: &wire::TriggerCheckpoint) {
        let mut acks = Vec::new();
        let base = self.state.jobs[&trigger.job_id.parse::<JobId>().unwrap()]
            .checkpoints
            .retained_by_id(CheckpointId(trigger.base_checkpoint_id))
            .cloned();
        let task_manager = self.task_managers.get_mut(to).unwrap();
        for (task, fake) in &mut task_manager.tasks {
            let id = CheckpointId(trigger.checkpoint_id);
            if task.job.as_str() != trigger.job_id
                || task.attempt.0 != trigger.attempt
                || fake.seen >= id
            {
                continue;
            }
            fake.seen = id;
            let base_id = CheckpointId(trigger.base_checkpoint_id);
            let knows_base = fake.bases.contains(&base_id);
            assert!(
                knows_base || fake.inherited.0 == base_id,
                "{task} does not know the base of {trigger:?}"
            );
            let base = base.as_ref().filter(|_| knows_base);
            let inherited = fake.inherited.1.values().filter(|_| !knows_base);
            fake.bases.insert(id);
            self.next_file += 1;
            let directory = &trigger.savepoint_directory;
            let path = if directory.is_empty() {
                let path = paths::state_file(&fake.writer, self.next_file);
                let written = self.written.entry(task.job.clone()).or_default();
                written.insert(path.clone());
                path
            } else {
                let path = paths::savepoint_file(&fake.writer, self.next_file);
                let written = self.savepoints.entry(directory.clone()).or_default();
                written.insert(path.clone());
                path
            };
            let file = wire::StateFile {
                path,
                local_name: format!("{}.sst", self.next_file),
                size: 1,
                tablets: vec![wire::KeyGroups { first: 0, last: 0 }],
                ..Default::default()
            };
            let held = base.map_or(0, |base| base.subtasks[&task.subtask].files.len());
            // At most two files a subtask: the third drops the first.
            let dropped = base
                .filter(|_| held >= 2)
                .and_then(|base| base.subtasks[&task.subtask].files.keys().next().cloned());
            acks.push(wire::CheckpointAck {
                task: Some(task.into()),
                checkpoint_id: trigger.checkpoint_id,
                base_checkpoint_id: if knows_base { base_id.0 } else { 0 },
                state: Some(wire::SubtaskDelta {
                    vertex: task.subtask.vertex.to_string(),
                    subtask: task.subtask.subtask,
                    added: inherited.cloned().chain([file]).collect(),
                    dropped: dropped.into_iter().collect(),
                    uploaded_bytes: 1,
                    ..Default::default()
                }),
                ..Default::default()
            });
        }
        task_manager.held_acks.extend(acks.iter().cloned());
        for ack in acks {
            self.say(to, task_manager_message::Message::CheckpointAck(ack));
        }
    }

    fn commit(&mut self, to: &TaskManagerId, done: &wire::NotifyCheckpointCompleted) {
        let task_manager = self.task_managers.get_mut(to).unwrap();
        task_manager
            .held_acks
            .retain(|ack| ack.checkpoint_id > done.checkpoint_id);
        let mut committed = Vec::new();
        for (task, fake) in &mut task_manager.tasks {
            if task.job.as_str() == done.job_id && task.attempt.0 == done.attempt {
                fake.committed = fake.committed.max(CheckpointId(done.checkpoint_id));
                committed.push(task.clone());
            }
        }
        for task in committed {
            let message = wire::CheckpointCommitted {
                task: Some((&task).into()),
                checkpoint_id: done.checkpoint_id,
            };
            self.say(
                to,
                task_manager_message::Message::CheckpointCommitted(message),
            );
        }
    }
}

impl FakeTask {
    pub(super) fn report(&self, task: &TaskId) -> wire::TaskReport {
        wire::TaskReport {
            task: Some(task.into()),
            state: self.state.into(),
            last_checkpoint_seen: self.seen.0,
            last_checkpoint_committed: self.committed.0,
            failure: self.failure.clone(),
            unusable_state: self.unusable_state.clone(),
            ..Default::default()
        }
    }
}
