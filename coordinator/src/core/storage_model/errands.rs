//! Work on object storage, one object at a time. It ends whether or not the leader that began it is still in office.

use std::collections::BTreeSet;
use std::sync::Arc;

use flott_proto::ids::{AttemptNumber, CheckpointId, JobId, LeaderEpoch};
use flott_proto::paths;
use flott_proto::wire::{self, command::Decision};

use super::super::ClusterState;
use super::super::checkpoint::CheckpointKind;
use super::super::observed::{FileChecked, FileCondition, MetadataWritten, UnderWay};
use super::super::orphans::orphans;
use super::super::plan::Work;
use super::leader::{Asked, Proposal};
use super::objects::{Content, Metadata, object};
use super::{Model, Mutant};

#[derive(Debug)]
pub(super) struct Errand {
    epoch: LeaderEpoch,
    job: JobId,
    doing: Doing,
}

#[derive(Debug)]
enum Doing {
    WriteMetadata {
        checkpoint: CheckpointId,
        path: String,
        savepoint_directory: Option<String>,
        content: Result<Arc<Metadata>, String>,
    },
    Delete {
        left: Vec<String>,
        gone: Vec<String>,
    },
    Sweep {
        kept: BTreeSet<String>,
        directory: String,
        /// None: not listed yet.
        left: Option<Vec<String>>,
        listed_at: u64,
    },
    /// `_metadata` goes first.
    DeleteSavepoint {
        directory: String,
        /// None: not listed yet.
        left: Option<Vec<String>>,
        listed_at: u64,
    },
    CheckFile {
        attempt: AttemptNumber,
        root: String,
        path: String,
    },
    /// `flott checkpoints gc`. The state is read before the directory is listed.
    Collect {
        state: ClusterState,
        left: Option<Vec<String>>,
    },
}

impl Model {
    /// The leader of `epoch`, which sees `state`, begins some work.
    pub(super) fn begin(&mut self, epoch: LeaderEpoch, state: &ClusterState, work: Work) {
        let (job, doing) = match work {
            Work::WriteMetadata { job, checkpoint } => {
                let doing = self.metadata(epoch, state, &job, checkpoint);
                self.under_way(epoch, UnderWay::WriteMetadata(job.clone()));
                (job, doing)
            }
            Work::DeleteFiles { job, paths } => {
                self.under_way(epoch, UnderWay::DeleteFiles(job.clone()));
                return self.begin_deleting(epoch, &job, paths);
            }
            Work::DeleteSavepoint { job, directory } => {
                self.under_way(epoch, UnderWay::DeleteFiles(job.clone()));
                let doing = Doing::DeleteSavepoint {
                    directory,
                    left: None,
                    listed_at: 0,
                };
                (job, doing)
            }
            Work::Sweep { job } => {
                let ended = &state.jobs[&job];
                let kept = ended.checkpoints.savepoint_paths();
                let doing = Doing::Sweep {
                    kept: kept.into_iter().map(str::to_owned).collect(),
                    directory: self.directory(ended),
                    left: None,
                    listed_at: 0,
                };
                self.under_way(epoch, UnderWay::Sweep(job.clone()));
                (job, doing)
            }
            Work::CheckFile {
                job,
                attempt,
                root,
                file,
            } => {
                self.under_way(epoch, UnderWay::CheckFile(job.clone()));
                let path = file.path;
                let doing = Doing::CheckFile {
                    attempt,
                    root,
                    path,
                };
                (job, doing)
            }
            Work::LoadGraph { .. } => unreachable!("the graphs of the model are small"),
        };
        self.errands.push(Errand { epoch, job, doing });
    }

    pub(super) fn begin_deleting(&mut self, epoch: LeaderEpoch, job: &JobId, left: Vec<String>) {
        let gone = Vec::new();
        self.errands.push(Errand {
            epoch,
            job: job.clone(),
            doing: Doing::Delete { left, gone },
        });
    }

    pub(super) fn begin_collecting(&mut self, state: ClusterState, job: &JobId) {
        self.errands.push(Errand {
            epoch: state.epoch,
            job: job.clone(),
            doing: Doing::Collect { state, left: None },
        });
    }

    fn under_way(&mut self, epoch: LeaderEpoch, what: UnderWay) {
        if epoch == self.leader.epoch {
            self.leader.observed.under_way.insert(what);
        }
    }

