//! A group that has lost its quorum, or everything but a backup, goes on as another lineage.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flott_coordinator::core::{FeatureLevels, Response};
use flott_coordinator::raft::RaftError;
use flott_coordinator::recovery::{self, Founded, NewGroup, Survivors};
use flott_proto::ids::NodeId;

use crate::raft_cluster::{Cluster, submit};

fn group(dir: PathBuf, address: &str) -> NewGroup {
    NewGroup {
        dir,
        address: address.to_owned(),
        cluster: None,
        node: None,
        survey: true,
        give_up_lost_jobs: false,
        ignore_running: false,
    }
}

fn survivors(dirs: &[PathBuf], lost: &[NodeId]) -> Survivors {
    Survivors {
        dirs: dirs.to_vec(),
        elsewhere: BTreeMap::new(),
        lost: lost.iter().copied().collect(),
    }
}

fn refusal(result: Result<Founded, RaftError>) -> String {
    result.expect_err("it must be refused").to_string()
}

/// Every file of a directory with its length.
fn listing(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let mut files = BTreeMap::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                let length = fs::metadata(&path).unwrap().len();
                files.insert(path.strip_prefix(dir).unwrap().to_owned(), length);
            }
        }
    }
    files
}

async fn kill_all(cluster: &mut Cluster) {
    for n in cluster.running().collect::<Vec<_>>() {
        cluster.kill(n).await;
    }
}

