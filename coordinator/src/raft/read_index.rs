//! Which state may answer a read, as Raft knows it.
//!
//! A lease is good only while no other member can have been elected. [`lease_is_valid`] keeps a margin to what openraft
//! counts as the lease, for clocks that run at different speeds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flott_node::Mutant;
use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver;

use super::config::Timing;
use super::network::Lane;
use super::node::{Inner, Raft};
use flott_proto::wire;

/// Up to which term this node's lease is void, because it has named a successor.
///
/// Whom a leader names is elected at once: voters do not wait for the lease of who has given it up, and a majority of them
/// need not include this node. So it may not hear of its successor for as long as its lease would have lasted.
#[derive(Clone, Debug, Default)]
pub(super) struct Succession(Arc<AtomicU64>);

/// A successor is being named. From when it is dropped on, leases of later terms are good again.
#[derive(Debug)]
pub(super) struct Naming {
    succession: Succession,
    term: u64,
}

impl Succession {
    /// No lease is valid from now on; after that, none of `term` or before.
    pub(super) fn begin(&self, term: u64) -> Naming {
        self.0.store(u64::MAX, Ordering::Release);
        Naming {
            succession: self.clone(),
            term,
        }
    }

    fn voids(&self, term: u64) -> bool {
        term <= self.0.load(Ordering::Acquire) && !Mutant::LeaseOutlivesHandOver.is_planted()
    }
}

impl Drop for Naming {
    fn drop(&mut self) {
        self.succession.0.store(self.term, Ordering::Release);
    }
}

/// Whether a quorum has confirmed this leader so recently that no other can have been elected, and it has named none itself.
pub(super) fn lease_is_valid(raft: &Raft, timing: Timing, succession: &Succession) -> bool {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let leads = metrics.state.is_leader() && metrics.running_state.is_ok();
    if !leads || succession.voids(metrics.current_term) {
        return false;
    }
    let mut voters = metrics.membership_config.voter_ids();
    let alone = voters.all(|voter| voter == metrics.id);
    let acked = metrics.last_quorum_acked.as_ref();
    let ago = acked.map(|at| openraft::Instant::elapsed(&**at));
    alone || ago.is_some_and(|ago| ago < timing.lease_certain())
}

/// The index from which on a state contains all that was told before, once a quorum has confirmed that this node leads.
pub(super) async fn confirmed(raft: &Raft) -> Option<u64> {
    let linearizer = raft.get_read_linearizer(ReadPolicy::ReadIndex).await.ok()?;
    Some(linearizer.read_log_id().index())
}

/// The same under the leader's lease, at once. That the process may be stopped between looking at the lease and answering
/// does no harm: the index was right when it was looked at, which was after the question.
pub(super) async fn under_lease(
    raft: &Raft,
    timing: Timing,
    succession: &Succession,
) -> Option<u64> {
    if !lease_is_valid(raft, timing, succession) {
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
            return under_lease(&self.raft, self.timing, &self.succession).await;
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
