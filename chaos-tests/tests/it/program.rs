//! The program `chaos`, started as a user does.

use std::ffi::OsStr;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::Context;
use tokio::process::Command;

/// Longer than anything takes here; the test runner has a limit of its own.
const DEADLINE: Duration = Duration::from_secs(230);

/// Runs it to its end, and repeats what it said.
#[expect(
    clippy::print_stdout,
    reason = "what was found belongs into the test's output"
)]
pub(crate) async fn chaos(arguments: &[impl AsRef<OsStr>]) -> anyhow::Result<Output> {
    let output = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, output)
        .await
        .context("chaos did not end in time")??;
    println!("{}", said(&output));
    Ok(output)
}

/// All that it said.
pub(crate) fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Its exit code; an error if it was killed.
pub(crate) fn code(output: &Output) -> anyhow::Result<i32> {
    output.status.code().context("chaos was killed")
}
