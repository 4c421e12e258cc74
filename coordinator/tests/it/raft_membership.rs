//! Forming a cluster, and changing who is a member of it.

use std::fs;

use flott_coordinator::core::FeatureLevels;
use flott_coordinator::raft::{Health, MemberRole, RaftError, RaftNode};
use flott_proto::ids::NodeId;

use crate::raft_cluster::Cluster;

/// Adds a fresh member as a learner; its number and id.
async fn learner(cluster: &mut Cluster) -> (usize, NodeId) {
    let n = cluster.newcomer(FeatureLevels::BUILD).await;
    let leader = cluster.leader().await;
    let address = cluster.addresses[n].clone();
    let (id, voter) = cluster.raft(leader).add_learner(address).await.unwrap();
    assert!(!voter);
    (n, id)
}

/// The number of a voter that does not lead.
async fn follower(cluster: &Cluster) -> usize {
    let leader = cluster.leader().await;
    cluster.running().find(|n| *n != leader).unwrap()
}

async fn roles(raft: &RaftNode) -> Vec<(NodeId, MemberRole)> {
    let members = raft.members().await;
    members
        .into_iter()
        .map(|member| (member.id, member.role))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_formed_once() {
    let cluster = Cluster::formed(3, 1000).await;
    let id = cluster.raft(0).cluster_id().unwrap();
    assert!((0..3).all(|n| cluster.raft(n).cluster_id().as_ref() == Some(&id)));
    for n in 0..3 {
        let refused = cluster
            .raft(n)
            .initialize(cluster.addresses.clone())
            .await
            .unwrap_err();
        assert!(
            matches!(&refused, RaftError::NotPristine { cluster_id, .. } if *cluster_id == id.as_str())
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_formed_only_of_pristine_members_that_answer_and_include_the_asked() {
    let mut other = Cluster::formed(1, 1000).await;
    let mut cluster = Cluster::pristine(2, 1000).await;
    let node = cluster.raft(0);

    let with_member_of_other = vec![cluster.addresses[0].clone(), other.addresses[0].clone()];
    let refused = node.initialize(with_member_of_other).await.unwrap_err();
    assert!(
        matches!(refused, RaftError::NotPristine { .. }),
        "{refused}"
    );

    let refused = node
        .initialize(vec![cluster.addresses[1].clone()])
        .await
        .unwrap_err();
    assert!(matches!(refused, RaftError::Configuration(_)), "{refused}");

    let dead = other.addresses[0].clone();
    other.kill(0).await;
    let refused = node
        .initialize(vec![cluster.addresses[0].clone(), dead])
        .await
        .unwrap_err();
    assert!(matches!(refused, RaftError::Peer { .. }), "{refused}");

    assert_eq!(
        node.cluster_id(),
        None,
        "a refused attempt leaves nothing behind"
    );
    node.initialize(cluster.addresses.clone()).await.unwrap();
    cluster.leader().await;
    cluster.kill(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_disk_was_replaced_is_refused_until_it_is_added_as_a_new_one() {
    let mut cluster = Cluster::formed(3, 10).await;
    let epoch = cluster.activate().await;
    let mut jobs = cluster.submit(epoch, 50).await;
    let leader = cluster.leader().await;
    let wiped = cluster.running().find(|n| *n != leader).unwrap();
    let old_id = cluster.raft(wiped).node_id();
    cluster.kill(wiped).await;
    fs::remove_dir_all(cluster.directory(wiped)).unwrap();
    cluster.restart(wiped).await;

    // The other two go on, and nobody counts the empty one.
    jobs.extend(cluster.submit(epoch, 5).await);
    assert_ne!(cluster.raft(wiped).node_id(), old_id);
    assert_eq!(cluster.raft(wiped).cluster_id(), None);
    let members = cluster.raft(leader).members().await;
    let role = members
        .iter()
        .find(|member| member.id == old_id)
        .unwrap()
        .role;
    assert_eq!(role, MemberRole::Unreachable);

    let leader = cluster.raft(leader);
    leader.remove_member(old_id).await.unwrap();
    let address = cluster.addresses[wiped].clone();
    let (new_id, _) = leader.add_learner(address).await.unwrap();
    assert_eq!(new_id, cluster.raft(wiped).node_id());
    leader.promote_member(new_id).await.unwrap();
    jobs.extend(cluster.submit(epoch, 5).await);
    cluster.all_have(&jobs).await;
    let voters = leader
        .members()
        .await
        .into_iter()
        .filter(|member| member.role != MemberRole::Learner);
    assert_eq!(voters.count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_learns_gets_a_vote_and_is_removed_for_good() {
    let mut cluster = Cluster::formed(3, 1000).await;
    let epoch = cluster.activate().await;
    let mut jobs = cluster.submit(epoch, 20).await;
    let (n, id) = learner(&mut cluster).await;
    let leader = cluster.leader().await;
    let address = cluster.addresses[n].clone();

    // Whatever is done already is answered as done.
    let again = cluster.raft(leader).add_learner(address.clone()).await;
    assert_eq!(again.unwrap(), (id, false));
    cluster
        .wait_for("the learner to catch up", async || {
            let progress = cluster.raft(leader).progress(id).unwrap();
            assert!(!progress.voter);
            progress.caught_up.then_some(())
        })
        .await;
    assert!(
        roles(cluster.raft(leader))
            .await
            .contains(&(id, MemberRole::Learner))
    );
    let promoted = cluster.raft(leader).promote_member(id).await.unwrap();
    assert!(promoted.voters.contains(&id) && promoted.voters.len() == 4 && !promoted.was_done);
    assert_eq!(promoted.tolerated_failures, 1);
    let again = cluster.raft(leader).promote_member(id).await.unwrap();
    assert!(again.was_done);
    jobs.extend(cluster.submit(epoch, 5).await);
    cluster.all_have(&jobs).await;
    for member in cluster.raft(leader).members().await {
        assert_eq!(member.health, Health::Ok, "{member:?}");
        let report = member.report.unwrap();
        assert!(report.disk_free_bytes > 0 && report.disk_free_bytes < report.disk_total_bytes);
        assert_eq!(report.feature_level_max, FeatureLevels::BUILD.max);
    }

    let leader = cluster.leader().await;
    let (raft, term) = (
        cluster.raft(leader).clone(),
        cluster.raft(leader).leadership().borrow().term,
    );
    let removed = raft.remove_member(id).await.unwrap();
    assert!(!removed.voters.contains(&id) && !removed.was_done);
    assert!(raft.remove_member(id).await.unwrap().was_done);
    let failure = cluster.members[n].as_ref().unwrap().failure().await;
    assert!(failure.contains("was removed from its group"), "{failure}");
    cluster.kill(n).await;
    let failure = cluster.restart_in_vain(n).await;
    assert!(failure.contains("members add"), "{failure}");
    jobs.extend(cluster.submit(epoch, 5).await);
    assert_eq!(
        raft.leadership().borrow().term,
        term,
        "a removed member disturbs nobody"
    );
    let refused = raft.remove_member(NodeId(77)).await.unwrap_err();
    assert!(matches!(refused, RaftError::NoSuchMember(_)), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_removed_while_it_was_down_finds_out() {
    let mut cluster = Cluster::formed(3, 1000).await;
    let gone = follower(&cluster).await;
    let id = cluster.raft(gone).node_id();
    cluster.kill(gone).await;
    let leader = cluster.raft(cluster.leader().await).clone();
    leader.remove_member(id).await.unwrap();
    let failure = cluster.restart_in_vain(gone).await;
    assert!(failure.contains("was removed from its group"), "{failure}");

    // Its id is used up, even with another disk.
    fs::remove_dir_all(cluster.directory(gone)).unwrap();
    cluster.node_ids[gone] = Some(id);
    cluster.restart(gone).await;
    let address = cluster.addresses[gone].clone();
    let refused = leader.add_learner(address).await.unwrap_err().to_string();
    assert!(refused.contains("never reused"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_voter_is_replaced_in_one_change() {
    let mut cluster = Cluster::formed(3, 10).await;
    let epoch = cluster.activate().await;
    let mut jobs = cluster.submit(epoch, 60).await;
    let dead = follower(&cluster).await;
    let old = cluster.raft(dead).node_id();
    cluster.kill(dead).await;
    let (n, new) = learner(&mut cluster).await;
    let leader = cluster.raft(cluster.leader().await).clone();
    let changed = leader.replace_member(old, new).await.unwrap();
    assert_eq!(changed.voters.len(), 3);
    assert!(changed.voters.contains(&new) && !changed.voters.contains(&old));
    assert_eq!(changed.tolerated_failures, 1);
    assert!(leader.replace_member(old, new).await.unwrap().was_done);
    assert_eq!(leader.pending_change(), None);

    // The new one is a full member: the group survives the loss of another.
    let other = cluster
        .running()
        .find(|other| *other != n && cluster.raft(*other).node_id() != leader.node_id())
        .unwrap();
    cluster.kill(other).await;
    jobs.extend(cluster.submit(epoch, 5).await);
    cluster.all_have(&jobs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_would_stop_the_group_is_refused_and_leaves_it_as_it_was() {
    let mut cluster = Cluster::formed(3, 1000).await;
    let epoch = cluster.activate().await;
    let dead = follower(&cluster).await;
    cluster.kill(dead).await;
    let alive = follower(&cluster).await;
    let (n, learning) = learner(&mut cluster).await;
    cluster.kill(n).await;
    let leader = cluster.raft(cluster.leader().await).clone();
    let before = leader.members().await.len();
    let refusals = [
        leader.remove_member(cluster.raft(alive).node_id()).await,
        leader.promote_member(learning).await,
        leader
            .replace_member(cluster.raft(alive).node_id(), learning)
            .await,
    ];
    for refused in refusals {
        let refused = refused.unwrap_err();
        assert!(matches!(refused, RaftError::Refused(_)), "{refused}");
    }
    assert_eq!(leader.members().await.len(), before);
    cluster.submit(epoch, 1).await;

    // What does not answer can go.
    leader.remove_member(learning).await.unwrap();

    let alone = Cluster::formed(1, 1000).await;
    let last = alone.raft(0);
    let refused = last.remove_member(last.node_id()).await.unwrap_err();
    assert!(refused.to_string().contains("last voter"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_to_be_removed_hands_over_first() {
    let cluster = Cluster::formed(3, 1000).await;
    let epoch = cluster.activate().await;
    let jobs = cluster.submit(epoch, 3).await;
    let old = cluster.leader().await;
    let id = cluster.raft(old).node_id();
    let refused = cluster.raft(old).remove_member(id).await.unwrap_err();
    assert!(matches!(refused, RaftError::NotLeader { .. }), "{refused}");
    let new = cluster.leader().await;
    assert_ne!(new, old);
    cluster.raft(new).remove_member(id).await.unwrap();
    let failure = cluster.members[old].as_ref().unwrap().failure().await;
    assert!(failure.contains("was removed"), "{failure}");
    assert_eq!(cluster.raft(new).state().jobs.len(), jobs.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_change_at_a_time() {
    let mut cluster = Cluster::formed(3, 1000).await;
    let (_, first) = learner(&mut cluster).await;
    let (_, second) = learner(&mut cluster).await;
    let leader = cluster.raft(cluster.leader().await).clone();
    let both = tokio::join!(leader.promote_member(first), leader.promote_member(second));
    let (done, refused) = match both {
        (Ok(done), Err(refused)) | (Err(refused), Ok(done)) => (done, refused),
        both => panic!("{both:?}"),
    };
    assert_eq!(done.voters.len(), 4);
    assert!(
        matches!(&refused, RaftError::ChangeInProgress(what) if what.contains("promoting member")),
        "{refused}"
    );
}
