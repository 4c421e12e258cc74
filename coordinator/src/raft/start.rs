//! From a data directory to a running node.
//!
//! ```text
//!   lock, open and check the directory ──▶ its own threads ──▶ openraft ──▶ watch it
//! ```

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flott_node::{OnFailure, SharedClock, Tasks};
use flott_proto::ids::NodeId;
use flott_proto::wire;
use futures::FutureExt;
use openraft::async_runtime::WatchReceiver;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Semaphore, watch};
use tracing::info;

use super::bootstrap::Bootstrap;
use super::config::{RaftConfig, Timing, openraft_config};
use super::directory::{DataDirectory, check_marker, new_marker};
use super::disk_guard::{self, DiskGuard};
use super::error::RaftError;
use super::freshness::Freshness;
use super::identity::LocalIdentity;
use super::log_bound::LogBound;
use super::log_store::{LogOptions, LogReader, LogStore, WriterThread};
use super::members::{Reporter, digests, fatal, settle, standing};
use super::network::{Network, NetworkFactory};
use super::node::{
    IN_FLIGHT_BYTES_MAX, IN_FLIGHT_UNIT, Inner, Leadership, Raft, RaftNode, SHUTDOWN_WAIT,
};
use super::read_index::Succession;
use super::rounds::Rounds;
use super::service::{RaftRpc, Serving, VoteHold};
use super::snapshot::{SnapshotReceiver, SnapshotStore};
use super::state_machine::{Halt, Published, StateMachine};
use super::suspicion::{self, Suspicion};
use crate::core::FeatureLevels;

/// Threads for openraft, its timers and its connections; the disk has its own. Half of the machine's cores, and not more
/// than help: between two tasks of one thread there is nothing to be woken, which on a small machine is much of what a
/// decision costs.
fn runtime_threads() -> usize {
    const THREADS_MAX: usize = 4;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).clamp(1, THREADS_MAX)
}

/// The threads of openraft. Stopped in the background when dropped: a runtime must not be dropped where others wait
/// for it.
pub(super) struct RaftThreads {
    /// None in a simulation, where everything has one thread.
    runtime: Option<Runtime>,
    handle: Handle,
}

impl RaftThreads {
    fn start(config: &RaftConfig) -> Result<Self, RaftError> {
        #[cfg(feature = "simulation")]
        if flott_node::simulation::is_on() {
            return Ok(Self {
                runtime: None,
                handle: Handle::current(),
            });
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(runtime_threads())
            .thread_name("flott-raft")
            .enable_all()
            .build();
        let failed = RaftError::storage("start the threads for", &config.dir);
        let runtime = runtime.map_err(failed)?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Stops them and drops everything that ran there. Blocks, at most for `wait`.
    pub(super) fn stop(mut self, wait: Duration) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(wait);
        }
    }
}

impl Drop for RaftThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What has to be stopped at the end.
pub(super) struct Running {
    pub(super) threads: RaftThreads,
    pub(super) writer: WriterThread,
    pub(super) log: LogReader,
}

/// What a data directory has, checked.
pub(super) struct Storage {
    pub(super) log: LogStore,
    pub(super) marker: Option<wire::RaftStorageMarker>,
    writer: WriterThread,
    pub(super) snapshots: SnapshotStore,
}

impl Storage {
    /// Lets go of the directory. Blocks until everything is written.
    pub(super) fn close(self) {
        drop(self.log);
        self.writer.join();
    }
}

/// Opens a data directory. Blocks on the disk.
pub(super) fn open_storage(dir: &Path, options: LogOptions) -> Result<Storage, RaftError> {
    let directory = DataDirectory::open(dir)?;
    let (path, snapshots) = (directory.path().to_owned(), directory.snapshots());
    let (log, marker, writer) = LogStore::open(directory, options)?;
    let snapshots = SnapshotStore::open(&snapshots)?;
    if let Some(purged) = log.purged() {
        let newest = snapshots
            .current()
            .and_then(|(meta, _)| meta.last_log_id)
            .map(|id| id.index);
        if newest.is_none_or(|newest| newest < purged.index) {
            let what = format!(
                "the log begins after entry {}, but the newest intact snapshot ends at {newest:?}",
                purged.index
            );
            return Err(RaftError::corrupt(&path, what));
        }
    }
    Ok(Storage {
        log,
        marker,
        writer,
        snapshots,
    })
}

