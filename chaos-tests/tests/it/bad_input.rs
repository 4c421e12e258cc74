//! What a user or a machine gets wrong: refused or survived, and said in words that name the place.

use std::path::Path;

use flott_chaos_tests::cluster::{Answer, flott, flott_binary};
use flott_chaos_tests::workload::flights::{self, Flights};
use serde_json::Value;

use crate::alone;
use crate::job::{DEADLINE, RunningJob, start_cluster};

/// Refused or failed with exit code 1, and with each of `words` in what was printed.
fn assert_refused(answer: &Answer, words: &[&str]) {
    assert_eq!(answer.code, Some(1), "{answer:?}");
    for word in words {
        let told = answer.stderr.contains(word) || answer.stdout.contains(word);
        assert!(told, "{word:?} is not in {answer:?}");
    }
}

#[tokio::test]
async fn a_wrong_job_is_refused_or_fails_with_the_place_named() -> anyhow::Result<()> {
    let _alone = alone().await;
    let directory = tempfile::tempdir()?;
    let cluster = start_cluster(directory.path(), &[]).await?;
    let (input, output) = (
        directory.path().join("flights.csv"),
        directory.path().join("out"),
    );
    Flights::new(100).write_csv(&input)?;
    let run = async |name: &str, sql: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, sql)?;
        cluster
            .ask(&[Path::new("run"), Path::new("-f"), &file])
            .await
    };

    let good = flights::sql(&input, &output, 0);
    let answer = run(
        "column.sql",
        &good.replace("SUM(dep_delay)", "SUM(dep_dealy)"),
    )
    .await?;
    assert_refused(&answer, &["dep_dealy"]);
    let answer = run(
        "type.sql",
        &good.replace("delay_minutes BIGINT", "delay_minutes TIMESTAMP(3)"),
    )
    .await?;
    assert_refused(&answer, &["delay_minutes"]);
    let answer = run("statement.sql", "DELETE FROM flights;").await?;
    assert_refused(&answer, &["DELETE"]);

    let missing = directory.path().join("nowhere.csv");
    let answer = run("missing.sql", &flights::sql(&missing, &output, 0)).await?;
    assert_refused(&answer, &["nowhere.csv"]);

    let mut rows = std::fs::read_to_string(&input)?;
    rows.push_str("2013-01-09T07:00:00,AA,not-a-number,JFK,3\n");
    let malformed = directory.path().join("malformed.csv");
    std::fs::write(&malformed, rows)?;
    let answer = run("malformed.sql", &flights::sql(&malformed, &output, 0)).await?;
    assert_refused(&answer, &["malformed.csv:102"]);

    let skipped = directory.path().join("skipped");
    let forgiving = flights::sql(&malformed, &skipped, 0).replacen(
        "'csv.header' = 'true'",
        "'csv.header' = 'true', 'csv.ignore-parse-errors' = 'true'",
        1,
    );
    let answer = run("forgiving.sql", &forgiving).await?;
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let committed = flott_chaos_tests::invariants::committed::Results::committed(&skipped)?;
    committed.check_exactly(&Flights::new(100).expected())?;

    let answer = cluster.ask(&["run", "-f", "no-such-file.sql"]).await?;
    assert_refused(&answer, &["no-such-file.sql"]);
    let answer = cluster
        .ask(&["info", "00000000000000000000000000000000"])
        .await?;
    assert_eq!(answer.code, Some(1), "{answer:?}");
    let answer = cluster.ask(&["frobnicate"]).await?;
    assert_eq!(answer.code, Some(2), "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn a_job_without_free_slots_waits_visibly_and_starts_when_there_are_some()
-> anyhow::Result<()> {
    let _alone = alone().await;
    let waiting = RunningJob::submit(2_000, 0, &["--taskmanagers", "1"]).await?;
    // Parallelism 4 on two slots: named as a matter of slots.
    let told = async || waiting.cluster.ask(&["info", &waiting.id]).await;
    let named = |answer: &Answer| answer.stdout.contains("slot");
    waiting
        .cluster
        .until("the job to wait for slots", DEADLINE, told, named)
        .await?;
    assert_ne!(waiting.cluster.info(&waiting.id).await?["state"], "RUNNING");

    let addresses = format!(
        "high-availability.jobmanager.addresses={}",
        waiting.cluster.addresses()?
    );
    let scratch = format!(
        "io.tmp.dirs={}",
        waiting.directory.path().join("more").display()
    );
    let mut another = tokio::process::Command::new(flott_binary()?)
        .args([
            "taskmanager",
            "-D",
            &addresses,
            "-D",
            "taskmanager.numberOfTaskSlots=2",
            "-D",
            &scratch,
        ])
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    waiting.finishes_exactly().await?;
    another.kill().await?;
    Ok(())
}

#[tokio::test]
async fn a_second_process_on_one_data_directory_is_refused() -> anyhow::Result<()> {
    let _alone = alone().await;
    let directory = tempfile::tempdir()?;
    let cluster = start_cluster(directory.path(), &["--taskmanagers", "1"]).await?;
    let raft = raft_directory(cluster.directory())?;
    let option = format!("high-availability.raft.dir={}", raft.display());
    let answer = flott(
        &flott_binary()?,
        &["jobmanager", "-D", &option, "-D", "jobmanager.rpc.port=0"],
    )
    .await?;
    assert_refused(&answer, &[&raft.display().to_string()]);
    let status = cluster.json(&["cluster", "status"]).await?;
    assert!(
        status["leader"].as_u64() > Some(0),
        "the first one is unharmed: {status:#}"
    );

    let second = flott(
        &flott_binary()?,
        &[Path::new("local"), Path::new("--dir"), cluster.directory()],
    )
    .await?;
    assert_eq!(second.code, Some(1), "{second:?}");
    Ok(())
}

/// The Raft directory of some JobManager of `flott local --dir <directory>`: `jobmanager-N/raft`.
fn raft_directory(directory: &Path) -> anyhow::Result<std::path::PathBuf> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() && name.starts_with("jobmanager") {
            return Ok(path.join("raft"));
        }
    }
    anyhow::bail!("no jobmanager directory in {}", directory.display())
}

