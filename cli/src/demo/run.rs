//! One run of the demo, from an empty directory to a verdict.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use flott_node::Transport;
use flott_proto::ids::{JobId, Namespace};
use flott_proto::wire::SubmitJobRequest;
use flott_sql::{Compiled, PlanOptions};

use super::Setup;
use super::course::Course;
use super::observe::Observer;
use super::plan::KillPlan;
use super::verdict::Verdict;
use super::view::View;
use crate::client::Client;
use crate::local::{LocalCluster, LocalOptions};

/// The job; what is in braces is filled in.
const JOB: &str = include_str!("../../../deploy/demo/job.sql");
pub(super) const JOBMANAGERS: u32 = 3;
const TASKMANAGERS: u32 = 2;
const SLOTS: u32 = 2;
const PARALLELISM: u32 = 4;
const MAX_PARALLELISM: u32 = 128;
/// For a leader after the start, and for taking a submission.
const PATIENCE: Duration = Duration::from_secs(30);

/// The user pressed Ctrl-C.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(super) struct Interrupted;

/// Runs the main job once under `directory`, which is empty, with the kills of `seed`. Whatever comes of it, no process
/// is left.
pub(super) async fn run_once<W: Write>(
    setup: &Setup,
    directory: &Path,
    seed: u64,
    view: &mut View<W>,
) -> anyhow::Result<Verdict> {
    let output = directory.join("out");
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let cluster = tokio::select! {
        cluster = start_cluster(setup, directory) => cluster?,
        _ = &mut interrupt => bail!(Interrupted),
    };
    let run = async {
        let addresses = cluster.jobmanager_addresses();
        let job_id = submit(setup, &addresses, &output).await?;
        let clock = setup.clock.clone();
        let observer = Observer::new(&addresses, Namespace::DEFAULT, &job_id, clock)?;
        let plan = KillPlan::from_seed(seed);
        let text = format!("job {job_id} submitted; {plan}");
        view.event(observer.elapsed(), &text)?;
        let course = Course::new(setup, &cluster, &observer, plan, view);
        course.run(&format!("Flott demo, seed {seed}")).await
    };
    let ended = tokio::select! {
        ended = run => ended,
        _ = &mut interrupt => Err(Interrupted.into()),
    };
    // Stopped first: what is compared is what lies there when nothing of Flott runs any more.
    cluster.stop().await;
    let mut ended = ended?;
    let comparison = setup.expected.compare_with(&output)?;
    for difference in &comparison.differences {
        view.event(ended.last.at, difference)?;
    }
    ended.seen.find_checkpoint_hit();
    let summary = ended.last.job.as_ref().and_then(|job| job.summary.as_ref());
    let verdict = Verdict {
        seed,
        passed: false,
        failures: Vec::new(),
        job_state: ended.last.state().to_owned(),
        restarts: summary.map_or(0, |summary| summary.restarts),
        seconds: ended.last.at.as_secs_f64(),
        comparison,
        checkpoints: ended.seen.figures(&ended.last),
        leader_failover: ended.seen.failover,
        worker_recovery: ended.seen.recovery,
    };
    Ok(verdict.judge())
}

async fn start_cluster(setup: &Setup, directory: &Path) -> anyhow::Result<LocalCluster> {
    let options = LocalOptions {
        dir: directory.join("cluster"),
        jobmanagers: JOBMANAGERS,
        taskmanagers: TASKMANAGERS,
        slots: SLOTS,
        overrides: BTreeMap::new(),
        tls: false,
        respawn: false,
        executable: setup.executable.clone(),
    };
    LocalCluster::start(options)
        .await
        .context("the cluster did not start")
}

/// Compiles and submits the job; its id.
async fn submit(setup: &Setup, addresses: &[String], output: &Path) -> anyhow::Result<String> {
    let script = JOB
        .replace("{input}", &setup.data.display().to_string())
        .replace("{output}", &output.display().to_string())
        .replace("{rows_per_second}", &setup.rows_per_second.to_string());
    let options = PlanOptions {
        default_parallelism: PARALLELISM,
        max_parallelism: MAX_PARALLELISM,
        job_name: Some("delays".to_owned()),
    };
    let Compiled::Job {
        graph,
        mut configuration,
    } = flott_sql::compile(&script, &options)?
    else {
        bail!("the demo's job is an EXPLAIN");
    };
    configuration.insert(
        "execution.checkpointing.interval".to_owned(),
        "1s".to_owned(),
    );
    let job_id = JobId::generate();
    let request = SubmitJobRequest {
        namespace: Namespace::DEFAULT.to_owned(),
        job_id: job_id.to_string(),
        graph: Some((&graph).into()),
        configuration: configuration.into_iter().collect(),
        ..Default::default()
    };
    let client = Client::new(
        addresses.to_vec(),
        PATIENCE,
        Transport::loopback(),
        setup.clock.clone(),
    )?;
    client
        .submit(request)
        .await
        .context("the job was not accepted")
}
