//! What jobs cost the JobManagers: the loss of a leader, memory and time, with few jobs and with many.
//!
//! Real jobs on real TaskManagers: each is a source of one event a second on one slot, with checkpoints. The leader is
//! killed, and the clock stops when another one knows of every job that its task runs. No job may have been started again.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use flott_cli::client::Client;
use flott_node::{SharedClock, Transport};
use futures::StreamExt;
use futures::stream;

use super::until;
use crate::cluster::{Cluster, Member, processes};
use crate::report::Durations;

/// How much there is to coordinate.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// In all.
    pub jobs: u32,
    /// Over which they are spread evenly.
    pub namespaces: u32,
}

/// What that costs.
#[derive(Debug)]
pub struct Figures {
    /// From the kill to the first answer that names another leader.
    pub elected: Durations,
    /// From the kill until the new leader has heard of every job that all its tasks run.
    pub adopted: Durations,
    /// Resident memory of the leader before it was killed, bytes.
    pub leader_bytes: u64,
    /// Largest of the others, bytes.
    pub follower_bytes: u64,
    /// Processor time that the leader used while nothing happened but checkpoints, in thousandths of a core.
    pub leader_millicores: u64,
    /// Jobs that were started again although their tasks ran.
    pub restarted: usize,
}

const TASK_MANAGERS: u32 = 2;
/// Jobs that are submitted, or asked about, at once.
const AT_ONCE: usize = 8;
/// For all jobs to run. A debug build needs a tenth of a second to submit one.
const STARTED: Duration = Duration::from_secs(600);
/// For another leader to have heard of everything.
const ADOPTED: Duration = Duration::from_secs(60);
/// For which the leader is watched.
const WATCHED: Duration = Duration::from_secs(10);
/// For a call.
const PATIENCE: Duration = Duration::from_secs(10);

const SQL: &str = "
CREATE TABLE bids (auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, date_time TIMESTAMP(3),
  extra STRING, WATERMARK FOR date_time AS date_time - INTERVAL '4' SECOND)
