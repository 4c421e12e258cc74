//! `chaos run --target netns`: the same cluster with a network of its own, where frames are lost. Needs root; without it
//! each of these says loudly that it has tested nothing.

use std::process::Stdio;

use anyhow::{Context, ensure};
use flott_chaos_tests::campaign::undo::pending;
use flott_chaos_tests::runs::until;
use flott_chaos_tests::target::netns::{missing, names};
use flott_node::SystemClock;
use tokio::process::Command;

use crate::alone;
use crate::job::DEADLINE;
use crate::program::{chaos_in, read, report_without_violation};

/// Whether this machine can do it; says so if it cannot.
#[expect(clippy::print_stdout, reason = "a test that is skipped must say so")]
async fn is_possible() -> bool {
    let missing = missing().await;
    if let Some(missing) = &missing {
        println!("SKIPPED, nothing was tested: {missing}");
    }
    missing.is_none()
}

#[tokio::test]
async fn all_workloads_hold_while_frames_are_lost_and_the_cluster_is_split() -> anyhow::Result<()> {
    let _alone = alone().await;
    if !is_possible().await {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let run = directory.path().join("seed-3");
    let options = "run --target netns --seed 3 --minutes 0.5 --faults kill,loss,duplicate,reorder,split,bridge,reset \
                   --rate 2000 --workloads seq,register,jobs --keep";
    let options: Vec<&str> = options.split_whitespace().collect();
    let (code, said) = chaos_in(directory.path(), &options).await?;
    let report = report_without_violation(&run, code, &said)?;
    ensure!(report["place"] == "netns", "{report:#}");
    ensure!(
        report["records_verified"].as_u64() > Some(1_000),
        "{report:#}"
    );
    ensure!(said.contains(" target=netns "), "{said}");
    let plan = read(&run.join("plan.json"))?;
    ensure!(plan["target"] == "netns", "{plan:#}");
    // Everything was begun and ended, the namespaces too.
    let journal = run.join("undo.jsonl");
    let left = pending(&journal)?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

#[tokio::test]
async fn a_harness_that_dies_leaves_no_namespaces() -> anyhow::Result<()> {
    let _alone = alone().await;
    if !is_possible().await {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let options = "run --target netns --seed 1 --minutes 2 --faults split --rate 1000";
    let mut harness = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .arg("--directory")
        .arg(directory.path())
        .args(options.split_whitespace())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let pid = harness.id().context("it has just been started")?;
    let clock = SystemClock::shared();
    until(&clock, DEADLINE, async || match names::left_by(pid) {
        Ok(left) if left.len() >= 3 => Ok(()),
        other => Err(format!("no namespaces of its own: {other:?}")),
    })
    .await?;
    harness.kill().await?;
    // By the watchdog: nothing is left to do by hand.
    let journal = directory.path().join("seed-1/undo.jsonl");
    until(&clock, DEADLINE, async || {
        match (names::left_by(pid), pending(&journal)) {
            (Ok(names), Ok(undos)) if names.is_empty() && undos.is_empty() => Ok(()),
            left => Err(format!("something is left: {left:?}")),
        }
    })
    .await
}
