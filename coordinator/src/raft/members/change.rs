//! Changing who is a member: adding a learner, promoting, removing, replacing.
//!
//! ```text
//!   fresh ──add──▶ learner ──keeps up──▶ promote, replace ──▶ voter ──remove, replace──▶ retired, for good
//! ```
//!
//! What must stay true:
//!
//! - One change at a time. On one leader the [`slot`](super::slot) sees to it; between leaders, and between two operators,
//!   the change is proposed only if the membership is still the one that it was decided upon.
//! - A change that has begun is not cut short when whoever asked for it goes away: it runs in a task of its own. If the
//!   leader dies in the middle, [`settle`](super::settle) completes it.
//! - Whatever takes longer than [`CHANGE_WAIT`] is answered "unknown", and stays visible until it is decided.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flott_node::OnFailure;
use flott_proto::ids::NodeId;
use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError as OpenraftError};
use openraft::raft::Precondition;
use tokio::sync::oneshot;
use tracing::info;

use super::super::bootstrap::to_member;
use super::super::error::RaftError;
use super::super::node::Inner;
use super::super::types::{Peer, StoredMembership, TypeConfig};
use super::fatal;
use super::rules::{Change, Group, LAG_MAX, Permit, Steady, tolerated_failures};
use super::slot::ChangeGuard;

/// For a change to be committed, both steps of it.
const CHANGE_WAIT: Duration = Duration::from_secs(15);

/// For a learner to have kept up long enough.
const STEADY_WAIT: Duration = Duration::from_secs(15);

/// How often a learner's lag is looked at.
const LAG_LOOK_EVERY: Duration = Duration::from_millis(50);

/// The group after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    pub voters: Vec<NodeId>,
    pub learners: Vec<NodeId>,
    pub tolerated_failures: usize,
    /// It was so already.
    pub was_done: bool,
}

/// How far a member is, as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberProgress {
    pub address: String,
    pub voter: bool,
    pub leader_last_log_index: u64,
    /// What it is known to have.
    pub matched_index: u64,
    /// Near enough to be promoted if it stays so.
    pub caught_up: bool,
    /// Since it last answered.
    pub silent: Option<Duration>,
}

type Changes = ChangeMembers<u64, Peer>;

impl Inner {
    pub(in super::super) async fn add_learner(
        &self,
        address: String,
    ) -> Result<(NodeId, bool), RaftError> {
        if !self.leadership.borrow().is_leader {
            return Err(self.not_leader());
        }
        let guard = self
            .changing
            .take(format!("adding the jobmanager at {address}"))?;
        let membership = self.settled_membership()?;
        let cluster = self.identity.cluster_id();
        let cluster =
            cluster.ok_or_else(|| RaftError::Configuration("form a cluster first".to_owned()))?;
        let introduced = self.bootstrap.meet(address.clone()).await?;
        let (id, peer) = to_member(&introduced);
        if let Some(known) = membership.get_node(&id)
            && *known == peer
        {
            let voter = membership.voter_ids().any(|voter| voter == id);
            return Ok((NodeId(id), voter));
        }
        self.check_newcomer(id, &peer, &membership)?;
        let level = self.published.state().feature_level;
        let (min, max) = (
            introduced.1.feature_level_min,
            introduced.1.feature_level_max,
        );
        if !(min..=max).contains(&level) {
            let what = format!(
                "the jobmanager at {address} supports feature levels {min} to {max} and the group is at {level}; start \
                 a version there that supports {level}"
            );
            return Err(RaftError::Refused(what));
        }
        self.bootstrap
            .bring_in(&address, &introduced.1, &cluster)
            .await?;
        let add = ChangeMembers::AddNodes(BTreeMap::from([(id, peer)]));
        self.change(guard, &membership, add).await?;
        info!(node = id, address, "raft learner added");
        Ok((NodeId(id), false))
    }

    /// Refuses a node whose id is taken.
    fn check_newcomer(
        &self,
        id: u64,
        peer: &Peer,
        membership: &StoredMembership,
    ) -> Result<(), RaftError> {
        let address = &peer.address;
        if let Some(known) = membership.get_node(&id) {
            let what = if known.incarnation == peer.incarnation {
                format!(
                    "the jobmanager at {address} is member {id} already, with address {}; addresses of members do not \
                     change: remove it and add it with an empty data directory",
                    known.address
                )
            } else {
                format!(
                    "the jobmanager at {address} has the id {id} of another member; node ids are never reused: start it \
                     with an empty data directory and without high-availability.raft.node-id"
                )
            };
            return Err(RaftError::Refused(what));
        }
        if self
            .published
            .state()
            .retired_members
            .contains_key(&NodeId(id))
        {
            let what = format!(
                "the jobmanager at {address} has the id {id} of a member that was removed; node ids are never reused: \
                 start it with an empty data directory and without high-availability.raft.node-id"
            );
            return Err(RaftError::Refused(what));
        }
        Ok(())
    }

