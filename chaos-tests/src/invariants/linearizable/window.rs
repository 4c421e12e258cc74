//! The smallest part of a bad history that is still bad.
//!
//! Each step makes the claim weaker and searches again, so what is left is bad by itself:
//!
//! 1. **End early.** What had not ended yet becomes unknown. The earliest end that is still bad names the culprit.
//! 2. **Begin late**, with whatever value. What ended before is left out, except for writes that overlap with something
//!    that stays: they become unknown.
//! 3. **Leave out** unknown operations whose value nobody needs, and reads that are not needed: neither explains
//!    anything away.

use std::collections::BTreeSet;

use super::search::{self, Found, Limits};
use super::{Violation, register};
use crate::history::{Action, Operation, Outcome, Value};

/// Beyond this many operations nobody reads the window anyway, and step 3 would search as many times.
const READABLE_MAX: usize = 200;

/// Narrows a register's history, for which there is no order.
pub(super) fn narrow(key: u32, operations: &[Operation], limits: Limits) -> Violation {
    let bad = |operations: &[Operation], initial| {
        search::search(&register(operations.iter()), initial, &mut limits.begin()) == Found::NoOrder
    };

    let mut ends: Vec<u64> = operations
        .iter()
        .filter(|operation| operation.is_acknowledged())
        .map(|operation| operation.ended_ns)
        .collect();
    ends.sort_unstable();
    let early = first_bad(&ends, |end| {
        bad(&until(operations, end), Some(Value::ABSENT))
    });
    let end = early.unwrap_or(u64::MAX);
    let mut window = until(operations, end);

    let mut starts: Vec<u64> = window.iter().map(|operation| operation.called_ns).collect();
    starts.sort_unstable_by(|a, b| b.cmp(a));
    let late = first_bad(&starts, |start| bad(&from(&window, start), None));
    if let Some(start) = late {
        window = from(&window, start);
    }
    let initial = late.map_or(Some(Value::ABSENT), |_| None);

    let ended_last =
        |operation: &Operation| operation.is_acknowledged() && operation.ended_ns == end;
    leave_out_unseen(&mut window);
    if window.len() <= READABLE_MAX {
        let mut index = 0;
        while index < window.len() {
            let mut without = window.clone();
            let left_out = without.remove(index);
            let is_read = matches!(left_out.outcome, Outcome::Found(_));
            if is_read && !ended_last(&left_out) && bad(&without, initial) {
                window = without;
            } else {
                index += 1;
            }
        }
        leave_out_unseen(&mut window);
    }
    window.sort_by_key(|operation| (operation.called_ns, operation.ended_ns));
    let culprit = window.iter().position(ended_last).unwrap_or(0);
    Violation {
        key,
        operations: window,
        culprit,
    }
}

/// The first of `times` that is bad, given that all after it are bad as well; `None` if the last is not.
fn first_bad(times: &[u64], mut bad: impl FnMut(u64) -> bool) -> Option<u64> {
    if !times.last().is_some_and(|last| bad(*last)) {
        return None;
    }
    let (mut good, mut known_bad) = (0, times.len() - 1);
    while good < known_bad {
        let middle = good.midpoint(known_bad);
        if bad(times[middle]) {
            known_bad = middle;
        } else {
            good = middle + 1;
        }
    }
    Some(times[known_bad])
}

/// The history as it was known at `end`.
fn until(operations: &[Operation], end: u64) -> Vec<Operation> {
    let begun = operations
        .iter()
        .filter(|operation| operation.called_ns <= end && !is_failed(operation));
    begun
        .map(|operation| {
            if operation.is_acknowledged() && operation.ended_ns > end {
                forgotten(operation, "still under way")
            } else {
                operation.clone()
            }
        })
        .collect()
}

/// The history for one who came at `start`.
fn from(operations: &[Operation], start: u64) -> Vec<Operation> {
    let stays = |operation: &Operation| operation.is_acknowledged() && operation.ended_ns >= start;
    let first_call = operations
        .iter()
        .filter(|operation| stays(operation))
        .map(|operation| operation.called_ns)
        .min()
        .unwrap_or(start);
    let mut kept = Vec::new();
    for operation in operations {
        if stays(operation) || matches!(operation.outcome, Outcome::Unknown(_)) {
            kept.push(operation.clone());
        } else if operation.is_acknowledged()
            && changes(operation)
            && operation.ended_ns >= first_call
        {
            kept.push(forgotten(operation, "before the window"));
        }
    }
    kept
}

/// Leaves out unknown operations that cannot matter: reads, and those whose value no other operation has seen.
fn leave_out_unseen(window: &mut Vec<Operation>) {
    loop {
        let seen: BTreeSet<Value> = window.iter().filter_map(needs).collect();
        let before = window.len();
        window.retain(|operation| {
            let leaves = match operation.action {
                Action::Read => None,
                Action::Write(value) | Action::Swap { to: value, .. } => Some(value),
            };
            !matches!(operation.outcome, Outcome::Unknown(_))
                || leaves.is_some_and(|value| seen.contains(&value))
        });
        if window.len() == before {
            return;
        }
    }
}

/// The value that the register must have had.
fn needs(operation: &Operation) -> Option<Value> {
    match (operation.action, &operation.outcome) {
        (_, Outcome::Found(value)) => Some(*value),
        (Action::Swap { from, .. }, _) => Some(from),
        (Action::Read | Action::Write(_), _) => None,
    }
}

fn is_failed(operation: &Operation) -> bool {
    matches!(operation.outcome, Outcome::Failed(_))
}

/// Whether it changed the register.
fn changes(operation: &Operation) -> bool {
    operation.outcome == Outcome::Done
}

/// The operation without its answer. A swap that met another value has changed nothing and is a read.
fn forgotten(operation: &Operation, why: &str) -> Operation {
    let mut forgotten = operation.clone();
    if !changes(operation) {
        forgotten.action = Action::Read;
    }
    forgotten.outcome = Outcome::Unknown(why.to_owned());
    forgotten
}
