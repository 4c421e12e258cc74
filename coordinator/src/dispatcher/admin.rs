//! The gRPC service for operators of the JobManager group.
//!
//! Changes are for the leader in office: it has applied everything that was committed before, so it knows the feature
//! level, who is a member and who was. What is refused as dangerous has the code ABORTED, since FAILED_PRECONDITION means
//! "ask the leader" to clients.

use std::pin::Pin;
use std::time::Duration;

use flott_node::SharedClock;
use flott_node::config::Configuration;
use flott_proto::ids::{LeaderEpoch, NodeId};
use flott_proto::wire::{self, cluster_admin_server::ClusterAdmin};
use futures::{Stream, stream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tracing::info;

use super::{Answer, debug, show};
use crate::leader::{Office, chain};
use crate::raft::{Changed, RaftError, RaftNode};
use crate::task_managers::{not_leader, office};

/// For a successor to take office, once it leads.
const OFFICE_WAIT: Duration = Duration::from_secs(10);

/// Of a backup, in one message.
const BACKUP_CHUNK_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub(crate) struct Admin {
    pub raft: RaftNode,
    pub office: watch::Receiver<Option<Office>>,
    pub clock: SharedClock,
    /// The process's.
    pub configuration: Configuration,
}

impl Admin {
    fn office(&self) -> Result<Office, Status> {
        office(&self.office, &self.raft)
    }

    fn refusal(&self, error: &RaftError) -> Status {
        match error {
            RaftError::NotLeader { .. } => not_leader(&self.raft),
            RaftError::NoSuchMember(_) => Status::not_found(error.to_string()),
            RaftError::Configuration(_) => Status::invalid_argument(error.to_string()),
            RaftError::TimedOut(_) => Status::aborted(format!(
                "{error}, and may happen yet; `flott cluster members list` shows what is under way"
            )),
            RaftError::Shutdown | RaftError::Fatal(_) => Status::unavailable(error.to_string()),
            _ => Status::aborted(chain(error)),
        }
    }

    fn changed(&self, result: Result<Changed, RaftError>) -> Answer<wire::MembershipResponse> {
        let changed = result.map_err(|error| self.refusal(&error))?;
        let ids = |ids: Vec<NodeId>| ids.into_iter().map(|id| id.0).collect();
        Ok(Response::new(wire::MembershipResponse {
            voters: ids(changed.voters),
            learners: ids(changed.learners),
            tolerated_failures: changed.tolerated_failures as u32,
            changed: !changed.was_done,
        }))
    }

    /// Waits until the entry by which another leader takes office is applied here; its epoch.
    async fn next_in_office(&self, former: LeaderEpoch) -> Option<LeaderEpoch> {
        let mut applied = self.raft.applied();
        let in_office = applied.wait_for(|_| self.raft.state().epoch != former);
        tokio::time::timeout(OFFICE_WAIT, in_office)
            .await
            .ok()?
            .ok()?;
        Some(self.raft.state().epoch)
    }
}

#[tonic::async_trait]
impl ClusterAdmin for Admin {
    async fn add_member(
        &self,
        request: Request<wire::AddMemberRequest>,
    ) -> Answer<wire::AddMemberResponse> {
        self.office()?;
        let added = self.raft.add_learner(request.into_inner().address).await;
        let (id, voter) = added.map_err(|error| self.refusal(&error))?;
        Ok(Response::new(wire::AddMemberResponse { id: id.0, voter }))
    }

    async fn member_progress(
        &self,
        request: Request<wire::MemberProgressRequest>,
    ) -> Answer<wire::MemberProgressResponse> {
        self.office()?;
        let progress = self.raft.progress(NodeId(request.into_inner().id));
        let progress = progress.map_err(|error| self.refusal(&error))?;
        Ok(Response::new(wire::MemberProgressResponse {
            address: progress.address,
            voter: progress.voter,
            leader_last_log_index: progress.leader_last_log_index,
            matched_index: progress.matched_index,
            caught_up: progress.caught_up,
            silent_ms: progress.silent.map(|silent| silent.as_millis() as u64),
        }))
    }

    async fn promote_member(
        &self,
        request: Request<wire::PromoteMemberRequest>,
    ) -> Answer<wire::MembershipResponse> {
        self.office()?;
        let id = NodeId(request.into_inner().id);
        self.changed(self.raft.promote_member(id).await)
    }

    async fn remove_member(
        &self,
        request: Request<wire::RemoveMemberRequest>,
    ) -> Answer<wire::MembershipResponse> {
        self.office()?;
        let id = NodeId(request.into_inner().id);
        self.changed(self.raft.remove_member(id).await)
    }

    async fn replace_member(
        &self,
        request: Request<wire::ReplaceMemberRequest>,
    ) -> Answer<wire::MembershipResponse> {
        self.office()?;
        let wire::ReplaceMemberRequest { old_id, new_id } = request.into_inner();
        let replaced = self.raft.replace_member(NodeId(old_id), NodeId(new_id));
        self.changed(replaced.await)
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Answer<wire::TransferLeaderResponse> {
        let former = self.office()?.epoch;
        let from = self.raft.node_id();
        let to = request.into_inner().to;
        if to == from.0 {
            return Ok(Response::new(wire::TransferLeaderResponse {
                from: from.0,
                to,
                took_us: 0,
                epoch: former.0,
            }));
        }
        let begun = self.clock.monotonic();
        let to = (to != 0).then_some(NodeId(to));
        let transferred = self.raft.transfer_leadership_to(to).await;
        let successor = transferred.map_err(|error| self.refusal(&error))?;
        let Some(epoch) = self.next_in_office(former).await else {
            return Err(Status::aborted(format!(
                "member {successor} leads but did not take office within {} s; see `flott cluster status`",
                OFFICE_WAIT.as_secs()
            )));
        };
        let took = self.clock.monotonic().saturating_sub(begun);
        info!(%successor, %epoch, took_us = took.as_micros() as u64, "leadership transferred");
        Ok(Response::new(wire::TransferLeaderResponse {
            from: from.0,
            to: successor.0,
            took_us: took.as_micros() as u64,
            epoch: epoch.0,
        }))
    }

    async fn upgrade(
        &self,
        request: Request<wire::UpgradeRequest>,
    ) -> Answer<wire::UpgradeResponse> {
        let office = self.office()?;
        let to = request.into_inner().to;
        let to = (to != 0).then_some(to);
        let raised = self.raft.raise_feature_level(to, office.epoch).await;
        let (before, after) = raised.map_err(|error| self.refusal(&error))?;
        Ok(Response::new(wire::UpgradeResponse { before, after }))
    }

    type BackupStream = Pin<Box<dyn Stream<Item = Result<wire::BackupChunk, Status>> + Send>>;

    /// Each chunk is read when the one before was taken, so a slow reader costs one chunk of memory.
    async fn backup(&self, _request: Request<wire::BackupRequest>) -> Answer<Self::BackupStream> {
        self.office()?;
        let file = self.raft.backup().await;
        let file = file.map_err(|error| self.refusal(&error))?;
        let total_bytes = file.length();
        let chunks = stream::try_unfold(0_u64, move |offset| {
            let file = file.clone();
            async move {
                let data = file.read_at(offset, BACKUP_CHUNK_BYTES).await;
                let data = data.map_err(|error| Status::internal(chain(&error)))?;
                let next = offset + data.len() as u64;
                let chunk = wire::BackupChunk {
                    total_bytes,
                    data: data.into(),
                };
                Ok((next > offset).then_some((chunk, next)))
            }
        });
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn debug_report(
        &self,
        request: Request<wire::DebugReportRequest>,
    ) -> Answer<wire::DebugReportResponse> {
        let log_entries_max = request.into_inner().log_entries_max;
        let members = self.raft.members().await;
        let status = show::cluster(&self.raft, members, None);
        let report = debug::report(
            &self.raft,
            &self.configuration,
            self.clock.now_ms(),
            log_entries_max,
        )
        .await;
        Ok(Response::new(wire::DebugReportResponse {
            status: Some(status),
            ..report
        }))
    }
}
