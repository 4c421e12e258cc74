//! All JobManagers are lost but for a backup, or but for one of three: TaskManagers that were running a job all the time go
//! over to the group that goes on, and the result is exact. Whoever comes back of the old group gets nothing back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use flott_chaos_tests::cluster::jobmanager::JobManager;
use flott_chaos_tests::cluster::processes::{is_alive, kill};
use flott_chaos_tests::cluster::{Answer, Member, flott, flott_binary, newest_completed};
use serde_json::Value;

use crate::alone;
use crate::job::{DEADLINE, RunningJob, Tasks, all_running};
use crate::operations::Operator;

/// Rows and pace: half a minute, long enough for everything that is done meanwhile.
const JOB: (u64, u64) = (30_000, 1_000);

/// Above every log index, epoch and checkpoint of the first lineage.
const STRIDE: u64 = 1 << 32;

/// The command line without a cluster.
async fn offline(arguments: &[&str]) -> anyhow::Result<Answer> {
    let mut all = arguments.to_vec();
    all.extend(["-o", "json"]);
    flott(&flott_binary()?, &all).await
}

async fn offline_json(arguments: &[&str]) -> anyhow::Result<Value> {
    let answer = offline(arguments).await?;
    ensure!(answer.code == Some(0), "{arguments:?}: {answer:?}");
    Ok(serde_json::from_str(&answer.stdout)?)
}

async fn refusal(arguments: &[&str]) -> anyhow::Result<String> {
    let answer = offline(arguments).await?;
    ensure!(answer.code == Some(1), "{arguments:?}: {answer:?}");
    Ok(answer.stderr)
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is text")
}

/// A job on a cluster, and what is known of both.
struct Lost {
    job: RunningJob,
    jobmanagers: Vec<Member>,
    taskmanagers: Vec<Member>,
    /// Attempt and places before anything happened.
    before: Tasks,
    cluster_id: String,
}

impl Lost {
    async fn new() -> anyhow::Result<Self> {
        let job = RunningJob::submit(JOB.0, JOB.1, &[]).await?;
        let before = job.tasks_once_running().await?;
        job.cluster
            .until_checkpoints(&job.id, 2, &[], DEADLINE)
            .await?;
        let members = job.cluster.members()?;
        let status = job.cluster.json(&["cluster", "status"]).await?;
        let cluster_id = status["cluster_id"].as_str().context("no cluster id")?;
        Ok(Self {
            before,
            jobmanagers: members.jobmanagers,
            taskmanagers: members.taskmanagers,
            cluster_id: cluster_id.to_owned(),
            job,
        })
    }

    /// The data directory of the member with that number, from 0.
    fn raft(&self, n: usize) -> PathBuf {
        let name = format!("jobmanager-{}", n + 1);
        self.job.cluster.directory().join(name).join("raft")
    }

    fn logs(&self, name: &str) -> PathBuf {
        self.job.directory.path().join(name)
    }

    async fn kill_jobmanagers(&self) -> anyhow::Result<()> {
        for member in &self.jobmanagers {
            if is_alive(member.pid) {
                kill(member.pid)?;
            }
        }
        let pids = self.jobmanagers.iter().map(|member| member.pid);
        let alive = || async { Ok(pids.clone().filter(|pid| is_alive(*pid)).count()) };
        self.job
            .cluster
            .until("all JobManagers to be gone", DEADLINE, alive, |alive| {
                *alive == 0
            })
            .await?;
        Ok(())
    }

