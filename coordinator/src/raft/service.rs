//! The calls of other members, answered.
//!
//! Every call but `Introduce`, `Adopt` and `Status` is checked against this node's identity before Raft sees it; and with
//! TLS, whether the caller's certificate is that of the node from which the call says it is.
//!
//! A voter that has just been restarted does not remember that it promised its leader not to vote for anybody else
//! for the length of a lease. So it does not vote until that lease is certainly over; see [`VoteHold`].

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flott_node::tls::Peer;
use flott_node::{Mutant, SharedClock};
use flott_proto::wire;
use flott_proto::wire::raft_append_response::Outcome;
use flott_proto::wire::raft_service_server::RaftService;
use futures::{Stream, StreamExt, stream};
use openraft::async_runtime::WatchReceiver;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, VoteRequest,
};
use tonic::{Request, Response, Status, Streaming};
use tracing::warn;

use super::bootstrap::Bootstrap;
use super::codec;
use super::config::Timing;
use super::freshness::Freshness;
use super::identity::{LocalIdentity, Mismatch, MismatchKind};
use super::members::Reporter;
use super::node::Raft;
use super::read_index::{self, Succession};
use super::snapshot::{SnapshotFile, SnapshotReceiver};
use super::suspicion::{Suspicion, Watched};
use super::types::{StoredMembership, TypeConfig};
use crate::access;

type AnswerStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotFile>;

/// Until when this node grants no votes, because of promises that it made before it was restarted.
#[derive(Debug)]
pub(crate) struct VoteHold {
    clock: SharedClock,
    /// In the clock's monotonic time.
    until: Duration,
}

impl VoteHold {
    /// Holds votes for `lease` from now on, if this node may have promised anything.
    pub(crate) fn new(clock: SharedClock, lease: Duration, may_have_promised: bool) -> Self {
        let until = if may_have_promised && !Mutant::NoVoteHold.is_planted() {
            clock.monotonic() + lease
        } else {
            Duration::ZERO
        };
        Self { clock, until }
    }

    pub(crate) fn remaining(&self) -> Duration {
        self.until.saturating_sub(self.clock.monotonic())
    }
}

/// The gRPC service of one node. Clones are the same service.
#[derive(Clone)]
pub struct RaftRpc(Arc<Serving>);

/// What the service answers from.
pub(super) struct Serving {
    pub(super) raft: Raft,
    pub(super) identity: Arc<LocalIdentity>,
    pub(super) bootstrap: Arc<Bootstrap>,
    pub(super) vote_hold: VoteHold,
    pub(super) reporter: Arc<Reporter>,
    pub(super) timing: Timing,
    pub(super) succession: Succession,
    pub(super) freshness: Arc<Freshness>,
    pub(super) receiver: SnapshotReceiver,
    pub(super) suspicion: Suspicion,
}

impl fmt::Debug for RaftRpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftRpc")
            .field("identity", &self.0.identity)
            .finish_non_exhaustive()
    }
}

/// Raft does not run any more; the process is ending.
fn stopped(error: impl fmt::Display) -> Status {
    Status::unavailable(format!("raft has stopped: {error}"))
}

impl RaftRpc {
    pub(super) fn new(serving: Serving) -> Self {
        Self(Arc::new(serving))
    }

    /// Whether this node may stand for election: nothing that it promised before a restart binds it any more.
    pub(super) fn may_stand(&self) -> bool {
        self.0.vote_hold.remaining().is_zero()
    }
}

impl Serving {
    fn check(
        &self,
        peer: Option<&Peer>,
        identity: Option<&wire::RaftIdentity>,
    ) -> Result<(), Status> {
        let members = Arc::clone(
            &self
                .raft
                .server_metrics()
                .borrow_watched()
                .membership_config,
        );
        let from = identity.map_or(0, |identity| identity.from_node);
        let address = members
            .membership()
            .get_node(&from)
            .map(|peer| peer.address.as_str());
        access::check_member(peer, from, address).map_err(|reason| {
            warn!(from_node = from, reason, "raft request refused");
            Status::permission_denied(reason)
        })?;
        self.identity
            .check(identity, members.membership())
            .and_then(|()| self.check_not_removed(identity, &members))
            .map_err(|mismatch| {
                warn!(
                    from_node = identity.map(|identity| identity.from_node),
                    kind = ?mismatch.kind,
                    expected = mismatch.expected,
                    received = mismatch.received,
                    "raft request refused"
                );
                mismatch.into_status()
            })
    }

