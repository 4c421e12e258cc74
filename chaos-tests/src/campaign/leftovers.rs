//! What a run leaves: the files of its checkpoints, the logs of its processes, and what is written down about it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::judge::{Closure, Evidence};
use crate::cluster::Answer;
use crate::history::History;
use crate::invariants::bank;
use crate::invariants::tenants::Tenancy;
use crate::target::client::Client;
use crate::target::local::Local;

/// What tenants did and saw, and the steady one's history.
const TENANTS: [&str; 2] = ["tenants.jsonl", "tenants-history.jsonl"];
/// What was done with accounts.
const BANK: &str = "bank.jsonl";
/// For an answer about files.
const ANSWER_BOUND: Duration = Duration::from_secs(60);

/// Everything that retained checkpoints need is there; what is not needed is cleaned up without harm.
pub async fn closure(client: &Client, job: &str) -> anyhow::Result<Closure> {
    let ask = async |arguments: &[&str]| {
        let ask = async || client.ask(arguments).await;
        let answered = |answer: &Answer| answer.stdout.starts_with('{');
        let answer = client
            .until(&format!("{arguments:?}"), ANSWER_BOUND, ask, answered)
            .await?;
        anyhow::Ok(serde_json::from_str::<Value>(&answer.stdout)?)
    };
    let verify = ["checkpoints", "verify", job, "-o", "json"];
    let verified = ask(&verify).await?;
    let collected = ask(&["checkpoints", "gc", job, "--yes", "-o", "json"]).await?;
    let again = ask(&verify).await?;
    let damaged = |verified: &Value| -> Vec<String> {
        let files = verified["damaged"].as_array().into_iter().flatten();
        files.map(ToString::to_string).collect()
    };
    Ok(Closure {
        checkpoints: again["checkpoints"].as_u64().unwrap_or(0),
        files: again["files"].as_u64().unwrap_or(0),
        bytes: again["bytes"].as_u64().unwrap_or(0),
        damaged: [damaged(&verified), damaged(&again)].concat(),
        orphans: collected["count"].as_u64().unwrap_or(0),
    })
}

/// Lines of the logs that no process should ever write.
pub fn suspicious_lines(local: &Local) -> Vec<String> {
    const TOLD_MAX: usize = 10;
    let mut found = BTreeSet::new();
    for node in local.nodes() {
        let text = std::fs::read(local.log(node)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let bad = text
            .lines()
            .filter(|line| line.contains("panicked at") || line.contains("assertion failed"));
        found.extend(bad.take(TOLD_MAX).map(|line| format!("{node}: {line}")));
    }
    found.into_iter().take(TOLD_MAX).collect()
}

/// One value of JSON.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} cannot be used", path.display()))
}

/// A value of JSON a line; an error names the file and the line.
pub fn read_lines<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Vec<T>> {
    let read = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(read)?;
    let parse = |(number, line): (usize, std::io::Result<String>)| {
        let line = line.with_context(read)?;
        serde_json::from_str(&line)
            .with_context(|| format!("line {} of {} cannot be used", number + 1, path.display()))
    };
    let lines = BufReader::new(file).lines();
    lines.enumerate().map(parse).collect()
}

/// A history; an error names the file and the line.
pub fn read_history(path: &Path) -> anyhow::Result<History> {
    let read = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(read)?;
    History::read_from(BufReader::new(file)).with_context(read)
}

/// What tenants left in the directory of a run.
pub fn read_tenancy(directory: &Path) -> anyhow::Result<Tenancy> {
    Ok(Tenancy {
        events: read_lines(&directory.join(TENANTS[0]))?,
        history: read_history(&directory.join(TENANTS[1]))?,
    })
}

/// What was done with accounts, from the directory of a run.
pub fn read_bank(directory: &Path) -> anyhow::Result<Vec<bank::Event>> {
    read_lines(&directory.join(BANK))
}

/// Everything seen, as JSON lines beside the plan.
pub fn write_down(directory: &Path, evidence: &Evidence) -> anyhow::Result<()> {
    fn lines<T: Serialize>(path: PathBuf, all: &[T]) -> anyhow::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        for one in all {
            serde_json::to_writer(&mut out, one)?;
            out.write_all(b"\n")?;
        }
        Ok(out.flush()?)
    }
    let History { operations } = &evidence.history;
    lines(directory.join("history.jsonl"), operations)?;
    lines(directory.join("jobs.jsonl"), &evidence.seen.jobs)?;
    lines(
        directory.join("checkpoints.jsonl"),
        &evidence.seen.checkpoints,
    )?;
    lines(directory.join("leaders.jsonl"), &evidence.seen.led)?;
    let Tenancy { events, history } = &evidence.tenancy;
    lines(directory.join(TENANTS[0]), events)?;
    lines(directory.join(TENANTS[1]), &history.operations)?;
    lines(directory.join(BANK), &evidence.bank)?;
    lines(directory.join("faults.jsonl"), &evidence.struck)
}