    fn metadata(
        &self,
        epoch: LeaderEpoch,
        state: &ClusterState,
        id: &JobId,
        checkpoint: CheckpointId,
    ) -> Doing {
        let job = &state.jobs[id];
        let pending = job.checkpoints.pending.as_ref().unwrap();
        let is_savepoint = pending.kind == CheckpointKind::Savepoint;
        let savepoint_directory = is_savepoint.then(|| pending.savepoint_directory.clone());
        let directory = savepoint_directory
            .clone()
            .unwrap_or_else(|| paths::checkpoint(&self.directory(job), checkpoint));
        let collected = &self.observed_of(epoch).pending[id];
        let acks = collected.acks().values().cloned();
        let resolved = job.resolve(acks);
        let content = resolved.map(|subtasks| {
            let job = id.clone();
            Arc::new(Metadata {
                job,
                checkpoint,
                savepoint_directory: savepoint_directory.clone(),
                subtasks,
            })
        });
        Doing::WriteMetadata {
            checkpoint,
            path: format!("{directory}/{}", paths::METADATA),
            savepoint_directory,
            content: content.map_err(|error| error.to_string()),
        }
    }

    /// The next step of some errand.
    pub(super) fn run_errand(&mut self) -> Option<String> {
        if self.errands.is_empty() {
            return None;
        }
        let at = self.random.below(self.errands.len());
        let errand = self.errands.swap_remove(at);
        let in_office = errand.epoch == self.leader.epoch;
        let by = if in_office {
            "leader"
        } else {
            "deposed leader"
        };
        let what = match errand.doing {
            Doing::WriteMetadata { .. } => self.write_metadata(errand, in_office),
            Doing::Delete { .. } => self.delete_next(errand, in_office),
            Doing::DeleteSavepoint { .. } => self.delete_savepoint(errand, in_office),
            Doing::Sweep { .. } => self.sweep(errand, in_office),
            Doing::CheckFile { .. } => self.check_file(errand, in_office),
            Doing::Collect { .. } => self.collect(errand),
        };
        Some(format!("{by}: {what}"))
    }

    fn write_metadata(&mut self, errand: Errand, in_office: bool) -> String {
        let Doing::WriteMetadata {
            checkpoint,
            path,
            savepoint_directory,
            content,
        } = errand.doing
        else {
            unreachable!()
        };
        let written = content.and_then(|content| {
            let fails = self.random.percent(3);
            // It may have been applied nevertheless.
            if !fails || self.random.percent(50) {
                self.objects
                    .put(&path, Content::Metadata(content), self.steps);
            }
            if fails {
                return Err("the storage does not answer".to_owned());
            }
            Ok(match savepoint_directory {
                Some(directory) => (directory, String::new()),
                None => (path.clone(), path.clone()),
            })
        });
        let what = format!("writes {path}: {}", written.is_ok());
        if in_office {
            self.done(&UnderWay::WriteMetadata(errand.job.clone()));
            let written = MetadataWritten {
                checkpoint,
                outcome: written,
            };
            self.leader.observed.metadata.insert(errand.job, written);
        } else {
            self.saw("metadata by a deposed leader");
        }
        what
    }

    fn delete_next(&mut self, mut errand: Errand, in_office: bool) -> String {
        let Doing::Delete { left, gone } = &mut errand.doing else {
            unreachable!()
        };
        let fails = self.random.percent(3);
        if !fails && let Some(path) = left.pop() {
            let was_there = self.objects.delete(&path);
            let what = format!("deletes {path}");
            gone.push(path);
            self.errands.push(errand);
            self.saw(match (in_office, was_there) {
                (true, true) => "deletion",
                (false, true) => "deletion by a deposed leader",
                (_, false) => "repeated deletion",
            });
            return what;
        }
        let gone = std::mem::take(gone);
        if in_office && gone.is_empty() {
            self.done(&UnderWay::DeleteFiles(errand.job.clone()));
        } else if in_office {
            let forget = wire::ForgetFiles {
                job_id: errand.job.to_string(),
                paths: gone.clone(),
                directories: Vec::new(),
            };
            self.proposals.push(Proposal {
                epoch: errand.epoch,
                decision: Decision::ForgetFiles(forget),
                asked: Asked::ForgetFiles(errand.job),
            });
        }
        format!("has deleted {}", gone.len())
    }

