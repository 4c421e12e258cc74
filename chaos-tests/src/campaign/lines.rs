//! Which directed pairs a fault of the network strikes, and what is done to what they say. Pure.

use std::time::Duration;

use super::fault::{Kind, Step};
use crate::target::Node;
use crate::target::rules::{End, Pair, Rule};

/// Whom a fault is done to, when `named` are those that the step names, of `all` that there are.
pub fn struck(step: &Step, named: Vec<Node>, all: &[Node]) -> Vec<Node> {
    match step.kind {
        Kind::Split => minority(&named, step.amount, all),
        _ => named,
    }
}

/// The named, the JobManagers behind them up to a minority, and the TaskManagers of these bits.
fn minority(named: &[Node], workers: u64, all: &[Node]) -> Vec<Node> {
    let (jobmanagers, taskmanagers) = by_kind(all);
    let mut inside = named.to_vec();
    let size = (jobmanagers.len().saturating_sub(1) / 2).max(named.len());
    let first = jobmanagers.iter().position(|node| named.contains(node));
    let behind = jobmanagers.iter().cycle().skip(first.unwrap_or(0));
    for node in behind.take(jobmanagers.len()) {
        if inside.len() < size && !inside.contains(node) {
            inside.push(*node);
        }
    }
    let (chosen, _) = by_bits(&taskmanagers, workers);
    inside.extend(chosen.into_iter().filter(|node| !named.contains(node)));
    inside
}

/// The directed pairs that it strikes.
pub fn pairs(step: &Step, struck: &[Node], all: &[Node]) -> Vec<Pair> {
    let outside: Vec<Node> = without(all, struck);
    match step.kind {
        Kind::Loss | Kind::Duplicate | Kind::Reorder => all_of(struck, &outside),
        Kind::Bridge => {
            let (jobmanagers, taskmanagers) = by_kind(&outside);
            let (mut one, mut another) = by_bits(&taskmanagers, step.amount);
            for (number, node) in jobmanagers.into_iter().enumerate() {
                let half = if number % 2 == 0 {
                    &mut one
                } else {
                    &mut another
                };
                half.push(node);
            }
            between(&one, &another, true, true)
        }
        kind => between(struck, &outside, kind != Kind::Mute, kind != Kind::Deaf),
    }
}

/// What is done to what they say.
pub fn rule(step: &Step) -> Rule {
    let mut rule = Rule::default();
    match step.kind {
        Kind::Slow => {
            rule.delay = Duration::from_millis(step.amount);
            rule.jitter = rule.delay / 4;
        }
        Kind::Thin => rule.bandwidth = step.amount,
        Kind::Loss => rule.lost_permille = step.amount,
        Kind::Duplicate => rule.doubled_permille = step.amount,
        Kind::Reorder => rule.overtaken_permille = step.amount,
        _ => rule.cut = true,
    }
    rule
}

/// What those inside hear, and what they say.
fn between(inside: &[Node], outside: &[Node], heard: bool, said: bool) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for (inside, outside) in each(inside, outside) {
        if heard {
            pairs.push((outside, inside));
        }
        if said {
            pairs.push((inside, outside));
        }
    }
    pairs
}

/// All that the interfaces of these send and receive, from the harness and to it too.
fn all_of(struck: &[Node], outside: &[Node]) -> Vec<Pair> {
    let mut pairs = between(struck, outside, true, true);
    for node in struck {
        pairs.extend([
            (End::Harness, End::from(*node)),
            (End::from(*node), End::Harness),
        ]);
    }
    let among = each(struck, struck).filter(|(one, another)| one != another);
    pairs.extend(among);
    pairs
}

fn each(some: &[Node], others: &[Node]) -> impl Iterator<Item = Pair> {
    let with = move |one: &Node| {
        let one = End::from(*one);
        others.iter().map(move |another| (one, End::from(*another)))
    };
    some.iter().flat_map(with)
}

fn without(all: &[Node], some: &[Node]) -> Vec<Node> {
    let rest = all.iter().filter(|node| !some.contains(node));
    rest.copied().collect()
}

fn by_kind(nodes: &[Node]) -> (Vec<Node>, Vec<Node>) {
    nodes.iter().copied().partition(|node| node.is_jobmanager())
}

