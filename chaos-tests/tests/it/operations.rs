//! What an operator does to the JobManagers while a job runs: no task notices.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, ensure};
use flott_chaos_tests::cluster::jobmanager::JobManager;
use flott_chaos_tests::cluster::processes::{is_alive, kill, terminate};
use flott_chaos_tests::cluster::{Cluster, flott, flott_binary, newest_completed};
use flott_chaos_tests::workload::flights;
use serde_json::Value;

use crate::alone;
use crate::job::{DEADLINE, RunningJob, Tasks, all_running};

/// What a client did that was acknowledged.
#[derive(Debug, Default)]
struct Acknowledged {
    submitted: Vec<String>,
    canceled: Vec<String>,
}

/// Submits a small job and cancels it, over and over until `done`. Every call must succeed: the client outlives a
/// leader's restart.
async fn submit_and_cancel(
    cluster: &Cluster,
    directory: &Path,
    done: &AtomicBool,
) -> anyhow::Result<Acknowledged> {
    let input = directory.join("small.csv");
    flights::Flights::new(100).write_csv(&input)?;
    let mut acknowledged = Acknowledged::default();
    while !done.load(Ordering::Relaxed) {
        let output = directory.join(format!("small-{}", acknowledged.submitted.len()));
        let id = cluster
            .submit(&flights::sql(&input, &output, 1), &["-p", "1"])
            .await?;
        acknowledged.submitted.push(id.clone());
        let listed = cluster.json(&["list"]).await?;
        ensure!(listed.to_string().contains(&id), "{id} is not in {listed}");
        let answer = cluster.ask(&["cancel", &id]).await?;
        ensure!(answer.code == Some(0), "cancel: {answer:?}");
        acknowledged.canceled.push(id);
    }
    Ok(acknowledged)
}

fn member_at<'a>(status: &'a Value, address: &str) -> Option<&'a Value> {
    let mut members = status["members"].as_array()?.iter();
    members.find(|member| member["address"] == address)
}

