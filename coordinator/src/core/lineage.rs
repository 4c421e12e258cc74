//! Lineages: a cluster that goes on from the state of another, after a restore or a recovery.
//!
//! ```text
//!  cluster A ── … ── entry n ── n+1 ── n+2 ── …      what A may have gone on to do is unknown, and must harm nobody
//!                       │
//!                       └──► cluster B ── entry 2³² ── …      A is a predecessor of B, up to n
//! ```
//!
//! The new cluster has an id of its own, so no handshake with the old one works. And every number that A may have gone on
//! counting begins at the next multiple of a stride: the log (so epochs too), revisions of keys, checkpoints, attempts. So
//! nothing that B writes has a name or a number that A has used, and A's leaders are fenced wherever B's was heard.
//!
//! Tasks of A are not adopted: their jobs begin a new attempt, from the newest checkpoint that is known to be whole. Files
//! of A are read and never deleted, since only A's own log could tell who else needs them.

use std::collections::BTreeMap;
use std::sync::Arc;

use flott_proto::Malformed;
use flott_proto::ids::{AttemptNumber, CheckpointId, ClusterId, JobId, LeaderEpoch};
use flott_proto::wire;
use imbl::OrdMap;

use super::checkpoint::{CheckpointKind, CompletedCheckpoint};
use super::job::{Job, JobStatus};
use super::state::{ActiveLeader, ClusterState};

/// Between the numbers of two lineages: log indexes, revisions, checkpoint ids. Far more than any cluster decides between
/// a backup and its end, and few enough bits that the numbers stay exact in JSON for two million lineages.
pub const STRIDE: u64 = 1 << 32;

/// Between the attempts of two lineages. A job that restarts every second needs twelve days for so many.
pub const ATTEMPT_STRIDE: u32 = 1 << 20;

/// Predecessors that are remembered; the oldest are forgotten first. A TaskManager that slept through so many restores has
/// to be started again.
const PREDECESSORS_MAX: usize = 64;

/// How a lineage began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From a file.
    Backup,
    /// From what was left of a group that had lost its quorum.
    Recovery,
}

impl Origin {
    /// As records have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Recovery => "recovery",
        }
    }

    fn from_name(name: &str) -> Result<Self, Malformed> {
        let all = [Self::Backup, Self::Recovery];
        let found = all.into_iter().find(|origin| origin.name() == name);
        found.ok_or_else(|| Malformed::new("predecessor", format!("unknown origin {name:?}")))
    }
}

/// A cluster that this one goes on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predecessor {
    pub cluster: ClusterId,
    pub succeeded_at_ms: i64,
    pub origin: Origin,
}

/// By the last log index that was taken over.
pub type Lineage = OrdMap<u64, Predecessor>;

/// What a job can begin from, as its files in object storage tell.
#[derive(Clone, Debug, PartialEq)]
pub enum Surveyed {
    /// These checkpoints are whole, oldest first. Empty: it has none and needs none.
    Usable(Vec<Arc<CompletedCheckpoint>>),
    /// It has taken checkpoints and none of them can be read. It must not begin anew: what it made visible would be there
    /// twice.
    Lost(String),
}

/// The beginning of a lineage.
#[derive(Clone, Debug)]
pub struct Beginning {
    /// The cluster that ends.
    pub predecessor: ClusterId,
    /// Its last log index that the state has.
    pub last_index: u64,
    pub origin: Origin,
    /// The one member of the new group.
    pub member: ActiveLeader,
    /// What is known of the files of jobs that have not ended; the others begin from what the state has.
    pub surveyed: BTreeMap<JobId, Surveyed>,
}

/// The numbers of the next lineage are used up: no cluster lives to see it, but a damaged file may say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is too large a number for another lineage to begin after it")]
pub struct Exhausted(u64);

/// The first number of the next lineage, after `last` of the one before.
pub fn next_stride(last: u64) -> Result<u64, Exhausted> {
    let next = (last / STRIDE + 1).checked_mul(STRIDE);
    next.ok_or(Exhausted(last))
}

/// The first attempt of the next lineage. The one after `last` may have begun unseen, even if it is the first of a stride.
fn next_attempt_stride(last: AttemptNumber) -> Result<AttemptNumber, Exhausted> {
    let unseen = last.0.checked_add(1);
    let next = unseen.and_then(|unseen| (unseen / ATTEMPT_STRIDE + 1).checked_mul(ATTEMPT_STRIDE));
    next.map(AttemptNumber).ok_or(Exhausted(last.0.into()))
}

impl ClusterState {
    /// Whether this cluster goes on from that one.
    pub fn succeeds(&self, cluster: &str) -> bool {
        self.predecessors()
            .any(|predecessor| predecessor == cluster)
    }

