//! Why a run has shown less than was planned. Pure.

use std::collections::BTreeMap;

use super::fault::Kind;
use super::judge::{Evidence, Struckness};
use super::plan::{Plan, Workload};
use crate::invariants::jobs;
use crate::report::Finding;

/// With fewer answers while faults were under way, registers have shown little.
const ACKNOWLEDGED_MIN: u64 = 50;

/// Why the run has shown less than was planned.
pub(super) fn vacuity(
    plan: &Plan,
    evidence: &Evidence,
    faults: &BTreeMap<Kind, Struckness>,
) -> Vec<Finding> {
    let mut doubts = Vec::new();
    for (kind, count) in faults {
        if count.installed == 0 {
            let mut tried = evidence.struck.iter();
            doubts.push(Finding {
                at_ms: tried
                    .find(|struck| struck.step.kind == *kind)
                    .map(|struck| struck.from_ms),
                what: format!(
                    "{kind} was planned {} times and never installed",
                    count.planned
                ),
            });
        }
    }
    let leaders_killed = faults.get(&Kind::Kill).map_or(0, |kill| kill.of_leader);
    if leaders_killed > 0 && evidence.seen.leader_changes == 0 {
        let what = "the leader was killed, and nobody else was seen to lead";
        doubts.push(Finding::in_all(what));
    }
    let (before, after) = (evidence.before, evidence.after);
    if plan.workloads.contains(&Workload::Seq) {
        if after.records <= before.records {
            let what = "no records were committed while faults were under way";
            doubts.push(Finding::in_all(what));
        }
        if after.checkpoint <= before.checkpoint {
            let what = "no checkpoint was completed while faults were under way";
            doubts.push(Finding::in_all(what));
        }
    }
    let answered = after.acknowledged.saturating_sub(before.acknowledged);
    if plan.workloads.contains(&Workload::Register) && answered < ACKNOWLEDGED_MIN {
        doubts.push(Finding::in_all(format!(
            "only {answered} operations of registers were answered while faults were under way"
        )));
    }
    if plan.workloads.contains(&Workload::Reference) && !evidence.reference_ended {
        doubts.push(Finding::in_all(
            "the reference query did not come to its end",
        ));
    }
    if plan.workloads.contains(&Workload::Jobs)
        && jobs::counts(&evidence.seen.jobs).acknowledged < 2
    {
        doubts.push(Finding::in_all("hardly any job was accepted"));
    }
    doubts
}
