//! Files of checkpoints are damaged or left over: jobs go on from an older checkpoint and say so, and operators find out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context;
use flott_chaos_tests::cluster::newest_completed;
use flott_chaos_tests::cluster::processes::{go_on, kill, stop};
use flott_chaos_tests::invariants::committed::Results;
use serde_json::Value;

use crate::alone;
use crate::job::{DEADLINE, RunningJob, all_running};
use crate::objects::named_by;

#[tokio::test]
async fn a_job_goes_back_behind_a_damaged_checkpoint_and_says_so() -> anyhow::Result<()> {
    let _alone = alone().await;
    let retained = "execution.checkpointing.num-retained=3";
    let job = RunningJob::paced(&["--respawn", "-D", retained]).await?;
    let cluster = &job.cluster;
    cluster.until_checkpoints(&job.id, 4, &[], DEADLINE).await?;
    assert_eq!(
        cluster.ask(&["checkpoints", "verify", &job.id]).await?.code,
        Some(0)
    );

    // Nobody starts them again before the damage is done, so what is the newest checkpoint stays it.
    let local = cluster.local_pid()?;
    stop(local)?;
    for task_manager in cluster.members()?.taskmanagers {
        kill(task_manager.pid)?;
    }
    cluster.until_state(&job.id, "RESTARTING", DEADLINE).await?;
    let before = cluster.checkpoints(&job.id).await?;
    let newest = newest_completed(&before);
    let damaged = file_of_newest_alone(&job, newest)?;
    flip_a_bit(&storage(&job).join(&damaged))?;

    let verified = cluster
        .ask(&["checkpoints", "verify", &job.id, "-o", "json"])
        .await?;
    assert_eq!(verified.code, Some(1), "{verified:?}");
    let verified: Value = serde_json::from_str(&verified.stdout)?;
    let found = verified["damaged"].as_array().context("no damaged")?;
    assert_eq!(found.len(), 1, "{verified:#}");
    assert_eq!(found[0]["path"], damaged.as_str());
    assert_eq!(found[0]["checkpoints"], serde_json::json!([newest]));
    let sizes_only = cluster
        .ask(&["checkpoints", "verify", &job.id, "--sizes-only"])
        .await?;
    assert_eq!(
        sizes_only.code,
        Some(0),
        "its size is right: {sizes_only:?}"
    );

    go_on(local)?;
    let runs_again = |info: &Value| info["attempt"].as_u64() >= Some(3) && all_running(info);
    let info = || cluster.info(&job.id);
    let info = cluster
        .until("a third attempt", DEADLINE, info, runs_again)
        .await?;
    let events = info["events"].as_array().context("no events")?;
    let discarded = events
        .iter()
        .find(|event| event["event"] == "CHECKPOINT_DISCARDED");
    let discarded = discarded.with_context(|| format!("nothing is said: {info:#}"))?;
    assert_eq!(discarded["checkpoint"], newest);
    let cause = discarded["cause"].as_str().unwrap_or_default();
    for part in [
        &damaged,
        "CRC-32C",
        &format!("goes on from checkpoint {}", newest - 1),
        "twice",
    ] {
        assert!(cause.contains(part), "{cause}");
    }
    let listed = cluster.checkpoints(&job.id).await?;
    let unusable = listed.iter().find(|checkpoint| checkpoint["id"] == newest);
    let unusable = unusable.context("the unusable checkpoint is not listed")?;
    assert_eq!(unusable["status"], "UNUSABLE", "{unusable:#}");

    collects_only_the_orphan(&job).await?;
    finishes_with_every_row(&job).await
}

/// A file that nobody needs, in the directory of a writer whose attempt is over, is found and deleted, and nothing else is.
async fn collects_only_the_orphan(job: &RunningJob) -> anyhow::Result<()> {
    let cluster = &job.cluster;
    // What the attempts before left behind goes first.
    let delete = ["checkpoints", "gc", &job.id, "--yes"];
    cluster.json(&delete).await?;
    let orphan = format!("{}/shared/1-1-planted-0/00000001", job_directory(job)?);
    let planted = storage(job).join(&orphan);
    std::fs::create_dir_all(planted.parent().context("it has a directory")?)?;
    std::fs::write(&planted, b"nobody's")?;

    let found = cluster
        .json(&["checkpoints", "gc", &job.id, "--dry-run"])
        .await?;
    assert_eq!(found["count"], 1, "{found:#}");
    assert_eq!(found["bytes"], 8, "{found:#}");
    assert_eq!(found["orphans"][0]["path"], orphan.as_str());
    let reason = found["orphans"][0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("attempt 1 is over"), "{reason}");
    assert!(planted.exists(), "a dry run deletes nothing");
    let unconfirmed = cluster.ask(&["checkpoints", "gc", &job.id]).await?;
    assert_eq!(unconfirmed.code, Some(2), "{unconfirmed:?}");

    let deleted = cluster.json(&delete).await?;
    assert_eq!(deleted["deleted"], true, "{deleted:#}");
    assert_eq!(deleted["count"], 1, "{deleted:#}");
    assert!(!planted.exists());
    let verified = cluster.ask(&["checkpoints", "verify", &job.id]).await?;
    assert_eq!(
        verified.code,
        Some(0),
        "nothing that is needed went: {verified:?}"
    );
    Ok(())
}

/// Going back repeats output and loses none.
pub(crate) async fn finishes_with_every_row(job: &RunningJob) -> anyhow::Result<()> {
    job.cluster
        .until_state(&job.id, "FINISHED", DEADLINE)
        .await?;
    Results::committed(&job.output)?.check_at_least_once(&job.expected)
}

/// Where `flott local` has its checkpoints.
pub(crate) fn storage(job: &RunningJob) -> PathBuf {
    job.cluster.directory().join("checkpoints")
}

/// The job's directory in there.
fn job_directory(job: &RunningJob) -> anyhow::Result<String> {
    for cluster in std::fs::read_dir(storage(job))? {
        let cluster = cluster?.file_name();
        let directory = format!("{}/default/{}", cluster.to_string_lossy(), job.id);
        if storage(job).join(&directory).is_dir() {
            return Ok(directory);
        }
    }
    anyhow::bail!("{} has no directory in {:?}", job.id, storage(job))
}

/// A file that the newest completed checkpoint needs, and no other.
fn file_of_newest_alone(job: &RunningJob, newest: u64) -> anyhow::Result<String> {
    let before = files_of(job, newest - 1)?;
    let mut files = files_of(job, newest)?.into_iter();
    let new = files.find(|path| !before.contains(path));
    new.with_context(|| format!("checkpoint {newest} has no file of its own"))
}

/// The state files that a checkpoint's `_metadata` names.
fn files_of(job: &RunningJob, checkpoint: u64) -> anyhow::Result<BTreeSet<String>> {
    let directory = job_directory(job)?;
    let path = storage(job).join(format!("{directory}/chk-{checkpoint}/_metadata"));
    let object = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    named_by(&object)
}

pub(crate) fn flip_a_bit(path: &Path) -> anyhow::Result<()> {
    let mut bytes = std::fs::read(path)?;
    let last = bytes.last_mut().context("an empty file")?;
    *last ^= 1;
    Ok(std::fs::write(path, bytes)?)
}
