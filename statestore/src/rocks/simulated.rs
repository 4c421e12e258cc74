//! What stands in the place of RocksDB in a simulation: entries in memory, and files of the same kinds that become and go
//! likewise. A flush makes a table of what has changed; a few tables are merged into one; a manifest lists those that hold.
//!
//! So everything above it (what is uploaded, what is shared by checkpoints, what a restore opens) is the real code.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use flott_node::Failpoint;

use super::{Batch, CURRENT, Entry, LiveFile, point_to_manifest};
use crate::error::Error;

/// Tables beyond which all are merged.
const TABLES_MAX: usize = 4;

/// A key, and its value or that it was deleted.
type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// An open database.
#[derive(Debug)]
pub(crate) struct Simulated {
    dir: PathBuf,
    contents: Mutex<Contents>,
}

#[derive(Debug, Default)]
struct Contents {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What no table has.
    unflushed: Changes,
    tables: Vec<LiveFile>,
    next_file: u64,
}

impl Simulated {
    pub(super) fn create(dir: &Path) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(Error::local(dir))?;
        point_to_manifest(dir, "MANIFEST-000001")?;
        let contents = Contents {
            next_file: 2,
            ..Contents::default()
        };
        Ok(Self::of(dir, contents))
    }

    pub(super) fn open(dir: &Path, foreign: &[Range<Vec<u8>>]) -> Result<Self, Error> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read(&path).map_err(Error::local(&path))
        };
        let damaged = |name: &str| Error::Corrupt {
            path: dir.join(name).display().to_string(),
            reason: "a simulated database cannot be read".to_owned(),
        };
        let current = String::from_utf8_lossy(&read(CURRENT)?).into_owned();
        let manifest = read(current.trim())?;
        let manifest = String::from_utf8_lossy(&manifest).into_owned();
        let mut contents = Contents::default();
        for name in manifest.lines() {
            let table = read(name)?;
            let changes = decode(&table).ok_or_else(|| damaged(name))?;
            for (key, value) in changes {
                contents.set(key, value);
            }
            contents.tables.push(LiveFile {
                name: name.to_owned(),
                size: table.len() as u64,
            });
        }
        let numbers = contents
            .tables
            .iter()
            .filter_map(|table| number_of(&table.name));
        contents.next_file = numbers.max().unwrap_or(1) + 1;
        let is_foreign = |key: &Vec<u8>| {
            foreign
                .iter()
                .any(|range| range.start <= *key && *key < range.end)
        };
        contents.entries.retain(|key, _| !is_foreign(key));
        Ok(Self::of(dir, contents))
    }

    fn of(dir: &Path, contents: Contents) -> Self {
        Self {
            dir: dir.to_owned(),
            contents: Mutex::new(contents),
        }
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.contents().entries.get(key).cloned()
    }

    pub(super) fn write(&self, batch: &Batch) {
        let mut contents = self.contents();
        batch.for_each(|key, value| {
            let value = value.map(<[u8]>::to_vec);
            contents.unflushed.insert(key.to_vec(), value.clone());
            contents.set(key.to_vec(), value);
        });
    }

    pub(super) fn range(&self, from: Vec<u8>, to: Vec<u8>) -> SimulatedCursor {
        let contents = self.contents();
        let entries = contents.entries.range(from..to);
        let entries = entries.map(|(key, value)| (key.clone(), value.clone()));
        SimulatedCursor {
            entries: entries.collect(),
            at: 0,
        }
    }

    pub(super) fn flush(&self) -> Result<(), Error> {
        let mut contents = self.contents();
        let changes = std::mem::take(&mut contents.unflushed);
        if !changes.is_empty() {
            contents.add_table(&self.dir, &changes)?;
        }
        if contents.tables.len() > TABLES_MAX {
            let merged = std::mem::take(&mut contents.tables);
            let all = contents.entries.iter();
            let all = all.map(|(key, value)| (key.clone(), Some(value.clone())));
            let all: Changes = all.collect();
            contents.add_table(&self.dir, &all)?;
            for table in merged {
                let path = self.dir.join(table.name);
                fs::remove_file(&path).map_err(Error::local(&path))?;
            }
        }
        Ok(())
    }

    pub(super) fn link_into(&self, dir: &Path) -> Result<Vec<LiveFile>, Error> {
        Failpoint::BeforeFlush.pass();
        self.flush()?;
        Failpoint::Flushed.pass();
        let contents = self.contents();
        let mut files = contents.tables.clone();
        for table in &files {
            let to = dir.join(&table.name);
            fs::hard_link(self.dir.join(&table.name), &to).map_err(Error::local(&to))?;
        }
        let names = files.iter().map(|table| format!("{}\n", table.name));
        let manifest: String = names.collect();
        let name = "MANIFEST-000001".to_owned();
        let path = dir.join(&name);
        fs::write(&path, &manifest).map_err(Error::local(&path))?;
        files.push(LiveFile {
            name,
            size: manifest.len() as u64,
        });
        Failpoint::Linked.pass();
        Ok(files)
    }
}

