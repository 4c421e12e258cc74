//! Links that go silent: no connection is refused or closed, nothing simply arrives.

use std::net::TcpListener as StdListener;
use std::time::Duration;

use flott_coordinator::raft::MemberRole;
use flott_node::SystemClock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::raft_cluster::Cluster;

/// What goes to one member, and can be held up.
struct Link {
    cut: watch::Sender<bool>,
    address: String,
}

impl Link {
    async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (cut, observed) = watch::channel(false);
        Handle::current().spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                Handle::current().spawn(forward(connection, target.clone(), observed.clone()));
            }
        });
        Self { cut, address }
    }
}

async fn forward(connection: TcpStream, target: String, mut cut: watch::Receiver<bool>) {
    if cut.wait_for(|cut| !*cut).await.is_err() {
        return;
    }
    let Ok(onward) = TcpStream::connect(target).await else {
        return;
    };
    let (from, back) = connection.into_split();
    let (answers, to) = onward.into_split();
    // Whichever side ends first ends both.
    tokio::select! {
        () = pump(from, to, cut.clone()) => {}
        () = pump(answers, back, cut) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut cut: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if cut.wait_for(|cut| !*cut).await.is_err() || to.write_all(&buffer[..read]).await.is_err()
        {
            return;
        }
    }
}

/// Three members, each reached through its link only.
async fn linked() -> (Cluster, Vec<Link>) {
    let (mut links, mut listeners) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        links.push(Link::to(listener.local_addr().unwrap().to_string()).await);
        listeners.push(listener);
    }
    let addresses = links.iter().map(|link| link.address.clone()).collect();
    let cluster = Cluster::start(addresses, listeners, 1000).await;
    cluster
        .raft(0)
        .initialize(cluster.addresses.clone())
        .await
        .unwrap();
    cluster.leader().await;
    (cluster, links)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_link_to_a_follower_disturbs_nobody_and_the_follower_catches_up() {
    let (cluster, links) = linked().await;
    let epoch = cluster.activate().await;
    let mut jobs = cluster.submit(epoch, 5).await;
    let leader = cluster.leader().await;
    let term = cluster.raft(leader).leadership().borrow().term;
    let follower = (leader + 1) % 3;
    links[follower].cut.send_replace(true);
    // Several election timeouts: the follower stands again and again, and is told that there is a leader.
    let clock = SystemClock::shared();
    let until = clock.monotonic() + Duration::from_secs(4);
    while clock.monotonic() < until {
        jobs.extend(cluster.submit(epoch, 1).await);
        assert!(cluster.raft(leader).lease_is_valid());
    }
    assert!(cluster.raft(leader).leadership().borrow().is_leader);
    assert_eq!(cluster.raft(leader).leadership().borrow().term, term);
    let members = cluster.raft(leader).members().await;
    let cut_off = cluster.raft(follower).node_id();
    assert_eq!(
        members
            .iter()
            .find(|member| member.id == cut_off)
            .unwrap()
            .role,
        MemberRole::Unreachable
    );

    links[follower].cut.send_replace(false);
    let healed = clock.monotonic();
    cluster.all_have(&jobs).await;
    println!(
        "caught up {:?} after the link was restored",
        clock.monotonic() - healed
    );
    assert_eq!(
        cluster.raft(leader).leadership().borrow().term,
        term,
        "nor does its return"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_nobody_hears_loses_its_lease_and_the_group_recovers() {
    let (cluster, links) = linked().await;
    let epoch = cluster.activate().await;
    let mut jobs = cluster.submit(epoch, 5).await;
    let leader = cluster.leader().await;
    for other in (0..3).filter(|n| *n != leader) {
        links[other].cut.send_replace(true);
    }
    let node = cluster.raft(leader);
    cluster
        .wait_for("the lease to end", async || {
            (!node.lease_is_valid()).then_some(())
        })
        .await;
    for link in &links {
        link.cut.send_replace(false);
    }
    jobs.extend(cluster.submit(epoch, 5).await);
    cluster.all_have(&jobs).await;
}
