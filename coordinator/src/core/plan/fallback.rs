//! Goes back behind a checkpoint that cannot be restored.
//!
//! ```text
//!  a task cannot restore a file ──► the leader looks at it ──► damaged ──► a state without it is left ──► DiscardCheckpoint,
//!                                         │                                     │                        then a restart
//!                                         ▼ whole, or no answer                 ▼ none
//!                                      a restart                          the job fails
//! ```
//!
//! Going back costs exactly-once output. What became visible with the checkpoint stays visible, since somebody may have
//! read it; and what follows the older one is computed again. So every row is there at least once, and those that became
//! visible after the older checkpoint may be there twice. That is said where the decision is kept. For the same reason two
//! must agree: what one TaskManager alone cannot read is no reason to go back.
//!
//! A job never begins empty because its state is damaged, and the checkpoint that ends a job is not gone back behind: the
//! job would have to run again after its results were out. Both fail, and keep what they have for a repair.

use flott_proto::ids::CheckpointId;
use flott_proto::wire;

use super::{Situation, Work};
use crate::core::job::{Job, Start};
use crate::core::observed::{FileCondition, UnderWay};
use crate::core::reported::UnusableState;

/// What to do about a task that cannot restore its state.
#[derive(Debug)]
pub(super) enum Step {
    /// Look at the file first.
    Check(Work),
    /// Somebody is looking.
    Wait,
    Discard(wire::DiscardCheckpoint),
    /// There is nothing to go back behind, or not any more.
    Restart,
    /// The leader can read what the task could not.
    RestartThoughWhole,
    Fail {
        remedy: String,
    },
}

pub(super) fn step(situation: Situation<'_>, job: &Job, unusable: &UnusableState) -> Step {
    let path = unusable.path.as_deref();
    let is_unusable = |start: Start<'_>| match path {
        Some(path) => start.file(path).is_some(),
        None => start.id() == unusable.checkpoint,
    };
    let Some(first) = job.starts().next().filter(|first| is_unusable(*first)) else {
        return Step::Restart;
    };
    if let Some(file) = path.and_then(|path| first.file(path)) {
        let observed = situation.observed;
        let checked = observed.files_checked.get(&job.id);
        let checked = checked.filter(|it| it.attempt == job.attempt && it.path == file.path);
        match checked.map(|checked| checked.condition) {
            Some(FileCondition::Damaged) => {}
            Some(FileCondition::Whole) => return Step::RestartThoughWhole,
            Some(FileCondition::Unknown) => return Step::Restart,
            None if observed.is_under_way(|| UnderWay::CheckFile(job.id.clone())) => {
                return Step::Wait;
            }
            None => {
                return Step::Check(Work::CheckFile {
                    job: job.id.clone(),
                    attempt: job.attempt,
                    root: first.root(job).to_owned(),
                    file: file.clone(),
                });
            }
        }
    }
    let next = job.starts().find(|start| !is_unusable(*start));
    match (first, next) {
        (Start::Checkpoint(damaged), Some(next)) if job.final_checkpoint == CheckpointId::NONE => {
            Step::Discard(wire::DiscardCheckpoint {
                job_id: job.id.to_string(),
                checkpoint_id: damaged.id.0,
                reason: format!(
                    "{}; the job goes on from {next}, and rows that became visible after it may be there twice",
                    unusable.reason
                ),
            })
        }
        (first, next) => Step::Fail {
            remedy: remedy(first, next),
        },
    }
}

/// What a person can do about a job that has nothing to go on from.
fn remedy(first: Start<'_>, next: Option<Start<'_>>) -> String {
    let Start::Checkpoint(damaged) = first else {
        return "the job has no checkpoint of its own: put the file back, or name another savepoint, and submit it again"
            .to_owned();
    };
    let repair = format!(
        "put the file back and start the job with `flott run -s {}`",
        damaged.external_path
    );
    match next {
        Some(Start::Checkpoint(older)) => format!(
            "the job was about to end: {repair}; or with `-s {}`, and rows since then may be there twice",
            older.external_path
        ),
        _ => format!(
            "the job has no other checkpoint to go on from and does not begin empty by itself: {repair}, or without -s to \
             begin anew"
        ),
    }
}