    /// Waits until the job runs in the new group, in a new attempt, on the same processes.
    async fn goes_over(&self, operator: &Operator) -> anyhow::Result<Value> {
        let about = ["info", &self.job.id];
        let info = || operator.json(&about);
        let running = |info: &Value| {
            info["attempt"].as_u64() > Some(self.before.attempt) && all_running(info)
        };
        let info = self
            .job
            .cluster
            .until("the job to run in the new group", DEADLINE, info, running)
            .await?;
        let places = |tasks: &Tasks| -> BTreeSet<String> {
            tasks
                .placements
                .iter()
                .map(|(_, place, _)| place.clone())
                .collect()
        };
        assert_eq!(
            places(&Tasks::of(&info)?),
            places(&self.before),
            "the same TaskManagers"
        );
        for member in &self.taskmanagers {
            ensure!(is_alive(member.pid), "TaskManager {} has died", member.id);
        }
        Ok(info)
    }

    /// Waits for the job's end in the new group; the result must be exact.
    async fn finishes_exactly(&self, operator: &Operator) -> anyhow::Result<()> {
        let about = ["info", &self.job.id];
        let info = || operator.json(&about);
        let ended = |info: &Value| {
            matches!(
                info["state"].as_str(),
                Some("FINISHED" | "FAILED" | "CANCELED")
            )
        };
        let ended = self
            .job
            .cluster
            .until("the job's end", DEADLINE, info, ended)
            .await?;
        ensure!(ended["state"] == "FINISHED", "{ended:#}");
        self.job
            .committed_so_far()?
            .check_exactly(&self.job.expected)
    }
}

async fn checkpoints(operator: &Operator, job: &str) -> anyhow::Result<u64> {
    let answer = operator.json(&["checkpoints", job]).await?;
    let listed = answer["checkpoints"].as_array();
    Ok(newest_completed(listed.map_or(&[][..], Vec::as_slice)))
}

#[tokio::test]
async fn one_jobmanager_of_three_survives_and_the_job_goes_on_exactly() -> anyhow::Result<()> {
    let _alone = alone().await;
    let lost = Lost::new().await?;
    let job = &lost.job;
    let leader = job.cluster.leader(DEADLINE).await?;
    let survivor = lost
        .jobmanagers
        .iter()
        .position(|member| member.pid != leader.pid)
        .context("a follower")?;
    let dead: Vec<&Member> = lost
        .jobmanagers
        .iter()
        .filter(|member| member.address != lost.jobmanagers[survivor].address)
        .collect();
    let dir = lost.raft(survivor);
    let dir = text(&dir)?;
    let in_use = refusal(&["cluster", "recover", dir]).await?;
    ensure!(in_use.contains("in use"), "{in_use}");
    for member in &dead {
        kill(member.pid)?;
    }
    // Without a quorum nothing more is committed, and no task ends.
    let alive = &lost.jobmanagers[survivor];
    let status = || job.cluster.json(&["cluster", "status", "--timeout", "1 s"]);
    let alone = |status: &Value| {
        let members = status["members"].as_array().into_iter().flatten();
        members
            .filter(|member| member["health"] == "unreachable")
            .count()
            == 2
    };
    job.cluster
        .until(
            "the survivor to see that it is alone",
            DEADLINE,
            status,
            alone,
        )
        .await?;
    let quorumless = job.committed_so_far()?;

    kill(alive.pid)?;
    lost.kill_jobmanagers().await?;
    let shown = offline_json(&["cluster", "recover", dir]).await?;
    let shown = &shown["survivors"][0];
    assert_eq!(shown["most_advanced"], true, "{shown:#}");
    assert_eq!(
        shown["voters"].as_array().map(Vec::len),
        Some(3),
        "{shown:#}"
    );
    let unaccounted = refusal(&["cluster", "recover", dir, "--yes"]).await?;
    ensure!(unaccounted.contains("may have more"), "{unaccounted}");
    let ids: Vec<String> = dead.iter().map(|member| member.id.to_string()).collect();
    let ahead = format!("{}={}/{}", ids[0], u64::MAX, u64::MAX);
    let ahead = [
        "cluster",
        "recover",
        dir,
        "--survivor",
        &ahead,
        "--lost",
        &ids[1],
        "--yes",
    ];
    let ahead = refusal(&ahead).await?;
    ensure!(ahead.contains("recover there"), "{ahead}");

    let recover = [
        "cluster", "recover", dir, "--lost", &ids[0], "--lost", &ids[1], "--yes",
    ];
    let founded = offline_json(&recover).await?;
    assert_eq!(
        founded["predecessor"],
        lost.cluster_id.as_str(),
        "{founded:#}"
    );
    assert_eq!(founded["first_index"].as_u64(), Some(STRIDE));
    assert_eq!(founded["jobs"][0]["id"], job.id.as_str(), "{founded:#}");
    let aside = founded["set_aside"]
        .as_str()
        .context("nothing was set aside")?;
    ensure!(Path::new(aside).join("log").is_dir(), "{aside}");

    assert_eq!(
        job.committed_so_far()?,
        quorumless,
        "a commit without a quorum"
    );
    let jobmanager =
        JobManager::start_on(Path::new(dir), &alive.address, &lost.logs("recovered"), &[])?;
    let operator = Operator {
        addresses: vec![alive.address.clone()],
    };
    lost.goes_over(&operator).await?;
    let status = operator.json(&["cluster", "status"]).await?;
    assert_eq!(status["cluster_id"], founded["cluster_id"], "{status:#}");
    ensure!(status["epoch"].as_u64() > Some(STRIDE), "{status:#}");

    // A member of the old group finds its data directory as it was, and learns that it has no group.
    let other = lost
        .jobmanagers
        .iter()
        .position(|member| member.pid != alive.pid)
        .context("a dead one")?;
    let address = lost.jobmanagers[other].address.clone();
    for life in ["first", "second"] {
        let mut old = JobManager::start_on(&lost.raft(other), &address, &lost.logs(life), &[])?;
        let log = old.ended(DEADLINE).await?;
        ensure!(log.contains("goes on from the state of cluster"), "{log}");
    }
    let newest = || checkpoints(&operator, &job.id);
    job.cluster
        .until("checkpoints of the new group", DEADLINE, newest, |newest| {
            *newest > STRIDE + 1
        })
        .await?;
    lost.finishes_exactly(&operator).await?;
    ensure!(is_alive(jobmanager.pid()?));
    Ok(())
}

