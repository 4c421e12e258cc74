//! The exchange by itself: two of them in one process, connected over TCP, without TaskManagers around.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use flott_node::tls::Role;
use flott_node::tls::authority::{Authority, Validity};
use flott_node::{SystemClock, Tasks, Transport};
use flott_proto::ids::{AttemptNumber, CheckpointId, LeaderEpoch, SubtaskId};
use flott_proto::job_graph::{
    Edge, JobGraph, Operator, OperatorKind, Partitioning, Schema, Sink, Vertex,
};
use flott_proto::wire::CheckpointKind;
use flott_worker::Error;
use flott_worker::network::attempt::{self, AttemptId, AttemptNetwork, TaskEnds};
use flott_worker::network::exchange::Exchange;
use flott_worker::network::gate::InputGate;
use flott_worker::network::partition::Output;
use flott_worker::network::topology::{Location, Locations};
use flott_worker::network::{Barrier, Element};
use flott_worker::operators::Collector;
use flott_worker::task::mailbox::Mailbox;

use super::runtime_cluster::JOB;

const PATIENCE: Duration = Duration::from_secs(20);
const BATCH_ROWS: i64 = 4096;
/// Many times what a channel's credit holds.
const BATCHES: i64 = 100;

fn graph() -> JobGraph {
    let vertex = |uid: &str| Vertex {
        uid: uid.parse().unwrap(),
        name: uid.into(),
        parallelism: 1,
        max_parallelism: 8,
        chain: vec![Operator {
            uid: format!("{uid}-operator"),
            name: uid.into(),
            output: Schema::default(),
            kind: OperatorKind::Sink(Sink::Blackhole),
        }],
    };
    JobGraph {
        name: "network".into(),
        vertices: vec![vertex("from"), vertex("to")],
        edges: vec![Edge {
            source: "from".parse().unwrap(),
            target: "to".parse().unwrap(),
            partitioning: Partitioning::Forward,
        }],
    }
}

fn subtask(vertex: &str) -> SubtaskId {
    SubtaskId {
        vertex: vertex.parse().unwrap(),
        subtask: 0,
    }
}

async fn exchange(name: &str, tasks: &Tasks) -> Arc<Exchange> {
    exchange_over(Transport::loopback(), name, tasks).await
}

async fn exchange_over(transport: Transport, name: &str, tasks: &Tasks) -> Arc<Exchange> {
    let clock = SystemClock::shared();
    let name = name.parse().unwrap();
    Exchange::bind(name, "127.0.0.1", 0, transport, tasks.clone(), clock)
        .await
        .unwrap()
}

/// `from` runs at the one and `to` at the other.
fn locations(from: &Exchange, to: &Exchange) -> Locations {
    let at = |exchange: &Exchange| Location {
        task_manager: exchange.id().clone(),
        address: exchange.address().to_owned(),
    };
    BTreeMap::from([(subtask("from"), at(from)), (subtask("to"), at(to))])
}

struct End {
    network: AttemptNetwork,
    ends: TaskEnds,
    mailbox: Arc<Mailbox>,
}

fn open(exchange: &Arc<Exchange>, locations: &Locations, own: &str, attempt: u32) -> End {
    let id = AttemptId {
        cluster: "test".parse().unwrap(),
        job: JOB.parse().unwrap(),
        attempt: AttemptNumber(attempt),
        epoch: LeaderEpoch(1),
    };
    let mailbox = Arc::new(Mailbox::default());
    let mailboxes = BTreeMap::from([(subtask(own), Arc::clone(&mailbox))]);
    let (network, mut ends) = attempt::open(exchange, id, &graph(), locations, &mailboxes).unwrap();
    End {
        network,
        ends: ends.remove(&subtask(own)).unwrap(),
        mailbox,
    }
}

fn batch(number: i64) -> RecordBatch {
    let rows = number * BATCH_ROWS..(number + 1) * BATCH_ROWS;
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(rows));
    RecordBatch::try_from_iter([("number", column)]).unwrap()
}

fn barrier(checkpoint: u64) -> Barrier {
    Barrier {
        checkpoint: CheckpointId(checkpoint),
        base: CheckpointId(checkpoint - 1),
        kind: CheckpointKind::Checkpoint,
        savepoint_directory: None,
    }
}

