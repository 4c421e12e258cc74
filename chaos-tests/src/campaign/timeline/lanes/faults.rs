//! What was planned, and what became of it: a lane for each kind of fault.

use std::collections::BTreeMap;

use super::members::look;
use super::{Bar, Content, Lane, faults_from_ms, seconds, stack};
use crate::campaign::fault::{Kind, Step};
use crate::campaign::strike::{Outcome, Struck};
use crate::campaign::timeline::Material;
use crate::campaign::words::{names_of, outcome_of};

pub(super) fn lanes(material: &Material) -> Vec<Lane> {
    let begin = faults_from_ms(material);
    let mut struck: Vec<&Struck> = material.struck.iter().collect();
    let mut kinds: BTreeMap<Kind, Vec<Vec<Bar>>> = BTreeMap::new();
    for step in &material.plan.steps {
        // Two steps that are alike are carried out in the order of the plan.
        let index = struck.iter().position(|struck| struck.step == *step);
        let struck = index.map(|index| struck.remove(index));
        let bars = [
            Some(planned(step, begin, struck)),
            struck.and_then(carried_out),
        ];
        let bars = bars.into_iter().flatten().collect();
        kinds.entry(step.kind).or_default().push(bars);
    }
    let lane = |(kind, things): (Kind, Vec<Vec<Bar>>)| {
        let count = things.len();
        let is_installed = |bars: &&Vec<Bar>| bars.iter().any(|bar| bar.look == look(kind));
        let installed = things.iter().filter(is_installed).count();
        Lane {
            name: match installed == count {
                true => format!("{kind} ({count})"),
                false => format!("{kind} ({installed} of {count})"),
            },
            about: "thin: as planned; filled: as it was; hatched: nobody knows whether it was; crossed out: nothing was done"
                .to_owned(),
            content: Content::Rows(stack(things, 0)),
        }
    };
    kinds.into_iter().map(lane).collect()
}

/// The step in the plan, from which what happened may differ.
fn planned(step: &Step, begin: u64, struck: Option<&Struck>) -> Bar {
    let from_ms = begin.saturating_add(step.at_ms);
    let until_ms = begin.saturating_add(step.ends_ms());
    let (look, label, became) = match struck {
        None => {
            let became = "it had not ended when the run broke off".to_owned();
            ("planned", "", became)
        }
        Some(struck) => match struck.outcome {
            Outcome::Skipped(_) => ("planned skipped", "skipped", outcome_of(struck)),
            _ => ("planned", "", String::new()),
        },
    };
    // Of an operation the end is only when it is given up.
    let until_ms = match (step.kind.is_operation(), struck) {
        (true, Some(struck)) => struck.until_ms.max(from_ms),
        _ => until_ms,
    };
    Bar {
        from_ms,
        until_ms,
        look,
        label: label.to_owned(),
        about: format!(
            "{}: planned {} to {}. {became}",
            step.text(),
            seconds(from_ms),
            seconds(until_ms)
        ),
    }
}

fn carried_out(struck: &Struck) -> Option<Bar> {
    let kind = struck.step.kind;
    let (look, label) = match &struck.outcome {
        Outcome::Skipped(_) => return None,
        Outcome::Installed { nodes, .. } => (look(kind), names_of(nodes)),
        Outcome::Indeterminate(_) => ("indeterminate", String::new()),
    };
    Some(Bar {
        from_ms: struck.from_ms,
        until_ms: struck.until_ms,
        look,
        label,
        about: format!(
            "{}: {} to {}. {}",
            struck.step.text(),
            seconds(struck.from_ms),
            seconds(struck.until_ms),
            outcome_of(struck)
        ),
    })
}