fn ids(cluster: &Cluster) -> Vec<NodeId> {
    cluster
        .running()
        .map(|n| cluster.raft(n).node_id())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_survivor_of_three_goes_on_and_gets_company() {
    // Once from the log alone, once from a snapshot and the log behind it.
    for snapshot_entries in [1000, 10] {
        let mut cluster = Cluster::formed(3, snapshot_entries).await;
        let epoch = cluster.activate().await;
        let mut jobs = cluster.submit(epoch, 25).await;
        cluster.all_have(&jobs).await;
        let old = cluster.raft(0).cluster_id().unwrap();
        let old_ids = ids(&cluster);
        let (dir, address) = (cluster.directory(0), cluster.addresses[0].clone());

        let running = recovery::recover(
            survivors(std::slice::from_ref(&dir), &old_ids[1..]),
            group(PathBuf::new(), &address),
        );
        let refused = refusal(running.await);
        assert!(refused.contains("in use"), "{refused}");
        cluster.kill(0).await;
        let running = recovery::recover(
            survivors(std::slice::from_ref(&dir), &old_ids[1..]),
            group(PathBuf::new(), &address),
        );
        let refused = refusal(running.await);
        assert!(refused.contains("still run at"), "{refused}");
        kill_all(&mut cluster).await;
        let before = listing(&dir);
        let unaccounted = recovery::recover(
            survivors(std::slice::from_ref(&dir), &old_ids[2..]),
            group(PathBuf::new(), &address),
        );
        let refused = refusal(unaccounted.await);
        assert!(refused.contains("may have more"), "{refused}");
        assert_eq!(listing(&dir), before, "what is refused changes nothing");

        fs::remove_dir_all(cluster.directory(1)).unwrap();
        let founded = recovery::recover(
            survivors(std::slice::from_ref(&dir), &old_ids[1..]),
            group(PathBuf::new(), &address),
        );
        let founded = founded.await.unwrap();
        assert_eq!((&founded.predecessor, &founded.dir), (&old, &dir));
        assert!(founded.cluster != old && !old_ids.contains(&founded.node));
        assert_eq!(founded.jobs.len(), jobs.len());
        let aside = founded.aside.clone().unwrap();
        let kept = listing(&aside);
        let of_old = before
            .iter()
            .filter(|(path, _)| !path.ends_with("flott.lock"));
        assert!(of_old.clone().count() >= 2);
        for (path, length) in of_old.filter(|(path, _)| !path.to_string_lossy().ends_with(".spare"))
        {
            assert_eq!(kept.get(path), Some(length), "{}", path.display());
        }

        cluster.restart(0).await;
        let raft = cluster.raft(0);
        assert_eq!(raft.cluster_id(), Some(founded.cluster.clone()));
        assert_eq!(raft.node_id(), founded.node);
        // Whoever was in office in the old group decides nothing here.
        let late = cluster.propose(submit(epoch, &jobs[0])).await;
        assert!(matches!(late.response, Response::Refused(_)), "{late:?}");
        let new_epoch = cluster.activate().await;
        assert!(new_epoch > founded.first_index && new_epoch > epoch);
        jobs.extend(cluster.submit(new_epoch, 3).await);
        assert!(cluster.raft(0).state().succeeds(old.as_str()));

        // A member of the old group is not taken in, and finds out that it has no group.
        let former = cluster.restart_in_vain(2).await;
        assert!(
            former.contains("goes on from the state of cluster"),
            "{former}"
        );
        let again = cluster.restart_in_vain(2).await;
        assert!(again.contains(founded.cluster.as_str()), "{again}");

        for _ in 0..2 {
            let n = cluster.newcomer(FeatureLevels::BUILD).await;
            let address = cluster.addresses[n].clone();
            let (id, _) = cluster.raft(0).add_learner(address).await.unwrap();
            cluster.raft(0).promote_member(id).await.unwrap();
        }
        jobs.extend(cluster.submit(new_epoch, 3).await);
        cluster.all_have(&jobs).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_survivors_the_most_advanced_is_taken_and_none_behind_it() {
    let mut cluster = Cluster::formed(5, 1000).await;
    let epoch = cluster.activate().await;
    let mut jobs = cluster.submit(epoch, 5).await;
    cluster.all_have(&jobs).await;
    let all = ids(&cluster);
    let leader = cluster.leader().await;
    let behind = cluster.running().find(|n| *n != leader).unwrap();
    cluster.kill(behind).await;
    jobs.extend(cluster.submit(epoch, 5).await);
    cluster.all_have(&jobs).await;
    kill_all(&mut cluster).await;

    let (dir, behind_dir) = (cluster.directory(leader), cluster.directory(behind));
    let dirs: Vec<PathBuf> = vec![behind_dir.clone(), dir.clone()];
    let found = recovery::inspect(dirs.clone()).await.unwrap();
    let chosen = recovery::most_advanced(&found).unwrap();
    assert_eq!(chosen.dir, dir);
    assert!(found[0].last < found[1].last, "{found:?}");
    assert_eq!(found[0].voters.len(), 5);

    let others: Vec<NodeId> = (0..5)
        .filter(|n| *n != leader && *n != behind)
        .map(|n| all[n])
        .collect();
    let address = cluster.addresses[leader].clone();
    let mut told = survivors(std::slice::from_ref(&behind_dir), &others);
    told.elsewhere.insert(all[leader], chosen.last);
    let refused = refusal(recovery::recover(told, group(PathBuf::new(), &address)).await);
    assert!(refused.contains("recover there"), "{refused}");

    // With one more it would be a quorum.
    let third = (0..5).find(|n| *n != leader && *n != behind).unwrap();
    let mut three = dirs.clone();
    three.push(cluster.directory(third));
    let lost: Vec<NodeId> = others
        .iter()
        .copied()
        .filter(|id| *id != all[third])
        .collect();
    let refused = recovery::recover(survivors(&three, &lost), group(PathBuf::new(), &address));
    let refused = refusal(refused.await);
    assert!(refused.contains("is a quorum"), "{refused}");

    let founded = recovery::recover(survivors(&dirs, &others), group(PathBuf::new(), &address));
    let founded = founded.await.unwrap();
    assert_eq!(founded.dir, dir);
    cluster.restart(leader).await;
    cluster.leader().await;
    cluster.all_have(&jobs).await;
    // What was superseded, or set aside, is of the old cluster.
    let found = recovery::inspect(vec![dir, behind_dir]).await.unwrap_err();
    assert!(matches!(found, RaftError::InUse { .. }), "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_may_be_all_that_is_left_and_an_uncommitted_entry_counts() {
    let mut cluster = Cluster::formed(3, 1000).await;
    let epoch = cluster.activate().await;
    let mut jobs = cluster.submit(epoch, 5).await;
    let voters = ids(&cluster);
    let n = cluster.newcomer(FeatureLevels::BUILD).await;
    let leader = cluster.leader().await;
    let address = cluster.addresses[n].clone();
    cluster
        .raft(leader)
        .add_learner(address.clone())
        .await
        .unwrap();
    cluster.all_have(&jobs).await;
    // Without a quorum the learner still hears of what can never be committed.
    for other in (0..3).filter(|other| *other != leader) {
        cluster.kill(other).await;
    }
    let uncommitted = flott_proto::ids::JobId::generate();
    let proposing = cluster.raft(leader).propose(submit(epoch, &uncommitted));
    let waited = tokio::time::timeout(Duration::from_secs(1), proposing).await;
    waited.expect_err("there is no quorum");
    kill_all(&mut cluster).await;

    let founded = recovery::recover(
        survivors(&[cluster.directory(n)], &voters),
        group(PathBuf::new(), &address),
    );
    founded.await.unwrap();
    cluster.restart(n).await;
    jobs.push(uncommitted);
    cluster
        .wait_for("the learner to lead", async || {
            cluster
                .raft(n)
                .leadership()
                .borrow()
                .is_leader
                .then_some(())
        })
        .await;
    cluster.all_have(&jobs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_becomes_a_group_that_nobody_of_the_old_one_can_speak_to() {
    let mut cluster = Cluster::formed(3, 10).await;
    let epoch = cluster.activate().await;
    let jobs = cluster.submit(epoch, 40).await;
    cluster.all_have(&jobs).await;
    let old = cluster.raft(0).cluster_id().unwrap();
    let snapshots = fs::read_dir(cluster.directory(0).join("snapshots")).unwrap();
    let snapshots = snapshots.map(|entry| entry.unwrap().path());
    let newest = snapshots
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "snapshot")
        })
        .max()
        .unwrap();
    let place = tempfile::tempdir().unwrap();
    let backup = place.path().join("backup");
    fs::copy(newest, &backup).unwrap();
    let manifest = recovery::verify(&backup).unwrap();
    assert_eq!((&manifest.cluster, manifest.members.len()), (&old, 3));
    assert!(manifest.jobs > 10 && manifest.position.index <= *cluster.raft(0).applied().borrow());

    let mut restored = Cluster::stopped();
    let (dir, address) = (restored.directory(0), restored.addresses[0].clone());
    let refused = refusal(recovery::restore(&backup, group(dir.clone(), &address)).await);
    assert!(refused.contains("still run at"), "{refused}");
    kill_all(&mut cluster).await;
    let refused = recovery::restore(&backup, group(cluster.directory(0), &address)).await;
    let refused = refusal(refused);
    assert!(refused.contains("is not empty"), "{refused}");
    let mut same = group(dir.clone(), &address);
    same.cluster = Some(old.clone());
    let refused = refusal(recovery::restore(&backup, same).await);
    assert!(refused.contains("cannot have the id"), "{refused}");
    let mut damaged = fs::read(&backup).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let other = place.path().join("damaged");
    fs::write(&other, damaged).unwrap();
    let refused = refusal(recovery::restore(&other, group(dir.clone(), &address)).await);
    assert!(refused.contains("is no usable backup"), "{refused}");
    let nowhere = refusal(recovery::restore(&backup, group(dir.clone(), "host")).await);
    assert!(nowhere.contains("host:port"), "{nowhere}");
    assert!(!dir.exists());

    let founded = recovery::restore(&backup, group(dir.clone(), &address))
        .await
        .unwrap();
    assert_eq!(founded.aside, None);
    let again = refusal(recovery::restore(&backup, group(dir.clone(), &address)).await);
    assert!(again.contains("is not empty"), "{again}");
    restored.restart(0).await;
    restored.leader().await;
    let state = restored.raft(0).state();
    assert_eq!(state.jobs.len(), manifest.jobs);
    assert!(state.revision > manifest.revision);
    let new_epoch = restored.activate().await;
    assert!(new_epoch > manifest.epoch);

    // The old group, started again as it was, is another cluster: neither takes the other's members.
    for n in 0..3 {
        cluster.restart(n).await;
    }
    let leader = cluster.leader().await;
    let stranger = restored.addresses[0].clone();
    let refused = cluster
        .raft(leader)
        .add_learner(stranger)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("already belongs"), "{refused}");
    let stranger = cluster.addresses[leader].clone();
    let refused = restored.raft(0).add_learner(stranger).await.unwrap_err();
    assert!(refused.to_string().contains("already belongs"), "{refused}");
    let voters: BTreeSet<NodeId> = recovery_members(&restored).await;
    assert_eq!(voters, BTreeSet::from([founded.node]));
    restored.kill(0).await;
}

async fn recovery_members(cluster: &Cluster) -> BTreeSet<NodeId> {
    let members = cluster.raft(0).members().await;
    members.into_iter().map(|member| member.id).collect()
}
