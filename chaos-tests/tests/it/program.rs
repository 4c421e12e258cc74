//! The program `chaos`, started as a user does.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use flott_chaos_tests::report::exit_code;
use serde_json::Value;
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

/// What it said with its files in that directory, and its exit code.
pub(crate) async fn chaos_in(
    directory: &Path,
    arguments: &[&str],
) -> anyhow::Result<(i32, String)> {
    let mut all = vec![OsStr::new("--directory"), directory.as_os_str()];
    all.extend(arguments.iter().map(OsStr::new));
    let output = chaos(&all).await?;
    Ok((code(&output)?, said(&output)))
}

/// A shell script that can be run.
pub(crate) fn executable(file: &Path, script: &str) -> anyhow::Result<()> {
    fs::write(file, format!("#!/bin/sh\n{script}\n"))?;
    Ok(fs::set_permissions(file, Permissions::from_mode(0o755))?)
}

/// A file of JSON.
pub(crate) fn read(file: &Path) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&fs::read_to_string(file)?)?)
}

/// The report of a run in which nothing was violated. A machine that is too busy proves nothing; what it must never do is to
/// violate.
pub(crate) fn report_without_violation(run: &Path, code: i32, said: &str) -> anyhow::Result<Value> {
    let report = read(&run.join("report.json"))?;
    ensure!([0, i32::from(exit_code::UNKNOWN)].contains(&code), "{said}");
    ensure!(
        report["violations"].as_array().is_some_and(Vec::is_empty),
        "{report:#}"
    );
    Ok(report)
}
