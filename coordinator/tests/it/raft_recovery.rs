//! Restarts, snapshots, and directories that must not be used.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use flott_coordinator::core::FeatureLevels;
use flott_coordinator::raft::RaftError;
use flott_proto::ids::NodeId;
use flott_proto::wire::{self, command::Decision};

use crate::raft_cluster::{Cluster, Member};

fn free_port() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_all_members_recovers_everything() {
    // Once from the log alone, once from snapshots and the log behind them.
    for snapshot_entries in [1000, 10] {
        let mut cluster = Cluster::formed(3, snapshot_entries).await;
        let epoch = cluster.activate().await;
        let mut jobs = cluster.submit(epoch, 45).await;
        let (id, term) = (
            cluster.raft(0).cluster_id(),
            cluster.raft(0).leadership().borrow().term,
        );
        let identities: Vec<_> = (0..3)
            .map(|n| {
                (
                    cluster.raft(n).node_id(),
                    cluster.raft(n).incarnation().to_owned(),
                )
            })
            .collect();
        for n in 0..3 {
            cluster.kill(n).await;
        }
        for (n, identity) in identities.iter().enumerate() {
            cluster.restart(n).await;
            let restarted = cluster.raft(n);
            let restarted_as = (restarted.node_id(), restarted.incarnation().to_owned());
            assert_eq!(restarted_as, *identity);
            assert_eq!(restarted.cluster_id(), id);
        }
        let leader = cluster.leader().await;
        assert!(
            cluster.raft(leader).leadership().borrow().term > term,
            "nobody leads in the term of a former life"
        );
        jobs.extend(cluster.submit(epoch, 2).await);
        cluster.all_have(&jobs).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_member_recovers_by_itself() {
    let mut cluster = Cluster::formed(1, 5).await;
    let epoch = cluster.activate().await;
    let jobs = cluster.submit(epoch, 23).await;
    assert!(cluster.raft(0).lease_is_valid());
    cluster.kill(0).await;
    cluster.restart(0).await;
    cluster.leader().await;
    cluster.all_have(&jobs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_behind_the_log_catches_up_by_snapshot() {
    let mut cluster = Cluster::formed(3, 10).await;
    let epoch = cluster.activate().await;
    let mut jobs = cluster.submit(epoch, 5).await;
    cluster.all_have(&jobs).await;
    let leader = cluster.leader().await;
    let follower = cluster.running().find(|n| *n != leader).unwrap();
    let known = *cluster.raft(follower).applied().borrow();
    cluster.kill(follower).await;
    jobs.extend(cluster.submit(epoch, 100).await);
    cluster.restart(follower).await;
    cluster.all_have(&jobs).await;
    let snapshots = fs::read_dir(cluster.directory(follower).join("snapshots")).unwrap();
    let newest = snapshots.filter_map(|file| {
        file.unwrap()
            .file_name()
            .to_str()?
            .split('-')
            .next()?
            .parse()
            .ok()
    });
    let newest: Option<u64> = newest.max();
    assert!(
        newest.is_some_and(|index| index > known + 30),
        "{newest:?} is beyond the log that it had ({known})"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_a_directory_is_refused() {
    let cluster = Cluster::pristine(1, 1000).await;
    let refused = Member::start(cluster.config(0), free_port())
        .await
        .err()
        .unwrap();
    assert!(matches!(refused, RaftError::InUse { .. }), "{refused}");
    let message = refused.to_string();
    assert!(
        message.contains(&cluster.directory(0).display().to_string()),
        "{message}"
    );
    assert!(
        message.contains(&std::process::id().to_string()),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_directory_of_another_cluster_or_node_is_refused() {
    let mut cluster = Cluster::formed(1, 1000).await;
    let own = cluster.raft(0).cluster_id().unwrap();
    cluster.kill(0).await;

    let mut config = cluster.config(0);
    config.cluster_id = Some("another".parse().unwrap());
    let refused = Member::start(config, free_port()).await.err().unwrap();
    assert!(
        matches!(&refused, RaftError::OtherCluster { found, .. } if found == own.as_str()),
        "{refused}"
    );

    let mut config = cluster.config(0);
    config.node_id = Some(NodeId(3));
    cluster
        .wait_for("the directory to be closed", async || {
            let refused = Member::start(config.clone(), free_port())
                .await
                .err()
                .unwrap();
            matches!(
                refused,
                RaftError::OtherNode {
                    expected: NodeId(3),
                    ..
                }
            )
            .then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_without_the_snapshot_before_it_is_refused() {
    let mut cluster = Cluster::formed(1, 5).await;
    let epoch = cluster.activate().await;
    cluster.submit(epoch, 60).await;
    let has_dropped = async || {
        let entries = cluster.raft(0).log_tail(u32::MAX).await;
        let first = entries.first()?.index;
        (first > 1).then_some(())
    };
    cluster.wait_for("the log to be cut", has_dropped).await;
    cluster.kill(0).await;
    fs::remove_dir_all(cluster.directory(0).join("snapshots")).unwrap();
    let refused = Member::start(cluster.config(0), free_port())
        .await
        .err()
        .unwrap();
    assert!(matches!(refused, RaftError::Corrupt { .. }), "{refused}");
}

/// Entries of half a megabyte, of which a snapshot keeps one.
fn overwrite(epoch: u64, number: u64) -> wire::Command {
    const VALUES: usize = 2;
    let put = |part: usize| {
        let kind = wire::kv_write::Kind::Put(wire::KvPut {
            key: format!("key-{part}").into(),
            value: vec![number as u8; 250 << 10].into(),
            ..Default::default()
        });
        wire::KvProposal {
            namespace: "default".to_owned(),
            write: Some(wire::KvWrite { kind: Some(kind) }),
            ..Default::default()
        }
    };
    wire::Command {
        now_ms: 3,
        epoch,
        decision: Some(Decision::KvBatch(wire::KvBatch {
            proposals: (0..VALUES).map(put).collect(),
        })),
    }
}

fn log_bytes(directory: &Path) -> u64 {
    let files = fs::read_dir(directory.join("log")).unwrap();
    // A file may be deleted while they are counted.
    let sizes = files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len()));
    sizes.sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_few_large_entries_is_bounded_by_their_bytes_also_while_a_member_is_down() {
    const WRITES: u64 = 250;
    const WRITTEN: u64 = WRITES * (500 << 10);
    // Two snapshots apart, what is written meanwhile, and files of 8 MiB made ahead.
    const BOUND: u64 = WRITTEN * 3 / 4;
    let mut cluster = Cluster::pristine(0, 50_000).await;
    cluster.snapshot_bytes = 4 << 20;
    for _ in 0..3 {
        cluster.newcomer(FeatureLevels::BUILD).await;
    }
    let addresses = cluster.addresses.clone();
    cluster.raft(0).initialize(addresses).await.unwrap();
    let leader = cluster.leader().await;
    let epoch = cluster.activate().await;
    let down = (leader + 1) % 3;
    cluster.kill(down).await;
    let mut largest = 0;
    for number in 0..WRITES {
        cluster.propose(overwrite(epoch, number)).await;
        let sizes = cluster.running().map(|n| log_bytes(&cluster.directory(n)));
        largest = largest.max(sizes.max().unwrap_or_default());
    }
    assert!(
        largest < BOUND,
        "{largest} bytes of log for {WRITTEN} written"
    );
    cluster.restart(down).await;
    cluster.all_have(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_disk_is_nearly_full_says_so_and_ends_before_it_is_full() {
    let mut cluster = Cluster::formed(1, 1000).await;
    assert!(!cluster.raft(0).disk_is_low());
    cluster.kill(0).await;
    cluster.disk_free = (u64::MAX, 0);
    cluster.restart(0).await;
    cluster
        .wait_for("the disk to be seen to be low", async || {
            cluster.raft(0).disk_is_low().then_some(())
        })
        .await;
    cluster.kill(0).await;
    cluster.disk_free = (u64::MAX, u64::MAX);
    let failure = cluster.restart_in_vain(0).await;
    assert!(failure.contains("disk-free-hard"), "{failure}");
}
