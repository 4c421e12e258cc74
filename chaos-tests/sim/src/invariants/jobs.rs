//! The lives of jobs: an attempt's number never falls, a job that has ended never changes again, one that was acknowledged is
//! never missing; and where only JobManagers are hurt, no task is ever started again.

use std::collections::BTreeMap;

use flott_coordinator::core::{ClusterState, JobStatus};

/// By job: its status and its attempt.
#[derive(Debug, Default)]
pub struct Jobs(BTreeMap<String, (JobStatus, u32)>);

impl Jobs {
    /// Whether jobs may be like this, after all that was seen before. `spared`: no TaskManager was hurt.
    pub fn check(&mut self, state: &ClusterState, spared: bool) -> Result<(), String> {
        for (id, (before, attempt)) in &mut self.0 {
            let Some(job) = state.jobs.values().find(|job| job.id.as_str() == id) else {
                return Err(format!("jobs: {id} is gone"));
            };
            if before.is_terminal() && (job.status != *before || job.attempt.0 != *attempt) {
                return Err(format!(
                    "jobs: {id} had ended as {before} with attempt {attempt}, and is {} with attempt {}",
                    job.status, job.attempt
                ));
            }
            if job.attempt.0 < *attempt {
                return Err(format!(
                    "jobs: {id} goes back from attempt {attempt} to {}",
                    job.attempt
                ));
            }
        }
        for job in state.jobs.values() {
            if job.status.is_ending() && job.status != JobStatus::Cancelling {
                return Err(format!(
                    "jobs: {} has failed: {}",
                    job.id, job.failures.last_cause
                ));
            }
            if spared && job.attempt.0 > 1 {
                return Err(format!(
                    "jobs: {} was started again although only JobManagers were hurt: {}",
                    job.id, job.failures.last_cause
                ));
            }
            self.0
                .insert(job.id.to_string(), (job.status, job.attempt.0));
        }
        Ok(())
    }

    /// Whether an acknowledged job is known, once everything is seen.
    pub fn check_acknowledged(&self, submitted: &[String]) -> Result<(), String> {
        match submitted.iter().find(|id| !self.0.contains_key(*id)) {
            Some(id) => Err(format!("jobs: {id} was acknowledged, and nobody knows it")),
            None => Ok(()),
        }
    }
}
