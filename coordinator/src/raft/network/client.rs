//! One member, as openraft calls it.

use std::sync::Arc;
use std::time::Duration;

use flott_node::{Mutant, tls};
use flott_proto::wire;
use flott_proto::wire::raft_service_client::RaftServiceClient;
use futures::Stream;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RPCTypes, RaftNetworkV2};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use tracing::error;

use super::super::codec;
use super::super::identity::is_mismatch;
use super::super::snapshot::SnapshotFile;
use super::super::types::{Ballot, Peer, TypeConfig};
use super::{Lane, Network, append_stream, snapshot_sender};

pub(super) type Failure = RPCError<TypeConfig>;

type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotFile>;

/// A member and one purpose.
#[derive(Clone, Debug)]
pub(crate) struct MemberClient {
    pub(super) network: Arc<Network>,
    pub(super) target: u64,
    peer: Peer,
    lane: Lane,
    /// So that a refusal, which repeats with every heartbeat, is logged once.
    refusal_logged: bool,
}

impl MemberClient {
    pub(super) fn new(network: Arc<Network>, target: u64, peer: Peer, lane: Lane) -> Self {
        Self {
            network,
            target,
            peer,
            lane,
            refusal_logged: false,
        }
    }

    pub(super) fn client(&self, lane: Lane) -> Result<RaftServiceClient<Channel>, Failure> {
        self.network
            .client(&self.peer.address, lane)
            .map_err(|error| Unreachable::new(&error).into())
    }

    pub(super) fn identity(&self) -> wire::RaftIdentity {
        self.network.identity.towards(self.target, &self.peer)
    }

    pub(super) fn timeout(&self, action: RPCTypes, timeout: Duration) -> Timeout<TypeConfig> {
        Timeout {
            action,
            id: self.network.identity.node,
            target: self.target,
            timeout,
        }
    }

    /// Whether openraft should wait before it tries again: it should unless the member has answered.
    pub(super) fn failure(&mut self, status: &Status) -> Failure {
        if let Some(reason) = tls::refusal(status)
            && !std::mem::replace(&mut self.refusal_logged, true)
        {
            error!(
                target_node = self.target,
                address = self.peer.address,
                reason,
                "cannot connect to a raft member"
            );
        }
        if status.code() == Code::PermissionDenied
            && !std::mem::replace(&mut self.refusal_logged, true)
        {
            error!(
                target_node = self.target,
                address = self.peer.address,
                reason = status.message(),
                "a raft member refuses this node because of its certificate"
            );
        }
        if is_mismatch(status) && !std::mem::replace(&mut self.refusal_logged, true) {
            error!(
                target_node = self.target,
                address = self.peer.address,
                reason = status.message(),
                "a raft member is not who it was; if its data directory was replaced, remove this member and add it as \
                 a new one"
            );
        }
        match status.code() {
            Code::DeadlineExceeded | Code::Cancelled | Code::ResourceExhausted => {
                NetworkError::new(status).into()
            }
            _ => Unreachable::new(status).into(),
        }
    }

    async fn call<T>(
        &mut self,
        action: RPCTypes,
        deadline: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(deadline, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.failure(&status)),
            Err(_) => Err(self.timeout(action, deadline).into()),
        }
    }

    async fn ask_for_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        pre_vote: bool,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failure> {
        let mut client = self.client(Lane::Control)?;
        let request = wire::RaftVoteRequest {
            identity: Some(self.identity()),
            vote: Some(codec::ballot_to_wire(&rpc.vote)),
            last_log_id: rpc.last_log_id.as_ref().map(codec::log_id_to_wire),
            leadership_transfer: rpc.leadership_transfer,
            pre_vote,
        };
        let response = self
            .call(RPCTypes::Vote, option.soft_ttl(), client.vote(request))
            .await?;
        let vote = required(response.vote.as_ref())?;
        let last_log_id = response.last_log_id.as_ref().map(codec::log_id_from_wire);
        Ok(VoteResponse::new(vote, last_log_id, response.granted))
    }
}

/// The vote of a response.
pub(super) fn required(vote: Option<&wire::RaftBallot>) -> Result<Ballot, Failure> {
    codec::required_ballot(vote, "raft response").map_err(|error| NetworkError::new(&error).into())
}