#[tokio::test]
async fn an_unwritable_checkpoint_directory_is_counted_and_fails_the_job_only_past_the_limit()
-> anyhow::Result<()> {
    let _alone = alone().await;
    let directory = tempfile::tempdir()?;
    let cluster = start_cluster(directory.path(), &[]).await?;
    let (input, output) = (
        directory.path().join("flights.csv"),
        directory.path().join("out"),
    );
    Flights::new(60_000).write_csv(&input)?;
    let sql = flights::sql(&input, &output, 500);
    // Below a file there can be no directory, not even for root.
    let unwritable = format!(
        "execution.checkpointing.dir={}",
        input.join("checkpoints").display()
    );
    let submit = async |tolerable: &str| {
        let tolerable = format!("execution.checkpointing.tolerable-failed-checkpoints={tolerable}");
        let options = [
            "-p",
            "2",
            "-D",
            &unwritable,
            "-D",
            &tolerable,
            "-D",
            "restart-strategy.type=none",
        ];
        cluster.submit(&sql, &options).await
    };
    let failed = |checkpoints: &Vec<Value>| {
        checkpoints
            .iter()
            .filter(|checkpoint| checkpoint["status"] == "FAILED")
            .count()
    };

    let patient = submit("1000").await?;
    cluster
        .until(
            "three failed checkpoints",
            DEADLINE,
            || cluster.checkpoints(&patient),
            |list| failed(list) >= 3,
        )
        .await?;
    let info = cluster.info(&patient).await?;
    assert_eq!(
        (info["state"].as_str(), info["restarts"].as_u64()),
        (Some("RUNNING"), Some(0)),
        "{info:#}"
    );
    cluster.ask(&["cancel", &patient]).await?;
    cluster.until_state(&patient, "CANCELED", DEADLINE).await?;

    let strict = submit("0").await?;
    cluster.until_state(&strict, "FAILED", DEADLINE).await?;
    Ok(())
}