    /// Who was removed from the group has no say in it, whatever its own log tells it.
    fn check_not_removed(
        &self,
        identity: Option<&wire::RaftIdentity>,
        members: &StoredMembership,
    ) -> Result<(), Mismatch> {
        let stranger = identity.filter(|sender| members.get_node(&sender.from_node).is_none());
        let Some(sender) = stranger else {
            return Ok(());
        };
        match self.reporter.removed_at(sender) {
            0 => Ok(()),
            removed_at => Err(Mismatch {
                kind: MismatchKind::SenderRemoved,
                expected: "a member".to_owned(),
                received: format!("node {}, removed by entry {removed_at}", sender.from_node),
            }),
        }
    }

    fn accept_append(
        &self,
        peer: Option<&Peer>,
        request: wire::RaftAppendRequest,
    ) -> Result<AppendEntriesRequest<TypeConfig>, Status> {
        self.check(peer, request.identity.as_ref())?;
        let commit = request.leader_commit.as_ref().map_or(0, |id| id.index);
        self.freshness.on_heard(commit);
        let entries = request
            .entries
            .into_iter()
            .map(codec::entry_from_wire)
            .collect::<Result<Vec<_>, _>>();
        Ok(AppendEntriesRequest {
            vote: codec::required_ballot(request.vote.as_ref(), "append request")?,
            prev_log_id: request.previous.as_ref().map(codec::log_id_from_wire),
            entries: entries?,
            leader_commit: request.leader_commit.as_ref().map(codec::log_id_from_wire),
        })
    }

    /// The same for a message of a stream, whose sender is watched from its first one on.
    fn accept_watched(
        &self,
        peer: Option<&Peer>,
        request: wire::RaftAppendRequest,
        watched: &Mutex<Option<Watched>>,
    ) -> Result<AppendEntriesRequest<TypeConfig>, Status> {
        let sender = request.identity.as_ref().map(|identity| identity.from_node);
        let accepted = self.accept_append(peer, request);
        if accepted.is_err() {
            end_watch(watched);
        } else if let Some(sender) = sender {
            let mut watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
            watched.get_or_insert_with(|| self.suspicion.watch(sender));
        }
        accepted
    }
}

/// The stream is over as streams are.
fn end_watch(watched: &Mutex<Option<Watched>>) {
    let mut watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(watched) = watched.as_mut() {
        watched.ended();
    }
}

fn append_answer(result: StreamAppendResult<TypeConfig>) -> wire::RaftAppendResponse {
    let outcome = match result {
        Ok(matching) => Outcome::Appended(wire::RaftAppended {
            matching: matching.as_ref().map(codec::log_id_to_wire),
        }),
        Err(StreamAppendError::Conflict(id)) => Outcome::Conflict(codec::log_id_to_wire(&id)),
        Err(StreamAppendError::HigherVote(vote)) => {
            Outcome::HigherVote(codec::ballot_to_wire(&vote))
        }
    };
    wire::RaftAppendResponse {
        outcome: Some(outcome),
    }
}

/// Who called; None where the connection does not say.
fn peer_of<T>(request: &Request<T>) -> Option<Peer> {
    request.extensions().get().cloned()
}

