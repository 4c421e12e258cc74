//! Carries out committed commands on the replicated state.
//!
//! Deterministic: the outcome depends on the state, the entry and its index alone. Time comes from the entry. An entry
//! that does not fit is refused with a reason and changes nothing; that is a normal outcome, since proposals race.
//!
//! Only the leader in office may decide: an entry whose epoch is not the active one is refused, so that a task of a
//! deposed leader, even of the same process, cannot act any more.

mod attempt;
mod checkpoint;
mod claim;
mod job;
mod kv;
pub(crate) mod namespace;
mod rescale;

use std::sync::Arc;

use flott_node::Mutant;
use flott_proto::Malformed;
use flott_proto::ids::{AttemptNumber, JobId, LeaderEpoch, Namespace, NodeId};
use flott_proto::wire::{self, command::Decision};

use super::feature_level;
use super::job::{Job, JobStatus};
use super::state::{ActiveLeader, ClusterState, KvChanges, Response};

/// Why a command changed nothing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(String);

impl Refused {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl From<Malformed> for Refused {
    fn from(malformed: Malformed) -> Self {
        Self(malformed.to_string())
    }
}

impl ClusterState {
    /// Carries out one committed command. `index` is the entry's log index.
    ///
    /// Panics on a command that this build does not know: a member that skipped it would differ from the others.
    pub fn apply(&mut self, index: u64, command: &wire::Command) -> Response {
        self.apply_and_tell(index, command, &mut Vec::new())
    }

    /// Like [`Self::apply`]; what watchers of keys are to be told is appended to `told`.
    pub fn apply_and_tell(
        &mut self,
        index: u64,
        command: &wire::Command,
        told: &mut Vec<KvChanges>,
    ) -> Response {
        self.log_time_ms = self.log_time_ms.max(command.now_ms);
        let decision = command.decision.as_ref();
        let decision = decision
            .expect("a command unknown to this build was committed; upgrade this JobManager");
        match self.decide(index, LeaderEpoch(command.epoch), decision, told) {
            Ok(response) => {
                #[cfg(feature = "simulation")]
                flott_node::simulation::tell(flott_node::simulation::Told::Decided {
                    index,
                    epoch: command.epoch,
                    takes_office: matches!(decision, Decision::ActivateJobManager(_)),
                });
                response
            }
            Err(Refused(reason)) => Response::Refused(reason),
        }
    }

    /// Why a submission would be refused now, if so. Changes nothing.
    pub fn would_refuse(&self, submit: &wire::SubmitJob) -> Option<String> {
        let refused = job::submit(&mut self.clone(), submit).err();
        refused.map(|Refused(reason)| reason)
    }

    fn decide(
        &mut self,
        index: u64,
        epoch: LeaderEpoch,
        decision: &Decision,
        told: &mut Vec<KvChanges>,
    ) -> Result<Response, Refused> {
        if let Decision::ActivateJobManager(activate) = decision {
            self.epoch = LeaderEpoch(index);
            self.leader = Some(ActiveLeader {
                node: NodeId(activate.node_id),
                incarnation: activate.incarnation.clone(),
                address: activate.address.clone(),
            });
            kv::keep_leases(self);
            if Mutant::EndedJobRevived.is_planted() {
                self.revive();
            }
            return Ok(Response::Applied);
        }
        if epoch != self.epoch && !Mutant::DeposedLeaderDecides.is_planted() {
            #[cfg(feature = "simulation")]
            flott_node::simulation::happened("a decision of a deposed leader was refused");
            return Err(Refused::new(format!(
                "epoch {epoch} is not in office; {} is",
                self.epoch
            )));
        }
        let account = job_of(decision).and_then(|id| self.account(id));
        let decided = match decision {
            Decision::ActivateJobManager(_) | Decision::CheckState(_) => Ok(()),
            Decision::SubmitJob(submit) => job::submit(self, submit),
            Decision::CancelJob(cancel) => job::cancel(self, cancel),
            Decision::EndJob(end) => job::end(self, end),
            Decision::StartAttempt(start) => attempt::start(self, start),
            Decision::RecordFailure(failure) => attempt::record_failure(self, failure),
            Decision::BeginCheckpoint(begin) => checkpoint::begin(self, begin),
            Decision::CompleteCheckpoint(complete) => checkpoint::complete(self, complete),
            Decision::AbortCheckpoint(abort) => checkpoint::abort(self, abort),
            Decision::DiscardCheckpoint(discard) => checkpoint::discard(self, discard),
            Decision::RequestSavepoint(request) => checkpoint::request_savepoint(self, request),
            Decision::ForgetFiles(forget) => checkpoint::forget_files(self, forget),
            Decision::RescaleJob(rescale) => rescale::rescale(self, rescale),
            Decision::RaiseFeatureLevel(raise) => feature_level::raise(self, raise),
            Decision::KvBatch(batch) => return Ok(Response::Kv(kv::batch(self, batch, told))),
            Decision::KvExpire(_) => {
                kv::expire(self, told);
                Ok(())
            }
            Decision::CreateNamespace(create) => namespace::create(self, create),
            Decision::UpdateNamespace(update) => namespace::update(self, update),
            Decision::DeleteNamespace(delete) => namespace::delete(self, delete),
            Decision::PurgeNamespace(purge) => namespace::purge(self, purge),
            Decision::ForgetJobs(forget) => namespace::forget(self, forget),
            Decision::DismissJob(dismiss) => namespace::dismiss(self, dismiss),
        };
        if let Some(account) = account {
            self.settle(account);
        }
        decided.map(|()| Response::Applied)
    }

