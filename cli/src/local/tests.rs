//! Properties of the supervision of processes, with a stand-in for the binary that only waits for its parent's end.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use flott_node::SystemClock;
use rustix::process::{Pid, Signal, test_kill_process};

use super::layout::Layout;
use super::{LocalCluster, LocalOptions, Role};

/// Far above what anything here takes; a test that waits so long has failed.
const WAIT_MAX: Duration = Duration::from_secs(30);

fn options(dir: &Path, script: &str, respawn: bool) -> LocalOptions {
    let executable = dir.join("stand-in");
    std::fs::write(&executable, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&executable, PermissionsExt::from_mode(0o755)).unwrap();
    LocalOptions {
        dir: dir.join("cluster"),
        jobmanagers: 1,
        taskmanagers: 1,
        slots: 1,
        overrides: BTreeMap::new(),
        tls: false,
        respawn,
        executable,
    }
}

/// A cluster that counts as ready, without asking anybody.
fn cluster(dir: &Path, respawn: bool) -> LocalCluster {
    let options = options(dir, "cat > /dev/null", respawn);
    let layout = Layout::open(&options.dir).unwrap();
    let members = layout.members(1).unwrap();
    let cluster = LocalCluster::new(
        layout,
        members,
        None,
        options,
        Duration::from_secs(5),
        SystemClock::shared(),
    );
    cluster.shared.start((Role::JobManager, 1)).unwrap();
    cluster.shared.start((Role::TaskManager, 1)).unwrap();
    cluster.shared.publish().unwrap();
    cluster
}

fn cluster_json(dir: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(dir.join("cluster/cluster.json")).unwrap()).unwrap()
}

fn is_alive(pid: u32) -> bool {
    test_kill_process(Pid::from_raw(pid as i32).unwrap()).is_ok()
}

async fn until(condition: impl Fn() -> bool) {
    let clock = SystemClock::shared();
    let deadline = clock.monotonic() + WAIT_MAX;
    while !condition() {
        assert!(clock.monotonic() < deadline, "waited in vain");
        clock.sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn cluster_json_says_what_runs_and_a_restart_keeps_the_identity() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = cluster(dir.path(), false);
    let before = cluster.processes();
    assert_eq!(
        before.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(),
        ["jobmanager-1", "taskmanager-1"]
    );
    assert_eq!(
        cluster_json(dir.path())["jobmanagers"][0]["pid"],
        before[0].pid
    );
    assert_eq!(before[0].address, cluster.jobmanager_addresses()[0]);

    cluster.kill("jobmanager-1").await.unwrap();
    cluster.kill("taskmanager-1").await.unwrap();
    assert!(!is_alive(before[0].pid));
    until(|| {
        cluster_json(dir.path())["taskmanagers"]
            .as_array()
            .unwrap()
            .is_empty()
    })
    .await;
    assert_eq!(
        cluster_json(dir.path())["jobmanagers"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
    assert!(
        cluster
            .kill("jobmanager-1")
            .await
            .unwrap_err()
            .to_string()
            .contains("does not run")
    );

    let jobmanager = cluster.start_process("jobmanager-1").unwrap();
    assert_eq!(
        (jobmanager.node_id, &jobmanager.address),
        (before[0].node_id, &before[0].address)
    );
    let taskmanager = cluster.start_process("taskmanager-1").unwrap();
    assert_ne!(taskmanager.id, before[1].id, "a name is never used twice");
    assert!(
        cluster
            .start_process("taskmanager-1")
            .unwrap_err()
            .to_string()
            .contains("runs already")
    );
    assert_eq!(cluster.add_taskmanager().unwrap(), "taskmanager-2");
    assert_eq!(
        cluster_json(dir.path())["taskmanagers"]
            .as_array()
            .unwrap()
            .len(),
        2
    );

    cluster.stop().await;
    assert!(!is_alive(jobmanager.pid) && !is_alive(taskmanager.pid));
    assert!(!dir.path().join("cluster/cluster.json").exists());
}

#[tokio::test]
async fn a_child_killed_from_outside_comes_back_only_if_wanted() {
    for respawn in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let cluster = cluster(dir.path(), respawn);
        let before = cluster.processes()[0].pid;
        rustix::process::kill_process(Pid::from_raw(before as i32).unwrap(), Signal::KILL).unwrap();
        until(|| cluster.processes().len() == 1).await;
        if respawn {
            until(|| cluster.processes().len() == 2).await;
            let after = cluster.processes()[0].pid;
            assert_ne!(after, before);
            until(|| cluster_json(dir.path())["jobmanagers"][0]["pid"] == after).await;
        }
        cluster.stop().await;
        assert!(cluster.processes().is_empty());
    }
}

#[tokio::test]
async fn no_child_outlives_the_cluster_that_was_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = cluster(dir.path(), true);
    let pids: Vec<_> = cluster
        .processes()
        .iter()
        .map(|process| process.pid)
        .collect();
    drop(cluster);
    until(|| !pids.iter().any(|pid| is_alive(*pid))).await;
}

#[tokio::test]
async fn a_process_that_does_not_come_up_is_reported_with_its_last_words() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), "echo the disk is on fire >&2; exit 3", false);
    let error = LocalCluster::start(options).await.unwrap_err().to_string();
    assert!(
        error.contains("the disk is on fire") && error.contains("exit status: 3"),
        "{error}"
    );
}

#[tokio::test]
async fn settings_that_each_process_needs_for_itself_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (key, value) in [
        ("jobmanager.rpc.port", "1"),
        ("rest.port", "1"),
        ("no.such.key", "1"),
    ] {
        let mut options = options(dir.path(), "exit 1", false);
        options.overrides.insert(key.to_owned(), value.to_owned());
        let error = LocalCluster::start(options).await.unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(error.to_string().contains(key), "{error}");
    }
}
