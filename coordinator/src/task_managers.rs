//! The gRPC service for TaskManagers: who leads, and the stream between a TaskManager and the leader.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flott_node::{OnFailure, Tasks};
use flott_proto::ids::{LeaderEpoch, TaskManagerId};
use flott_proto::wire::{
    self, task_manager_gateway_server::TaskManagerGateway, task_manager_message::Message,
};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;

use crate::core::ClusterState;
use crate::core::observed::ConnectionId;
use crate::leader::{Event, Office, outbox};
use crate::raft::RaftNode;

/// Where a refused caller finds the leader.
pub(crate) const LEADER_ADDRESS_HEADER: &str = "flott-leader-address";

/// Changes of the leader that wait for one watcher.
const LEADER_CHANGES_MAX: usize = 8;

type Answers<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

#[derive(Debug)]
pub(crate) struct Gateway {
    pub raft: RaftNode,
    pub office: watch::Receiver<Option<Office>>,
    pub tasks: Tasks,
    /// Where the streams of TaskManagers are read: their messages can be large, and heartbeats of Raft must not wait.
    pub threads: Handle,
    pub address: String,
    next_connection: Arc<AtomicU64>,
}

impl Gateway {
    pub(crate) fn new(
        raft: RaftNode,
        office: watch::Receiver<Option<Office>>,
        tasks: Tasks,
        threads: Handle,
        address: String,
    ) -> Self {
        Self {
            raft,
            office,
            tasks,
            threads,
            address,
            next_connection: Arc::default(),
        }
    }
}

/// The office of this process, or a refusal that says where the leader is.
pub(crate) fn office(
    office: &watch::Receiver<Option<Office>>,
    raft: &RaftNode,
) -> Result<Office, Status> {
    if let Some(office) = office.borrow().clone() {
        return Ok(office);
    }
    Err(not_leader(raft))
}

/// Why this JobManager refuses what is for the leader, and where another one leads, if that is known.
pub(crate) fn leader_elsewhere(raft: &RaftNode) -> (String, Option<String>) {
    let leader = raft.leadership().borrow().leader.clone();
    let leader = leader.filter(|(id, _)| *id != raft.node_id());
    match leader {
        Some((_, address)) => (
            format!("this JobManager does not lead; {address} does"),
            Some(address),
        ),
        None => (
            "no JobManager is in office at present; try again".to_owned(),
            None,
        ),
    }
}

/// The refusal of a JobManager that does not lead, with the address of the one that does if it is known.
pub(crate) fn not_leader(raft: &RaftNode) -> Status {
    let (text, leader) = leader_elsewhere(raft);
    let mut status = Status::failed_precondition(text);
    if let Some(value) = leader.and_then(|address| address.parse().ok()) {
        status.metadata_mut().insert(LEADER_ADDRESS_HEADER, value);
    }
    status
}

#[tonic::async_trait]
impl TaskManagerGateway for Gateway {
    type WatchLeaderStream = Answers<wire::LeaderInfo>;
    type AttachStream = Answers<wire::JobManagerMessage>;

    async fn watch_leader(
        &self,
        request: Request<wire::WatchLeaderRequest>,
    ) -> Result<Response<Self::WatchLeaderStream>, Status> {
        check_watcher(&self.raft, &request.get_ref().cluster_id)?;
        let (answers, receiver) = mpsc::channel(LEADER_CHANGES_MAX);
        let (raft, mut office, address) =
            (self.raft.clone(), self.office.clone(), self.address.clone());
        let cancelled = self.tasks.cancellation().clone();
        self.tasks
            .spawn("watch leader", OnFailure::Log, async move {
                let mut leadership = raft.leadership();
                let mut told = None;
                loop {
                    let info = leader_info(&raft, &office, &address);
                    if told.as_ref() != Some(&info) {
                        told = Some(info.clone());
                        if answers.send(Ok(info)).await.is_err() {
                            return Ok::<_, String>(());
                        }
                    }
                    tokio::select! { biased;
                        () = cancelled.cancelled() => return Ok(()),
                        () = answers.closed() => return Ok(()),
                        changed = office.changed() => if changed.is_err() { return Ok(()) },
                        changed = leadership.changed() => if changed.is_err() { return Ok(()) },
                    }
                }
            });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn attach(
        &self,
        request: Request<Streaming<wire::TaskManagerMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let office = office(&self.office, &self.raft)?;
        let mut stream = request.into_inner();
        let first = stream.message().await?.and_then(|first| first.message);
        let Some(Message::Register(register)) = first else {
            return Err(Status::invalid_argument(
                "the first message on the stream must be Register",
            ));
        };
        check_member(&self.raft, &register.cluster_id)?;
        let task_manager: TaskManagerId = register.task_manager_id.parse()?;
        let connection = ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed));
        let (outbox, receiver) = outbox();
        let registered = Event::Registered {
            connection,
            register,
            outbox,
        };
        if office.mailbox.send(registered).await.is_err() {
            return Err(not_leader(&self.raft));
        }
        let cancelled = self.tasks.cancellation().clone();
        let _on_its_threads = self.threads.enter();
        self.tasks
            .spawn("task manager stream", OnFailure::Log, async move {
                loop {
                    let message = tokio::select! { biased;
                        () = cancelled.cancelled() => return Ok::<_, String>(()),
                        () = office.mailbox.closed() => return Ok(()),
                        message = stream.message() => message,
                    };
                    let event = match message {
                        Ok(Some(message)) => received(&office, &task_manager, connection, message),
                        Ok(None) | Err(_) => None,
                    };
                    let ended = event.is_none();
                    let event = event.unwrap_or(Event::Disconnected {
                        task_manager: task_manager.clone(),
                        connection,
                    });
                    if office.mailbox.send(event).await.is_err() || ended {
                        return Ok(());
                    }
                }
            });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// The event of a message; none if the stream has to end.
fn received(
    office: &Office,
    from: &TaskManagerId,
    connection: ConnectionId,
    message: wire::TaskManagerMessage,
) -> Option<Event> {
    let epoch = LeaderEpoch(message.epoch);
    if epoch.is_some() && epoch != office.epoch {
        debug!(task_manager = %from, %epoch, office = %office.epoch, "a message for another leader");
        return None;
    }
    let task_manager = from.clone();
    message.message.map(|message| Event::Received {
        task_manager,
        connection,
        message,
    })
}

/// What a TaskManager that names a cluster is to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kin {
    /// It belongs here, or takes any cluster.
    Own,
    /// It is of a cluster that this one goes on from: it may come over, without its tasks.
    Predecessor,
    Foreign,
}

