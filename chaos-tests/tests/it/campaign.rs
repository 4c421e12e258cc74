//! `chaos run` as a user starts it, shortly: it holds, it observes without breaking, it says *unknown* where nothing was
//! shown, and what it leaves can be judged again.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use flott_chaos_tests::cluster::Cluster;
use flott_chaos_tests::cluster::processes::is_alive;
use flott_chaos_tests::report::exit_code;
use serde_json::Value;
use tokio::process::Command;

use crate::alone;
use crate::job::DEADLINE;
use crate::program::{chaos_in as chaos, executable, report_without_violation};

/// Judged again, what a run has left holds.
async fn judge_again(directory: &Path, run: &Path) -> anyhow::Result<()> {
    let (code, said) = chaos(directory, &["check", run.to_str().context("text")?]).await?;
    ensure!(code == 0, "judged again: {said}");
    Ok(())
}

#[tokio::test]
async fn all_workloads_hold_under_kills_pauses_and_cuts_of_everybody() -> anyhow::Result<()> {
    let _alone = alone().await;
    let directory = tempfile::tempdir()?;
    let faults = "kill,pause,isolate,transfer,rescale";
    let arguments = [
        "run",
        "--seed",
        "7",
        "--minutes",
        "0.5",
        "--faults",
        faults,
        "--rate",
        "2000",
        "--keep",
    ];
    let (code, said) = chaos(
        directory.path(),
        &[&arguments[..], &["--workloads", "seq,register,jobs"]].concat(),
    )
    .await?;
    let run = directory.path().join("seed-7");
    let report = report_without_violation(&run, code, &said)?;
    ensure!(
        report["records_verified"].as_u64() > Some(1_000),
        "{report:#}"
    );
    let (first, last) = (
        said.lines().next(),
        said.lines().find(|line| line.ends_with(": held")),
    );
    ensure!(
        first.is_some_and(|line| line.starts_with("CHAOS seed=7 plan=")),
        "{said}"
    );
    ensure!(code != 0 || last.is_some(), "{said}");

    judge_again(directory.path(), &run).await?;
    let (code, said) = chaos(directory.path(), &["report", run.to_str().context("text")?]).await?;
    ensure!(code == 0 && said.contains("| kill |"), "{said}");

    let page = std::fs::read_to_string(run.join("timeline.html"))?;
    for lane in [
        "jobmanager-3",
        "taskmanager-1",
        "kill (",
        "rescale (",
        "sequence job (",
    ] {
        ensure!(page.contains(lane), "{lane} is not on the page");
    }
    let (code, said) = chaos(
        directory.path(),
        &["timeline", run.to_str().context("text")?],
    )
    .await?;
    ensure!(code == 0 && said.contains("timeline.html"), "{said}");
    ensure!(std::fs::read_to_string(run.join("timeline.html"))? == page);

    // A row of the first window that vanishes from the output afterwards is missed.
    let files = std::fs::read_dir(run.join("out"))?;
    let mut files = files.flatten().filter_map(|file| {
        let text = std::fs::read_to_string(file.path()).ok()?;
        text.starts_with("1970-01-01 00:00:00,")
            .then_some((file.path(), text))
    });
    let (file, text) = files.next().context("no output of the first window")?;
    let (line, rest) = text.split_once('\n').context("no lines")?;
    std::fs::write(&file, rest)?;
    let (code, said) = chaos(directory.path(), &["check", run.to_str().context("text")?]).await?;
    ensure!(
        code == 1 && !said.contains(" 0 lost"),
        "{line} is gone: {said}"
    );
    Ok(())
}

#[tokio::test]
async fn an_abusive_namespace_is_held_to_its_quota_and_changes_nothing_of_another()
-> anyhow::Result<()> {
    let _alone = alone().await;
    let directory = tempfile::tempdir()?;
    let arguments = [
        "run",
        "--seed",
        "5",
        "--minutes",
        "0.6",
        "--faults",
        "kill",
        "--workloads",
        "tenants",
        "--keep",
    ];
    let (code, said) = chaos(directory.path(), &arguments).await?;
    let run = directory.path().join("seed-5");
    let report = report_without_violation(&run, code, &said)?;
    ensure!(report["tenants"]["noise"].as_u64() > Some(0), "{report:#}");
    judge_again(directory.path(), &run).await?;
    Ok(())
}

