//! Smaller plans that might still fail. Pure; whoever runs them keeps the first that does, and begins again with it.

use super::plan::Plan;

/// Plans with less in them, the boldest first; empty if nothing can be left out.
pub fn smaller(plan: &Plan) -> Vec<Plan> {
    let mut smaller = Vec::new();
    let mut add = |changed: Plan| {
        if changed != *plan && changed.complaints().is_empty() {
            smaller.push(changed);
        }
    };
    let count = plan.steps.len();
    if count > 1 {
        for half in [0..count / 2, count / 2..count].map(|half| half_of(plan, half)) {
            add(half);
        }
    }
    for kind in plan.kinds() {
        let mut changed = plan.clone();
        changed.steps.retain(|step| step.kind != kind);
        add(changed);
    }
    for workload in &plan.workloads {
        let mut changed = plan.clone();
        changed.workloads.remove(workload);
        add(changed);
    }
    for index in 0..if count <= 8 { count } else { 0 } {
        let mut changed = plan.clone();
        changed.steps.remove(index);
        add(changed);
    }
    smaller
}

/// Half of the steps, moved to the beginning.
fn half_of(plan: &Plan, range: std::ops::Range<usize>) -> Plan {
    let mut changed = plan.clone();
    changed.steps = changed.steps.drain(range).collect();
    let first = changed.steps.first().map_or(0, |step| step.at_ms);
    for step in &mut changed.steps {
        step.at_ms = step.at_ms - first.min(step.at_ms) + 500;
    }
    changed
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::campaign::fault::Kind;
    use crate::campaign::plan::Wanted;
    use crate::target::Target;

    #[test]
    fn every_smaller_plan_has_less_and_shrinking_comes_to_an_end() {
        let wanted = Wanted {
            target: Target::Netns,
            length: Duration::from_secs(120),
            kinds: Kind::USUAL.to_vec(),
            all_kinds: true,
            workloads: None,
            records_per_second: None,
            size: None,
        };
        let size = |plan: &Plan| plan.steps.len() + plan.workloads.len();
        let mut plan = Plan::from_seed(5, &wanted);
        let mut rounds = 0;
        while let Some(next) = smaller(&plan)
            .into_iter()
            .find(|next| next.kinds().contains(&Kind::Pause))
        {
            assert!(size(&next) < size(&plan));
            plan = next;
            rounds += 1;
        }
        // What matters is left, alone.
        assert_eq!(
            (plan.steps.len(), plan.workloads.len()),
            (1, 1),
            "{plan:?} after {rounds} rounds"
        );
        assert_eq!(plan.steps[0].kind, Kind::Pause);
    }
}
