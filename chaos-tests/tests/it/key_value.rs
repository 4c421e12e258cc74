//! `flott kv` and `flott bench` as the manual says, while the leader dies.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use flott_chaos_tests::cluster::processes::kill;
use flott_chaos_tests::cluster::{Answer, Cluster};
use serde_json::{Value, json};

use crate::alone;

const DEADLINE: Duration = Duration::from_secs(60);

async fn cluster(directory: &Path) -> anyhow::Result<Cluster> {
    Cluster::start(directory, &["--jobmanagers", "3", "--taskmanagers", "0"]).await
}

/// Runs `flott kv <words>`, which must end with `code`.
async fn kv(cluster: &Cluster, words: &str, code: i32) -> anyhow::Result<Answer> {
    let words: Vec<_> = std::iter::once("kv").chain(words.split(' ')).collect();
    let answer = cluster.ask(&words).await?;
    ensure!(answer.code == Some(code), "{words:?}: {answer:?}");
    Ok(answer)
}

async fn kv_json(cluster: &Cluster, words: &str, code: i32) -> anyhow::Result<Value> {
    let answer = kv(cluster, &format!("{words} -o json"), code).await?;
    Ok(serde_json::from_str(&answer.stdout)?)
}

#[tokio::test]
async fn keys_are_kept_compared_and_told_apart_by_exit_codes() -> anyhow::Result<()> {
    let _alone = alone().await;
    let directory = tempfile::tempdir()?;
    let cluster = cluster(directory.path()).await?;

    let first = kv_json(&cluster, "put a/1 one", 0).await?;
    let revision = first["revision"].as_u64().unwrap_or_default();
    assert_eq!(first["outcome"], "applied");
    let refused = kv(&cluster, "put a/1 two --if-absent", 1).await?;
    assert!(
        refused.stderr.contains("not applied: a/1 exists"),
        "{refused:?}"
    );
    let refused = kv_json(
        &cluster,
        &format!("put a/1 two --if-revision {}", revision + 100),
        1,
    )
    .await?;
    assert_eq!(refused["outcome"], "not_applied");
    kv(
        &cluster,
        &format!("put a/1 two --if-revision {revision}"),
        0,
    )
    .await?;
    assert_eq!(kv(&cluster, "get a/1", 0).await?.stdout, "two");
    let absent = kv(&cluster, "get a/2", 1).await?;
    assert!(absent.stderr.contains("there is no a/2"), "{absent:?}");
    kv(&cluster, "put a/2 x --lease 77", 1).await?;
    kv(&cluster, "put a/2 x --ttl soon", 2).await?;
    kv(&cluster, "put a/2 x -z nowhere", 1).await?;

    let document = directory.path().join("txn.json");
    let txn = json!({
        "compare": [{"key": "a/1", "value": "two"}, {"key": "b", "absent": true}],
        "success": [{"put": {"key": "b", "value_base64": "/w=="}}, {"get": {"prefix": "a/"}}],
        "failure": [{"get": {"key": "b"}}],
    });
    std::fs::write(&document, txn.to_string())?;
    let words = format!("txn {}", document.display());
    let done = kv_json(&cluster, &words, 0).await?;
    assert_eq!(
        (&done["succeeded"], &done["results"][1]["entries"][0]["key"]),
        (&json!(true), &json!("a/1"))
    );
    let done = kv_json(&cluster, &words, 1).await?;
    assert_eq!(done["results"][0]["entries"][0]["value_base64"], "/w==");

    let stale = kv(&cluster, "list --stale", 0).await?;
    assert!(stale.stderr.contains("ms stale"), "{stale:?}");
    let listed = kv_json(&cluster, "list a/ --keys-only", 0).await?;
    assert_eq!(
        listed["entries"].as_array().map(Vec::len),
        Some(1),
        "{listed:#}"
    );
    assert_eq!(
        kv_json(&cluster, "delete a/ --prefix", 0).await?["deleted"],
        1
    );
    kv(&cluster, "delete a/ --prefix", 1).await?;

    let granted = kv_json(&cluster, "lease grant 60s", 0).await?;
    let lease = &granted["id"];
    kv(&cluster, &format!("put bound x --lease {lease}"), 0).await?;
    kv(&cluster, &format!("lease keep {lease}"), 0).await?;
    let leases = kv_json(&cluster, "lease list", 0).await?;
    assert_eq!(leases["leases"][0]["keys"][0]["key"], "bound", "{leases:#}");
    kv(&cluster, &format!("lease revoke {lease}"), 0).await?;
    kv(&cluster, "get bound", 1).await?;
    cluster.stop(DEADLINE).await
}

#[tokio::test]
async fn the_death_of_the_leader_costs_no_write_and_no_key() -> anyhow::Result<()> {
    let _alone = alone().await;
    let directory = tempfile::tempdir()?;
    let cluster = cluster(directory.path()).await?;
    kv(&cluster, "put before 1", 0).await?;
    let leader = cluster.leader(DEADLINE).await?;
    kill(leader.pid)?;
    kv(&cluster, "put after 1", 0).await?;
    let listed = kv_json(&cluster, "list", 0).await?;
    assert_eq!(listed["count"], 2, "{listed:#}");
    assert_ne!(listed["header"]["member"], leader.id);
    Ok(())
}

#[tokio::test]
async fn a_bench_measures_a_running_cluster_and_leaves_nothing_behind() -> anyhow::Result<()> {
    let _alone = alone().await;
    let directory = tempfile::tempdir()?;
    let cluster = cluster(directory.path()).await?;
    for operation in [&[][..], &["--read"]] {
        let words = "bench metadata --in-flight 1,8 --value 16 --seconds 0.5 --warmup 0";
        let words: Vec<_> = words.split(' ').chain(operation.iter().copied()).collect();
        let report = cluster.json(&words).await?;
        let figures = report["figures"].as_array().cloned().unwrap_or_default();
        assert_eq!(figures.len(), 2, "{report:#}");
        for figures in &figures {
            assert_eq!(figures["errors"], json!({}), "{report:#}");
            assert!(figures["operations"].as_u64() > Some(0), "{report:#}");
        }
    }
    let left = kv_json(&cluster, "list", 0).await?;
    assert_eq!(left["count"], 0, "{left:#}");
    cluster.stop(DEADLINE).await
}
