//! Log matching: entries of the same index and term are the same in all logs, and so is everything before them.
//!
//! By induction: each entry, named by index and term, has one content and one term before it, wherever it is seen.

use std::collections::BTreeMap;

use flott_coordinator::simulation::LogEntry;

use super::Look;

/// Every entry that was ever seen in any log: its hash, and the term of the one before it where that was seen, too.
#[derive(Debug, Default)]
pub struct LogMatching {
    entries: BTreeMap<(u64, u64), (u64, Option<u64>)>,
}

impl LogMatching {
    /// Whether what is new fits. `before` is the entry before it in this log, if that is still there.
    pub fn check(&mut self, look: &Look<'_>, before: Option<&LogEntry>) -> Result<(), String> {
        let mut before = before.map(|entry| (entry.index, entry.term));
        for entry in look.appended {
            let previous = before.filter(|(index, _)| index + 1 == entry.index);
            let previous = previous.map(|(_, term)| term);
            if previous.is_some_and(|term| term > entry.term) {
                return Err(format!(
                    "log matching: the term falls at entry {} of host {}",
                    entry.index, look.host
                ));
            }
            let known = self
                .entries
                .entry((entry.index, entry.term))
                .or_insert((entry.hash, previous));
            if known.0 != entry.hash {
                return Err(format!(
                    "log matching: entry {} of term {} differs at host {}",
                    entry.index, entry.term, look.host
                ));
            }
            match (known.1, previous) {
                (Some(one), Some(other)) if one != other => {
                    return Err(format!(
                        "log matching: before entry {} of term {} there is term {one}, but term {other} at host {}",
                        entry.index, entry.term, look.host
                    ));
                }
                (None, Some(_)) => known.1 = previous,
                _ => {}
            }
            before = Some((entry.index, entry.term));
        }
        Ok(())
    }
}