    /// What must never happen: the defect of that name.
    fn revive(&mut self) {
        for job in self.jobs.clone().keys() {
            let job = self.jobs.get_mut(job).map(Arc::make_mut);
            if let Some(job) = job.filter(|job| job.status.is_terminal()) {
                (job.status, job.ended_at_ms) = (JobStatus::Restarting, 0);
            }
        }
    }

    /// The job to change. It is copied first if a published version still holds it.
    fn job_mut(&mut self, id: &str) -> Result<&mut Job, Refused> {
        let id: JobId = id.parse()?;
        match self.jobs.get_mut(&id) {
            Some(job) => Ok(Arc::make_mut(job)),
            None => Err(Refused::new(format!("there is no job {id}"))),
        }
    }

    /// The job to change on behalf of a client of that namespace: those of others are as if they were not there.
    fn job_in_mut(&mut self, namespace: &str, id: &str) -> Result<&mut Job, Refused> {
        let namespace: Namespace = namespace.parse()?;
        let job = self.job_mut(id)?;
        if job.namespace == namespace {
            Ok(job)
        } else {
            Err(Refused::new(format!(
                "there is no job {} in namespace {namespace}",
                job.id
            )))
        }
    }

    /// The job to change, if its present attempt is that one and it has not ended.
    fn job_at_attempt(&mut self, id: &str, attempt: u32) -> Result<&mut Job, Refused> {
        let job = self.job_mut(id)?;
        if job.status.is_terminal() {
            return Err(Refused::new(format!(
                "job {id} has ended as {}",
                job.status
            )));
        }
        if job.attempt != AttemptNumber(attempt) {
            return Err(Refused::new(format!(
                "job {id} is at attempt {}, not {attempt}",
                job.attempt
            )));
        }
        Ok(job)
    }
}

/// The job that a decision changes, so that its namespace counts what it uses afterwards.
fn job_of(decision: &Decision) -> Option<&str> {
    let id = match decision {
        Decision::CancelJob(cancel) => &cancel.job_id,
        Decision::EndJob(end) => &end.job_id,
        Decision::StartAttempt(start) => &start.job_id,
        Decision::RecordFailure(failure) => &failure.job_id,
        Decision::BeginCheckpoint(begin) => &begin.job_id,
        Decision::CompleteCheckpoint(complete) => &complete.job_id,
        Decision::AbortCheckpoint(abort) => &abort.job_id,
        Decision::DiscardCheckpoint(discard) => &discard.job_id,
        Decision::RequestSavepoint(request) => &request.job_id,
        Decision::ForgetFiles(forget) => &forget.job_id,
        Decision::DismissJob(dismiss) => &dismiss.job_id,
        Decision::RescaleJob(rescale) => &rescale.job_id,
        _ => return None,
    };
    Some(id)
}

#[cfg(test)]
mod namespace_tests;
#[cfg(test)]
mod tests;
