//! A Raft group in one process: each member has a directory, a port and threads of its own, so that it can be killed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use flott_coordinator::core::{FeatureLevels, Response};
use flott_coordinator::raft::{Applied, Leadership, ProposeError, RaftConfig, RaftError, RaftNode};
use flott_node::{SharedClock, SystemClock, Tasks, Transport};
use flott_proto::ids::{JobId, NodeId};
use flott_proto::job_graph::{
    Field, FilesystemSource, Format, JobGraph, JsonFormat, Operator, OperatorKind, Schema, Sink,
    Source, Vertex,
};
use flott_proto::wire::{self, command::Decision};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;

/// Far longer than anything takes on an idle machine; tests share theirs with compilers.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running member.
pub(crate) struct Member {
    pub(crate) raft: RaftNode,
    /// The process's, which the node ends when it cannot go on.
    tasks: Tasks,
    /// None once it is stopped.
    server: Option<Runtime>,
}

impl Member {
    /// Serves and takes part, on `listener`'s port.
    pub(crate) async fn start(
        config: RaftConfig,
        listener: std::net::TcpListener,
    ) -> Result<Self, RaftError> {
        Self::start_supporting(FeatureLevels::BUILD, config, listener).await
    }

    /// The same, as a build with other feature levels would.
    async fn start_supporting(
        features: FeatureLevels,
        config: RaftConfig,
        listener: std::net::TcpListener,
    ) -> Result<Self, RaftError> {
        let tasks = Tasks::default();
        let clock = SystemClock::shared();
        let raft = RaftNode::start_supporting(features, config, clock, tasks.clone()).await?;
        let server = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let service = raft.service();
        server.spawn(async move {
            listener.set_nonblocking(true).unwrap();
            let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
            tonic::transport::Server::builder()
                .serve_with_incoming(service, incoming)
                .await
                .unwrap();
        });
        Ok(Self {
            raft,
            tasks,
            server: Some(server),
        })
    }

    /// Waits until it ends the process by itself; why.
    pub(crate) async fn failure(&self) -> String {
        let ended = self.tasks.cancellation().cancelled();
        let waited = tokio::time::timeout(PATIENCE, ended).await;
        waited.expect("the node goes on");
        let failed = self.tasks.shutdown(PATIENCE).await;
        failed.expect_err("it ended without a reason")
    }

    /// Ends it without notice to anybody.
    pub(crate) async fn kill(mut self) {
        self.stop_serving();
        self.raft.shutdown().await;
    }

    fn stop_serving(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_background();
        }
    }
}

/// Closes everything, also when a test fails: a process that ends with an open database aborts.
impl Drop for Member {
    fn drop(&mut self) {
        self.stop_serving();
        let raft = self.raft.clone();
        let close = move || {
            let closing = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            closing.unwrap().block_on(raft.shutdown());
        };
        let closing = std::thread::Builder::new()
            .name("close".to_owned())
            .spawn(close);
        closing.unwrap().join().unwrap();
    }
}

/// A group whose members can be stopped and started.
pub(crate) struct Cluster {
    pub(crate) addresses: Vec<String>,
    pub(crate) members: Vec<Option<Member>>,
    /// Configured ids.
    pub(crate) node_ids: Vec<Option<NodeId>>,
    /// What each member's build supports.
    pub(crate) features: Vec<FeatureLevels>,
    pub(crate) snapshot_entries: u64,
    pub(crate) snapshot_bytes: u64,
    /// Soft and hard.
    pub(crate) disk_free: (u64, u64),
    pub(crate) clock: SharedClock,
    /// Last, so that it goes after the members: one that cannot write its log any more ends the process.
    directory: TempDir,
}

impl Cluster {
    /// `size` pristine members.
    pub(crate) async fn pristine(size: usize, snapshot_entries: u64) -> Self {
        let bind = |_| std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listeners: Vec<_> = (0..size).map(bind).collect();
        let address = |listener: &std::net::TcpListener| listener.local_addr().unwrap().to_string();
        let addresses = listeners.iter().map(address).collect();
        Self::start(addresses, listeners, snapshot_entries).await
    }

