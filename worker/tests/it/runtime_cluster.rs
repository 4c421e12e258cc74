//! A small cluster for tests: TaskManagers of this process, each on its own runtime, and a leader that only does what
//! the test tells it. Everything between them crosses real sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flott_node::health::HttpPort;
use flott_node::{SharedClock, SystemClock, Tasks, Transport};
use flott_proto::key_group::KeyGroupRange;
use flott_proto::wire::job_manager_message::Message as FromLeader;
use flott_proto::wire::task_manager_gateway_server::{
    TaskManagerGateway, TaskManagerGatewayServer,
};
use flott_proto::wire::task_manager_message::Message as ToLeader;
use flott_proto::wire::{self, TaskState};
use flott_worker::config::TaskManagerConfig;
use flott_worker::task_manager::run_with;
use tokio::net::TcpSocket;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream, WatchStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// Anything takes far less; a test that waits for longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// Of the leaders.
const CLUSTER: &str = "test";
pub(crate) const JOB: &str = "0123456789abcdef0123456789abcdef";

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Outboxes = Arc<Mutex<BTreeMap<String, mpsc::Sender<Result<wire::JobManagerMessage, Status>>>>>;

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// An address that is reserved and refuses connections until somebody listens.
fn reserved() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket
}

struct Service {
    info: watch::Sender<wire::LeaderInfo>,
    epoch: u64,
    outboxes: Outboxes,
    messages: std_mpsc::SyncSender<(u64, String, ToLeader)>,
}

#[tonic::async_trait]
impl TaskManagerGateway for Service {
    type WatchLeaderStream = Answers<wire::LeaderInfo>;
    type AttachStream = Answers<wire::JobManagerMessage>;

    async fn watch_leader(
        &self,
        _: Request<wire::WatchLeaderRequest>,
    ) -> Result<Response<Self::WatchLeaderStream>, Status> {
        let stream = WatchStream::new(self.info.subscribe()).map(Ok);
        Ok(Response::new(Box::pin(stream)))
    }