    pub(in super::super) fn progress(&self, id: NodeId) -> Result<MemberProgress, RaftError> {
        let membership = self.membership();
        let Some(peer) = membership.get_node(&id.0) else {
            return Err(RaftError::NoSuchMember(format!("there is no member {id}")));
        };
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched().clone();
        if !metrics.state.is_leader() {
            return Err(self.not_leader());
        }
        let beats = metrics.heartbeat.as_ref();
        let beat = beats
            .and_then(|beats| beats.get(&id.0))
            .and_then(Option::as_ref);
        let last = metrics.last_log_index.unwrap_or_default();
        let matched = self.matched(id.0);
        Ok(MemberProgress {
            address: peer.address.clone(),
            voter: membership.voter_ids().any(|voter| voter == id.0),
            leader_last_log_index: last,
            matched_index: matched.unwrap_or_default(),
            caught_up: matched.is_some_and(|matched| last.saturating_sub(matched) <= LAG_MAX),
            silent: beat.map(|at| openraft::Instant::elapsed(&**at)),
        })
    }

    pub(in super::super) async fn promote(&self, id: NodeId) -> Result<Changed, RaftError> {
        let promote = ChangeMembers::AddVoterIds(BTreeSet::from([id.0]));
        self.change_voters(
            format!("promoting member {id}"),
            Change::Promote(id.0),
            promote,
        )
        .await
    }

    pub(in super::super) async fn remove_member(&self, id: NodeId) -> Result<Changed, RaftError> {
        let voter = self.membership().voter_ids().any(|voter| voter == id.0);
        let remove = if voter {
            ChangeMembers::RemoveVoters(BTreeSet::from([id.0]))
        } else {
            ChangeMembers::RemoveNodes(BTreeSet::from([id.0]))
        };
        self.change_voters(
            format!("removing member {id}"),
            Change::Remove(id.0),
            remove,
        )
        .await
    }

    pub(in super::super) async fn replace_member(
        &self,
        old: NodeId,
        new: NodeId,
    ) -> Result<Changed, RaftError> {
        let replace = ChangeMembers::Batch(vec![
            ChangeMembers::AddVoterIds(BTreeSet::from([new.0])),
            ChangeMembers::RemoveVoters(BTreeSet::from([old.0])),
        ]);
        let change = Change::Replace {
            old: old.0,
            new: new.0,
        };
        self.change_voters(
            format!("replacing member {old} by member {new}"),
            change,
            replace,
        )
        .await
    }

    async fn change_voters(
        &self,
        what: String,
        change: Change,
        changes: Changes,
    ) -> Result<Changed, RaftError> {
        if !self.leadership.borrow().is_leader {
            return Err(self.not_leader());
        }
        let guard = self.changing.take(what.clone())?;
        let membership = self.settled_membership()?;
        let group = self.group(&membership).await;
        let state = self.published.state();
        let retired = |id: u64| state.retired_members.contains_key(&NodeId(id));
        if group.permit(change, retired)? == Permit::Done {
            return Ok(self.changed(&group, true));
        }
        let (leaving, joining) = match change {
            Change::Promote(new) => (None, Some(new)),
            Change::Remove(old) => (Some(old), None),
            Change::Replace { old, new } => (Some(old), Some(new)),
        };
        if let Some(new) = joining {
            self.keeps_up(new).await?;
        }
        if leaving == Some(self.identity.node) {
            // Its successor does it: a leader that removes itself would have to be elected away from.
            drop(guard);
            let successor = self.transfer_leadership_to(None).await?;
            info!(%successor, "handed over before being removed");
            return Err(self.not_leader());
        }
        self.change(guard, &membership, changes).await?;
        info!(what, "raft group changed");
        Ok(self.changed(&group, false))
    }

    /// The membership, if no change of it is under way.
    fn settled_membership(&self) -> Result<std::sync::Arc<StoredMembership>, RaftError> {
        match self.unsettled() {
            Some(what) => Err(RaftError::ChangeInProgress(what)),
            None => Ok(self.membership()),
        }
    }

