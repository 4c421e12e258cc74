//! What tasks do by themselves: restore, upload, acknowledge; and fail, or take another's file for their own.

use flott_proto::ids::{TaskId, TaskManagerId};
use flott_proto::wire::task_manager_message::Message as ToLeader;
use flott_proto::wire::{self, TaskState};

use super::Model;
use super::objects::{Content, object};
use super::task::{Uploaded, fresh_name};

impl Model {
    /// A task restores its state, or uploads a file, or acknowledges.
    pub(super) fn work_on_state(&mut self) -> Option<String> {
        let all = self.task_managers.iter();
        let busy = all.flat_map(|(host, it)| it.tasks.iter().map(move |task| (host, task)));
        let busy = busy.filter(|(_, (_, task))| task.is_busy());
        let (host, id) = self
            .random
            .pick(busy.map(|(host, (id, _))| (host.clone(), id.clone())))?;
        let task = self.task_managers.get_mut(&host)?.tasks.get_mut(&id)?;
        if let Some(deployment) = task.restoring.take() {
            self.restore(&host, &id, deployment);
            return Some(format!("{id} restores"));
        }
        match task.upload(&id, &mut self.random)? {
            Uploaded::File(path) => {
                let what = format!("{id} uploads {path}");
                self.put_file(&path);
                Some(what)
            }
            Uploaded::Whole(ack) => {
                let what = format!("{id} acknowledges {}", ack.checkpoint_id);
                let task_manager = self.task_managers.get_mut(&host)?;
                task_manager.held_acks.push(ack.clone());
                task_manager.say(ToLeader::CheckpointAck(ack));
                Some(what)
            }
        }
    }

    fn put_file(&mut self, path: &str) {
        self.names += 1;
        self.objects
            .put(path, Content::File(self.names), self.steps);
    }

    fn restore(&mut self, host: &TaskManagerId, id: &TaskId, deployment: wire::TaskDeployment) {
        let files = deployment.restore.iter().flat_map(|state| &state.files);
        let at = |file: &wire::StateFile| object(&deployment.restore_root, &file.path);
        let missing = files.clone().find(|file| !self.objects.has(&at(file)));
        if let Some(missing) = missing {
            self.allow_missing(id, &deployment, &missing.path);
        }
        let damaged = files.clone().find(|file| self.damaged.contains(&at(file)));
        let unusable = missing.or(damaged).map(|file| wire::UnusableState {
            checkpoint_id: deployment.restore_checkpoint_id,
            path: file.path.clone(),
            reason: format!("state file {} cannot be restored", file.path),
        });
        let names = &mut self.names;
        let task_manager = self.task_managers.get_mut(host).unwrap();
        let task = task_manager.tasks.get_mut(id).unwrap();
        match unusable {
            Some(unusable) => {
                task.state = TaskState::Failed;
                task.failure.clone_from(&unusable.reason);
                task.unusable_state = Some(unusable);
            }
            None => task.restored(&deployment, || fresh_name(names)),
        }
        task_manager.say_status(id);
        let mut files = deployment.restore.iter().flat_map(|state| &state.files);
        if files.any(|file| file.kind() == wire::StateFileKind::Channels) {
            self.saw("restored channel state");
        }
        let inherits = deployment.restore_checkpoint_id != 0 && !deployment.restore_is_base;
        self.saw(if inherits {
            "rescaled restore"
        } else {
            "restore"
        });
    }

    /// A put whose sender has given up comes to its effect after all, or never does.
    pub(super) fn ghost(&mut self) -> Option<String> {
        if self.ghosts.is_empty() {
            return None;
        }
        let at = self.random.below(self.ghosts.len());
        let path = self.ghosts.swap_remove(at);
        if self.random.percent(30) {
            return Some(format!("{path} is never written"));
        }
        self.put_file(&path);
        self.saw("ghost");
        Some(format!("{path} is written late"))
    }

    /// A running task, by chance.
    fn running(&mut self) -> Option<(TaskManagerId, TaskId)> {
        let all = self.task_managers.iter();
        let tasks = all.flat_map(|(host, it)| it.tasks.iter().map(move |task| (host, task)));
        let running = tasks.filter(|(_, (_, task))| task.runs());
        self.random
            .pick(running.map(|(host, (id, _))| (host.clone(), id.clone())))
    }

    pub(super) fn fail_task(&mut self) -> Option<String> {
        let (host, id) = self.running()?;
        let task_manager = self.task_managers.get_mut(&host)?;
        let task = task_manager.tasks.get_mut(&id)?;
        task.failure = "on purpose".into();
        self.ghosts.extend(task.end(TaskState::Failed));
        task_manager.say_status(&id);
        Some(format!("{id} fails"))
    }

    /// A task takes a file of an earlier attempt for one of its own: it has found it on its disk, say.
    pub(super) fn confuse_task(&mut self) -> Option<String> {
        let (host, id) = self.running()?;
        let job = self.state.jobs.get(&id.job)?;
        let base = job.checkpoints.latest();
        let directory = self.directory(job);
        let task = self.task_managers.get(&host)?.tasks.get(&id)?;
        let own = format!("{}/", task.writer);
        let is_foreign = |path: &&String| {
            let in_base = base.is_some_and(|base| base.paths().any(|it| it == path.as_str()));
            !in_base && !path.starts_with(&own)
        };
        let foreign = self.objects.files_ever_of(&directory).filter(is_foreign);
        let path = self.random.pick(foreign.cloned())?;
        let name = fresh_name(&mut self.names);
        let task = self.task_managers.get_mut(&host)?.tasks.get_mut(&id)?;
        task.mistake(path.clone(), name);
        Some(format!("{id} takes {path} for its own"))
    }
}
