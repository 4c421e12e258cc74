//! Creating, changing and deleting a namespace; forgetting jobs.
//!
//! A deletion is a series of decisions, each bounded, and any leader can go on with it: `DeleteNamespace` shuts the
//! namespace; the plan (`core/plan/namespaces.rs`) cancels its jobs and has their files deleted; `PurgeNamespace` then
//! takes away what is left, step by step, and with the last step the namespace itself.

use std::sync::Arc;

use flott_proto::ids::{JobId, Namespace};
use flott_proto::wire;

use super::Refused;
use crate::core::job::Job;
use crate::core::namespace::{NamespaceState, Quota};
use crate::core::state::ClusterState;

/// Namespaces of a cluster. Each costs the leader a look after every event.
pub(crate) const NAMESPACES_MAX: usize = 4096;
/// Jobs and keys that one entry takes away: bounds the time for which it holds up others.
pub(crate) const PURGE_ITEMS_MAX: usize = 256;
/// Jobs that one entry forgets.
pub(crate) const FORGET_JOBS_MAX: usize = 256;

/// A repeated creation with the same quota is applied once and answered alike.
pub(super) fn create(
    state: &mut ClusterState,
    create: &wire::CreateNamespace,
) -> Result<(), Refused> {
    let name: Namespace = create.name.parse()?;
    let quota = Quota::from(create.quota.unwrap_or_default());
    if let Some(present) = state.namespaces.get(&name) {
        return if present.deleting {
            state.active_namespace(&name).map(drop)
        } else if present.quota == quota {
            Ok(())
        } else {
            Err(Refused::new(format!(
                "namespace {name} exists with another quota; `flott namespace update {name}` changes it"
            )))
        };
    }
    if state.namespaces.len() >= NAMESPACES_MAX {
        return Err(Refused::new(format!(
            "there are {NAMESPACES_MAX} namespaces already; delete one first"
        )));
    }
    let namespace = NamespaceState {
        created_at_ms: state.log_time_ms,
        quota,
        ..NamespaceState::default()
    };
    state.namespaces.insert(name, Arc::new(namespace));
    Ok(())
}

/// A quota below the present use takes nothing away: the use can only sink from then on.
pub(super) fn update(
    state: &mut ClusterState,
    update: &wire::UpdateNamespace,
) -> Result<(), Refused> {
    let name: Namespace = update.name.parse()?;
    state.active_namespace(&name)?;
    if let Some(namespace) = state.namespace_mut(&name) {
        namespace.quota = update.quota.unwrap_or_default().into();
    }
    Ok(())
}

/// From here on nothing new comes in. A second deletion is answered like the first.
pub(super) fn delete(
    state: &mut ClusterState,
    delete: &wire::DeleteNamespace,
) -> Result<(), Refused> {
    let name: Namespace = delete.name.parse()?;
    if name == Namespace::default() {
        return Err(Refused::new(
            "the namespace `default` cannot be deleted; cancel and dismiss its jobs one by one",
        ));
    }
    state.known_namespace(&name)?;
    if let Some(namespace) = state.namespace_mut(&name) {
        namespace.deleting = true;
    }
    Ok(())
}

/// One step: first what failed jobs retain is retired, so that its files can be deleted; then jobs whose files are gone
/// are dropped; then keys; at last the namespace.
pub(super) fn purge(state: &mut ClusterState, purge: &wire::PurgeNamespace) -> Result<(), Refused> {
    let name: Namespace = purge.name.parse()?;
    if !state.known_namespace(&name)?.deleting {
        return Err(Refused::new(format!(
            "namespace {name} is not being deleted"
        )));
    }
    let of_jobs = |state: &ClusterState, wanted: fn(&Job) -> bool| -> Vec<JobId> {
        let jobs = state.jobs_in(&name).filter(|job| wanted(job));
        jobs.map(|job| job.id.clone())
            .take(PURGE_ITEMS_MAX)
            .collect()
    };
    let retaining = of_jobs(state, |job| {
        job.status.is_terminal() && !job.checkpoints.retained.is_empty()
    });
    if !retaining.is_empty() {
        for id in retaining {
            let account = state.account(id.as_str());
            state.job_mut(id.as_str())?.checkpoints.retire_all();
            if let Some(account) = account {
                state.settle(account);
            }
        }
        return Ok(());
    }
    let gone = of_jobs(state, |job| job.status.is_terminal() && job.is_clean());
    for id in &gone {
        state.remove_job(id);
    }
    let left = PURGE_ITEMS_MAX - gone.len();
    let keys = state.kv_purge(&name, left);
    // With room to spare nothing was left behind.
    if keys < left && state.jobs_in(&name).next().is_none() {
        state.namespaces.remove(&name);
    }
    Ok(())
}

/// The results of these jobs are dropped. All or none: a job that has files left would leave them behind for ever.
pub(super) fn forget(state: &mut ClusterState, forget: &wire::ForgetJobs) -> Result<(), Refused> {
    if forget.job_ids.len() > FORGET_JOBS_MAX {
        return Err(Refused::new(format!(
            "an entry forgets at most {FORGET_JOBS_MAX} jobs"
        )));
    }
    let mut ids = Vec::with_capacity(forget.job_ids.len());
    for id in &forget.job_ids {
        let id: JobId = id.parse()?;
        match state.jobs.get(&id) {
            Some(job) if job.status.is_terminal() && job.is_clean() => ids.push(id),
            // A repetition.
            None => {}
            Some(job) => {
                return Err(Refused::new(format!(
                    "job {id} is {} and its files are not gone",
                    job.status
                )));
            }
        }
    }
    for id in &ids {
        state.remove_job(id);
    }
    Ok(())
}

/// A job that has ended is of no use to anybody any more.
pub(super) fn dismiss(state: &mut ClusterState, dismiss: &wire::DismissJob) -> Result<(), Refused> {
    let namespace: Namespace = dismiss.namespace.parse()?;
    let id: JobId = dismiss.job_id.parse()?;
    let Some(job) = state.job_in(&namespace, &id) else {
        return Err(Refused::new(format!(
            "there is no job {id} in namespace {namespace}"
        )));
    };
    if !job.status.is_terminal() {
        return Err(Refused::new(format!(
            "job {id} is {}; cancel it, or wait for its end",
            job.status
        )));
    }
    if !job.checkpoints.retained.is_empty()
        && let Some(heir) = state
            .jobs_in(&namespace)
            .find(|job| job.may_restore_from(&id))
    {
        return Err(Refused::new(format!(
            "job {} starts from a checkpoint of job {id} and has none of its own yet; try again when it has",
            heir.id
        )));
    }
    let job = state.job_mut(id.as_str())?;
    job.checkpoints.retire_all();
    job.dismissed = true;
    Ok(())
}

impl ClusterState {
    /// Takes at most `max` keys and leases of a namespace away; how many there were.
    fn kv_purge(&mut self, namespace: &Namespace, max: usize) -> usize {
        let Some(space) = self.kv.get_mut(namespace) else {
            return 0;
        };
        let removed = Arc::make_mut(space).purge(max);
        if removed < max {
            self.kv.remove(namespace);
        }
        removed
    }
}
