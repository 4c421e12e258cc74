//! Whoever dies, the result is exact; and the death of a JobManager restarts no task.

use flott_chaos_tests::cluster::processes::{is_alive, kill};

use crate::alone;
use crate::job::{DEADLINE, RunningJob, all_running, start_cluster};

#[tokio::test]
async fn the_leaders_death_restarts_no_task() -> anyhow::Result<()> {
    let _alone = alone().await;
    let job = RunningJob::paced(&[]).await?;
    let leader = job.cluster.leader(DEADLINE).await?;
    job.runs_on_without(std::slice::from_ref(&leader)).await?;
    let status = || job.cluster.json(&["cluster", "status"]);
    let led_by_another =
        |status: &serde_json::Value| status["leader"].is_u64() && status["leader"] != leader.id;
    job.cluster
        .until("another leader", DEADLINE, status, led_by_another)
        .await?;
    assert!(
        !is_alive(leader.pid),
        "without --respawn nobody starts it again"
    );

    let ended = job.finishes_exactly().await?;
    assert_eq!(ended["restarts"].as_u64(), Some(0), "{ended:#}");
    Ok(())
}

#[tokio::test]
async fn a_killed_taskmanager_is_replaced_and_the_result_is_exact() -> anyhow::Result<()> {
    let _alone = alone().await;
    let job = RunningJob::paced(&["--respawn"]).await?;
    let before = job.tasks_once_running().await?;
    kill(job.cluster.members()?.taskmanagers[0].pid)?;
    let restarted = |info: &serde_json::Value| {
        info["attempt"].as_u64() > Some(before.attempt) && all_running(info)
    };
    job.cluster
        .until(
            "a new attempt to run",
            DEADLINE,
            || job.cluster.info(&job.id),
            restarted,
        )
        .await?;
    let ended = job.finishes_exactly().await?;
    assert_eq!(ended["restarts"].as_u64(), Some(1), "{ended:#}");
    Ok(())
}

#[tokio::test]
async fn all_jobmanagers_may_die_at_once_and_the_job_is_adopted() -> anyhow::Result<()> {
    let _alone = alone().await;
    let job = RunningJob::paced(&["--respawn"]).await?;
    let killed = job.cluster.members()?.jobmanagers;
    job.runs_on_without(&killed).await?;
    let now = job.cluster.members()?.jobmanagers;
    for (killed, now) in killed.iter().zip(&now) {
        assert!(
            killed.pid != now.pid && killed.address == now.address,
            "{killed:?} and {now:?}"
        );
    }
    let ended = job.finishes_exactly().await?;
    assert_eq!(ended["restarts"].as_u64(), Some(0), "{ended:#}");
    Ok(())
}

#[tokio::test]
async fn everything_may_die_and_the_job_resumes_from_its_last_checkpoint() -> anyhow::Result<()> {
    let _alone = alone().await;
    let mut job = RunningJob::paced(&[]).await?;
    let committed = job.committed_so_far()?;
    let status = job.cluster.json(&["cluster", "status"]).await?;
    job.cluster.kill_everything().await?;

    job.cluster = start_cluster(job.directory.path(), &[]).await?;
    let again = job.cluster.json(&["cluster", "status"]).await?;
    assert_eq!(
        again["cluster_id"], status["cluster_id"],
        "the same cluster"
    );
    let now = job.committed_so_far()?;
    assert!(
        now.len() >= committed.len(),
        "what was visible stays visible"
    );

    let ended = job.finishes_exactly().await?;
    assert!(ended["attempt"].as_u64() > Some(1), "{ended:#}");
    Ok(())
}
