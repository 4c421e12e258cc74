//! The program `chaos`, as CI runs it: little of each kind. What cannot be run on this machine says so.

use flott_chaos_tests::report::exit_code;

use crate::{alone, program};

/// What `chaos` said, and its exit code; `None` if it skipped everything, or if a machine that was too busy proved
/// nothing: the targets of the Makefile, which run long, count that as a failure.
#[expect(
    clippy::print_stderr,
    reason = "what was not tried belongs into the test's output"
)]
async fn chaos(arguments: &[&str]) -> anyhow::Result<Option<(i32, String)>> {
    let output = program::chaos(arguments).await?;
    let (code, said) = (program::code(&output)?, program::said(&output));
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
