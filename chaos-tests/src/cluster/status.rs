//! What members say about the group when they are asked.

use std::time::Duration;

use flott_cli::known_cluster::KnownCluster;
use flott_proto::wire;
use flott_proto::wire::job_manager_client::JobManagerClient;
use tonic::Request;
use tonic::transport::Endpoint;

use super::network;

/// For an answer. A follower asks the leader first, and waits a second for it.
const ANSWER_DEADLINE: Duration = Duration::from_millis(1_500);

/// The group as that member, or the leader that it asks, sees it; `None` if there is no answer.
pub async fn status(member: u32) -> Option<wire::ClusterStatusResponse> {
    status_at(&network::address(member)).await
}

/// The same of the member at that address, of whichever cluster, or none.
pub async fn status_at(address: &str) -> Option<wire::ClusterStatusResponse> {
    status_of(&KnownCluster::default(), address).await
}

/// The same if it is a member of that cluster, which is the first one that answers if it is not known yet.
pub async fn status_of(
    cluster: &KnownCluster,
    address: &str,
) -> Option<wire::ClusterStatusResponse> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
    let asked = async {
        let channel = endpoint.connect().await.ok()?;
        let mut request = Request::new(wire::ClusterStatusRequest {});
        cluster.name_in(request.metadata_mut());
        let answer = JobManagerClient::new(channel).cluster_status(request).await;
        let answer = answer.ok()?;
        cluster.learn_from(answer.metadata());
        Some(answer.into_inner())
    };
    tokio::time::timeout(ANSWER_DEADLINE, asked).await.ok()?
}

/// How far a member is, by that status: `None` if it is unreachable.
pub fn applied(status: &wire::ClusterStatusResponse, member: u32) -> Option<u64> {
    let member = status
        .members
        .iter()
        .find(|other| other.id == u64::from(member) && other.role != "unreachable")?;
    Some(member.applied_index)
}
