//! Sinks that are slower than their sources: checkpoints do not wait for the rows that wait, but store them; and whoever dies
//! then, or whatever parallelism the job goes on at, each of these rows counts once.

use std::path::Path;

use anyhow::Context;
use flott_chaos_tests::cluster::newest_completed;
use flott_chaos_tests::cluster::processes::{go_on, kill, stop};
use serde_json::Value;

use crate::alone;
use crate::damage::{finishes_with_every_row, flip_a_bit, storage};
use crate::job::{DEADLINE, RunningJob, all_running};

/// In all, and for each sink a second: they wait for many seconds.
const ROWS: u64 = 100_000;
const SLOW: u64 = 3_000;

/// Waits for a checkpoint that is none of those known and that has rows in flight.
async fn unaligned(job: &RunningJob, known: &[Value]) -> anyhow::Result<Vec<Value>> {
    let is_new = |checkpoint: &Value| known.iter().all(|known| known["id"] != checkpoint["id"]);
    let has_rows = |checkpoint: &Value| {
        checkpoint["status"] == "COMPLETED"
            && checkpoint["unaligned"] == true
            && checkpoint["in_flight_bytes"].as_u64() > Some(0)
    };
    let checkpoints = || job.cluster.checkpoints(&job.id);
    let wanted = |all: &Vec<Value>| all.iter().any(|it| is_new(it) && has_rows(it));
    job.cluster
        .until("an unaligned checkpoint", DEADLINE, checkpoints, wanted)
        .await
}

async fn rescaled(job: &RunningJob, parallelism: &str) -> anyhow::Result<()> {
    job.cluster
        .json(&["rescale", &job.id, "-p", parallelism])
        .await?;
    let info = || job.cluster.info(&job.id);
    job.cluster
        .until("tasks", DEADLINE, info, all_running)
        .await?;
    Ok(())
}

fn settings() -> [&'static str; 7] {
    let timeout = "execution.checkpointing.aligned-checkpoint-timeout=100ms";
    let backoff = "restart-strategy.exponential-delay.max-backoff=100ms";
    ["--slots", "4", "--respawn", "-D", timeout, "-D", backoff]
}

#[tokio::test]
async fn rows_in_flight_survive_deaths_and_changes_of_parallelism() -> anyhow::Result<()> {
    let _alone = alone().await;
    let job = RunningJob::with_slow_sinks(ROWS, SLOW, &settings()).await?;
    let cluster = &job.cluster;
    let known = unaligned(&job, &[]).await?;
    kill(cluster.members()?.taskmanagers.remove(0).pid)?;
    let known = unaligned(&job, &known).await?;
    rescaled(&job, "4").await?;
    let known = unaligned(&job, &known).await?;
    rescaled(&job, "1").await?;
    let known = unaligned(&job, &known).await?;
    rescaled(&job, "3").await?;
    unaligned(&job, &known).await?;
    for member in cluster.members()?.taskmanagers {
        kill(member.pid)?;
    }
    let verified = cluster.ask(&["checkpoints", "verify", &job.id]).await?;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    job.finishes_exactly().await?;
    job.collects_all_orphans().await?;
    Ok(())
}

#[tokio::test]
async fn a_job_goes_back_behind_damaged_channel_state() -> anyhow::Result<()> {
    let _alone = alone().await;
    let retained = ["-D", "execution.checkpointing.num-retained=3"];
    let further = [&settings()[..], &retained].concat();
    let job = RunningJob::with_slow_sinks(ROWS, SLOW, &further).await?;
    let cluster = &job.cluster;
    let known = unaligned(&job, &[]).await?;
    unaligned(&job, &known).await?;
    // Nobody starts them again before the damage is done, so what is the newest checkpoint stays it.
    let local = cluster.local_pid()?;
    stop(local)?;
    for task_manager in cluster.members()?.taskmanagers {
        kill(task_manager.pid)?;
    }
    cluster.until_state(&job.id, "RESTARTING", DEADLINE).await?;
    let newest = newest_completed(&cluster.checkpoints(&job.id).await?);
    let name = format!("channels-{newest}");
    let damaged = find(&storage(&job), &name)?.with_context(|| format!("there is no {name}"))?;
    flip_a_bit(&damaged)?;
    go_on(local)?;
    let info = || cluster.info(&job.id);
    let info = cluster
        .until("another attempt", DEADLINE, info, |info| {
            info["attempt"].as_u64() >= Some(3) && all_running(info)
        })
        .await?;
    let mut events = info["events"].as_array().context("no events")?.iter();
    let discarded = events.find(|event| event["event"] == "CHECKPOINT_DISCARDED");
    let discarded = discarded.with_context(|| format!("nothing is said: {info:#}"))?;
    assert_eq!(discarded["checkpoint"], newest);
    let cause = discarded["cause"].as_str().unwrap_or_default();
    assert!(cause.contains(&name), "{cause}");
    finishes_with_every_row(&job).await
}

/// A file of that name below a directory.
fn find(directory: &Path, name: &str) -> anyhow::Result<Option<std::path::PathBuf>> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(found) = find(&path, name)? {
                return Ok(Some(found));
            }
        } else if path.file_name().is_some_and(|found| found == name) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
