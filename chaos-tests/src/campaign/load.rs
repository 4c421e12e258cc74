//! The workloads of a run, as tasks that go on until they are told to stop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use flott_chaos_basis::random::Random;
use flott_chaos_basis::sequence::Sequence;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::observe::Observer;
use super::plan::Plan;
use super::queries::queries;
use crate::history::Operation;
use crate::invariants::jobs::Event;
use crate::target::client::Client;
use crate::workload::reference::queries::Query;
use crate::workload::reference::{Pass, Reference};
use crate::workload::registers::{Client as RegisterClient, Kind, Registers};

/// Begins the names of all jobs of a run.
pub const NAME: &str = "chaos";
/// For a reference query without faults.
const REFERENCE_BOUND: Duration = Duration::from_secs(180);
/// Registers that clients meet at.
const KEYS: u32 = 8;
/// Clients of each kind.
const REGISTER_CLIENTS: [(Kind, u32); 3] =
    [(Kind::Hasty, 5), (Kind::Repeating, 3), (Kind::Patient, 3)];
/// Between the end of a small job and the next.
const JOB_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(1_500));
/// Events of a small job, and how many a second: it lives for two seconds.
const JOB_EVENTS: (u64, u64) = (2_000, 1_000);

/// A sequence job that was accepted.
#[derive(Clone, Debug)]
pub struct SequenceJob {
    #[expect(missing_docs, reason = "its name says it")]
    pub id: String,
    /// Where it commits to.
    pub output: PathBuf,
    #[expect(missing_docs, reason = "its name says it")]
    pub sequence: Sequence,
}

/// Submits a job, and records what came of it; its id.
async fn submit(
    client: &Client,
    observer: &Observer,
    sql: &str,
    file: &Path,
    name: String,
    parallelism: u32,
) -> anyhow::Result<String> {
    let submitted = client.submit(sql, file, &name, parallelism, &[]).await;
    observer.record(Event::Submitted {
        name,
        id: submitted.as_ref().ok().cloned(),
        ended_ms: observer.now_ms(),
    });
    submitted
}

/// Submits the sequence job. Its name tells this run from others on the same cluster.
pub async fn sequence(
    client: &Client,
    observer: &Observer,
    directory: &Path,
    run: &str,
    sequence: Sequence,
    parallelism: u32,
) -> anyhow::Result<SequenceJob> {
    let output = directory.join("out");
    let (name, file) = (format!("{NAME}-seq-{run}"), directory.join("seq.sql"));
    let sql = sequence.sql(&output);
    let id = submit(client, observer, &sql, &file, name, parallelism)
        .await
        .context("the sequence job was not accepted")?;
    Ok(SequenceJob {
        id,
        output,
        sequence,
    })
}

/// Runs the reference queries of a plan without faults to their ends, then submits them again, slowly; the second jobs' ids.
pub async fn reference(
    client: &Client,
    observer: &Observer,
    directory: &Path,
    run: &str,
    plan: &Plan,
    length: Duration,
) -> anyhow::Result<BTreeMap<Query, String>> {
    let queries = queries(plan);
    let reference = Reference::prepare(directory, plan.seed, &queries)?;
    let submit_all = async |pass: Pass| {
        let mut jobs = BTreeMap::new();
        for query in &queries {
            let (sql, file) = (reference.sql(*query, pass), reference.script(*query, pass));
            let name = format!("{NAME}-{}-{query}-{run}", pass.word());
            let submitted = submit(client, observer, &sql, &file, name, query.parallelism());
            let id = submitted.await;
            let id = id.with_context(|| format!("the query {query} was not accepted"))?;
            jobs.insert(*query, id);
        }
        anyhow::Ok(jobs)
    };
    for (query, job) in submit_all(Pass::Undisturbed).await? {
        let what = format!("the query {query} without faults");
        let info = async || client.info(&job).await;
        let has_ended = |info: &Value| info["state"] == "FINISHED";
        client
            .until(&what, REFERENCE_BOUND, info, has_ended)
            .await?;
    }
    submit_all(Pass::Disturbed(length)).await
}

/// Registers that nobody has written yet.
pub fn registers(client: &Client, run: &str) -> Arc<Registers> {
    let prefix = format!("{NAME}/{run}/");
    Registers::at(KEYS, client.addresses(), &prefix, client.clock.clone())
}

/// Clients of the registers; each ends with what it did.
pub fn work_registers(
    registers: &Arc<Registers>,
    random: &mut Random,
    stop: &CancellationToken,
) -> JoinSet<Vec<Operation>> {
    let kinds = REGISTER_CLIENTS
        .into_iter()
        .flat_map(|(kind, count)| (0..count).map(move |_| kind));
    let mut clients = JoinSet::new();
    for (number, kind) in (1..).zip(kinds) {
        let client = RegisterClient::new(registers, number, kind, random.fork());
        clients.spawn(client.run(stop.clone()));
    }
    clients
}

/// Submits small jobs, one after the other, and cancels half of them.
pub async fn work_jobs(
    client: Arc<Client>,
    observer: Arc<Observer>,
    directory: PathBuf,
    run: String,
    mut random: Random,
    stop: CancellationToken,
) {
    let mut number = 0_u64;
    while !stop.is_cancelled() {
        number += 1;
        let name = format!("{NAME}-job-{run}-{number}");
        let file = directory.join("small.sql");
        let submitted = submit(&client, &observer, &small_job(), &file, name, 1).await;
        let pause = random.duration(JOB_PAUSE.0, JOB_PAUSE.1);
        client.clock.sleep(pause).await;
        if let Ok(id) = submitted
            && random.percent(50)
            && client.json(&["cancel", &id]).await.is_ok()
        {
            observer.record(Event::Canceled {
                id,
                ended_ms: observer.now_ms(),
            });
        }
    }
}

fn small_job() -> String {
    let (events, rate) = JOB_EVENTS;
    format!(
        "CREATE TABLE bids (auction BIGINT, price BIGINT) WITH ('connector' = 'nexmark', 'nexmark.table-type' = 'bid',
  'nexmark.events' = '{events}', 'nexmark.events-per-second' = '{rate}');
CREATE TABLE nowhere (auction BIGINT, price BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO nowhere SELECT auction, price FROM bids;
"
    )
}