fn kin(own: Option<&str>, named: &str, state: &ClusterState) -> Kin {
    match own {
        Some(own) if !named.is_empty() && own != named => {
            if state.succeeds(named) {
                Kin::Predecessor
            } else {
                Kin::Foreign
            }
        }
        _ => Kin::Own,
    }
}

fn kin_of(raft: &RaftNode, named: &str) -> (Kin, String) {
    let own = raft.cluster_id().map(|id| id.to_string());
    let kin = kin(own.as_deref(), named, &raft.state());
    (kin, own.unwrap_or_default())
}

fn foreign(own: &str, named: &str) -> Status {
    Status::permission_denied(format!(
        "this is cluster {own}, not {named}; check high-availability.cluster-id and the addresses"
    ))
}

/// Who leads is told also to those who may come over: so they learn that they may.
fn check_watcher(raft: &RaftNode, named: &str) -> Result<(), Status> {
    match kin_of(raft, named) {
        (Kin::Own | Kin::Predecessor, _) => Ok(()),
        (Kin::Foreign, own) => Err(foreign(&own, named)),
    }
}

/// Who registers must be of this cluster. One of a predecessor has tasks of another lineage, which must have ended before.
fn check_member(raft: &RaftNode, named: &str) -> Result<(), Status> {
    match kin_of(raft, named) {
        (Kin::Own, _) => Ok(()),
        (Kin::Predecessor, own) => Err(Status::permission_denied(format!(
            "cluster {own} goes on from {named}, and takes no tasks of it; this TaskManager has to end them and to register \
             with {own}: restart it"
        ))),
        (Kin::Foreign, own) => Err(foreign(&own, named)),
    }
}

/// Who leads, as far as this JobManager knows.
fn leader_info(
    raft: &RaftNode,
    office: &watch::Receiver<Option<Office>>,
    address: &str,
) -> wire::LeaderInfo {
    let cluster_id = raft
        .cluster_id()
        .map(|id| id.to_string())
        .unwrap_or_default();
    let leadership = raft.leadership().borrow().clone();
    let predecessors = raft.state().predecessors().map(str::to_owned).collect();
    let known = wire::LeaderInfo {
        cluster_id,
        predecessors,
        members: leadership.members.to_vec(),
        ..Default::default()
    };
    if let Some(office) = &*office.borrow() {
        return wire::LeaderInfo {
            address: address.to_owned(),
            node_id: raft.node_id().0,
            epoch: office.epoch.0,
            ..known
        };
    }
    match leadership.leader.filter(|(id, _)| *id != raft.node_id()) {
        Some((id, address)) => wire::LeaderInfo {
            address,
            node_id: id.0,
            ..known
        },
        None => known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::lineage::{Origin, Predecessor};

    #[test]
    fn a_predecessor_is_no_stranger_and_no_member() {
        let mut state = ClusterState::default();
        let predecessor = Predecessor {
            cluster: "old".parse().unwrap(),
            succeeded_at_ms: 1,
            origin: Origin::Backup,
        };
        state.lineage.insert(7, predecessor);
        let table = [
            (Some("new"), "new", Kin::Own),
            (Some("new"), "", Kin::Own),
            (Some("new"), "old", Kin::Predecessor),
            (Some("new"), "other", Kin::Foreign),
            (None, "other", Kin::Own),
        ];
        for (own, named, expected) in table {
            assert_eq!(kin(own, named, &state), expected, "{named} at {own:?}");
        }
    }
}
