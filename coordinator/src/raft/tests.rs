//! A whole node from within this room: its disk fails, or its membership is left half-changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use std::{io, path};

use flott_node::clock::ManualClock;
use flott_node::{SystemClock, Tasks, Transport};
use flott_proto::ids::NodeId;
use flott_proto::wire::raft_service_client::RaftServiceClient;
use flott_proto::wire::raft_service_server::RaftService;
use flott_proto::wire::{self, command::Decision};
use openraft::async_runtime::WatchReceiver;
use openraft::{ChangeMembers, EntryPayload};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

use super::error::RaftError;
use super::identity::LocalIdentity;
use super::log_store::LogOptions;
use super::node::RaftNode;
use super::snapshot::SnapshotStore;
use super::types::{Ballot, LogId, Membership, Peer, SnapshotMeta};
use super::{RaftConfig, codec, start};
use crate::core::{ClusterState, FeatureLevels};
use crate::recovery;

/// Far longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(60);

fn config(dir: &path::Path, address: String) -> RaftConfig {
    RaftConfig {
        dir: dir.to_owned(),
        node_id: None,
        address,
        cluster_id: None,
        heartbeat_interval: Duration::from_millis(100),
        election_timeout_min: Duration::from_millis(400),
        election_timeout_max: Duration::from_millis(800),
        snapshot_entries: 1000,
        snapshot_bytes: 64 << 20,
        disk_free_soft: 0,
        disk_free_hard: 0,
        transport: Transport::loopback(),
    }
}

/// A node that belongs to nothing yet, and the tasks of its process.
async fn pristine(dir: &path::Path, options: LogOptions) -> (RaftNode, Tasks, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let tasks = Tasks::default();
    let config = config(dir, address.clone());
    let clock = SystemClock::shared();
    let node = start::start(config, FeatureLevels::BUILD, options, clock, tasks.clone())
        .await
        .unwrap();
    let server = tonic::transport::Server::builder()
        .serve_with_incoming(node.service(), TcpListenerStream::new(listener));
    tasks.spawn("server", flott_node::OnFailure::Log, server);
    (node, tasks, address)
}

/// A group of one, which leads. The tasks are its process's.
async fn alone(dir: &path::Path, options: LogOptions) -> (RaftNode, Tasks) {
    let (node, tasks, address) = pristine(dir, options).await;
    node.initialize(vec![address]).await.unwrap();
    node.leadership()
        .wait_for(|now| now.is_leader)
        .await
        .unwrap();
    // It may change its membership once it has committed something itself.
    node.propose(activate()).await.unwrap();
    (node, tasks)
}

/// A group of three.
async fn three(dir: &path::Path) -> Vec<(RaftNode, Tasks)> {
    group_with(dir, vec![LogOptions::default(); 3]).await
}

/// A group of as many members as there are options.
async fn group_with(dir: &path::Path, options: Vec<LogOptions>) -> Vec<(RaftNode, Tasks)> {
    let (mut nodes, mut addresses) = (Vec::new(), Vec::new());
    for (n, options) in options.into_iter().enumerate() {
        let (node, tasks, address) = pristine(&dir.join(n.to_string()), options).await;
        nodes.push((node, tasks));
        addresses.push(address);
    }
    nodes[0].0.initialize(addresses).await.unwrap();
    nodes
}

/// Whoever leads of them, in office.
async fn leader(nodes: &[(RaftNode, Tasks)]) -> usize {
    loop {
        for (n, (node, _)) in nodes.iter().enumerate() {
            let leads = node.leadership().borrow().is_leader;
            if leads && node.propose(activate()).await.is_ok() {
                return n;
            }
        }
        tokio::task::yield_now().await;
    }
}

