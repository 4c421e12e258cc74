//! Tenants: every job and key lives in a namespace, and a namespace sees nothing of another.
//!
//! ```text
//!  CreateNamespace ──► ACTIVE ── DeleteNamespace ──► DELETING ── PurgeNamespace, until nothing is left ──► gone
//!                       ▲  │
//!                       └──┘ UpdateNamespace
//! ```
//!
//! A namespace knows its jobs and what they use, so that neither a quota nor a list looks at another tenant's jobs. Both
//! follow from the jobs and are in no snapshot. [`ClusterState::insert_job`], [`ClusterState::remove_job`] and
//! [`ClusterState::settle`] keep them right; [`ClusterState::check_namespaces`] recounts.
//!
//! What must stay true: the namespace `default` exists and is active; every job's namespace exists; nothing new comes
//! into a namespace that is being deleted; no decision brings the use above the quota. (A quota may be set below the
//! use: then the use can only sink.)

use std::sync::Arc;

use flott_proto::Malformed;
use flott_proto::ids::{JobId, Namespace};
use flott_proto::wire;
use imbl::{OrdMap, OrdSet};

use super::apply::Refused;
use super::job::Job;
use super::state::ClusterState;

/// What a namespace may use. 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Jobs that have not ended.
    pub jobs: u32,
    /// Task slots of all jobs that have been started and have not ended.
    pub slots: u32,
    /// Keys and values in the key-value space.
    pub kv_bytes: u64,
    /// Files of retained checkpoints. Savepoints are the user's and do not count.
    pub checkpoint_bytes: u64,
}

/// What the jobs of a namespace use, as its quota counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub jobs: u32,
    pub slots: u32,
    pub checkpoint_bytes: u64,
}

impl Usage {
    /// What one job counts. A job that waits for its next attempt keeps its slots: else its own namespace could take
    /// them away from it.
    pub fn of(job: &Job) -> Self {
        let active = !job.status.is_terminal();
        Self {
            jobs: u32::from(active),
            slots: if active && job.attempt.is_some() {
                job.slots_needed()
            } else {
                0
            },
            checkpoint_bytes: job.checkpoints.retained_bytes,
        }
    }

    fn add(&mut self, job: Self) {
        self.jobs += job.jobs;
        self.slots += job.slots;
        self.checkpoint_bytes += job.checkpoint_bytes;
    }

    fn subtract(&mut self, job: Self) {
        self.jobs -= job.jobs;
        self.slots -= job.slots;
        self.checkpoint_bytes -= job.checkpoint_bytes;
    }
}

/// Whether `after` is within `limit` (0: there is none). Above it, only a change that takes nothing more is.
pub(super) fn is_within(limit: u64, before: u64, after: u64) -> bool {
    limit == 0 || after <= limit || after <= before
}

/// A tenant as it has been decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceState {
    pub created_at_ms: i64,
    /// Its deletion has begun: nothing new comes in, and what is there goes.
    pub deleting: bool,
    pub quota: Quota,
    /// All its jobs, those that have ended too.
    pub jobs: OrdSet<JobId>,
    pub used: Usage,
}

impl NamespaceState {
    /// Why a job cannot have `more` slots now, if it cannot. `promised` are given to others and not counted yet.
    pub(super) fn lacks_slots(&self, more: u32, promised: u32) -> Option<String> {
        let (limit, used) = (self.quota.slots, self.used.slots.saturating_add(promised));
        let after = used.saturating_add(more);
        (!is_within(limit.into(), used.into(), after.into())).then(|| {
            format!(
                "waiting for quota: the namespace may use {limit} slots, {used} are in use, and the job needs {more}; \
                 end another job, or raise the quota with `flott namespace update`"
            )
        })
    }

    /// As a snapshot carries it.
    pub(super) fn to_record(&self, name: &Namespace) -> wire::NamespaceRecord {
        wire::NamespaceRecord {
            name: name.to_string(),
            deleting: self.deleting,
            created_at_ms: self.created_at_ms,
            quota: Some(self.quota.into()),
        }
    }

    /// Inverse of [`Self::to_record`], but for the jobs.
    pub(super) fn from_record(
        record: wire::NamespaceRecord,
    ) -> Result<(Namespace, Self), Malformed> {
        let namespace = Self {
            created_at_ms: record.created_at_ms,
            deleting: record.deleting,
            quota: record.quota.unwrap_or_default().into(),
            ..Self::default()
        };
        Ok((record.name.parse()?, namespace))
    }
}

/// What a cluster begins with: the namespace `default`, without limits.
pub(super) fn initial() -> OrdMap<Namespace, Arc<NamespaceState>> {
    OrdMap::unit(Namespace::default(), Arc::default())
}

/// A job of a decision and what it counted before: see [`ClusterState::settle`].
#[derive(Debug)]
pub(super) struct Account {
    job: JobId,
    before: Usage,
}

