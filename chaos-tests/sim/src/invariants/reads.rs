//! Clients see one key-value space that changes in steps: linearizability, over all keys at once.
//!
//! Every answer names a revision: of the write, or of the state that was read. That makes it simple. Operations must be
//! possible in the order of their revisions:
//!
//! 1. What has ended before something else began has a revision that is not higher, and a lower one if the latter wrote.
//! 2. A read of revision `r` finds the last write of its key up to `r`.
//! 3. No two writes have the same revision, and a value is found only with the revision of its write.
//!
//! A write that nobody knows the outcome of may have happened at any time after it began; where it is found, it did.

use std::collections::BTreeMap;

use crate::history::{Action, History, Operation, Told};

/// What a history was found to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "as the names say")]
pub struct Checked {
    pub writes: u64,
    pub reads: u64,
    pub unknown: u64,
}

fn value_of(operation: &Operation) -> Option<u64> {
    match operation.action {
        Action::Write(value) | Action::Swap { value, .. } => Some(value),
        Action::Read => None,
    }
}

fn revision_of(operation: &Operation) -> Option<(u64, bool)> {
    match operation.told {
        Told::Written { revision } => Some((revision, true)),
        Told::Found { revision, .. } => Some((revision, false)),
        Told::Differs | Told::Refused | Told::Unknown => None,
    }
}

/// Whether clients can have been told this.
pub fn check(history: &History) -> Result<Checked, String> {
    let mut checked = Checked::default();
    let writes = writes(history, &mut checked)?;
    check_order(history)?;
    for operation in &history.operations {
        if let Told::Found { revision, entry } = operation.told {
            checked.reads += 1;
            check_found(operation, revision, entry, &writes)?;
        }
    }
    Ok(checked)
}

/// Who wrote what, by key and revision: those that were acknowledged and those that somebody has found.
type Writes = BTreeMap<u32, BTreeMap<u64, u64>>;

fn writes(history: &History, checked: &mut Checked) -> Result<Writes, String> {
    let mut by_value = BTreeMap::new();
    for operation in &history.operations {
        by_value.extend(value_of(operation).map(|value| (value, operation)));
    }
    let mut writes = Writes::new();
    let mut all = BTreeMap::new();
    for operation in &history.operations {
        let (key, value, revision) = match (&operation.told, value_of(operation)) {
            (Told::Written { revision }, Some(value)) => {
                checked.writes += 1;
                (operation.key, value, *revision)
            }
            (Told::Unknown, Some(_)) => {
                checked.unknown += 1;
                continue;
            }
            (
                Told::Found {
                    entry: Some((value, revision)),
                    ..
                },
                _,
            ) => (operation.key, *value, *revision),
            _ => continue,
        };
        let Some(writer) = by_value.get(&value).filter(|writer| writer.key == key) else {
            return Err(format!("reads: key {key} has {value}, which nobody wrote"));
        };
        if matches!(writer.told, Told::Refused | Told::Differs) {
            return Err(format!(
                "reads: key {key} has {value}, of a write that was refused: {writer:?}"
            ));
        }
        if writer.begun > operation.ended {
            return Err(format!("reads: {value} was found before it was written"));
        }
        if let Some(other) = all.insert(revision, value)
            && other != value
        {
            return Err(format!(
                "reads: revision {revision} wrote both {other} and {value}"
            ));
        }
        writes.entry(key).or_default().insert(revision, value);
    }
    let mut seen = BTreeMap::new();
    for (key, by_revision) in &writes {
        for (revision, value) in by_revision {
            if let Some(other) = seen.insert(*value, *revision) {
                return Err(format!(
                    "reads: {value} was written to key {key} twice, by {other} and {revision}"
                ));
            }
        }
    }
    Ok(writes)
}

