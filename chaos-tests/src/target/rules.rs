//! What is done to what goes from one end of a network to another: rules, laid on directed pairs and lifted by number.
//!
//! Faults overlap, so several rules may lie on a pair: they add up, and each is lifted alone. Who carries the bytes or the
//! frames asks here, each time: [`super::proxy`], [`super::netns`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::Node;

/// Who is joined by a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// A process of the cluster.
    Node(Node),
    /// The harness: clients of all kinds, and the object store.
    Harness,
}

impl From<Node> for End {
    fn from(node: Node) -> Self {
        Self::Node(node)
    }
}

/// From, to.
pub type Pair = (End, End);

/// What is done to what goes from one end to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Nothing goes through.
    pub cut: bool,
    /// Late by so much.
    pub delay: Duration,
    /// And by a random part of this; what is sent first still comes first. Frames only.
    pub jitter: Duration,
    /// Bytes a second; 0: no limit.
    pub bandwidth: u64,
    /// So many of a thousand frames vanish. Frames only, as what follows.
    pub lost_permille: u64,
    /// So many come twice.
    pub doubled_permille: u64,
    /// So many are overtaken by those behind them.
    pub overtaken_permille: u64,
}

impl Rule {
    /// Both at once.
    pub fn and(self, other: Self) -> Self {
        let bandwidth = match (self.bandwidth, other.bandwidth) {
            (0, one) | (one, 0) => one,
            (one, another) => one.min(another),
        };
        let permille = |one: u64, another: u64| one.saturating_add(another).min(1_000);
        Self {
            cut: self.cut || other.cut,
            delay: self.delay.saturating_add(other.delay),
            jitter: self.jitter.saturating_add(other.jitter),
            bandwidth,
            lost_permille: permille(self.lost_permille, other.lost_permille),
            doubled_permille: permille(self.doubled_permille, other.doubled_permille),
            overtaken_permille: permille(self.overtaken_permille, other.overtaken_permille),
        }
    }
}

/// All rules that lie at a moment.
#[derive(Clone, Debug, Default)]
pub struct Book(BTreeMap<u64, (Vec<Pair>, Rule)>);

impl Book {
    /// One rule and nothing else.
    #[cfg(test)]
    pub fn of_one(pair: Pair, rule: Rule) -> Self {
        Self(BTreeMap::from([(1, (vec![pair], rule))]))
    }

    /// What all rules of a pair add up to.
    pub fn of(&self, pair: Pair) -> Rule {
        let own = self.0.values().filter(|(pairs, _)| pairs.contains(&pair));
        own.fold(Rule::default(), |sum, (_, rule)| sum.and(*rule))
    }
}

/// The rules of a network, as they change.
#[derive(Debug)]
pub struct Rules {
    book: watch::Sender<Book>,
    number: AtomicU64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            book: watch::Sender::default(),
            number: AtomicU64::new(1),
        }
    }
}

impl Rules {
    /// Lays a rule on these pairs; the number by which it is lifted.
    pub fn lay(&self, pairs: Vec<Pair>, rule: Rule) -> u64 {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        self.book.send_modify(|book| {
            book.0.insert(number, (pairs, rule));
        });
        number
    }

    /// Lifts that rule; nothing happens if it is lifted already.
    pub fn lift(&self, number: u64) {
        self.book.send_modify(|book| {
            book.0.remove(&number);
        });
    }

    /// Lifts all rules.
    pub fn lift_all(&self) {
        self.book.send_modify(|book| book.0.clear());
    }

    /// What lies on a pair now.
    pub fn of(&self, pair: Pair) -> Rule {
        self.book.borrow().of(pair)
    }

    /// All that lies now and later.
    pub fn watch(&self) -> watch::Receiver<Book> {
        self.book.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_a_pair_add_up_and_are_lifted_one_by_one() {
        let [one, two] = [1, 2].map(|number| End::Node(Node::Jobmanager(number)));
        let rules = Rules::default();
        let slow = Rule {
            delay: Duration::from_millis(20),
            bandwidth: 5_000,
            lost_permille: 600,
            ..Rule::default()
        };
        let thin = Rule {
            bandwidth: 1_000,
            lost_permille: 600,
            ..Rule::default()
        };
        let first = rules.lay(vec![(one, two), (two, one)], slow);
        let second = rules.lay(vec![(one, two)], thin);
        let both = Rule {
            bandwidth: 1_000,
            lost_permille: 1_000,
            ..slow
        };
        assert_eq!(rules.of((one, two)), both);
        assert_eq!(rules.of((two, one)), slow);
        assert_eq!(rules.of((one, End::Harness)), Rule::default());
        rules.lift(first);
        rules.lift(first);
        assert_eq!(rules.of((one, two)), thin);
        rules.lift(second);
        rules.lay(vec![(one, two)], slow);
        rules.lift_all();
        assert_eq!(rules.of((one, two)), Rule::default());
    }
}
