//! Exactly-once: the committed files of a job, read as any outside reader would. Each row is there once, says what it must,
//! and comes behind the earlier ones of its key; and when everything was read, none is missing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use flott_chaos_basis::sequence::{Row, order};

use crate::cluster::job::KEYS;

/// The files of one directory, as they became visible.
#[derive(Debug)]
pub struct Output {
    directory: PathBuf,
    records: u64,
    read: BTreeSet<String>,
    /// By key: the window that comes next.
    next: Vec<u64>,
    rows: u64,
}

impl Output {
    /// Of a job that reads so many records; 0: any number.
    pub fn new(directory: &Path, records: u64) -> Self {
        Self {
            directory: directory.to_owned(),
            records: if records == 0 { u64::MAX } else { records },
            read: BTreeSet::new(),
            next: vec![0; KEYS as usize],
            rows: 0,
        }
    }

    /// Rows that were read so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Reads what has become visible.
    pub fn check(&mut self) -> Result<(), String> {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            // Nothing was ever written.
            return Ok(());
        };
        let names = entries.flatten().map(|entry| entry.file_name());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        let mut new: Vec<String> = names
            .filter(|name| !name.starts_with('.') && !self.read.contains(name))
            .collect();
        new.sort_by_key(|name| order(name));
        for name in new {
            let text = fs::read_to_string(self.directory.join(&name));
            let text = text.map_err(|error| format!("output: {name}: {error}"))?;
            if !text.is_empty() && !text.ends_with('\n') {
                return Err(format!("output: {name} ends within a line"));
            }
            for line in text.lines() {
                self.line(line)
                    .map_err(|what| format!("output: {name}: {line}: {what}"))?;
            }
            self.read.insert(name);
        }
        Ok(())
    }

    /// Whether everything is there that a job makes of all its records.
    pub fn check_complete(&self) -> Result<(), String> {
        for key in 0..KEYS {
            let next = self.next[key as usize];
            if let Some(missing) = expected(next, key, self.records) {
                return Err(format!("output: lost, with all behind it: {missing:?}"));
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let row = Row::parse(line).filter(|row| row.key < KEYS);
        let row = row.ok_or("no row of this job")?;
        let next = &mut self.next[row.key as usize];
        if row.window < *next {
            return Err("a second time, or behind a later one of its key".to_owned());
        }
        while *next < row.window {
            if let Some(missing) = expected(*next, row.key, self.records) {
                return Err(format!("before it, this is missing: {missing:?}"));
            }
            *next += 1;
        }
        *next += 1;
        self.rows += 1;
        match expected(row.window, row.key, self.records) {
            Some(expected) if expected == row => Ok(()),
            expected => Err(format!("instead of {expected:?}")),
        }
    }
}

/// What a window of a key holds of the records before `end`; none for nothing.
fn expected(window: u64, key: u64, end: u64) -> Option<Row> {
    Row::expected(KEYS, window, key, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(lines: &[&str]) -> Result<(), String> {
        let mut output = Output::new(Path::new("/nowhere"), 1500);
        for line in lines {
            output.line(line)?;
        }
        output.check_complete()
    }

    fn right() -> Vec<String> {
        let rows =
            (0..2).flat_map(|window| (0..KEYS).filter_map(move |key| expected(window, key, 1500)));
        rows.map(|row| row.to_string()).collect()
    }

    #[test]
    fn right_output_passes_and_says_every_record_once() {
        let lines = right();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        judge(&lines).unwrap();
        let records = lines
            .iter()
            .filter_map(|line| Row::parse(line))
            .map(|row| row.records);
        assert_eq!(records.sum::<u64>(), 1500);
    }

    #[test]
    fn what_is_lost_repeated_swapped_or_wrong_does_not() {
        let lines = right();
        let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let (first, last) = (lines[0], lines[lines.len() - 1]);
        assert!(judge(&lines[1..]).is_err(), "the first is lost");
        assert!(
            judge(&lines[..lines.len() - 1]).is_err(),
            "the last is lost"
        );
        lines.push(last);
        assert!(judge(&lines).is_err(), "the last is there twice");
        lines.pop();
        lines.swap(0, KEYS as usize);
        assert!(judge(&lines).is_err(), "two windows of a key are swapped");
        lines.swap(0, KEYS as usize);
        let wrong = first.replace(",0,", ",0,1");
        lines[0] = &wrong;
        assert!(judge(&lines).is_err(), "a row is wrong");
    }
}
