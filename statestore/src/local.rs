//! Local recovery: the files of a job's newest checkpoints that this machine has anyway.
//!
//! A file that was uploaded, or downloaded, keeps a second name (a hard link) for as long as a checkpoint that may be
//! restored needs it. A restore on this machine then links it instead of downloading it. What is kept is a convenience:
//! it is checked like a download, and may be lost at any time.
//!
//! ```text
//! upload ends ──▶ held by (subtask, checkpoint) ── a later one of the subtask completed, or aborted ──▶ deleted
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flott_proto::ids::CheckpointId;
use flott_proto::state_handle::StateFile;
use tracing::{debug, warn};

use crate::checks::{Check, Checks};
use crate::error::Error;
use crate::rocks::is_immutable;

/// Which files are kept for whom. Pure.
#[derive(Debug, Default)]
struct Holdings {
    /// By path in object storage: the number that is the local name.
    files: BTreeMap<String, u64>,
    /// Paths that a subtask's checkpoint needs.
    held: BTreeMap<(String, CheckpointId), BTreeSet<String>>,
    /// Numbers that nobody needs any more, to be deleted.
    garbage: Vec<u64>,
    next: u64,
}

impl Holdings {
    /// The number under which a new file is to be linked; none if there is one.
    fn add(&mut self, path: &str) -> Option<u64> {
        if self.files.contains_key(path) {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.files.insert(path.to_owned(), number);
        Some(number)
    }

    fn hold(&mut self, owner: &str, checkpoint: CheckpointId, paths: BTreeSet<String>) {
        self.held.insert((owner.to_owned(), checkpoint), paths);
    }

    /// The owner's checkpoints that `is_over` is true of need nothing any more.
    fn release(&mut self, owner: &str, is_over: impl Fn(CheckpointId) -> bool) {
        self.held
            .retain(|(of, checkpoint), _| of != owner || !is_over(*checkpoint));
        let held: BTreeSet<&String> = self.held.values().flatten().collect();
        let garbage = &mut self.garbage;
        self.files.retain(|path, number| {
            let keep = held.contains(path);
            if !keep {
                garbage.push(*number);
            }
            keep
        });
    }

    /// It turned out to be of no use.
    fn forget(&mut self, path: &str) {
        self.garbage.extend(self.files.remove(path));
    }
}

/// The kept files of one job, for all its subtasks on this machine. Clones are the same.
#[derive(Clone, Debug)]
pub struct LocalFiles {
    dir: Arc<Path>,
    holdings: Arc<Mutex<Holdings>>,
    checks: Checks,
}

impl LocalFiles {
    /// Keeps files in `dir`, which is made and has to be on the file system of the state's working directories. The
    /// caller removes it when the job is over.
    pub fn create(dir: &Path) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(Error::local(dir))?;
        Ok(Self {
            dir: dir.into(),
            holdings: Arc::default(),
            checks: Checks::default(),
        })
    }

    /// The part of one subtask, whatever its attempt.
    pub fn of_subtask(&self, name: impl Into<String>) -> SubtaskFiles {
        SubtaskFiles {
            files: self.clone(),
            owner: name.into(),
        }
    }

    /// Makes `to` the file, if it is kept and whole. Tables are linked; the others are copied, for they may be changed.
    pub(crate) async fn fetch(&self, file: &StateFile, to: &Path) -> Option<Check> {
        if let Err(error) = self.place(file, to) {
            if error.kind() != std::io::ErrorKind::NotFound {
                warn!(path = file.path, %error, "a kept state file cannot be used; downloading it");
            }
            return None;
        }
        match self.checks.file(to.to_owned()).await {
            Ok((found, check)) if found == (file.crc32c, file.size) => Some(check),
            found => {
                warn!(
                    path = file.path,
                    ?found,
                    "a kept state file is damaged; downloading it"
                );
                self.holdings().forget(&file.path);
                // If it cannot be removed, the download says why.
                let _ = fs::remove_file(to);
                None
            }
        }
    }

