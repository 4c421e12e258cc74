//! A process is killed at every step of a checkpoint: of its snapshot, upload, completion, of making rows visible, and of
//! deleting what it replaces. The result is exact, nothing that is needed is lost, and nothing else stays after a clean-up.

use std::path::Path;

use anyhow::{Context, ensure};
use flott_chaos_tests::cluster::processes::is_alive;
use flott_node::Failpoint;

use crate::alone;
use crate::job::{DEADLINE, RunningJob};

#[tokio::test]
async fn a_taskmanager_may_die_at_every_step_of_a_checkpoint() -> anyhow::Result<()> {
    let _alone = alone().await;
    survives_death_at_each_of(&Failpoint::OF_TASK_MANAGERS).await
}

#[tokio::test]
async fn the_leader_may_die_at_every_step_of_a_checkpoint() -> anyhow::Result<()> {
    let _alone = alone().await;
    survives_death_at_each_of(&Failpoint::OF_THE_LEADER).await
}

/// A point that nobody comes by fails the test.
async fn survives_death_at_each_of(points: &[Failpoint]) -> anyhow::Result<()> {
    let backoff = "restart-strategy.exponential-delay.max-backoff=100ms";
    let job = RunningJob::steady(&["--respawn", "-D", backoff]).await?;
    let cluster = &job.cluster;
    for point in points {
        let members = cluster.members()?;
        let known = cluster.checkpoints(&job.id).await?;
        let dead = cluster.until_death_at(*point, DEADLINE).await?;
        let members = members.jobmanagers.iter().chain(&members.taskmanagers);
        let mut pids = members.map(|member| member.pid);
        ensure!(pids.any(|pid| pid == dead), "{point:?} killed {dead}");
        // It is started again, without the point; and the job goes on.
        let present = || async {
            let members = cluster.members()?;
            let members = members.jobmanagers.iter().chain(&members.taskmanagers);
            Ok(members.map(|member| member.pid).collect::<Vec<_>>())
        };
        let all_live = |pids: &Vec<i32>| pids.iter().all(|pid| is_alive(*pid));
        cluster
            .until("all processes again", DEADLINE, present, all_live)
            .await?;
        cluster
            .until_checkpoints(&job.id, 2, &known, DEADLINE)
            .await
            .with_context(|| format!("after the death at {point:?}"))?;
        job.committed_so_far()
            .with_context(|| format!("after the death at {point:?}"))?;
    }
    let verified = cluster.ask(&["checkpoints", "verify", &job.id]).await?;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    job.finishes_exactly().await?;
    leaves_nothing_behind(&job).await
}

/// What the dead had written and nobody needs is found, and then the job's directory is gone.
async fn leaves_nothing_behind(job: &RunningJob) -> anyhow::Result<()> {
    job.collects_all_orphans().await?;
    // What was retired last is deleted by the leader, in its own time.
    let storage = job.cluster.directory().join("checkpoints");
    let files = || async { files_below(&storage) };
    job.cluster
        .until("the last file to go", DEADLINE, files, Vec::is_empty)
        .await?;
    Ok(())
}

fn files_below(directory: &Path) -> anyhow::Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path.display().to_string());
        }
    }
    Ok(files)
}