    fn delete_savepoint(&mut self, mut errand: Errand, in_office: bool) -> String {
        let Doing::DeleteSavepoint {
            directory,
            left,
            listed_at,
        } = &mut errand.doing
        else {
            unreachable!()
        };
        let Some(left) = left else {
            let mut found: Vec<String> = self.objects.list(directory).into_iter().collect();
            found.sort_by_key(|path| path.ends_with(paths::METADATA));
            *left = Some(found);
            *listed_at = self.steps;
            let what = format!("lists {directory}");
            self.errands.push(errand);
            return what;
        };
        if let Some(path) = left.pop() {
            self.objects.delete(&path);
            self.errands.push(errand);
            self.saw("savepoint deletion");
            return format!("deletes {path}");
        }
        let what = format!("has deleted {directory}");
        if in_office {
            self.swept_at.insert(directory.clone(), *listed_at);
            let forget = wire::ForgetFiles {
                job_id: errand.job.to_string(),
                paths: Vec::new(),
                directories: vec![directory.clone()],
            };
            self.proposals.push(Proposal {
                epoch: errand.epoch,
                decision: Decision::ForgetFiles(forget),
                asked: Asked::ForgetFiles(errand.job),
            });
        }
        what
    }

    fn sweep(&mut self, mut errand: Errand, in_office: bool) -> String {
        let Doing::Sweep {
            kept,
            directory,
            left,
            listed_at,
        } = &mut errand.doing
        else {
            unreachable!()
        };
        let Some(left) = left else {
            let found = self.objects.list(directory);
            *left = Some(found.difference(kept).cloned().collect());
            *listed_at = self.steps;
            let what = format!("lists {directory}");
            self.errands.push(errand);
            return what;
        };
        if let Some(path) = left.pop() {
            self.objects.delete(&path);
            self.errands.push(errand);
            return format!("sweeps {path}");
        }
        self.saw("sweep");
        let what = format!("has swept {directory}");
        if in_office {
            self.swept_at.insert(directory.clone(), *listed_at);
            self.done(&UnderWay::Sweep(errand.job.clone()));
            self.leader.observed.swept.insert(errand.job);
        }
        what
    }

    fn check_file(&mut self, errand: Errand, in_office: bool) -> String {
        let Doing::CheckFile {
            attempt,
            root,
            path,
        } = errand.doing
        else {
            unreachable!()
        };
        let object = object(&root, &path);
        let is_damaged = self.damaged.contains(&object) || !self.objects.has(&object);
        let condition = if is_damaged {
            FileCondition::Damaged
        } else {
            FileCondition::Whole
        };
        let what = format!("finds {path} {condition:?}");
        if in_office {
            self.done(&UnderWay::CheckFile(errand.job.clone()));
            let checked = FileChecked {
                attempt,
                path,
                condition,
            };
            self.leader
                .observed
                .files_checked
                .insert(errand.job, checked);
        }
        what
    }

    fn collect(&mut self, mut errand: Errand) -> String {
        let Doing::Collect { state, left } = &mut errand.doing else {
            unreachable!()
        };
        let Some(left) = left else {
            let Some(job) = state.jobs.get(&errand.job) else {
                return "finds no job to clean up".to_owned();
            };
            let objects = self.objects.list(&self.directory(job));
            let objects = objects.into_iter().map(|path| (path, 1)).collect();
            let is_deposed = errand.epoch != self.leader.epoch;
            let job = if self.mutant == Mutant::DeposedLeaderDeletes && is_deposed {
                // As if age proved something: what an attempt that still runs has written counts as left behind.
                let mut aged = (**job).clone();
                aged.attempt = aged.attempt.next();
                Arc::new(aged)
            } else {
                Arc::clone(job)
            };
            let found = orphans(state, &self.settings.cluster, &job, objects);
            let found: Vec<String> = found.into_iter().map(|orphan| orphan.path).collect();
            let what = format!("finds {} orphans", found.len());
            *left = Some(found);
            self.errands.push(errand);
            return what;
        };
        let Some(path) = left.pop() else {
            return "has collected the orphans".to_owned();
        };
        self.objects.delete(&path);
        self.saw("orphan deleted");
        self.errands.push(errand);
        format!("collects {path}")
    }
}