/// Sends all batches, a watermark behind each, a barrier behind every tenth, then the end.
fn send(mut output: Output, mailbox: &Mailbox) -> Result<Output, Error> {
    // What has no credit yet waits in the output, and an aligned barrier has to come behind it.
    let flush = |output: &mut Output| {
        while !output.flush() {
            mailbox.check()?;
            mailbox.wait(PATIENCE);
        }
        Ok::<_, Error>(())
    };
    for number in 0..BATCHES {
        output.collect(batch(number))?;
        output.watermark(number)?;
        if number % 10 == 9 {
            flush(&mut output)?;
            let overtaken = output.barrier(&barrier(number as u64));
            assert!(overtaken.iter().all(|content| content.elements.is_empty()));
        }
    }
    output.end_of_data()?;
    flush(&mut output)?;
    Ok(output)
}

/// Takes everything up to the end, or to the task's interruption.
fn receive(gate: &InputGate, mailbox: &Mailbox) -> Result<(), Error> {
    let (mut rows, mut watermark, mut barriers) = (0, -1, 0);
    loop {
        mailbox.check()?;
        match gate.poll() {
            None => mailbox.wait(PATIENCE),
            Some((_, Element::Data(batch))) => {
                for &number in batch.column(0).as_primitive::<Int64Type>().values() {
                    assert_eq!(number, rows, "in order, nothing lost");
                    rows += 1;
                }
            }
            Some((_, Element::Watermark(time))) => {
                assert!(
                    time > watermark && time < rows / BATCH_ROWS,
                    "never before the rows it speaks of"
                );
                watermark = time;
            }
            Some((_, Element::Barrier(arrived))) => {
                barriers += 1;
                assert_eq!(arrived, barrier(barriers * 10 - 1));
                assert_eq!(rows, arrived.checkpoint.0 as i64 * BATCH_ROWS + BATCH_ROWS);
            }
            Some((_, Element::EndOfData)) => break,
            Some((_, Element::Idle(_))) => panic!("nobody was idle"),
        }
    }
    assert_eq!(
        (rows, watermark, barriers as i64),
        (BATCHES * BATCH_ROWS, BATCHES - 1, BATCHES / 10)
    );
    Ok(())
}

fn thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> tokio::sync::oneshot::Receiver<T> {
    let (done, receiver) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("task".into());
    thread.spawn(move || drop(done.send(work()))).unwrap();
    receiver
}

