//! All members, as seen from here.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use flott_proto::ids::NodeId;
use flott_proto::wire;
use futures::future::join_all;
use openraft::async_runtime::WatchReceiver;

use super::super::network::Lane;
use super::super::node::Inner;
use super::super::types::{Peer, StoredMembership};
use super::digests;
use super::report::DiskSpace;
use super::rules::{Group, LAG_MAX, tolerated_failures};

/// For a member to answer before its group is changed: far longer than for display, since a busy machine must not be
/// taken for a dead one.
pub(super) const CONFIRM_WAIT: Duration = Duration::from_secs(3);

/// A disk with less room than this and less than [`DISK_LOW_PERCENT`] of its size is low: some snapshots and log segments.
const DISK_LOW_BYTES: u64 = 2 << 30;
const DISK_LOW_PERCENT: u64 = 10;

/// What a member is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberRole {
    Leader,
    /// Has a vote.
    Follower,
    /// Receives the log and has no vote.
    Learner,
    /// Did not answer in time.
    Unreachable,
}

impl MemberRole {
    /// As the client protocol spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Learner => "learner",
            Self::Unreachable => "unreachable",
        }
    }
}

impl fmt::Display for MemberRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether somebody should look after a member: the most urgent reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Ok,
    /// Lacks more of the leader's log than a member that keeps up.
    Lagging,
    DiskLow,
    Unreachable,
    /// Another data directory answers at its address.
    IncarnationMismatch,
    /// Its state is not that of the others.
    StateDiffers,
}

impl Health {
    /// As the client protocol spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Lagging => "lagging",
            Self::DiskLow => "disk-low",
            Self::Unreachable => "unreachable",
            Self::IncarnationMismatch => "incarnation-mismatch",
            Self::StateDiffers => "state-differs",
        }
    }
}

/// A member as seen from here.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberStatus {
    pub id: NodeId,
    pub address: String,
    /// The life of its data directory that is a member.
    pub incarnation: String,
    pub role: MemberRole,
    pub voter: bool,
    /// 0 if unreachable.
    pub last_log_index: u64,
    /// 0 if unreachable.
    pub applied_index: u64,
    /// Entries that it lacks of the leader's log; `None` if that cannot be known.
    pub lag: Option<u64>,
    pub health: Health,
    /// What it says of itself.
    pub report: Option<wire::RaftStatusResponse>,
}

/// What came back from asking a member how it is.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Report(wire::RaftStatusResponse),
    /// Somebody else is at that address.
    Stranger,
    Silence,
}

impl Answer {
    /// Of whoever answered where `peer` should be.
    fn judge(id: u64, peer: &Peer, answer: Option<wire::RaftStatusResponse>) -> Self {
        match answer {
            None => Self::Silence,
            Some(report) if report.node == id && report.incarnation == peer.incarnation => {
                Self::Report(report)
            }
            Some(_) => Self::Stranger,
        }
    }
}

/// The most urgent reason to look after a member.
fn assess(answer: &Answer, lag: Option<u64>) -> Health {
    let report = match answer {
        Answer::Report(report) => report,
        Answer::Stranger => return Health::IncarnationMismatch,
        Answer::Silence => return Health::Unreachable,
    };
    let disk = DiskSpace {
        free_bytes: report.disk_free_bytes,
        total_bytes: report.disk_total_bytes,
    };
    let percent_free = disk.free_bytes.saturating_mul(100) / disk.total_bytes.max(1);
    if disk.total_bytes > 0 && disk.free_bytes < DISK_LOW_BYTES && percent_free < DISK_LOW_PERCENT {
        Health::DiskLow
    } else if lag.is_some_and(|lag| lag > LAG_MAX) {
        Health::Lagging
    } else {
        Health::Ok
    }
}

impl Inner {
    pub(in super::super) fn membership(&self) -> std::sync::Arc<StoredMembership> {
        let metrics = self.raft.metrics();
        std::sync::Arc::clone(&metrics.borrow_watched().membership_config)
    }

    pub(in super::super) async fn members(&self) -> Vec<MemberStatus> {
        let leader = self.raft.metrics().borrow_watched().current_leader;
        let membership = self.membership();
        let answers = self.ask_all(&membership, self.timing.question()).await;
        let end_of_log = answers.iter().find_map(|(id, answer)| match answer {
            Answer::Report(report) if Some(*id) == leader => Some(report.last_log_index),
            _ => None,
        });
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let show = |(id, answer): (u64, Answer)| {
            let peer = membership.get_node(&id).cloned().unwrap_or_default();
            let voter = voters.contains(&id);
            let report = match &answer {
                Answer::Report(report) => Some(report.clone()),
                Answer::Stranger | Answer::Silence => None,
            };
            // What the leader knows of a member that does not answer itself.
            let known = report.as_ref().map(|report| report.last_log_index);
            let known = known.or_else(|| self.matched(id));
            let lag = end_of_log
                .zip(known)
                .map(|(end, known)| end.saturating_sub(known));
            let role = match &report {
                None => MemberRole::Unreachable,
                Some(_) if Some(id) == leader => MemberRole::Leader,
                Some(_) if voter => MemberRole::Follower,
                Some(_) => MemberRole::Learner,
            };
            MemberStatus {
                id: NodeId(id),
                address: peer.address,
                incarnation: peer.incarnation,
                role,
                voter,
                last_log_index: report.as_ref().map_or(0, |report| report.last_log_index),
                applied_index: report.as_ref().map_or(0, |report| report.applied_index),
                lag,
                health: assess(&answer, lag),
                report,
            }
        };
        let mut members: Vec<MemberStatus> = answers.into_iter().map(show).collect();
        let digests: Vec<_> = members.iter().map(digests::of).collect();
        for (n, member) in members.iter_mut().enumerate() {
            let others: Vec<_> = (0..digests.len())
                .filter(|other| *other != n)
                .map(|other| digests[other].clone())
                .collect();
            if digests::differs(&digests[n], &others) {
                member.health = Health::StateDiffers;
            }
        }
        members
    }