    /// The checks of files on this machine.
    pub(crate) fn checks(&self) -> &Checks {
        &self.checks
    }

    /// Under the lock, so that the file is not deleted meanwhile.
    fn place(&self, file: &StateFile, to: &Path) -> std::io::Result<()> {
        let holdings = self.holdings();
        let number = holdings.files.get(&file.path);
        let kept = number.map(|number| self.path_of(*number));
        let kept = kept.ok_or(std::io::ErrorKind::NotFound)?;
        if is_immutable(&file.local_name) {
            fs::hard_link(kept, to)
        } else {
            fs::copy(kept, to).map(drop)
        }
    }

    fn path_of(&self, number: u64) -> PathBuf {
        self.dir.join(number.to_string())
    }

    fn holdings(&self) -> MutexGuard<'_, Holdings> {
        self.holdings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one subtask keeps.
#[derive(Clone, Debug)]
pub struct SubtaskFiles {
    files: LocalFiles,
    owner: String,
}

impl SubtaskFiles {
    /// The checkpoint consists of these files, each with its place on this machine if it has one: those without are kept
    /// already, or will have to be downloaded. Blocks on the disk, also to delete what is not needed any more. A file that
    /// cannot be kept will have to be downloaded, no more.
    pub(crate) fn keep(&self, checkpoint: CheckpointId, files: &[(Option<PathBuf>, StateFile)]) {
        let mut holdings = self.files.holdings();
        for (from, file) in files {
            let Some(from) = from else { continue };
            let Some(number) = holdings.add(&file.path) else {
                continue;
            };
            let linked = fs::hard_link(from, self.files.path_of(number));
            if let Err(error) = linked {
                debug!(path = file.path, %error, "a state file is not kept");
                holdings.forget(&file.path);
            }
        }
        let paths = files.iter().map(|(_, file)| file.path.clone()).collect();
        holdings.hold(&self.owner, checkpoint, paths);
        let garbage = std::mem::take(&mut holdings.garbage);
        drop(holdings);
        for number in garbage {
            // It may never have been linked.
            let _ = fs::remove_file(self.files.path_of(number));
        }
    }

    /// The checkpoint has completed: those before it are not needed.
    pub(crate) fn completed(&self, checkpoint: CheckpointId) {
        let mut holdings = self.files.holdings();
        if holdings
            .held
            .contains_key(&(self.owner.clone(), checkpoint))
        {
            holdings.release(&self.owner, |held| held < checkpoint);
        }
    }

    /// The checkpoint will never complete.
    pub(crate) fn aborted(&self, checkpoint: CheckpointId) {
        let mut holdings = self.files.holdings();
        holdings.release(&self.owner, |held| held == checkpoint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn held(owner: &str, checkpoint: u64, names: &[&str], holdings: &mut Holdings) {
        for name in names {
            holdings.add(name);
        }
        holdings.hold(owner, CheckpointId(checkpoint), paths(names));
    }

    #[test]
    fn a_file_is_kept_until_the_last_checkpoint_that_needs_it_is_over() {
        let mut holdings = Holdings::default();
        held("v-0", 1, &["a", "b"], &mut holdings);
        held("v-1", 1, &["c"], &mut holdings);
        held("v-0", 2, &["b", "d"], &mut holdings);
        assert_eq!(holdings.add("b"), None, "it is here");
        holdings.release("v-0", |held| held < CheckpointId(2));
        let kept: BTreeSet<String> = holdings.files.keys().cloned().collect();
        assert_eq!(kept, paths(&["b", "c", "d"]));
        assert_eq!(holdings.garbage, [0]);
        holdings.release("v-0", |held| held == CheckpointId(2));
        let kept: BTreeSet<String> = holdings.files.keys().cloned().collect();
        assert_eq!(kept, paths(&["c"]));
        assert_eq!(holdings.add("a"), Some(4), "a name is never used again");
    }
}