impl Contents {
    fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        match value {
            Some(value) => self.entries.insert(key, value),
            None => self.entries.remove(&key),
        };
    }

    fn add_table(&mut self, dir: &Path, changes: &Changes) -> Result<(), Error> {
        let name = format!("{:06}.sst", self.next_file);
        self.next_file += 1;
        let bytes = encode(changes);
        let path = dir.join(&name);
        fs::write(&path, &bytes).map_err(Error::local(&path))?;
        self.tables.push(LiveFile {
            name,
            size: bytes.len() as u64,
        });
        Ok(())
    }
}

fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(".sst")?.parse().ok()
}

/// Each key and value behind its length; the length of what was deleted is `u32::MAX`.
fn encode(changes: &Changes) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in changes {
        bytes.extend((key.len() as u32).to_le_bytes());
        bytes.extend(key);
        let length = value.as_ref().map_or(u32::MAX, |value| value.len() as u32);
        bytes.extend(length.to_le_bytes());
        bytes.extend(value.iter().flatten());
    }
    bytes
}

fn decode(mut bytes: &[u8]) -> Option<Changes> {
    fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        Some(taken)
    }
    fn length(bytes: &mut &[u8]) -> Option<u32> {
        take(bytes, 4)?.try_into().ok().map(u32::from_le_bytes)
    }
    let mut changes = Changes::new();
    while !bytes.is_empty() {
        let key_length = length(&mut bytes)?;
        let key = take(&mut bytes, key_length as usize)?.to_vec();
        let value = match length(&mut bytes)? {
            u32::MAX => None,
            length => Some(take(&mut bytes, length as usize)?.to_vec()),
        };
        changes.insert(key, value);
    }
    Some(changes)
}

/// A walk over a range of keys, as they were when it began.
#[derive(Debug)]
pub(crate) struct SimulatedCursor {
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    at: usize,
}

impl SimulatedCursor {
    pub(super) fn next(&mut self) -> Option<Entry<'_>> {
        let entry = self.entries.get(self.at)?;
        self.at += 1;
        Some((&entry.0, &entry.1))
    }

    pub(super) fn peek(&mut self) -> Option<Entry<'_>> {
        let entry = self.entries.get(self.at)?;
        Some((&entry.0, &entry.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_before_a_snapshot_is_in_its_files() {
        let tmp = tempfile::tempdir().unwrap();
        let database = Simulated::create(&tmp.path().join("db")).unwrap();
        for round in 0..8u8 {
            let mut batch = Batch::default();
            batch.put(&[round], b"value");
            batch.delete(&[round.wrapping_sub(1)]);
            database.write(&batch);
            let snapshot = tmp.path().join(round.to_string());
            fs::create_dir(&snapshot).unwrap();
            let files = database.link_into(&snapshot).unwrap();
            assert!(files.len() <= TABLES_MAX + 1);
            point_to_manifest(&snapshot, "MANIFEST-000001").unwrap();
            let copy = Simulated::open(&snapshot, &[]).unwrap();
            assert_eq!(copy.get(&[round]), Some(b"value".to_vec()));
            assert_eq!(copy.get(&[round.wrapping_sub(1)]), None);
            assert_eq!(copy.range(vec![0], vec![9]).entries.len(), 1);
        }
    }
}
