//! Which state may answer a read, as Raft knows it.
//!
//! A lease is good only while no other member can have been elected. [`lease_is_valid`] keeps a margin to what openraft
//! counts as the lease, for clocks that run at different speeds.

use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver;

use super::config::Timing;
use super::network::Lane;
use super::node::{Inner, Raft};
use flott_proto::wire;

/// Whether a quorum has confirmed this leader so recently that no other can have been elected.
pub(super) fn lease_is_valid(raft: &Raft, timing: Timing) -> bool {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    if !metrics.state.is_leader() || metrics.running_state.is_err() {
        return false;
    }
    let mut voters = metrics.membership_config.voter_ids();
    let alone = voters.all(|voter| voter == metrics.id);
    let acked = metrics.last_quorum_acked.as_ref();
    let ago = acked.map(|at| openraft::Instant::elapsed(&**at));
    alone || ago.is_some_and(|ago| ago < timing.lease_certain())
}

/// The index from which on a state contains all that was told before, once a quorum has confirmed that this node leads.
async fn confirmed(raft: &Raft) -> Option<u64> {
    let linearizer = raft.get_read_linearizer(ReadPolicy::ReadIndex).await.ok()?;
    Some(linearizer.read_log_id().index())
}

/// The same under the leader's lease, at once. That the process may be stopped between looking at the lease and answering
/// does no harm: the index was right when it was looked at, which was after the question.
pub(super) async fn under_lease(raft: &Raft, timing: Timing) -> Option<u64> {
    if !lease_is_valid(raft, timing) {
        return confirmed(raft).await;
    }
    let linearizer = raft.get_read_linearizer(ReadPolicy::LeaseRead).await.ok()?;
    Some(linearizer.read_log_id().index())
}

impl Inner {
    pub(super) async fn read_index(&self) -> Option<u64> {
        let (leader, peer) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let leader = metrics.current_leader?;
            (leader, metrics.membership_config.get_node(&leader)?.clone())
        };
        if leader == self.identity.node {
            return under_lease(&self.raft, self.timing).await;
        }
        let mut client = self.network.client(&peer.address, Lane::Control).ok()?;
        let identity = Some(self.identity.towards(leader, &peer));
        let answer = client
            .read_index(wire::RaftReadIndexRequest { identity })
            .await;
        let index = answer.ok()?.into_inner().index;
        (index != 0).then_some(index)
    }
}
