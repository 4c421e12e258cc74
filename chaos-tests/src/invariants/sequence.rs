//! Nothing lost, nothing twice, nothing out of order, nothing unknown: what [`crate::workload::sequence`] has committed,
//! read as any outside reader would, and compared with the formula. Memory: one bit for each row.
//!
//! Files that are visible never change, so each is read once, and a long run can be looked at while it goes on. An order
//! is promised for the rows of one key: by attempt, and within it by the number of the file. What must stay true: a row
//! counts as verified only if every value of it is the expected one.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use anyhow::Context;
use flott_chaos_basis::sequence::{FIRST, Row, WINDOW, order};
use serde::Serialize;

use crate::workload::sequence::KEYS;

/// Faults that are told in words; all are counted.
const TOLD_MAX: usize = 10;

/// What was found, in records of the source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Seen exactly once, in order, with every value right.
    pub verified: u64,
    /// Not there although later ones of the same key are.
    pub lost: u64,
    /// There more than once.
    pub duplicated: u64,
    /// Committed behind later ones of the same key.
    pub out_of_order: u64,
    /// Never sent: rows that say something that no records can say.
    pub unknown: u64,
    /// The first few faults, in words.
    pub faults: Vec<String>,
}

impl Found {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.lost + self.duplicated + self.out_of_order + self.unknown == 0
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} records verified, {} lost, {} duplicated, {} out of order, {} unknown",
            self.verified, self.lost, self.duplicated, self.out_of_order, self.unknown
        )?;
        for fault in &self.faults {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}

/// How much must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Of each key, everything before what it has last.
    NoGaps,
    /// So many records.
    All(u64),
}

/// Reads committed files and judges what is in them.
#[derive(Debug)]
pub struct Reader {
    read: BTreeSet<String>,
    keys: Vec<Key>,
    /// Rows of which only the beginning was there: right at the very end of a bounded input, and nowhere else.
    partial: Vec<Row>,
    found: Found,
}

/// What was seen of one key.
#[derive(Clone, Debug, Default)]
struct Key {
    /// One bit for each window.
    windows: Vec<u64>,
    /// The window seen last, plus one.
    next: u64,
}

impl Key {
    fn has(&self, window: u64) -> bool {
        let word = self.windows.get((window / 64) as usize);
        word.is_some_and(|word| word >> (window % 64) & 1 == 1)
    }

    fn add(&mut self, window: u64) {
        let at = (window / 64) as usize;
        if self.windows.len() <= at {
            self.windows.resize(at + 1, 0);
        }
        self.windows[at] |= 1 << (window % 64);
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            read: BTreeSet::new(),
            keys: vec![Key::default(); KEYS as usize],
            partial: Vec::new(),
            found: Found::default(),
        }
    }
}

