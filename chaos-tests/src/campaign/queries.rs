//! Which of the reference queries a plan has: some, as far as its cluster has slots for them beside everything else. Pure.
//!
//! What must stay true: it follows from the seed and the knobs alone. Whatever the steps are, a smaller plan has the same
//! queries; and nothing that makes plans draws for it, so that seeds go on to mean what they have meant.

use flott_chaos_basis::random::Random;

use super::plan::{Plan, Workload};
use crate::workload::reference::queries::Query;

/// At the same time: the machine has other work.
const QUERIES_MAX: usize = 3;
/// Another sequence of numbers than those that begin with the seed itself.
const SALT: u64 = 0x7265_6665_7265_6E63;

/// The queries of a plan; none unless it has the workload.
pub fn queries(plan: &Plan) -> Vec<Query> {
    if !plan.workloads.contains(&Workload::Reference) {
        return Vec::new();
    }
    let mut drawn = Query::ALL;
    Random::new(plan.seed ^ SALT).shuffle(&mut drawn);
    // One there is, even if it has to wait for its slot.
    let mut left = free_slots(plan).max(1);
    let mut queries = Vec::new();
    for query in drawn {
        if queries.len() < QUERIES_MAX && query.parallelism() <= left {
            left -= query.parallelism();
            queries.push(query);
        }
    }
    queries.sort_unstable();
    queries
}

/// Slots of the whole cluster that nothing else needs.
fn free_slots(plan: &Plan) -> u32 {
    let knobs = &plan.knobs;
    let workers = |count: u32| knobs.slots.saturating_mul(count);
    let needed = plan.workloads.iter().map(|workload| match workload {
        // A change of parallelism takes no more than all workers but one have.
        Workload::Seq => knobs
            .parallelism
            .max(workers(knobs.taskmanagers.saturating_sub(1))),
        Workload::Jobs => 1,
        // One of the steady tenant, and the quota of the other.
        Workload::Tenants => 3,
        Workload::Register | Workload::Reference | Workload::Bank => 0,
    });
    let needed = needed.fold(0, u32::saturating_add);
    workers(knobs.taskmanagers).saturating_sub(needed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::campaign::fault::Kind;
    use crate::campaign::plan::Wanted;
    use crate::target::Target;

    fn plan(seed: u64, workloads: &[Workload]) -> Plan {
        let wanted = Wanted {
            target: Target::Local,
            length: Duration::from_secs(60),
            kinds: vec![Kind::Kill, Kind::Rescale],
            all_kinds: true,
            workloads: Some(workloads.iter().copied().collect()),
            records_per_second: None,
            size: None,
        };
        Plan::from_seed(seed, &wanted)
    }

    #[test]
    fn queries_fit_beside_the_sequence_job_and_seeds_together_have_all() {
        let mut seen = BTreeSet::new();
        let mut numbers = BTreeSet::new();
        for seed in 0..200 {
            let plan = plan(seed, &[Workload::Seq, Workload::Jobs, Workload::Reference]);
            let chosen = queries(&plan);
            let slots: u32 = chosen.iter().map(|query| query.parallelism()).sum();
            let knobs = &plan.knobs;
            let all = knobs.slots * knobs.taskmanagers;
            assert!(slots + knobs.parallelism < all, "{chosen:?} {knobs:?}");
            let rescaled = plan.steps.iter().filter(|step| step.kind == Kind::Rescale);
            for step in rescaled {
                assert!(
                    u64::from(slots) + step.amount < u64::from(all),
                    "{chosen:?} {knobs:?}"
                );
            }
            numbers.insert(chosen.len());
            seen.extend(chosen);
        }
        assert_eq!(seen, BTreeSet::from(Query::ALL));
        assert_eq!(numbers, BTreeSet::from([1, 2, 3]));
    }

    #[test]
    fn a_smaller_plan_has_the_same_queries_and_other_workloads_have_none() {
        for seed in 0..50 {
            let whole = plan(seed, &[Workload::Seq, Workload::Reference]);
            let smaller = Plan {
                steps: Vec::new(),
                ..whole.clone()
            };
            assert!(!queries(&whole).is_empty());
            assert_eq!(queries(&whole), queries(&smaller));
            assert!(queries(&plan(seed, &[Workload::Seq])).is_empty());
        }
    }

    #[test]
    fn a_cluster_without_a_free_slot_has_one_query() {
        let mut plan = plan(1, &[Workload::Seq, Workload::Reference]);
        (plan.knobs.slots, plan.knobs.taskmanagers) = (1, 1);
        let chosen = queries(&plan);
        assert_eq!(chosen.len(), 1, "{chosen:?}");
        assert_eq!(chosen[0].parallelism(), 1);
    }
}
