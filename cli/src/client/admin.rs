//! The calls of those who operate the group. All may be repeated, so they outlive a change of leader like any other.

use std::time::Duration;

use flott_proto::wire;
use flott_proto::wire::cluster_admin_client::ClusterAdminClient;
use tonic::transport::Channel;
use tonic::{Request, Response, Streaming};

use super::{
    ATTEMPT_TIMEOUT, CONNECT_TIMEOUT, Client, ClientError, MESSAGE_BYTES_MAX, Stub, describe,
};

/// A change waits for a learner to keep up, for members to answer, and for two commits: the server's own limits come
/// first and say more.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// The leader writes a snapshot first, within limits of its own.
const BACKUP_TIMEOUT: Duration = Duration::from_secs(330);
/// A debug report reads the disk.
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);

type Admin = ClusterAdminClient<Channel>;

impl Stub for Admin {
    fn over(channel: Channel) -> Self {
        Self::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

impl Client {
    /// Makes the fresh JobManager at `address` a learner; it begins to catch up then.
    pub async fn add_member(&self, address: &str) -> Result<wire::AddMemberResponse, ClientError> {
        let request = wire::AddMemberRequest {
            address: address.to_owned(),
        };
        self.change(request, |mut admin: Admin, request| async move {
            admin.add_member(request).await
        })
        .await
    }

    /// How far a member is, as the leader sees it.
    pub async fn member_progress(
        &self,
        id: u64,
    ) -> Result<wire::MemberProgressResponse, ClientError> {
        let request = wire::MemberProgressRequest { id };
        let asked = |mut admin: Admin, request| async move { admin.member_progress(request).await };
        self.call(ATTEMPT_TIMEOUT, request, asked).await
    }

    /// Gives a learner a vote, once it has kept up for some seconds.
    pub async fn promote_member(&self, id: u64) -> Result<wire::MembershipResponse, ClientError> {
        let request = wire::PromoteMemberRequest { id };
        self.change(request, |mut admin: Admin, request| async move {
            admin.promote_member(request).await
        })
        .await
    }

    /// Removes a member for good.
    pub async fn remove_member(&self, id: u64) -> Result<wire::MembershipResponse, ClientError> {
        let request = wire::RemoveMemberRequest { id };
        self.change(request, |mut admin: Admin, request| async move {
            admin.remove_member(request).await
        })
        .await
    }

    /// Gives the learner `new_id` the vote of `old_id`, which is removed.
    pub async fn replace_member(
        &self,
        old_id: u64,
        new_id: u64,
    ) -> Result<wire::MembershipResponse, ClientError> {
        let request = wire::ReplaceMemberRequest { old_id, new_id };
        self.change(request, |mut admin: Admin, request| async move {
            admin.replace_member(request).await
        })
        .await
    }

    /// Has another member lead (`None`: the most up-to-date voter), and waits until it is in office.
    pub async fn transfer_leader(
        &self,
        to: Option<u64>,
    ) -> Result<wire::TransferLeaderResponse, ClientError> {
        let request = wire::TransferLeaderRequest {
            to: to.unwrap_or_default(),
        };
        self.change(request, |mut admin: Admin, request| async move {
            admin.transfer_leader(request).await
        })
        .await
    }

    /// Raises the feature level (`None`: as far as all members support).
    pub async fn upgrade(&self, to: Option<u32>) -> Result<wire::UpgradeResponse, ClientError> {
        let request = wire::UpgradeRequest {
            to: to.unwrap_or_default(),
        };
        self.change(request, |mut admin: Admin, request| async move {
            admin.upgrade(request).await
        })
        .await
    }

    /// A snapshot that has all that was decided before, as a file in pieces.
    pub async fn backup(&self) -> Result<Streaming<wire::BackupChunk>, ClientError> {
        self.find_leader().await?;
        let request = wire::BackupRequest {};
        let asked = |mut admin: Admin, request| async move { admin.backup(request).await };
        self.call(BACKUP_TIMEOUT, request, asked).await
    }

    /// What the member at `address` says of itself, without a second try; of whichever cluster it is, since that may be
    /// what is wrong.
    pub async fn debug_report(
        &self,
        address: &str,
        log_entries_max: u32,
    ) -> Result<wire::DebugReportResponse, ClientError> {
        let request = wire::DebugReportRequest { log_entries_max };
        let asked = |mut admin: Admin, request| async move { admin.debug_report(request).await };
        self.ask(address, REPORT_TIMEOUT, Request::new(request), &asked)
            .await
            .map(Response::into_inner)
            .map_err(|status| ClientError::Unavailable {
                patience: REPORT_TIMEOUT.max(CONNECT_TIMEOUT),
                last: describe(address, &status),
            })
    }

    /// A call that may take long. Looks for the leader first, so that a member that hangs does not cost all that time.
    async fn change<S, Q, A, F, R>(&self, request: Q, invoke: F) -> Result<A, ClientError>
    where
        S: Stub,
        Q: Clone,
        F: Fn(S, Request<Q>) -> R,
        R: Future<Output = Result<Response<A>, tonic::Status>>,
    {
        self.find_leader().await?;
        self.call(CHANGE_TIMEOUT, request, invoke).await
    }

    async fn find_leader(&self) -> Result<(), ClientError> {
        let status = self.status().await?;
        if !status.leader_address.is_empty() {
            self.known().leader = Some(status.leader_address);
        }
        Ok(())
    }
}
