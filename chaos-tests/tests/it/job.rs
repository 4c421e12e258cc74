//! A cluster with one job on it: what most tests here begin with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use flott_chaos_tests::cluster::processes::kill;
use flott_chaos_tests::cluster::{Cluster, Member};
use flott_chaos_tests::invariants::committed::Results;
use flott_chaos_tests::workload::flights::{self, Flights};
use serde_json::Value;
use tempfile::TempDir;

/// Enough for anything that works, on two cores and with a debug build.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Rows and pace of a job that lives for about eight seconds: long enough to be killed in, over ten checkpoints.
const PACED: (u64, u64) = (8_000, 1_000);

/// Of a job that outlives what is done to its JobManagers: four minutes.
const LONG: (u64, u64) = (240_000, 1_000);

/// Of a job that is killed at many places, one after the other, which takes about ten seconds.
const STEADY: (u64, u64) = (25_000, 1_000);

/// Of a job whose storage fails it in many ways, which takes half a minute.
const TROUBLED: (u64, u64) = (50_000, 1_000);

/// A running cluster and a job on it whose right result is known.
pub(crate) struct RunningJob {
    pub(crate) cluster: Cluster,
    pub(crate) id: String,
    pub(crate) expected: Results,
    pub(crate) output: PathBuf,
    pub(crate) directory: TempDir,
}

/// `flott local` under `directory`, with checkpoints often enough for these tests to be quick.
pub(crate) async fn start_cluster(directory: &Path, further: &[&str]) -> anyhow::Result<Cluster> {
    start_cluster_in(directory, further, &[]).await
}

async fn start_cluster_in(
    directory: &Path,
    further: &[&str],
    environment: &[(&str, &str)],
) -> anyhow::Result<Cluster> {
    let mut arguments = vec!["-D", "execution.checkpointing.interval=300ms"];
    arguments.extend(further);
    Cluster::start_in(&directory.join("cluster"), &arguments, environment).await
}

impl RunningJob {
    /// What nobody needs of the job's files is found and deleted, and then nothing is left of it.
    pub(crate) async fn collects_all_orphans(&self) -> anyhow::Result<()> {
        let gc = |flag| ["checkpoints", "gc", &self.id, flag];
        self.cluster.json(&gc("--yes")).await?;
        let left = self.cluster.json(&gc("--dry-run")).await?;
        assert_eq!(left["count"], 0, "{left:#}");
        Ok(())
    }

    /// Starts a cluster with `flott local … <further>` and a job at parallelism 4 that reads for some seconds; waits
    /// until it runs and has two checkpoints.
    pub(crate) async fn paced(further: &[&str]) -> anyhow::Result<Self> {
        Self::running(PACED, further, &[]).await
    }

    /// The same with a job that goes on until it is canceled.
    pub(crate) async fn long(further: &[&str]) -> anyhow::Result<Self> {
        Self::running(LONG, further, &[]).await
    }

    /// The same with a job that reads for half a minute.
    pub(crate) async fn steady(further: &[&str]) -> anyhow::Result<Self> {
        Self::running(STEADY, further, &[]).await
    }

    /// A job of nearly a minute, on a cluster whose processes have this environment.
    pub(crate) async fn in_environment(
        further: &[&str],
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        Self::running(TROUBLED, further, environment).await
    }

    async fn running(
        (rows, pace): (u64, u64),
        further: &[&str],
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let job = Self::submit_in(rows, pace, further, environment).await?;
        job.cluster
            .until_checkpoints(&job.id, 2, &[], DEADLINE)
            .await?;
        Ok(job)
    }

    /// The same with `rows` at `rows_per_second` (0: no limit), and without waiting for anything.
    pub(crate) async fn submit(
        rows: u64,
        rows_per_second: u64,
        further: &[&str],
    ) -> anyhow::Result<Self> {
        Self::submit_in(rows, rows_per_second, further, &[]).await
    }

    /// The same at parallelism 2, with sinks that take `rows_per_second` each of what is read as fast as it goes: the rows
    /// wait before them, and with few sinks the sources wait, too.
    pub(crate) async fn with_slow_sinks(
        rows: u64,
        rows_per_second: u64,
        further: &[&str],
    ) -> anyhow::Result<Self> {
        let pace = format!("pipeline.sink.rows-per-second={rows_per_second}");
        let further = [further, &["-D", &pace]].concat();
        Self::submit_at("2", rows, 0, &further, &[]).await
    }

