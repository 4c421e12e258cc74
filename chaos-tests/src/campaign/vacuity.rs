//! What a run did not show: a kind of fault that was never installed, a workload that made no progress. Pure.
//!
//! It does not make a run bad, but *unknown*.

use std::collections::BTreeMap;

use super::fault::Kind;
use super::judge::{Evidence, Struckness};
use super::plan::{Plan, Workload};
use super::queries::queries;
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
    for query in queries(plan) {
        let rows = evidence.reference.get(&query);
        if !evidence.reference_ended.contains(&query) {
            let what = format!("the query {query} did not come to its end");
            doubts.push(Finding::in_all(what));
        } else if rows.is_none_or(|[undisturbed, _]| undisturbed.count() == 0) {
            let what = format!("the query {query} committed nothing, even without faults");
            doubts.push(Finding::in_all(what));
        }
    }
    if plan.workloads.contains(&Workload::Jobs)
        && jobs::counts(&evidence.seen.jobs).acknowledged < 2
    {
        doubts.push(Finding::in_all("hardly any job was accepted"));
    }
    doubts
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::campaign::plan::Wanted;
    use crate::invariants::same_rows::Rows;
    use crate::target::Target;

    #[test]
    fn a_query_that_did_not_end_or_has_no_rows_shows_nothing() {
        let wanted = Wanted {
            target: Target::Local,
            length: Duration::from_secs(1),
            kinds: Vec::new(),
            all_kinds: true,
            workloads: Some(BTreeSet::from([Workload::Reference])),
            records_per_second: None,
            size: None,
        };
        let plan = Plan::from_seed(1, &wanted);
        let mut evidence = Evidence::default();
        let words =
            |evidence: &Evidence| Finding::words(&vacuity(&plan, evidence, &BTreeMap::new()));
        let first = queries(&plan)[0];
        let said = words(&evidence);
        assert_eq!(said.len(), queries(&plan).len());
        assert!(
            said[0].contains(first.name()) && said[0].contains("its end"),
            "{said:?}"
        );

        evidence.reference_ended.extend(queries(&plan));
        let said = words(&evidence);
        assert!(
            said[0].contains(first.name()) && said[0].contains("nothing"),
            "{said:?}"
        );

        let rows = || Rows::of(["a".to_owned()]);
        let both = queries(&plan)
            .into_iter()
            .map(|query| (query, [rows(), rows()]));
        evidence.reference.extend(both);
        assert_eq!(words(&evidence), Vec::<String>::new());
    }
}
