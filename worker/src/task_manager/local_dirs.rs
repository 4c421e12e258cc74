//! The directories of working state on local disk. They may be lost at any time between two processes.
//!
//! ```text
//! <io.tmp.dirs>/<task manager id>/.flott-taskmanager      locked as long as the process lives
//! <io.tmp.dirs>/<task manager id>/<job>/<attempt>/<vertex>-<subtask>/
//! <io.tmp.dirs>/<task manager id>/<job>/kept/             files of its newest checkpoints
//! ```
//!
//! A directory with that file whose lock is free was left behind by a process that is gone: it is removed at the start
//! of the next. Nothing else in `io.tmp.dirs` is ever touched.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use flott_proto::ids::{AttemptNumber, JobId, SubtaskId, TaskManagerId};
use tracing::{info, warn};

use crate::Error;

const MARKER: &str = ".flott-taskmanager";

/// The directory of this process, and the lock that says so.
#[derive(Debug)]
pub(crate) struct LocalDirs {
    root: PathBuf,
    _lock: File,
}

impl LocalDirs {
    /// Makes an empty directory for `id` and removes what earlier processes left. Fails if a living process has it.
    pub(crate) fn open(tmp_dir: &Path, id: &TaskManagerId) -> Result<Self, Error> {
        fs::create_dir_all(tmp_dir).map_err(Error::io("create (io.tmp.dirs)", tmp_dir))?;
        let root = tmp_dir.join(id.as_str());
        let entries = fs::read_dir(tmp_dir).map_err(Error::io("read (io.tmp.dirs)", tmp_dir))?;
        for entry in entries.flatten() {
            if entry.path().join(MARKER).is_file() {
                remove_if_abandoned(&entry.path());
            }
        }
        fs::create_dir_all(&root).map_err(Error::io("create", &root))?;
        let marker = root.join(MARKER);
        let lock = File::create(&marker).map_err(Error::io("create", &marker))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { root, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::Configuration(format!(
                "{} belongs to a running task manager; give each its own taskmanager.resource-id or io.tmp.dirs",
                root.display()
            ))),
            Err(TryLockError::Error(source)) => Err(Error::io("lock", &marker)(source)),
        }
    }

    /// Everything of one attempt.
    pub(crate) fn attempt(&self, job: &JobId, attempt: AttemptNumber) -> PathBuf {
        self.root.join(job.as_str()).join(attempt.to_string())
    }

    /// What is kept of a job's checkpoints from one attempt to the next.
    pub(crate) fn kept(&self, job: &JobId) -> PathBuf {
        self.root.join(job.as_str()).join("kept")
    }

    /// The working state of one task.
    pub(crate) fn task(&self, job: &JobId, attempt: AttemptNumber, subtask: &SubtaskId) -> PathBuf {
        self.attempt(job, attempt)
            .join(format!("{}-{}", subtask.vertex, subtask.subtask))
    }

    /// Removes everything; the process ends.
    pub(crate) fn remove(self) {
        remove(&self.root);
    }
}

/// Removes a directory with all that is in it. What cannot be removed is left to the next start.
pub(crate) fn remove(dir: &Path) {
    match fs::remove_dir_all(dir) {
        Ok(()) => (),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => (),
        Err(error) => warn!(dir = %dir.display(), %error, "cannot remove working state"),
    }
}

fn remove_if_abandoned(dir: &Path) {
    let Ok(marker) = File::open(dir.join(MARKER)) else {
        return;
    };
    if marker.try_lock().is_ok() {
        info!(dir = %dir.display(), "removing what an earlier task manager left");
        remove(dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_go_and_living_processes_and_strangers_stay() {
        let tmp = tempfile::tempdir().unwrap();
        let stranger = tmp.path().join("precious");
        fs::create_dir(&stranger).unwrap();
        let open = |id: &str| LocalDirs::open(tmp.path(), &id.parse().unwrap());
        let job: JobId = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let dead = open("tm-1").unwrap();
        let left = dead.attempt(&job, AttemptNumber(1));
        fs::create_dir_all(&left).unwrap();
        drop(dead);
        let alive = open("tm-2").unwrap();
        assert!(!left.exists() && stranger.exists());
        let kept = alive.attempt(&job, AttemptNumber(1));
        fs::create_dir_all(&kept).unwrap();
        assert!(
            open("tm-2")
                .unwrap_err()
                .to_string()
                .contains("resource-id")
        );
        open("tm-3").unwrap().remove();
        assert!(kept.exists());
    }
}
