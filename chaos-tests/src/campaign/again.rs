//! `chaos check`: judges again what a run has left, after a checker was changed.

use std::path::Path;

use super::command::Say;
use super::judge::Report;
use super::leftovers::{read_bank, read_history, read_json, read_lines, read_tenancy};
use super::plan::{Plan, Workload};
use crate::invariants::sequence::{Extent, Reader};
use crate::invariants::{bank, checkpoint_log, jobs, same_rows, tenants};
use crate::report::{Finding, Verdict};
use crate::workload::bank::TERMS;
use crate::workload::reference;

/// Judges again what a run has left in its directory, or a history alone.
pub fn check(left: &Path, say: &Say) -> anyhow::Result<Verdict> {
    if !left.is_dir() {
        return crate::runs::linearizability::check_again(&read_history(left)?);
    }
    let directory = left;
    let plan: Plan = read_json(&directory.join("plan.json"))?;
    let history = read_history(&directory.join("history.jsonl"))?;
    let (mut violations, mut doubts) = (Vec::new(), Vec::new());
    if plan.workloads.contains(&Workload::Register) {
        match crate::runs::linearizability::check_again(&history)? {
            Verdict::Held => {}
            Verdict::Violated(more) => violations.extend(more),
            Verdict::Unknown(more) => doubts.extend(more),
        }
    }
    let events: Vec<jobs::Event> = read_lines(&directory.join("jobs.jsonl"))?;
    let lists: Vec<checkpoint_log::Listed> = read_lines(&directory.join("checkpoints.jsonl"))?;
    violations.extend(Finding::words(&jobs::check(&events, false)));
    violations.extend(Finding::words(&checkpoint_log::check(&lists)));
    if plan.workloads.contains(&Workload::Reference) {
        let report: Report = read_json(&directory.join("report.json"))?;
        let rows = reference::rows(directory)?;
        if rows
            .values()
            .all(|[undisturbed, _]| undisturbed.count() == 0)
        {
            doubts.push("the rows of the reference queries are not there any more".to_owned());
        }
        for (query, [undisturbed, disturbed]) in rows {
            let fared = report.reference.get(&query);
            let has_ended = fared.map_or(report.reference_ended, |fared| fared.has_ended);
            let found = same_rows::check(query.name(), &undisturbed, &disturbed, has_ended);
            violations.extend(Finding::words(&found));
        }
    }
    if plan.workloads.contains(&Workload::Tenants) {
        let tenancy = read_tenancy(directory)?;
        let registers = tenancy.registers();
        violations.extend(Finding::words(&tenants::check(&tenancy, &registers)));
    }
    if plan.workloads.contains(&Workload::Bank) {
        let events = read_bank(directory)?;
        violations.extend(Finding::words(&bank::check(&events, TERMS)));
    }
    let output = directory.join("out");
    if output.is_dir() {
        let mut reader = Reader::default();
        reader.read(&output)?;
        let found = reader.finish(match plan.knobs.records {
            0 => Extent::NoGaps,
            records => Extent::All(records),
        });
        say(&found.to_string());
        if !found.is_clean() {
            violations.push(found.to_string());
        }
    } else if plan.workloads.contains(&Workload::Seq) {
        doubts.push("the output of the sequence job is not there any more".to_owned());
    }
    Ok(Verdict::of(violations, doubts))
}
