//! The program `chaos`, as CI runs it: little of each kind. What cannot be run on this machine says so.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use flott_chaos_tests::report::exit_code;
use tokio::process::Command;

use crate::alone;

/// Longer than anything here takes; the test runner has a limit of its own.
const DEADLINE: Duration = Duration::from_secs(230);

/// What `chaos` said, and its exit code; `None` if it skipped everything, or if a machine that was too busy proved
/// nothing: the targets of the Makefile, which run long, count that as a failure.
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what was found, or not tried, belongs into the test's output"
)]
async fn chaos(arguments: &[&str]) -> anyhow::Result<Option<(i32, String)>> {
    let output = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, output)
        .await
        .context("chaos did not end in time")??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    println!("{said}");
    let code = output.status.code().context("chaos was killed")?;
    if code == i32::from(exit_code::SKIPPED) {
        eprintln!("NOT TESTED on this machine: chaos {arguments:?}");
        return Ok(None);
    }
    if code == i32::from(exit_code::UNKNOWN) {
        eprintln!("NOTHING SHOWN on this machine: chaos {arguments:?}");
        return Ok(None);
    }
    Ok(Some((code, said)))
}

async fn assert_holds(arguments: &[&str]) -> anyhow::Result<()> {
    if let Some((code, said)) = chaos(arguments).await? {
        assert_eq!(code, 0, "chaos {arguments:?} said\n{said}");
    }
    Ok(())
}

#[tokio::test]
async fn registers_stay_linearizable_under_kills_pauses_and_partitions() -> anyhow::Result<()> {
    let _alone = alone().await;
    // Each fourth seed has five members.
    assert_holds(&["linearizability", "--seeds", "1,2,4", "--seconds", "9"]).await
}

#[tokio::test]
async fn a_lost_leader_is_succeeded_and_loses_nothing() -> anyhow::Result<()> {
    let _alone = alone().await;
    let few = ["--kills", "3", "--transfers", "2", "--pauses", "1"];
    assert_holds(&[&["failover"], few.as_slice()].concat()).await
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_power_cuts() -> anyhow::Result<()> {
    let _alone = alone().await;
    assert_holds(&["power-loss", "--cycles", "3"]).await
}

#[tokio::test]
async fn a_power_cut_finds_writes_that_were_never_synced() -> anyhow::Result<()> {
    let _alone = alone().await;
    let arguments = ["power-loss", "--cycles", "1", "--sync", "ignored"];
    if let Some((code, said)) = chaos(&arguments).await? {
        assert_eq!(code, 1, "the fault that was planted was not found:\n{said}");
    }
    Ok(())
}
