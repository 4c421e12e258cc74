//! Pinned plans of `chaos run`: what the field has suffered from, and what this suite found. Each must hold, not merely fail to
//! be violated: a scenario whose faults did not happen has shown nothing. Only a machine without time excuses it.

use std::ffi::OsStr;
use std::path::PathBuf;

use anyhow::ensure;
use flott_chaos_tests::report::exit_code;

use crate::{alone, program};

#[expect(
    clippy::print_stderr,
    reason = "what was not shown belongs into the test's output"
)]
async fn holds(name: &str) -> anyhow::Result<()> {
    let _alone = alone().await;
    let plan = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("scenarios")
        .join(name);
    let directory = tempfile::tempdir()?;
    let output = program::chaos(&[
        OsStr::new("--directory"),
        directory.path().as_os_str(),
        OsStr::new("replay"),
        plan.as_os_str(),
    ])
    .await?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let too_busy =
        output.status.code() == Some(i32::from(exit_code::UNKNOWN)) && said.contains("too busy");
    if too_busy {
        eprintln!("NOTHING SHOWN on this machine, which had no time: {name}");
    }
    ensure!(output.status.success() || too_busy, "{said}");
    Ok(())
}

/// FLINK-18677, LaminarDB 4: tasks of a TaskManager that was taken for dead go on in vain.
#[tokio::test]
async fn a_taskmanager_that_was_taken_for_dead_commits_nothing_when_it_wakes() -> anyhow::Result<()>
{
    holds("zombie-taskmanager.json").await
}

/// FLINK-10052: contact to the leader that is lost and comes back is no reason to lose anything.
#[tokio::test]
async fn a_leader_that_comes_and_goes_loses_nothing() -> anyhow::Result<()> {
    holds("flapping-leader.json").await
}

/// FLINK-10011, FLINK-39704: a job that has ended is not revived by a change of leader.
#[tokio::test]
async fn jobs_that_end_while_leaders_change_stay_ended() -> anyhow::Result<()> {
    holds("leaders-change-while-jobs-end.json").await
}

/// LaminarDB 1, 2 and 5: checkpoints go on although the set of workers never settles.
#[tokio::test]
async fn workers_that_die_again_and_again_lose_and_repeat_nothing() -> anyhow::Result<()> {
    holds("workers-never-settle.json").await
}
