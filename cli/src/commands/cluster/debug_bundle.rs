//! `flott cluster debug-bundle`: one archive with what every member says of itself.
//!
//! ```text
//! <name>/manifest.json                   who was asked and who answered
//! <name>/<node>/status.json              the group as this member sees it
//!               configuration.json       in effect, secrets masked
//!               metrics.txt  raft.txt
//!               log.json                 the end of its log: positions, kinds, sizes
//!               snapshots.json  jobs.json
//! ```
//!
//! No leader is needed: each member is asked for itself. Members that -m does not name are learnt from those it does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use flott_node::{SharedClock, SystemClock};
use flott_proto::wire;
use futures::future::join_all;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::client;
use crate::args::{DebugBundleArgs, OutputFormat};
use crate::client::Client;
use crate::shapes::{ClusterStatus, time};
use crate::{Error, output};

/// Good for text, and fast.
const COMPRESSION_LEVEL: i32 = 3;

/// What came of asking a member.
type Report = Result<wire::DebugReportResponse, String>;

/// What `-o json` prints, and the manifest in the archive.
#[derive(Debug, Serialize)]
struct Manifest {
    file: PathBuf,
    created_at: Option<String>,
    /// Of the program that wrote the archive.
    version: &'static str,
    cluster_id: String,
    members: Vec<Asked>,
}

#[derive(Debug, Serialize)]
struct Asked {
    address: String,
    /// None if it did not answer.
    node: Option<u64>,
    version: Option<String>,
    error: Option<String>,
}

pub(super) async fn run(arguments: &DebugBundleArgs) -> Result<(), Error> {
    let client = client(&arguments.cluster)?;
    let clock: SharedClock = SystemClock::shared();
    let reports = ask_all(
        &client,
        &arguments.cluster.jobmanager,
        arguments.log_entries,
    )
    .await;
    let cluster_id = cluster_of(&reports);
    if reports.values().all(Result::is_err) {
        let each = reports
            .values()
            .filter_map(|report| report.as_ref().err().cloned());
        let each: Vec<String> = each.collect();
        return Err(Error::Refused(format!(
            "no JobManager answers: {}",
            each.join("; ")
        )));
    }
    let now_ms = clock.now_ms();
    let file = match &arguments.file {
        Some(file) => file.clone(),
        None => PathBuf::from(format!("{}.tar.zst", default_name(&cluster_id, now_ms))),
    };
    let manifest = Manifest {
        file,
        created_at: time(now_ms),
        version: env!("CARGO_PKG_VERSION"),
        cluster_id,
        members: reports.iter().map(asked).collect(),
    };
    write(&manifest, &reports, now_ms)?;
    match arguments.cluster.output {
        OutputFormat::Json => output::json(&manifest),
        OutputFormat::Table => {
            for missing in manifest
                .members
                .iter()
                .filter_map(|member| member.error.as_ref())
            {
                output::note(&format!("warning: {missing}"));
            }
            output::line(&format!("Wrote {}", manifest.file.display()));
        }
    }
    Ok(())
}

/// Asks the named members, and then those that they know of.
async fn ask_all(client: &Client, named: &[String], log_entries: u32) -> BTreeMap<String, Report> {
    let mut reports: BTreeMap<String, Report> = BTreeMap::new();
    let mut next: BTreeSet<String> = named.iter().map(|name| name.trim().to_owned()).collect();
    // The second round asks whom the first has named; a third would learn nothing new of one group.
    for _ in 0..2 {
        let asked = next.iter().map(|address| async move {
            let report = client.debug_report(address, log_entries).await;
            (address.clone(), report.map_err(|error| error.to_string()))
        });
        reports.extend(join_all(asked).await);
        let known = reports
            .values()
            .flatten()
            .filter_map(|report| report.status.as_ref());
        next = known
            .flat_map(|status| status.members.iter().map(|member| member.address.clone()))
            .filter(|address| !reports.contains_key(address))
            .collect();
    }
    reports
}

fn cluster_of(reports: &BTreeMap<String, Report>) -> String {
    let statuses = reports
        .values()
        .flatten()
        .filter_map(|report| report.status.as_ref());
    let mut named = statuses.map(|status| status.cluster_id.as_str());
    named
        .find(|id| !id.is_empty())
        .unwrap_or_default()
        .to_owned()
}

fn default_name(cluster_id: &str, now_ms: i64) -> String {
    let cluster = if cluster_id.is_empty() {
        "none"
    } else {
        cluster_id
    };
    let now = Timestamp::from_millisecond(now_ms).unwrap_or_default();
    format!("flott-debug-{cluster}-{}", now.strftime("%Y%m%dT%H%M%SZ"))
}

fn asked((address, report): (&String, &Report)) -> Asked {
    let answer = report.as_ref().ok();
    Asked {
        address: address.clone(),
        node: answer.map(|report| report.node),
        version: answer.map(|report| report.version.clone()),
        error: report.as_ref().err().cloned(),
    }
}

/// Writes the archive beside its place and moves it there, so that half of one is never taken for one.
fn write(
    manifest: &Manifest,
    reports: &BTreeMap<String, Report>,
    now_ms: i64,
) -> Result<(), Error> {
    let file = &manifest.file;
    if file.exists() {
        return Err(Error::Refused(format!(
            "{} exists; name another file",
            file.display()
        )));
    }
    let mut beside = file.clone().into_os_string();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    let written = write_archive(&beside, manifest, reports, now_ms)
        .and_then(|()| std::fs::rename(&beside, file));
    written.map_err(|error| {
        // It is of no use, and may not exist.
        let _ = std::fs::remove_file(&beside);
        Error::file("cannot write", file)(error)
    })
}

