//! What is committed is for ever: no member applies another entry at that index, and every later leader has it.
//!
//! An entry counts as committed once any member has applied it, which is when its proposer may be told so.

use std::collections::BTreeMap;

use flott_coordinator::simulation::{Kind, LogEntry};

use super::Look;
use super::book::Book;

/// Everything that was committed.
#[derive(Debug, Default)]
pub struct Committed {
    entries: BTreeMap<u64, LogEntry>,
    /// How far each member's applied entries were looked at, in its present life.
    applied: BTreeMap<usize, (u32, u64)>,
}

impl Committed {
    /// The last index that is known to be committed.
    pub fn last(&self) -> u64 {
        self.entries.last_key_value().map_or(0, |(index, _)| *index)
    }

    /// The committed entries.
    pub fn entries(&self) -> impl Iterator<Item = &LogEntry> {
        self.entries.values()
    }

    /// State machine safety: whether what a member has applied is what others have.
    pub fn check_applied(&mut self, look: &Look<'_>, book: &Book) -> Result<(), String> {
        let from = self.applied.entry(look.host).or_insert((look.life, 0));
        if from.0 != look.life {
            *from = (look.life, 0);
        }
        let applied = look.seen.applied;
        for index in from.1..=applied {
            // What a snapshot brought is not in the log.
            let Some(entry) = book.entry(look.host, index) else {
                continue;
            };
            let known = self.entries.entry(index).or_insert_with(|| entry.clone());
            if (known.term, known.hash) != (entry.term, entry.hash) {
                return Err(format!(
                    "state machine safety: host {} has applied entry {index} of term {}, others that of term {}",
                    look.host, entry.term, known.term
                ));
            }
        }
        from.1 = applied + 1;
        Ok(())
    }

    /// Leader completeness: whether a new leader has everything that was committed before it.
    pub fn check_leader(&self, look: &Look<'_>, book: &Book) -> Result<(), String> {
        let purged = look.seen.purged.map_or(0, |(_, index)| index + 1);
        let older = self
            .entries
            .range(purged..)
            .filter(|(_, entry)| entry.term < look.seen.term);
        for (index, entry) in older {
            let own = book.entry(look.host, *index);
            if own.is_none_or(|own| own.term != entry.term) {
                return Err(format!(
                    "leader completeness: host {} leads in term {} without entry {index} of term {}, which is committed \
                     (it has {:?})",
                    look.host,
                    look.seen.term,
                    entry.term,
                    own.map(|own| own.term)
                ));
            }
        }
        Ok(())
    }

    /// How often who may vote was changed by what is committed.
    pub fn memberships(&self) -> usize {
        let entries = self.entries.values();
        entries
            .filter(|entry| matches!(entry.kind, Kind::Membership(_)))
            .count()
    }
}
