//! What should happen next? A pure function of what has been decided, what is observed, and the time.
//!
//! Asked after every event. It remembers nothing: what is under way or was said already stands in [`Observed`], so a new
//! leader, which has seen nothing, is led to adopt what runs by the same rules that start it. That is why a failover has
//! no code of its own.
//!
//! - [`deploy`]: slots for jobs that wait; tasks for TaskManagers that lack them.
//! - [`failover`]: failures of tasks and TaskManagers. `fallback`: when a checkpoint cannot be restored.
//! - [`checkpoint`]: begin, trigger, complete, abort, announce; the end of a job whose input has ended.
//! - [`cleanup`]: tasks that must not run any more; files that nobody needs any more.
//! - `namespaces`: deletes namespaces. `retention`: forgets what ended long ago.
//!
//! A healthy job must cost little, for there may be a thousand: a look at its own tasks, by reference, and no parsing.

pub mod checkpoint;
pub mod cleanup;
pub mod deploy;
pub mod failover;
mod fallback;
mod namespaces;
mod placement;
mod retention;
mod slots;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flott_node::Mutant;
use flott_proto::ids::{AttemptNumber, CheckpointId, ClusterId, JobId, TaskManagerId};
use flott_proto::state_handle::StateFile;
use flott_proto::wire::command::Decision;
use flott_proto::wire::job_manager_message::Message;

use self::placement::Placement;
use self::slots::Slots;
use super::job::JobStatus;
use super::observed::{Now, Observed, UnderWay};
use super::state::ClusterState;

/// What the planners need to know besides state and observation.
#[derive(Clone, Debug)]
pub struct Settings {
    pub cluster: ClusterId,
    pub heartbeat_timeout: Duration,
    /// What a new leader has not heard from is unknown, not lost, for so long.
    pub reconnect_grace: Duration,
    /// The result of a job that ended so long ago is forgotten.
    pub results_expire_after: Duration,
    /// Ended jobs that a namespace keeps; none: as many as there are.
    pub results_max: Option<u32>,
}

/// What to do. The leader carries it out; the answers come back as events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Decisions to replicate, at most one for each job.
    pub proposals: Vec<(JobId, Decision)>,
    /// Decisions to replicate that are of no single job, each with what it is under way as.
    pub chores: Vec<(UnderWay, Decision)>,
    /// Messages for TaskManagers, in order.
    pub sends: Vec<(TaskManagerId, Message)>,
    pub works: Vec<Work>,
    /// Why a job waits, for people.
    pub notes: BTreeMap<JobId, String>,
}

/// Work on object storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// All acks are there: write the `_metadata` object.
    WriteMetadata {
        job: JobId,
        checkpoint: CheckpointId,
    },
    /// Delete objects that were retired.
    DeleteFiles { job: JobId, paths: Vec<String> },
    /// Delete a savepoint whose directory was retired.
    DeleteSavepoint { job: JobId, directory: String },
    /// Delete what is left in the directory of a job that has ended, but for savepoints.
    Sweep { job: JobId },
    /// Read the job's graph, which is too large for the log.
    LoadGraph { job: JobId },
    /// Look whether a file that a task of this attempt could not restore is damaged indeed.
    CheckFile {
        job: JobId,
        attempt: AttemptNumber,
        /// What the file's path is relative to.
        root: String,
        file: StateFile,
    },
}

/// Everything a planner looks at.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    pub state: &'a ClusterState,
    pub observed: &'a Observed,
    pub settings: &'a Settings,
    pub now: Now,
}

impl Situation<'_> {
    /// Whether a TaskManager that runs tasks of an attempt is there, gone, or not yet known to this leader.
    pub fn presence(&self, id: &TaskManagerId) -> Presence {
        match self.observed.task_managers.get(id) {
            Some(task_manager)
                if task_manager.is_lost(self.now, self.settings.heartbeat_timeout) =>
            {
                Presence::Lost
            }
            Some(_) => Presence::There,
            None if self.now.monotonic < self.observed.since + self.settings.reconnect_grace
                && !Mutant::NoReconnectGrace.is_planted() =>
            {
                Presence::Unknown
            }
            None => Presence::Lost,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    There,
    Unknown,
    Lost,
}

/// What should happen next.
pub fn plan(state: &ClusterState, observed: &Observed, settings: &Settings, now: Now) -> Plan {
    let situation = Situation {
        state,
        observed,
        settings,
        now,
    };
    let mut plan = Plan::default();
    let cancelled = namespaces::delete(situation, &mut plan);
    let mut slots = Slots::new(situation);
    let borrowed = state.jobs.values().flat_map(|job| job.borrowed_files());
    let borrowed: BTreeSet<&str> = borrowed.collect();
    for job in state.jobs.values() {
        if observed.is_under_way(|| UnderWay::Proposal(job.id.clone()))
            || cancelled.contains(&job.id)
        {
            continue;
        }
        match job.status {
            JobStatus::Created | JobStatus::Restarting => {
                deploy::start(situation, job, &mut slots, &mut plan);
            }
            JobStatus::Running => {
                let placement = Placement::of(situation, job);
                if !failover::watch(situation, job, &placement, &mut plan) {
                    deploy::complete(situation, job, &placement, &mut plan);
                    checkpoint::drive(situation, job, &placement, &mut plan);
                }
            }
            JobStatus::Cancelling | JobStatus::Failing => {
                cleanup::wind_down(situation, job, &mut plan)
            }
            JobStatus::Finished | JobStatus::Canceled | JobStatus::Failed => {}
        }
        cleanup::files(situation, job, &borrowed, &mut plan);
    }
    retention::forget(situation, &mut plan);
    cleanup::strays(situation, &mut plan);
    plan
}

#[cfg(test)]
mod claim_tests;
#[cfg(test)]
mod cost_tests;
#[cfg(test)]
mod deletion_tests;
#[cfg(test)]
mod fallback_tests;
#[cfg(test)]
mod graph_tests;
#[cfg(test)]
mod rescale_tests;
#[cfg(test)]
mod tests;