fn write_archive(
    path: &Path,
    manifest: &Manifest,
    reports: &BTreeMap<String, Report>,
    now_ms: i64,
) -> std::io::Result<()> {
    let compressed = zstd::Encoder::new(BufWriter::new(File::create(path)?), COMPRESSION_LEVEL)?;
    let root = default_name(&manifest.cluster_id, now_ms);
    let mut archive = Archive {
        tar: tar::Builder::new(compressed),
        root,
        seconds: u64::try_from(now_ms / 1000).unwrap_or_default(),
    };
    archive.add("manifest.json", &pretty(manifest))?;
    for report in reports.values().flatten() {
        let mut add =
            |name: &str, content: &str| archive.add(&format!("{}/{name}", report.node), content);
        let status = report.status.clone().map(ClusterStatus::from);
        add("status.json", &pretty(&status))?;
        add("configuration.json", &pretty(&report.configuration))?;
        add("metrics.txt", &report.metrics)?;
        add("raft.txt", &report.raft)?;
        add("log.json", &lines(report.log.iter().map(log_entry)))?;
        add(
            "snapshots.json",
            &lines(report.snapshots.iter().map(snapshot)),
        )?;
        add("jobs.json", &lines(report.jobs.iter().map(job)))?;
    }
    let mut file = archive.tar.into_inner()?.finish()?;
    file.flush()?;
    file.get_ref().sync_all()
}

struct Archive<W: Write> {
    tar: tar::Builder<W>,
    root: String,
    /// Since the epoch: the time of all files.
    seconds: u64,
}

impl<W: Write> Archive<W> {
    fn add(&mut self, name: &str, content: &str) -> std::io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(self.seconds);
        let name = format!("{}/{name}", self.root);
        self.tar.append_data(&mut header, name, content.as_bytes())
    }
}

fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|error| error.to_string())
}

/// One object a line.
fn lines(values: impl Iterator<Item = Value>) -> String {
    values.map(|value| format!("{value}\n")).collect()
}

fn log_entry(entry: &wire::DebugLogEntry) -> Value {
    json!({
        "term": entry.term, "index": entry.index, "kind": entry.kind, "bytes": entry.bytes, "at": time(entry.at_ms),
    })
}

fn snapshot(snapshot: &wire::DebugSnapshot) -> Value {
    json!({ "file": snapshot.file, "bytes": snapshot.bytes, "age_ms": snapshot.age_ms })
}

fn job(job: &wire::DebugJob) -> Value {
    json!({
        "id": job.id, "namespace": job.namespace, "state": job.state, "attempt": job.attempt,
        "restarts": job.restarts, "submitted_at": time(job.submitted_at_ms), "ended_at": time(job.ended_at_ms),
        "subtasks": job.subtasks, "completed_checkpoints": job.completed_checkpoints,
        "failed_checkpoints": job.failed_checkpoints, "last_checkpoint_id": job.last_checkpoint_id,
        "retained_checkpoints": job.retained_checkpoints, "retired_files": job.retired_files,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn report(node: u64) -> wire::DebugReportResponse {
        wire::DebugReportResponse {
            node,
            version: "0.1.0".to_owned(),
            metrics: "flott_build_info 1\n".to_owned(),
            log: vec![wire::DebugLogEntry {
                term: 1,
                index: 2,
                kind: "SubmitJob".to_owned(),
                bytes: 300,
                at_ms: 1,
            }],
            ..Default::default()
        }
    }

    #[test]
    fn the_archive_has_a_folder_for_each_member_that_answered() {
        let dir = tempfile::tempdir().unwrap();
        let reports: BTreeMap<String, Report> = BTreeMap::from([
            ("h1:1".to_owned(), Ok(report(1))),
            ("h2:1".to_owned(), Err("h2:1: refused".to_owned())),
        ]);
        let manifest = Manifest {
            file: dir.path().join("bundle.tar.zst"),
            created_at: None,
            version: "0.1.0",
            cluster_id: "c".to_owned(),
            members: reports.iter().map(asked).collect(),
        };
        write(&manifest, &reports, 1_000_000_000_000).unwrap();
        let again = write(&manifest, &reports, 0).unwrap_err();
        assert!(again.to_string().contains("exists"), "{again}");

        let file = zstd::Decoder::new(File::open(&manifest.file).unwrap()).unwrap();
        let mut contents = BTreeMap::new();
        for entry in tar::Archive::new(file).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            contents.insert(name, text);
        }
        let root = "flott-debug-c-20010909T014640Z";
        assert_eq!(contents.len(), 8);
        assert_eq!(
            contents[&format!("{root}/1/metrics.txt")],
            "flott_build_info 1\n"
        );
        let log = &contents[&format!("{root}/1/log.json")];
        assert!(log.contains("\"kind\":\"SubmitJob\""), "{log}");
        let manifest = &contents[&format!("{root}/manifest.json")];
        assert!(manifest.contains("h2:1: refused"), "{manifest}");
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no half archive is left"
        );
    }
}
