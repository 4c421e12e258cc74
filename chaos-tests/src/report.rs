//! What a run found, in words and as the tables that are published.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::faults::plan::Fault;
use crate::history::Counts;

/// What a run has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything held, and it was put to the test.
    Held,
    /// Something that must hold did not: each in words.
    Violated(Vec<String>),
    /// Nothing was violated, but too little was tried or decided to call it good: why.
    Unknown(Vec<String>),
}

impl Verdict {
    /// Violations outweigh doubts.
    pub fn of(violations: Vec<String>, doubts: Vec<String>) -> Self {
        if !violations.is_empty() {
            Self::Violated(violations)
        } else if !doubts.is_empty() {
            Self::Unknown(doubts)
        } else {
            Self::Held
        }
    }

    /// For a process that ends with it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Held => 0,
            Self::Violated(_) => 1,
            Self::Unknown(_) => exit_code::UNKNOWN,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held => f.write_str("held"),
            Self::Violated(what) => write!(f, "VIOLATED: {}", what.join("; ")),
            Self::Unknown(why) => write!(f, "unknown: {}", why.join("; ")),
        }
    }
}

/// What was found, in words, and when it showed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Milliseconds since the run began. `None`: it shows in the run as a whole.
    pub at_ms: Option<u64>,
    #[expect(missing_docs, reason = "its name says it")]
    pub what: String,
}

impl Finding {
    /// It showed at that moment.
    pub fn at(at_ms: u64, what: impl Into<String>) -> Self {
        Self {
            at_ms: Some(at_ms),
            what: what.into(),
        }
    }

    /// It shows in the run as a whole.
    pub fn in_all(what: impl Into<String>) -> Self {
        Self {
            at_ms: None,
            what: what.into(),
        }
    }

    /// The words alone.
    pub fn words(all: &[Self]) -> Vec<String> {
        all.iter().map(|finding| finding.what.clone()).collect()
    }
}

/// Beside 0 and 1. Wrong usage ends with 2, too: neither has shown anything.
pub mod exit_code {
    /// Nothing was violated, and nothing shown.
    pub const UNKNOWN: u8 = 2;
    /// This machine cannot run it.
    pub const SKIPPED: u8 = 4;
}

/// One history and what was found about it.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the columns of the table")]
pub struct HistoryReport {
    pub seed: u64,
    pub members: u32,
    pub counts: Counts,
    pub acknowledged_under_faults: u64,
    pub faults: BTreeMap<Fault, u32>,
    pub leader_changes: u32,
    pub verdict: Verdict,
}

/// The table of many histories, with a line of sums, in Markdown.
#[derive(Debug)]
pub struct HistoryTable<'a>(pub &'a [HistoryReport]);

impl fmt::Display for HistoryTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults = Fault::ALL.map(|fault| fault.to_string()).join(" | ");
        writeln!(
            f,
            "| seed | members | operations | acknowledged | unknown | under faults | {faults} | leader changes | verdict |"
        )?;
        writeln!(f, "|{}", "---|".repeat(8 + Fault::ALL.len()))?;
        let row = |f: &mut fmt::Formatter<'_>, first: &str, history: &HistoryReport, verdict| {
            let faults = Fault::ALL.map(|fault| {
                let count = history.faults.get(&fault).copied().unwrap_or(0);
                count.to_string()
            });
            writeln!(
                f,
                "| {first} | {} | {} | {} | {} | {} | {} | {verdict} |",
                history.counts.attempted,
                history.counts.acknowledged,
                history.counts.unknown,
                history.acknowledged_under_faults,
                faults.join(" | "),
                history.leader_changes,
            )
        };
        for history in self.0 {
            let verdict = match &history.verdict {
                Verdict::Held => "held",
                Verdict::Violated(_) => "VIOLATED",
                Verdict::Unknown(_) => "unknown",
            };
            let first = format!("{} | {}", history.seed, history.members);
            row(f, &first, history, verdict)?;
        }
        let sum = self.sum();
        let of = |wanted: fn(&Verdict) -> bool| {
            let verdicts = self.0.iter().map(|history| &history.verdict);
            verdicts.filter(|verdict| wanted(verdict)).count()
        };
        let verdict = format!(
            "{} held, {} violated, {} unknown",
            of(|verdict| *verdict == Verdict::Held),
            of(|verdict| matches!(verdict, Verdict::Violated(_))),
            of(|verdict| matches!(verdict, Verdict::Unknown(_))),
        );
        row(
            f,
            &format!("{} histories | ", self.0.len()),
            &sum,
            verdict.as_str(),
        )
    }
}