impl ClusterState {
    /// The namespace, if something new may come into it.
    pub(crate) fn active_namespace(
        &self,
        namespace: &Namespace,
    ) -> Result<&NamespaceState, Refused> {
        let present = self.known_namespace(namespace)?;
        if present.deleting {
            return Err(Refused::new(format!(
                "namespace {namespace} is being deleted; wait until it is gone, or use another"
            )));
        }
        Ok(present)
    }

    /// The namespace, if there is one of that name.
    pub(crate) fn known_namespace(
        &self,
        namespace: &Namespace,
    ) -> Result<&NamespaceState, Refused> {
        let present = self.namespaces.get(namespace).map(|present| &**present);
        present.ok_or_else(|| {
            Refused::new(format!(
                "there is no namespace {namespace}; `flott namespace create {namespace}` makes it"
            ))
        })
    }

    /// The jobs of a namespace, in order of id. A namespace that is not there has none.
    pub fn jobs_in(&self, namespace: &Namespace) -> impl Iterator<Item = &Arc<Job>> {
        let ids = self.namespaces.get(namespace).into_iter();
        ids.flat_map(|namespace| &namespace.jobs)
            .filter_map(|id| self.jobs.get(id))
    }

    /// The namespace to change. It is copied first if a published version still holds it.
    pub(super) fn namespace_mut(&mut self, namespace: &Namespace) -> Option<&mut NamespaceState> {
        self.namespaces.get_mut(namespace).map(Arc::make_mut)
    }

    /// A job comes into its namespace, which is there.
    pub(super) fn insert_job(&mut self, job: Job) {
        let namespace = self
            .namespace_mut(&job.namespace)
            .expect("the namespace was looked up before");
        namespace.jobs.insert(job.id.clone());
        namespace.used.add(Usage::of(&job));
        let replaced = self.jobs.insert(job.id.clone(), Arc::new(job));
        assert!(replaced.is_none(), "a job is inserted once");
    }

    /// A job leaves the state.
    pub(super) fn remove_job(&mut self, id: &JobId) {
        let Some(job) = self.jobs.remove(id) else {
            return;
        };
        let namespace = self
            .namespace_mut(&job.namespace)
            .expect("every job's namespace exists");
        namespace.jobs.remove(id);
        namespace.used.subtract(Usage::of(&job));
    }

    /// What the job counts now, before a decision changes it.
    pub(super) fn account(&self, id: &str) -> Option<Account> {
        let id: JobId = id.parse().ok()?;
        let before = Usage::of(self.jobs.get(&id)?);
        Some(Account { job: id, before })
    }

    /// The decision is carried out: its namespace counts what the job uses now.
    pub(super) fn settle(&mut self, account: Account) {
        let Some(job) = self.jobs.get(&account.job) else {
            return;
        };
        let (namespace, after) = (job.namespace.clone(), Usage::of(job));
        if after != account.before {
            let namespace = self
                .namespace_mut(&namespace)
                .expect("every job's namespace exists");
            namespace.used.subtract(account.before);
            namespace.used.add(after);
        }
    }

    /// Panics if the namespaces contradict themselves or the jobs.
    pub(super) fn check_namespaces(&self) {
        let default = self.namespaces.get(&Namespace::default());
        assert!(
            default.is_some_and(|default| !default.deleting),
            "the namespace `default` is always there"
        );
        let mut counted: OrdMap<&Namespace, (OrdSet<JobId>, Usage)> = OrdMap::new();
        for job in self.jobs.values() {
            assert!(
                self.namespaces.contains_key(&job.namespace),
                "{}: its namespace {} exists",
                job.id,
                job.namespace
            );
            let (jobs, used) = counted.entry(&job.namespace).or_default();
            jobs.insert(job.id.clone());
            used.add(Usage::of(job));
        }
        for (name, namespace) in &self.namespaces {
            let (jobs, used) = counted.get(name).cloned().unwrap_or_default();
            assert_eq!(namespace.jobs, jobs, "{name}: it knows its jobs");
            assert_eq!(namespace.used, used, "{name}: it knows what they use");
        }
    }
}

impl From<wire::NamespaceQuota> for Quota {
    fn from(quota: wire::NamespaceQuota) -> Self {
        Self {
            jobs: quota.jobs,
            slots: quota.slots,
            kv_bytes: quota.kv_bytes,
            checkpoint_bytes: quota.checkpoint_bytes,
        }
    }
}

impl From<Quota> for wire::NamespaceQuota {
    fn from(quota: Quota) -> Self {
        Self {
            jobs: quota.jobs,
            slots: quota.slots,
            kv_bytes: quota.kv_bytes,
            checkpoint_bytes: quota.checkpoint_bytes,
        }
    }
}
