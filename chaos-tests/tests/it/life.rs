//! A job from submission to its committed result, without any fault.

use flott_chaos_tests::cluster::processes::is_alive;
use serde_json::Value;

use crate::alone;
use crate::job::{DEADLINE, RunningJob};

#[tokio::test]
async fn a_job_finishes_with_the_right_result_and_the_cluster_stops_in_order() -> anyhow::Result<()>
{
    let _alone = alone().await;
    let job = RunningJob::submit(3_000, 0, &[]).await?;
    let ended = job.finishes_exactly().await?;
    assert_eq!(
        (ended["attempt"].as_u64(), ended["restarts"].as_u64()),
        (Some(1), Some(0)),
        "{ended:#}"
    );

    let status = job.cluster.json(&["cluster", "status"]).await?;
    assert_eq!(
        status["members"].as_array().map(Vec::len),
        Some(3),
        "{status:#}"
    );
    let slots_free = |status: &Value| -> u64 {
        status["taskmanagers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|member| member["slots_free"].as_u64())
            .sum()
    };
    let status = || job.cluster.json(&["cluster", "status"]);
    job.cluster
        .until("all slots to be free again", DEADLINE, status, |status| {
            slots_free(status) == 4
        })
        .await?;
    let listed = job.cluster.json(&["list"]).await?;
    assert!(listed.to_string().contains(&job.id), "{listed:#}");

    let members = job.cluster.members()?;
    job.cluster.stop(DEADLINE).await?;
    for member in members.jobmanagers.iter().chain(&members.taskmanagers) {
        assert!(!is_alive(member.pid), "{member:?} outlived `flott local`");
    }
    Ok(())
}

#[tokio::test]
async fn a_canceled_job_stays_canceled_and_what_it_committed_is_right() -> anyhow::Result<()> {
    let _alone = alone().await;
    let job = RunningJob::paced(&[]).await?;
    let answer = job.cluster.ask(&["cancel", &job.id]).await?;
    assert_eq!(answer.code, Some(0), "{answer:?}");
    job.cluster
        .until_state(&job.id, "CANCELED", DEADLINE)
        .await?;
    let committed = job.committed_so_far()?;
    assert!(
        committed.len() < job.expected.len(),
        "the job was canceled half-way"
    );
    Ok(())
}
