//! Which objects there are, counted by hand: those of the retained checkpoints and of savepoints, and no other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use flott_chaos_tests::workload::flights;
use flott_proto::wire::CheckpointMetadata;
use prost::Message;

use crate::alone;
use crate::job::{DEADLINE, RunningJob};

const RETAINED: usize = 20;

#[tokio::test]
async fn twenty_checkpoints_three_savepoints_two_changes_of_parallelism_and_a_claim()
-> anyhow::Result<()> {
    let _alone = alone().await;
    let retained = format!("execution.checkpointing.num-retained={RETAINED}");
    let interval = "execution.checkpointing.interval=1s";
    let settings = ["--slots", "6", "-D", &retained, "-D", interval];
    let mut job = RunningJob::submit(240_000, 1_000, &settings).await?;
    let target = job.directory.path().join("savepoints");
    let mut savepoints = vec![savepoint(&job, &target).await?];
    rescaled(&job, "2").await?;
    savepoints.push(savepoint(&job, &target).await?);
    rescaled(&job, "6").await?;
    savepoints.push(savepoint(&job, &target).await?);
    let checkpoints = job.cluster.directory().join("checkpoints");

    // Between two checkpoints nothing else is there.
    let counted = || async { counted(&job, &checkpoints).await };
    let as_expected =
        |counted: &Counted| counted.checkpoints == RETAINED && counted.found == counted.expected;
    job.cluster
        .until(
            "twenty checkpoints' objects",
            DEADLINE,
            counted,
            as_expected,
        )
        .await?;
    is_clean(&job).await?;
    for savepoint in &savepoints {
        is_whole(savepoint)?;
    }

    job.cluster.json(&["cancel", &job.id]).await?;
    let input = job.directory.path().join("flights.csv");
    let sql = flights::sql(&input, &job.output, 1_000);
    let claimed = savepoints.remove(1);
    let from = claimed.to_str().context("a path of tests is text")?;
    let few = "execution.checkpointing.num-retained=2";
    let claim = ["-s", from, "--claim-mode", "CLAIM", "-p", "3", "-D", few];
    job.id = job.cluster.submit(&sql, &claim).await?;
    job.cluster
        .until_checkpoints(&job.id, 3, &[], DEADLINE)
        .await?;
    let is_there = || async { Ok(claimed.exists()) };
    job.cluster
        .until("the claimed savepoint to go", DEADLINE, is_there, |there| {
            !there
        })
        .await?;
    is_clean(&job).await?;
    job.cluster.json(&["cancel", &job.id]).await?;
    let left = || async { objects(&checkpoints) };
    job.cluster
        .until("the last object to go", DEADLINE, left, BTreeSet::is_empty)
        .await?;
    savepoints
        .iter()
        .try_for_each(|savepoint| is_whole(savepoint))
}

async fn savepoint(job: &RunningJob, target: &Path) -> anyhow::Result<PathBuf> {
    job.cluster
        .until_checkpoints(&job.id, 1, &[], DEADLINE)
        .await?;
    let target = target.to_str().context("a path of tests is text")?;
    let taken = job.cluster.json(&["savepoint", &job.id, target]).await?;
    let path = taken["path"].as_str().context("no path")?;
    Ok(path.into())
}

async fn rescaled(job: &RunningJob, parallelism: &str) -> anyhow::Result<()> {
    job.cluster
        .json(&["rescale", &job.id, "-p", parallelism])
        .await?;
    job.tasks_once_running().await.map(drop)
}

/// Nothing is damaged, and nothing is there that nobody needs.
async fn is_clean(job: &RunningJob) -> anyhow::Result<()> {
    let verified = job.cluster.ask(&["checkpoints", "verify", &job.id]).await?;
    ensure!(verified.code == Some(0), "{verified:?}");
    let orphans = ["checkpoints", "gc", &job.id, "--dry-run"];
    let orphans = job.cluster.json(&orphans).await?;
    ensure!(orphans["count"] == 0, "{orphans:#}");
    Ok(())
}

#[derive(Debug)]
struct Counted {
    /// Those that are retained.
    checkpoints: usize,
    found: BTreeSet<String>,
    expected: BTreeSet<String>,
}

/// The objects that are there, and those that the newest checkpoints name.
async fn counted(job: &RunningJob, root: &Path) -> anyhow::Result<Counted> {
    let found = objects(root)?;
    let listed = job.cluster.checkpoints(&job.id).await?;
    let retained = listed.iter().filter(|checkpoint| {
        checkpoint["status"] == "COMPLETED" && checkpoint["kind"] == "CHECKPOINT"
    });
    let mut expected = BTreeSet::new();
    let mut checkpoints = 0;
    for checkpoint in retained.take(RETAINED) {
        let directory = checkpoint["path"].as_str().context("no path")?;
        let object = Path::new(directory).join("_metadata");
        // It may have been retired since it was listed.
        let Ok(bytes) = std::fs::read(&object) else {
            continue;
        };
        checkpoints += 1;
        let relative = object.strip_prefix(root.canonicalize()?)?;
        expected.insert(relative.display().to_string());
        expected.extend(named_by(&bytes)?);
    }
    Ok(Counted {
        checkpoints,
        found,
        expected,
    })
}

/// Every file below a directory, relative to it.
fn objects(root: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        // It may be gone since it was listed.
        let Ok(entries) = std::fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else {
                found.insert(path.strip_prefix(root)?.display().to_string());
            }
        }
    }
    Ok(found)
}

/// The state files that a `_metadata` object names.
pub(crate) fn named_by(metadata: &[u8]) -> anyhow::Result<BTreeSet<String>> {
    // After the magic and the checksum.
    let metadata = CheckpointMetadata::decode(&metadata[12..])?;
    let states = metadata
        .vertices
        .into_iter()
        .flat_map(|vertex| vertex.subtasks);
    let files = states.flat_map(|state| state.files);
    Ok(files.map(|file| file.path).collect())
}

/// A savepoint's directory holds what its `_metadata` names, and no more.
fn is_whole(savepoint: &Path) -> anyhow::Result<()> {
    let mut expected = named_by(&std::fs::read(savepoint.join("_metadata"))?)?;
    expected.insert("_metadata".to_owned());
    let found = objects(savepoint)?;
    ensure!(found == expected, "{found:?} instead of {expected:?}");
    Ok(())
}