    /// One member that does not run yet, with an address.
    pub(crate) fn stopped() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            directory: tempfile::tempdir().unwrap(),
            node_ids: vec![None],
            features: vec![FeatureLevels::BUILD],
            addresses: vec![listener.local_addr().unwrap().to_string()],
            members: vec![None],
            snapshot_entries: 1000,
            snapshot_bytes: 64 << 20,
            disk_free: (0, 0),
            clock: SystemClock::shared(),
        }
    }

    /// A pristine member at each listener, reached by the others at its address.
    pub(crate) async fn start(
        addresses: Vec<String>,
        listeners: Vec<std::net::TcpListener>,
        snapshot_entries: u64,
    ) -> Self {
        let mut cluster = Self {
            directory: tempfile::tempdir().unwrap(),
            node_ids: vec![None; addresses.len()],
            features: vec![FeatureLevels::BUILD; addresses.len()],
            addresses,
            members: Vec::new(),
            snapshot_entries,
            snapshot_bytes: 64 << 20,
            disk_free: (0, 0),
            clock: SystemClock::shared(),
        };
        for (n, listener) in listeners.into_iter().enumerate() {
            let member = Member::start(cluster.config(n), listener);
            cluster.members.push(Some(member.await.unwrap()));
        }
        cluster
    }

    /// Starts one more pristine member, which belongs to nothing yet; its number.
    pub(crate) async fn newcomer(&mut self, features: FeatureLevels) -> usize {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let n = self.members.len();
        self.addresses
            .push(listener.local_addr().unwrap().to_string());
        self.node_ids.push(None);
        self.features.push(features);
        let member = Member::start_supporting(features, self.config(n), listener);
        self.members.push(Some(member.await.unwrap()));
        n
    }

    /// `size` members that form a cluster, have a leader, and can be changed.
    pub(crate) async fn formed(size: usize, snapshot_entries: u64) -> Self {
        let cluster = Self::pristine(size, snapshot_entries).await;
        cluster
            .raft(0)
            .initialize(cluster.addresses.clone())
            .await
            .unwrap();
        let leader = cluster.leader().await;
        let settled = async || match cluster.raft(leader).pending_change() {
            Some(_) => None,
            None => Some(()),
        };
        let what = "the first membership to be committed";
        cluster.wait_for(what, settled).await;
        cluster
    }

    pub(crate) fn directory(&self, n: usize) -> PathBuf {
        self.directory.path().join(format!("member-{n}"))
    }

    pub(crate) fn config(&self, n: usize) -> RaftConfig {
        RaftConfig {
            dir: self.directory(n),
            node_id: self.node_ids[n],
            address: self.addresses[n].clone(),
            cluster_id: None,
            heartbeat_interval: Duration::from_millis(50),
            election_timeout_min: Duration::from_millis(400),
            election_timeout_max: Duration::from_millis(800),
            snapshot_entries: self.snapshot_entries,
            snapshot_bytes: self.snapshot_bytes,
            disk_free_soft: self.disk_free.0,
            disk_free_hard: self.disk_free.1,
            transport: Transport::loopback(),
        }
    }

    pub(crate) fn raft(&self, n: usize) -> &RaftNode {
        &self.members[n].as_ref().unwrap().raft
    }

    /// The numbers of the members that run.
    pub(crate) fn running(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.members.len()).filter(|n| self.members[*n].is_some())
    }

    pub(crate) async fn kill(&mut self, n: usize) {
        self.members[n].take().unwrap().kill().await;
    }

    /// Starts a stopped member at its old address.
    pub(crate) async fn restart(&mut self, n: usize) {
        let address = self.addresses[n].clone();
        // The port is free again once the connections of its last life are gone.
        let listener = self
            .wait_for("the port to be free", async || bind_again(&address))
            .await;
        let member = Member::start_supporting(self.features[n], self.config(n), listener);
        self.members[n] = Some(member.await.unwrap());
    }

    /// Starts a stopped member that does not come far; why, whether it fails at its start or thereafter.
    pub(crate) async fn restart_in_vain(&mut self, n: usize) -> String {
        let address = self.addresses[n].clone();
        let listener = self
            .wait_for("the port to be free", async || bind_again(&address))
            .await;
        let features = self.features[n];
        match Member::start_supporting(features, self.config(n), listener).await {
            Err(failure) => failure.to_string(),
            Ok(member) => member.failure().await,
        }
    }

    /// The number of the member that leads, once all running members of the cluster agree on it.
    pub(crate) async fn leader(&self) -> usize {
        self.wait_for("a leader", async || {
            let mut leaders = self
                .running()
                .filter(|n| self.raft(*n).cluster_id().is_some())
                .map(|n| self.raft(n).leadership().borrow().leader.clone());
            let first = leaders.next()??;
            leaders
                .all(|leader| leader.as_ref() == Some(&first))
                .then_some(())?;
            self.running()
                .find(|n| self.raft(*n).leadership().borrow().is_leader)
        })
        .await
    }

    /// Proposes to whoever leads until it is applied; safe for commands that may be applied twice.
    pub(crate) async fn propose(&self, command: wire::Command) -> Applied {
        self.wait_for("the command to be applied", async || {
            let leader = self
                .running()
                .find(|n| self.raft(*n).leadership().borrow().is_leader)?;
            match self.raft(leader).propose(command.clone()).await {
                Ok(applied) => Some(applied),
                Err(ProposeError::NotLeader { .. } | ProposeError::Unknown) => None,
                Err(refused) => panic!("{refused}"),
            }
        })
        .await
    }

    /// Has the leader take office; the epoch that jobs are submitted in.
    pub(crate) async fn activate(&self) -> u64 {
        self.propose(activate()).await.index
    }

    /// Submits `count` jobs and returns their ids once they are acknowledged.
    pub(crate) async fn submit(&self, epoch: u64, count: usize) -> Vec<JobId> {
        let mut jobs = Vec::new();
        for _ in 0..count {
            let id = JobId::generate();
            assert_eq!(
                self.propose(submit(epoch, &id)).await.response,
                Response::Applied
            );
            jobs.push(id);
        }
        jobs
    }

    /// Waits until all running members have the same state, with exactly these jobs.
    pub(crate) async fn all_have(&self, jobs: &[JobId]) {
        self.wait_for("all members to have all jobs", async || {
            let states: Vec<_> = self.running().map(|n| self.raft(n).state()).collect();
            let complete = states.iter().all(|state| {
                state.jobs.len() == jobs.len()
                    && jobs.iter().all(|job| state.jobs.contains_key(job))
            });
            (complete && states.windows(2).all(|two| two[0] == two[1])).then_some(())
        })
        .await;
    }

    /// Asks `condition` again and again until it has an answer.
    pub(crate) async fn wait_for<T>(
        &self,
        what: &str,
        condition: impl AsyncFn() -> Option<T>,
    ) -> T {
        let waiting = async {
            loop {
                if let Some(answer) = condition().await {
                    return answer;
                }
                self.clock.sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| panic!("waited {PATIENCE:?} for {what}; {:?}", self.describe()))
    }

    fn describe(&self) -> BTreeMap<usize, (Leadership, u64)> {
        let describe = |n| {
            let raft = self.raft(n);
            (
                n,
                (raft.leadership().borrow().clone(), *raft.applied().borrow()),
            )
        };
        self.running().map(describe).collect()
    }
}

