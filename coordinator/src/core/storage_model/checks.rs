//! What must be true after every step, and what must be left at the end.

use std::collections::BTreeSet;

use flott_proto::ids::{CheckpointId, JobId, TaskId};
use flott_proto::{paths, wire};

use super::super::JobStatus;
use super::super::checkpoint::CompletedCheckpoint;
use super::super::job::{Job, Start};
use super::Model;
use super::objects::{SAVEPOINTS, directory_of, object};

impl Model {
    /// Every object that somebody may need exists.
    pub(super) fn check(&mut self) {
        if !std::mem::take(&mut self.objects.changed) {
            return;
        }
        for job in self.state.jobs.values() {
            for checkpoint in &job.checkpoints.retained {
                self.check_checkpoint(job, checkpoint);
            }
            if job.status.is_terminal() {
                continue;
            }
            if let Some(Start::Submitted(point)) = job.starts().next()
                && !self.has_had_checkpoints.contains(&job.id)
            {
                let files = point.subtasks.values().flat_map(|state| state.files.keys());
                for path in files {
                    let object = object(&point.root, path);
                    assert!(self.objects.has(&object), "{} needs {object}", job.id);
                }
            }
        }
        for (directory, objects) in &self.savepoints {
            for object in objects {
                assert!(
                    self.objects.has(object),
                    "savepoint {directory} needs {object}"
                );
            }
        }
    }

    fn check_checkpoint(&self, job: &Job, checkpoint: &CompletedCheckpoint) {
        for path in checkpoint
            .paths()
            .chain(checkpoint.metadata_object.as_deref())
        {
            let id = checkpoint.id;
            assert!(
                self.objects.has(path),
                "checkpoint {id} of {} needs {path}",
                job.id
            );
        }
    }

    /// A task finds no such file. That is as it should be if its attempt is over; if the checkpoint is given up, since
    /// another task could not restore it; or if the job has gone back behind all checkpoints of its own: what it was
    /// submitted with is kept until it has one.
    pub(super) fn allow_missing(&self, task: &TaskId, from: &wire::TaskDeployment, path: &str) {
        let job = self.state.jobs.get(&task.job);
        let is_present = job.is_some_and(|job| job.attempt == task.attempt && job.is_running());
        let checkpoint = CheckpointId(from.restore_checkpoint_id);
        let given_up = self.discarded.contains(&(task.job.clone(), checkpoint));
        let submitted = checkpoint == CheckpointId::NONE;
        assert!(
            !is_present || given_up || (submitted && self.has_had_checkpoints.contains(&task.job)),
            "{task} restores {path}, which is not there"
        );
    }

    /// Remembers what the state forgets.
    pub(super) fn remember(&mut self) {
        self.objects.changed = true;
        let mut counts = Vec::new();
        for job in self.state.jobs.values() {
            if job.checkpoints.latest().is_some() {
                self.has_had_checkpoints.insert(job.id.clone());
            }
            for savepoint in &job.checkpoints.savepoints {
                let directory = &savepoint.external_path;
                if self.claimed.contains(directory) {
                    continue;
                }
                let paths = savepoint.paths().chain([paths::METADATA]);
                let objects = paths.map(|path| object(directory, path)).collect();
                let before = self.savepoints.insert(directory.clone(), objects);
                counts.extend(before.is_none().then_some("savepoint"));
            }
        }
        for what in counts {
            self.saw(what);
        }
    }

    /// Lets everything come to its end without further faults, has the orphans deleted, and compares what is left with what
    /// is needed.
    pub(super) fn settle(&mut self) {
        for job in self.state.jobs.keys().cloned().collect::<Vec<_>>() {
            if self.random.percent(50) {
                self.cancel_job(&job);
            }
        }
        for round in 0.. {
            assert!(
                round < 400,
                "it does not come to an end: {:?}",
                self.unsettled()
            );
            self.calm_round();
            if self.unsettled().is_empty() {
                break;
            }
        }
        for job in self.state.jobs.keys().cloned().collect::<Vec<_>>() {
            self.begin_collecting(self.state.clone(), &job);
        }
        while let Some(what) = self.run_errand() {
            self.note(what);
        }
        self.check();
        self.check_nothing_is_left();
    }

    /// Everything that waits happens.
    fn calm_round(&mut self) {
        self.pass_time(100);
        for job in self.state.jobs.keys().cloned().collect::<Vec<_>>() {
            self.end_input_of(&job);
        }
        let actors: [fn(&mut Self) -> Option<String>; 10] = [
            Self::connect,
            Self::submit,
            Self::plan_deposed,
            Self::work_on_state,
            Self::tell_leader,
            Self::ghost,
            Self::run_errand,
            Self::decide,
            Self::hear,
            Self::work_on_state,
        ];
        for actor in actors {
            while let Some(what) = actor(self) {
                self.note(what);
                self.check();
            }
        }
        self.plan();
    }

    /// Jobs that have not ended or whose files are not gone, as far as they will go.
    fn unsettled(&self) -> Vec<JobId> {
        let is_settled = |job: &Job| {
            let store = &job.checkpoints;
            let retires = !store.retired.is_empty() || !store.retired_directories.is_empty();
            job.status.is_terminal() && !retires && !job.dismissed
        };
        let jobs = self.state.jobs.values();
        let unsettled = jobs.filter(|job| !is_settled(job));
        unsettled.map(|job| job.id.clone()).collect()
    }

    fn check_nothing_is_left(&self) {
        let mut needed: BTreeSet<&str> = BTreeSet::new();
        for objects in self.savepoints.values() {
            needed.extend(objects.iter().map(String::as_str));
        }
        for job in self.state.jobs.values() {
            let retains = !job.checkpoints.retained.is_empty();
            assert!(!retains || job.status == JobStatus::Failed, "{}", job.id);
            for checkpoint in &job.checkpoints.retained {
                needed.extend(checkpoint.paths());
                needed.extend(checkpoint.metadata_object.as_deref());
            }
        }
        for top in [self.settings.cluster.as_str(), SAVEPOINTS] {
            for path in &self.objects.list(top) {
                let is_claimed = self.claimed.contains(directory_of(path));
                assert!(
                    needed.contains(path.as_str()) || is_claimed || self.came_after_sweep(path),
                    "{path} is left"
                );
            }
        }
        self.check_claimed();
    }

    /// What a job has claimed is its own until it has failed, or is gone.
    fn check_claimed(&self) {
        let jobs = self.state.jobs.values();
        let ended = jobs.filter(|job| job.status.is_terminal() && job.status != JobStatus::Failed);
        for job in ended {
            assert_eq!(job.claimed, None, "{}", job.id);
        }
    }

    /// Whether the object came into being after its directory had been deleted or swept for the last time: nobody looks for
    /// it any more. That is the one way to leave an orphan, and takes a put that its sender gave up long ago.
    fn came_after_sweep(&self, path: &str) -> bool {
        let swept_at = self.swept_at.get(directory_of(path));
        swept_at.is_some_and(|listed_at| self.objects.written_at(path) > *listed_at)
    }
}
