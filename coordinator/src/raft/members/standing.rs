//! Notices that this node was removed from its group, or that its group has a successor.
//!
//! Nobody sends anything to a removed member, so it has to ask. When it has not heard of a leader for a while it asks the
//! members that it knows whether it is still one. They know it from the log, where a removal is final: one answer is
//! enough. The node then remembers it in its marker and ends; it does not stand for election and disturbs nobody.
//!
//! A group without a leader is asked too, and answers that it is still a member. Where a member was, a member of another
//! cluster may answer that its cluster goes on from this one, after a restore or a recovery: that is as final.

use std::time::Duration;

use flott_proto::ids::NodeId;
use futures::future::join_all;
use tracing::{error, warn};

use super::super::error::RaftError;
use super::super::node::Inner;
use super::super::rounds::Rounds;

/// How often it is looked whether the leader is silent.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Silence of the leader after which others are asked: longer than an election takes.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// For another member to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// Why this node has no group any more.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// By that log entry.
    Removed(u64),
    /// By that cluster.
    Superseded(String),
}

/// Runs until the node ends, or has no group any more.
pub(in super::super) async fn run(rounds: Rounds) -> Result<(), RaftError> {
    while let Some(inner) = rounds.next(LOOK_EVERY).await {
        let verdict = match inner.knows_its_removal() {
            Some(removed_at) => Some(Verdict::Removed(removed_at)),
            None if inner.is_lonely() => inner.ask_for_verdict().await,
            None => None,
        };
        if let Some(verdict) = verdict {
            inner.raft.runtime_config().elect(false);
            let noted = inner.bootstrap.remember(|marker| match &verdict {
                Verdict::Removed(removed_at) => marker.removed_at = *removed_at,
                Verdict::Superseded(by) => marker.superseded_by.clone_from(by),
            });
            if let Err(error) = noted.await {
                warn!(%error, ?verdict, "cannot write down that this node has no group; it will find out again");
            }
            let reason = inner.because_of(verdict);
            error!(%reason, "ending");
            return Err(reason);
        }
    }
    Ok(())
}

impl Inner {
    /// The log may have told, before the leader stopped sending it.
    fn knows_its_removal(&self) -> Option<u64> {
        let own = NodeId(self.identity.node);
        self.published
            .state()
            .removed_at(own, &self.identity.incarnation)
    }

    fn is_lonely(&self) -> bool {
        !self.leadership.borrow().is_leader && self.freshness.silence() > SILENCE_MAX
    }

    /// Asks all others; what the first who knows says.
    async fn ask_for_verdict(&self) -> Option<Verdict> {
        let membership = self.membership();
        let others = membership
            .nodes()
            .filter(|(id, _)| **id != self.identity.node);
        let answers = join_all(others.map(|(id, peer)| self.ask(*id, peer, ANSWER_WAIT))).await;
        answers.into_iter().flatten().find_map(|answer| {
            if answer.asker_superseded {
                return Some(Verdict::Superseded(answer.cluster_id));
            }
            Some(Verdict::Removed(answer.asker_removed_at)).filter(|_| answer.asker_removed_at != 0)
        })
    }

    fn because_of(&self, verdict: Verdict) -> RaftError {
        let path = self.reporter.dir.clone();
        match verdict {
            Verdict::Removed(removed_at) => RaftError::Removed {
                path,
                node: NodeId(self.identity.node),
                removed_at,
            },
            Verdict::Superseded(successor) => RaftError::Superseded {
                path,
                cluster_id: self
                    .identity
                    .cluster_id()
                    .map(|id| id.to_string())
                    .unwrap_or_default(),
                successor,
            },
        }
    }
}
