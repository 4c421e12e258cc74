//! `chaos run --target netns`: the same cluster with a network of its own, where frames are lost. Needs root; without it
//! each of these says loudly that it has tested nothing.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use flott_chaos_tests::campaign::undo::pending;
use flott_chaos_tests::report::exit_code;
use flott_chaos_tests::target::netns::{missing, names};
use serde_json::Value;
use tokio::process::Command;

use crate::job::DEADLINE;
use crate::{alone, program};

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
    let arguments = [
        OsStr::new("--directory"),
        directory.path().as_os_str(),
        OsStr::new("run"),
    ];
    let options = "--target netns --seed 3 --minutes 0.5 --faults kill,loss,duplicate,reorder,split,bridge,reset \
                   --rate 2000 --workloads seq,register,jobs --keep";
    let options = options.split_whitespace().map(OsStr::new);
    let output = program::chaos(&arguments.into_iter().chain(options).collect::<Vec<_>>()).await?;
    let (code, said) = (program::code(&output)?, program::said(&output));
    let report: Value = read(&run.join("report.json"))?;
    // A machine that is too busy proves nothing; what it must never do is to violate.
    ensure!([0, i32::from(exit_code::UNKNOWN)].contains(&code), "{said}");
    ensure!(
        report["violations"].as_array().is_some_and(Vec::is_empty),
        "{report:#}"
    );
    ensure!(report["place"] == "netns", "{report:#}");
    ensure!(
        report["records_verified"].as_u64() > Some(1_000),
        "{report:#}"
    );
    ensure!(said.contains(" target=netns "), "{said}");
    let plan: Value = read(&run.join("plan.json"))?;
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
    until("namespaces of its own", || {
        Ok(names::left_by(pid)?.len() >= 3)
    })
    .await?;
    harness.kill().await?;
    // By the watchdog: nothing is left to do by hand.
    let journal = directory.path().join("seed-1/undo.jsonl");
    until("nothing to be left", || {
        Ok(names::left_by(pid)?.is_empty() && pending(&journal)?.is_empty())
    })
    .await
}

async fn until(what: &str, mut holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let clock = flott_node::SystemClock::shared();
    let end = clock.monotonic() + DEADLINE;
    while !holds()? {
        ensure!(clock.monotonic() < end, "waited in vain for {what}");
        clock.sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&std::fs::read_to_string(file)?)?)
}
