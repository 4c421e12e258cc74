//! Attempts of the sequence job, its checkpoints and the gaps between them; and how many small jobs came and went.

use std::collections::BTreeSet;

use super::operations::strip;
use super::{Bar, Content, Lane, Material, length_ms, seconds};
use crate::campaign::load::NAME;
use crate::invariants::jobs::{Event, Seen};
use crate::target::client::is_terminal;

/// A gap is shown that is so many times as long as half of them …
const GAP_FACTOR: u64 = 4;
/// … and as this: lists are taken each half or two seconds.
const GAP_MS_MIN: u64 = 3_000;

pub(super) fn lanes(material: &Material) -> Vec<Lane> {
    let seen = sequence_job(&material.jobs);
    let mut lanes = Vec::new();
    if !seen.is_empty() {
        lanes.push(attempts(material, &seen));
    }
    let ended = seen
        .iter()
        .find(|(_, job)| is_terminal(&job.state))
        .map(|(at_ms, _)| *at_ms);
    lanes.extend(checkpoints(material, ended));
    let submitted = material.jobs.iter().filter_map(|event| match event {
        Event::Submitted { id, ended_ms, .. } => Some((*ended_ms, usize::from(id.is_none()))),
        _ => None,
    });
    let canceled = material.jobs.iter().filter_map(|event| match event {
        Event::Canceled { ended_ms, .. } => Some((*ended_ms, 0)),
        _ => None,
    });
    let names = ["acknowledged", "without an answer that says so", "failed"];
    lanes.extend(strip(material, "jobs submitted", names, submitted));
    lanes.extend(strip(material, "jobs canceled", names, canceled));
    lanes
}

/// The sequence job in each list: when the answer came, and what it said.
fn sequence_job(events: &[Event]) -> Vec<(u64, &Seen)> {
    let prefix = format!("{NAME}-seq-");
    let mut names = events.iter().filter_map(|event| match event {
        Event::Submitted { name, .. } if name.starts_with(&prefix) => Some(name),
        _ => None,
    });
    let Some(own) = names.next() else {
        return Vec::new();
    };
    let mut seen = Vec::new();
    for event in events {
        if let Event::Listed { ended_ms, jobs, .. } = event {
            let job = jobs.iter().find(|job| job.name == *own);
            seen.extend(job.map(|job| (*ended_ms, job)));
        }
    }
    seen
}

fn attempts(material: &Material, seen: &[(u64, &Seen)]) -> Lane {
    let mut bars: Vec<Bar> = Vec::new();
    let mut before: Option<(&str, u64)> = None;
    for (at_ms, job) in seen {
        let now = (job.state.as_str(), job.attempt);
        if before == Some(now) {
            continue;
        }
        before = Some(now);
        if let Some(last) = bars.last_mut() {
            last.until_ms = *at_ms;
        }
        bars.push(Bar {
            from_ms: *at_ms,
            until_ms: length_ms(material),
            look: match job.state.as_str() {
                "RUNNING" => "running",
                "FAILED" => "failed",
                "FINISHED" | "CANCELED" => "over",
                _ => "waiting",
            },
            label: match job.state.as_str() {
                "RUNNING" => format!("attempt {}", job.attempt),
                state => state.to_owned(),
            },
            about: format!(
                "attempt {} was {} from {} on",
                job.attempt,
                job.state,
                seconds(*at_ms)
            ),
        });
    }
    let attempts: BTreeSet<u64> = seen.iter().map(|(_, job)| job.attempt).collect();
    let last = attempts.last().copied().unwrap_or(0);
    Lane {
        name: format!("sequence job (attempt {last})"),
        about:
            "the job whose records are checked: each attempt, and what it waited for between them"
                .to_owned(),
        content: Content::Rows(vec![bars]),
    }
}

/// Ticks, and below them the gaps.
fn checkpoints(material: &Material, job_ended_ms: Option<u64>) -> Option<Lane> {
    let mut known = BTreeSet::new();
    let mut ticks: Vec<Bar> = Vec::new();
    let mut completed: Vec<u64> = Vec::new();
    for list in &material.checkpoints {
        for checkpoint in &list.checkpoints {
            let look = match checkpoint.status.as_str() {
                "COMPLETED" => "complete",
                "FAILED" => "declined",
                _ => continue,
            };
            if !known.insert((checkpoint.id, look)) {
                continue;
            }
            if look == "complete" {
                completed.push(list.at_ms);
            }
            ticks.push(Bar {
                from_ms: list.at_ms,
                until_ms: list.at_ms,
                look,
                label: String::new(),
                about: format!(
                    "{} {}: {}, {} bytes, first seen at {}",
                    checkpoint.kind.to_lowercase(),
                    checkpoint.id,
                    checkpoint.status,
                    checkpoint.size_bytes,
                    seconds(list.at_ms)
                ),
            });
        }
    }
    let last = material.checkpoints.last()?.at_ms;
    let end = job_ended_ms.map_or(last, |ended| ended.min(last));
    let gaps = gaps(&completed, end);
    let longest = gaps.iter().map(|gap| gap.until_ms - gap.from_ms).max();
    let longest = longest.map_or(String::new(), |ms| format!(", longest gap {}", seconds(ms)));
    let mut rows = vec![ticks];
    if !gaps.is_empty() {
        rows.push(gaps);
    }
    Some(Lane {
        name: format!("checkpoints ({} completed{longest})", completed.len()),
        about: "a tick where a checkpoint was first seen complete, or to have failed; below, where none was for long"
            .to_owned(),
        content: Content::Rows(rows),
    })
}

/// Where nothing was completed for much longer than usual.
fn gaps(completed: &[u64], end_ms: u64) -> Vec<Bar> {
    let ends = completed.iter().skip(1).copied().chain([end_ms]);
    let pairs = completed.iter().copied().zip(ends);
    let pairs: Vec<(u64, u64)> = pairs.filter(|(from, until)| from < until).collect();
    let mut usual: Vec<u64> = pairs.iter().map(|(from, until)| until - from).collect();
    usual.sort_unstable();
    let half = usual.get(usual.len() / 2).copied().unwrap_or(0);
    let long = half.saturating_mul(GAP_FACTOR).max(GAP_MS_MIN);
    let long = pairs.iter().filter(|(from, until)| until - from >= long);
    long.map(|(from_ms, until_ms)| {
        let lasted = seconds(until_ms - from_ms);
        Bar {
            from_ms: *from_ms,
            until_ms: *until_ms,
            look: "gap",
            label: lasted.clone(),
            about: format!(
                "no checkpoint for {lasted}, {} to {}",
                seconds(*from_ms),
                seconds(*until_ms)
            ),
        }
    })
    .collect()
}