    /// The change of the membership that is in the log and not complete, in words.
    pub(super) fn unsettled(&self) -> Option<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let (effective, committed) = (
            &metrics.membership_config,
            &metrics.committed_membership_config,
        );
        let sets: Vec<String> = effective
            .get_joint_config()
            .iter()
            .map(|set| format!("{set:?}"))
            .collect();
        if effective.log_id() != committed.log_id() {
            Some(format!(
                "a membership with the voters {} waits for a quorum",
                sets.join(" and ")
            ))
        } else if sets.len() > 1 {
            Some(format!(
                "the voters change from {}; the second step follows",
                sets.join(" to ")
            ))
        } else {
            None
        }
    }

    /// What changes the group at present, in words.
    pub(in super::super) fn pending_change(&self) -> Option<String> {
        self.changing.what().or_else(|| self.unsettled())
    }

    /// Waits until the learner has kept up for long enough.
    async fn keeps_up(&self, id: u64) -> Result<(), RaftError> {
        let begun = self.clock.monotonic();
        let mut steady = Steady::default();
        loop {
            let last = self
                .raft
                .metrics()
                .borrow_watched()
                .last_log_index
                .unwrap_or_default();
            let lag = self.matched(id).map(|matched| last.saturating_sub(matched));
            let now = self.clock.monotonic();
            if steady.on_lag(lag, now) {
                return Ok(());
            }
            if !self.leadership.borrow().is_leader {
                return Err(self.not_leader());
            }
            if now.saturating_sub(begun) > STEADY_WAIT {
                let lag = lag.map_or("an unknown number of".to_owned(), |lag| lag.to_string());
                return Err(RaftError::Refused(format!(
                    "member {id} lacks {lag} entries of the log and has not kept up; it gets a vote when it lacks at \
                     most {LAG_MAX}: wait and try again, and see `flott cluster status`"
                )));
            }
            self.clock.sleep(LAG_LOOK_EVERY).await;
        }
    }

    /// Commits a change of the membership that was decided upon seeing `seen`.
    pub(in super::super) async fn change(
        &self,
        guard: ChangeGuard,
        seen: &StoredMembership,
        changes: Changes,
    ) -> Result<(), RaftError> {
        let leader = self.raft.as_leader().map_err(|_| self.not_leader())?;
        let preconditions = [
            Precondition::CommittedLeaderId {
                committed_leader_id: leader.to_committed_leader_id(),
            },
            Precondition::LastMembershipLogId {
                last_membership_log_id: *seen.log_id(),
            },
        ];
        let raft = self.raft.clone();
        let (done, outcome) = oneshot::channel();
        self.tasks
            .spawn("raft-change-members", OnFailure::Log, async move {
                let result = raft
                    .change_membership_if(changes, false, preconditions)
                    .await;
                drop(guard);
                // Who asked may have gone.
                let _ = done.send(result.map(drop).map_err(change_failed));
                Ok::<_, RaftError>(())
            });
        match tokio::time::timeout(CHANGE_WAIT, outcome).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(RaftError::Shutdown),
            Err(_) => Err(RaftError::TimedOut("the membership change")),
        }
    }

    fn changed(&self, before: &Group, was_done: bool) -> Changed {
        let membership = self.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let reachable = voters.intersection(&before.reachable).count();
        let learners = membership
            .nodes()
            .map(|(id, _)| *id)
            .filter(|id| !voters.contains(id));
        Changed {
            learners: learners.map(NodeId).collect(),
            tolerated_failures: tolerated_failures(voters.len(), reachable),
            voters: voters.into_iter().map(NodeId).collect(),
            was_done,
        }
    }

    pub(in super::super) fn not_leader(&self) -> RaftError {
        let leader = self.leadership.borrow().leader.clone();
        RaftError::NotLeader {
            leader: leader
                .filter(|(id, _)| id.0 != self.identity.node)
                .map(|(_, address)| address),
        }
    }
}

fn change_failed(error: OpenraftError<TypeConfig, ClientWriteError<TypeConfig>>) -> RaftError {
    let error = match error {
        OpenraftError::APIError(error) => error,
        OpenraftError::Fatal(error) => return fatal(error),
    };
    match error {
        ClientWriteError::ForwardToLeader(forward) => RaftError::NotLeader {
            leader: forward.leader_node.map(|peer| peer.address),
        },
        ClientWriteError::LogEntryDiscarded(_) => RaftError::TimedOut("the membership change"),
        ClientWriteError::PreconditionFailed(_) => RaftError::Refused(
            "the group or its leader has changed meanwhile; look at `flott cluster members list`, and repeat the \
             command if it is still what you want"
                .to_owned(),
        ),
        ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_)) => {
            RaftError::ChangeInProgress("another change of the membership".to_owned())
        }
        ClientWriteError::ChangeMembershipError(error) => RaftError::Refused(error.to_string()),
    }
}