/// See [`RaftNode::start`]; `features` and `options` are production's or a test's.
pub(super) async fn start(
    config: RaftConfig,
    features: FeatureLevels,
    options: LogOptions,
    clock: SharedClock,
    tasks: Tasks,
) -> Result<RaftNode, RaftError> {
    let timing = Timing::of(&config)?;
    let openraft_config = openraft_config(&config, timing)?;
    let exit = Arc::clone(&options.exit);
    let opening = flott_node::spawn_blocking(move || {
        let storage = open_storage(&config.dir, options)?;
        if let Some(marker) = &storage.marker {
            check_marker(&config.dir, marker, &config)?;
        }
        Ok::<_, RaftError>((config, storage))
    });
    let (config, storage) = opening.await.map_err(fatal)??;
    let marker = match storage.marker {
        Some(marker) => marker,
        None => {
            let marker = new_marker(config.node_id);
            let written = storage.log.marker_writer().write(&marker).await;
            written.map_err(RaftError::storage("write", &config.dir))?;
            marker
        }
    };
    let identity = Arc::new(identity_of(&config, &marker)?);
    let threads = RaftThreads::start(&config)?;
    let snapshots = Arc::new(storage.snapshots);
    let kept = Arc::clone(&snapshots);
    let published = Arc::new(Published::new());
    let halt = Arc::new(Halt::default());
    let network = Arc::new(Network::new(
        Arc::clone(&identity),
        timing.network(),
        clock.clone(),
        config.transport.clone(),
        threads.handle().clone(),
    ));
    // What this node promised before it was restarted binds its votes and its own candidacy.
    let vote_hold = VoteHold::new(clock.clone(), timing.lease(), !storage.log.is_empty());
    let hold = vote_hold.remaining();
    let marker_writer = storage.log.marker_writer();
    let log = storage.log.reader();
    let starting = threads.handle().spawn(openraft::Raft::new(
        identity.node,
        Arc::new(openraft::Config {
            enable_elect: hold.is_zero(),
            ..openraft_config
        }),
        NetworkFactory(Arc::clone(&network)),
        storage.log,
        StateMachine::new(
            Arc::clone(&published),
            Arc::clone(&snapshots),
            Arc::clone(&identity),
            features,
            Arc::clone(&halt),
        ),
    ));
    let handle = threads.handle().clone();
    let raft: Raft = starting
        .await
        .map_err(fatal)?
        .map_err(|failure| halt.reason().unwrap_or_else(|| fatal(failure)))?;
    let bootstrap = Arc::new(Bootstrap::new(
        raft.clone(),
        Arc::clone(&identity),
        features,
        Arc::clone(&network),
        marker,
        marker_writer,
    ));
    let reporter = Arc::new(Reporter {
        raft: raft.clone(),
        identity: Arc::clone(&identity),
        snapshots: Arc::clone(&snapshots),
        published: Arc::clone(&published),
        features,
        clock: clock.clone(),
        dir: config.dir.clone(),
        disk: Mutex::default(),
    });
    let freshness = Arc::new(Freshness::new(clock.clone(), published.applied()));
    let suspicion = Suspicion::default();
    let succession = Succession::default();
    let rpc = RaftRpc::new(Serving {
        raft: raft.clone(),
        identity: Arc::clone(&identity),
        bootstrap: Arc::clone(&bootstrap),
        vote_hold,
        reporter: Arc::clone(&reporter),
        timing,
        succession: succession.clone(),
        freshness: Arc::clone(&freshness),
        receiver: SnapshotReceiver::new(Arc::clone(&snapshots)),
        suspicion: suspicion.clone(),
    });
    let shutting_down = Arc::new(AtomicBool::new(false));
    let (leadership_tx, leadership) = watch::channel(Leadership::default());
    let inner = Arc::new(Inner {
        raft,
        identity,
        network,
        bootstrap,
        timing,
        succession,
        leadership,
        published,
        rpc,
        freshness,
        threads: handle,
        in_flight: Semaphore::new(IN_FLIGHT_BYTES_MAX / IN_FLIGHT_UNIT),
        shutting_down,
        tasks: Tasks::default(),
        clock,
        changing: Arc::default(),
        reporter,
        disk: DiskGuard::new(config.disk_free_soft, config.disk_free_hard),
        running: Mutex::new(None),
    });
    {
        let _on_its_threads = threads.handle().enter();
        spawn_own_tasks(&inner, leadership_tx, halt, hold);
        let tasks = &inner.tasks;
        let (weak, clock) = (Arc::downgrade(&inner), inner.clock.clone());
        let standing = suspicion::run(weak, suspicion, clock, tasks.cancellation().clone());
        tasks.spawn("raft-suspicion", OnFailure::Shutdown, standing);
        let rounds = || Rounds::new(&inner, tasks.cancellation());
        let guarding = disk_guard::run(rounds(), log.clone(), exit);
        tasks.spawn("raft-disk-guard", OnFailure::Shutdown, guarding);
        let bound = LogBound {
            log: log.clone(),
            snapshots: kept,
            entries: config.snapshot_entries.max(1),
            bytes: config.snapshot_bytes,
        };
        tasks.spawn("raft-log-bound", OnFailure::Shutdown, bound.run(rounds()));
    }
    *inner.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(Running {
        threads,
        writer: storage.writer,
        log,
    });
    report_failure(&tasks, inner.tasks.clone());
    let identity = &inner.identity;
    info!(
        node = identity.node,
        incarnation = identity.incarnation,
        cluster_id = ?identity.cluster_id().map(|id| id.to_string()),
        address = identity.address,
        "raft node started"
    );
    Ok(RaftNode::of(inner))
}