    /// The clusters that this one goes on from, oldest first.
    pub fn predecessors(&self) -> impl Iterator<Item = &str> {
        self.lineage
            .values()
            .map(|predecessor| predecessor.cluster.as_str())
    }

    /// Makes this the state with which a new lineage begins; the log index that it is the state of.
    pub fn begin_lineage(&mut self, beginning: Beginning) -> Result<u64, Exhausted> {
        let first = next_stride(beginning.last_index)?;
        let now_ms = self.log_time_ms;
        self.revision = next_stride(self.revision)?;
        // Nobody is in office, and nobody whose entries would be carried out: this index is that of no leader's entry.
        self.epoch = LeaderEpoch(first);
        self.leader = Some(beginning.member);
        let predecessor = Predecessor {
            cluster: beginning.predecessor,
            succeeded_at_ms: now_ms,
            origin: beginning.origin,
        };
        self.lineage.insert(beginning.last_index, predecessor);
        while self.lineage.len() > PREDECESSORS_MAX {
            let oldest = self.lineage.get_min().map(|(index, _)| *index);
            oldest.and_then(|oldest| self.lineage.remove(&oldest));
        }
        let ids: Vec<JobId> = self.jobs.keys().cloned().collect();
        for id in ids {
            let account = self.account(id.as_str());
            if let Some(job) = self.jobs.get_mut(&id) {
                let surveyed = beginning.surveyed.get(&id);
                move_over(Arc::make_mut(job), now_ms, beginning.origin, surveyed)?;
            }
            if let Some(account) = account {
                self.settle(account);
            }
        }
        Ok(first)
    }
}

/// A job comes into the new lineage.
fn move_over(
    job: &mut Job,
    now_ms: i64,
    origin: Origin,
    surveyed: Option<&Surveyed>,
) -> Result<(), Exhausted> {
    let cause = match origin {
        Origin::Backup => "the cluster was restored from a backup",
        Origin::Recovery => "the cluster was recovered after it had lost its quorum",
    };
    job.checkpoints.abort(now_ms, cause, false);
    // They are of a lineage that may still need them, and may have completed the savepoint.
    job.checkpoints.retired.clear();
    job.checkpoints.retired_directories.clear();
    job.claimed = None;
    if job.status.is_terminal() {
        return Ok(());
    }
    job.answer_savepoint(Err(format!("{cause}; ask for the savepoint again")));
    let mut lost = None;
    match surveyed {
        Some(Surveyed::Usable(checkpoints)) => job.checkpoints.retained.clone_from(checkpoints),
        Some(Surveyed::Lost(why)) => {
            job.checkpoints.retained.clear();
            lost = Some(why);
        }
        None => {}
    }
    job.checkpoints.recount();
    let newest = job.checkpoints.latest().cloned();
    if let Some(newest) = &newest {
        job.checkpoints.last_id = job.checkpoints.last_id.max(newest.id);
        if newest.kind == CheckpointKind::Final {
            job.final_checkpoint = job.final_checkpoint.max(newest.id);
        }
    }
    job.checkpoints.last_id = CheckpointId(next_stride(job.checkpoints.last_id.0)?);
    // The attempt that follows is the first of the stride.
    job.attempt = AttemptNumber(next_attempt_stride(job.attempt)?.0 - 1);
    match (job.status, lost) {
        (JobStatus::Cancelling | JobStatus::Failing, _) => {}
        (_, Some(why)) => {
            job.failures.last_cause = format!("{cause}, and {why}");
            let why = job.failures.last_cause.clone();
            job.become_status(now_ms, JobStatus::Failing, &why);
        }
        (JobStatus::Running, None) => {
            job.restart_at_ms = now_ms.max(1);
            job.become_status(now_ms, JobStatus::Restarting, cause);
        }
        (_, None) => {}
    }
    Ok(())
}

/// As the record of a snapshot.
pub(super) fn to_record(last_index: u64, predecessor: &Predecessor) -> wire::PredecessorRecord {
    wire::PredecessorRecord {
        cluster_id: predecessor.cluster.to_string(),
        last_index,
        succeeded_at_ms: predecessor.succeeded_at_ms,
        origin: predecessor.origin.name().to_owned(),
    }
}

/// Inverse of [`to_record`].
pub(super) fn from_record(
    record: wire::PredecessorRecord,
) -> Result<(u64, Predecessor), Malformed> {
    let predecessor = Predecessor {
        cluster: record.cluster_id.parse()?,
        succeeded_at_ms: record.succeeded_at_ms,
        origin: Origin::from_name(&record.origin)?,
    };
    Ok((record.last_index, predecessor))
}

#[cfg(test)]
mod tests;
