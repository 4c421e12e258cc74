//! What has been decided: the replicated state, the same on every JobManager after the same entries.
//!
//! Plain data on persistent maps: a clone is O(1), so a snapshot stops nobody and readers hold a version of their own.
//! It changes only through [`ClusterState::apply`]; `super::apply` has one file for each family of commands.

use std::sync::Arc;

use flott_proto::ids::{JobId, LeaderEpoch, Namespace, NodeId, TaskManagerId};
use flott_proto::wire;
use imbl::OrdMap;

use super::feature_level::FEATURE_LEVEL_FIRST;
use super::job::Job;
use super::kv::{Change, KvSpace};
use super::lineage::Lineage;
use super::namespace::{self, NamespaceState};
use super::retired::Retired;

/// The highest meaning of commands that this build knows. `apply` switches on the level in the state, never on the build.
pub const FEATURE_LEVEL: u32 = 1;

/// The JobManager in office.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveLeader {
    pub node: NodeId,
    /// Tells two lives of the same node apart.
    pub incarnation: String,
    /// Where it is reached, host:port.
    pub address: String,
}

/// What all JobManagers have decided.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterState {
    /// See [`super::feature_level`].
    pub feature_level: u32,
    /// The epoch of the leader in office: only its entries are carried out.
    pub epoch: LeaderEpoch,
    pub leader: Option<ActiveLeader>,
    /// The greatest time of any entry: the only clock of replicated code.
    pub log_time_ms: i64,
    pub jobs: OrdMap<JobId, Arc<Job>>,
    /// `default` is always there.
    pub namespaces: OrdMap<Namespace, Arc<NamespaceState>>,
    /// Former members of the JobManagers' group.
    pub retired_members: Retired,
    /// The clusters that this one goes on from.
    pub lineage: Lineage,
    /// The key-value spaces of the namespaces that have used theirs.
    pub kv: OrdMap<Namespace, Arc<KvSpace>>,
    /// Of the last change of any key: rises by one with each write that changes something.
    pub revision: u64,
}

impl Default for ClusterState {
    fn default() -> Self {
        Self {
            feature_level: FEATURE_LEVEL_FIRST,
            epoch: LeaderEpoch::NONE,
            leader: None,
            log_time_ms: 0,
            jobs: OrdMap::new(),
            namespaces: namespace::initial(),
            retired_members: Retired::new(),
            lineage: Lineage::new(),
            kv: OrdMap::new(),
            revision: 0,
        }
    }
}

/// What `apply` made of a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    Applied,
    /// Of a batch of writes, one answer each, in order.
    Kv(Vec<wire::KvResponse>),
    /// Nothing changed, and why.
    Refused(String),
}

/// What one write, or the passing of time, changed in a namespace's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvChanges {
    pub namespace: Namespace,
    pub revision: u64,
    /// In the order in which they happened; never empty.
    pub changes: Vec<Change>,
}

/// One record of a logical snapshot; a snapshot is its records in ascending order of key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: String,
    pub value: Vec<u8>,
}

impl ClusterState {
    /// The job of that id in that namespace. A namespace sees nothing of another.
    pub fn job_in(&self, namespace: &Namespace, id: &JobId) -> Option<&Arc<Job>> {
        self.jobs.get(id).filter(|job| job.namespace == *namespace)
    }

    /// Jobs whose tasks are meant to be somewhere.
    pub fn active_jobs(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.jobs.values().filter(|job| !job.status.is_terminal())
    }

    /// Slots of a TaskManager that the present attempts of running jobs hold: one for each subtask index, which all
    /// vertices of a job share.
    pub fn slots_used(&self, task_manager: &TaskManagerId) -> u32 {
        let on_it = |job: &Arc<Job>| {
            let indices: std::collections::BTreeSet<u32> = job
                .assignments
                .iter()
                .filter(|(_, assignment)| assignment.task_manager == *task_manager)
                .map(|(subtask, _)| subtask.subtask)
                .collect();
            indices.len() as u32
        };
        self.active_jobs().map(on_it).sum()
    }

    /// Whether the same is to be planned from both: keys change often, and nothing is planned from them.
    pub fn plans_like(&self, other: &Self) -> bool {
        self.epoch == other.epoch
            && self.jobs.ptr_eq(&other.jobs)
            && self.namespaces.ptr_eq(&other.namespaces)
    }

    /// When the next key or lease ends, in log time.
    pub fn next_kv_deadline(&self) -> Option<i64> {
        let deadlines = self.kv.values().filter_map(|space| space.next_deadline());
        deadlines.min()
    }

    /// Panics if the state contradicts itself.
    pub fn check(&self) {
        for (namespace, space) in &self.kv {
            assert!(
                self.namespaces.contains_key(namespace),
                "keys live in namespace {namespace}, which exists"
            );
            space.check();
        }
        assert_eq!(self.epoch.is_some(), self.leader.is_some());
        for (id, job) in &self.jobs {
            assert_eq!(*id, job.id);
            job.check();
        }
        self.check_namespaces();
    }
}