/// Those whose bit is set, by their place in the list, and the others.
fn by_bits(nodes: &[Node], bits: u64) -> (Vec<Node>, Vec<Node>) {
    let is_set = |place: usize| bits.checked_shr(place as u32).unwrap_or(0) & 1 == 1;
    let (mut set, mut others) = (Vec::new(), Vec::new());
    for (place, node) in nodes.iter().enumerate() {
        let half = if is_set(place) { &mut set } else { &mut others };
        half.push(*node);
    }
    (set, others)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::campaign::fault::Whom;

    fn step(kind: Kind, amount: u64) -> Step {
        Step {
            at_ms: 0,
            lasts_ms: 1_000,
            kind,
            whom: Whom::Leader,
            amount,
        }
    }

    fn jm(number: u32) -> Node {
        Node::Jobmanager(number)
    }

    fn tm(number: u32) -> Node {
        Node::Taskmanager(number)
    }

    /// The pairs of a step that strikes these.
    fn of(kind: Kind, amount: u64, named: &[Node], all: &[Node]) -> BTreeSet<Pair> {
        let step = step(kind, amount);
        let struck = struck(&step, named.to_vec(), all);
        let pairs = pairs(&step, &struck, all);
        let set: BTreeSet<Pair> = pairs.iter().copied().collect();
        assert_eq!(set.len(), pairs.len(), "a pair twice");
        set
    }

    fn ends(pairs: &[(Node, Node)]) -> BTreeSet<Pair> {
        let ends = pairs
            .iter()
            .map(|(from, to)| (End::from(*from), End::from(*to)));
        ends.collect()
    }

    #[test]
    fn a_cut_separates_the_struck_from_the_rest() {
        let all = [jm(1), jm(2), tm(1)];
        let heard = ends(&[(jm(2), jm(1)), (tm(1), jm(1))]);
        let said = ends(&[(jm(1), jm(2)), (jm(1), tm(1))]);
        assert_eq!(of(Kind::Deaf, 0, &[jm(1)], &all), heard);
        assert_eq!(of(Kind::Mute, 0, &[jm(1)], &all), said);
        assert_eq!(of(Kind::Isolate, 0, &[jm(1)], &all), &heard | &said);
        assert_eq!(of(Kind::Isolate, 0, &[jm(1), jm(2)], &all).len(), 4);
    }

    #[test]
    fn a_split_leaves_a_majority_of_jobmanagers_on_the_other_side() {
        let all = [jm(1), jm(2), jm(3), tm(1), tm(2)];
        let side = |named: &[Node], workers, all: &[Node]| {
            struck(&step(Kind::Split, workers), named.to_vec(), all)
        };
        assert_eq!(side(&[jm(3)], 0b10, &all), [jm(3), tm(2)]);
        assert_eq!(side(&[jm(1)], 0, &all), [jm(1)]);
        // Both directions, of 2 times 3.
        assert_eq!(of(Kind::Split, 0b10, &[jm(3)], &all).len(), 12);

        let five = [1, 2, 3, 4, 5].map(jm);
        assert_eq!(side(&[jm(5)], u64::MAX, &five), [jm(5), jm(1)]);
        assert_eq!(side(&[jm(1)], 1, &[jm(1), tm(1)]), [jm(1), tm(1)]);
        assert_eq!(side(&[tm(1)], 3, &all), [tm(1), tm(2)]);
    }

    #[test]
    fn a_bridge_is_heard_by_two_halves_that_do_not_hear_each_other() {
        let all = [jm(1), jm(2), jm(3), tm(1), tm(2)];
        let cut = of(Kind::Bridge, 0b01, &[jm(2)], &all);
        // One and the first worker; three and the second.
        let there = ends(&[
            (jm(1), jm(3)),
            (jm(1), tm(2)),
            (tm(1), jm(3)),
            (tm(1), tm(2)),
        ]);
        let back = there.iter().map(|(from, to)| (*to, *from)).collect();
        assert_eq!(cut, &there | &back);
    }

    #[test]
    fn what_befalls_frames_befalls_all_that_an_interface_sends_and_receives() {
        let all = [jm(1), jm(2), tm(1)];
        let one = of(Kind::Loss, 50, &[jm(1)], &all);
        assert_eq!(one.len(), 6);
        assert!(one.contains(&(End::Harness, jm(1).into())));
        assert!(!one.contains(&(End::Harness, jm(2).into())));
        // Everybody: all pairs of four ends.
        assert_eq!(of(Kind::Reorder, 50, &all, &all).len(), 12);
    }

    #[test]
    fn each_kind_does_its_own() {
        assert!(rule(&step(Kind::Split, 3)).cut && rule(&step(Kind::Bridge, 3)).cut);
        let slow = rule(&step(Kind::Slow, 100));
        assert!(!slow.cut && slow.delay > slow.jitter && !slow.jitter.is_zero());
        assert_eq!(rule(&step(Kind::Loss, 50)).lost_permille, 50);
        assert_eq!(rule(&step(Kind::Duplicate, 50)).doubled_permille, 50);
        assert_eq!(rule(&step(Kind::Reorder, 50)).overtaken_permille, 50);
    }
}
