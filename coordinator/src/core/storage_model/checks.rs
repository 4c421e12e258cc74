//! What must be true after every step, and what must be left at the end.

use std::collections::BTreeSet;

use flott_proto::ids::{CheckpointId, JobId, TaskId};
use flott_proto::wire;

use super::super::JobStatus;
use super::super::checkpoint::CompletedCheckpoint;
use super::super::job::{Job, Start};
use super::Model;

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
                    assert!(self.objects.has(path), "{} is to start from {path}", job.id);
                }
            }
        }
        for (path, files) in &self.savepoints {
            assert!(self.objects.has(path), "savepoint {path} is complete");
            for file in files {
                assert!(self.objects.has(file), "savepoint {path} needs {file}");
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

    /// A task finds no such file. That is as it should be if its attempt is over; if the checkpoint was given up meanwhile,
    /// because another task of the attempt, which has failed thereby, found it damaged; or if the job has gone back behind all
    /// checkpoints of its own: what it was submitted with is kept until it has one.
    pub(super) fn allow_missing(&self, task: &TaskId, from: &wire::TaskDeployment, path: &str) {
        let job = self.state.jobs.get(&task.job);
        let is_present = job.is_some_and(|job| job.attempt == task.attempt && job.is_running());
        let checkpoint = CheckpointId(from.restore_checkpoint_id);
        let was_kept_long_enough = if checkpoint == CheckpointId::NONE {
            self.has_had_checkpoints.contains(&task.job)
        } else {
            self.discarded.contains(&(task.job.clone(), checkpoint))
        };
        assert!(
            !is_present || was_kept_long_enough,
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
                let files = savepoint.paths().map(str::to_owned).collect();
                let before = self
                    .savepoints
                    .insert(savepoint.external_path.clone(), files);
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
            job.status.is_terminal() && job.checkpoints.retired.is_empty() && !job.dismissed
        };
        let jobs = self.state.jobs.values();
        let unsettled = jobs.filter(|job| !is_settled(job));
        unsettled.map(|job| job.id.clone()).collect()
    }

    fn check_nothing_is_left(&self) {
        let mut needed: BTreeSet<&str> = BTreeSet::new();
        for (path, files) in &self.savepoints {
            needed.insert(path);
            needed.extend(files.iter().map(String::as_str));
        }
        for job in self.state.jobs.values() {
            let retains = !job.checkpoints.retained.is_empty();
            assert!(!retains || job.status == JobStatus::Failed, "{}", job.id);
            for checkpoint in &job.checkpoints.retained {
                needed.extend(checkpoint.paths());
                needed.extend(checkpoint.metadata_object.as_deref());
            }
        }
        let left = self.objects.list(self.settings.cluster.as_str());
        for path in &left {
            assert!(
                needed.contains(path.as_str()) || self.came_after_sweep(path),
                "{path} is left"
            );
        }
    }

    /// Whether the object came into being after its job's directory had been swept for the last time: nobody looks for it
    /// any more. That is the one way to leave an orphan, and takes a put that its sender gave up long ago.
    fn came_after_sweep(&self, path: &str) -> bool {
        let directory = flott_proto::paths::job_of(path).unwrap();
        let swept_at = self.swept_at.get(directory);
        swept_at.is_some_and(|listed_at| self.objects.written_at(path) > *listed_at)
    }
}