pub(super) fn append_to_wire(
    request: &AppendEntriesRequest<TypeConfig>,
    member: &MemberClient,
) -> wire::RaftAppendRequest {
    let mut leader_commit = request.leader_commit;
    if Mutant::UncommittedAnnounced.is_planted() {
        let last = request.entries.last().map(|entry| entry.log_id);
        leader_commit = leader_commit.max(last);
    }
    member.network.announce(leader_commit.as_ref());
    wire::RaftAppendRequest {
        identity: Some(member.identity()),
        vote: Some(codec::ballot_to_wire(&request.vote)),
        previous: request.prev_log_id.as_ref().map(codec::log_id_to_wire),
        entries: request.entries.iter().map(codec::entry_to_wire).collect(),
        leader_commit: leader_commit.as_ref().map(codec::log_id_to_wire),
    }
}

/// What the follower made of one request.
pub(super) fn appended_from_wire(
    response: wire::RaftAppendResponse,
) -> Result<StreamAppendResult<TypeConfig>, Failure> {
    use wire::raft_append_response::Outcome;
    match response.outcome {
        Some(Outcome::Appended(appended)) => {
            Ok(Ok(appended.matching.as_ref().map(codec::log_id_from_wire)))
        }
        Some(Outcome::Conflict(id)) => Ok(Err(StreamAppendError::Conflict(
            codec::log_id_from_wire(&id),
        ))),
        Some(Outcome::HigherVote(vote)) => Ok(Err(StreamAppendError::HigherVote(
            codec::ballot_from_wire(&vote),
        ))),
        None => Err(NetworkError::from_string("append response without outcome").into()),
    }
}

impl RaftNetworkV2<TypeConfig> for MemberClient {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Failure> {
        let mut client = self.client(Lane::Control)?;
        let request = append_to_wire(&rpc, self);
        // Used for heartbeats only, where openraft itself stops waiting at the hard limit.
        let response = self
            .call(
                RPCTypes::AppendEntries,
                option.hard_ttl(),
                client.append(request),
            )
            .await?;
        match appended_from_wire(response)? {
            Ok(_) => Ok(AppendEntriesResponse::Success),
            Err(StreamAppendError::HigherVote(vote)) => Ok(AppendEntriesResponse::HigherVote(vote)),
            // The beginning of the log conflicts with nothing; openraft relies on that.
            Err(StreamAppendError::Conflict(_)) if rpc.prev_log_id.is_none() => {
                Err(NetworkError::from_string("append response with an impossible conflict").into())
            }
            Err(StreamAppendError::Conflict(_)) => Ok(AppendEntriesResponse::Conflict),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, Failure>>, Failure>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        match self.lane {
            Lane::Log => Box::pin(append_stream::open(self, input)),
            Lane::Control | Lane::Snapshot => stream_append_sequential(self, input, option),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failure> {
        self.ask_for_vote(rpc, false, option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failure> {
        self.ask_for_vote(rpc, true, option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Ballot,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let total = option.hard_ttl();
        let last_log_id = snapshot.meta.last_log_id;
        let sending = snapshot_sender::send(self, vote, last_log_id, snapshot.snapshot);
        tokio::select! { biased;
            closed = cancel => Err(closed.into()),
            sent = tokio::time::timeout(total, sending) => match sent {
                Ok(answered) => answered,
                Err(_) => Err(self.timeout(RPCTypes::InstallSnapshot, total).into()),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Failure> {
        let mut client = self.client(Lane::Control)?;
        let request = wire::RaftTransferRequest {
            identity: Some(self.identity()),
            from_leader: Some(codec::ballot_to_wire(req.from_leader())),
            to_node: *req.to_node_id(),
            last_log_id: req.last_log_id().map(codec::log_id_to_wire),
        };
        let call = client.transfer_leader(request);
        let response = self
            .call(RPCTypes::TransferLeader, option.soft_ttl(), call)
            .await?;
        if response.refusal.is_empty() {
            return Ok(Ok(()));
        }
        Ok(Err(match response.actual_vote.as_ref() {
            Some(vote) => TransferLeaderError::VoteChanged {
                expected: *req.from_leader(),
                actual: codec::ballot_from_wire(vote),
            },
            None => TransferLeaderError::LogNotFlushed {
                expected: req.last_log_id().copied(),
                actual: response.actual_log_id.as_ref().map(codec::log_id_from_wire),
            },
        }))
    }
}
