//! Forgets the results of jobs that ended long ago.
//!
//! ```text
//!  ended ── older than jobstore.expiration-time, one too many, or dismissed ──► swept ── ForgetJobs ──► gone
//! ```
//!
//! Sweeping looks through the job's directory and deletes what is left there: files that no completed checkpoint ever
//! named. It is the last chance to do so, since nobody knows the job afterwards. Savepoints stay. A failed job that
//! retains checkpoints is not forgotten by time: somebody may want to start from them.

use std::collections::BTreeMap;

use flott_proto::ids::Namespace;
use flott_proto::wire::{self, command::Decision};

use super::{Plan, Situation, Work};
use crate::core::apply::namespace::FORGET_JOBS_MAX;
use crate::core::job::Job;
use crate::core::observed::UnderWay;

/// Directories swept at once: listing is the slowest thing that an object store does.
const SWEEPS_MAX: usize = 8;

/// Sweeps and forgets what may be forgotten.
pub(super) fn forget(situation: Situation<'_>, plan: &mut Plan) {
    let ended = situation
        .state
        .jobs
        .values()
        .filter(|job| job.status.is_terminal() && job.is_clean());
    // The time that an entry proposed now would have.
    let log_now = situation.state.log_time_ms.max(situation.now.wall_ms);
    let expiration = i64::try_from(situation.settings.results_expire_after.as_millis());
    let expired = |job: &Job| {
        expiration.is_ok_and(|expiration| log_now.saturating_sub(job.ended_at_ms) >= expiration)
    };
    let mut by_age: BTreeMap<&Namespace, Vec<&Job>> = BTreeMap::new();
    let mut forgotten = Vec::new();
    for job in ended {
        if job.dismissed || expired(job) {
            forgotten.push(&**job);
        } else if situation.settings.results_max.is_some() {
            by_age.entry(&job.namespace).or_default().push(job);
        }
    }
    let results_max = situation
        .settings
        .results_max
        .map_or(usize::MAX, |max| max as usize);
    for mut of_namespace in by_age.into_values() {
        let surplus = of_namespace.len().saturating_sub(results_max);
        of_namespace.sort_by(|a, b| (a.ended_at_ms, &a.id).cmp(&(b.ended_at_ms, &b.id)));
        forgotten.extend(&of_namespace[..surplus]);
    }
    let mut ids = Vec::new();
    for job in forgotten {
        if situation.observed.swept.contains(&job.id) {
            ids.push(job.id.to_string());
        } else {
            sweep(situation, job, plan);
        }
    }
    if ids.is_empty() || situation.observed.under_way.contains(&UnderWay::ForgetJobs) {
        return;
    }
    ids.truncate(FORGET_JOBS_MAX);
    let forget = wire::ForgetJobs { job_ids: ids };
    plan.chores
        .push((UnderWay::ForgetJobs, Decision::ForgetJobs(forget)));
}

/// Has the directory of an ended job swept, if that is not done or under way.
pub(super) fn sweep(situation: Situation<'_>, job: &Job, plan: &mut Plan) {
    let observed = situation.observed;
    let what = || UnderWay::Sweep(job.id.clone());
    let under_way = observed.under_way.iter();
    let sweeps = under_way
        .filter(|what| matches!(what, UnderWay::Sweep(_)))
        .count();
    let planned = plan.works.iter();
    let planned = planned
        .filter(|work| matches!(work, Work::Sweep { .. }))
        .count();
    if sweeps + planned < SWEEPS_MAX
        && !observed.swept.contains(&job.id)
        && !observed.is_under_way(what)
    {
        plan.works.push(Work::Sweep {
            job: job.id.clone(),
        });
    }
}