    async fn submit_in(
        rows: u64,
        rows_per_second: u64,
        further: &[&str],
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        Self::submit_at("4", rows, rows_per_second, further, environment).await
    }

    async fn submit_at(
        parallelism: &str,
        rows: u64,
        rows_per_second: u64,
        further: &[&str],
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let (input, output) = (
            directory.path().join("flights.csv"),
            directory.path().join("out"),
        );
        let flights = Flights::new(rows);
        flights.write_csv(&input)?;
        let cluster = start_cluster_in(directory.path(), further, environment).await?;
        let id = cluster
            .submit(
                &flights::sql(&input, &output, rows_per_second),
                &["-p", parallelism],
            )
            .await?;
        Ok(Self {
            cluster,
            id,
            expected: flights.expected(),
            output,
            directory,
        })
    }

    /// What runs where: attempt and TaskManager of every task, once all run.
    pub(crate) async fn tasks_once_running(&self) -> anyhow::Result<Tasks> {
        let info = self
            .cluster
            .until(
                "all tasks to run",
                DEADLINE,
                || self.cluster.info(&self.id),
                all_running,
            )
            .await?;
        Tasks::of(&info)
    }

    /// Kills these JobManagers. Fails unless the job completes a checkpoint thereafter, and every task runs on as it did.
    pub(crate) async fn runs_on_without(&self, killed: &[Member]) -> anyhow::Result<()> {
        let before = self.tasks_once_running().await?;
        let known = self.cluster.checkpoints(&self.id).await?;
        for member in killed {
            kill(member.pid)?;
        }
        self.cluster
            .until_checkpoints(&self.id, 1, &known, DEADLINE)
            .await?;
        let after = self.tasks_once_running().await?;
        anyhow::ensure!(
            after == before,
            "{before:?} before the death of {killed:?}, {after:?} after it"
        );
        Ok(())
    }

    /// Waits for the end; the committed result must be exact. The job as it ended.
    pub(crate) async fn finishes_exactly(&self) -> anyhow::Result<Value> {
        let terminal = |info: &Value| {
            matches!(
                info["state"].as_str(),
                Some("FINISHED" | "FAILED" | "CANCELED")
            )
        };
        let ended = self
            .cluster
            .until(
                "the job's end",
                DEADLINE,
                || self.cluster.info(&self.id),
                terminal,
            )
            .await?;
        anyhow::ensure!(ended["state"] == "FINISHED", "the job ended as {ended:#}");
        Results::committed(&self.output)?.check_exactly(&self.expected)?;
        Ok(ended)
    }

    /// What is committed by now, which must be part of the expected result.
    pub(crate) fn committed_so_far(&self) -> anyhow::Result<Results> {
        let results = Results::committed(&self.output)?;
        results.check_part_of(&self.expected)?;
        Ok(results)
    }
}

/// Attempt, and where each task runs: `vertex/subtask` → (TaskManager, attempt).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tasks {
    pub(crate) attempt: u64,
    pub(crate) placements: Vec<(String, String, u64)>,
}

impl Tasks {
    pub(crate) fn of(info: &Value) -> anyhow::Result<Self> {
        let mut placements = Vec::new();
        for (vertex, task) in tasks(info) {
            let place = task["taskmanager"]
                .as_str()
                .context("a task without taskmanager")?;
            let attempt = task["attempt"].as_u64().context("a task without attempt")?;
            placements.push((
                format!("{}/{}", vertex["id"], task["subtask"]),
                place.to_owned(),
                attempt,
            ));
        }
        Ok(Self {
            attempt: info["attempt"].as_u64().context("a job without attempt")?,
            placements,
        })
    }
}

/// Whether the job has tasks and all of them run or have read all input.
pub(crate) fn all_running(info: &Value) -> bool {
    let mut states = tasks(info)
        .map(|(_, task)| task["state"].as_str().unwrap_or_default())
        .peekable();
    states.peek().is_some() && states.all(|state| matches!(state, "RUNNING" | "END_OF_DATA"))
}

fn tasks(info: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    let vertices = info["vertices"].as_array().into_iter().flatten();
    vertices.flat_map(|vertex| {
        vertex["tasks"]
            .as_array()
            .into_iter()
            .flatten()
            .map(move |task| (vertex, task))
    })
}