/// Like a server that starts again, which does not wait for old connections to time out.
fn bind_again(address: &str) -> Option<std::net::TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4().ok()?;
    socket.set_reuseaddr(true).ok()?;
    socket.bind(address.parse().ok()?).ok()?;
    socket.listen(128).ok()?.into_std().ok()
}

pub(crate) fn activate() -> wire::Command {
    let activate = wire::ActivateJobManager {
        node_id: 1,
        incarnation: "i".into(),
        address: "a:1".into(),
    };
    wire::Command {
        now_ms: 1,
        epoch: 0,
        decision: Some(Decision::ActivateJobManager(activate)),
    }
}

pub(crate) fn submit(epoch: u64, id: &JobId) -> wire::Command {
    let submit = wire::SubmitJob {
        namespace: "default".into(),
        job_id: id.to_string(),
        graph: Some((&graph()).into()),
        ..Default::default()
    };
    wire::Command {
        now_ms: 2,
        epoch,
        decision: Some(Decision::SubmitJob(submit)),
    }
}

/// The smallest job: a source chained to a sink.
pub(crate) fn graph() -> JobGraph {
    let field = Field {
        name: "k".into(),
        data_type: "BIGINT".parse().unwrap(),
        nullable: false,
    };
    let format = Format::Json(JsonFormat {
        ignore_parse_errors: false,
        iso_timestamps: false,
    });
    let source = Source::Filesystem(FilesystemSource {
        path: "/in".into(),
        format,
        rows_per_second: 0,
    });
    let operator = |uid: &str, output: Schema, kind| Operator {
        uid: uid.into(),
        name: uid.into(),
        output,
        kind,
    };
    let chain = vec![
        operator(
            "read",
            Schema {
                fields: vec![field],
            },
            OperatorKind::Source(source),
        ),
        operator(
            "write",
            Schema::default(),
            OperatorKind::Sink(Sink::Blackhole),
        ),
    ];
    let uid = "only".parse().unwrap();
    let vertices = vec![Vertex {
        uid,
        name: "only".into(),
        parallelism: 1,
        max_parallelism: 128,
        chain,
    }];
    JobGraph {
        name: "test".into(),
        vertices,
        edges: Vec::new(),
    }
}
