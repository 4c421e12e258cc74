//! Members of different versions in one group: the feature level, which two made-up builds support differently.

use flott_coordinator::core::FeatureLevels;
use flott_coordinator::raft::RaftError;
use flott_proto::ids::LeaderEpoch;
use flott_proto::wire::{self, command::Decision};

use crate::raft_cluster::Cluster;

const OLD: FeatureLevels = FeatureLevels { min: 1, max: 1 };
const NEW: FeatureLevels = FeatureLevels { min: 1, max: 2 };

/// Every member runs `features`, and has been restarted for that.
async fn running(features: FeatureLevels, snapshot_entries: u64) -> (Cluster, u64) {
    let mut cluster = Cluster::formed(3, snapshot_entries).await;
    for n in 0..3 {
        cluster.kill(n).await;
        cluster.features[n] = features;
        cluster.restart(n).await;
        cluster.leader().await;
    }
    let epoch = cluster.activate().await;
    (cluster, epoch)
}

/// Raises the level without asking anybody, as no operator can.
fn raise_unasked(epoch: u64) -> wire::Command {
    wire::Command {
        now_ms: 1,
        epoch,
        decision: Some(Decision::RaiseFeatureLevel(wire::RaiseFeatureLevel {
            level: 2,
        })),
    }
}

/// The number of a member that does not lead.
async fn follower(cluster: &Cluster) -> usize {
    let leader = cluster.leader().await;
    cluster.running().find(|n| *n != leader).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_level_rises_when_the_last_member_supports_it_and_older_builds_are_out_then() {
    let (mut cluster, epoch) = running(NEW, 1000).await;
    let epoch = LeaderEpoch(epoch);
    let old = follower(&cluster).await;
    cluster.kill(old).await;
    let leader = cluster.raft(cluster.leader().await).clone();
    let refused = leader.raise_feature_level(None, epoch).await.unwrap_err();
    assert!(refused.to_string().contains("do not answer"), "{refused}");

    cluster.features[old] = OLD;
    cluster.restart(old).await;
    cluster.leader().await;
    let refused = leader
        .raise_feature_level(Some(2), epoch)
        .await
        .unwrap_err();
    let address = &cluster.addresses[old];
    assert!(refused.to_string().contains(address.as_str()), "{refused}");
    assert_eq!(
        leader.raise_feature_level(None, epoch).await.unwrap(),
        (1, 1)
    );

    cluster.kill(old).await;
    cluster.features[old] = NEW;
    cluster.restart(old).await;
    cluster.leader().await;
    assert_eq!(
        leader.raise_feature_level(None, epoch).await.unwrap(),
        (1, 2)
    );
    cluster
        .wait_for("all members to be at level 2", async || {
            let level = |n| cluster.raft(n).state().feature_level;
            cluster.running().all(|n| level(n) == 2).then_some(())
        })
        .await;
    assert_eq!(
        leader.raise_feature_level(Some(2), epoch).await.unwrap(),
        (2, 2)
    );
    let refused = leader
        .raise_feature_level(Some(1), epoch)
        .await
        .unwrap_err();
    assert!(matches!(refused, RaftError::Refused(_)), "{refused}");

    // Too old for the log of this group.
    cluster.kill(old).await;
    cluster.features[old] = OLD;
    let failure = cluster.restart_in_vain(old).await;
    assert!(
        failure.contains("feature level 2") && failure.contains("start the version"),
        "{failure}"
    );
    cluster.features[old] = NEW;
    cluster.restart(old).await;
    let newcomer = cluster.newcomer(OLD).await;
    let address = cluster.addresses[newcomer].clone();
    let refused = leader.add_learner(address).await.unwrap_err();
    assert!(
        refused.to_string().contains("supports feature levels"),
        "{refused}"
    );
    assert_eq!(
        cluster.raft(newcomer).cluster_id(),
        None,
        "it was left alone"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_meets_a_level_beyond_it_in_the_log_halts() {
    let (mut cluster, epoch) = running(NEW, 1000).await;
    let old = follower(&cluster).await;
    cluster.kill(old).await;
    cluster.features[old] = OLD;
    cluster.restart(old).await;
    cluster.leader().await;
    cluster.propose(raise_unasked(epoch)).await;
    let member = cluster.members[old].as_ref().unwrap();
    let failure = member.failure().await;
    assert!(failure.contains("feature level 2"), "{failure}");
    assert_eq!(
        member.raft.state().feature_level,
        1,
        "it shows nothing of it"
    );
    // And the others go on.
    cluster.submit(epoch, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_meets_a_level_beyond_it_in_a_snapshot_halts() {
    let (mut cluster, epoch) = running(NEW, 10).await;
    let old = follower(&cluster).await;
    cluster.kill(old).await;
    cluster.propose(raise_unasked(epoch)).await;
    // Far enough for the log to begin after what the member has.
    cluster.submit(epoch, 120).await;
    cluster.features[old] = OLD;
    let failure = cluster.restart_in_vain(old).await;
    assert!(failure.contains("feature level 2"), "{failure}");

    // Its own snapshot is checked at the start as well.
    cluster.features[old] = NEW;
    cluster.restart(old).await;
    let leader = cluster.leader().await;
    let jobs: Vec<_> = cluster.raft(leader).state().jobs.keys().cloned().collect();
    cluster.all_have(&jobs).await;
    cluster.kill(old).await;
    cluster.features[old] = OLD;
    let failure = cluster.restart_in_vain(old).await;
    assert!(failure.contains("feature level 2"), "{failure}");
}
