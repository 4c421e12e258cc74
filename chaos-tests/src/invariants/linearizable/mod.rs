//! Linearizability: the answers that clients got could have come from *one* register, which did each operation at some
//! moment between its call and its answer.
//!
//! [`search`] decides it for one register (registers are independent, so each is checked alone): the algorithm of Wing
//! and Gong with Lowe's memory of configurations seen. [`window`] finds the smallest part of a bad history that is still
//! bad, to be read by a person.
//!
//! Operations of unknown outcome may take effect at any time after their call, or never; unknown reads say nothing. So
//! unknown is never held against the system, and never counted as good either: [`Report::undecided`] and the counts of
//! the history tell how much was actually judged.

mod search;
#[cfg(test)]
mod tests;
mod window;

use std::fmt;

use crate::history::{Action, History, Operation, Outcome, Value};
use crate::report::Finding;
use search::{Effect, Found, Known, Register, Unknown};

pub use search::Limits;

/// What was found about a whole history.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Registers for which an order was found.
    pub linearizable: usize,
    /// Registers for which there is none.
    pub violations: Vec<Violation>,
    /// Registers for which the search was given up.
    pub undecided: Vec<u32>,
}

impl Report {
    /// Whether every register was found to be linearizable.
    pub fn is_ok(&self) -> bool {
        self.violations.is_empty() && self.undecided.is_empty()
    }

    /// The violations, each when its last answer came. The history's clock began `begin_ms` after the run.
    pub fn findings(&self, begin_ms: u64) -> impl Iterator<Item = Finding> {
        self.violations.iter().map(move |violation| {
            let culprit = &violation.operations[violation.culprit];
            let at_ms = begin_ms + culprit.ended_ns / 1_000_000;
            Finding::at(at_ms, violation.to_string())
        })
    }
}

/// What was found about one register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains every answer.
    Linearizable,
    /// There is none.
    Violation(Violation),
    /// The search reached its limits.
    Undecided,
}

/// A part of a register's history that no order explains, whatever the register held before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The register.
    pub key: u32,
    /// By the time of their call. Operations that cannot matter are left out.
    pub operations: Vec<Operation>,
    /// Where in `operations` the one is whose answer can not be explained any more.
    pub culprit: usize,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Operations that are printed; the last ones tell most.
        const PRINTED_MAX: usize = 60;
        let left_out = self.operations.len().saturating_sub(PRINTED_MAX);
        writeln!(
            f,
            "register {}: no order explains these operations",
            self.key
        )?;
        if left_out > 0 {
            writeln!(f, "  … and {left_out} before them")?;
        }
        for (index, operation) in self.operations.iter().enumerate().skip(left_out) {
            let mark = if index == self.culprit {
                "   <- by here at the latest"
            } else {
                ""
            };
            writeln!(f, "  {operation}{mark}")?;
        }
        Ok(())
    }
}

/// Judges every register of the history.
pub fn check(history: &History, limits: Limits) -> Report {
    let mut report = Report::default();
    for (key, operations) in history.by_key() {
        match check_register(key, &operations, limits) {
            Verdict::Linearizable => report.linearizable += 1,
            Verdict::Violation(violation) => report.violations.push(violation),
            Verdict::Undecided => report.undecided.push(key),
        }
    }
    report
}

/// Judges one register, which holds [`Value::ABSENT`] at first. All operations are on it, whatever their key says.
pub fn check_register(key: u32, operations: &[Operation], limits: Limits) -> Verdict {
    if let Some(culprit) = operations.iter().position(contradicts_itself) {
        return Verdict::Violation(Violation {
            key,
            operations: vec![operations[culprit].clone()],
            culprit: 0,
        });
    }
    match search::search(
        &register(operations.iter()),
        Some(Value::ABSENT),
        &mut limits.begin(),
    ) {
        Found::Order => Verdict::Linearizable,
        Found::NoOrder => Verdict::Violation(window::narrow(key, operations, limits)),
        Found::LimitReached => Verdict::Undecided,
    }
}

/// A swap that was refused because of the very value that it expected; or an answer to another question.
fn contradicts_itself(operation: &Operation) -> bool {
    match (operation.action, &operation.outcome) {
        (Action::Swap { from, .. }, Outcome::Found(found)) => from == *found,
        (Action::Read, Outcome::Done) | (Action::Write(_), Outcome::Found(_)) => true,
        _ => false,
    }
}

/// The operations as the search wants them: what is known, what is not, and nothing that says nothing.
fn register<'a>(operations: impl Iterator<Item = &'a Operation>) -> Register {
    let mut register = Register::default();
    for operation in operations {
        let (called, ended) = (operation.called_ns, operation.ended_ns);
        let effect = match (operation.action, &operation.outcome) {
            (_, Outcome::Failed(_)) | (Action::Read, Outcome::Unknown(_)) => continue,
            // A swap that met another value has read that value.
            (_, Outcome::Found(value)) => Effect::Read(*value),
            (Action::Write(value), _) => Effect::Write(value),
            (Action::Swap { from, to }, _) => Effect::Swap { from, to },
            (Action::Read, Outcome::Done) => unreachable!("refused as contradicting itself"),
        };
        if matches!(operation.outcome, Outcome::Unknown(_)) {
            register.unknown.push(Unknown { called, effect });
        } else {
            register.known.push(Known {
                called,
                ended,
                effect,
            });
        }
    }
    register
}
