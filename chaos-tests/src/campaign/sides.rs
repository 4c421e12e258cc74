//! Which machine has to do what, so that a fault strikes lines between processes: machines know addresses, not processes. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::fault::Step;
use super::lines::pairs;
use crate::target::Node;
use crate::target::rules::End;

/// From, to.
type Line = (Node, Node);

/// What one machine does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// By the process that stands for it.
    pub machine: Node,
    /// Machines that it does not hear.
    pub from: Vec<Node>,
    /// Machines that it does not speak to, or not as before.
    pub to: Vec<Node>,
}

/// These, and whoever shares a machine with one of them: a fault of the machine's lines strikes them too.
pub fn with_neighbours(struck: &[Node], all: &[Node], machine: &dyn Fn(Node) -> Node) -> Vec<Node> {
    let machines: BTreeSet<Node> = struck.iter().map(|node| machine(*node)).collect();
    let more = all
        .iter()
        .filter(|node| machines.contains(&machine(**node)) && !struck.contains(node));
    struck.iter().chain(more).copied().collect()
}

/// Who has to drop what, so that those lines are cut: the struck do as far as they can, else whoever hears.
pub fn cuts(
    step: &Step,
    struck: &[Node],
    all: &[Node],
    machine: &dyn Fn(Node) -> Node,
) -> Result<Vec<Side>, String> {
    let mut sides = BTreeMap::new();
    let machines: BTreeSet<Node> = struck.iter().map(|node| machine(*node)).collect();
    for (from, to) in lines(step, struck, all, machine)? {
        if machines.contains(&from) && !machines.contains(&to) {
            side(&mut sides, from).to.push(to);
        } else {
            side(&mut sides, to).from.push(from);
        }
    }
    Ok(sides.into_values().collect())
}

/// Whom the struck speak to, on those lines.
pub fn speakers(
    step: &Step,
    struck: &[Node],
    all: &[Node],
    machine: &dyn Fn(Node) -> Node,
) -> Result<Vec<Side>, String> {
    let mut sides = BTreeMap::new();
    let machines: BTreeSet<Node> = struck.iter().map(|node| machine(*node)).collect();
    for (from, to) in lines(step, struck, all, machine)? {
        if machines.contains(&from) {
            side(&mut sides, from).to.push(to);
        }
    }
    Ok(sides.into_values().collect())
}

fn side(sides: &mut BTreeMap<Node, Side>, machine: Node) -> &mut Side {
    sides.entry(machine).or_insert_with(|| Side {
        machine,
        from: Vec::new(),
        to: Vec::new(),
    })
}

/// Between machines; why it cannot be done to these lines and to no other.
fn lines(
    step: &Step,
    struck: &[Node],
    all: &[Node],
    machine: &dyn Fn(Node) -> Node,
) -> Result<BTreeSet<Line>, String> {
    let of_nodes = |(from, to)| match (from, to) {
        (End::Node(from), End::Node(to)) => Some((from, to)),
        // Clients go on to reach everybody.
        _ => None,
    };
    let meant: BTreeSet<Line> = pairs(step, struck, all)
        .into_iter()
        .filter_map(of_nodes)
        .collect();
    let between = |(from, to): &Line| (machine(*from), machine(*to));
    let lines: BTreeSet<Line> = meant
        .iter()
        .map(between)
        .filter(|(from, to)| from != to)
        .collect();
    if lines.is_empty() {
        return Err("there is nobody at another address".to_owned());
    }
    for from in all {
        let spared = all.iter().filter(|to| !meant.contains(&(*from, **to)));
        for to in spared.filter(|to| *to != from) {
            if lines.contains(&between(&(*from, *to))) {
                return Err(format!(
                    "others share the addresses of {from} and {to}, whose line it must spare"
                ));
            }
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::fault::{Kind, Whom};

    fn step(kind: Kind) -> Step {
        Step {
            at_ms: 0,
            lasts_ms: 1_000,
            kind,
            whom: Whom::Leader,
            amount: 1,
        }
    }

    const ONE: Node = Node::Jobmanager(1);
    const TWO: Node = Node::Jobmanager(2);
    const THREE: Node = Node::Jobmanager(3);
    const WORKER: Node = Node::Taskmanager(1);
    const ALL: [Node; 4] = [ONE, TWO, THREE, WORKER];

    fn alone(node: Node) -> Node {
        node
    }

    /// The worker shares the machine of the first JobManager.
    fn shared(node: Node) -> Node {
        if node == WORKER { ONE } else { node }
    }

    #[test]
    fn the_struck_machine_cuts_itself_off() {
        let cut = |kind| cuts(&step(kind), &[ONE], &ALL, &alone).unwrap();
        let others = vec![TWO, THREE, WORKER];
        let side = |from: &[Node], to: &[Node]| Side {
            machine: ONE,
            from: from.to_vec(),
            to: to.to_vec(),
        };
        assert_eq!(cut(Kind::Isolate), [side(&others, &others)]);
        assert_eq!(cut(Kind::Flap), cut(Kind::Isolate));
        assert_eq!(cut(Kind::Deaf), [side(&others, &[])]);
        assert_eq!(cut(Kind::Mute), [side(&[], &others)]);
    }

    #[test]
    fn whoever_shares_a_machine_is_struck_with_it() {
        assert_eq!(with_neighbours(&[TWO], &ALL, &shared), [TWO]);
        let struck = with_neighbours(&[ONE], &ALL, &shared);
        assert_eq!(struck, [ONE, WORKER]);
        let sides = cuts(&step(Kind::Isolate), &struck, &ALL, &shared).unwrap();
        let [side] = &sides[..] else {
            panic!("{sides:?}");
        };
        assert_eq!((side.machine, &side.from), (ONE, &vec![TWO, THREE]));
        // Without the neighbour its lines would be cut, too.
        let why = cuts(&step(Kind::Isolate), &[ONE], &ALL, &shared).unwrap_err();
        assert!(why.contains("spare"), "{why}");
        let everybody = |_| ONE;
        let struck = with_neighbours(&[TWO], &ALL, &everybody);
        let why = cuts(&step(Kind::Isolate), &struck, &ALL, &everybody).unwrap_err();
        assert!(why.contains("nobody at another address"), "{why}");
    }

    #[test]
    fn of_a_bridge_the_halves_drop_what_they_hear() {
        let sides = cuts(&step(Kind::Bridge), &[TWO], &ALL, &alone).unwrap();
        // One and the worker; three.
        let machines: Vec<Node> = sides.iter().map(|side| side.machine).collect();
        assert_eq!(machines, [ONE, THREE, WORKER]);
        assert!(sides.iter().all(|side| side.to.is_empty()));
        assert_eq!(sides[1].from, [ONE, WORKER]);
        assert_eq!(sides[0].from, [THREE]);
    }

    #[test]
    fn only_what_the_struck_say_is_late_or_lost() {
        let sides = speakers(&step(Kind::Slow), &[ONE], &ALL, &alone).unwrap();
        let [side] = &sides[..] else {
            panic!("{sides:?}");
        };
        assert_eq!((side.machine, &side.to), (ONE, &vec![TWO, THREE, WORKER]));
        assert!(side.from.is_empty());
        let sides = speakers(&step(Kind::Loss), &ALL, &ALL, &shared).unwrap();
        assert_eq!(sides.len(), 3);
        assert_eq!(sides[0].to, [TWO, THREE]);
    }
}
