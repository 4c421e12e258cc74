//! From which survivor a group that has lost its quorum may go on, and when it may not. Pure.
//!
//! A quorum has every committed entry; without one, the survivor that is ahead by Raft's own order has the most of them that
//! can be had. So every voter has to be accounted for: its data is here, or elsewhere with a position that somebody read
//! there, or lost. Forgetting one could throw away what it alone has.

use std::collections::{BTreeMap, BTreeSet};

use super::Position;

/// The members of the group, as the most advanced survivor knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Electorate {
    /// One set, or two while the membership was changing.
    pub(crate) voters: Vec<BTreeSet<u64>>,
    /// Of voters and learners.
    pub(crate) addresses: BTreeMap<u64, String>,
}

impl Electorate {
    fn all_voters(&self) -> BTreeSet<u64> {
        self.voters.iter().flatten().copied().collect()
    }

    fn is_quorum(&self, nodes: &BTreeSet<u64>) -> bool {
        let majority =
            |voters: &BTreeSet<u64>| voters.intersection(nodes).count() > voters.len() / 2;
        !self.voters.is_empty() && self.voters.iter().all(majority)
    }

    fn name(&self, node: u64) -> String {
        match self.addresses.get(&node) {
            Some(address) => format!("member {node} at {address}"),
            None => format!("member {node}"),
        }
    }
}

/// What is known of the members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accounts {
    /// Those whose data is here.
    pub(crate) here: BTreeMap<u64, Position>,
    /// Those whose data is elsewhere, as somebody says.
    pub(crate) elsewhere: BTreeMap<u64, Position>,
    /// Those of whom nothing is left, as somebody says.
    pub(crate) lost: BTreeSet<u64>,
}

/// The survivor that is ahead of all that are here.
pub(crate) fn most_advanced(here: &BTreeMap<u64, Position>) -> Option<u64> {
    let ahead = here
        .iter()
        .max_by_key(|(node, position)| (**position, **node));
    ahead.map(|(node, _)| *node)
}

/// Whether the group may go on from `chosen`; the refusal says why not and what to do.
pub(crate) fn check(
    chosen: u64,
    accounts: &Accounts,
    electorate: &Electorate,
) -> Result<(), String> {
    let own = accounts.here.get(&chosen).copied().unwrap_or_default();
    if let Some((node, ahead)) = accounts.elsewhere.iter().find(|(_, other)| **other > own) {
        return Err(format!(
            "{} is at {ahead}, ahead of {own} which is the best that is here: recover there, or bring its directory here",
            electorate.name(*node)
        ));
    }
    let strangers = accounts.elsewhere.keys().chain(&accounts.lost);
    if let Some(stranger) = strangers
        .into_iter()
        .find(|node| !electorate.addresses.contains_key(node))
    {
        return Err(format!(
            "there is no member {stranger}; the members are {}",
            list(electorate, electorate.addresses.keys().copied())
        ));
    }
    let survives =
        |node: &u64| accounts.here.contains_key(node) || accounts.elsewhere.contains_key(node);
    if let Some(node) = accounts.lost.iter().find(|node| survives(node)) {
        return Err(format!(
            "{} cannot be lost and have data at once",
            electorate.name(*node)
        ));
    }
    let voters = electorate.all_voters();
    let missing: Vec<u64> = voters
        .iter()
        .copied()
        .filter(|node| !survives(node) && !accounts.lost.contains(node))
        .collect();
    if !missing.is_empty() {
        return Err(format!(
            "{} may have more than {own}: name its directory too; or run this command on its machine and say --survivor \
             ID=TERM/INDEX here; or say --lost ID if nothing is left of it",
            list(electorate, missing)
        ));
    }
    let survivors: BTreeSet<u64> = voters.iter().copied().filter(survives).collect();
    if electorate.is_quorum(&survivors) {
        return Err(format!(
            "{} of {} voters have their data, which is a quorum: start them, and the group goes on with nothing lost; \
             `flott cluster members replace` mends the rest",
            survivors.len(),
            voters.len()
        ));
    }
    Ok(())
}

