//! What clients asked for and what they were told: the evidence that the checkers judge.
//!
//! One attempt is one [`Operation`]. Its [`Outcome`] says what the client *knows*: done, certainly not done, or unknown.
//! Unknown is an honest answer: the operation may take effect later, or never. What must stay true: nobody writes
//! "failed" here who does not know it for sure, and all times are read from one monotonic clock.
//!
//! On disk a history is JSON lines, so that one that was found bad can be judged again after the checker was changed.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, Write};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// What a register holds. Every write of a run has a value of its own.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Value(pub u64);

impl Value {
    /// The register was never written.
    pub const ABSENT: Self = Self(0);
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ABSENT {
            f.write_str("nothing")
        } else {
            write!(f, "{}", self.0)
        }
    }
}

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// The register's value, as of now.
    Read,
    /// Replace it, whatever it is.
    Write(Value),
    /// Replace it if it is what the client believes.
    Swap {
        #[expect(missing_docs, reason = "what is believed")]
        from: Value,
        #[expect(missing_docs, reason = "what is to be")]
        to: Value,
    },
}

/// What the client knows about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// A write took effect, or a swap did.
    Done,
    /// What a read returned, or what a swap met instead of what it expected.
    Found(Value),
    /// It did not take effect and never will.
    Failed(String),
    /// It took effect, or will, or never will.
    Unknown(String),
}

/// One attempt of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Which register.
    pub key: u32,
    /// Who asked.
    pub client: u32,
    /// Which member was asked; of an operation that was repeated under one request id: the last one.
    pub member: u32,
    /// When it was sent, nanoseconds since the run began.
    pub called_ns: u64,
    /// When the answer came, or the client gave up.
    pub ended_ns: u64,
    /// What was asked for.
    pub action: Action,
    /// What is known.
    pub outcome: Outcome,
}

impl Operation {
    /// Whether a member promised something by its answer.
    pub fn is_acknowledged(&self) -> bool {
        matches!(self.outcome, Outcome::Done | Outcome::Found(_))
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |ns: u64| ns as f64 / 1e6;
        write!(
            f,
            "{:>11.3} to {:>11.3} ms  client {:<3} member {:<2} ",
            ms(self.called_ns),
            ms(self.ended_ns),
            self.client,
            self.member
        )?;
        match self.action {
            Action::Read => f.write_str("read"),
            Action::Write(value) => write!(f, "write {value}"),
            Action::Swap { from, to } => write!(f, "swap {from} for {to}"),
        }?;
        match &self.outcome {
            Outcome::Done => f.write_str(": done"),
            Outcome::Found(value) => write!(f, ": found {value}"),
            Outcome::Failed(why) => write!(f, ": not done, {why}"),
            Outcome::Unknown(why) => write!(f, ": unknown, {why}"),
        }
    }
}

/// Everything that the clients of one run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// In any order.
    pub operations: Vec<Operation>,
}

/// How many operations ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Attempts of any kind.
    pub attempted: u64,
    /// Answered.
    pub acknowledged: u64,
    /// Refused for sure.
    pub failed: u64,
    /// Nobody knows.
    pub unknown: u64,
}

impl History {
    /// The operations of each register, by the time of their call.
    pub fn by_key(&self) -> BTreeMap<u32, Vec<Operation>> {
        let mut keys: BTreeMap<u32, Vec<Operation>> = BTreeMap::new();
        for operation in &self.operations {
            keys.entry(operation.key)
                .or_default()
                .push(operation.clone());
        }
        for operations in keys.values_mut() {
            operations.sort_by_key(|operation| (operation.called_ns, operation.ended_ns));
        }
        keys
    }

    /// How the operations ended.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for operation in &self.operations {
            counts.attempted += 1;
            match operation.outcome {
                Outcome::Done | Outcome::Found(_) => counts.acknowledged += 1,
                Outcome::Failed(_) => counts.failed += 1,
                Outcome::Unknown(_) => counts.unknown += 1,
            }
        }
        counts
    }

    /// Writes one operation a line.
    pub fn write_to(&self, mut out: impl Write) -> anyhow::Result<()> {
        for operation in &self.operations {
            serde_json::to_writer(&mut out, operation)?;
            out.write_all(b"\n")?;
        }
        Ok(out.flush()?)
    }

    /// Reads what [`Self::write_to`] wrote.
    pub fn read_from(input: impl BufRead) -> anyhow::Result<Self> {
        let mut operations = Vec::new();
        for (number, line) in input.lines().enumerate() {
            let operation = serde_json::from_str(&line?)
                .with_context(|| format!("line {} is no operation", number + 1))?;
            operations.push(operation);
        }
        Ok(Self { operations })
    }
}

/// For tests of those who judge: what some client did with register 0, from `called` to `ended`.
#[cfg(test)]
pub(crate) fn operation(called: u64, ended: u64, action: Action, outcome: Outcome) -> Operation {
    Operation {
        key: 0,
        client: 0,
        member: 1,
        called_ns: called,
        ended_ns: ended,
        action,
        outcome,
    }
}

#[cfg(test)]
mod tests {
    use flott_decoders::{Seeds, told};

    use super::*;

    /// With another number in each field.
    fn numbered(action: Action, outcome: Outcome) -> Operation {
        Operation {
            key: 3,
            client: 7,
            member: 2,
            ..operation(1_000, 2_000, action, outcome)
        }
    }

    #[test]
    fn a_history_is_read_back_as_it_was_written() {
        let swap = Action::Swap {
            from: Value::ABSENT,
            to: Value(8),
        };
        let history = History {
            operations: vec![
                numbered(Action::Read, Outcome::Found(Value::ABSENT)),
                numbered(Action::Write(Value(5)), Outcome::Done),
                numbered(swap, Outcome::Unknown("no answer".to_owned())),
                numbered(swap, Outcome::Failed("not the leader".to_owned())),
            ],
        };
        let mut text = Vec::new();
        history.write_to(&mut text).unwrap();
        assert_eq!(History::read_from(text.as_slice()).unwrap(), history);
        let counts = Counts {
            attempted: 4,
            acknowledged: 2,
            failed: 1,
            unknown: 1,
        };
        assert_eq!(history.counts(), counts);
    }

    #[test]
    fn any_bytes_are_a_history_or_refused_by_their_line() {
        let line = r#"{"key":3,"client":7,"member":2,"called_ns":1000,"ended_ns":2000,"action":"Read","outcome":"Done"}"#;
        let mut written = Vec::new();
        let history = History {
            operations: vec![
                numbered(Action::Write(Value(5)), Outcome::Done),
                numbered(Action::Read, Outcome::Unknown("no answer".to_owned())),
            ],
        };
        history.write_to(&mut written).unwrap();
        let seeds =
            Seeds::of([line.as_bytes().to_vec(), written]).words(["\n", "null", "-1", "1e400"]);
        flott_decoders::check!(seeds).for_each(|bytes: &[u8]| {
            match told(History::read_from(bytes)) {
                Ok(history) => {
                    let mut again = Vec::new();
                    history.write_to(&mut again).unwrap();
                    assert_eq!(History::read_from(&again[..]).unwrap(), history);
                    assert_eq!(
                        history.counts().attempted as usize,
                        history.operations.len()
                    );
                    drop(history.by_key());
                }
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        });
    }
}