impl Reader {
    /// Reads the files that have become visible since the last time.
    pub fn read(&mut self, directory: &Path) -> anyhow::Result<&Found> {
        let mut files = Vec::new();
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(&self.found),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot list {}", directory.display()));
            }
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') || entry.file_type()?.is_dir() || self.read.contains(&name) {
                continue;
            }
            files.push((order(&name), name));
        }
        files.sort();
        for (_, name) in files {
            let path = directory.join(&name);
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            if !text.is_empty() && !text.ends_with('\n') {
                self.fault(
                    |found| &mut found.unknown,
                    1,
                    || format!("{name} ends within a line"),
                );
            }
            for line in text.lines() {
                self.line(&name, line);
            }
            self.read.insert(name);
        }
        Ok(&self.found)
    }

    /// Records seen so far, of which nothing is wrong.
    pub fn verified(&self) -> u64 {
        self.found.verified
    }

    /// The final word.
    pub fn finish(mut self, extent: Extent) -> Found {
        for key in 0..KEYS {
            let windows = match extent {
                Extent::NoGaps => self.keys[key as usize].next,
                Extent::All(records) => records.div_ceil(WINDOW),
            };
            for window in 0..windows {
                let end = match extent {
                    Extent::NoGaps => u64::MAX,
                    Extent::All(records) => records,
                };
                let Some(expected) = expected(window, key, end) else {
                    continue;
                };
                if !self.keys[key as usize].has(window) {
                    let text = || format!("key {key}: window {window} is missing: {expected:?}");
                    self.fault(|found| &mut found.lost, expected.records, text);
                }
            }
        }
        for row in std::mem::take(&mut self.partial) {
            let end = match extent {
                Extent::NoGaps => u64::MAX,
                Extent::All(records) => records,
            };
            let whole = expected(row.window, row.key, end).unwrap_or(row);
            if row != whole {
                let missing = whole.records.saturating_sub(row.records);
                let text = || format!("{row:?} instead of {whole:?}");
                self.fault(|found| &mut found.lost, missing.max(1), text);
            }
        }
        self.found
    }

    fn fault(
        &mut self,
        of: impl Fn(&mut Found) -> &mut u64,
        records: u64,
        text: impl FnOnce() -> String,
    ) {
        *of(&mut self.found) += records;
        if self.found.faults.len() < TOLD_MAX {
            self.found.faults.push(text());
        }
    }

    fn line(&mut self, file: &str, line: &str) {
        let Some(row) = Row::parse(line).filter(|row| row.key < KEYS) else {
            self.fault(
                |found| &mut found.unknown,
                1,
                || format!("{file}: {line:?}"),
            );
            return;
        };
        let key = &mut self.keys[row.key as usize];
        if key.has(row.window) {
            let text = || format!("{file}: a second time: {line}");
            self.fault(|found| &mut found.duplicated, row.records, text);
            return;
        }
        let late = row.window < key.next;
        key.add(row.window);
        key.next = key.next.max(row.window + 1);
        if late {
            let text = || format!("{file}: behind later windows of its key: {line}");
            self.fault(|found| &mut found.out_of_order, row.records, text);
            return;
        }
        self.judge(file, line, row);
    }

    fn judge(&mut self, file: &str, line: &str, row: Row) {
        let Some(whole) = expected(row.window, row.key, u64::MAX) else {
            self.fault(
                |found| &mut found.unknown,
                row.records,
                || format!("{file}: {line}"),
            );
            return;
        };
        let end = (row.greatest + 1).saturating_sub(FIRST);
        if row == whole {
            self.found.verified += row.records;
        } else if expected(row.window, row.key, end) == Some(row) {
            self.found.verified += row.records;
            self.partial.push(row);
        } else if row.records < whole.records {
            self.found.verified += row.records;
            let missing = whole.records - row.records;
            let text = || format!("{file}: {line} instead of {whole:?}");
            self.fault(|found| &mut found.lost, missing, text);
        } else if row.records > whole.records {
            self.found.verified += whole.records;
            let more = row.records - whole.records;
            let text = || format!("{file}: {line} instead of {whole:?}");
            self.fault(|found| &mut found.duplicated, more, text);
        } else {
            let text = || format!("{file}: {line} instead of {whole:?}");
            self.fault(|found| &mut found.unknown, row.records, text);
        }
    }
}

