//! A job whose checkpoints lie on S3, while the S3 server does everything that such a server may do: a checkpoint is right or
//! fails, the job goes on, and its result is exact.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use flott_chaos_tests::cluster::processes::kill;
use flott_node::testing::{ACCESS_KEY, BUCKET, Call, Fault, Operation, S3Server, SECRET_KEY};
use serde_json::Value;

use crate::alone;
use crate::job::{DEADLINE, RunningJob, all_running};

/// A fault hits one in so many requests that it can hit.
const EVERY: usize = 3;
/// As often as each fault has to hit.
const HITS: usize = 3;
/// Requests that get no answer: each holds up its upload until the checkpoint expires.
const UNANSWERED_MAX: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_storage_does_the_job_goes_on_and_finishes_exactly() -> anyhow::Result<()> {
    let _alone = alone().await;
    let server = S3Server::start().await;
    let job = on(&server).await?;
    for fault in [
        Fault::Status(500),
        Fault::Status(503),
        Fault::Status(429),
        Fault::Status(403),
        Fault::Slow(Duration::from_millis(100)),
        Fault::Reset,
        Fault::FlippedBit,
        Fault::NoAnswer,
    ] {
        takes_checkpoints_after(&job, &server, fault)
            .await
            .with_context(|| format!("{fault:?}"))?;
    }
    for fault in [Fault::Status(503), Fault::Reset, Fault::FlippedBit] {
        restores_in_spite_of(&job, &server, fault)
            .await
            .with_context(|| format!("{fault:?} of what is read"))?;
    }
    let verified = job.cluster.ask(&["checkpoints", "verify", &job.id]).await?;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    job.finishes_exactly().await?;
    leaves_nothing_behind(&job, &server).await
}

/// A job with checkpoints at that server, which tolerates that some fail.
async fn on(server: &S3Server) -> anyhow::Result<RunningJob> {
    let environment = [
        ("AWS_ENDPOINT", server.url()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
    ];
    let directory = format!("execution.checkpointing.dir=s3://{BUCKET}/flott");
    let settings = [
        directory.as_str(),
        "execution.checkpointing.timeout=3s",
        "execution.checkpointing.tolerable-failed-checkpoints=1000",
        "restart-strategy.exponential-delay.max-backoff=100ms",
        "state.backend.local-recovery=false",
    ];
    let arguments = settings.iter().flat_map(|setting| ["-D", *setting]);
    let arguments: Vec<&str> = ["--respawn"].into_iter().chain(arguments).collect();
    RunningJob::in_environment(&arguments, &environment).await
}

/// The fault hits again and again; once it is over, checkpoints complete, and all tasks run on as they did.
async fn takes_checkpoints_after(
    job: &RunningJob,
    server: &S3Server,
    fault: Fault,
) -> anyhow::Result<()> {
    let cluster = &job.cluster;
    let before = job.tasks_once_running().await?;
    let failed_before = last_failed(&cluster.info(&job.id).await?);
    let hits = plan(server, fault, move |call| match fault {
        // A leader gives `_metadata` up no sooner than the storage's own deadline, which is half a minute.
        Fault::NoAnswer => call.operation == Operation::Put && call.path.contains("/shared/"),
        _ => true,
    });
    let enough = if fault == Fault::NoAnswer {
        UNANSWERED_MAX
    } else {
        HITS
    };
    until_hit(job, &hits, enough).await?;
    // Asking again helps against the others.
    if matches!(fault, Fault::Status(403) | Fault::NoAnswer) {
        let fails = |info: &Value| last_failed(info) > failed_before;
        let info = || cluster.info(&job.id);
        cluster
            .until("a checkpoint to fail", DEADLINE, info, fails)
            .await?;
    }
    server.heal();
    let known = cluster.checkpoints(&job.id).await?;
    cluster
        .until_checkpoints(&job.id, 2, &known, DEADLINE)
        .await?;
    anyhow::ensure!(
        job.tasks_once_running().await? == before,
        "a task was started again"
    );
    job.committed_so_far().map(drop)
}

/// The newest checkpoint that came to nothing; 0 for none.
fn last_failed(info: &Value) -> u64 {
    let events = info["events"].as_array().into_iter().flatten();
    let failed = events.filter(|event| event["event"] == "CHECKPOINT_FAILED");
    let ids = failed.filter_map(|event| event["checkpoint"].as_u64());
    ids.max().unwrap_or(0)
}

/// The job is started again while what it reads comes with the fault.
async fn restores_in_spite_of(
    job: &RunningJob,
    server: &S3Server,
    fault: Fault,
) -> anyhow::Result<()> {
    let cluster = &job.cluster;
    let attempt = job.tasks_once_running().await?.attempt;
    let hits = plan(server, fault, |call| call.operation == Operation::Get);
    kill(cluster.members()?.taskmanagers[0].pid)?;
    let again = |info: &Value| info["attempt"].as_u64() > Some(attempt) && all_running(info);
    let info = || cluster.info(&job.id);
    cluster
        .until("a new attempt", DEADLINE, info, again)
        .await?;
    until_hit(job, &hits, 1).await?;
    server.heal();
    let known = cluster.checkpoints(&job.id).await?;
    cluster
        .until_checkpoints(&job.id, 1, &known, DEADLINE)
        .await?;
    job.committed_so_far().map(drop)
}

/// From now on one in [`EVERY`] of the requests that `may_hit` comes to grief; how many have. Bits are flipped once in each
/// object: what comes damaged three times in a row is taken to be damaged where it lies.
fn plan(
    server: &S3Server,
    fault: Fault,
    may_hit: impl Fn(&Call) -> bool + Send + Sync + 'static,
) -> Arc<AtomicUsize> {
    let (seen, hits) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&hits);
    let flipped = Mutex::new(BTreeSet::new());
    server.plan(move |call| {
        let is_over = fault == Fault::NoAnswer && counted.load(Ordering::Relaxed) >= UNANSWERED_MAX;
        if is_over || !may_hit(call) || seen.fetch_add(1, Ordering::Relaxed) % EVERY != 0 {
            return None;
        }
        if fault == Fault::FlippedBit
            && !flipped
                .lock()
                .is_ok_and(|mut all| all.insert(call.path.clone()))
        {
            return None;
        }
        counted.fetch_add(1, Ordering::Relaxed);
        Some(fault)
    });
    hits
}

async fn until_hit(job: &RunningJob, hits: &AtomicUsize, enough: usize) -> anyhow::Result<()> {
    let count = || async { Ok(hits.load(Ordering::Relaxed)) };
    let wanted = format!("{enough} requests that come to grief");
    let hit = |count: &usize| *count >= enough;
    job.cluster.until(&wanted, DEADLINE, count, hit).await?;
    Ok(())
}

/// After a clean-up the bucket is empty. A listing that is behind finds less, and nothing that is not so.
async fn leaves_nothing_behind(job: &RunningJob, server: &S3Server) -> anyhow::Result<()> {
    let cluster = &job.cluster;
    let gc = ["checkpoints", "gc", &job.id, "--yes"];
    let list = |call: &Call| call.operation == Operation::List;
    server.plan(move |call| list(call).then_some(Fault::StaleList));
    cluster.json(&gc).await?;
    assert!(server.calls().iter().any(list), "gc lists");
    server.heal();
    cluster.json(&gc).await?;
    let storage = server.storage();
    let objects = || async { Ok(storage.list("flott").await?) };
    cluster
        .until("the last object to go", DEADLINE, objects, Vec::is_empty)
        .await?;
    assert_eq!(server.orphaned_parts(), 0);
    Ok(())
}
