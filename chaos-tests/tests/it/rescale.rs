//! A running job changes its parallelism: nothing is lost or duplicated, whoever dies meanwhile.

use anyhow::Context;
use flott_chaos_tests::cluster::processes::kill;

use crate::alone;
use crate::job::{DEADLINE, RunningJob, all_running};

/// Two TaskManagers with as many slots each as the largest parallelism here.
const SLOTS: [&str; 2] = ["--slots", "6"];

/// Rows, and how many a second: long enough for four changes.
const PACED: (u64, u64) = (20_000, 1_000);

async fn rescaled(job: &RunningJob, parallelism: usize) -> anyhow::Result<()> {
    let wanted = parallelism.to_string();
    let cluster = &job.cluster;
    let answer = cluster.json(&["rescale", &job.id, "-p", &wanted]).await?;
    assert_eq!(answer["parallelism"], parallelism, "{answer:#}");
    runs_at(job, parallelism).await
}

/// Every vertex has that many tasks, which run and take a checkpoint.
async fn runs_at(job: &RunningJob, parallelism: usize) -> anyhow::Result<()> {
    let info = || job.cluster.info(&job.id);
    let info = job
        .cluster
        .until("tasks", DEADLINE, info, all_running)
        .await?;
    for vertex in info["vertices"].as_array().context("no vertices")? {
        let tasks = vertex["tasks"].as_array().map(Vec::len);
        assert_eq!(tasks, Some(parallelism), "{vertex:#}");
    }
    let known = job.cluster.checkpoints(&job.id).await?;
    job.cluster
        .until_checkpoints(&job.id, 1, &known, DEADLINE)
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_job_runs_at_one_parallelism_after_another_and_its_result_is_exact() -> anyhow::Result<()>
{
    let _alone = alone().await;
    let (rows, pace) = PACED;
    let job = RunningJob::submit(rows, pace, &[&SLOTS[..], &["--respawn"]].concat()).await?;
    let cluster = &job.cluster;
    cluster.until_checkpoints(&job.id, 2, &[], DEADLINE).await?;
    rescaled(&job, 2).await?;
    rescaled(&job, 6).await?;

    // The leader dies while the change is under way: whoever follows carries it out, and the client hears of it.
    let leader = cluster.leader(DEADLINE).await?;
    let (answer, killed) = tokio::join!(rescaled(&job, 3), async { kill(leader.pid) });
    killed?;
    answer?;

    // So does a TaskManager: the attempt that follows has the new parallelism.
    let lost = cluster.members()?.taskmanagers.remove(0);
    let (answer, killed) = tokio::join!(rescaled(&job, 5), async { kill(lost.pid) });
    killed?;
    answer?;

    for (wanted, why) in [("129", "allows 1 to 128"), ("13", "can get 12")] {
        let refused = cluster.ask(&["rescale", &job.id, "-p", wanted]).await?;
        assert_ne!(refused.code, Some(0), "{refused:?}");
        assert!(refused.stderr.contains(why), "{refused:?}");
    }
    let events = cluster.info(&job.id).await?;
    let events = events["events"].as_array().context("no events")?;
    let rescaled = events.iter().filter(|event| event["event"] == "RESCALED");
    assert_eq!(rescaled.count(), 4, "{events:#?}");
    let verified = cluster.ask(&["checkpoints", "verify", &job.id]).await?;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    job.finishes_exactly().await?;
    Ok(())
}
