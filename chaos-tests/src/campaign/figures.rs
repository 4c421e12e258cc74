//! The figures of many runs, added up: what is published.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::fault::Kind;
use super::judge::{Report, Struckness};
use crate::report::Durations;

/// Adds up the reports of many runs, in Markdown.
pub fn report(directories: &[PathBuf]) -> anyhow::Result<String> {
    let mut reports = Vec::new();
    for directory in directories {
        collect(directory, &mut reports)?;
    }
    ensure!(!reports.is_empty(), "there is no report.json in there");
    Ok(summary(&reports))
}

fn collect(directory: &Path, reports: &mut Vec<Report>) -> anyhow::Result<()> {
    let path = directory.join("report.json");
    if path.is_file() {
        let text = std::fs::read_to_string(&path)?;
        reports
            .push(serde_json::from_str(&text).with_context(|| format!("in {}", path.display()))?);
        return Ok(());
    }
    for entry in std::fs::read_dir(directory)
        .with_context(|| format!("cannot list {}", directory.display()))?
    {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), reports)?;
        }
    }
    Ok(())
}

fn summary(reports: &[Report]) -> String {
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let verdicts = |wanted: &str| {
        reports
            .iter()
            .filter(|report| report.verdict == wanted)
            .count()
    };
    let mut failovers = Durations::default();
    let mut faults: BTreeMap<Kind, Struckness> = BTreeMap::new();
    for report in reports {
        report
            .failovers_ms
            .iter()
            .for_each(|ms| failovers.push(Duration::from_millis(*ms)));
        for (kind, count) in &report.faults {
            let all = faults.entry(*kind).or_default();
            all.planned += count.planned;
            all.installed += count.installed;
            all.of_leader += count.of_leader;
            all.skipped += count.skipped;
            all.indeterminate += count.indeterminate;
        }
    }
    let breaches = |report: &Report| {
        report
            .closure
            .as_ref()
            .map_or(0, |closure| closure.damaged.len() as u64)
    };
    let orphans = |report: &Report| report.closure.as_ref().map_or(0, |closure| closure.orphans);
    let rows = [
        (
            "runs",
            format!(
                "{}: {} held, {} violated, {} unknown",
                reports.len(),
                verdicts("held"),
                verdicts("violated"),
                verdicts("unknown")
            ),
        ),
        ("hours in all, of which under faults", {
            let hours = |ms: u64| format!("{:.2}", ms as f64 / 3.6e6);
            format!(
                "{}, {}",
                hours(sum(|report| report.length_ms)),
                hours(sum(|report| report.faults_ms))
            )
        }),
        (
            "leader changes seen",
            sum(|report| report.leader_changes).to_string(),
        ),
        (
            "records verified / lost / duplicated / out of order / unknown",
            format!(
                "{} / {} / {} / {} / {}",
                sum(|report| report.records_verified),
                sum(|report| report.records_lost),
                sum(|report| report.records_duplicated),
                sum(|report| report.records_out_of_order),
                sum(|report| report.records_unknown)
            ),
        ),
        (
            "checkpoints completed",
            sum(|report| report.checkpoints).to_string(),
        ),
        (
            "operations of registers / unknown outcome / writes acknowledged",
            format!(
                "{} / {} / {}",
                sum(|report| report.operations),
                sum(|report| report.operations_unknown),
                sum(|report| report.writes_acknowledged)
            ),
        ),
        (
            "registers checked for linearizability",
            sum(|report| report.registers_checked).to_string(),
        ),
        (
            "jobs submitted / acknowledged / canceled; lists judged",
            format!(
                "{} / {} / {}; {}",
                sum(|report| report.jobs_submitted),
                sum(|report| report.jobs_acknowledged),
                sum(|report| report.jobs_canceled),
                sum(|report| report.lists)
            ),
        ),
        (
            "files that a checkpoint needs and that are not there or changed",
            sum(breaches).to_string(),
        ),
        (
            "files that nobody needs, left by killed processes and collected",
            sum(orphans).to_string(),
        ),
        (
            "failover (times / p50 / p99 / max ms)",
            failovers.to_string().replace('|', "/"),
        ),
    ];
    let mut text = String::from("| | |\n|---|---|\n");
    rows.iter()
        .for_each(|(what, value)| text += &format!("| {what} | {value} |\n"));
    text += "\n| fault | planned | installed | of the leader | skipped | indeterminate |\n|---|---|---|---|---|---|\n";
    for (kind, count) in &faults {
        text += &format!(
            "| {kind} | {} | {} | {} | {} | {} |\n",
            count.planned, count.installed, count.of_leader, count.skipped, count.indeterminate
        );
    }
    text
}
