//! What stands in the place of RocksDB in a simulation: entries in memory, and files of the same kinds that become and go
//! likewise. A flush makes a table of what has changed; a few tables are merged into one; a manifest lists those that hold.
//! As there, a snapshot has the tables from before some merges too, and many changes are flushed before a snapshot asks for it.
//!
//! So everything above it (what is uploaded, what is shared by checkpoints, what a restore opens) is the real code.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flott_node::Failpoint;
use tokio::sync::Notify;

use super::{
    Batch, CURRENT, Entry, Fate, Linked, Memory, SavedFile, point_to_manifest, table_number,
};
use crate::error::Error;

/// Tables beyond which all are merged.
const TABLES_MAX: usize = 4;

/// Tables beyond which a snapshot takes over what was merged.
const UNMERGED_MAX: usize = 9;

/// Changed keys beyond which memory is full.
const UNFLUSHED_MAX: usize = 8;

const MANIFEST: &str = "MANIFEST-000001";

/// A key, and its value or that it was deleted.
type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// An open database.
#[derive(Debug)]
pub(crate) struct Simulated {
    dir: PathBuf,
    contents: Mutex<Contents>,
    early: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Contents {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What no table has.
    unflushed: Changes,
    tables: Vec<Table>,
    unmerged: Vec<Table>,
    /// Those of `tables` that were flushed since the last snapshot.
    early: Vec<Table>,
    fate: Arc<Fate>,
    next_file: u64,
}

#[derive(Clone, Debug)]
struct Table {
    name: String,
    size: u64,
}

impl Simulated {
    pub(super) fn create(dir: &Path, memory: &Memory) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(Error::local(dir))?;
        point_to_manifest(dir, MANIFEST)?;
        let contents = Contents {
            next_file: 2,
            ..Contents::default()
        };
        Ok(Self::of(dir, contents, memory))
    }

    pub(super) fn open(
        dir: &Path,
        memory: &Memory,
        foreign: &[Range<Vec<u8>>],
    ) -> Result<Self, Error> {
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
            contents.tables.push(Table {
                name: name.to_owned(),
                size: table.len() as u64,
            });
        }
        contents.unmerged = contents.tables.clone();
        let numbers = contents
            .tables
            .iter()
            .filter_map(|table| table_number(&table.name));
        contents.next_file = numbers.max().unwrap_or(1) + 1;
        let is_foreign = |key: &Vec<u8>| {
            foreign
                .iter()
                .any(|range| range.start <= *key && *key < range.end)
        };
        contents.entries.retain(|key, _| !is_foreign(key));
        Ok(Self::of(dir, contents, memory))
    }

    fn of(dir: &Path, contents: Contents, memory: &Memory) -> Self {
        Self {
            dir: dir.to_owned(),
            contents: Mutex::new(contents),
            early: Arc::clone(&memory.early),
        }
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.contents().entries.get(key).cloned()
    }

    pub(super) fn write(&self, batch: &Batch) -> Result<(), Error> {
        let mut contents = self.contents();
        batch.for_each(|key, value| {
            let value = value.map(<[u8]>::to_vec);
            contents.unflushed.insert(key.to_vec(), value.clone());
            contents.set(key.to_vec(), value);
        });
        if contents.unflushed.len() > UNFLUSHED_MAX
            && let Some(flushed) = contents.flush(&self.dir)?
        {
            contents.early.push(flushed);
            self.early.notify_one();
        }
        Ok(())
    }

    pub(super) fn early(&self) -> Vec<SavedFile> {
        let contents = self.contents();
        let files = contents.early.iter().map(|table| SavedFile {
            name: table.name.clone(),
            size: table.size,
            path: Some(self.dir.join(&table.name)),
        });
        files.collect()
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
        self.contents().flush(&self.dir).map(drop)
    }

    fn merge(&self, contents: &mut Contents) -> Result<(), Error> {
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
        if contents.unmerged.len() > UNMERGED_MAX {
            contents.unmerged = contents.tables.clone();
        }
        Ok(())
    }

    pub(super) fn link_into(&self, dir: &Path) -> Result<Linked, Error> {
        Failpoint::BeforeFlush.pass();
        self.flush()?;
        Failpoint::Flushed.pass();
        let mut contents = self.contents();
        for table in &contents.tables {
            let to = dir.join(&table.name);
            fs::hard_link(self.dir.join(&table.name), &to).map_err(Error::local(&to))?;
        }
        if contents.fate.take_lost() {
            contents.unmerged = contents.tables.clone();
        }
        let linked = Linked {
            live: contents.saved(&contents.tables, dir, "LIVE")?,
            unmerged: contents.saved(&contents.unmerged, dir, MANIFEST)?,
            fate: Arc::clone(&contents.fate),
        };
        contents.early.clear();
        Failpoint::Linked.pass();
        self.merge(&mut contents)?;
        Ok(linked)
    }
}