/// The order of revisions is possible in time.
fn check_order(history: &History) -> Result<(), String> {
    let told = history
        .operations
        .iter()
        .filter_map(|operation| Some((operation, revision_of(operation)?)));
    let mut begins: Vec<_> = told.clone().collect();
    begins.sort_by_key(|(operation, _)| operation.begun);
    let mut ends: Vec<_> = told.collect();
    ends.sort_by_key(|(operation, _)| operation.ended);
    let mut ends = ends.into_iter().peekable();
    let mut highest: Option<(u64, &Operation)> = None;
    for (operation, (revision, wrote)) in begins {
        while let Some((ended, (reached, _))) =
            ends.next_if(|(ended, _)| ended.ended < operation.begun)
        {
            if highest.is_none_or(|(highest, _)| reached > highest) {
                highest = Some((reached, ended));
            }
        }
        if let Some((reached, before)) = highest
            && (revision < reached || (wrote && revision == reached))
        {
            return Err(format!(
                "reads: revision {revision} of {operation:?} is behind revision {reached}, which was told before it \
                 began: {before:?}"
            ));
        }
    }
    Ok(())
}

fn check_found(
    operation: &Operation,
    revision: u64,
    entry: Option<(u64, u64)>,
    writes: &Writes,
) -> Result<(), String> {
    let own = writes.get(&operation.key);
    let last = own.and_then(|own| own.range(..=revision).next_back());
    let last = last.map(|(revision, value)| (*value, *revision));
    if last == entry {
        return Ok(());
    }
    Err(format!(
        "reads: {operation:?} found {entry:?}, and the last write up to revision {revision} was {last:?}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(begun: u64, ended: u64, action: Action, told: Told) -> Operation {
        Operation {
            client: 0,
            key: 0,
            action,
            begun,
            ended,
            told,
        }
    }

    fn write(begun: u64, ended: u64, value: u64, revision: u64) -> Operation {
        operation(
            begun,
            ended,
            Action::Write(value),
            Told::Written { revision },
        )
    }

    fn read(begun: u64, ended: u64, revision: u64, entry: Option<(u64, u64)>) -> Operation {
        operation(begun, ended, Action::Read, Told::Found { revision, entry })
    }

    fn unknown(begun: u64, value: u64) -> Operation {
        operation(begun, begun + 1, Action::Write(value), Told::Unknown)
    }

    fn judge(operations: Vec<Operation>) -> Result<Checked, String> {
        check(&History { operations })
    }

    #[test]
    fn histories_that_are_possible_pass() {
        judge(vec![]).unwrap();
        judge(vec![write(0, 10, 1, 5), read(11, 12, 5, Some((1, 5)))]).unwrap();
        // Before the write, although it had begun.
        judge(vec![read(1, 2, 4, None), write(0, 10, 1, 5)]).unwrap();
        // Nobody knows it, until it is found.
        judge(vec![unknown(0, 1), read(9, 10, 7, Some((1, 6)))]).unwrap();
    }

    #[test]
    fn histories_that_are_impossible_do_not() {
        for (operations, why) in [
            (
                vec![write(0, 10, 1, 5), read(11, 12, 4, None)],
                "stale read",
            ),
            (
                vec![write(0, 10, 1, 5), read(11, 12, 6, None)],
                "lost write",
            ),
            (vec![read(0, 1, 5, Some((9, 5)))], "from nowhere"),
            (
                vec![write(0, 1, 1, 5), write(0, 1, 2, 5)],
                "one revision twice",
            ),
            (
                vec![
                    unknown(0, 1),
                    read(1, 2, 5, Some((1, 5))),
                    read(3, 4, 6, Some((1, 6))),
                ],
                "one write twice",
            ),
            (
                vec![read(5, 6, 9, None), read(7, 8, 8, None)],
                "reads that go back",
            ),
            (
                vec![
                    operation(0, 1, Action::Write(1), Told::Refused),
                    read(2, 3, 5, Some((1, 5))),
                ],
                "a refused write",
            ),
        ] {
            assert!(judge(operations).is_err(), "{why}");
        }
    }
}
