//! State files of jobs that ran here lately, kept for their next attempt.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use flott_proto::ids::JobId;
use flott_statestore::LocalFiles;

use super::local_dirs::LocalDirs;
use crate::Error;

/// A job that has had no task here for so long has ended, or runs elsewhere.
const UNUSED_MAX: Duration = Duration::from_secs(300);

#[derive(Debug)]
struct Kept {
    files: LocalFiles,
    last_used: Duration,
}

/// The kept files by job.
#[derive(Debug, Default)]
pub(crate) struct LocalState(BTreeMap<JobId, Kept>);

impl LocalState {
    /// Those of a job that is deployed now.
    pub(crate) fn of(
        &mut self,
        job: &JobId,
        dirs: &LocalDirs,
        now: Duration,
    ) -> Result<LocalFiles, Error> {
        if let Some(kept) = self.0.get_mut(job) {
            kept.last_used = now;
            return Ok(kept.files.clone());
        }
        let files = LocalFiles::create(&dirs.kept(job))?;
        let kept = Kept {
            files: files.clone(),
            last_used: now,
        };
        self.0.insert(job.clone(), kept);
        Ok(files)
    }

    /// The directories of jobs that have not run here for long; they are not kept any more.
    pub(crate) fn give_up(
        &mut self,
        dirs: &LocalDirs,
        runs: impl Fn(&JobId) -> bool,
        now: Duration,
    ) -> Vec<PathBuf> {
        let mut unused = Vec::new();
        self.0.retain(|job, kept| {
            if runs(job) {
                kept.last_used = now;
            }
            let keep = now.saturating_sub(kept.last_used) <= UNUSED_MAX;
            if !keep {
                unused.push(dirs.kept(job));
            }
            keep
        });
        unused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_job_outlive_its_attempts_but_not_the_job() {
        let tmp = tempfile::tempdir().unwrap();
        let dirs = LocalDirs::open(tmp.path(), &"tm-1".parse().unwrap()).unwrap();
        let job: JobId = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let (mut state, second) = (LocalState::default(), Duration::from_secs);
        state.of(&job, &dirs, second(0)).unwrap();
        assert!(state.give_up(&dirs, |_| true, second(1000)).is_empty());
        assert!(state.give_up(&dirs, |_| false, second(1300)).is_empty());
        state.of(&job, &dirs, second(1301)).unwrap();
        assert!(state.give_up(&dirs, |_| false, second(1600)).is_empty());
        let unused = state.give_up(&dirs, |_| false, second(1602));
        assert_eq!(unused, [dirs.kept(&job)]);
        assert!(state.give_up(&dirs, |_| false, second(9999)).is_empty());
    }
}
