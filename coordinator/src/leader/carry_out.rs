//! Does what the plan says: sends, proposes, and works on object storage. Answers come back as events.

use std::sync::Arc;
use std::time::Duration;

use flott_node::{Failpoint, Mutant, OnFailure};
use flott_proto::ids::{AttemptNumber, CheckpointId, JobId};
use flott_proto::state_handle::StateFile;
use flott_proto::wire::{self, command::Decision, job_manager_message::Message};
use tracing::{debug, info, warn};

use super::session::Session;
use super::{Event, chain};
use crate::core::ClusterState;
use crate::core::observed::{FileChecked, FileCondition, MetadataWritten, UnderWay};
use crate::core::plan::{Plan, Work};
use crate::{checkpoint_files, metrics};

/// Storage that refuses to delete is asked again at this pace.
const DELETE_RETRY_AFTER: Duration = Duration::from_secs(5);
/// A job waits for its graph: storage is asked again soon.
const READ_RETRY_AFTER: Duration = Duration::from_secs(1);

impl Session {
    pub(super) fn carry_out(&mut self, state: &ClusterState, plan: Plan) {
        self.notes = plan.notes;
        for (to, message) in plan.sends {
            if matches!(message, Message::CheckpointCompleted(_)) {
                Failpoint::BeforeAnnouncement.pass();
            }
            self.send(&to, message);
        }
        let of_jobs = plan.proposals.into_iter();
        let of_jobs = of_jobs.map(|(job, decision)| (UnderWay::Proposal(job), decision));
        for (what, decision) in of_jobs.chain(plan.chores) {
            self.observed.on_proposed(what.clone(), &decision);
            self.propose(what, decision);
        }
        for work in plan.works {
            match work {
                Work::WriteMetadata { job, .. } => self.write_metadata(state, job),
                Work::DeleteFiles { job, paths } => self.delete_files(state, job, paths),
                Work::DeleteSavepoint { job, directory } => self.delete_savepoint(job, directory),
                Work::Sweep { job } => self.sweep(state, job),
                Work::LoadGraph { job } => self.load_graph(state, job),
                Work::CheckFile {
                    job,
                    attempt,
                    root,
                    file,
                } => self.check_file(job, attempt, root, file),
            }
        }
    }

    fn command(&self, decision: Decision) -> wire::Command {
        wire::Command {
            now_ms: self.log_clock.now_ms(&self.clock),
            epoch: self.epoch.0,
            decision: Some(decision),
        }
    }

    fn propose(&self, what: UnderWay, decision: Decision) {
        let completing = match &decision {
            Decision::CompleteCheckpoint(complete) => Some(CheckpointId(complete.checkpoint_id)),
            _ => None,
        };
        let (raft, to_self, command) = (
            self.raft.clone(),
            self.to_self.clone(),
            self.command(decision),
        );
        if let Some(Decision::CompleteCheckpoint(complete)) = &command.decision
            && Mutant::DeletedBeforeRetired.is_planted()
        {
            self.delete_oldest(&complete.job_id);
        }
        self.tasks.spawn("propose", OnFailure::Log, async move {
            if completing.is_some() {
                Failpoint::BeforeCompletion.pass();
            }
            let outcome = raft.propose(command).await.map(|applied| applied.response);
            if completing.is_some() {
                Failpoint::Completed.pass();
            }
            // The session is over if nobody takes the answer.
            let _ = to_self
                .send(Event::Proposed {
                    what,
                    outcome,
                    completing,
                })
                .await;
            Ok::<_, String>(())
        });
    }

    /// What must never happen: the defect [`Mutant::DeletedBeforeRetired`].
    fn delete_oldest(&self, id: &str) {
        let state = self.raft.state();
        let mut jobs = state.jobs.values();
        let Some(job) = jobs.find(|job| job.id.as_str() == id).cloned() else {
            return;
        };
        let oldest = job.checkpoints.retained.first();
        let path = oldest.and_then(|oldest| oldest.metadata_object.clone());
        self.tasks
            .spawn("delete files", OnFailure::Log, async move {
                checkpoint_files::delete(&job, path.into_iter().collect()).await;
                Ok::<_, String>(())
            });
    }

    /// Forgetting files races with no other decision, so it has no place among those of the job.
    pub(super) fn propose_forgetting(&self, job: JobId, decision: Decision) {
        let (raft, to_self, command) = (
            self.raft.clone(),
            self.to_self.clone(),
            self.command(decision),
        );
        self.tasks
            .spawn("forget files", OnFailure::Log, async move {
                if let Err(error) = raft.propose(command).await {
                    debug!(%job, %error, "deleted files are not forgotten yet");
                }
                let _ = to_self
                    .send(Event::FilesDeleted { job, deleted: None })
                    .await;
                Ok::<_, String>(())
            });
    }

    /// One step of removing expired keys; there may be more.
    pub(super) fn propose_expiry(&self) {
        let command = self.command(Decision::KvExpire(wire::KvExpire {}));
        let (raft, to_self) = (self.raft.clone(), self.to_self.clone());
        self.tasks.spawn("expire keys", OnFailure::Log, async move {
            if let Err(error) = raft.propose(command).await {
                debug!(%error, "expired keys are not removed yet");
            }
            let _ = to_self.send(Event::KeysExpired).await;
            Ok::<_, String>(())
        });
    }