/// What window `window` of `key` holds of the records before `end`; `None` for nothing.
fn expected(window: u64, key: u64, end: u64) -> Option<Row> {
    Row::expected(KEYS, window, key, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDS: u64 = 12_345;

    /// The rows of a right output, as lines, in order.
    fn right() -> Vec<String> {
        let mut lines = Vec::new();
        for window in 0..RECORDS.div_ceil(WINDOW) {
            for key in 0..KEYS {
                lines.extend(expected(window, key, RECORDS).map(|row| row.to_string()));
            }
        }
        lines
    }

    fn judge(lines: &[String]) -> Found {
        let directory = tempfile::tempdir().unwrap();
        // Two files, the second one by the tenth file's number, which as text would come before the second.
        let (first, second) = lines.split_at(lines.len() / 2);
        std::fs::write(
            directory.path().join("part-a-b-0-2-1.csv"),
            first.join("\n") + "\n",
        )
        .unwrap();
        std::fs::write(
            directory.path().join("part-a-b-0-10-1.csv"),
            second.join("\n") + "\n",
        )
        .unwrap();
        std::fs::write(directory.path().join(".part-a-b-0-11-1.csv"), "hidden").unwrap();
        let mut reader = Reader::default();
        reader.read(directory.path()).unwrap();
        reader.read(directory.path()).unwrap();
        reader.finish(Extent::All(RECORDS))
    }

    fn counts(found: &Found) -> [u64; 4] {
        [
            found.lost,
            found.duplicated,
            found.out_of_order,
            found.unknown,
        ]
    }

    #[test]
    fn a_right_output_is_clean() {
        let found = judge(&right());
        assert_eq!(
            (found.verified, counts(&found)),
            (RECORDS, [0; 4]),
            "{found}"
        );
    }

    #[test]
    fn lost_duplicated_swapped_and_invented_records_are_found() {
        let lines = right();
        let mut without = lines.clone();
        without.remove(300);
        assert_eq!(counts(&judge(&without)), [4, 0, 0, 0]);

        let mut doubled = lines.clone();
        doubled.push(lines[700].clone());
        assert_eq!(counts(&judge(&doubled)), [0, 4, 0, 0]);

        // The same key of two neighbouring windows.
        let mut swapped = lines.clone();
        swapped.swap(10, 10 + KEYS as usize);
        assert_eq!(counts(&judge(&swapped)), [0, 0, 4, 0]);

        for garbage in ["rubbish", "1970-01-01 00:00:08,999,1,1,1,1", ""] {
            let mut invented = lines.clone();
            invented.push(garbage.to_owned());
            assert_eq!(counts(&judge(&invented)), [0, 0, 0, 1], "{garbage}");
        }
    }

    #[test]
    fn records_within_a_row_are_counted_too() {
        let right = expected(3, 7, u64::MAX).unwrap();
        let wrong = |change: fn(&mut Row)| {
            let mut row = right;
            change(&mut row);
            let lines: Vec<String> = self::right()
                .into_iter()
                .map(|known| {
                    if known == right.to_string() {
                        row.to_string()
                    } else {
                        known
                    }
                })
                .collect();
            counts(&judge(&lines))
        };
        assert_eq!(wrong(|row| row.records -= 1), [1, 0, 0, 0]);
        let without_the_last = |row: &mut Row| {
            row.records -= 1;
            row.total -= row.greatest;
            row.greatest -= KEYS;
        };
        assert_eq!(wrong(without_the_last), [1, 0, 0, 0]);
        assert_eq!(wrong(|row| row.records += 2), [0, 2, 0, 0]);
        assert_eq!(wrong(|row| row.total += 1), [0, 0, 0, 4]);
    }

    #[test]
    fn without_an_end_a_gap_is_found_and_the_newest_may_be_missing() {
        let directory = tempfile::tempdir().unwrap();
        let lines: Vec<String> = (0..9)
            .filter_map(|window| expected(window, 5, u64::MAX))
            .map(|row| row.to_string())
            .collect();
        let judge = |lines: &[String]| {
            std::fs::write(
                directory.path().join("part-a-b-0-1-1.csv"),
                lines.join("\n") + "\n",
            )
            .unwrap();
            let mut reader = Reader::default();
            reader.read(directory.path()).unwrap();
            reader.finish(Extent::NoGaps)
        };
        assert!(judge(&lines).is_clean());
        assert_eq!(
            judge(&[&lines[..3], &lines[4..]].concat()).lost,
            expected(3, 5, u64::MAX).unwrap().records
        );
    }
}
