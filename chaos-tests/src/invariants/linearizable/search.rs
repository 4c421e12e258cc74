//! The search for an order: Wing and Gong's, which always tries the operations that may come next, with Lowe's memory of
//! configurations that led nowhere.
//!
//! A **configuration** is the set of operations done so far and the register's value. From it, an operation may come next
//! if no other that is not done ended before its call. If nothing fits, the search goes back. A configuration that was
//! met before is not tried again: what can follow does not depend on how it was reached.
//!
//! Three observations keep the search small; each loses no order that exists:
//!
//! 1. A *read* that may come next and fits the value is done at once: it changes nothing, so in any order that continues
//!    from here it can be moved to the front.
//! 2. An operation of *unknown* outcome needs to be done only right before one that needs its value (a read of it, or a
//!    swap from it). In any order, one that is followed by something else can be left out: nobody saw its value.
//! 3. Hence none is tried where the value fits already.
//!
//! It is a loop with a trail, not a recursion: histories are thousands of operations long.

use std::collections::HashSet;

use crate::history::Value;

/// What an operation does to the register, or demands of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Read(Value),
    Write(Value),
    Swap { from: Value, to: Value },
}

impl Effect {
    /// The value that the register must have before it, if any will not do.
    fn needs(self) -> Option<Value> {
        match self {
            Self::Read(value) | Self::Swap { from: value, .. } => Some(value),
            Self::Write(_) => None,
        }
    }

    /// The value after it.
    fn leaves(self) -> Value {
        match self {
            Self::Read(value) | Self::Write(value) | Self::Swap { to: value, .. } => value,
        }
    }
}

/// An operation that took effect between two moments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) called: u64,
    pub(super) ended: u64,
    pub(super) effect: Effect,
}

/// An operation that takes effect after its call, or never. Not a read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unknown {
    pub(super) called: u64,
    pub(super) effect: Effect,
}

/// The operations on one register.
#[derive(Clone, Debug, Default)]
pub(super) struct Register {
    pub(super) known: Vec<Known>,
    pub(super) unknown: Vec<Unknown>,
}

/// When to give up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Configurations that are visited.
    pub steps: u64,
    /// Memory for those remembered.
    pub bytes: usize,
}

impl Default for Limits {
    /// A minute and half a gibibyte, about; a history of the usual kind needs a thousandth of it.
    fn default() -> Self {
        Self {
            steps: 20_000_000,
            bytes: 512 << 20,
        }
    }
}

impl Limits {
    /// A budget that has not been drawn on.
    pub(super) fn begin(self) -> Budget {
        Budget { left: self }
    }
}

/// What is left of the limits.
#[derive(Debug)]
pub(super) struct Budget {
    left: Limits,
}

impl Budget {
    fn step(&mut self) -> bool {
        let left = self.left.steps.checked_sub(1);
        self.left.steps = left.unwrap_or(0);
        left.is_some()
    }

    fn remember(&mut self, bytes: usize) -> bool {
        let left = self.left.bytes.checked_sub(bytes);
        self.left.bytes = left.unwrap_or(0);
        left.is_some()
    }
}

/// How the search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Order,
    NoOrder,
    LimitReached,
}

/// Searches for an order in which the register, holding `initial` at first, gives all the answers. `None` is any value:
/// the first operation that needs one chooses it.
pub(super) fn search(register: &Register, initial: Option<Value>, budget: &mut Budget) -> Found {
    /// Of a hash set, for each entry beside the bits themselves.
    const ENTRY_BYTES: usize = 80;
    let mut configuration = Configuration::new(register, initial);
    let mut seen: HashSet<Identity> = HashSet::new();
    let mut trail: Vec<Turn> = Vec::new();
    loop {
        configuration.do_fitting_reads();
        if configuration.is_complete() {
            return Found::Order;
        }
        if !budget.step() {
            return Found::LimitReached;
        }
        let identity = configuration.identity();
        if !seen.contains(&identity) {
            if !budget.remember(ENTRY_BYTES + size_of_val(&*identity.done)) {
                return Found::LimitReached;
            }
            seen.insert(identity);
            trail.push(Turn {
                value: configuration.value,
                order: configuration.order.len(),
                choices: configuration.choices().into_iter(),
            });
        }
        loop {
            let Some(turn) = trail.last_mut() else {
                return Found::NoOrder;
            };
            configuration.go_back_to(turn.order, turn.value);
            if let Some(choice) = turn.choices.next() {
                configuration.take(&choice);
                break;
            }
            trail.pop();
        }
    }
}

