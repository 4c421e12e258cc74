//! How many operations ended how, column by column.

use super::{Content, Lane, Material, Strip, length_ms};
use crate::history::{Action, Outcome};
use crate::invariants::bank::{Event, Fate};

/// More columns than a screen has points show nothing more.
const COLUMNS_MAX: u64 = 1_000;
/// Of one column at least.
const COLUMN_MS_MIN: u64 = 1_000;

/// What an operation is counted as.
const NAMES: [&str; 3] = ["acknowledged", "unknown", "failed"];

type IsWanted = fn(&Action) -> bool;

pub(super) fn lanes(material: &Material) -> Vec<Lane> {
    let wanted: [(&str, IsWanted); 3] = [
        ("reads", |action| matches!(action, Action::Read)),
        ("writes", |action| matches!(action, Action::Write(_))),
        ("swaps", |action| matches!(action, Action::Swap { .. })),
    ];
    let begin = material.report.registers_begin_ms;
    let lanes = wanted.into_iter().map(|(name, is_wanted)| {
        let operations = material.operations.iter();
        let counted = operations
            .filter(|operation| is_wanted(&operation.action))
            .map(|operation| {
                let at_ms = begin.saturating_add(operation.ended_ns / 1_000_000);
                let as_what = match operation.outcome {
                    Outcome::Done | Outcome::Found(_) => 0,
                    Outcome::Unknown(_) => 1,
                    Outcome::Failed(_) => 2,
                };
                (at_ms, as_what)
            });
        strip(material, name, NAMES, counted)
    });
    lanes.flatten().collect()
}

/// Transfers between accounts, and reads of all of them.
pub(super) fn of_accounts(material: &Material) -> Vec<Lane> {
    let moved = material.bank.iter().filter_map(|event| match event {
        Event::Moved { ended_ns, fate, .. } => {
            let as_what = match fate {
                Fate::Done => 0,
                Fate::NotDone => 1,
                Fate::Unknown => 2,
            };
            Some((ended_ns / 1_000_000, as_what))
        }
        Event::Read { .. } => None,
    });
    let read = material.bank.iter().filter_map(|event| match event {
        Event::Read { ended_ns, .. } => Some((ended_ns / 1_000_000, 0)),
        Event::Moved { .. } => None,
    });
    let lanes = [
        strip(
            material,
            "transfers",
            ["acknowledged", "not done", "unknown"],
            moved,
        ),
        strip(material, "reads of all accounts", NAMES, read),
    ];
    lanes.into_iter().flatten().collect()
}

/// A lane of counts of what happened when, as which of the three; `None` if nothing did.
pub(super) fn strip(
    material: &Material,
    name: &str,
    names: [&'static str; 3],
    counted: impl Iterator<Item = (u64, usize)>,
) -> Option<Lane> {
    let (every_ms, mut columns) = columns(material);
    let mut sums = [0_u64; 3];
    for (at_ms, as_what) in counted {
        column(&mut columns, every_ms, at_ms)[as_what] += 1;
        sums[as_what] += 1;
    }
    let sum: u64 = sums.iter().sum();
    let parts = names.iter().zip(sums).skip(1).filter(|(_, sum)| *sum > 0);
    let parts: String = parts.map(|(name, sum)| format!(", {sum} {name}")).collect();
    let unit = format!("in {} s", every_ms / 1_000);
    (sum > 0).then(|| Lane {
        name: format!("{name} ({sum}{parts})"),
        about: format!(
            "how many ended {} {unit}; the top of the lane is the most there ever were",
            names.join(", "),
        ),
        content: Content::Strip(Strip {
            every_ms,
            names,
            unit,
            columns,
        }),
    })
}

/// Columns for the whole run, and how long each is.
pub(super) fn columns(material: &Material) -> (u64, Vec<[u64; 3]>) {
    let length = length_ms(material);
    let every_ms = length.div_ceil(COLUMNS_MAX).next_multiple_of(COLUMN_MS_MIN);
    let count = (length - 1) / every_ms + 1;
    (every_ms, vec![[0; 3]; count as usize])
}

/// The column of that moment. What was later than the run counts to its end.
pub(super) fn column(columns: &mut [[u64; 3]], every_ms: u64, at_ms: u64) -> &mut [u64; 3] {
    let last = columns.len() - 1;
    &mut columns[(at_ms / every_ms).min(last as u64) as usize]
}
