//! Whether all members have decided the same.
//!
//! The leader has a `CheckState` committed whenever something was decided since the last; each member then computes the
//! digest of its state at that very entry ([`crate::core::digest`]). Each asks the others for theirs. A member that a
//! majority of the voters contradicts ends: its state is wrong, whether by a defect of memory, of the disk or of this
//! program. If the voters are divided, nobody knows who is right, and all say so loudly.

use std::collections::BTreeMap;
use std::time::Duration;

use flott_proto::ids::NodeId;
use flott_proto::wire::{self, command::Decision};
use tracing::{debug, error};

use super::super::error::RaftError;
use super::super::node::Inner;
use super::super::rounds::Rounds;
use super::super::types::Proposal;
use super::status::{Answer, MemberStatus};
use crate::metrics;

/// How often it is looked whether there is something to be checked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// For the check to be committed.
const COMMIT_WAIT: Duration = Duration::from_secs(5);

/// For another member to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// Comparisons of one digest, a look apart.
const ATTEMPTS_MAX: u32 = 10;

/// A log index, and the digest of the state there.
pub(super) type Digest = (u64, u128);

/// Runs until the node ends, or turns out to be wrong.
pub(in super::super) async fn run(rounds: Rounds) -> Result<(), RaftError> {
    let mut comparison = Comparison::default();
    while let Some(inner) = rounds.next(LOOK_EVERY).await {
        let own = inner.published.digests();
        if let Some(&(newest, _)) = own.last()
            && comparison.is_due(newest)
        {
            comparison.complete = inner.compare_digests(&own).await?;
        }
        if inner.leadership.borrow().is_leader {
            inner.check_state().await;
        }
    }
    Ok(())
}

/// How far a digest has been compared.
#[derive(Debug, Default)]
struct Comparison {
    index: u64,
    attempts: u32,
    /// All voters have said what theirs is.
    complete: bool,
}

impl Comparison {
    /// Whether there is something to compare: others get to an entry at other times, and some never answer.
    fn is_due(&mut self, newest: u64) -> bool {
        if newest > self.index {
            (self.index, self.attempts, self.complete) = (newest, 0, false);
        }
        self.attempts += 1;
        !self.complete && self.attempts <= ATTEMPTS_MAX
    }
}

impl Inner {
    /// Has the group check its state, if anything was decided since it last did.
    async fn check_state(&self) {
        let state = self.published.state();
        let last = self
            .published
            .digests()
            .last()
            .map_or(0, |(index, _)| *index);
        if *self.published.applied().borrow() <= last || !state.epoch.is_some() {
            return;
        }
        let check = Proposal::new(wire::Command {
            now_ms: state.log_time_ms,
            epoch: state.epoch.0,
            decision: Some(Decision::CheckState(wire::CheckState {})),
        });
        let written = tokio::time::timeout(COMMIT_WAIT, self.raft.client_write(check)).await;
        if !matches!(written, Ok(Ok(_))) {
            debug!(?written, "the state was not checked");
        }
    }

    /// Whether all voters have said what they have at the newest index.
    async fn compare_digests(&self, own: &[Digest]) -> Result<bool, RaftError> {
        let membership = self.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let mut others: Vec<Vec<Digest>> = Vec::new();
        for (id, answer) in self.ask_all(&membership, ANSWER_WAIT).await {
            if let Answer::Report(report) = answer
                && id != self.identity.node
                && voters.contains(&id)
            {
                others.push(report.state_digests.iter().filter_map(read).collect());
            }
        }
        let newest = own.last().map_or(0, |(index, _)| *index);
        let told = |other: &&Vec<Digest>| other.iter().any(|(index, _)| *index >= newest);
        let complete = others.iter().filter(told).count() + 1 >= voters.len();
        match judge(own, &others, voters.len()) {
            Verdict::Same => Ok(complete),
            Verdict::Divided(index) => {
                metrics::state_differs();
                error!(
                    index,
                    node = self.identity.node,
                    "the members' states differ at this log entry, and no majority says which is right; make a backup, and \
                     replace the members one by one"
                );
                Ok(complete)
            }
            Verdict::Wrong(index) => {
                metrics::state_differs();
                self.raft.runtime_config().elect(false);
                let diverged = RaftError::Diverged {
                    path: self.reporter.dir.clone(),
                    node: NodeId(self.identity.node),
                    index,
                };
                error!(%diverged, "ending");
                Err(diverged)
            }
        }
    }
}

