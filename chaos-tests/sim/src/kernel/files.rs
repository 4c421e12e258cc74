//! What a disk still has after the power has failed.
//!
//! Files really lie in a file system in memory. Here is kept account of what a disk would not have yet: writes since the
//! last sync of a file, and changes of a directory since its last sync. When the power fails, any of the former may be
//! there, wholly, partly, or not at all, and of the latter those up to any point in the order in which they were made.
//! A name is durable only once its directory was synced.
//!
//! A sync that fails loses what it was to make durable, although it can still be read, and the next sync succeeds: that is
//! what Linux does.

mod operations;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::FromRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flott_chaos_basis::random::Random;
use libc::c_int;

use super::hosts::HostId;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The system carries it out.
    Go,
    /// It fails with this code.
    Fail(c_int),
}

#[derive(Debug)]
struct Open {
    host: HostId,
    path: PathBuf,
    inode: u64,
    is_directory: bool,
}

/// A change of a file that is not on disk.
#[derive(Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLength(u64),
}

/// A file of which something is not on disk.
#[derive(Debug)]
struct Dirty {
    host: HostId,
    file: File,
    /// What is.
    durable: Vec<u8>,
    changes: Vec<Change>,
    /// Something can be read that no sync will make durable.
    has_lost: bool,
}

/// A change of a directory that is not on disk.
#[derive(Debug)]
enum Entry {
    Made(PathBuf),
    MadeDirectory(PathBuf),
    Renamed {
        from: PathBuf,
        to: PathBuf,
        replaced: Option<PathBuf>,
    },
    Removed {
        path: PathBuf,
        kept: PathBuf,
    },
}

/// The files of all hosts.
#[derive(Debug)]
pub struct Files {
    root: PathBuf,
    chance: Random,
    open: BTreeMap<c_int, Open>,
    /// By inode.
    dirty: BTreeMap<u64, Dirty>,
    /// By directory, in the order in which they were made.
    entries: BTreeMap<PathBuf, Vec<Entry>>,
    kept: u64,
    /// Hosts whose files are working state: of them no account is kept.
    pub scratch: BTreeSet<HostId>,
}

impl Files {
    pub(super) fn new(root: &Path, chance: Random) -> Self {
        Self {
            root: root.to_owned(),
            chance,
            open: BTreeMap::new(),
            dirty: BTreeMap::new(),
            entries: BTreeMap::new(),
            kept: 0,
            scratch: BTreeSet::new(),
        }
    }

    /// Where a host's files are.
    pub fn directory(&self, host: HostId) -> PathBuf {
        self.root.join(host.to_string())
    }

    fn host_of(&self, path: &Path) -> Option<HostId> {
        let first = path.strip_prefix(&self.root).ok()?.components().next()?;
        let host = first.as_os_str().to_str()?.parse().ok()?;
        (!self.scratch.contains(&host)).then_some(host)
    }

    pub(super) fn closed(&mut self, fd: c_int) {
        self.open.remove(&fd);
    }

    /// A place for something that has lost its name.
    fn keep(&mut self) -> PathBuf {
        self.kept += 1;
        self.root.join(format!("kept-{}", self.kept))
    }

    fn note(&mut self, path: &Path, entry: Entry) {
        if let Some(parent) = path.parent() {
            self.entries
                .entry(parent.to_owned())
                .or_default()
                .push(entry);
        }
    }

    /// Of the file behind `fd` something is about to change.
    fn change(&mut self, fd: c_int, change: Change) -> io::Result<()> {
        let Some(open) = self.open.get(&fd) else {
            return Ok(());
        };
        if let Some(dirty) = self.dirty.get_mut(&open.inode) {
            dirty.changes.push(change);
            return Ok(());
        }
        let file = File::options()
            .read(true)
            .write(true)
            .open(format!("/proc/self/fd/{fd}"))?;
        let mut durable = vec![0; file.metadata()?.len() as usize];
        file.read_exact_at(&mut durable, 0)?;
        let dirty = Dirty {
            host: open.host,
            file,
            durable,
            changes: vec![change],
            has_lost: false,
        };
        self.dirty.insert(open.inode, dirty);
        Ok(())
    }

    /// What was changed since the last sync is on disk.
    fn make_durable(&mut self, fd: c_int) {
        let Some(open) = self.open.get(&fd) else {
            return;
        };
        if open.is_directory {
            for entry in self.entries.remove(&open.path).unwrap_or_default() {
                if let Entry::Removed { kept, .. }
                | Entry::Renamed {
                    replaced: Some(kept),
                    ..
                } = entry
                {
                    // Nobody asks for it any more.
                    let _ = fs::remove_file(kept);
                }
            }
            return;
        }
        let inode = open.inode;
        if let Some(dirty) = self.dirty.get_mut(&inode) {
            for change in dirty.changes.drain(..) {
                apply(&mut dirty.durable, &change, usize::MAX);
            }
            if !dirty.has_lost {
                self.dirty.remove(&inode);
            }
        }
    }