/// What goes on beside openraft until the node ends. Holds on to the node weakly where it needs all of it.
fn spawn_own_tasks(
    inner: &Arc<Inner>,
    leadership: watch::Sender<Leadership>,
    halt: Arc<Halt>,
    hold: Duration,
) {
    let tasks = &inner.tasks;
    let ending = tasks.cancellation();
    let shutting_down = Arc::clone(&inner.shutting_down);
    let watching = watch_raft(inner.raft.clone(), leadership, shutting_down, halt);
    tasks.spawn("raft-watch", OnFailure::Shutdown, watching);
    let (raft, clock, ended) = (inner.raft.clone(), inner.clock.clone(), ending.clone());
    tasks.spawn("raft-vote-hold", OnFailure::Log, async move {
        tokio::select! {
            () = clock.sleep(hold) => raft.runtime_config().elect(true),
            () = ended.cancelled() => {}
        }
        Ok::<_, RaftError>(())
    });
    let disk = Arc::clone(&inner.reporter).watch_disk(ending.clone());
    tasks.spawn(
        "raft-disk-space",
        OnFailure::Log,
        disk.map(Ok::<_, RaftError>),
    );
    let rounds = || Rounds::new(inner, ending);
    let settling = settle::run(rounds());
    tasks.spawn(
        "raft-settle",
        OnFailure::Log,
        settling.map(Ok::<_, RaftError>),
    );
    tasks.spawn("raft-digests", OnFailure::Shutdown, digests::run(rounds()));
    tasks.spawn(
        "raft-standing",
        OnFailure::Shutdown,
        standing::run(rounds()),
    );
}

fn identity_of(
    config: &RaftConfig,
    marker: &wire::RaftStorageMarker,
) -> Result<LocalIdentity, RaftError> {
    let cluster = match marker.cluster_id.as_str() {
        "" => None,
        id => Some(
            id.parse()
                .map_err(|error| RaftError::corrupt(&config.dir, format!("marker: {error}")))?,
        ),
    };
    let (incarnation, address) = (marker.incarnation.clone(), config.address.clone());
    Ok(LocalIdentity::new(
        marker.node,
        incarnation,
        address,
        config.cluster_id.clone(),
        cluster,
    ))
}

/// Tells who leads, until openraft stops; fails unless that was wanted.
async fn watch_raft(
    raft: Raft,
    leadership: watch::Sender<Leadership>,
    shutting_down: Arc<AtomicBool>,
    halt: Arc<Halt>,
) -> Result<(), RaftError> {
    // Those of the server change with elections; all others with every entry.
    let mut metrics = raft.server_metrics();
    let mut membership = Arc::default();
    let mut members: Arc<[String]> = Arc::default();
    loop {
        let now = {
            let metrics = metrics.borrow_and_update();
            if !Arc::ptr_eq(&membership, &metrics.membership_config) {
                membership = Arc::clone(&metrics.membership_config);
                members = membership
                    .membership()
                    .nodes()
                    .map(|(_, peer)| peer.address.clone())
                    .collect();
            }
            let leader = metrics.current_leader.and_then(|id| {
                let peer = metrics.membership_config.membership().get_node(&id)?;
                Some((NodeId(id), peer.address.clone()))
            });
            let is_leader = metrics.state.is_leader() && metrics.current_leader == Some(metrics.id);
            Leadership {
                term: metrics.vote.leader_id.term,
                leader,
                is_leader,
                members: Arc::clone(&members),
            }
        };
        leadership.send_if_modified(|before| {
            let changed = *before != now;
            if before.members != now.members {
                info!(members = ?now.members, "raft members changed");
            }
            if (before.term, before.is_leader, &before.leader) != (now.term, now.is_leader, &now.leader) {
                info!(term = now.term, leader = ?now.leader, is_leader = now.is_leader, "raft leadership changed");
            }
            if changed {
                *before = now;
            }
            changed
        });
        if metrics.changed().await.is_err() {
            let wanted = shutting_down.load(Ordering::Acquire);
            leadership.send_modify(|now| now.is_leader = false);
            let reason = raft.metrics().borrow_watched().running_state.clone();
            return match reason {
                _ if wanted => Ok(()),
                Err(failure) => Err(halt.reason().unwrap_or_else(|| fatal(failure))),
                Ok(()) => Err(RaftError::Fatal("openraft ended".to_owned())),
            };
        }
    }
}

/// Makes a failure of Raft one of the process.
fn report_failure(tasks: &Tasks, own: Tasks) {
    let ending = tasks.cancellation().clone();
    tasks.spawn("raft", OnFailure::Shutdown, async move {
        tokio::select! {
            () = ending.cancelled() => Ok(()),
            // Cancelled by its own failure, or by a wanted shutdown, which has none.
            () = own.cancellation().cancelled() => own.shutdown(SHUTDOWN_WAIT).await,
        }
    });
}