#[async_trait::async_trait]
impl RaftService for RaftRpc {
    async fn append(
        &self,
        request: Request<wire::RaftAppendRequest>,
    ) -> Result<Response<wire::RaftAppendResponse>, Status> {
        let peer = peer_of(&request);
        let request = self.0.accept_append(peer.as_ref(), request.into_inner())?;
        let last = request
            .entries
            .last()
            .map(|entry| entry.log_id)
            .or(request.prev_log_id);
        let previous = request.prev_log_id;
        let result = match self.0.raft.append_entries(request).await.map_err(stopped)? {
            AppendEntriesResponse::Success => Ok(last),
            AppendEntriesResponse::PartialSuccess(matching) => Ok(matching),
            AppendEntriesResponse::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote)),
            AppendEntriesResponse::Conflict => {
                let previous = previous
                    .ok_or_else(|| Status::internal("the beginning of the log conflicts"))?;
                Err(StreamAppendError::Conflict(previous))
            }
        };
        Ok(Response::new(append_answer(result)))
    }

    type StreamAppendStream = AnswerStream<wire::RaftAppendResponse>;

    async fn stream_append(
        &self,
        request: Request<Streaming<wire::RaftAppendRequest>>,
    ) -> Result<Response<Self::StreamAppendStream>, Status> {
        // Why the input ended, if it ended with an error; told after the answers to what came before.
        let failure = Arc::new(Mutex::new(None));
        let peer = peer_of(&request);
        // As long as the answers are wanted and the input has not ended, a break is that of the sender's process.
        let watched: Arc<Mutex<Option<Watched>>> = Arc::default();
        let input = {
            let (rpc, failure) = (Arc::clone(&self.0), Arc::clone(&failure));
            let (watching, ended) = (Arc::clone(&watched), Arc::clone(&watched));
            request
                .into_inner()
                .map(move |received| rpc.accept_watched(peer.as_ref(), received?, &watching))
                .chain(stream::iter(std::iter::from_fn(move || {
                    end_watch(&ended);
                    None
                })))
                .scan(failure, |failure, accepted| {
                    let request = accepted.map_err(|status| {
                        *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
                    });
                    std::future::ready(request.ok())
                })
        };
        let answers = self
            .0
            .raft
            .stream_append(input)
            .map(|result| result.map(append_answer).map_err(stopped));
        let end = stream::once(async move {
            drop(watched);
            failure
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take()
        });
        Ok(Response::new(Box::pin(answers.chain(
            end.filter_map(|status| async { status.map(Err) }),
        ))))
    }

    async fn vote(
        &self,
        request: Request<wire::RaftVoteRequest>,
    ) -> Result<Response<wire::RaftVoteResponse>, Status> {
        let (peer, request) = (peer_of(&request), request.into_inner());
        self.0.check(peer.as_ref(), request.identity.as_ref())?;
        // A transfer is the will of the very leader to whom something was promised.
        let hold = self.0.vote_hold.remaining();
        if !hold.is_zero() && !request.leadership_transfer {
            return Err(Status::unavailable(format!(
                "just restarted; no votes for another {hold:?}"
            )));
        }
        let vote = codec::required_ballot(request.vote.as_ref(), "vote request")?;
        let mut ask = VoteRequest::new(
            vote,
            request.last_log_id.as_ref().map(codec::log_id_from_wire),
        );
        ask.leadership_transfer = request.leadership_transfer;
        let answer = if request.pre_vote {
            self.0.raft.pre_vote(ask).await
        } else {
            self.0.raft.vote(ask).await
        };
        let answer = answer.map_err(stopped)?;
        Ok(Response::new(wire::RaftVoteResponse {
            vote: Some(codec::ballot_to_wire(&answer.vote)),
            granted: answer.vote_granted,
            last_log_id: answer.last_log_id.as_ref().map(codec::log_id_to_wire),
        }))
    }

    async fn prepare_snapshot(
        &self,
        request: Request<wire::RaftPrepareSnapshotRequest>,
    ) -> Result<Response<wire::RaftPrepareSnapshotResponse>, Status> {
        let (peer, request) = (peer_of(&request), request.into_inner());
        self.0.check(peer.as_ref(), request.identity.as_ref())?;
        let offset = self.0.receiver.offset(&request);
        Ok(Response::new(wire::RaftPrepareSnapshotResponse { offset }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<wire::RaftSnapshotChunk>>,
    ) -> Result<Response<wire::RaftSnapshotResponse>, Status> {
        let peer = peer_of(&request);
        let mut chunks = request.into_inner();
        let header = SnapshotReceiver::header(&mut chunks).await?;
        self.0.check(peer.as_ref(), header.identity.as_ref())?;
        let vote = codec::required_ballot(header.vote.as_ref(), "snapshot header")?;
        let (meta, snapshot) = self.0.receiver.receive(&header, chunks).await?;
        let cluster = self.0.identity.cluster_id();
        if cluster.is_none_or(|cluster| meta.cluster_id != cluster.as_str()) {
            return Err(Status::failed_precondition(format!(
                "snapshot is of cluster {}",
                meta.cluster_id
            )));
        }
        let meta = codec::snapshot_meta_from_wire(meta)?;
        let received = snapshot.clone();
        let installed = self
            .0
            .raft
            .install_full_snapshot(vote, Snapshot { meta, snapshot })
            .await;
        // Refused ones stay under their temporary name.
        received.discard_if_temporary();
        let installed = installed.map_err(stopped)?;
        Ok(Response::new(wire::RaftSnapshotResponse {
            vote: Some(codec::ballot_to_wire(&installed.vote)),
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::RaftTransferRequest>,
    ) -> Result<Response<wire::RaftTransferResponse>, Status> {
        let (peer, request) = (peer_of(&request), request.into_inner());
        self.0.check(peer.as_ref(), request.identity.as_ref())?;
        let from = codec::required_ballot(request.from_leader.as_ref(), "transfer request")?;
        let last_log_id = request.last_log_id.as_ref().map(codec::log_id_from_wire);
        let transfer = TransferLeaderRequest::new(from, request.to_node, last_log_id);
        let answer = match self
            .0
            .raft
            .handle_transfer_leader(transfer)
            .await
            .map_err(stopped)?
        {
            Ok(()) => wire::RaftTransferResponse::default(),
            Err(refusal) => {
                let (actual_vote, actual_log_id) = match &refusal {
                    TransferLeaderError::VoteChanged { actual, .. } => {
                        (Some(codec::ballot_to_wire(actual)), None)
                    }
                    TransferLeaderError::LogNotFlushed { actual, .. } => {
                        (None, actual.as_ref().map(codec::log_id_to_wire))
                    }
                };
                wire::RaftTransferResponse {
                    refusal: refusal.to_string(),
                    actual_vote,
                    actual_log_id,
                }
            }
        };
        Ok(Response::new(answer))
    }

    async fn read_index(
        &self,
        request: Request<wire::RaftReadIndexRequest>,
    ) -> Result<Response<wire::RaftReadIndexResponse>, Status> {
        let peer = peer_of(&request);
        self.0
            .check(peer.as_ref(), request.get_ref().identity.as_ref())?;
        let index = read_index::under_lease(&self.0.raft, self.0.timing, &self.0.succession).await;
        Ok(Response::new(wire::RaftReadIndexResponse {
            index: index.unwrap_or(0),
        }))
    }

    async fn introduce(
        &self,
        _request: Request<wire::RaftIntroduceRequest>,
    ) -> Result<Response<wire::RaftIntroduceResponse>, Status> {
        Ok(Response::new(
            self.0.bootstrap.introduction().await.map_err(stopped)?,
        ))
    }

    async fn adopt(
        &self,
        request: Request<wire::RaftAdoptRequest>,
    ) -> Result<Response<wire::RaftAdoptResponse>, Status> {
        let refusal = self
            .0
            .bootstrap
            .adopt(request.into_inner())
            .await
            .err()
            .unwrap_or_default();
        Ok(Response::new(wire::RaftAdoptResponse { refusal }))
    }

    async fn status(
        &self,
        request: Request<wire::RaftStatusRequest>,
    ) -> Result<Response<wire::RaftStatusResponse>, Status> {
        let asker = request.into_inner().identity;
        Ok(Response::new(self.0.reporter.report(asker.as_ref())))
    }
}