impl Contents {
    fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        match value {
            Some(value) => self.entries.insert(key, value),
            None => self.entries.remove(&key),
        };
    }

    fn flush(&mut self, dir: &Path) -> Result<Option<Table>, Error> {
        let changes = std::mem::take(&mut self.unflushed);
        if changes.is_empty() {
            return Ok(None);
        }
        let flushed = self.add_table(dir, &changes)?;
        self.unmerged.push(flushed.clone());
        Ok(Some(flushed))
    }

    /// The files that have `tables`, which are in `dir` unless they were merged.
    fn saved(&self, tables: &[Table], dir: &Path, manifest: &str) -> Result<Vec<SavedFile>, Error> {
        let names = tables.iter().map(|table| format!("{}\n", table.name));
        let listed: String = names.collect();
        let path = dir.join(manifest);
        fs::write(&path, &listed).map_err(Error::local(&path))?;
        let is_here = |table: &Table| self.tables.iter().any(|here| here.name == table.name);
        let tables = tables.iter().map(|table| SavedFile {
            name: table.name.clone(),
            size: table.size,
            path: is_here(table).then(|| dir.join(&table.name)),
        });
        let mut files: Vec<SavedFile> = tables.collect();
        files.push(SavedFile {
            name: MANIFEST.to_owned(),
            size: listed.len() as u64,
            path: Some(path),
        });
        Ok(files)
    }

    fn add_table(&mut self, dir: &Path, changes: &Changes) -> Result<Table, Error> {
        let name = format!("{:06}.sst", self.next_file);
        self.next_file += 1;
        let bytes = encode(changes);
        let path = dir.join(&name);
        fs::write(&path, &bytes).map_err(Error::local(&path))?;
        let table = Table {
            name,
            size: bytes.len() as u64,
        };
        self.tables.push(table.clone());
        Ok(table)
    }
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
        let memory = Memory::of(0);
        let database = Simulated::create(&tmp.path().join("db"), &memory).unwrap();
        fs::create_dir(tmp.path().join("kept")).unwrap();
        for round in 0..8u8 {
            let mut batch = Batch::default();
            batch.put(&[round], b"value");
            batch.delete(&[round.wrapping_sub(1)]);
            database.write(&batch).unwrap();
            let snapshot = tmp.path().join(round.to_string());
            fs::create_dir(&snapshot).unwrap();
            let linked = database.link_into(&snapshot).unwrap();
            assert!(linked.live.len() <= TABLES_MAX + 2, "merged, but for one");
            assert_eq!(linked.unmerged.len(), usize::from(round) + 2, "one more");
            for file in &linked.unmerged {
                let kept = tmp.path().join("kept").join(&file.name);
                let Some(path) = &file.path else {
                    fs::hard_link(&kept, snapshot.join(&file.name)).unwrap();
                    continue;
                };
                let _ = fs::remove_file(&kept);
                fs::hard_link(path, kept).unwrap();
            }
            point_to_manifest(&snapshot, MANIFEST).unwrap();
            let copy = Simulated::open(&snapshot, &memory, &[]).unwrap();
            assert_eq!(copy.get(&[round]), Some(b"value".to_vec()));
            assert_eq!(copy.get(&[round.wrapping_sub(1)]), None);
            assert_eq!(copy.range(vec![0], vec![9]).entries.len(), 1);
        }
    }
}
