//! What the cluster has in object storage, and the leader's work there.

use std::collections::BTreeSet;
use std::sync::Arc;

use flott_node::storage::ObjectStorage;
use flott_proto::ids::{CheckpointId, JobId};
use flott_proto::paths;
use flott_proto::wire::{self, command::Decision};

use super::super::Response;
use super::super::checkpoint::CheckpointKind;
use super::super::observed::{FileChecked, FileCondition, MetadataWritten};
use super::super::orphans::{Orphan, orphans};
use super::super::plan::Work;
use super::World;

impl World {
    /// A job that retains two of its checkpoints, after four; and `memory:///<root>`, still empty, where they lie according
    /// to its settings.
    pub(crate) fn with_checkpoints_in(root: &str) -> (Self, JobId, ObjectStorage) {
        let mut world = Self::new(1);
        let settings = [
            ("execution.checkpointing.interval", "50 ms"),
            ("execution.checkpointing.num-retained", "2"),
        ];
        let id = world.submit(1, &settings);
        world.run_until("four checkpoints", |world| {
            world.job(&id).checkpoints.completed_count >= 4
        });
        let job = Arc::make_mut(world.state.jobs.get_mut(&id).unwrap());
        let mut settings = (*job.settings).clone();
        settings.checkpoint_dir = format!("memory:///{root}");
        let storage = ObjectStorage::open(&settings.checkpoint_dir).unwrap();
        job.settings = Arc::new(settings);
        (world, id, storage)
    }

    /// What the job's tasks and checkpoints have written and nobody has deleted.
    pub(crate) fn objects_of(&self, job: &JobId) -> BTreeSet<String> {
        let written = self.written.get(job).cloned().unwrap_or_default();
        written.difference(&self.deleted).cloned().collect()
    }

    /// A file of one of the job's retained checkpoints becomes unreadable.
    pub(crate) fn damage(&mut self, job: &JobId, choice: usize) {
        let retained = self.state.jobs[job].checkpoints.retained.iter();
        let files: Vec<_> = retained.flat_map(|checkpoint| checkpoint.paths()).collect();
        if !files.is_empty() {
            self.damaged.insert(files[choice % files.len()].to_owned());
        }
    }

    /// Deletes the orphans of a job; those that there were.
    pub(crate) fn collect_orphans(&mut self, job: &JobId) -> Vec<Orphan> {
        let objects = self.objects_of(job).into_iter().map(|path| (path, 1));
        let (cluster, job) = (&self.settings.cluster, &self.state.jobs[job]);
        let found = orphans(&self.state, cluster, job, objects.collect());
        self.deleted
            .extend(found.iter().map(|orphan| orphan.path.clone()));
        found
    }

    fn is_pending_savepoint(&self, job: &JobId, checkpoint: CheckpointId) -> bool {
        let pending = self.state.jobs[job].checkpoints.pending.as_ref();
        pending.is_some_and(|pending| {
            pending.id == checkpoint && pending.kind == CheckpointKind::Savepoint
        })
    }

    pub(super) fn work(&mut self, work: Work) {
        match work {
            Work::CheckFile {
                job, attempt, file, ..
            } => {
                let condition = if self.damaged.contains(&file.path) {
                    FileCondition::Damaged
                } else {
                    FileCondition::Whole
                };
                let checked = FileChecked {
                    attempt,
                    path: file.path,
                    condition,
                };
                self.observed.files_checked.insert(job, checked);
            }
            Work::Sweep { job } => {
                let ended = &self.state.jobs[&job];
                assert!(ended.status.is_terminal() && ended.is_clean());
                let left = self.written.get(&job).into_iter().flatten();
                self.deleted.extend(left.cloned());
                self.observed.swept.insert(job);
            }
            Work::LoadGraph { job } => {
                let object = self.state.jobs[&job].graph_object.clone().unwrap();
                let graph = if self.deleted.contains(&object.path) {
                    Err("it is gone".to_owned())
                } else {
                    self.graphs_read += 1;
                    Ok(Arc::new(object.read(&self.graphs[&object.path]).unwrap()))
                };
                self.observed.graphs.insert(job, graph);
            }
            Work::WriteMetadata { job, checkpoint }
                if self.is_pending_savepoint(&job, checkpoint) =>
            {
                let pending = self.state.jobs[&job].checkpoints.pending.as_ref().unwrap();
                let directory = pending.savepoint_directory.clone();
                let files = self.savepoints.entry(directory.clone()).or_default();
                files.insert(paths::METADATA.to_owned());
                let outcome = Ok((directory, String::new()));
                let written = MetadataWritten {
                    checkpoint,
                    outcome,
                };
                self.observed.metadata.insert(job, written);
            }
            Work::WriteMetadata { job, checkpoint } => {
                let directory = paths::job(
                    &self.settings.cluster,
                    &self.state.jobs[&job].namespace,
                    &job,
                );
                let directory = paths::checkpoint(&directory, checkpoint);
                let object = format!("{directory}/{}", paths::METADATA);
                self.written
                    .entry(job.clone())
                    .or_default()
                    .insert(object.clone());
                let outcome = Ok((format!("memory:///test/{object}"), object));
                self.observed.metadata.insert(
                    job,
                    MetadataWritten {
                        checkpoint,
                        outcome,
                    },
                );
            }
            Work::DeleteSavepoint { job, directory } => {
                let files = self.savepoints.remove(&directory).unwrap_or_default();
                let complete = files.iter().map(|path| format!("{directory}/{path}"));
                self.deleted.extend(complete);
                let forget = wire::ForgetFiles {
                    job_id: job.to_string(),
                    directories: vec![directory],
                    ..Default::default()
                };
                assert_eq!(self.apply(Decision::ForgetFiles(forget)), Response::Applied);
            }
            Work::DeleteFiles { job, paths } => {
                self.deleted.extend(paths.iter().cloned());
                let forget = wire::ForgetFiles {
                    job_id: job.to_string(),
                    paths,
                    ..Default::default()
                };
                assert_eq!(self.apply(Decision::ForgetFiles(forget)), Response::Applied);
            }
        }
    }
}