    /// How many more voters may fail, given who answers.
    pub(in super::super) fn tolerated_failures(&self, members: &[MemberStatus]) -> usize {
        let voters = || members.iter().filter(|member| member.voter);
        let reachable = voters().filter(|member| member.report.is_some()).count();
        tolerated_failures(voters().count(), reachable)
    }

    /// The group, with who answers when it matters.
    pub(super) async fn group(&self, membership: &StoredMembership) -> Group {
        let answers = self.ask_all(membership, CONFIRM_WAIT).await;
        let reachable = answers
            .into_iter()
            .filter(|(_, answer)| matches!(answer, Answer::Report(_)))
            .map(|(id, _)| id);
        Group {
            voters: membership.voter_ids().collect(),
            members: membership
                .nodes()
                .map(|(id, peer)| (*id, peer.address.clone()))
                .collect(),
            reachable: reachable.collect(),
        }
    }

    /// Asks all members how they are, this node included, in the order of their ids.
    pub(super) async fn ask_all(
        &self,
        membership: &StoredMembership,
        wait: Duration,
    ) -> Vec<(u64, Answer)> {
        let ask = membership.nodes().map(|(id, peer)| async move {
            let answer = if *id == self.identity.node {
                Some(self.reporter.report(None))
            } else {
                self.ask(*id, peer, wait).await
            };
            (*id, Answer::judge(*id, peer, answer))
        });
        join_all(ask).await
    }

    /// Asks one member how it is, and whether this node is still one.
    pub(super) async fn ask(
        &self,
        id: u64,
        peer: &Peer,
        wait: Duration,
    ) -> Option<wire::RaftStatusResponse> {
        let mut client = self.network.client(&peer.address, Lane::Control).ok()?;
        let identity = Some(self.identity.towards(id, peer));
        let request = wire::RaftStatusRequest { identity };
        let answer = tokio::time::timeout(wait, client.status(request)).await;
        Some(answer.ok()?.ok()?.into_inner())
    }

    /// The last entry that a member is known to have. On the leader only.
    pub(super) fn matched(&self, id: u64) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        if id == self.identity.node {
            return metrics.last_log_index;
        }
        let matched = metrics.replication.as_ref()?.get(&id)?;
        matched.map(|id| id.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_as_well_as_its_most_urgent_trouble() {
        let report = |free, total| {
            Answer::Report(wire::RaftStatusResponse {
                disk_free_bytes: free,
                disk_total_bytes: total,
                ..Default::default()
            })
        };
        let roomy = || report(100 << 30, 200 << 30);
        let table = [
            (roomy(), Some(0), Health::Ok),
            (roomy(), None, Health::Ok),
            (roomy(), Some(LAG_MAX), Health::Ok),
            (roomy(), Some(LAG_MAX + 1), Health::Lagging),
            (report(0, 0), Some(0), Health::Ok),
            (report(1 << 30, 200 << 30), Some(0), Health::DiskLow),
            (report(1 << 30, 200 << 30), Some(9999), Health::DiskLow),
            // A small disk that is mostly empty, and a large one of which a small part is much.
            (report(1 << 30, 2 << 30), Some(0), Health::Ok),
            (report(10 << 30, 2000 << 30), Some(0), Health::Ok),
            (Answer::Silence, Some(9999), Health::Unreachable),
            (Answer::Stranger, Some(0), Health::IncarnationMismatch),
        ];
        for (answer, lag, health) in table {
            assert_eq!(assess(&answer, lag), health, "{answer:?} {lag:?}");
        }
    }

    #[test]
    fn another_life_at_a_members_address_is_a_stranger() {
        let peer = Peer {
            address: "h:1".to_owned(),
            incarnation: "life-2".to_owned(),
        };
        let answer = |node, incarnation: &str| {
            let report = wire::RaftStatusResponse {
                node,
                incarnation: incarnation.to_owned(),
                ..Default::default()
            };
            Answer::judge(2, &peer, Some(report))
        };
        assert!(matches!(answer(2, "life-2"), Answer::Report(_)));
        assert!(matches!(answer(2, "life-3"), Answer::Stranger));
        assert!(matches!(answer(3, "life-2"), Answer::Stranger));
        assert!(matches!(Answer::judge(2, &peer, None), Answer::Silence));
    }
}
