//! Handing leadership over.
//!
//! From the moment at which openraft names a successor this leader takes no proposals and sends no heartbeats. If the
//! successor does not take over, the others elect after their time-outs; so a successor has to be near.

use std::time::Duration;

use flott_proto::ids::NodeId;
use openraft::async_runtime::WatchReceiver;
use tracing::{info, warn};

use super::super::error::RaftError;
use super::super::node::{Inner, Leadership};
use super::fatal;
use super::rules::LAG_MAX;

/// For a successor to take over, before the next one is asked.
const SUCCESSION_MAX: Duration = Duration::from_secs(1);

/// Successors that are asked.
const SUCCESSORS_MAX: usize = 3;

impl Inner {
    /// Hands over to `to`, or to the voter that is most up to date; who leads then.
    pub(in super::super) async fn transfer_leadership_to(
        &self,
        to: Option<NodeId>,
    ) -> Result<NodeId, RaftError> {
        if !self.leadership.borrow().is_leader {
            return Err(self.not_leader());
        }
        let successors = match to {
            Some(to) => vec![self.check_successor(to).await?],
            None => self.successors(),
        };
        for successor in successors {
            info!(successor, "handing raft leadership over");
            let term = self.raft.metrics().borrow_watched().current_term;
            let _naming = self.succession.begin(term);
            self.raft
                .trigger()
                .transfer_leader(successor)
                .await
                .map_err(fatal)?;
            let mut leadership = self.leadership.clone();
            let own = self.identity.node;
            let taken =
                |now: &Leadership| matches!(now.leader, Some((leader, _)) if leader.0 != own);
            let taken = tokio::time::timeout(SUCCESSION_MAX, leadership.wait_for(taken)).await;
            match taken {
                Ok(Ok(now)) => match &now.leader {
                    Some((leader, _)) if to.is_some_and(|to| to != *leader) => {
                        return Err(RaftError::Refused(format!(
                            "member {leader} took over instead of {successor}, which did not in time"
                        )));
                    }
                    Some((leader, _)) => return Ok(*leader),
                    None => continue,
                },
                Ok(Err(_)) => return Err(RaftError::Shutdown),
                Err(_) => warn!(successor, "the successor did not take over in time"),
            }
        }
        match to {
            Some(_) => Err(RaftError::TimedOut("the transfer")),
            None => Err(RaftError::NoSuccessor),
        }
    }

    pub(in super::super) async fn transfer_leadership(&self) -> Result<(), RaftError> {
        match self.transfer_leadership_to(None).await {
            Ok(_) | Err(RaftError::NotLeader { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether that member can take over at once. It is asked: one that has just died was heard a moment ago.
    async fn check_successor(&self, to: NodeId) -> Result<u64, RaftError> {
        let membership = self.membership();
        let Some(peer) = membership.get_node(&to.0) else {
            return Err(RaftError::NoSuchMember(format!("there is no member {to}")));
        };
        let refused = |what| Err(RaftError::Refused(what));
        if !membership.voter_ids().any(|voter| voter == to.0) {
            return refused(format!(
                "member {to} is a learner and cannot lead; promote it first, or choose a voter"
            ));
        }
        let answers = self.ask(to.0, peer, self.timing.question()).await.is_some();
        if !answers || !self.heard_within_lease(to.0) {
            return refused(format!(
                "member {to} does not answer the leader; choose another one"
            ));
        }
        let last = self.raft.metrics().borrow_watched().last_log_index;
        let lag = last
            .unwrap_or_default()
            .saturating_sub(self.matched(to.0).unwrap_or_default());
        if lag > LAG_MAX {
            return refused(format!(
                "member {to} lacks {lag} entries of the log and the group would stand still until it has them; wait \
                 until it has caught up, or choose another one"
            ));
        }
        Ok(to.0)
    }

    fn heard_within_lease(&self, id: u64) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let beat = metrics
            .heartbeat
            .as_ref()
            .and_then(|beats| beats.get(&id))
            .and_then(Option::as_ref);
        beat.is_some_and(|at| openraft::Instant::elapsed(&**at) < self.timing.lease())
    }

    /// Voters that have answered within the lease, those with the most of the log first.
    fn successors(&self) -> Vec<u64> {
        let own = self.identity.node;
        let membership = self.membership();
        let mut candidates: Vec<u64> = membership
            .voter_ids()
            .filter(|id| *id != own && self.heard_within_lease(*id))
            .collect();
        candidates.sort_by_key(|id| std::cmp::Reverse(self.matched(*id)));
        candidates.truncate(SUCCESSORS_MAX);
        candidates
    }
}
