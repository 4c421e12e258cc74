//! A savepoint is all that is needed to go on: elsewhere, at another parallelism, and without what it was taken from.

use std::path::Path;

use anyhow::{Context, ensure};
use flott_chaos_tests::cluster::{flott, flott_binary};
use flott_chaos_tests::workload::flights;
use serde_json::Value;

use crate::alone;
use crate::job::{DEADLINE, RunningJob};

#[tokio::test]
async fn a_job_goes_on_with_more_aggregates_from_a_savepoint_that_was_moved_and_deletes_what_it_claimed()
-> anyhow::Result<()> {
    let _alone = alone().await;
    let mut job = RunningJob::paced(&[]).await?;
    let directory = job.directory.path().to_owned();
    let target = directory.join("savepoints");
    let kept = ["savepoint", &job.id, path(&target)?];
    let kept = job.cluster.json(&kept).await?;
    let kept = Path::new(kept["path"].as_str().context("no path")?).to_owned();
    let verified = job.cluster.ask(&["checkpoints", "verify", &job.id]).await?;
    ensure!(verified.code == Some(0), "{verified:?}");
    std::fs::rename(kept.join("_metadata"), directory.join("hidden"))?;
    let verified = job.cluster.ask(&["checkpoints", "verify", &job.id]).await?;
    ensure!(
        verified.code == Some(1),
        "a part of it is gone: {verified:?}"
    );
    std::fs::rename(directory.join("hidden"), kept.join("_metadata"))?;
    let stopped = ["stop", &job.id, "-p", path(&target)?];
    let stopped = job.cluster.json(&stopped).await?;
    let taken = stopped["path"].as_str().context("no path")?;
    job.committed_so_far()?;

    let moved = directory.join("elsewhere/moved");
    std::fs::create_dir_all(directory.join("elsewhere"))?;
    std::fs::rename(taken, &moved)?;
    std::fs::remove_dir_all(job.cluster.directory().join("checkpoints"))?;
    can_be_read(&moved).await?;

    let input = directory.join("flights.csv");
    let sql = flights::sql(&input, &job.output, 1_000);
    let accepted = dry_run(&job, &sql, &moved).await?;
    ensure!(accepted["accepted"] == true, "{accepted:#}");
    let other_keys = sql.replace("COUNT(*)", "MAX(dep_delay)");
    ensure!(other_keys != sql, "the job counts flights: {sql}");
    let refused = dry_run(&job, &other_keys, &moved).await?;
    let reasons = refused["refusals"].to_string();
    ensure!(
        reasons.contains("COUNT(*)") && reasons.contains("MAX("),
        "{refused:#}"
    );

    // An aggregate more than the windows in the savepoint have seen.
    let more = sql
        .replace("worst BIGINT", "worst BIGINT, least BIGINT")
        .replace("AS worst", "AS worst, MIN(dep_delay) AS least");
    ensure!(more.matches("least").count() == 2, "{more}");
    // As many as it will never have: so it keeps what it has claimed until it ends.
    let claim = |parallelism| {
        let retained = "execution.checkpointing.num-retained=1000";
        ["-p", parallelism, "-D", retained, "--claim-mode", "CLAIM"]
    };
    let mut first = vec!["-s", path(&moved)?];
    first.extend(claim("2"));
    job.id = job.cluster.submit(&more, &first).await?;
    let second = job.cluster.submit(&more, &first).await;
    let second = format!("{:?}", second.err().context("claimed twice")?);
    ensure!(
        second.contains(&job.id) && second.contains("has claimed"),
        "{second}"
    );
    ensure!(moved.join("_metadata").exists(), "it needs that yet");
    job.finishes_exactly().await?;
    let is_there = || async { Ok(moved.exists()) };
    job.cluster
        .until("the savepoint to go", DEADLINE, is_there, |there| !there)
        .await?;
    ensure!(kept.join("_metadata").exists(), "nobody claimed that one");
    Ok(())
}

/// What is in the savepoint is told without any cluster, and in the words of the job.
async fn can_be_read(savepoint: &Path) -> anyhow::Result<()> {
    let binary = flott_binary()?;
    let inspect = ["state", "inspect", path(savepoint)?, "-o", "json"];
    let inspected = flott(&binary, &inspect).await?;
    ensure!(inspected.code == Some(0), "{inspected:?}");
    let inspected: Value = serde_json::from_str(&inspected.stdout)?;
    ensure!(inspected["self_contained"] == true, "{inspected:#}");
    let operators = inspected["operators"].as_array().context("no operators")?;
    let mut windows = operators
        .iter()
        .filter(|operator| operator["kind"] == "window aggregation");
    let window = windows.next().context("no window")?;
    ensure!(window["parallelism"] == 4, "{window:#}");
    let uid = window["uid"].as_str().context("no uid")?;

    let read = [
        "state",
        "read",
        path(savepoint)?,
        "-o",
        "json",
        "--operator",
        uid,
    ];
    let entries = flott(&binary, &read).await?;
    ensure!(entries.code == Some(0), "{entries:?}");
    let mut count = 0;
    for line in entries.stdout.lines() {
        let entry: Value = serde_json::from_str(line)?;
        let airports = ["EWR", "JFK", "LGA"].map(Value::from);
        ensure!(airports.contains(&entry["origin"]), "{line}");
        ensure!(entry["window_end"].is_string(), "{line}");
        ensure!(entry["departures"].as_i64() > Some(0), "{line}");
        count += 1;
    }
    ensure!(
        count > 0,
        "the windows of the last two hours are open: {entries:?}"
    );
    let mut timers = read.to_vec();
    timers.extend(["--state", "windows/timers"]);
    let timers = flott(&binary, &timers).await?;
    let timed = timers.stdout.lines().count();
    ensure!(
        (1..=count).contains(&timed),
        "one for each window of a key group: {timers:?}"
    );
    let unknown = [&read[..6], &["nobody"]].concat();
    let unknown = flott(&binary, &unknown).await?;
    ensure!(
        unknown.code == Some(1) && unknown.stderr.contains(uid),
        "{unknown:?}"
    );
    Ok(())
}

/// What the cluster would make of the job, started from that savepoint.
async fn dry_run(job: &RunningJob, sql: &str, savepoint: &Path) -> anyhow::Result<Value> {
    let file = job.directory.path().join("dry.sql");
    std::fs::write(&file, sql)?;
    let arguments = [
        "run",
        "--dry-run",
        "-f",
        path(&file)?,
        "-s",
        path(savepoint)?,
    ];
    let mut arguments = arguments.to_vec();
    arguments.extend(["-o", "json"]);
    let answer = job.cluster.ask(&arguments).await?;
    let told: Value =
        serde_json::from_str(&answer.stdout).with_context(|| format!("no JSON: {answer:?}"))?;
    let code = if told["accepted"] == true { 0 } else { 1 };
    ensure!(answer.code == Some(code), "{answer:?}");
    Ok(told)
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path of tests is text")
}