/// Restarts the JobManagers one after the other, each when the one before has all that was decided.
async fn restart_in_turn(cluster: &Cluster) -> anyhow::Result<()> {
    for member in cluster.members()?.jobmanagers {
        terminate(member.pid)?;
        let started = || async {
            let now = cluster.members()?.jobmanagers;
            let now = now.into_iter().find(|now| now.address == member.address);
            now.context("it has not been started again")
        };
        cluster
            .until("a new process", DEADLINE, started, |now| {
                now.pid != member.pid
            })
            .await?;
        let status = || cluster.json(&["cluster", "status"]);
        let decided = cluster
            .until("a leader", DEADLINE, status, |status| {
                status["leader"].is_u64()
            })
            .await?;
        let decided = decided["members"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|member| member["last_log_index"].as_u64())
            .max();
        let caught_up = |status: &Value| {
            member_at(status, &member.address).is_some_and(|now| {
                now["health"] == "ok" && now["applied_index"].as_u64() >= decided
            })
        };
        cluster
            .until("the member to catch up", DEADLINE, status, caught_up)
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_rolling_restart_under_load_loses_nothing_acknowledged_and_restarts_no_task()
-> anyhow::Result<()> {
    let _alone = alone().await;
    let job = RunningJob::long(&["--respawn", "--slots", "4"]).await?;
    let before = job.tasks_once_running().await?;
    let known = job.cluster.checkpoints(&job.id).await?;
    let done = Arc::new(AtomicBool::new(false));

    let restarting = async {
        let restarted = restart_in_turn(&job.cluster).await;
        done.store(true, Ordering::Relaxed);
        restarted
    };
    let load = submit_and_cancel(&job.cluster, job.directory.path(), &done);
    let (restarted, acknowledged) = tokio::join!(restarting, load);
    restarted?;
    let acknowledged = acknowledged?;

    assert_eq!(job.tasks_once_running().await?, before);
    let info = job.cluster.info(&job.id).await?;
    assert_eq!(info["restarts"].as_u64(), Some(0), "{info:#}");
    job.cluster
        .until_checkpoints(&job.id, 1, &known, DEADLINE)
        .await?;
    println!(
        "{} jobs were submitted meanwhile",
        acknowledged.submitted.len()
    );
    ensure!(
        acknowledged.submitted.len() > 3,
        "that was no load: {acknowledged:?}"
    );
    let states = states(&job.cluster.json(&["list"]).await?);
    for id in &acknowledged.submitted {
        ensure!(
            states.contains_key(id),
            "job {id} was acknowledged and is lost: {states:?}"
        );
    }
    for id in &acknowledged.canceled {
        job.cluster.until_state(id, "CANCELED", DEADLINE).await?;
    }
    job.committed_so_far()?;
    Ok(())
}

fn states(listed: &Value) -> BTreeMap<String, String> {
    let jobs = listed["jobs"].as_array().into_iter().flatten();
    let state = |job: &Value| {
        Some((
            job["id"].as_str()?.to_owned(),
            job["state"].as_str()?.to_owned(),
        ))
    };
    jobs.filter_map(state).collect()
}

/// The command line, with the group's present members.
#[derive(Debug)]
pub(crate) struct Operator {
    pub(crate) addresses: Vec<String>,
}

impl Operator {
    pub(crate) async fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let addresses = self.addresses.join(",");
        let mut all = arguments.to_vec();
        all.extend(["-o", "json", "-m", &addresses]);
        let answer = flott(&flott_binary()?, &all).await?;
        ensure!(answer.code == Some(0), "{all:?}: {answer:?}");
        Ok(serde_json::from_str(&answer.stdout)?)
    }

    /// Puts `new` in the place of the member at `address`.
    async fn replace(&mut self, address: &str, new: &JobManager) -> anyhow::Result<Value> {
        let status = self.json(&["cluster", "members", "list"]).await?;
        let old = member_at(&status, address).context("no such member")?["id"].clone();
        let command = [
            "cluster",
            "members",
            "replace",
            &old.to_string(),
            &new.address,
        ];
        let replaced = self.json(&command).await?;
        self.addresses.retain(|known| known != address);
        self.addresses.push(new.address.clone());
        Ok(replaced)
    }
}

#[tokio::test]
async fn every_jobmanager_is_replaced_in_turn_and_no_task_restarts() -> anyhow::Result<()> {
    let _alone = alone().await;
    let job = RunningJob::long(&[]).await?;
    let before = job.tasks_once_running().await?;
    let leader = job.cluster.leader(DEADLINE).await?;
    let mut old = job.cluster.members()?.jobmanagers;
    // The leader first, and by force.
    old.sort_by_key(|member| member.pid != leader.pid);
    kill(leader.pid)?;
    let settings = [format!(
        "execution.checkpointing.dir={}",
        job.cluster.directory().join("checkpoints").display()
    )];
    let mut operator = Operator {
        addresses: old.iter().map(|member| member.address.clone()).collect(),
    };
    let mut new = Vec::new();
    for (number, member) in old.iter().enumerate() {
        let directory = job.directory.path().join(format!("new-{number}"));
        let jobmanager = JobManager::start(&directory, &settings)?;
        let started = || async { status_of(&jobmanager.address).await };
        job.cluster
            .until("the new JobManager to answer", DEADLINE, started, |_| true)
            .await?;
        let replaced = operator.replace(&member.address, &jobmanager).await?;
        assert_eq!(
            replaced["voters"].as_array().map(Vec::len),
            Some(3),
            "{replaced:#}"
        );
        new.push(jobmanager);
        // A member that lives still notices that it is none any more.
        let alive = || async { Ok(is_alive(member.pid)) };
        job.cluster
            .until("the old JobManager to end", DEADLINE, alive, |alive| !alive)
            .await?;
    }
    let status = operator.json(&["cluster", "status"]).await?;
    for jobmanager in &new {
        ensure!(is_alive(jobmanager.pid()?));
        let member = member_at(&status, &jobmanager.address).context("not a member")?;
        assert_eq!(
            (&member["voter"], &member["health"]),
            (&true.into(), &"ok".into())
        );
    }
    assert_eq!(
        status["members"].as_array().map(Vec::len),
        Some(3),
        "{status:#}"
    );

    // No TaskManager was ever told of the JobManagers that are left, and still the job goes on.
    let about = ["info", &job.id];
    let info = || operator.json(&about);
    let running = job
        .cluster
        .until("all tasks to run", DEADLINE, info, all_running)
        .await?;
    assert_eq!(Tasks::of(&running)?, before);
    assert_eq!(running["restarts"].as_u64(), Some(0), "{running:#}");
    let listed = ["checkpoints", &job.id];
    let checkpoints = || operator.json(&listed);
    let newest = |answer: &Value| {
        newest_completed(
            answer["checkpoints"]
                .as_array()
                .map_or(&[][..], Vec::as_slice),
        )
    };
    let known = newest(&checkpoints().await?);
    job.cluster
        .until("another checkpoint", DEADLINE, checkpoints, |answer| {
            newest(answer) > known
        })
        .await?;
    operator.json(&["cluster", "transfer-leader"]).await?;
    let after = job
        .cluster
        .until("all tasks to run", DEADLINE, info, all_running)
        .await?;
    assert_eq!(Tasks::of(&after)?, before, "after a transfer");
    job.committed_so_far()?;
    Ok(())
}

async fn status_of(address: &str) -> anyhow::Result<Value> {
    let operator = Operator {
        addresses: vec![address.to_owned()],
    };
    operator
        .json(&["cluster", "status", "--timeout", "1 s"])
        .await
}

#[tokio::test]
async fn dangerous_changes_are_refused_and_a_debug_bundle_tells_nothing_of_users()
-> anyhow::Result<()> {
    let _alone = alone().await;
    let job = RunningJob::paced(&[]).await?;
    let leader = job.cluster.leader(DEADLINE).await?;
    let members = job.cluster.members()?.jobmanagers;
    let mut others = members.iter().filter(|member| member.pid != leader.pid);
    let (dead, alive) = (
        others.next().context("two others")?,
        others.next().context("two others")?,
    );
    kill(dead.pid)?;

    let refused = job
        .cluster
        .ask(&["cluster", "members", "remove", &alive.id.to_string()])
        .await?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("the group would stop"),
        "{refused:?}"
    );
    let refused = job
        .cluster
        .ask(&["cluster", "transfer-leader", &dead.id.to_string()])
        .await?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let refused = job.cluster.ask(&["cluster", "upgrade"]).await?;
    assert!(refused.stderr.contains("do not answer"), "{refused:?}");
    let status = job.cluster.json(&["cluster", "status"]).await?;
    assert_eq!(status["tolerated_failures"], 0, "{status:#}");
    let down = member_at(&status, &dead.address).context("still a member")?;
    assert_eq!(down["health"], "unreachable", "{status:#}");

    let file = job.directory.path().join("bundle.tar.zst");
    let name = file.to_str().context("a path that is text")?;
    let written = job.cluster.json(&["cluster", "debug-bundle", name]).await?;
    let errors = written["members"].as_array().into_iter().flatten();
    let errors = errors.filter(|member| !member["error"].is_null()).count();
    assert_eq!(errors, 1, "{written:#}");
    let contents = unpack(&file)?;
    let of = |end: &str| contents.keys().filter(|name| name.ends_with(end)).count();
    for end in [
        "/metrics.txt",
        "/raft.txt",
        "/log.json",
        "/configuration.json",
        "/status.json",
    ] {
        assert_eq!(of(end), 2, "{end} in {:?}", contents.keys());
    }
    for (name, text) in &contents {
        // Words of the job's SQL, and of its data.
        for word in ["flights", "dep_delay", "departures", "TUMBLE"] {
            assert!(!text.contains(word), "{word} in {name}");
        }
    }
    let log = contents
        .iter()
        .find(|(name, _)| name.ends_with("/log.json"));
    let (_, log) = log.context("just counted")?;
    assert!(
        log.contains("\"kind\":\"SubmitJob\"") && log.contains("CompleteCheckpoint"),
        "{log}"
    );
    job.finishes_exactly().await?;
    Ok(())
}

fn unpack(file: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut contents = BTreeMap::new();
    let decoder = zstd::Decoder::new(std::fs::File::open(file)?)?;
    for entry in tar::Archive::new(decoder).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text)?;
        contents.insert(name, text);
    }
    Ok(contents)
}