/// What tells a configuration from others, without the long beginning where all is done and the end where nothing is.
#[derive(PartialEq, Eq, Hash)]
struct Identity {
    value: Option<Value>,
    /// Words of known operations that are left out because all are done, and those that are not left out.
    all_done: usize,
    known: usize,
    /// Known operations, then unknown ones.
    done: Box<[u64]>,
}

/// A configuration on the way, with what is left to try.
struct Turn {
    value: Option<Value>,
    /// How many operations were done.
    order: usize,
    choices: std::vec::IntoIter<Choice>,
}

/// What may be done next: some unknown operations, then a known one that needs them.
struct Choice {
    unknown: Vec<usize>,
    known: usize,
}

/// An operation that was done.
#[derive(Clone, Copy)]
enum Done {
    Known(usize),
    Unknown(usize),
}

struct Configuration<'a> {
    register: &'a Register,
    timeline: Timeline,
    value: Option<Value>,
    /// A bit for each operation. The unknown ones begin with a word of their own.
    done: Vec<u64>,
    first_unknown: usize,
    /// How it came about.
    order: Vec<Done>,
}

impl<'a> Configuration<'a> {
    fn new(register: &'a Register, initial: Option<Value>) -> Self {
        let words = register.known.len().div_ceil(64);
        Self {
            register,
            timeline: Timeline::new(&register.known),
            value: initial,
            done: vec![0; words + register.unknown.len().div_ceil(64)],
            first_unknown: words * 64,
            order: Vec::with_capacity(register.known.len() + register.unknown.len()),
        }
    }

    fn identity(&self) -> Identity {
        let without_end = |words: &[u64]| {
            let end = words.iter().rposition(|word| *word != 0);
            end.map_or(0, |last| last + 1)
        };
        let (known, unknown) = self.done.split_at(self.first_unknown / 64);
        let all_done = known.iter().take_while(|word| **word == u64::MAX).count();
        let known = &known[all_done..];
        let known = &known[..without_end(known)];
        let unknown = &unknown[..without_end(unknown)];
        Identity {
            value: self.value,
            all_done,
            known: known.len(),
            done: [known, unknown].concat().into_boxed_slice(),
        }
    }

    /// Whether all that is known is explained.
    fn is_complete(&self) -> bool {
        self.timeline.is_empty()
    }

    fn do_fitting_reads(&mut self) {
        let fits = |configuration: &Self| {
            let value = configuration.value?;
            configuration
                .timeline
                .next_calls()
                .find(|known| configuration.register.known[*known].effect == Effect::Read(value))
        };
        while let Some(read) = fits(self) {
            self.do_known(read);
        }
    }

    /// Everything that may come next. The likely first: what needs nothing unknown, and what ended early.
    fn choices(&self) -> Vec<Choice> {
        let mut choices = Vec::new();
        for known in self.timeline.next_calls() {
            let needed = self.register.known[known].effect.needs();
            match needed {
                // A value that is not fixed yet becomes what is needed.
                Some(needed) if self.value.is_some_and(|value| value != needed) => {
                    for unknown in self.ways_to(needed, &mut Vec::new()) {
                        choices.push(Choice { unknown, known });
                    }
                }
                _ => choices.push(Choice {
                    unknown: Vec::new(),
                    known,
                }),
            }
        }
        choices.sort_by_key(|choice| {
            (
                choice.unknown.len(),
                self.register.known[choice.known].ended,
            )
        });
        choices
    }

    /// All sequences of unknown operations that lead from the present value to `target`. `taken` must not be used.
    fn ways_to(&self, target: Value, taken: &mut Vec<usize>) -> Vec<Vec<usize>> {
        let mut ways = Vec::new();
        let end = self.timeline.first_end();
        for (index, unknown) in self.register.unknown.iter().enumerate() {
            let possible = unknown.called <= end
                && unknown.effect.leaves() == target
                && !taken.contains(&index)
                && !self.is_done(self.first_unknown + index);
            if !possible {
                continue;
            }
            match unknown.effect.needs() {
                Some(needed) if self.value.is_some_and(|value| value != needed) => {
                    taken.push(index);
                    for mut way in self.ways_to(needed, taken) {
                        way.push(index);
                        ways.push(way);
                    }
                    taken.pop();
                }
                _ => ways.push(vec![index]),
            }
        }
        ways
    }