    /// A sync failed: what it was for will never be on disk.
    fn lose(&mut self, fd: c_int) {
        let inode = self.open.get(&fd).map(|open| open.inode);
        if let Some(dirty) = inode.and_then(|inode| self.dirty.get_mut(&inode)) {
            dirty.changes.clear();
            dirty.has_lost = true;
        }
    }

    /// The process of a host has ended, and holds no file any more.
    fn release(&mut self, host: HostId) {
        let held: Vec<c_int> = self
            .open
            .iter()
            .filter(|(_, open)| open.host == host)
            .map(|(fd, _)| *fd)
            .collect();
        for fd in held {
            self.open.remove(&fd);
            #[expect(
                unsafe_code,
                reason = "its owner belongs to a process that has ended, and is never dropped"
            )]
            // SAFETY: see the reason.
            drop(unsafe { File::from_raw_fd(fd) });
        }
    }

    /// A host's power has failed: its files are as its disk has them. How many changes of files were lost or torn.
    fn fail_power(&mut self, host: HostId) -> io::Result<u64> {
        let mut lost = 0;
        let inodes: Vec<u64> = self
            .dirty
            .iter()
            .filter(|(_, dirty)| dirty.host == host)
            .map(|(inode, _)| *inode)
            .collect();
        // Disks differ: some lose nothing, some everything, most a part.
        let survives = *self.chance.pick(&[0, 300, 700, 1000]);
        for inode in inodes {
            let Some(mut dirty) = self.dirty.remove(&inode) else {
                continue;
            };
            for change in &dirty.changes {
                let whole = self.chance.permille(survives);
                let sectors = self.chance.below(16) as usize;
                let torn = self.chance.permille(500).then_some(sectors * 512);
                let length = if whole { usize::MAX } else { torn.unwrap_or(0) };
                if !apply(&mut dirty.durable, change, length) {
                    lost += 1;
                }
            }
            dirty.file.set_len(dirty.durable.len() as u64)?;
            dirty.file.write_all_at(&dirty.durable, 0)?;
        }
        let own = self.directory(host);
        let directories: Vec<PathBuf> = self
            .entries
            .keys()
            .filter(|directory| directory.starts_with(&own))
            .cloned()
            .collect();
        // Inner ones first: an outer one may be about to vanish with all that is in it.
        for directory in directories.into_iter().rev() {
            let entries = self.entries.remove(&directory).unwrap_or_default();
            let kept = self.chance.below(entries.len() as u64 + 1) as usize;
            for entry in entries.into_iter().skip(kept).rev() {
                undo(entry)?;
                lost += 1;
            }
        }
        Ok(lost)
    }
}

/// Applies as much of a change as `length` allows; whether that is all of it.
fn apply(contents: &mut Vec<u8>, change: &Change, length: usize) -> bool {
    match change {
        Change::Write { offset, bytes } => {
            let part = &bytes[..bytes.len().min(length)];
            let offset = *offset as usize;
            if !part.is_empty() {
                contents.resize(contents.len().max(offset + part.len()), 0);
                contents[offset..offset + part.len()].copy_from_slice(part);
            }
            part.len() == bytes.len()
        }
        Change::SetLength(to) if length > 0 => {
            contents.resize(*to as usize, 0);
            true
        }
        Change::SetLength(_) => false,
    }
}

fn undo(entry: Entry) -> io::Result<()> {
    match entry {
        Entry::Made(path) => fs::remove_file(path),
        Entry::MadeDirectory(path) => fs::remove_dir_all(path),
        Entry::Renamed { from, to, replaced } => {
            fs::rename(&to, from)?;
            replaced.map_or(Ok(()), |kept| fs::rename(kept, to))
        }
        Entry::Removed { path, kept } => fs::rename(kept, path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_write_leaves_its_beginning() {
        let mut contents = vec![1; 4];
        let change = Change::Write {
            offset: 2,
            bytes: vec![7; 4],
        };
        assert!(!apply(&mut contents, &change, 3));
        assert_eq!(contents, [1, 1, 7, 7, 7]);
        assert!(apply(&mut contents, &change, usize::MAX));
        assert_eq!(contents, [1, 1, 7, 7, 7, 7]);
    }
}
