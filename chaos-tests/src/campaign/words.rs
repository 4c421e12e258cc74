//! What a person reads while a run goes on, and when it has ended. Pure.

use std::fmt::Write as _;

use super::judge::Report;
use super::strike::{Outcome, Struck};
use crate::target::Node;

/// What became of a step.
pub fn outcome_of(struck: &Struck) -> String {
    match &struck.outcome {
        Outcome::Installed { nodes, led, ended } => {
            let led = if *led { ", who led" } else { "" };
            let ended = match ended.is_empty() {
                true => String::new(),
                false => format!("; ended by it: {}", names_of(ended)),
            };
            format!("{}{led}{ended}", names_of(nodes))
        }
        Outcome::Skipped(why) => format!("SKIPPED, {why}"),
        Outcome::Indeterminate(why) => format!("INDETERMINATE, {why}"),
    }
}

/// The names of nodes.
pub fn names_of(nodes: &[Node]) -> String {
    let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// A struck step as a line for people.
pub fn line_of(struck: &Struck) -> String {
    let outcome = outcome_of(struck);
    let seconds = |ms: u64| ms as f64 / 1e3;
    format!(
        "{:>8.1} s  {:<34} for {:>4.1} s  {outcome}",
        seconds(struck.from_ms),
        struck.step.text(),
        seconds(struck.until_ms.saturating_sub(struck.from_ms)),
    )
}

/// The report as a newcomer reads it.
pub fn text_of(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let mut line = |what: &str, value: String| {
        let _ = writeln!(text, "  {what:<22}{value}");
    };
    let faults: Vec<String> = report
        .faults
        .iter()
        .map(|(kind, count)| match count.installed == count.planned {
            true => format!("{kind} {}", count.installed),
            false => format!("{kind} {} of {}", count.installed, count.planned),
        })
        .collect();
    let none = || "none".to_owned();
    line(
        "faults installed",
        if faults.is_empty() {
            none()
        } else {
            faults.join(", ")
        },
    );
    line("leader changes", report.leader_changes.to_string());
    line(
        "records",
        format!(
            "{} verified, {} lost, {} duplicated, {} out of order, {} unknown",
            report.records_verified,
            report.records_lost,
            report.records_duplicated,
            report.records_out_of_order,
            report.records_unknown
        ),
    );
    line(
        "checkpoints",
        format!(
            "{} completed, attempt {} of the job",
            report.checkpoints, report.attempts
        ),
    );
    line(
        "registers",
        format!(
            "{} operations ({} of unknown outcome), {} writes acknowledged, {} registers checked",
            report.operations,
            report.operations_unknown,
            report.writes_acknowledged,
            report.registers_checked
        ),
    );
    line(
        "jobs",
        format!(
            "{} submitted, {} acknowledged, {} canceled, {} lists",
            report.jobs_submitted, report.jobs_acknowledged, report.jobs_canceled, report.lists
        ),
    );
    if !report.reference.is_empty() {
        let queries = report.reference.iter();
        let queries: Vec<String> = queries
            .map(|(query, fared)| format!("{query} {}", fared.rows))
            .collect();
        line(
            "reference queries",
            format!("rows without faults: {}", queries.join(", ")),
        );
    }
    if let Some(bank) = &report.bank {
        line(
            "accounts",
            format!(
                "{} transfers acknowledged, {} not done, {} of unknown outcome, {} reads of all",
                bank.done, bank.not_done, bank.unknown, bank.reads
            ),
        );
    }
    if let Some(tenants) = &report.tenants {
        line(
            "steady tenant",
            format!("at rest:     {}", tenants.rest.text()),
        );
        line("", format!("under abuse: {}", tenants.abuse.text()));
        line(
            "noisy tenant",
            format!(
                "{} requests carried out, {} not",
                tenants.noise, tenants.noise_refused
            ),
        );
    }
    if let Some(closure) = &report.closure {
        line(
            "files of checkpoints",
            format!(
                "{} in {} checkpoints, {} damaged, {} orphans collected",
                closure.files,
                closure.checkpoints,
                closure.damaged.len(),
                closure.orphans
            ),
        );
    }
    if let Some(liveness) = &report.liveness {
        let when = match report.faults.is_empty() {
            true => "at the end, after",
            false => "after healing",
        };
        line(
            when,
            format!(
                "leader {} ms, all tasks {} ms, checkpoint {} ms, records {} ms",
                liveness.leader_ms, liveness.tasks_ms, liveness.checkpoint_ms, liveness.records_ms
            ),
        );
    }
    for what in &report.not_judged {
        line("not judged", what.clone());
    }
    text
}