impl HistoryTable<'_> {
    fn sum(&self) -> HistoryReport {
        let mut sum = HistoryReport {
            seed: 0,
            members: 0,
            counts: Counts::default(),
            acknowledged_under_faults: 0,
            faults: BTreeMap::new(),
            leader_changes: 0,
            verdict: Verdict::Held,
        };
        for history in self.0 {
            sum.counts.attempted += history.counts.attempted;
            sum.counts.acknowledged += history.counts.acknowledged;
            sum.counts.failed += history.counts.failed;
            sum.counts.unknown += history.counts.unknown;
            sum.acknowledged_under_faults += history.acknowledged_under_faults;
            sum.leader_changes += history.leader_changes;
            for (fault, count) in &history.faults {
                *sum.faults.entry(*fault).or_default() += count;
            }
        }
        sum
    }
}

/// Durations of the same kind of event.
#[derive(Clone, Debug, Default)]
pub struct Durations(Vec<Duration>);

impl Durations {
    #[expect(missing_docs, reason = "adds one")]
    pub fn push(&mut self, duration: Duration) {
        self.0.push(duration);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The smallest that at least `percent` of a hundred do not exceed (nearest rank).
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }
}

impl fmt::Display for Durations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |percent| self.percentile(percent).as_secs_f64() * 1e3;
        write!(
            f,
            "{} | {:.0} | {:.0} | {:.0}",
            self.len(),
            ms(50),
            ms(99),
            ms(100)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let mut durations = Durations::default();
        assert_eq!(durations.percentile(50), Duration::ZERO);
        for ms in (1..=50).rev() {
            durations.push(Duration::from_millis(ms));
        }
        assert_eq!(durations.to_string(), "50 | 25 | 50 | 50");
    }

    #[test]
    fn a_violation_outweighs_a_doubt() {
        let text = |text: &str| vec![text.to_owned()];
        assert_eq!(Verdict::of(Vec::new(), Vec::new()), Verdict::Held);
        assert_eq!(Verdict::of(Vec::new(), text("b")).exit_code(), 2);
        assert_eq!(Verdict::of(text("a"), text("b")).exit_code(), 1);
    }

    #[test]
    fn the_table_sums_up() {
        let history = |seed, verdict| HistoryReport {
            seed,
            members: 3,
            counts: Counts {
                attempted: 10,
                acknowledged: 7,
                failed: 1,
                unknown: 2,
            },
            acknowledged_under_faults: 5,
            faults: BTreeMap::from([(Fault::Kill, 2)]),
            leader_changes: 1,
            verdict,
        };
        let violated = Verdict::Violated(vec!["x".to_owned()]);
        let histories = [history(1, Verdict::Held), history(2, violated)];
        let table = HistoryTable(&histories).to_string();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 5);
        let columns = |line: &str| line.matches('|').count();
        assert!(
            lines.iter().all(|line| columns(line) == columns(lines[0])),
            "{table}"
        );
        assert!(lines[4].contains("| 20 | 14 | 4 | 10 | 4 | 0 |"), "{table}");
        assert!(
            lines[4].contains("1 held, 1 violated, 0 unknown"),
            "{table}"
        );
    }
}