fn list(electorate: &Electorate, nodes: impl IntoIterator<Item = u64>) -> String {
    let names: Vec<String> = nodes
        .into_iter()
        .map(|node| electorate.name(node))
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(term: u64, index: u64) -> Position {
        Position { term, index }
    }

    fn electorate(voters: &[&[u64]]) -> Electorate {
        let voters: Vec<BTreeSet<u64>> = voters
            .iter()
            .map(|set| set.iter().copied().collect())
            .collect();
        let addresses = voters
            .iter()
            .flatten()
            .map(|node| (*node, format!("h{node}:1")));
        Electorate {
            addresses: addresses.collect(),
            voters,
        }
    }

    fn accounts(here: &[(u64, Position)], elsewhere: &[(u64, Position)], lost: &[u64]) -> Accounts {
        Accounts {
            here: here.iter().copied().collect(),
            elsewhere: elsewhere.iter().copied().collect(),
            lost: lost.iter().copied().collect(),
        }
    }

    #[test]
    fn a_longer_log_of_a_lower_term_is_not_ahead() {
        let here = BTreeMap::from([(1, at(3, 900)), (2, at(4, 20)), (3, at(4, 19))]);
        assert_eq!(most_advanced(&here), Some(2));
        assert_eq!(most_advanced(&BTreeMap::new()), None);
    }

    #[test]
    fn each_danger_is_refused_with_its_reason() {
        let three = electorate(&[&[1, 2, 3]]);
        let joint = electorate(&[&[1, 2, 3], &[3, 4, 5]]);
        let own = (1, at(5, 10));
        let table: [(&Electorate, Accounts, Option<&str>); 10] = [
            (&three, accounts(&[own], &[], &[2, 3]), None),
            (
                &three,
                accounts(&[own], &[], &[2]),
                Some("member 3 at h3:1 may have more"),
            ),
            (
                &three,
                accounts(&[own], &[(2, at(5, 11))], &[3]),
                Some("ahead of 5/10"),
            ),
            (
                &three,
                accounts(&[own], &[(2, at(6, 1))], &[3]),
                Some("ahead of 5/10"),
            ),
            (
                &three,
                accounts(&[own], &[(2, at(5, 10))], &[3]),
                Some("is a quorum"),
            ),
            (
                &three,
                accounts(&[own, (2, at(5, 9))], &[], &[3]),
                Some("is a quorum"),
            ),
            (&three, accounts(&[own], &[], &[1, 2, 3]), Some("at once")),
            (
                &three,
                accounts(&[own], &[], &[2, 3, 9]),
                Some("no member 9"),
            ),
            // A majority of one of two configurations is none of the other.
            (
                &joint,
                accounts(&[own, (2, at(5, 9))], &[], &[3, 4, 5]),
                None,
            ),
            (
                &joint,
                accounts(&[own, (3, at(5, 9)), (4, at(1, 1))], &[], &[2, 5]),
                Some("is a quorum"),
            ),
        ];
        for (electorate, accounts, expected) in table {
            let checked = check(1, &accounts, electorate);
            match expected {
                None => assert_eq!(checked, Ok(()), "{accounts:?}"),
                Some(reason) => {
                    let refused = checked.expect_err(reason);
                    assert!(refused.contains(reason), "{accounts:?}: {refused}");
                }
            }
        }
    }

    #[test]
    fn positions_are_read_as_they_are_shown() {
        assert_eq!(at(7, 1234).to_string().parse(), Ok(at(7, 1234)));
        for bad in ["", "7", "7/", "/1", "7/x", "7/1/2", "-1/2"] {
            assert!(bad.parse::<Position>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        /// Whoever is missing: what may go on is ahead of all survivors, everybody is accounted for, and no quorum is left.
        #[test]
        fn what_is_allowed_loses_nothing_that_survives(
            kinds in proptest::collection::vec((0_u8..4, 1_u64..4, 1_u64..6), 1..8),
        ) {
            let nodes: Vec<u64> = (1..=kinds.len() as u64).collect();
            let electorate = electorate(&[&nodes]);
            let mut accounts = Accounts::default();
            for (node, (kind, term, index)) in nodes.iter().zip(&kinds) {
                match kind {
                    0 => { accounts.here.insert(*node, at(*term, *index)); }
                    1 => { accounts.elsewhere.insert(*node, at(*term, *index)); }
                    2 => { accounts.lost.insert(*node); }
                    _ => {}
                }
            }
            let Some(chosen) = most_advanced(&accounts.here) else { return Ok(()) };
            if check(chosen, &accounts, &electorate).is_ok() {
                let own = accounts.here[&chosen];
                let survivors = accounts.here.values().chain(accounts.elsewhere.values());
                prop_assert!(survivors.clone().all(|other| *other <= own));
                prop_assert_eq!(survivors.clone().count() + accounts.lost.len(), nodes.len());
                prop_assert!(survivors.count() <= nodes.len() / 2);
            }
        }
    }
}
