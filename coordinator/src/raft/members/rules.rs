//! Which changes of the group are safe: decided from what is known, without doing anything.
//!
//! A change is refused if the voters that can be reached would be no quorum afterwards: the group would stop with the
//! change itself. Adding a voter while another one is down is allowed as long as that holds, for it is how a group gets
//! out of trouble.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::error::RaftError;

/// Entries that a member may lack and still count as caught up: a fraction of a second of a busy group's writes.
pub(crate) const LAG_MAX: u64 = 1000;

/// For so long a learner must have been caught up before it gets a vote. One that only just keeps up would slow down
/// every commit as soon as it counts.
pub(super) const STEADY_FOR: Duration = Duration::from_secs(3);

/// The group, as its leader sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) voters: BTreeSet<u64>,
    /// All members, voters or not, with their addresses.
    pub(super) members: BTreeMap<u64, String>,
    /// Members that have just answered, as those that the group knows. The leader is one.
    pub(super) reachable: BTreeSet<u64>,
}

/// What somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Promote(u64),
    Remove(u64),
    Replace { old: u64, new: u64 },
}

/// What a change comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permit {
    /// Go on.
    Granted,
    /// It is so already.
    Done,
}

/// The votes that decide in a group of so many voters.
pub(super) fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// How many more voters may fail before the group stops.
pub(super) fn tolerated_failures(voters: usize, reachable: usize) -> usize {
    reachable.saturating_sub(quorum(voters))
}

impl Group {
    /// Whether the change is safe and makes sense. `was_removed`: the node in question was a member once.
    pub(super) fn permit(
        &self,
        change: Change,
        was_removed: impl Fn(u64) -> bool,
    ) -> Result<Permit, RaftError> {
        let mut after = self.voters.clone();
        match change {
            Change::Promote(id) => {
                self.require_member(id)?;
                if !after.insert(id) {
                    return Ok(Permit::Done);
                }
                self.require_reachable(id)?;
            }
            Change::Remove(id) => {
                if !self.members.contains_key(&id) && was_removed(id) {
                    return Ok(Permit::Done);
                }
                self.require_member(id)?;
                if !after.remove(&id) {
                    // A learner has no say.
                    return Ok(Permit::Granted);
                }
            }
            Change::Replace { old, new } => {
                if old == new {
                    return refused("a member cannot be replaced by itself".to_owned());
                }
                self.require_member(new)?;
                if !self.members.contains_key(&old) && was_removed(old) && after.contains(&new) {
                    return Ok(Permit::Done);
                }
                self.require_member(old)?;
                if !after.remove(&old) {
                    let what = format!(
                        "member {old} has no vote that {new} could take over; use `flott cluster members remove {old}` \
                         and `flott cluster members promote {new}`"
                    );
                    return refused(what);
                }
                if !after.insert(new) {
                    let what = format!(
                        "member {new} has a vote already; use `flott cluster members remove {old}`"
                    );
                    return refused(what);
                }
                self.require_reachable(new)?;
            }
        }
        self.require_quorum(&after)?;
        Ok(Permit::Granted)
    }

    fn require_member(&self, id: u64) -> Result<(), RaftError> {
        if self.members.contains_key(&id) {
            return Ok(());
        }
        let known = self.describe(self.members.keys());
        Err(RaftError::NoSuchMember(format!(
            "there is no member {id}; the members are {known}"
        )))
    }

    fn require_reachable(&self, id: u64) -> Result<(), RaftError> {
        if self.reachable.contains(&id) {
            return Ok(());
        }
        refused(format!(
            "{} does not answer; start it, or remove it with `flott cluster members remove {id}`",
            self.describe([&id])
        ))
    }

    fn require_quorum(&self, after: &BTreeSet<u64>) -> Result<(), RaftError> {
        if after.is_empty() {
            let what = "the last voter cannot be removed: the group would be gone; add and promote another member first";
            return refused(what.to_owned());
        }
        let (up, down): (Vec<&u64>, Vec<&u64>) =
            after.iter().partition(|id| self.reachable.contains(id));
        let needed = quorum(after.len());
        if up.len() >= needed {
            return Ok(());
        }
        let down = self.describe(down);
        refused(format!(
            "{} of the {} voters that would be left can be reached and {needed} are needed to decide anything: the \
             group would stop; bring back, replace or remove what does not answer first: {down}",
            up.len(),
            after.len()
        ))
    }

    /// As ids with addresses.
    fn describe<'a>(&self, ids: impl IntoIterator<Item = &'a u64>) -> String {
        let each = ids.into_iter().map(|id| match self.members.get(id) {
            Some(address) => format!("{id} ({address})"),
            None => id.to_string(),
        });
        let each: Vec<String> = each.collect();
        if each.is_empty() {
            "none".to_owned()
        } else {
            each.join(", ")
        }
    }
}

fn refused<T>(what: String) -> Result<T, RaftError> {
    Err(RaftError::Refused(what))
}

/// Whether a learner has kept up for long enough.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Steady {
    since: Option<Duration>,
}

