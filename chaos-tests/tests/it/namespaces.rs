//! Tenants as an operator meets them: a namespace is made, used, limited and deleted, and others notice nothing.

use std::path::{Path, PathBuf};

use anyhow::Context;
use flott_chaos_tests::invariants::committed::Results;
use flott_chaos_tests::workload::flights::{self, Flights};
use serde_json::Value;

use crate::alone;
use crate::job::{DEADLINE, start_cluster};

/// Rows and pace of the job that is to finish: it is still at work when the other namespace goes.
const OTHER: (u64, u64) = (12_000, 800);
/// Rows and pace of the job that is deleted: it would take ten minutes.
const DELETED: (u64, u64) = (60_000, 100);

/// Every file below `directory`.
fn files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).context(directory.display().to_string()),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

fn names(list: &Value) -> Vec<&str> {
    let namespaces = list["namespaces"].as_array().into_iter().flatten();
    namespaces
        .filter_map(|namespace| namespace["name"].as_str())
        .collect()
}

#[tokio::test]
async fn a_deleted_namespace_goes_with_its_job_and_files_and_others_notice_nothing()
-> anyhow::Result<()> {
    let _alone = alone().await;
    let directory = tempfile::tempdir()?;
    let cluster = start_cluster(directory.path(), &[]).await?;
    let mut jobs = Vec::new();
    let made = cluster
        .json(&[
            "namespace",
            "create",
            "team",
            "--max-jobs",
            "1",
            "--max-slots",
            "2",
        ])
        .await?;
    assert_eq!(made["state"], "ACTIVE");
    for (namespace, (rows, pace)) in [("default", OTHER), ("team", DELETED)] {
        let input = directory.path().join(format!("{namespace}.csv"));
        let output = directory.path().join(format!("out-{namespace}"));
        let flights = Flights::new(rows);
        flights.write_csv(&input)?;
        let sql = flights::sql(&input, &output, pace);
        let id = cluster.submit(&sql, &["-p", "2", "-z", namespace]).await?;
        jobs.push((id, flights.expected(), output));
    }
    let [(other, expected, output), (doomed, ..)] = &jobs[..] else {
        anyhow::bail!("two jobs were submitted")
    };

    // What is used is counted, and one job more is refused with the quota's name.
    let completed = |list: &Value| {
        let checkpoints = list["checkpoints"].as_array().into_iter().flatten();
        checkpoints
            .filter(|one| one["status"] == "COMPLETED")
            .count()
            >= 2
    };
    let arguments = ["checkpoints", "-z", "team", doomed];
    let checkpoints = || cluster.json(&arguments);
    cluster
        .until("two checkpoints", DEADLINE, checkpoints, completed)
        .await?;
    let used = cluster.json(&["namespace", "describe", "team"]).await?;
    assert_eq!(
        (&used["used"]["jobs"], &used["used"]["slots"]),
        (&Value::from(1), &Value::from(2)),
        "{used:#}"
    );
    let file = cluster.directory().join("job.sql");
    let file = file.to_str().context("the path is UTF-8")?;
    let refused = cluster
        .ask(&["run", "-d", "-f", file, "-z", "team"])
        .await?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("may have 1 jobs"), "{refused:?}");
    // Neither sees the other's job.
    for (namespace, foreign) in [("default", doomed), ("team", other)] {
        let answer = cluster.ask(&["info", "-z", namespace, foreign]).await?;
        assert_eq!(answer.code, Some(1), "{answer:?}");
    }

    let status = cluster.json(&["cluster", "status"]).await?;
    let cluster_id = status["cluster_id"].as_str().context("a cluster id")?;
    let root = cluster.directory().join("checkpoints").join(cluster_id);
    assert!(
        !files(&root.join("team"))?.is_empty(),
        "in {}",
        root.display()
    );
    let asked = cluster.ask(&["namespace", "delete", "team"]).await?;
    assert_eq!(asked.code, Some(2), "it needs --yes: {asked:?}");
    let begun = cluster
        .json(&["namespace", "delete", "team", "--yes"])
        .await?;
    assert_eq!(begun["state"], "DELETING");
    let list = || cluster.json(&["namespace", "list"]);
    let gone = cluster
        .until("the namespace to be gone", DEADLINE, list, |list| {
            names(list) == ["default"]
        })
        .await?;
    assert_eq!(names(&gone), ["default"]);
    assert_eq!(files(&root.join("team"))?, Vec::<PathBuf>::new());
    let answer = cluster.ask(&["list", "-z", "team"]).await?;
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(
        answer.stderr.contains("flott namespace create team"),
        "{answer:?}"
    );

    let terminal = |info: &Value| matches!(info["state"].as_str(), Some("FINISHED" | "FAILED"));
    let ended = cluster
        .until(
            "the end of the other job",
            DEADLINE,
            || cluster.info(other),
            terminal,
        )
        .await?;
    assert_eq!(ended["state"], "FINISHED", "{ended:#}");
    assert_eq!(ended["restarts"], 0, "{ended:#}");
    let events = ended["events"].as_array().context("events")?;
    let events: Vec<_> = events
        .iter()
        .filter_map(|event| event["event"].as_str())
        .collect();
    assert_eq!(events, ["CREATED", "RUNNING", "FINISHED"]);
    Results::committed(output)?.check_exactly(expected)?;
    // An ended job can be forgotten at once.
    let forgotten = cluster.ask(&["forget", other]).await?;
    assert_eq!(forgotten.code, Some(0), "{forgotten:?}");
    let list = || cluster.json(&["list"]);
    let empty = |list: &Value| list["jobs"].as_array().is_some_and(Vec::is_empty);
    cluster
        .until("the list to be empty", DEADLINE, list, empty)
        .await?;
    cluster.stop(DEADLINE).await
}