#[tokio::test]
async fn a_backup_is_restored_and_the_old_group_comes_back_in_vain() -> anyhow::Result<()> {
    let _alone = alone().await;
    let lost = Lost::new().await?;
    let job = &lost.job;
    let put = job.cluster.ask(&["kv", "put", "color", "blue"]).await?;
    ensure!(put.code == Some(0), "{put:?}");
    let backup = job.directory.path().join("backup");
    let backup = text(&backup)?;
    let written = job.cluster.json(&["cluster", "backup", backup]).await?;
    assert_eq!(
        written["cluster_id"],
        lost.cluster_id.as_str(),
        "{written:#}"
    );
    assert_eq!(
        (&written["jobs_active"], &written["keys"]),
        (&1.into(), &1.into())
    );
    let again = job.cluster.ask(&["cluster", "backup", backup]).await?;
    ensure!(
        again.code == Some(1) && again.stderr.contains("exists"),
        "{again:?}"
    );
    let verified = offline_json(&["cluster", "verify-backup", backup]).await?;
    assert_eq!(verified["sha256"], written["sha256"]);
    let url = format!("file://{}/in-a-store", job.directory.path().display());
    job.cluster.json(&["cluster", "backup", &url]).await?;
    offline_json(&["cluster", "verify-backup", &url]).await?;
    let mut damaged = std::fs::read(backup)?;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let bad = job.directory.path().join("damaged");
    std::fs::write(&bad, damaged)?;
    let refused = refusal(&["cluster", "verify-backup", text(&bad)?]).await?;
    ensure!(refused.contains("is no usable backup"), "{refused}");

    // What was changed after the backup is not in it; and of the checkpoints that it names none is left.
    let put = job.cluster.ask(&["kv", "put", "color", "red"]).await?;
    ensure!(put.code == Some(0), "{put:?}");
    let known = job.cluster.checkpoints(&job.id).await?;
    let later = job
        .cluster
        .until_checkpoints(&job.id, 3, &known, DEADLINE)
        .await?;

    let address = lost.jobmanagers[0].address.clone();
    let dir = lost.logs("restored").join("raft");
    let restore = [
        "cluster",
        "restore",
        backup,
        "--dir",
        text(&dir)?,
        "--address",
        &address,
    ];
    let refused = refusal(&restore).await?;
    ensure!(refused.contains("still run at"), "{refused}");
    lost.kill_jobmanagers().await?;
    let used = [
        "cluster",
        "restore",
        backup,
        "--dir",
        text(&lost.raft(0))?,
        "--address",
        &address,
    ]
    .map(str::to_owned);
    let used: Vec<&str> = used.iter().map(String::as_str).collect();
    let refused = refusal(&used).await?;
    ensure!(refused.contains("is not empty"), "{refused}");
    let founded = offline_json(&restore).await?;
    let outlook = &founded["jobs"][0];
    assert_eq!(outlook["found_in_storage"], true, "{founded:#}");
    ensure!(
        outlook["checkpoint"].as_u64() >= Some(newest_completed(&later)),
        "{founded:#}"
    );

    let _first = JobManager::start_on(&dir, &address, &lost.logs("restored"), &[])?;
    let mut operator = Operator {
        addresses: vec![address],
    };
    lost.goes_over(&operator).await?;
    let value = flott(
        &flott_binary()?,
        &["kv", "get", "color", "-m", &operator.addresses[0]],
    )
    .await?;
    assert_eq!(value.stdout.trim(), "blue", "{value:?}");

    // Two of three come back on their old data: a quorum of the old group, which TaskManagers can reach and have left.
    let mut old = Vec::new();
    for n in [1, 2] {
        let logs = lost.logs(&format!("old-{n}"));
        let address = &lost.jobmanagers[n].address;
        old.push(JobManager::start_on(&lost.raft(n), address, &logs, &[])?);
    }
    let former = Operator {
        addresses: old.iter().map(|member| member.address.clone()).collect(),
    };
    let status = || former.json(&["cluster", "status", "--timeout", "2 s"]);
    let led = job
        .cluster
        .until(
            "the old group to have a leader",
            DEADLINE,
            status,
            // Before they elect, they take the one whose address has another cluster now for their leader.
            |status| status["leader"].is_u64() && status["cluster_id"] == lost.cluster_id.as_str(),
        )
        .await?;
    ensure!(led["epoch"].as_u64() < Some(STRIDE), "{led:#}");

    // The new group grows meanwhile, and takes nobody of the old one.
    let stranger = [
        "cluster",
        "members",
        "add",
        &old[0].address,
        "-m",
        &operator.addresses[0],
    ];
    let refused = refusal(&stranger).await?;
    ensure!(refused.contains("already belongs"), "{refused}");
    let fresh = JobManager::start(&lost.logs("fresh"), &[])?;
    let pristine = Operator {
        addresses: vec![fresh.address.clone()],
    };
    let answers = || pristine.json(&["cluster", "status", "--timeout", "1 s"]);
    job.cluster
        .until("the new JobManager to answer", DEADLINE, answers, |_| true)
        .await?;
    let added = operator
        .json(&["cluster", "members", "add", &fresh.address, "--promote"])
        .await?;
    assert_eq!(added["voter"], true, "{added:#}");
    operator.addresses.push(fresh.address.clone());

    lost.finishes_exactly(&operator).await?;
    let status = status().await?;
    assert_eq!(
        status["taskmanagers"].as_array().map(Vec::len),
        Some(0),
        "{status:#}"
    );
    for member in &old {
        ensure!(
            is_alive(member.pid()?),
            "the old group was alive all the time"
        );
    }
    Ok(())
}
