//! Tasks do only what was decided: an attempt begins after its entry was applied, from a checkpoint that is not behind the
//! newest; no two attempts of a job have tasks on one TaskManager; what is complete was acknowledged by every task; and only
//! that becomes visible.

use std::collections::{BTreeMap, BTreeSet};

use flott_node::simulation::Told;

use super::checkpoints::Checkpoints;

/// A job and the number of an attempt.
type Attempt = (String, u32);

/// The tasks that run, and what each attempt began from.
#[derive(Debug, Default)]
pub struct Tasks {
    /// By machine.
    running: BTreeMap<usize, BTreeSet<(String, u32, String)>>,
    restored: BTreeMap<Attempt, u64>,
    /// By attempt and checkpoint: the subtasks that have acknowledged it.
    acknowledged: BTreeMap<(Attempt, u64), BTreeSet<String>>,
}

impl Tasks {
    /// The process of that machine has ended, and with it its tasks.
    pub fn on_death(&mut self, host: usize) {
        self.running.remove(&host);
    }

    /// Whether a task of that machine may have told this.
    pub fn check(
        &mut self,
        host: usize,
        told: &Told,
        checkpoints: &Checkpoints,
    ) -> Result<(), String> {
        match told {
            Told::TaskBegan {
                job,
                attempt,
                subtask,
                restored,
            } => {
                let running = self.running.entry(host).or_default();
                let mut others = running.iter().filter(|(other, ..)| other == job);
                if let Some((_, other, _)) = others.find(|(_, other, _)| other != attempt) {
                    return Err(format!(
                        "tasks: attempt {attempt} of {job} began on host {host}, where {other} has not ended"
                    ));
                }
                running.insert((job.clone(), *attempt, subtask.clone()));
                let Some(newest) = checkpoints.newest_before(job, *attempt) else {
                    return Err(format!(
                        "tasks: {job} has a task of attempt {attempt}, which nobody has decided"
                    ));
                };
                if *restored < newest {
                    return Err(format!(
                        "tasks: attempt {attempt} of {job} began from checkpoint {restored} although {newest} was complete"
                    ));
                }
                let of_others = self.restored.entry((job.clone(), *attempt));
                let of_others = *of_others.or_insert(*restored);
                if of_others != *restored {
                    return Err(format!(
                        "tasks: attempt {attempt} of {job} began from checkpoints {of_others} and {restored}"
                    ));
                }
            }
            Told::TaskEnded {
                job,
                attempt,
                subtask,
            } => {
                if let Some(running) = self.running.get_mut(&host) {
                    running.remove(&(job.clone(), *attempt, subtask.clone()));
                }
            }
            Told::TaskCommitted {
                job,
                attempt,
                subtask,
                checkpoint,
            } => {
                if !checkpoints.is_completed(job, *checkpoint) {
                    return Err(format!(
                        "tasks: {subtask} of {job} committed checkpoint {checkpoint}, which is not complete"
                    ));
                }
                let of = checkpoints.begun(job, *checkpoint).map(|(of, _)| *of);
                // That of an earlier one it may have begun from.
                if of.is_some_and(|of| of > *attempt) {
                    return Err(format!(
                        "tasks: attempt {attempt} of {job} committed checkpoint {checkpoint} of attempt {of:?}"
                    ));
                }
            }
            Told::TaskAcknowledged {
                job,
                attempt,
                subtask,
                checkpoint,
            } => {
                let acknowledged = self
                    .acknowledged
                    .entry(((job.clone(), *attempt), *checkpoint));
                acknowledged.or_default().insert(subtask.clone());
            }
            Told::LeaderObeyed { .. } | Told::Decided { .. } | Told::Happened(_) => {}
        }
        Ok(())
    }

    /// Whether a checkpoint may be complete, which is not known of one whose beginning nobody saw.
    pub fn check_complete(
        &self,
        job: &str,
        checkpoint: u64,
        checkpoints: &Checkpoints,
    ) -> Result<(), String> {
        let Some((attempt, subtasks)) = checkpoints.begun(job, checkpoint) else {
            return Ok(());
        };
        let of = ((job.to_owned(), *attempt), checkpoint);
        let acknowledged = self.acknowledged.get(&of);
        let mut subtasks = subtasks.iter();
        let missing =
            subtasks.find(|subtask| acknowledged.is_none_or(|those| !those.contains(*subtask)));
        match missing {
            None => Ok(()),
            Some(subtask) => Err(format!(
                "tasks: checkpoint {checkpoint} of {job} is complete, and {subtask} of attempt {attempt} has not acknowledged it"
            )),
        }
    }
}