WITH ('connector' = 'nexmark', 'nexmark.table-type' = 'bid', 'nexmark.events-per-second' = '1');
CREATE TABLE nowhere (auction BIGINT, price BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO nowhere SELECT auction, price FROM bids;
";

/// Runs `size.jobs` jobs and kills the leader `kills` times.
pub async fn run(
    size: Size,
    kills: u32,
    directory: &Path,
    clock: &SharedClock,
    mut told: impl FnMut(&str),
) -> anyhow::Result<Figures> {
    let slots = size.jobs.div_ceil(TASK_MANAGERS).to_string();
    let arguments = ["--respawn", "--taskmanagers", "2", "--slots", &slots];
    let cluster = Cluster::start(directory, &arguments).await?;
    let client = client(&cluster, clock)?;
    let namespaces: Vec<String> = (0..size.namespaces)
        .map(|n| format!("tenant-{n}"))
        .collect();
    for namespace in &namespaces {
        client
            .create_namespace(namespace, Default::default())
            .await?;
    }
    told(&format!(
        "starting {} jobs in {} namespaces",
        size.jobs, size.namespaces
    ));
    let jobs = submit_all(&cluster, size, &namespaces).await?;
    until(clock, STARTED, async || running(&client, &jobs).await).await?;
    let mut figures = Figures {
        elected: Durations::default(),
        adopted: Durations::default(),
        leader_bytes: 0,
        follower_bytes: 0,
        leader_millicores: 0,
        restarted: 0,
    };
    for kill in 1..=kills {
        let leader = cluster.leader(ADOPTED).await?;
        let before = processes::usage(leader.pid)?;
        let since = clock.monotonic();
        clock.sleep(WATCHED).await;
        let usage = processes::usage(leader.pid)?;
        let took = clock.monotonic() - since;
        let busy = usage.processor.saturating_sub(before.processor).as_millis() * 1000;
        let millicores = busy / took.as_millis().max(1);
        figures.leader_millicores = figures.leader_millicores.max(millicores as u64);
        figures.leader_bytes = figures.leader_bytes.max(usage.resident_bytes);
        for other in others(&cluster, &leader)? {
            let resident = processes::usage(other.pid)?.resident_bytes;
            figures.follower_bytes = figures.follower_bytes.max(resident);
        }
        let (elected, adopted) = kill_leader(&cluster, &leader, &jobs, clock).await?;
        told(&format!(
            "{kill} of {kills}: elected after {elected:?}, all adopted after {adopted:?}"
        ));
        figures.elected.push(elected);
        figures.adopted.push(adopted);
    }
    for (namespace, id) in &jobs {
        let job = client.describe(namespace, id).await?;
        let summary = job.summary.unwrap_or_default();
        figures.restarted += usize::from(summary.attempt != 1 || summary.restarts != 0);
    }
    cluster.kill_everything().await?;
    Ok(figures)
}

fn client(cluster: &Cluster, clock: &SharedClock) -> anyhow::Result<Client> {
    let members = cluster.addresses()?.split(',').map(str::to_owned).collect();
    Ok(Client::new(
        members,
        PATIENCE,
        Transport::loopback(),
        clock.clone(),
    )?)
}

fn others(cluster: &Cluster, leader: &Member) -> anyhow::Result<Vec<Member>> {
    let members = cluster.members()?.jobmanagers;
    Ok(members
        .into_iter()
        .filter(|member| member.address != leader.address)
        .collect())
}

/// Namespace and id of each job.
type Jobs = Vec<(String, String)>;

/// As a user would, by the command line.
async fn submit_all(cluster: &Cluster, size: Size, namespaces: &[String]) -> anyhow::Result<Jobs> {
    let file = cluster.directory().join("many-jobs.sql");
    std::fs::write(&file, SQL)?;
    let file = file.to_string_lossy().into_owned();
    let file = file.as_str();
    let submit = |number: u32| async move {
        let namespace = &namespaces[number as usize % namespaces.len()];
        let arguments = [
            "run", "-d", "-f", file, "-z", namespace, "-p", "1", "--name", "many",
        ];
        let answer = cluster.json(&arguments).await?;
        let id = answer["id"].as_str().context("no id")?.to_owned();
        Ok((namespace.clone(), id))
    };
    let submitted = stream::iter(0..size.jobs)
        .map(submit)
        .buffer_unordered(AT_ONCE);
    let submitted: Vec<anyhow::Result<_>> = submitted.collect().await;
    submitted.into_iter().collect()
}

/// Whether whoever leads has heard that all tasks of all jobs run.
async fn running(client: &Client, jobs: &Jobs) -> Result<(), String> {
    let look = |(namespace, id): &(String, String)| {
        let (namespace, id) = (namespace.clone(), id.clone());
        async move {
            let job = client.describe(&namespace, &id).await;
            let job = job.map_err(|error| error.to_string())?;
            let mut tasks = job
                .vertices
                .iter()
                .flat_map(|vertex| &vertex.tasks)
                .peekable();
            let all = tasks.peek().is_some() && tasks.all(|task| task.state == "RUNNING");
            match all {
                true => Ok(()),
                false => Err(format!("job {id} does not run: {:?}", job.summary)),
            }
        }
    };
    let mut looks = stream::iter(jobs).map(look).buffered(AT_ONCE);
    while let Some(look) = looks.next().await {
        look?;
    }
    Ok(())
}

/// Kills it; when another one led, and when that had heard of everything.
async fn kill_leader(
    cluster: &Cluster,
    leader: &Member,
    jobs: &Jobs,
    clock: &SharedClock,
) -> anyhow::Result<(Duration, Duration)> {
    let members: Vec<String> = others(cluster, leader)?
        .into_iter()
        .map(|member| member.address)
        .collect();
    let client = Client::new(members, PATIENCE, Transport::loopback(), clock.clone())?;
    let begin = clock.monotonic();
    processes::kill_if_alive(leader.pid)?;
    until(clock, ADOPTED, async || match client.status().await {
        Ok(status) if status.leader != 0 && status.leader_address != leader.address => Ok(()),
        other => Err(format!("nobody leads: {other:?}")),
    })
    .await?;
    let elected = clock.monotonic() - begin;
    until(clock, ADOPTED, async || running(&client, jobs).await).await?;
    let adopted = clock.monotonic() - begin;
    let back = |members: &crate::cluster::Members| {
        members
            .jobmanagers
            .iter()
            .all(|member| processes::is_alive(member.pid))
    };
    let members = || async { cluster.members() };
    cluster
        .until("the killed member to be back", ADOPTED, members, back)
        .await?;
    Ok((elected, adopted))
}
