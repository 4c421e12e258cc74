//! Finds the leader: a WatchLeader stream to every JobManager at once, kept open.
//!
//! JobManagers that join the group later are learnt from those that are known, so all of them can be replaced in turn
//! while this process runs.
//!
//! A TaskManager belongs to one cluster. It leaves it only for a successor: a cluster that says that it goes on from its own,
//! after a restore or a recovery. There is no way back, since a cluster never goes on from one that came after it.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;

use flott_node::tls::{self, Whom};
use flott_node::{OnFailure, SharedClock, Tasks, Transport};
use flott_proto::ids::{ClusterId, LeaderEpoch};
use flott_proto::wire::task_manager_gateway_client::TaskManagerGatewayClient;
use flott_proto::wire::{LeaderInfo, WatchLeaderRequest};
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};
use tracing::{debug, warn};

use crate::Error;

/// A new leader is in office within a second, so nobody waits long to ask again.
pub(super) const RETRY_MIN: Duration = Duration::from_millis(20);
pub(super) const RETRY_MAX: Duration = Duration::from_millis(200);
/// A JobManager that takes longer to accept a connection is no help at present.
const CONNECT_DEADLINE: Duration = Duration::from_millis(500);
/// A machine that vanished without closing its connections is noticed by the missing answer to a ping.
const PING_INTERVAL: Duration = Duration::from_secs(1);
const PING_DEADLINE: Duration = Duration::from_secs(2);
/// JobManagers that are watched. A group has fewer members; what comes beyond is what it had in the past.
const WATCHED_MAX: usize = 64;

/// What each JobManager says about who leads, by its address. An entry goes when its stream ends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeaderView {
    says: BTreeMap<String, LeaderInfo>,
}

/// A leader to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub address: String,
    /// None if its source does not know.
    pub epoch: LeaderEpoch,
    pub cluster: String,
    pub kin: Kin,
}

/// What a leader's cluster is to the one that a TaskManager belongs to. The later, the rather it is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kin {
    Foreign,
    /// The same, or the TaskManager belongs to none yet.
    Own,
    /// It goes on from the TaskManager's.
    Successor,
}

fn kin(info: &LeaderInfo, bound: Option<&ClusterId>) -> Kin {
    let Some(bound) = bound.map(ClusterId::as_str) else {
        return Kin::Own;
    };
    if info.cluster_id == bound || info.cluster_id.is_empty() {
        Kin::Own
    } else if info.predecessors.iter().any(|old| old == bound) {
        Kin::Successor
    } else {
        Kin::Foreign
    }
}

impl LeaderView {
    /// A JobManager said who leads.
    pub fn on_info(&mut self, from: &str, info: LeaderInfo) {
        self.says.insert(from.to_owned(), info);
    }

    /// A JobManager says nothing any more.
    pub fn on_silence(&mut self, from: &str) {
        self.says.remove(from);
    }

    /// JobManagers that are members, as those say that know the latest leader.
    fn members(&self) -> BTreeSet<String> {
        let latest = self.says.values().map(|info| info.epoch).max();
        let latest = self.says.values().filter(|info| Some(info.epoch) == latest);
        latest.flat_map(|info| info.members.clone()).collect()
    }

    /// Whom a TaskManager of cluster `bound` is to try: the address of the highest epoch, in a successor of its cluster, else
    /// in its own. Where epochs are equal, a leader that speaks of itself. One of a foreign cluster if there is no other, so
    /// that the mistake can be told.
    pub fn candidate(&self, bound: Option<&ClusterId>) -> Option<Candidate> {
        let known = self
            .says
            .iter()
            .filter(|(_, info)| !info.address.is_empty())
            .map(|(from, info)| (kin(info, bound), from, info))
            // For a successor tasks are given up: only for one that is in office.
            .filter(|(kin, _, info)| *kin != Kin::Successor || info.epoch != 0);
        let best = known.max_by_key(|(kin, from, info)| (*kin, info.epoch, **from == info.address));
        best.map(|(kin, _, info)| Candidate {
            address: info.address.clone(),
            epoch: LeaderEpoch(info.epoch),
            cluster: info.cluster_id.clone(),
            kin,
        })
    }
}

/// The wait before the next try: doubled each time, within limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn new() -> Self {
        Self(RETRY_MIN)
    }

    pub(super) fn next(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (wait * 2).min(RETRY_MAX);
        wait
    }
}