/// A plan with these steps, four seconds each and two apart: kind, whom, amount.
pub(crate) fn with_steps(dry: &str, steps: &[(&str, &str, u64)]) -> anyhow::Result<Value> {
    let mut plan: Value = serde_json::from_str(dry)?;
    let steps = (0..).zip(steps).map(|(number, (kind, whom, amount))| {
        let whom = match *whom {
            "worker" => serde_json::json!({ "worker": 0 }),
            whom => whom.into(),
        };
        let at_ms = 500 + 6_000 * number;
        serde_json::json!({ "at_ms": at_ms, "lasts_ms": 4_000, "kind": kind, "whom": whom, "amount": amount })
    });
    plan["steps"] = steps.collect();
    Ok(plan)
}

#[tokio::test]
async fn accounts_hold_while_disks_fail_and_clocks_jump_and_jobmanagers_end_by_it()
-> anyhow::Result<()> {
    let _alone = alone().await;
    let directory = tempfile::tempdir()?;
    let arguments = [
        "run",
        "--seed",
        "9",
        "--minutes",
        "0.1",
        "--faults",
        "sync-error",
        "--rate",
        "1000",
    ];
    let dry = ["--workloads", "seq,bank", "--dry-run"];
    let (code, said) = chaos(directory.path(), &[&arguments[..], &dry].concat()).await?;
    ensure!(code == 0, "{said}");
    let plan = with_steps(
        &said,
        &[
            ("sync-error", "leader", 0),
            ("clock-ahead", "leader", 3_600_000),
            ("disk-hung", "leader", 0),
            ("disk-full", "worker", 0),
            ("clock-back", "everybody", 60_000),
            ("memory", "everybody", 1),
        ],
    )?;
    let file = directory.path().join("machine.json");
    std::fs::write(&file, plan.to_string())?;
    let file = file.to_str().context("text")?;
    let (code, said) = chaos(directory.path(), &["replay", file, "--keep"]).await?;
    let run = directory.path().join("replay");
    let report = report_without_violation(&run, code, &said)?;
    ensure!(report["bank"]["done"].as_u64() > Some(0), "{report:#}");
    // Whose sync fails ends, and nobody minds.
    ensure!(said.contains("ended by it: jobmanager-"), "{said}");
    judge_again(directory.path(), &run).await?;

    // Without the library nothing is shown, and it is said why.
    let nowhere = ["--preload", "/nowhere/lib.so"];
    let without = directory.path().join("without");
    let arguments = [&arguments[..], &nowhere].concat();
    let (code, said) = chaos(&without, &arguments).await?;
    ensure!(code == i32::from(exit_code::UNKNOWN), "{code}: {said}");
    for words in ["SKIPPED", nowhere[1], "cargo build", "never installed"] {
        ensure!(said.contains(words), "{words}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn processes_are_upgraded_one_after_the_other_while_the_leader_is_killed()
-> anyhow::Result<()> {
    let _alone = alone().await;
    let directory = tempfile::tempdir()?;
    let other = directory.path().join("other-build");
    let flott = flott_chaos_tests::cluster::flott_binary()?;
    let script = format!(
        "[ \"$1\" = --version ] || echo the other build\nexec '{}' \"$@\"",
        flott.display()
    );
    executable(&other, &script)?;
    let upgrade_to = ["--upgrade-to", other.to_str().context("text")?];

    let arguments = [
        "run",
        "--seed",
        "4",
        "--minutes",
        "0.1",
        "--faults",
        "kill",
        "--rate",
        "1000",
        "--workloads",
        "seq,register",
        "--dry-run",
    ];
    let nowhere = ["run", "--faults", "kill,upgrade", "--dry-run"];
    let (code, said) = chaos(directory.path(), &nowhere).await?;
    ensure!(code != 0 && said.contains("--upgrade-to"), "{said}");
    let (code, said) = chaos(directory.path(), &[&arguments[..], &upgrade_to].concat()).await?;
    ensure!(code == 0 && said.contains("\"upgrade\""), "{said}");
    let mut plan = with_steps(
        &said,
        &[
            ("upgrade", "nobody", 2),
            ("kill", "leader", 0),
            ("upgrade", "nobody", 0),
        ],
    )?;
    for step in plan["steps"].as_array_mut().context("steps")? {
        if step["kind"] == "upgrade" {
            step["lasts_ms"] = 90_000.into();
        }
    }
    let file = directory.path().join("upgrade.json");
    std::fs::write(&file, plan.to_string())?;
    let replay = ["replay", file.to_str().context("text")?, "--keep"];
    let (code, said) = chaos(directory.path(), &[&replay[..], &upgrade_to].concat()).await?;
    let run = directory.path().join("replay");
    report_without_violation(&run, code, &said)?;
    ensure!(said.contains("upgraded to flott"), "{said}");
    for log in std::fs::read_dir(run.join("cluster"))?.flatten() {
        if log.path().extension().is_some_and(|kind| kind == "log") {
            let text = std::fs::read_to_string(log.path())?;
            ensure!(text.contains("the other build"), "{log:?}: {text}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_cluster_of_somebody_else_is_observed_and_nothing_is_broken() -> anyhow::Result<()> {
    let _alone = alone().await;
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(
        &directory.path().join("cluster"),
        &[
            "--slots",
            "4",
            "-D",
            "execution.checkpointing.interval=500ms",
        ],
    )
    .await?;
    let addresses = cluster.addresses()?;
    let members = |cluster: &Cluster| -> anyhow::Result<Vec<i32>> {
        let members = cluster.members()?;
        Ok(members
            .jobmanagers
            .iter()
            .chain(&members.taskmanagers)
            .map(|member| member.pid)
            .collect())
    };
    let before = members(&cluster)?;
    let observe = [
        "run",
        "--observe-only",
        "--minutes",
        "0.2",
        "--rate",
        "2000",
        "-m",
        &addresses,
    ];
    let (code, said) = chaos(&directory.path().join("chaos"), &observe).await?;
    ensure!(code == 0, "{said}");
    ensure!(said.contains("nothing is broken"), "{said}");
    ensure!(members(&cluster)? == before && before.iter().all(|pid| is_alive(*pid)));
    cluster.stop(DEADLINE).await
}

#[tokio::test]
async fn a_fault_that_never_happened_is_not_taken_for_one_that_was_survived() -> anyhow::Result<()>
{
    let _alone = alone().await;
    let directory = tempfile::tempdir()?;
    let arguments = [
        "run",
        "--seed",
        "3",
        "--minutes",
        "0.1",
        "--faults",
        "store-outage",
        "--rate",
        "1000",
        "--dry-run",
    ];
    let (code, said) = chaos(directory.path(), &arguments).await?;
    if code != 0 {
        // Built without the object store, it refuses to plan faults of one.
        ensure!(said.contains("object-store"), "{said}");
    }
    // A rescale to more tasks than there are slots is refused: planned, and never installed.
    let arguments = [
        "run",
        "--seed",
        "3",
        "--minutes",
        "0.05",
        "--faults",
        "rescale",
        "--rate",
        "1000",
        "--dry-run",
    ];
    let (code, said) = chaos(directory.path(), &arguments).await?;
    ensure!(code == 0, "{said}");
    let mut plan: Value = serde_json::from_str(&said)?;
    for step in plan["steps"].as_array_mut().context("steps")? {
        step["amount"] = 127.into();
    }
    let file = directory.path().join("impossible.json");
    std::fs::write(&file, plan.to_string())?;
    let (code, said) = chaos(
        directory.path(),
        &["replay", file.to_str().context("text")?],
    )
    .await?;
    ensure!(code == i32::from(exit_code::UNKNOWN), "{code}: {said}");
    ensure!(said.contains("never installed"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_process_that_was_stopped_is_woken_when_the_harness_dies() -> anyhow::Result<()> {
    let _alone = alone().await;
    let directory = tempfile::tempdir()?;
    let arguments = [
        "run",
        "--seed",
        "1",
        "--minutes",
        "2",
        "--faults",
        "pause",
        "--rate",
        "1000",
    ];
    let mut harness = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .arg("--directory")
        .arg(directory.path())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let clock = flott_node::SystemClock::shared();
    let until = async |what: &str, mut holds: Box<dyn FnMut() -> bool>| {
        let end = clock.monotonic() + DEADLINE;
        while !holds() {
            ensure!(clock.monotonic() < end, "waited in vain for {what}");
            clock.sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    let journal = directory.path().join("seed-1/undo.jsonl");
    let written = journal.clone();
    let stopped = move || -> Option<i32> {
        let text = std::fs::read_to_string(&written).ok()?;
        let begun: Value = serde_json::from_str(text.lines().next()?).ok()?;
        let pid = i32::try_from(begun["begun"]["undo"]["wake"]["pid"].as_i64()?).ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?
            .1
            .trim_start()
            .starts_with('T')
            .then_some(pid)
    };
    let found = stopped.clone();
    until(
        "a process to be stopped",
        Box::new(move || found().is_some()),
    )
    .await?;
    let pid = stopped().context("it was woken at once")?;
    harness.kill().await?;
    // Woken, it notices that its parent is gone, and ends.
    until(
        "the stopped process to end",
        Box::new(move || !is_alive(pid)),
    )
    .await
}