fn activate() -> wire::Command {
    let activate = wire::ActivateJobManager {
        node_id: 1,
        incarnation: "i".into(),
        address: "a".into(),
    };
    wire::Command {
        now_ms: 1,
        epoch: 0,
        decision: Some(Decision::ActivateJobManager(activate)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_fails_acknowledges_nothing_and_ends_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let failing = Arc::new(AtomicBool::new(false));
    let exited = Arc::new(AtomicBool::new(false));
    let options = LogOptions {
        fault: {
            let failing = Arc::clone(&failing);
            Some(Arc::new(move || match failing.load(Ordering::SeqCst) {
                true => Err(io::Error::other("no space left on device")),
                false => Ok(()),
            }))
        },
        exit: {
            let exited = Arc::clone(&exited);
            Arc::new(move || exited.store(true, Ordering::SeqCst))
        },
        ..Default::default()
    };
    let (node, tasks) = alone(directory.path(), options).await;
    let applied = node.propose(activate()).await.unwrap();

    failing.store(true, Ordering::SeqCst);
    node.propose(activate()).await.unwrap_err();
    assert!(exited.load(Ordering::SeqCst));
    tasks.cancellation().cancelled().await;
    assert_eq!(
        node.state().epoch.0,
        applied.index,
        "the state is that of the acknowledged command"
    );
    // Not left to the end of the process: see `Member` of the integration tests.
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_has_named_a_successor_has_no_lease_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let nodes = three(directory.path()).await;
    let leader = leader(&nodes).await;
    let inner = nodes[leader].0.inner();
    let mut metrics = inner.raft.metrics();
    while !nodes[leader].0.lease_is_valid() {
        metrics.changed().await.unwrap();
    }
    let term = nodes[leader].0.leadership().borrow().term;
    // As when it has named one, of whom it hears nothing more.
    let naming = inner.succession.begin(term);
    assert!(!nodes[leader].0.lease_is_valid());
    drop(naming);
    assert!(!nodes[leader].0.lease_is_valid(), "nor later in this term");
    for (node, _) in &nodes {
        node.shutdown().await;
    }
}

/// Questions to the leader were refused whenever its lease was over, on a machine without time for as long as a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_lease_is_over_leads_as_long_as_a_quorum_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let nodes = three(directory.path()).await;
    let leader = leader(&nodes).await;
    let node = &nodes[leader].0;
    let term = node.leadership().borrow().term;
    drop(node.inner().succession.begin(term));
    assert!(!node.lease_is_valid() && node.certainly_leads().await);
    let others = nodes.iter().enumerate().filter(|(n, _)| *n != leader);
    for (_, (other, _)) in others {
        other.shutdown().await;
    }
    // It may also wait for them in vain.
    let leads = tokio::time::timeout(Duration::from_secs(1), node.certainly_leads());
    assert!(!leads.await.unwrap_or(false));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_decided_upon_an_older_membership_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (node, _tasks) = alone(directory.path(), LogOptions::default()).await;
    let inner = node.inner();
    let add = |id| ChangeMembers::AddNodes(BTreeMap::from([(id, Peer::default())]));
    let guard = || inner.changing.take("adding".to_owned()).unwrap();
    let seen = inner.membership();
    inner.change(guard(), &seen, add(8)).await.unwrap();
    let refused = inner.change(guard(), &seen, add(9)).await.unwrap_err();
    assert!(
        matches!(&refused, RaftError::Refused(why) if why.contains("has changed meanwhile")),
        "{refused}"
    );
    assert!(inner.membership().get_node(&9).is_none());
    inner
        .change(guard(), &inner.membership(), add(9))
        .await
        .unwrap();
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_voters_that_was_left_half_done_is_completed_by_whoever_leads() {
    let directory = tempfile::tempdir().unwrap();
    let (node, _tasks) = alone(directory.path(), LogOptions::default()).await;
    let inner = node.inner();
    let before = inner.membership();
    let voters: BTreeSet<u64> = before.voter_ids().collect();
    let peers: BTreeMap<u64, Peer> = before
        .nodes()
        .map(|(id, peer)| (*id, peer.clone()))
        .collect();
    // As if its first step had been taken by a leader that died then.
    let half = Membership::new(vec![voters.clone(), voters], peers).unwrap();
    inner
        .raft
        .append_membership(half, EntryPayload::Blank, [])
        .await
        .unwrap();
    let completed = async {
        let mut applied = node.applied();
        while inner.membership().get_joint_config().len() > 1 {
            applied.changed().await.unwrap();
        }
        // Whoever completes it sees that a moment later.
        while node.pending_change().is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, completed).await.unwrap();
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_state_differs_from_that_of_the_others_ends_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let nodes = three(directory.path()).await;
    // A follower, and then the leader of the two that are left to decide.
    for leads in [false, true] {
        let nodes = if leads {
            three(&directory.path().join("again")).await
        } else {
            nodes.clone()
        };
        let leader = leader(&nodes).await;
        let victim = if leads { leader } else { (leader + 1) % 3 };
        let (node, tasks) = &nodes[victim];
        let applied = node.applied();
        let damage = node.inner().raft.with_state_machine(|machine| {
            machine.damage();
            Box::pin(async {})
        });
        damage.await.unwrap();
        let ended = tokio::time::timeout(PATIENCE, tasks.cancellation().cancelled());
        ended.await.expect("the check finds it");
        // Not for long: the server goes on for as long as others hold connections to it.
        let failure = tasks.shutdown(Duration::ZERO).await.unwrap_err();
        assert!(
            failure.contains("differs from that of a majority"),
            "{failure}"
        );
        assert!(*applied.borrow() > 0);
        for (n, (node, tasks)) in nodes.iter().enumerate() {
            let well = n == victim || !tasks.cancellation().is_cancelled();
            assert!(well, "member {n} was right");
            node.shutdown().await;
        }
    }
}

/// Makes the writes of a log wait, as a disk does that hangs.
#[derive(Default)]
struct Hang {
    hanging: Mutex<bool>,
    over: Condvar,
}

impl Hang {
    fn set(&self, hanging: bool) {
        *self.hanging.lock().unwrap() = hanging;
        self.over.notify_all();
    }

    fn options(self: &Arc<Self>) -> LogOptions {
        let hang = Arc::clone(self);
        LogOptions {
            fault: Some(Arc::new(move || {
                let hanging = hang.hanging.lock().unwrap();
                drop(hang.over.wait_while(hanging, |hanging| *hanging).unwrap());
                Ok(())
            })),
            ..Default::default()
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_costs_leadership_and_not_the_group() {
    let directory = tempfile::tempdir().unwrap();
    let hangs: Vec<Arc<Hang>> = (0..3).map(|_| Arc::default()).collect();
    let options = hangs.iter().map(Hang::options).collect();
    let nodes = group_with(directory.path(), options).await;
    let hanging = leader(&nodes).await;
    hangs[hanging].set(true);
    let others: Vec<_> = (0..3).filter(|n| *n != hanging).collect();
    let taken_over = async {
        let rest: Vec<_> = others.iter().map(|n| nodes[*n].clone()).collect();
        leader(&rest).await
    };
    let successor = tokio::time::timeout(PATIENCE, taken_over).await;
    let successor = &nodes[others[successor.expect("another member takes over")]].0;
    let decided = successor.propose(activate()).await.unwrap();

    hangs[hanging].set(false);
    let mut applied = nodes[hanging].0.applied();
    let caught_up = applied.wait_for(|applied| *applied >= decided.index);
    tokio::time::timeout(PATIENCE, caught_up)
        .await
        .expect("it follows once its disk answers")
        .unwrap();
    for (node, tasks) in &nodes {
        assert!(!tasks.cancellation().is_cancelled());
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_was_just_restarted_keeps_the_promise_that_it_does_not_remember() {
    let directory = tempfile::tempdir().unwrap();
    let (node, _tasks) = alone(directory.path(), LogOptions::default()).await;
    node.shutdown().await;
    drop(node);

    let clock = Arc::new(ManualClock::new(0));
    let config = config(directory.path(), "127.0.0.1:1".to_owned());
    let lease = config.election_timeout_max / 2;
    let shared: flott_node::SharedClock = Arc::<ManualClock>::clone(&clock);
    let options = LogOptions::default();
    let node = start::start(
        config,
        FeatureLevels::BUILD,
        options,
        shared,
        Tasks::default(),
    )
    .await
    .unwrap();
    let (id, incarnation) = (node.node_id().0, node.incarnation().to_owned());
    let stranger = LocalIdentity::new(99, "l".into(), "s:1".into(), None, node.cluster_id());
    let peer = Peer {
        incarnation,
        ..Peer::default()
    };
    let ask = |leadership_transfer| {
        let request = wire::RaftVoteRequest {
            identity: Some(stranger.towards(id, &peer)),
            vote: Some(codec::ballot_to_wire(&Ballot::new(9, 99))),
            leadership_transfer,
            pre_vote: true,
            ..Default::default()
        };
        node.inner().rpc.vote(tonic::Request::new(request))
    };
    let refused = ask(false).await.unwrap_err();
    assert!(refused.message().contains("just restarted"), "{refused}");
    // Whoever it was promised to may release it.
    ask(true).await.unwrap();
    clock.advance(lease - Duration::from_millis(1));
    ask(false).await.unwrap_err();
    clock.advance(Duration::from_millis(1));
    ask(false).await.unwrap();
    node.shutdown().await;
}

/// A snapshot of an empty state that ends far behind whatever `node` has, and its bytes.
fn foreign_snapshot(node: &RaftNode) -> (wire::RaftLogId, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(directory.path()).unwrap();
    let last = LogId::new_term_index(9, 1_000);
    let meta = SnapshotMeta {
        last_log_id: Some(last),
        last_membership: (*node.inner().membership()).clone(),
    };
    let cluster = node.cluster_id().unwrap().to_string();
    let state = ClusterState::default();
    let file = store.write(&meta, &cluster, state.records()).unwrap();
    let length = usize::try_from(file.length()).unwrap();
    (
        codec::log_id_to_wire(&last),
        file.read_at(0, length).unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_goes_on_where_it_was_broken_off_and_only_there() {
    let directory = tempfile::tempdir().unwrap();
    let (node, _tasks) = alone(directory.path(), LogOptions::default()).await;
    let (last, bytes) = foreign_snapshot(&node);
    let sender = LocalIdentity::new(99, "l".into(), "s:1".into(), None, node.cluster_id());
    let peer = Peer {
        incarnation: node.incarnation().to_owned(),
        ..Peer::default()
    };
    let identity = Some(sender.towards(node.node_id().0, &peer));
    let vote = Ballot::new_committed(9, 99);
    let address = format!("http://{}", node.inner().identity.address);
    let mut client = RaftServiceClient::connect(address).await.unwrap();
    let total_bytes = bytes.len() as u64;
    let prepare = wire::RaftPrepareSnapshotRequest {
        identity: identity.clone(),
        last_log_id: Some(last),
        total_bytes,
    };
    let send = |offset: usize, end: usize| {
        let header = wire::RaftSnapshotHeader {
            identity: identity.clone(),
            vote: Some(codec::ballot_to_wire(&vote)),
            total_bytes,
            last_log_id: Some(last),
            offset: offset as u64,
        };
        let data = bytes[offset..end].to_vec().into();
        let header = wire::RaftSnapshotChunk {
            header: Some(header),
            ..Default::default()
        };
        let chunk = wire::RaftSnapshotChunk { header: None, data };
        futures::stream::iter([header, chunk])
    };
    let half = bytes.len() / 2;
    let broken_off = client.install_snapshot(send(0, half)).await.unwrap_err();
    assert!(broken_off.message().contains("shorter"), "{broken_off}");
    let offset =
        |answer: tonic::Response<wire::RaftPrepareSnapshotResponse>| answer.into_inner().offset;
    let other = wire::RaftPrepareSnapshotRequest {
        total_bytes: total_bytes + 1,
        ..prepare.clone()
    };
    assert_eq!(offset(client.prepare_snapshot(other).await.unwrap()), 0);
    let there = offset(client.prepare_snapshot(prepare.clone()).await.unwrap());
    assert_eq!(there, half as u64);
    // Somebody who is mistaken about what is there has it thrown away.
    client
        .install_snapshot(send(half - 1, bytes.len()))
        .await
        .unwrap_err();
    assert_eq!(offset(client.prepare_snapshot(prepare).await.unwrap()), 0);

    client.install_snapshot(send(0, half)).await.unwrap_err();
    client
        .install_snapshot(send(half, bytes.len()))
        .await
        .unwrap();
    assert_eq!(*node.applied().borrow(), 1_000);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_has_everything_that_was_acknowledged_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let (node, _tasks) = alone(directory.path(), LogOptions::default()).await;
    let mut last = 0;
    // Once with a snapshot to be made, once with one that is there, once with one that lacks the last entry.
    for proposals in [3, 0, 1] {
        for _ in 0..proposals {
            last = node.propose(activate()).await.unwrap().index;
        }
        let backup = node.backup().await.unwrap();
        let mut bytes = Vec::new();
        loop {
            let piece = backup.read_at(bytes.len() as u64, 100).await.unwrap();
            if piece.is_empty() {
                break;
            }
            bytes.extend(piece);
        }
        assert_eq!(bytes.len() as u64, backup.length());
        let file = directory.path().join(format!("backup-{proposals}"));
        std::fs::write(&file, &bytes).unwrap();
        let manifest = recovery::verify(&file).unwrap();
        assert!(manifest.position.index >= last, "{manifest:?}");
        assert_eq!(manifest.epoch, last);
        assert_eq!(Some(manifest.cluster), node.cluster_id());
        assert_eq!(manifest.bytes, backup.length());
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_recovered_from_the_middle_of_a_change_of_its_voters() {
    let directory = tempfile::tempdir().unwrap();
    let (node, _tasks) = alone(directory.path(), LogOptions::default()).await;
    let inner = node.inner();
    let own = inner.identity.node;
    let before = inner.membership();
    let mut peers: BTreeMap<u64, Peer> = before
        .nodes()
        .map(|(id, peer)| (*id, peer.clone()))
        .collect();
    let address = peers[&own].address.clone();
    peers.insert(8, Peer::default());
    let sets = vec![BTreeSet::from([own]), BTreeSet::from([own, 8])];
    let half = Membership::new(sets, peers).unwrap();
    // It gets into the log, and is never committed: member 8 is nowhere.
    let appended = inner.raft.append_membership(half, EntryPayload::Blank, []);
    let waited = tokio::time::timeout(Duration::from_millis(200), appended).await;
    waited.unwrap_err();
    node.shutdown().await;

    let survivors = recovery::Survivors {
        dirs: vec![directory.path().to_owned()],
        ..Default::default()
    };
    let group = recovery::NewGroup {
        dir: Default::default(),
        address: address.clone(),
        cluster: None,
        node: None,
        survey: true,
        give_up_lost_jobs: false,
        // Its server goes on listening.
        ignore_running: true,
    };
    let refused = recovery::recover(survivors.clone(), group.clone()).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("--lost"), "{refused}");
    let survivors = recovery::Survivors {
        lost: BTreeSet::from([NodeId(8)]),
        ..survivors
    };
    let founded = recovery::recover(survivors, group).await.unwrap();
    let found = recovery::inspect(vec![directory.path().to_owned()]).await;
    let found = found.unwrap().remove(0);
    let voters: Vec<NodeId> = found.voters.keys().copied().collect();
    assert_eq!(voters, [founded.node]);
    assert!(found.learners.is_empty());
    assert_eq!(found.last.index, founded.first_index);
    assert_eq!(found.cluster, founded.cluster.as_str());
    let config = config(directory.path(), address);
    let (clock, tasks) = (SystemClock::shared(), Tasks::default());
    let node = RaftNode::start(config, clock, tasks).await.unwrap();
    node.leadership()
        .wait_for(|now| now.is_leader)
        .await
        .unwrap();
    let applied = node.propose(activate()).await.unwrap();
    assert!(applied.index > founded.first_index);
    node.shutdown().await;
}