async fn within<T>(waited: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, waited).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_arrives_in_order_however_slow_the_receiver_and_late_its_deployment() {
    let tasks = Tasks::default();
    let (from, to) = (exchange("a", &tasks).await, exchange("b", &tasks).await);
    all_arrives(from, to, tasks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_arrives_over_tls_too() {
    let tasks = Tasks::default();
    let directory = tempfile::tempdir().unwrap();
    let authority = authority(directory.path());
    let transport = |name| certified(&authority, Role::TaskManager, name);
    let from = exchange_over(transport("a"), "a", &tasks).await;
    let to = exchange_over(transport("b"), "b", &tasks).await;
    all_arrives(from, to, tasks).await;
}

fn authority(directory: &Path) -> Authority {
    Authority::create(directory, "test", validity()).unwrap()
}

fn validity() -> Validity {
    let now_ms = SystemClock::shared().now_ms();
    Validity { now_ms, days: 1 }
}

fn certified(authority: &Authority, role: Role, name: &str) -> Transport {
    let hosts = ["127.0.0.1".to_owned()];
    let issued = authority.issue(role, name, &hosts, validity()).unwrap();
    Transport::tls(issued.files).unwrap()
}

/// Only the holder of a TaskManager's certificate may send data, and only to one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_goes_to_and_comes_from_task_managers_only() {
    let directory = tempfile::tempdir().unwrap();
    let foreign = tempfile::tempdir().unwrap();
    let (ours, theirs) = (authority(directory.path()), authority(foreign.path()));
    let here = certified(&ours, Role::TaskManager, "here");
    let jobmanager = certified(&ours, Role::JobManager, "127.0.0.1");
    let stranger = certified(&theirs, Role::TaskManager, "stranger");
    for (sender, receiver, reason) in [
        (
            jobmanager.clone(),
            here.clone(),
            "flott://test/jobmanager/127.0.0.1",
        ),
        (
            here.clone(),
            jobmanager,
            "flott://test/jobmanager/127.0.0.1",
        ),
        (stranger.clone(), here.clone(), "not issued by a CA in"),
        (here.clone(), stranger, "not issued by a CA in"),
        (here.clone(), Transport::loopback(), "TLS"),
        (Transport::loopback(), here, "handshake"),
    ] {
        let tasks = Tasks::default();
        let from = exchange_over(sender, "a", &tasks).await;
        let to = exchange_over(receiver, "b", &tasks).await;
        let locations = locations(&from, &to);
        let receiver = open(&to, &locations, "to", 1);
        let sender = open(&from, &locations, "from", 1);
        within(sender.mailbox.cancellation().cancelled()).await;
        let error = sender.mailbox.check().unwrap_err().to_string();
        assert!(error.contains(reason), "{reason}: {error}");
        assert!(receiver.ends.gate.poll().is_none(), "{reason}");
        assert!(receiver.mailbox.check().is_ok(), "{reason}");
    }
}

async fn all_arrives(from: Arc<Exchange>, to: Arc<Exchange>, tasks: Tasks) {
    let locations = locations(&from, &to);
    let sender = open(&from, &locations, "from", 3);
    // The sender is deployed first, connects, and runs out of credit before there is a receiver.
    let (output, mailbox) = (sender.ends.output, Arc::clone(&sender.mailbox));
    let sent = thread(move || send(output, &mailbox));
    let receiver = open(&to, &locations, "to", 3);
    let (gate, mailbox) = (receiver.ends.gate, Arc::clone(&receiver.mailbox));
    within(thread(move || receive(&gate, &mailbox)))
        .await
        .unwrap()
        .unwrap();
    let mut output = within(sent).await.unwrap().unwrap();

    // The end of an attempt on one side is no loss for the other.
    sender.network.close();
    assert!(receiver.mailbox.check().is_ok());
    output.barrier(&barrier(1000));
    receiver.network.close();
    within(tasks.shutdown(PATIENCE)).await.unwrap();
    assert!(receiver.mailbox.check().is_ok() && sender.mailbox.check().is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_of_a_lower_attempt_is_refused_and_fails() {
    let tasks = Tasks::default();
    let (from, to) = (exchange("a", &tasks).await, exchange("b", &tasks).await);
    let locations = locations(&from, &to);
    let receiver = open(&to, &locations, "to", 4);
    let sender = open(&from, &locations, "from", 3);
    within(sender.mailbox.cancellation().cancelled()).await;
    let error = sender.mailbox.check().unwrap_err();
    assert_eq!(error.lost_peer().unwrap().as_str(), "b");
    assert!(error.to_string().contains("replaced by 4"), "{error}");
    assert!(
        receiver.mailbox.check().is_ok(),
        "the present attempt does not notice"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_connection_fails_the_tasks_at_both_ends() {
    let tasks = Tasks::default();
    let (from, to) = (exchange("a", &tasks).await, exchange("b", &tasks).await);
    // A proxy between the two, to be cut.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut locations = locations(&from, &to);
    let behind = std::mem::replace(
        &mut locations.get_mut(&subtask("to")).unwrap().address,
        listener.local_addr().unwrap().to_string(),
    );
    let sender = open(&from, &locations, "from", 1);
    let receiver = open(&to, &locations, "to", 1);
    let (mut near, _) = within(listener.accept()).await.unwrap();
    let mut far = tokio::net::TcpStream::connect(behind).await.unwrap();
    let (output, mailbox) = (sender.ends.output, Arc::clone(&sender.mailbox));
    let sent = thread(move || send(output, &mailbox));
    // Nobody but this takes anything, so the sender is still waiting for credit when the connection is cut.
    let arrived = async {
        while receiver.ends.gate.poll().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => panic!("closed too early"),
        () = within(arrived) => (),
    }
    drop((near, far));
    within(receiver.mailbox.cancellation().cancelled()).await;
    let error = receiver.mailbox.check().unwrap_err();
    assert_eq!(error.lost_peer().unwrap().as_str(), "a");
    let error = within(sent).await.unwrap().unwrap_err();
    assert_eq!(error.lost_peer().unwrap().as_str(), "b");
}
