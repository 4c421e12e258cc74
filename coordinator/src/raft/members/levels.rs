//! Raising the group's feature level, when every member can follow.

use flott_proto::ids::LeaderEpoch;
use flott_proto::wire::{self, command::Decision};
use tracing::info;

use super::super::error::{ProposeError, RaftError};
use super::super::node::{Inner, RaftNode};
use super::super::types::StoredMembership;
use super::status::{Answer, CONFIRM_WAIT};
use crate::core::Response;

impl RaftNode {
    /// Raises the feature level to `to`, or to the highest that all members support, one step at a time; the levels
    /// before and after. Refused unless every member, voter or not, confirms that it supports it. Leader only, in office
    /// with `epoch`.
    pub async fn raise_feature_level(
        &self,
        to: Option<u32>,
        epoch: LeaderEpoch,
    ) -> Result<(u32, u32), RaftError> {
        let inner = self.inner();
        let before = self.state().feature_level;
        // Held to the end: no member may be added between the question and the entry.
        let _guard = inner
            .changing
            .take("raising the feature level".to_owned())?;
        if let Some(what) = inner.unsettled() {
            return Err(RaftError::ChangeInProgress(what));
        }
        let goal = inner.level_to_reach(before, to).await?;
        for level in before + 1..=goal {
            let raise = Decision::RaiseFeatureLevel(wire::RaiseFeatureLevel { level });
            let command = wire::Command {
                now_ms: inner.clock.now_ms(),
                epoch: epoch.0,
                decision: Some(raise),
            };
            match self.propose(command).await {
                Ok(applied) => match applied.response {
                    Response::Refused(reason) => return Err(RaftError::Refused(reason)),
                    Response::Applied | Response::Kv(_) => info!(level, "feature level raised"),
                },
                Err(ProposeError::NotLeader { leader }) => {
                    return Err(RaftError::NotLeader { leader });
                }
                Err(ProposeError::Shutdown) => return Err(RaftError::Shutdown),
                Err(ProposeError::Unknown | ProposeError::TooLarge { .. }) => {
                    return Err(RaftError::TimedOut("raising the feature level"));
                }
            }
        }
        Ok((before, goal))
    }
}

/// What a member said about its feature levels.
#[derive(Debug)]
struct Supports {
    id: u64,
    address: String,
    /// None: it did not confirm anything.
    max: Option<u32>,
}

impl Inner {
    async fn level_to_reach(&self, present: u32, to: Option<u32>) -> Result<u32, RaftError> {
        let membership = self.membership();
        let members = self.supported(&membership).await;
        choose(present, to, &members)
    }

    async fn supported(&self, membership: &StoredMembership) -> Vec<Supports> {
        let answers = self.ask_all(membership, CONFIRM_WAIT).await;
        let supports = |(id, answer): (u64, Answer)| Supports {
            id,
            address: membership
                .get_node(&id)
                .map(|peer| peer.address.clone())
                .unwrap_or_default(),
            max: match answer {
                Answer::Report(report) => Some(report.feature_level_max),
                Answer::Stranger | Answer::Silence => None,
            },
        };
        answers.into_iter().map(supports).collect()
    }
}

/// The level to raise to; at least the present one.
fn choose(present: u32, to: Option<u32>, members: &[Supports]) -> Result<u32, RaftError> {
    let refused = |what| Err(RaftError::Refused(what));
    let name = |members: Vec<&Supports>| {
        let each = members
            .iter()
            .map(|member| format!("{} ({})", member.id, member.address));
        each.collect::<Vec<_>>().join(", ")
    };
    if let Some(to) = to
        && to < present
    {
        return refused(format!(
            "the group is at feature level {present}, which cannot be lowered to {to}: its log has entries of that level"
        ));
    }
    let silent: Vec<_> = members
        .iter()
        .filter(|member| member.max.is_none())
        .collect();
    if !silent.is_empty() {
        return refused(format!(
            "every member must confirm what it supports, and these do not answer: {}; start them, or remove them from \
             the group",
            name(silent)
        ));
    }
    let common = members.iter().filter_map(|member| member.max).min();
    let goal = to.or(common).unwrap_or(present).max(present);
    let older: Vec<_> = members
        .iter()
        .filter(|member| member.max.is_some_and(|max| max < goal))
        .collect();
    if !older.is_empty() {
        return refused(format!(
            "feature level {goal} is not supported by {}; start a newer version there first",
            name(older)
        ));
    }
    Ok(goal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(levels: &[Option<u32>]) -> Vec<Supports> {
        let member = |(n, max): (usize, &Option<u32>)| Supports {
            id: n as u64 + 1,
            address: format!("h{}:1", n + 1),
            max: *max,
        };
        levels.iter().enumerate().map(member).collect()
    }

    #[test]
    fn the_level_is_raised_only_to_what_every_member_confirms() {
        type Case = (
            u32,
            Option<u32>,
            &'static [Option<u32>],
            Result<u32, &'static str>,
        );
        let table: &[Case] = &[
            (1, None, &[Some(2), Some(3), Some(2)], Ok(2)),
            (1, Some(2), &[Some(2), Some(2)], Ok(2)),
            (
                1,
                Some(3),
                &[Some(3), Some(2)],
                Err("not supported by 2 (h2:1)"),
            ),
            (1, None, &[Some(2), None], Err("do not answer: 2 (h2:1)")),
            (1, Some(2), &[Some(2), None], Err("do not answer")),
            (2, Some(1), &[Some(2)], Err("cannot be lowered")),
            (2, None, &[Some(2)], Ok(2)),
            (2, Some(2), &[Some(2)], Ok(2)),
        ];
        for (present, to, levels, expected) in table {
            let case = format!("{present} {to:?} {levels:?}");
            match (choose(*present, *to, &members(levels)), expected) {
                (Ok(level), Ok(expected)) => assert_eq!(level, *expected, "{case}"),
                (Err(refused), Err(part)) => {
                    assert!(refused.to_string().contains(part), "{case}: {refused}");
                }
                (other, _) => panic!("{case}: {other:?}"),
            }
        }
    }
}