/// A connection to a JobManager.
pub(super) async fn connect(
    transport: &Transport,
    address: &str,
) -> Result<TaskManagerGatewayClient<Channel>, Error> {
    let invalid = |error: tonic::transport::Error| {
        Error::Configuration(format!("JobManager address {address:?}: {error}"))
    };
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(invalid)?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_DEADLINE)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_DEADLINE)
        .keep_alive_while_idle(true);
    let connector = transport.connector(Whom::JobManager);
    let connected = endpoint.connect_with_connector(connector).await;
    let channel = connected.map_err(|error| match tls::refusal(&error) {
        Some(reason) => Error::Configuration(reason),
        None => Error::Io {
            place: format!("cannot connect to JobManager {address}"),
            source: std::io::Error::other(error),
        },
    })?;
    // A deployment carries the job graph and every restored file's name.
    Ok(TaskManagerGatewayClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX))
}

/// The longest message from a leader.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// Watches all JobManagers, those at `addresses` and those that they know, until the tasks are cancelled.
pub(super) fn watch_all(
    addresses: &[String],
    cluster: Option<&ClusterId>,
    transport: &Transport,
    tasks: &Tasks,
    clock: &SharedClock,
) -> watch::Receiver<LeaderView> {
    let (view, receiver) = watch::channel(LeaderView::default());
    let mut watchers = Watchers {
        cluster: cluster.map(ToString::to_string).unwrap_or_default(),
        watched: BTreeSet::new(),
        transport: transport.clone(),
        view,
        tasks: tasks.clone(),
        clock: SharedClock::clone(clock),
    };
    for address in addresses {
        watchers.watch(address);
    }
    tasks.spawn("jobmanager discovery", OnFailure::Log, watchers.run());
    receiver
}

/// A watcher for each JobManager that was ever heard of.
struct Watchers {
    cluster: String,
    watched: BTreeSet<String>,
    transport: Transport,
    view: watch::Sender<LeaderView>,
    tasks: Tasks,
    clock: SharedClock,
}

impl Watchers {
    /// Watches whoever turns up as a member.
    async fn run(mut self) -> Result<(), Infallible> {
        let cancelled = self.tasks.cancellation().clone();
        let mut view = self.view.subscribe();
        loop {
            let members = view.borrow_and_update().members();
            for member in &members {
                self.watch(member);
            }
            tokio::select! { biased;
                () = cancelled.cancelled() => return Ok(()),
                changed = view.changed() => if changed.is_err() { return Ok(()) },
            }
        }
    }

    fn watch(&mut self, address: &str) {
        if self.watched.contains(address) || self.watched.len() == WATCHED_MAX {
            return;
        }
        self.watched.insert(address.to_owned());
        let watcher = Watcher {
            address: address.to_owned(),
            cluster: self.cluster.clone(),
            transport: self.transport.clone(),
            view: self.view.clone(),
            clock: SharedClock::clone(&self.clock),
        };
        let cancelled = self.tasks.cancellation().clone();
        self.tasks
            .spawn("leader watch", OnFailure::Log, async move {
                tokio::select! { biased;
                    () = cancelled.cancelled() => (),
                    () = watcher.run() => (),
                }
                Ok::<_, Infallible>(())
            });
    }
}

struct Watcher {
    address: String,
    cluster: String,
    transport: Transport,
    view: watch::Sender<LeaderView>,
    clock: SharedClock,
}

impl Watcher {
    async fn run(self) {
        let mut backoff = Backoff::new();
        let mut warned = String::new();
        loop {
            match self.watch(&mut backoff).await {
                Ok(()) => debug!(jobmanager = self.address, "leader watch ended"),
                Err(Error::Configuration(what)) => {
                    if warned != what {
                        warn!(
                            jobmanager = self.address,
                            what, "cannot watch for the leader"
                        );
                        warned = what;
                    }
                }
                Err(error) => {
                    debug!(jobmanager = self.address, %error, "cannot watch for the leader")
                }
            }
            self.view.send_if_modified(|view| {
                let known = view.says.contains_key(&self.address);
                view.on_silence(&self.address);
                known
            });
            self.clock.sleep(backoff.next()).await;
        }
    }