    fn take(&mut self, choice: &Choice) {
        for unknown in &choice.unknown {
            self.mark(self.first_unknown + unknown, true);
            self.order.push(Done::Unknown(*unknown));
            self.value = Some(self.register.unknown[*unknown].effect.leaves());
        }
        self.do_known(choice.known);
    }

    fn do_known(&mut self, known: usize) {
        self.timeline.remove(known);
        self.mark(known, true);
        self.order.push(Done::Known(known));
        self.value = Some(self.register.known[known].effect.leaves());
    }

    /// Undoes the last operations until there are `order` of them.
    fn go_back_to(&mut self, order: usize, value: Option<Value>) {
        while self.order.len() > order {
            match self.order.pop() {
                Some(Done::Known(known)) => {
                    self.timeline.put_back(known);
                    self.mark(known, false);
                }
                Some(Done::Unknown(unknown)) => {
                    self.mark(self.first_unknown + unknown, false);
                }
                None => break,
            }
        }
        self.value = value;
    }

    fn is_done(&self, operation: usize) -> bool {
        self.done[operation / 64] >> (operation % 64) & 1 == 1
    }

    fn mark(&mut self, operation: usize, done: bool) {
        let bit = 1 << (operation % 64);
        if done {
            self.done[operation / 64] |= bit;
        } else {
            self.done[operation / 64] &= !bit;
        }
    }
}

/// The calls and ends of the known operations that are not done, by time: a doubly linked list whose links are numbers.
/// Call of operation `i` is node `2 i`, its end `2 i + 1`; the last node is both ends of the list.
struct Timeline {
    next: Vec<usize>,
    previous: Vec<usize>,
    times: Vec<u64>,
}

impl Timeline {
    fn new(known: &[Known]) -> Self {
        let times: Vec<u64> = known.iter().flat_map(|op| [op.called, op.ended]).collect();
        let mut nodes: Vec<usize> = (0..times.len()).collect();
        // At the same time a call goes first: those two operations overlap.
        nodes.sort_by_key(|node| (times[*node], node % 2));
        let sentinel = times.len();
        let mut timeline = Self {
            next: vec![sentinel; sentinel + 1],
            previous: vec![sentinel; sentinel + 1],
            times,
        };
        let mut before = sentinel;
        for node in nodes {
            timeline.next[before] = node;
            timeline.previous[node] = before;
            before = node;
        }
        timeline.next[before] = sentinel;
        timeline.previous[sentinel] = before;
        timeline
    }

    fn sentinel(&self) -> usize {
        self.times.len()
    }

    fn is_empty(&self) -> bool {
        self.next[self.sentinel()] == self.sentinel()
    }

    /// Operations called before the first end.
    fn next_calls(&self) -> impl Iterator<Item = usize> {
        let first = self.next[self.sentinel()];
        let nodes = std::iter::successors(Some(first), |node| Some(self.next[*node]));
        nodes
            .take_while(|node| *node != self.sentinel() && node % 2 == 0)
            .map(|node| node / 2)
    }

    /// When the first of the operations ended.
    fn first_end(&self) -> u64 {
        let mut node = self.next[self.sentinel()];
        while node != self.sentinel() && node.is_multiple_of(2) {
            node = self.next[node];
        }
        self.times.get(node).copied().unwrap_or(u64::MAX)
    }

    fn remove(&mut self, operation: usize) {
        for node in [2 * operation, 2 * operation + 1] {
            let (before, after) = (self.previous[node], self.next[node]);
            self.next[before] = after;
            self.previous[after] = before;
        }
    }

    /// Undoes the last removal that is not undone yet.
    fn put_back(&mut self, operation: usize) {
        for node in [2 * operation + 1, 2 * operation] {
            let (before, after) = (self.previous[node], self.next[node]);
            self.next[before] = node;
            self.previous[after] = node;
        }
    }
}