    async fn attach(
        &self,
        request: Request<Streaming<wire::TaskManagerMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut stream = request.into_inner();
        let Some(Some(ToLeader::Register(register))) =
            stream.message().await?.map(|first| first.message)
        else {
            return Err(Status::invalid_argument("Register comes first"));
        };
        let id = register.task_manager_id.clone();
        let (outbox, answers) = mpsc::channel(1024);
        let registered = wire::Registered {
            heartbeat_interval_ms: 100,
            heartbeat_timeout_ms: 60_000,
        };
        outbox
            .send(Ok(message(self.epoch, FromLeader::Registered(registered))))
            .await
            .unwrap();
        self.outboxes.lock().unwrap().insert(id.clone(), outbox);
        let (messages, epoch) = (self.messages.clone(), self.epoch);
        messages
            .send((epoch, id.clone(), ToLeader::Register(register)))
            .unwrap();
        #[expect(
            clippy::disallowed_methods,
            reason = "the test's runtime ends with the test"
        )]
        tokio::spawn(async move {
            while let Ok(Some(message)) = stream.message().await {
                if messages
                    .send((epoch, id.clone(), message.message.unwrap()))
                    .is_err()
                {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

fn message(epoch: u64, message: FromLeader) -> wire::JobManagerMessage {
    wire::JobManagerMessage {
        epoch,
        message: Some(message),
    }
}

/// A leader in office. Dropping it kills it: its connections just break.
pub(crate) struct Leader {
    epoch: u64,
    cluster: String,
    outboxes: Outboxes,
    runtime: Option<Runtime>,
}

impl Leader {
    pub(crate) fn start(
        socket: TcpSocket,
        epoch: u64,
        messages: &std_mpsc::SyncSender<(u64, String, ToLeader)>,
    ) -> Self {
        Self::start_of(CLUSTER, &[], socket, epoch, messages)
    }

    /// One of a cluster that goes on from others.
    fn start_of(
        cluster: &str,
        predecessors: &[&str],
        socket: TcpSocket,
        epoch: u64,
        messages: &std_mpsc::SyncSender<(u64, String, ToLeader)>,
    ) -> Self {
        let runtime = runtime();
        let info = wire::LeaderInfo {
            cluster_id: cluster.into(),
            address: socket.local_addr().unwrap().to_string(),
            node_id: 1,
            epoch,
            members: Vec::new(),
            predecessors: predecessors.iter().map(|&old| old.to_owned()).collect(),
        };
        let outboxes = Outboxes::default();
        let service = Service {
            info: watch::Sender::new(info),
            epoch,
            outboxes: Arc::clone(&outboxes),
            messages: messages.clone(),
        };
        let listener = {
            let _runtime = runtime.enter();
            socket.listen(64).unwrap()
        };
        runtime.spawn(async move {
            let server = tonic::transport::Server::builder()
                .add_service(TaskManagerGatewayServer::new(service));
            server
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self {
            epoch,
            cluster: cluster.to_owned(),
            outboxes,
            runtime: Some(runtime),
        }
    }

    pub(crate) fn send(&self, task_manager: &str, what: FromLeader) {
        self.send_as(self.epoch, task_manager, what);
    }

    pub(crate) fn send_as(&self, epoch: u64, task_manager: &str, what: FromLeader) {
        let outboxes = self.outboxes.lock().unwrap();
        outboxes[task_manager]
            .try_send(Ok(message(epoch, what)))
            .unwrap();
    }

    /// Sends to whoever still listens; how many that are.
    pub(crate) fn send_to_listeners(&self, what: &FromLeader) -> usize {
        let outboxes = self.outboxes.lock().unwrap();
        let listens = |outbox: &&mpsc::Sender<_>| {
            let message = message(self.epoch, what.clone());
            outbox.try_send(Ok(message)).is_ok()
        };
        outboxes.values().filter(listens).count()
    }

    pub(crate) fn send_all(&self, what: &FromLeader) {
        let all: Vec<String> = self.outboxes.lock().unwrap().keys().cloned().collect();
        all.iter().for_each(|id| self.send(id, what.clone()));
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

struct TaskManager {
    runtime: Runtime,
    tasks: Tasks,
    ended: std_mpsc::Receiver<Result<(), flott_worker::Error>>,
}

/// What the leaders have heard.
#[derive(Default)]
pub(crate) struct Heard {
    /// By epoch and TaskManager.
    pub registers: BTreeMap<(u64, String), wire::Register>,
    /// By vertex, subtask and attempt: every state in its order.
    pub states: BTreeMap<(String, u32, u32), Vec<TaskState>>,
    pub failures: BTreeMap<(String, u32, u32), wire::TaskReport>,
    /// By checkpoint, then vertex and subtask.
    pub acks: BTreeMap<u64, BTreeMap<(String, u32), wire::CheckpointAck>>,
    pub committed: BTreeMap<u64, BTreeSet<(String, u32)>>,
    /// The latest of each task, by vertex, subtask and attempt.
    pub counters: BTreeMap<(String, u32, u32), wire::TaskCounters>,
}

impl Heard {
    fn on(&mut self, epoch: u64, from: String, message: ToLeader) {
        match message {
            ToLeader::Register(register) => {
                register
                    .held_acks
                    .iter()
                    .for_each(|ack| self.on_ack(ack.clone()));
                register
                    .tasks
                    .iter()
                    .for_each(|report| self.on_report(report.clone()));
                self.registers.insert((epoch, from), register);
            }
            ToLeader::Heartbeat(heartbeat) => heartbeat
                .tasks
                .into_iter()
                .for_each(|report| self.on_report(report)),
            ToLeader::TaskStatus(changed) => self.on_report(changed.task.unwrap()),
            ToLeader::CheckpointAck(ack) => self.on_ack(ack),
            ToLeader::CheckpointDeclined(declined) => panic!("{declined:?}"),
            ToLeader::CheckpointCommitted(committed) => {
                let task = committed.task.unwrap();
                self.committed
                    .entry(committed.checkpoint_id)
                    .or_default()
                    .insert((task.vertex, task.subtask));
            }
        }
    }

    fn on_ack(&mut self, ack: wire::CheckpointAck) {
        let task = ack.task.clone().unwrap();
        self.acks
            .entry(ack.checkpoint_id)
            .or_default()
            .insert((task.vertex, task.subtask), ack);
    }

    fn on_report(&mut self, report: wire::TaskReport) {
        let task = report.task.clone().unwrap();
        let key = (task.vertex, task.subtask, task.attempt);
        self.counters
            .insert(key.clone(), report.counters.unwrap_or_default());
        let states = self.states.entry(key.clone()).or_default();
        if states.last() != Some(&report.state()) {
            states.push(report.state());
        }
        if report.state() == TaskState::Failed {
            self.failures.insert(key, report);
        }
    }

    /// Whether that many tasks of the attempt have come to that state, now or before.
    pub(crate) fn reached(&self, attempt: u32, state: TaskState, count: usize) -> bool {
        let of_attempt = self.states.iter().filter(|((_, _, of), _)| *of == attempt);
        of_attempt
            .filter(|(_, states)| states.contains(&state))
            .count()
            == count
    }

    pub(crate) fn acked(&self, checkpoint: u64, count: usize) -> bool {
        self.acks
            .get(&checkpoint)
            .is_some_and(|acks| acks.len() == count)
    }

    pub(crate) fn has_committed(&self, checkpoint: u64, count: usize) -> bool {
        self.committed
            .get(&checkpoint)
            .is_some_and(|tasks| tasks.len() == count)
    }
}

/// TaskManagers `tm-1`, `tm-2`, … and the ears of all leaders.
pub(crate) struct Cluster {
    pub dir: tempfile::TempDir,
    pub heard: Heard,
    addresses: Vec<SocketAddr>,
    sockets: Vec<Option<TcpSocket>>,
    pub messages: std_mpsc::SyncSender<(u64, String, ToLeader)>,
    /// Of the jobs that are deployed from now on.
    pub configuration: BTreeMap<String, String>,
    clock: SharedClock,
    inbox: std_mpsc::Receiver<(u64, String, ToLeader)>,
    task_managers: BTreeMap<String, TaskManager>,
}

impl Cluster {
    /// With addresses for two JobManagers, none of which runs yet.
    pub(crate) fn start(task_managers: usize, slots: u32) -> Self {
        let sockets = [reserved(), reserved()];
        let (messages, inbox) = std_mpsc::sync_channel(100_000);
        let mut cluster = Self {
            dir: tempfile::tempdir().unwrap(),
            heard: Heard::default(),
            addresses: sockets
                .iter()
                .map(|socket| socket.local_addr().unwrap())
                .collect(),
            sockets: sockets.map(Some).into(),
            messages,
            configuration: BTreeMap::new(),
            clock: SystemClock::shared(),
            inbox,
            task_managers: BTreeMap::new(),
        };
        for number in 1..=task_managers {
            cluster.start_task_manager(&format!("tm-{number}"), slots);
        }
        cluster
    }

    fn start_task_manager(&mut self, id: &str, slots: u32) {
        let config = TaskManagerConfig {
            id: id.parse().unwrap(),
            slots,
            host: "127.0.0.1".into(),
            data_port: 0,
            http: HttpPort {
                bind: "127.0.0.1".into(),
                port: 0,
                transport: Transport::loopback(),
            },
            transport: Transport::loopback(),
            tls_reload_interval: Duration::from_secs(5),
            jobmanagers: self.addresses.iter().map(ToString::to_string).collect(),
            cluster: None,
            tmp_dir: self.dir.path().join("tmp"),
            managed_memory_bytes: 64 << 20,
            heartbeat_interval: Duration::from_millis(100),
            heartbeat_timeout: PATIENCE,
            local_recovery: true,
            slot_request_timeout: Duration::from_millis(200),
            shutdown_timeout: Duration::from_secs(10),
        };
        let (runtime, tasks) = (runtime(), Tasks::default());
        let (sender, ended) = std_mpsc::sync_channel(1);
        let running = run_with(config, tasks.clone(), SystemClock::shared());
        runtime.spawn(async move { drop(sender.send(running.await)) });
        let task_manager = TaskManager {
            runtime,
            tasks,
            ended,
        };
        self.task_managers.insert(id.to_owned(), task_manager);
    }

    /// As SIGKILL does it: sockets close, nobody says goodbye.
    pub(crate) fn kill(&mut self, id: &str) {
        self.task_managers
            .remove(id)
            .unwrap()
            .runtime
            .shutdown_background();
    }

    /// A leader in office at one of the addresses, once all TaskManagers have registered.
    pub(crate) fn elect(&mut self, address: usize, epoch: u64) -> Leader {
        let socket = self.sockets[address].take().unwrap();
        let leader = Leader::start(socket, epoch, &self.messages);
        self.wait_for_registrations(epoch);
        leader
    }

    /// The same of a cluster that goes on from the one that the others lead.
    pub(crate) fn elect_successor(&mut self, address: usize, epoch: u64) -> Leader {
        let socket = self.sockets[address].take().unwrap();
        let (old, messages) = ([CLUSTER], &self.messages);
        let leader = Leader::start_of("successor", &old, socket, epoch, messages);
        self.wait_for_registrations(epoch);
        leader
    }

    fn wait_for_registrations(&mut self, epoch: u64) {
        let count = self.task_managers.len();
        self.wait("all have registered", |heard| {
            heard
                .registers
                .keys()
                .filter(|(of, _)| *of == epoch)
                .count()
                == count
        });
    }

    /// Listens until `condition` holds.
    pub(crate) fn wait(&mut self, what: &str, condition: impl Fn(&Heard) -> bool) {
        let deadline = self.clock.monotonic() + PATIENCE;
        while !condition(&self.heard) {
            let patience = deadline.saturating_sub(self.clock.monotonic());
            match self.inbox.recv_timeout(patience) {
                Ok((epoch, from, message)) => self.heard.on(epoch, from, message),
                Err(_) => panic!(
                    "waited in vain until {what}; ended {:?}, states {:?}, failures {:?}, acks {:?}",
                    self.ended(),
                    self.heard.states,
                    self.heard.failures,
                    self.heard
                        .acks
                        .iter()
                        .map(|(id, acks)| (id, acks.len()))
                        .collect::<Vec<_>>()
                ),
            }
        }
    }

    /// TaskManagers that have ended by themselves.
    fn ended(&self) -> Vec<(&String, Result<(), flott_worker::Error>)> {
        let ended = |(id, task_manager): (_, &TaskManager)| {
            let ended = task_manager.ended.try_recv().ok()?;
            Some((id, ended))
        };
        self.task_managers.iter().filter_map(ended).collect()
    }

    /// Ends all TaskManagers in order.
    pub(crate) fn stop(self) {
        for task_manager in self.task_managers.values() {
            task_manager.tasks.cancellation().cancel();
        }
        for (id, task_manager) in self.task_managers {
            task_manager.ended.recv_timeout(PATIENCE).unwrap().unwrap();
            assert!(
                !self.dir.path().join("tmp").join(&id).exists(),
                "{id} leaves nothing behind"
            );
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `vertex/subtask` runs on `tm-<subtask % count + 1>`.
    pub(crate) fn locations(&self, graph: &wire::JobGraph) -> Vec<wire::TaskLocation> {
        let registers: BTreeMap<&String, &wire::Register> = self
            .heard
            .registers
            .iter()
            .map(|((_, id), register)| (id, register))
            .collect();
        let count = self.task_managers.len() as u32;
        let mut locations = Vec::new();
        for vertex in &graph.vertices {
            for subtask in 0..vertex.parallelism {
                let id = format!("tm-{}", subtask % count + 1);
                locations.push(wire::TaskLocation {
                    vertex: vertex.uid.clone(),
                    subtask,
                    data_address: registers[&id].data_address.clone(),
                    task_manager_id: id,
                });
            }
        }
        locations
    }

    /// Deploys an attempt, from the acks of a checkpoint if one is named.
    pub(crate) fn deploy(
        &self,
        leader: &Leader,
        graph: &wire::JobGraph,
        attempt: u32,
        from: Option<u64>,
    ) {
        self.deploy_job(leader, JOB, graph, attempt, from);
    }

    pub(crate) fn deploy_job(
        &self,
        leader: &Leader,
        job: &str,
        graph: &wire::JobGraph,
        attempt: u32,
        from: Option<u64>,
    ) {
        let locations = self.locations(graph);
        let checkpoints = self.path("checkpoints").display().to_string();
        for id in self.task_managers.keys() {
            let own = locations
                .iter()
                .filter(|location| location.task_manager_id == *id);
            let task = |location: &wire::TaskLocation| {
                let vertices = graph.vertices.iter();
                let vertex = vertices
                    .clone()
                    .find(|vertex| vertex.uid == location.vertex)
                    .unwrap();
                let restore =
                    from.map(|checkpoint| self.restore(checkpoint, vertex, location.subtask));
                let restore = restore.unwrap_or_default();
                wire::TaskDeployment {
                    vertex: location.vertex.clone(),
                    subtask: location.subtask,
                    restore_is_base: from.is_some_and(|checkpoint| {
                        self.parallelism(checkpoint, &vertex.uid) == vertex.parallelism
                    }),
                    restore,
                    restore_checkpoint_id: from.unwrap_or(0),
                    writer: format!(
                        "test/default/{job}/shared/{attempt}-{}-{}",
                        location.vertex, location.subtask
                    ),
                    restore_root: String::new(),
                }
            };
            let mut configuration = self.configuration.clone();
            configuration.insert("execution.checkpointing.dir".into(), checkpoints.clone());
            let deploy = wire::DeployTasks {
                job_id: job.into(),
                namespace: "default".into(),
                attempt,
                graph: Some(graph.clone()),
                configuration,
                tasks: own.map(task).collect(),
                locations: locations.clone(),
                cluster_id: leader.cluster.clone(),
            };
            leader.send(id, FromLeader::Deploy(deploy));
        }
    }

    /// Subtasks of a vertex that acknowledged.
    fn parallelism(&self, checkpoint: u64, vertex: &str) -> u32 {
        let acks = self.heard.acks[&checkpoint].keys();
        acks.filter(|(uid, _)| uid == vertex).count() as u32
    }

    /// What a task is to restore, as the leader of a real cluster says it.
    fn restore(
        &self,
        checkpoint: u64,
        vertex: &wire::Vertex,
        subtask: u32,
    ) -> Vec<wire::SubtaskState> {
        let then = self.parallelism(checkpoint, &vertex.uid);
        if then == vertex.parallelism {
            return vec![self.state(checkpoint, &vertex.uid, subtask)];
        }
        let range = |index, parallelism| {
            KeyGroupRange::of_subtask(index, vertex.max_parallelism, parallelism)
        };
        let own = range(subtask, vertex.parallelism);
        let state = |earlier| {
            let mut state = self.state(checkpoint, &vertex.uid, earlier);
            if range(earlier, then).intersection(own).is_none() {
                let takes_over = earlier % vertex.parallelism == subtask;
                let is_kept = |file: &wire::StateFile| file.kind() == wire::StateFileKind::Channels;
                state.files.retain(|file| takes_over && is_kept(file));
            }
            state
        };
        (0..then).map(state).collect()
    }

    /// The whole state that a task acknowledged: its deltas since the last full one.
    pub(crate) fn state(&self, checkpoint: u64, vertex: &str, subtask: u32) -> wire::SubtaskState {
        let ack = &self.heard.acks[&checkpoint][&(vertex.to_owned(), subtask)];
        let delta = ack.state.clone().unwrap();
        let mut files = match ack.base_checkpoint_id {
            0 => Vec::new(),
            base => self.state(base, vertex, subtask).files,
        };
        files.retain(|file| !delta.dropped.contains(&file.path));
        files.extend(delta.added);
        wire::SubtaskState {
            subtask,
            operators: delta.operators,
            files,
        }
    }
}

pub(crate) fn trigger(
    attempt: u32,
    checkpoint: u64,
    base: u64,
    kind: wire::CheckpointKind,
) -> FromLeader {
    FromLeader::TriggerCheckpoint(wire::TriggerCheckpoint {
        job_id: JOB.into(),
        attempt,
        checkpoint_id: checkpoint,
        base_checkpoint_id: base,
        kind: kind.into(),
        triggered_at_ms: 0,
        savepoint_directory: String::new(),
        unaligned_after_ms: None,
    })
}

/// The same for tasks that need not align at all.
pub(crate) fn trigger_unaligned(attempt: u32, checkpoint: u64, base: u64) -> FromLeader {
    match trigger(attempt, checkpoint, base, wire::CheckpointKind::Checkpoint) {
        FromLeader::TriggerCheckpoint(trigger) => {
            FromLeader::TriggerCheckpoint(wire::TriggerCheckpoint {
                unaligned_after_ms: Some(0),
                ..trigger
            })
        }
        other => other,
    }
}

pub(crate) fn completed(attempt: u32, checkpoint: u64) -> FromLeader {
    FromLeader::CheckpointCompleted(wire::NotifyCheckpointCompleted {
        job_id: JOB.into(),
        attempt,
        checkpoint_id: checkpoint,
    })
}

pub(crate) fn finish(attempt: u32) -> FromLeader {
    FromLeader::Finish(wire::FinishTasks {
        job_id: JOB.into(),
        attempt,
    })
}

pub(crate) fn cancel(attempt: u32) -> FromLeader {
    FromLeader::Cancel(wire::CancelTasks {
        job_id: JOB.into(),
        attempt,
    })
}

/// Lines of all files in `dir` that are committed.
pub(crate) fn committed_lines(dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_name().to_string_lossy().starts_with('.') {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            lines.extend(text.lines().map(ToOwned::to_owned));
        }
    }
    lines.sort();
    lines
}