impl Steady {
    /// The learner lacks so many entries at this moment (`None`: unknown); whether it has kept up for [`STEADY_FOR`].
    pub(super) fn on_lag(&mut self, lag: Option<u64>, now: Duration) -> bool {
        if lag.is_none_or(|lag| lag > LAG_MAX) {
            self.since = None;
            return false;
        }
        now.saturating_sub(*self.since.get_or_insert(now)) >= STEADY_FOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members by number, those that answer among them, and whether they vote.
    fn group(voters: &[u64], learners: &[u64], down: &[u64]) -> Group {
        let all = voters.iter().chain(learners);
        Group {
            voters: voters.iter().copied().collect(),
            members: all.clone().map(|id| (*id, format!("h{id}:1"))).collect(),
            reachable: all.filter(|id| !down.contains(id)).copied().collect(),
        }
    }

    #[test]
    fn a_change_that_would_stop_the_group_is_refused_and_any_other_is_not() {
        use Change::*;
        let replace = Replace { old: 3, new: 4 };
        // (voters, learners, down), change, Ok or a part of the refusal
        type Ids = &'static [u64];
        type Case = (Ids, Ids, Ids, Change, Result<Permit, &'static str>);
        let table: &[Case] = &[
            (&[1, 2, 3], &[], &[], Remove(3), Ok(Permit::Granted)),
            (&[1, 2, 3], &[], &[3], Remove(3), Ok(Permit::Granted)),
            (&[1, 2, 3], &[], &[3], Remove(2), Err("1 of the 2 voters")),
            (&[1, 2], &[], &[2], Remove(2), Ok(Permit::Granted)),
            (&[1], &[], &[], Remove(1), Err("the last voter")),
            (&[1], &[2], &[], Remove(1), Err("the last voter")),
            (
                &[1, 2, 3, 4, 5],
                &[],
                &[4, 5],
                Remove(3),
                Err("3 are needed"),
            ),
            (
                &[1, 2, 3, 4, 5],
                &[],
                &[4, 5],
                Remove(4),
                Ok(Permit::Granted),
            ),
            (&[1, 2, 3], &[4], &[4], Remove(4), Ok(Permit::Granted)),
            (&[1, 2, 3], &[], &[], Remove(9), Err("no member 9")),
            (&[1, 2, 3], &[], &[], Remove(7), Ok(Permit::Done)),
            (&[1, 2, 3], &[4], &[], Promote(4), Ok(Permit::Granted)),
            // It must be possible to add one while one is down.
            (&[1, 2, 3], &[4], &[3], Promote(4), Ok(Permit::Granted)),
            (&[1, 2, 3], &[4], &[4], Promote(4), Err("does not answer")),
            (&[1, 2, 3], &[], &[], Promote(3), Ok(Permit::Done)),
            (&[1, 2, 3], &[], &[], Promote(4), Err("no member 4")),
            (&[1, 2, 3], &[4], &[3], replace, Ok(Permit::Granted)),
            (&[1, 2, 3], &[4], &[4], replace, Err("does not answer")),
            (&[1, 2, 3], &[4], &[2, 4], replace, Err("does not answer")),
            (&[1, 2], &[3, 4], &[], replace, Err("has no vote")),
            (&[1, 2, 3, 4], &[], &[], replace, Err("has a vote already")),
            (&[1, 2, 3], &[], &[], replace, Err("no member 4")),
            (
                &[1, 2, 4],
                &[],
                &[],
                Replace { old: 7, new: 4 },
                Ok(Permit::Done),
            ),
            (
                &[1],
                &[2],
                &[],
                Replace { old: 1, new: 2 },
                Ok(Permit::Granted),
            ),
        ];
        for (voters, learners, down, change, expected) in table {
            let permit = group(voters, learners, down).permit(*change, |id| id == 7);
            let case = format!("{voters:?} {learners:?} down {down:?}: {change:?}");
            match (permit, expected) {
                (Ok(permit), Ok(expected)) => assert_eq!(permit, *expected, "{case}"),
                (Err(refused), Err(part)) => {
                    assert!(refused.to_string().contains(part), "{case}: {refused}");
                }
                (permit, _) => panic!("{case}: {permit:?}"),
            }
        }
    }

    #[test]
    fn a_refusal_names_who_is_missing() {
        let refused = group(&[1, 2, 3], &[], &[3])
            .permit(Change::Remove(2), |_| false)
            .unwrap_err()
            .to_string();
        assert!(refused.contains("first: 3 (h3:1)"), "{refused}");
    }

    #[test]
    fn a_group_tolerates_the_loss_of_what_exceeds_its_quorum() {
        let table = [
            (1, 1, 0),
            (2, 2, 0),
            (3, 3, 1),
            (3, 2, 0),
            (5, 5, 2),
            (5, 1, 0),
        ];
        for (voters, reachable, tolerated) in table {
            assert_eq!(
                tolerated_failures(voters, reachable),
                tolerated,
                "{voters} {reachable}"
            );
        }
    }

    #[test]
    fn only_a_learner_that_keeps_up_without_a_break_is_steady() {
        let mut steady = Steady::default();
        let at = Duration::from_secs;
        let table = [
            (0, Some(0), false),
            (2, Some(LAG_MAX), false),
            (3, Some(0), true),
            (4, Some(LAG_MAX + 1), false),
            (5, Some(0), false),
            (7, None, false),
            (8, Some(0), false),
            (11, Some(0), true),
        ];
        for (second, lag, expected) in table {
            assert_eq!(steady.on_lag(lag, at(second)), expected, "second {second}");
        }
    }
}