    fn write_metadata(&mut self, state: &ClusterState, id: JobId) {
        let Some(job) = state.jobs.get(&id).cloned() else {
            return;
        };
        let Some(record) = job.checkpoints.pending.clone() else {
            return;
        };
        let Some(collected) = self.observed.pending.get(&id).cloned() else {
            return;
        };
        self.observed
            .under_way
            .insert(UnderWay::WriteMetadata(id.clone()));
        let (cluster, to_self, clock) = (
            self.plan_settings.cluster.clone(),
            self.to_self.clone(),
            self.clock.clone(),
        );
        self.tasks
            .spawn("write metadata", OnFailure::Log, async move {
                let begun = clock.monotonic();
                let written =
                    checkpoint_files::write_metadata(&cluster, &job, &record, &collected).await;
                metrics::checkpoint_metadata_seconds((clock.monotonic() - begun).as_secs_f64());
                let outcome = written.map(|written| (written.external_path, written.object));
                let written = MetadataWritten {
                    checkpoint: record.id,
                    outcome: outcome.map_err(|error| chain(&error)),
                };
                let _ = to_self
                    .send(Event::MetadataWritten { job: id, written })
                    .await;
                Ok::<_, String>(())
            });
    }

    fn load_graph(&mut self, state: &ClusterState, id: JobId) {
        let Some(job) = state.jobs.get(&id).cloned() else {
            return;
        };
        self.observed
            .under_way
            .insert(UnderWay::LoadGraph(id.clone()));
        let (to_self, clock) = (self.to_self.clone(), self.clock.clone());
        self.tasks
            .spawn("load job graph", OnFailure::Log, async move {
                let loaded = checkpoint_files::read_graph(&job).await;
                let outcome = loaded.map(Arc::new).map_err(|error| chain(&error));
                if let Err(error) = &outcome {
                    warn!(job = %id, error, "the job graph cannot be read; trying again");
                    clock.sleep(READ_RETRY_AFTER).await;
                }
                let loaded = Event::GraphLoaded { job: id, outcome };
                let _ = to_self.send(loaded).await;
                Ok::<_, String>(())
            });
    }

    fn check_file(&mut self, id: JobId, attempt: AttemptNumber, root: String, file: StateFile) {
        self.observed
            .under_way
            .insert(UnderWay::CheckFile(id.clone()));
        let to_self = self.to_self.clone();
        self.tasks
            .spawn("check state file", OnFailure::Log, async move {
                let condition = match checkpoint_files::check::file(&root, &file).await {
                    Ok(None) => FileCondition::Whole,
                    Ok(Some(fault)) => {
                        warn!(job = %id, file = file.path, %fault, "a task cannot restore this file, and it is damaged");
                        FileCondition::Damaged
                    }
                    Err(error) => {
                        let error = chain(&error);
                        warn!(job = %id, file = file.path, error, "a task cannot restore this file, and it cannot be looked at");
                        FileCondition::Unknown
                    }
                };
                let checked = FileChecked { attempt, path: file.path, condition };
                let _ = to_self.send(Event::FileChecked { job: id, checked }).await;
                Ok::<_, String>(())
            });
    }

    fn sweep(&mut self, state: &ClusterState, id: JobId) {
        let Some(job) = state.jobs.get(&id).cloned() else {
            return;
        };
        self.observed.under_way.insert(UnderWay::Sweep(id.clone()));
        let (cluster, to_self, clock) = (
            self.plan_settings.cluster.clone(),
            self.to_self.clone(),
            self.clock.clone(),
        );
        self.tasks
            .spawn("sweep directory", OnFailure::Log, async move {
                let swept = checkpoint_files::sweep(&cluster, &job).await;
                match &swept {
                    Ok(deleted) => metrics::files_deleted(*deleted),
                    Err(error) => {
                        let error = chain(error);
                        warn!(job = %id, error, "the directory of an ended job could not be swept; trying again");
                        clock.sleep(DELETE_RETRY_AFTER).await;
                    }
                }
                let swept = Event::Swept { job: id, empty: swept.is_ok() };
                let _ = to_self.send(swept).await;
                Ok::<_, String>(())
            });
    }

    fn delete_files(&mut self, state: &ClusterState, id: JobId, paths: Vec<String>) {
        let Some(job) = state.jobs.get(&id).cloned() else {
            return;
        };
        self.observed
            .under_way
            .insert(UnderWay::DeleteFiles(id.clone()));
        let (to_self, clock) = (self.to_self.clone(), self.clock.clone());
        self.tasks.spawn("delete files", OnFailure::Log, async move {
            let (gone, error) = checkpoint_files::delete(&job, paths).await;
            metrics::files_deleted(gone.len());
            if let Some(error) = error {
                warn!(job = %id, error = chain(&error), "retired files could not be deleted; trying again");
                clock.sleep(DELETE_RETRY_AFTER).await;
            }
            let deleted = (!gone.is_empty()).then(|| wire::ForgetFiles {
                job_id: id.to_string(),
                paths: gone,
                directories: Vec::new(),
            });
            let _ = to_self.send(Event::FilesDeleted { job: id, deleted }).await;
            Ok::<_, String>(())
        });
    }

    fn delete_savepoint(&mut self, id: JobId, directory: String) {
        self.observed
            .under_way
            .insert(UnderWay::DeleteFiles(id.clone()));
        let (to_self, clock) = (self.to_self.clone(), self.clock.clone());
        self.tasks.spawn("delete savepoint", OnFailure::Log, async move {
            let deleted = match checkpoint_files::savepoint::delete(&directory).await {
                Ok(count) => {
                    info!(job = %id, directory, count, "savepoint deleted");
                    metrics::files_deleted(count);
                    Some(wire::ForgetFiles {
                        job_id: id.to_string(),
                        paths: Vec::new(),
                        directories: vec![directory],
                    })
                }
                Err(error) => {
                    warn!(job = %id, directory, error = chain(&error), "a savepoint could not be deleted; trying again");
                    clock.sleep(DELETE_RETRY_AFTER).await;
                    None
                }
            };
            let _ = to_self.send(Event::FilesDeleted { job: id, deleted }).await;
            Ok::<_, String>(())
        });
    }
}
