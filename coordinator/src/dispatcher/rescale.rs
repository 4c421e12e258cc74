//! Another parallelism for a running job: asked for, and waited for.

use flott_proto::wire::{self, command::Decision};
use tonic::{Response, Status};

use super::changes::Changes;
use super::{Answer, Dispatcher};
use crate::core::Job;
use crate::task_managers::not_leader;

impl Dispatcher {
    /// Has the job run at another parallelism, and returns once that attempt has begun. However often it is repeated, it
    /// is one change.
    pub(super) async fn rescale(
        &self,
        request: wire::RescaleJobRequest,
    ) -> Answer<wire::RescaleJobResponse> {
        let wire::RescaleJobRequest {
            namespace,
            job_id,
            parallelism,
        } = request;
        let job = self.job(&namespace, &job_id).await?;
        self.check_slots(&job, parallelism).await?;
        let rescale = wire::RescaleJob {
            namespace: namespace.clone(),
            job_id: job_id.clone(),
            parallelism,
        };
        self.decide(Decision::RescaleJob(rescale)).await?;
        let mut changes = Changes::from_now(self.raft.applied(), &self.office);
        loop {
            let job = self.job(&namespace, &job_id).await?;
            if let Some(outcome) = outcome(&job, parallelism) {
                let attempt = outcome.map_err(Status::aborted)?;
                return Ok(Response::new(wire::RescaleJobResponse { attempt }));
            }
            let changed = changes.next().await;
            changed.map_err(|_| not_leader(&self.raft))?;
        }
    }

    /// Refuses what would have a running job wait for slots. A look at what is there now: a TaskManager may be lost, or
    /// taken by another job, in the next moment.
    async fn check_slots(&self, job: &Job, parallelism: u32) -> Result<(), Status> {
        let present = job.graph.slots_needed();
        let needed = job.rescaled(parallelism)?.slots_needed();
        if !job.is_running() || needed <= present {
            return Ok(());
        }
        let inspection = self.inspect(None).await?;
        let state = self.state().await?;
        let connected = inspection.observed.task_managers.iter();
        let connected = connected.filter(|(_, task_manager)| task_manager.connection.is_some());
        let free = connected.map(|(id, tm)| tm.slots.saturating_sub(state.slots_used(id)));
        let most = present + free.sum::<u32>();
        if needed > most {
            return Err(Status::invalid_argument(format!(
                "job {} would need {needed} slots and can get {most}: start TaskManagers, or ask for less",
                job.id
            )));
        }
        Ok(())
    }
}

/// The attempt that runs at the parallelism that was asked for, or why there will be none; `None` while it is on its way.
fn outcome(job: &Job, parallelism: u32) -> Option<Result<u32, String>> {
    if job.status.is_terminal() || job.status.is_ending() {
        return Some(Err(format!("the job is {}", job.status)));
    }
    if job.rescale_to.is_some() {
        return None;
    }
    if job.parallelism() == parallelism {
        return job.is_running().then_some(Ok(job.attempt.0));
    }
    let failures = job.checkpoints.history.iter().rev();
    let reason = failures.filter_map(|summary| summary.outcome.as_ref().err());
    let reason = reason.map(String::as_str).next();
    Some(Err(format!(
        "the job goes on at parallelism {}: {}",
        job.parallelism(),
        reason.map_or("another request came after this one".to_owned(), |reason| {
            format!("the checkpoint at which it would have changed came to nothing: {reason}")
        })
    )))
}
