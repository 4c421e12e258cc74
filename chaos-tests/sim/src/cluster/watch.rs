//! Hands what can be seen of the cluster to the invariants: each new state, what tasks tell, and the output.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flott_coordinator::core::{ClusterState, Job, JobStatus};
use flott_coordinator::simulation::Probe;
use flott_node::simulation::Told;

use super::plan::Plan;
use super::users::Shared;
use crate::invariants::checkpoints::Checkpoints;
use crate::invariants::closure;
use crate::invariants::jobs::Jobs;
use crate::invariants::output::Output;
use crate::invariants::tasks::Tasks;
use crate::kernel::count;
use crate::kernel::hosts::HostId;
use crate::object_store::Store;

/// What is known of jobs and their tasks.
#[derive(Debug)]
pub struct Watch {
    applied: u64,
    state: Option<Arc<ClusterState>>,
    jobs: Jobs,
    checkpoints: Checkpoints,
    tasks: Tasks,
    /// Of the job that is kept running.
    output: Output,
    /// Of jobs that are canceled, by id.
    canceled: BTreeMap<String, Output>,
    canceled_output: PathBuf,
    spares_tasks: bool,
}

impl Watch {
    /// Of a run whose jobs write below `output`.
    pub fn new(plan: &Plan, output: &Path) -> Self {
        Self {
            applied: 0,
            state: None,
            jobs: Jobs::default(),
            checkpoints: Checkpoints::default(),
            tasks: Tasks::default(),
            output: Output::new(&output.join("kept"), plan.records),
            canceled: BTreeMap::new(),
            canceled_output: output.join("canceled"),
            spares_tasks: plan.spares_tasks,
        }
    }

    /// The process of a machine has ended.
    pub fn on_death(&mut self, host: HostId) {
        self.tasks.on_death(host);
    }

    /// The newest state.
    pub fn state(&self) -> Option<&Arc<ClusterState>> {
        self.state.as_ref()
    }

    /// A JobManager has applied so much.
    pub fn on_member(
        &mut self,
        applied: u64,
        probe: &Probe,
        store: &Store,
        users: &Shared,
    ) -> Result<(), String> {
        if applied <= self.applied {
            return Ok(());
        }
        self.applied = applied;
        let state = probe.state();
        let before = self.state.replace(Arc::clone(&state));
        if before
            .as_ref()
            .is_some_and(|before| before.jobs.ptr_eq(&state.jobs))
        {
            return Ok(());
        }
        self.jobs.check(&state, self.spares_tasks)?;
        for (id, job) in &state.jobs {
            let earlier = before.as_ref().and_then(|before| before.jobs.get(id));
            if earlier.is_some_and(|earlier| Arc::ptr_eq(earlier, job)) {
                continue;
            }
            for checkpoint in self.checkpoints.check(job)? {
                self.tasks
                    .check_complete(job.id.as_str(), checkpoint, &self.checkpoints)?;
            }
            closure::check(job, store)?;
            if let (Some(earlier), Some(before)) = (earlier, &before) {
                count_changes(before, &state, earlier, job);
            }
        }
        users.known().state = Some(state);
        Ok(())
    }

    /// What processes told since the last time.
    pub fn on_told(&mut self, told: Vec<(HostId, Told)>) -> Result<(), String> {
        for (host, told) in told {
            self.tasks.check(host, &told, &self.checkpoints)?;
            if let Told::TaskBegan { restored: 1.., .. } = told {
                count("a task began from a checkpoint");
            }
        }
        Ok(())
    }

    /// Reads what was committed.
    pub fn check_output(&mut self) -> Result<(), String> {
        self.output.check()?;
        let ids = self.state.iter().flat_map(|state| state.jobs.keys());
        let ids: Vec<String> = ids.map(ToString::to_string).collect();
        for id in ids {
            let directory = self.canceled_output.join(&id);
            let output = self.canceled.entry(id);
            output
                .or_insert_with(|| Output::new(&directory, 0))
                .check()?;
        }
        Ok(())
    }

    /// At the end: nothing is missing, and nothing is left over.
    pub fn check_end(&mut self, submitted: &[String], store: &Store) -> Result<(), String> {
        self.check_output()?;
        self.output.check_complete()?;
        self.jobs.check_acknowledged(submitted)?;
        let Some(state) = &self.state else {
            return Err("liveness: no state was ever seen".to_owned());
        };
        for job in state.jobs.values() {
            closure::check(job, store)?;
        }
        closure::check_quiet(state, store)
    }

    /// Rows committed, and checkpoints completed.
    pub fn figures(&self) -> (u64, u64) {
        let canceled = self.canceled.values().map(Output::rows);
        let rows = self.output.rows() + canceled.sum::<u64>();
        (rows, self.checkpoints.completed())
    }
}

/// What is worth being counted in the step from one state to the next.
fn count_changes(before: &ClusterState, after: &ClusterState, earlier: &Job, job: &Job) {
    let changed_leader = before.epoch != after.epoch;
    if changed_leader && earlier.checkpoints.pending.is_some() {
        count("a leader was replaced with a checkpoint pending");
    }
    if changed_leader && earlier.status == JobStatus::Running && job.attempt == earlier.attempt {
        count("a job ran on under another leader without a restart");
    }
    if earlier.attempt != job.attempt {
        match job.starts().next().map(|start| start.id().0) {
            Some(0) => count("an attempt began from a savepoint"),
            Some(_) => count("an attempt began from a checkpoint"),
            None => count("an attempt began empty"),
        }
    }
    if job.parallelism() != earlier.parallelism() {
        count("a job changed its parallelism");
    }
    let (old, new) = (&earlier.checkpoints, &job.checkpoints);
    if new.completed_count > old.completed_count {
        count("a checkpoint completed");
        let newest = new.history.last();
        if newest.is_some_and(|newest| newest.alignment.unaligned) {
            count("a checkpoint had rows in flight");
        }
    }
    if new.savepoints.len() > old.savepoints.len() {
        count("a savepoint completed");
    }
    if new.failed_count > old.failed_count {
        count("a checkpoint was given up");
    }
    if new.retired.len() < old.retired.len() {
        count("retired files were forgotten");
    }
    if job.status != earlier.status {
        match job.status {
            JobStatus::Finished => count("a job finished"),
            JobStatus::Canceled => count("a job was canceled"),
            JobStatus::Restarting => count("a job was restarted"),
            _ => {}
        }
    }
}
