//! What is new in the log of a member since it was last looked at.

use std::collections::BTreeMap;
use std::io;

use flott_coordinator::simulation::{LogEntry, Probe, Seen};

/// The logs of all members, by machine.
#[derive(Debug, Default)]
pub struct Book {
    logs: BTreeMap<usize, Read>,
}

/// How far a log was read.
#[derive(Debug)]
struct Read {
    life: u32,
    cuts: u64,
    next: u64,
    last: Option<(u64, u64)>,
    /// Of entries that may still be cut: their terms.
    entries: BTreeMap<u64, LogEntry>,
}

impl Book {
    /// The entries of a member's log that were not there before, in order.
    pub fn read(
        &mut self,
        host: usize,
        life: u32,
        probe: &Probe,
        seen: &Seen,
    ) -> io::Result<Vec<LogEntry>> {
        let purged = seen.purged.map_or(0, |(_, index)| index + 1);
        let log = self.logs.entry(host).or_insert_with(|| Read {
            life,
            cuts: seen.cuts,
            next: purged,
            last: None,
            entries: BTreeMap::new(),
        });
        if log.life != life {
            (log.life, log.cuts, log.next, log.last) = (life, seen.cuts, purged, None);
            log.entries.clear();
        }
        if log.cuts != seen.cuts {
            // What is committed now need not have been when it was cut; so all of it is read again.
            (log.cuts, log.next, log.last) = (seen.cuts, purged, None);
            log.entries.clear();
        }
        log.next = log.next.max(purged);
        log.entries = log.entries.split_off(&purged);
        if log.last == seen.last && log.next > seen.last.map_or(0, |(_, index)| index) {
            return Ok(Vec::new());
        }
        log.last = seen.last;
        let mut appended = Vec::new();
        let end = seen.last.map_or(0, |(_, index)| index + 1);
        while log.next < end {
            let read = probe.entries(log.next, end)?;
            let Some(last) = read.last() else {
                let what = format!("entries {}..{end} cannot be read", log.next);
                return Err(io::Error::other(what));
            };
            log.next = last.index + 1;
            for entry in &read {
                log.entries.insert(entry.index, entry.clone());
            }
            appended.extend(read);
        }
        Ok(appended)
    }

    /// What a member's log has at that index, if it was not purged.
    pub fn entry(&self, host: usize, index: u64) -> Option<&LogEntry> {
        self.logs.get(&host)?.entries.get(&index)
    }
}
