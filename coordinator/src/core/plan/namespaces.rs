//! Deletes a namespace, step by step: its jobs are cancelled, their files deleted, then everything is purged.
//!
//! Each step follows from the state alone, so whoever leads goes on where another stopped. What is swept is in the
//! leader's memory: a new one looks into the directories again, and finds them empty.

use std::collections::BTreeSet;

use flott_proto::ids::{JobId, Namespace};
use flott_proto::wire::{self, command::Decision};

use super::{Plan, Situation, retention};
use crate::core::job::JobStatus;
use crate::core::observed::UnderWay;

/// Cancellations proposed at once for one namespace: a thousand at once would hold up everybody else's decisions.
const CANCELS_MAX: usize = 64;

/// Drives all deletions. The jobs that it has cancelled are planned no further this time.
pub(super) fn delete(situation: Situation<'_>, plan: &mut Plan) -> BTreeSet<JobId> {
    let mut cancelled = BTreeSet::new();
    let deleting = situation.state.namespaces.iter();
    for (name, _) in deleting.filter(|(_, namespace)| namespace.deleting) {
        cancel(situation, name, plan, &mut cancelled);
        purge(situation, name, plan);
    }
    cancelled
}

fn cancel(
    situation: Situation<'_>,
    name: &Namespace,
    plan: &mut Plan,
    cancelled: &mut BTreeSet<JobId>,
) {
    let is_deciding = |job: &JobId| {
        let what = || UnderWay::Proposal(job.clone());
        situation.observed.is_under_way(what)
    };
    let to_cancel = situation.state.jobs_in(name).filter(|job| {
        matches!(
            job.status,
            JobStatus::Created | JobStatus::Running | JobStatus::Restarting
        )
    });
    for job in to_cancel.take(CANCELS_MAX) {
        if is_deciding(&job.id) {
            continue;
        }
        let cancel = wire::CancelJob {
            namespace: name.to_string(),
            job_id: job.id.to_string(),
        };
        plan.proposals
            .push((job.id.clone(), Decision::CancelJob(cancel)));
        cancelled.insert(job.id.clone());
    }
}

/// Proposes the next step of the purge if it has something to do: something to retire, or only jobs that are swept.
fn purge(situation: Situation<'_>, name: &Namespace, plan: &mut Plan) {
    let mut retaining = false;
    let mut waiting = false;
    for job in situation.state.jobs_in(name) {
        let ended = job.status.is_terminal();
        retaining |= ended && !job.checkpoints.retained.is_empty();
        if ended && job.is_clean() {
            retention::sweep(situation, job, plan);
            waiting |= !situation.observed.swept.contains(&job.id);
        } else {
            waiting = true;
        }
    }
    let what = UnderWay::Purge(name.clone());
    if (retaining || !waiting) && !situation.observed.under_way.contains(&what) {
        let purge = wire::PurgeNamespace {
            name: name.to_string(),
        };
        plan.chores.push((what, Decision::PurgeNamespace(purge)));
    }
}