    async fn watch(&self, backoff: &mut Backoff) -> Result<(), Error> {
        let failed = |status: tonic::Status| {
            if status.code() == tonic::Code::PermissionDenied {
                return Error::Configuration(status.message().to_owned());
            }
            Error::Io {
                place: format!("JobManager {}", self.address),
                source: std::io::Error::other(status),
            }
        };
        let mut client = connect(&self.transport, &self.address).await?;
        let request = WatchLeaderRequest {
            cluster_id: self.cluster.clone(),
        };
        let mut stream = client
            .watch_leader(request)
            .await
            .map_err(failed)?
            .into_inner();
        while let Some(info) = stream.message().await.map_err(failed)? {
            *backoff = Backoff::new();
            self.view
                .send_modify(|view| view.on_info(&self.address, info));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(address: &str, epoch: u64) -> LeaderInfo {
        LeaderInfo {
            cluster_id: "c".into(),
            address: address.into(),
            node_id: 1,
            epoch,
            members: Vec::new(),
            predecessors: Vec::new(),
        }
    }

    fn successor(address: &str, epoch: u64) -> LeaderInfo {
        LeaderInfo {
            cluster_id: "d".into(),
            predecessors: vec!["b".into(), "c".into()],
            ..info(address, epoch)
        }
    }

    #[test]
    fn a_successor_is_followed_and_never_left_for_the_old_cluster() {
        let own: ClusterId = "c".parse().unwrap();
        let mut view = LeaderView::default();
        let told = |view: &LeaderView, bound: &ClusterId| {
            view.candidate(Some(bound))
                .map(|candidate| (candidate.address, candidate.kin))
        };
        view.on_info("a:1", info("a:1", 70));
        view.on_info("d:1", successor("d:1", 0));
        assert_eq!(
            told(&view, &own),
            Some(("a:1".into(), Kin::Own)),
            "it is not in office"
        );
        // Whatever the epochs are, for the old leader may have been elected often.
        view.on_info("d:1", successor("d:1", 9));
        assert_eq!(told(&view, &own), Some(("d:1".into(), Kin::Successor)));
        let new: ClusterId = "d".parse().unwrap();
        assert_eq!(told(&view, &new), Some(("d:1".into(), Kin::Own)));
        view.on_silence("d:1");
        assert_eq!(told(&view, &new), Some(("a:1".into(), Kin::Foreign)));
        // Another restore of the same backup is a stranger to those that are of this one.
        let sibling = LeaderInfo {
            cluster_id: "e".into(),
            ..successor("e:1", 99)
        };
        view.on_info("e:1", sibling);
        view.on_info("d:1", successor("d:1", 9));
        assert_eq!(told(&view, &new), Some(("d:1".into(), Kin::Own)));
    }

    #[test]
    fn the_highest_epoch_wins_whoever_tells_of_it() {
        let mut view = LeaderView::default();
        assert_eq!(view.candidate(None), None);
        view.on_info("a:1", info("", 0));
        assert_eq!(view.candidate(None), None);
        view.on_info("b:1", info("c:1", 0));
        assert_eq!(view.candidate(None).unwrap().address, "c:1");
        view.on_info("a:1", info("a:1", 7));
        view.on_info("c:1", info("c:1", 4));
        assert_eq!(view.candidate(None).unwrap().address, "a:1");
        view.on_silence("a:1");
        assert_eq!(view.candidate(None).unwrap().epoch, LeaderEpoch(4));
    }

    #[test]
    fn members_are_what_those_say_who_know_the_latest_leader() {
        let with = |epoch, members: &[&str]| LeaderInfo {
            members: members.iter().map(|member| (*member).to_owned()).collect(),
            ..info("a:1", epoch)
        };
        let mut view = LeaderView::default();
        view.on_info("a:1", with(7, &["a:1", "d:1"]));
        view.on_info("b:1", with(7, &["b:1"]));
        view.on_info("c:1", with(3, &["c:1"]));
        let members: Vec<String> = view.members().into_iter().collect();
        assert_eq!(members, ["a:1", "b:1", "d:1"]);
    }

    #[test]
    fn the_wait_between_tries_is_bounded() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..8).map(|_| backoff.next()).collect();
        assert_eq!((waits[0], waits[7]), (RETRY_MIN, RETRY_MAX));
        assert!(waits.is_sorted());
    }
}
