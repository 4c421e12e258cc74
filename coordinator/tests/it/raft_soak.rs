//! Members die and come back in turn while clients propose: nothing acknowledged is lost, and all end up alike.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use flott_coordinator::core::Response;
use flott_coordinator::raft::{ProposeError, RaftNode};
use flott_proto::ids::JobId;
use futures::future::join_all;

use crate::raft_cluster::{Cluster, submit};

/// Leader and followers both get their turn.
const DEATHS: usize = 6;

/// Who proposes at the same time.
const CLIENTS: usize = 4;

/// The nodes that a client may ask, as they come and go.
type Nodes = Arc<Mutex<Vec<Option<RaftNode>>>>;

/// Submits jobs to whoever leads until told to stop; the ids of those that were acknowledged.
async fn client(nodes: Nodes, epoch: u64, stop: Arc<AtomicBool>) -> Vec<JobId> {
    let mut acknowledged = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let leads = |node: &RaftNode| node.leadership().borrow().is_leader;
        let leader = {
            let nodes = nodes.lock().unwrap();
            nodes.iter().flatten().find(|node| leads(node)).cloned()
        };
        let Some(leader) = leader else {
            tokio::task::yield_now().await;
            continue;
        };
        let id = JobId::generate();
        match leader.propose(submit(epoch, &id)).await {
            Ok(applied) => {
                assert_eq!(applied.response, Response::Applied);
                acknowledged.push(id);
            }
            Err(ProposeError::TooLarge { .. }) => panic!("a small job"),
            Err(_) => tokio::task::yield_now().await,
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_acknowledged_is_lost_while_members_die_and_return() {
    let mut cluster = Cluster::formed(3, 20).await;
    let epoch = cluster.activate().await;
    let all = (0..3).map(|n| Some(cluster.raft(n).clone())).collect();
    let nodes: Nodes = Arc::new(Mutex::new(all));
    let stop = Arc::new(AtomicBool::new(false));
    let here = tokio::runtime::Handle::current();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| here.spawn(client(Arc::clone(&nodes), epoch, Arc::clone(&stop))))
        .collect();

    for death in 0..DEATHS {
        let leader = cluster.leader().await;
        let victim = if death % 2 == 0 {
            leader
        } else {
            (leader + 1) % 3
        };
        nodes.lock().unwrap()[victim] = None;
        cluster.kill(victim).await;
        // The others go on without it for a while.
        let leader = cluster.leader().await;
        let reached = *cluster.raft(leader).applied().borrow() + 30 * (death as u64 % 3);
        cluster
            .wait_for("progress", async || {
                (*cluster.raft(leader).applied().borrow() >= reached).then_some(())
            })
            .await;
        cluster.restart(victim).await;
        nodes.lock().unwrap()[victim] = Some(cluster.raft(victim).clone());
    }
    cluster.leader().await;
    stop.store(true, Ordering::SeqCst);
    let acknowledged: Vec<JobId> = join_all(clients)
        .await
        .into_iter()
        .flat_map(|client| client.unwrap())
        .collect();
    println!("{} acknowledged over {DEATHS} deaths", acknowledged.len());
    assert!(acknowledged.len() > DEATHS);
    cluster
        .wait_for(
            "all members to be alike and to have everything",
            async || {
                let states: Vec<_> = (0..3).map(|n| cluster.raft(n).state()).collect();
                let complete = |id| states.iter().all(|state| state.jobs.contains_key(id));
                let alike = states.windows(2).all(|two| two[0] == two[1]);
                (alike && acknowledged.iter().all(complete)).then_some(())
            },
        )
        .await;
}