/// Those that a member has told.
pub(super) fn of(member: &MemberStatus) -> Vec<Digest> {
    let report = member.report.iter();
    report
        .flat_map(|report| report.state_digests.iter().filter_map(read))
        .collect()
}

/// Whether at some log index another member's state is not this one's, and no more members say that it is right.
pub(super) fn differs(own: &[Digest], others: &[Vec<Digest>]) -> bool {
    own.iter().any(|(index, digest)| {
        let at_index = |other: &&Digest| other.0 == *index;
        let (same, not): (Vec<&Digest>, Vec<&Digest>) = others
            .iter()
            .flatten()
            .filter(at_index)
            .partition(|(_, other)| other == digest);
        not.len() > same.len()
    })
}

fn read(digest: &wire::RaftStateDigest) -> Option<Digest> {
    let bytes = <[u8; 16]>::try_from(&digest.digest[..]).ok()?;
    Some((digest.index, u128::from_le_bytes(bytes)))
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Same,
    /// Another member says otherwise, at that log index.
    Divided(u64),
    /// A majority of the voters does.
    Wrong(u64),
}

/// Compares this member's digests with those of other voters, of which there are `voters` with this one.
fn judge(own: &[Digest], others: &[Vec<Digest>], voters: usize) -> Verdict {
    let mut verdict = Verdict::Same;
    for (index, digest) in own {
        let mut against: BTreeMap<u128, usize> = BTreeMap::new();
        for (_, other) in others.iter().flatten().filter(|(at, _)| at == index) {
            if other != digest {
                *against.entry(*other).or_default() += 1;
            }
        }
        if against.values().any(|count| *count > voters / 2) {
            return Verdict::Wrong(*index);
        }
        if !against.is_empty() && verdict == Verdict::Same {
            verdict = Verdict::Divided(*index);
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_differs_if_more_contradict_it_than_agree() {
        let own = vec![(10, 1), (20, 2)];
        let table: [(&[Digest], bool); 5] = [
            (&[(20, 2), (20, 2)], false),
            (&[(20, 2), (20, 9)], false),
            (&[(20, 9)], true),
            (&[(10, 9), (20, 2)], true),
            (&[(30, 9)], false),
        ];
        for (others, differ) in table {
            let others: Vec<_> = others.iter().map(|other| vec![*other]).collect();
            assert_eq!(differs(&own, &others), differ, "{others:?}");
        }
    }

    #[test]
    fn a_member_is_wrong_only_against_a_majority_of_the_voters() {
        let own = [(10, 1), (20, 2)];
        let table: [(Vec<Vec<Digest>>, usize, Verdict); 9] = [
            (vec![], 3, Verdict::Same),
            (
                vec![vec![(10, 1), (20, 2)], vec![(20, 2)]],
                3,
                Verdict::Same,
            ),
            // At an index that this member has forgotten, or has not reached.
            (vec![vec![(5, 9)], vec![(30, 9)]], 3, Verdict::Same),
            (vec![vec![(20, 9)], vec![(20, 9)]], 3, Verdict::Wrong(20)),
            (vec![vec![(10, 9)], vec![(20, 9)]], 3, Verdict::Divided(10)),
            (vec![vec![(20, 9)], vec![(20, 8)]], 3, Verdict::Divided(20)),
            (vec![vec![(20, 9)], vec![(20, 2)]], 3, Verdict::Divided(20)),
            // Of five, two others are no majority.
            (vec![vec![(20, 9)], vec![(20, 9)]], 5, Verdict::Divided(20)),
            (vec![vec![(20, 9)]], 2, Verdict::Divided(20)),
        ];
        for (others, voters, verdict) in table {
            assert_eq!(judge(&own, &others, voters), verdict, "{others:?}");
        }
    }
}
