//! Checkpoints of a job: ids rise and are used once, one that is complete stays the newest until a newer one is, and what is
//! pending is of the present attempt.

use std::collections::{BTreeMap, BTreeSet};

use flott_coordinator::core::Job;

/// What was seen of a job's checkpoints.
#[derive(Debug, Default)]
struct Seen {
    last_id: u64,
    newest_retained: u64,
    completed: BTreeSet<u64>,
    /// By id: the attempt in which it was begun, and its subtasks.
    begun: BTreeMap<u64, (u32, Vec<String>)>,
    /// By attempt: the newest complete one when it began.
    began_with: BTreeMap<u32, u64>,
}

/// By job.
#[derive(Debug, Default)]
pub struct Checkpoints(BTreeMap<String, Seen>);

impl Checkpoints {
    /// Whether a job may have these checkpoints, after all that was seen before: those that have become complete.
    pub fn check(&mut self, job: &Job) -> Result<Vec<u64>, String> {
        let seen = self.0.entry(job.id.to_string()).or_default();
        let store = &job.checkpoints;
        let fault = |what: String| Err(format!("checkpoints: {}: {what}", job.id));
        if store.last_id.0 < seen.last_id {
            return fault(format!(
                "the last id goes back from {} to {}",
                seen.last_id, store.last_id
            ));
        }
        if let Some(pending) = &store.pending {
            let id = pending.id.0;
            if seen.completed.contains(&id) {
                return fault(format!("{id} is pending and was complete"));
            }
            // A decision to change the parallelism changes the job before its next attempt begins; it gives up what is pending.
            let begun = || {
                let subtasks = job.subtasks().map(|subtask| subtask.to_string());
                (pending.attempt.0, subtasks.collect())
            };
            let (attempt, _) = seen.begun.entry(id).or_insert_with(begun);
            if *attempt != pending.attempt.0 {
                return fault(format!(
                    "{id} is one of attempts {attempt} and {}",
                    pending.attempt
                ));
            }
            if pending.attempt != job.attempt {
                return fault(format!("{id} is pending for an attempt that is over"));
            }
        }
        seen.last_id = store.last_id.0;
        let ids = store.retained.iter().map(|checkpoint| checkpoint.id.0);
        if !ids.clone().is_sorted_by(|one, other| one < other) {
            return fault("retained ids do not rise".to_owned());
        }
        let newest = ids.clone().next_back().unwrap_or(0);
        // Jobs that have ended keep none, but for failed ones.
        if newest < seen.newest_retained && !job.status.is_terminal() {
            return fault(format!(
                "the newest goes back from {} to {newest}",
                seen.newest_retained
            ));
        }
        seen.newest_retained = newest;
        let complete = store
            .history
            .iter()
            .filter(|summary| summary.outcome.is_ok())
            .map(|summary| summary.id.0);
        let savepoints = store.savepoints.iter().map(|savepoint| savepoint.id.0);
        let mut become_complete = Vec::new();
        for id in ids.chain(savepoints).chain(complete) {
            if seen.completed.insert(id) {
                become_complete.push(id);
            }
        }
        seen.began_with.entry(job.attempt.0).or_insert(newest);
        Ok(become_complete)
    }

    /// The newest complete checkpoint when the attempt began; none if it has not.
    pub fn newest_before(&self, job: &str, attempt: u32) -> Option<u64> {
        self.0.get(job)?.began_with.get(&attempt).copied()
    }

    /// Whether that checkpoint was ever seen complete.
    pub fn is_completed(&self, job: &str, id: u64) -> bool {
        self.0
            .get(job)
            .is_some_and(|seen| seen.completed.contains(&id))
    }

    /// In which attempt it was begun, and its subtasks, if that was seen.
    pub fn begun(&self, job: &str, id: u64) -> Option<&(u32, Vec<String>)> {
        self.0.get(job)?.begun.get(&id)
    }

    /// How many were complete.
    pub fn completed(&self) -> u64 {
        self.0
            .values()
            .map(|seen| seen.completed.len() as u64)
            .sum()
    }
}
