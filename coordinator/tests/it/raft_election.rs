//! Who leads, and what proposals come back with.

use flott_coordinator::core::{FeatureLevels, Response};
use flott_coordinator::raft::{MemberRole, ProposeError, RaftError};
use flott_proto::ids::{JobId, NodeId};
use futures::future::join_all;

use crate::raft_cluster::{Cluster, activate, submit};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pristine_node_waits() {
    let cluster = Cluster::pristine(1, 1000).await;
    let node = cluster.raft(0);
    assert_eq!(node.cluster_id(), None);
    assert!(node.members().await.is_empty());
    assert!(!node.lease_is_valid());
    assert_eq!(
        node.propose(activate()).await,
        Err(ProposeError::NotLeader { leader: None })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_proposed_is_applied_on_all_members() {
    let cluster = Cluster::formed(3, 1000).await;
    let epoch = cluster.activate().await;
    let jobs: Vec<JobId> = (0..200).map(|_| JobId::generate()).collect();
    let leader = cluster.raft(cluster.leader().await);
    let applied = join_all(jobs.iter().map(|id| leader.propose(submit(epoch, id)))).await;
    let mut indexes: Vec<u64> = applied
        .into_iter()
        .map(|applied| {
            let applied = applied.unwrap();
            assert_eq!(applied.response, Response::Applied);
            applied.index
        })
        .collect();
    indexes.dedup();
    assert_eq!(
        indexes.len(),
        jobs.len(),
        "each command has an entry of its own"
    );
    assert_eq!(
        leader.state().jobs.len(),
        jobs.len(),
        "what is acknowledged is visible"
    );
    assert!(*leader.applied().borrow() >= *indexes.last().unwrap());
    cluster.all_have(&jobs).await;
    let members = leader.members().await;
    assert_eq!(members.len(), 3);
    assert_eq!(
        members
            .iter()
            .filter(|member| member.role == MemberRole::Leader)
            .count(),
        1
    );
    assert_eq!(
        members
            .iter()
            .filter(|member| member.role == MemberRole::Follower)
            .count(),
        2
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_refuses_and_names_the_leader() {
    let cluster = Cluster::formed(3, 1000).await;
    let leader = cluster.leader().await;
    let follower = cluster.running().find(|n| *n != leader).unwrap();
    let address = cluster.addresses[leader].clone();
    let refused = cluster.raft(follower).propose(activate()).await;
    assert_eq!(
        refused,
        Err(ProposeError::NotLeader {
            leader: Some(address)
        })
    );
    assert!(!cluster.raft(follower).lease_is_valid());
    cluster
        .wait_for("the lease", async || {
            cluster.raft(leader).lease_is_valid().then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_dies_another_is_elected_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::formed(3, 1000).await;
    let epoch = cluster.activate().await;
    let mut jobs = cluster.submit(epoch, 20).await;
    let old = cluster.leader().await;
    let old_term = cluster.raft(old).leadership().borrow().term;
    let before = cluster.clock.monotonic();
    cluster.kill(old).await;
    let new = cluster.leader().await;
    let took = cluster.clock.monotonic() - before;
    println!("failover took {took:?} with election timeouts of 400 to 800 ms");
    assert_ne!(new, old);
    assert!(cluster.raft(new).leadership().borrow().term > old_term);
    jobs.extend(cluster.submit(epoch, 5).await);
    cluster.restart(old).await;
    cluster.all_have(&jobs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_at_once() {
    let cluster = Cluster::formed(3, 1000).await;
    let epoch = cluster.activate().await;
    let jobs = cluster.submit(epoch, 3).await;
    let old = cluster.leader().await;
    let before = cluster.clock.monotonic();
    cluster.raft(old).transfer_leadership().await.unwrap();
    println!("transfer took {:?}", cluster.clock.monotonic() - before);
    assert!(!cluster.raft(old).leadership().borrow().is_leader);
    let new = cluster.leader().await;
    assert_ne!(new, old);
    cluster.raft(old).transfer_leadership().await.unwrap();
    assert_eq!(
        cluster.leader().await,
        new,
        "one who does not lead has nothing to hand over"
    );
    cluster.all_have(&jobs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_to_the_voter_that_was_named_and_to_no_other() {
    let mut cluster = Cluster::formed(3, 1000).await;
    let leader = cluster.leader().await;
    let named = cluster.running().filter(|n| *n != leader).last().unwrap();
    let newcomer = cluster.newcomer(FeatureLevels::BUILD).await;
    let address = cluster.addresses[newcomer].clone();
    let raft = cluster.raft(leader).clone();
    let (learner, _) = raft.add_learner(address).await.unwrap();
    let refused = raft.transfer_leadership_to(Some(learner)).await;
    assert!(matches!(refused, Err(RaftError::Refused(_))), "{refused:?}");
    let nobody = raft.transfer_leadership_to(Some(NodeId(77))).await;
    assert!(
        matches!(nobody, Err(RaftError::NoSuchMember(_))),
        "{nobody:?}"
    );
    assert_eq!(cluster.leader().await, leader, "a refusal changes nothing");

    let named_id = cluster.raft(named).node_id();
    let successor = raft.transfer_leadership_to(Some(named_id)).await.unwrap();
    assert_eq!(successor, named_id);
    assert_eq!(cluster.leader().await, named);
    let late = raft.transfer_leadership_to(None).await;
    assert!(matches!(late, Err(RaftError::NotLeader { .. })), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_loses_its_lease_and_commits_nothing() {
    let mut cluster = Cluster::formed(3, 1000).await;
    let leader = cluster.leader().await;
    let others: Vec<usize> = cluster.running().filter(|n| *n != leader).collect();
    for other in &others {
        cluster.kill(*other).await;
    }
    let node = cluster.raft(leader);
    cluster
        .wait_for("the lease to end", async || {
            (!node.lease_is_valid()).then_some(())
        })
        .await;
    let applied = *node.applied().borrow();
    assert!(node.propose(activate()).await.is_err());
    assert_eq!(*node.applied().borrow(), applied);
    let roles: Vec<MemberRole> = node
        .members()
        .await
        .into_iter()
        .map(|member| member.role)
        .collect();
    assert_eq!(
        roles
            .iter()
            .filter(|role| **role == MemberRole::Unreachable)
            .count(),
        2
    );
}
