//! A decision comes out of the log: what `coordinator/src/core/apply/` does with it.

use crate::Defect;
use crate::names::Epoch;
use crate::state::{Completed, Decided, Decision, Pending, State, Status};

impl State {
    /// Carries a decision out, or refuses it: then nothing changes.
    pub(crate) fn decide(&mut self, defect: Option<Defect>, epoch: Epoch, decision: Decision) {
        let in_office = epoch == self.decided.epoch;
        if !in_office && defect != Some(Defect::NoEpochCheck) {
            return;
        }
        let before = self.decided;
        let Some(after) = applied(defect, &before, decision) else {
            return;
        };
        self.decided = after;
        let breaches = &mut self.breaches;
        breaches.decided_out_of_office |= !in_office;
        breaches.revived |= before.status.is_terminal();
        if let Decision::Begin { id, .. } = decision {
            breaches.id_not_above |= id <= before.last_id;
        }
        // `Observed::on_state`: acks for a checkpoint that is not pending any more are dropped.
        if before.pending.map(|pending| pending.id) != after.pending.map(|pending| pending.id)
            && let Some(leader) = self.leaders.last_mut()
        {
            leader.acks = Default::default();
        }
    }
}

/// The state after it, or nothing if it is refused.
fn applied(defect: Option<Defect>, before: &Decided, decision: Decision) -> Option<Decided> {
    let defective = |planted| defect == Some(planted);
    let mut job = *before;
    match decision {
        // apply/checkpoint.rs, `begin`
        Decision::Begin {
            id,
            attempt,
            is_final,
        } => {
            let fits = job.status == Status::Running
                && attempt == job.attempt
                && job.final_checkpoint == 0
                && job.pending.is_none()
                && (id > job.last_id || defective(Defect::IdReused));
            if !fits {
                return None;
            }
            job.last_id = id;
            job.pending = Some(Pending {
                id,
                attempt,
                is_final,
                begun_in: job.epoch,
            });
        }
        // apply/checkpoint.rs, `complete`; what retires: checkpoint/completed.rs
        Decision::Complete {
            id,
            attempt,
            states,
        } => {
            let pending = job.pending.filter(|pending| pending.id == id)?;
            let of_attempt = attempt == job.attempt && pending.attempt == job.attempt;
            let runs = !job.status.is_terminal();
            if !runs || !(of_attempt || defective(Defect::PendingSurvivesAttempt)) {
                return None;
            }
            let completed = Completed {
                id,
                states,
                adopted: pending.begun_in != job.epoch,
            };
            if let Some(before) = job.retained.replace(completed) {
                let unneeded = before.objects().without(completed.objects());
                job.retired = job.retired.with(unneeded);
            }
            for state in states {
                job.covered = job.covered.with(state.prepared);
            }
            job.pending = None;
            job.completed += 1;
            if pending.is_final {
                job.final_checkpoint = id;
            }
        }
        // apply/checkpoint.rs, `abort`
        Decision::Abort { id } => {
            job.pending.filter(|pending| pending.id == id)?;
            job.pending = None;
        }
        // apply/attempt.rs, `record_failure`
        Decision::RecordFailure { attempt } => {
            if job.status != Status::Running || attempt != job.attempt {
                return None;
            }
            job.status = Status::Restarting;
            job.give_up_pending(defect);
        }
        // apply/attempt.rs, `start`
        Decision::StartAttempt { attempt } => {
            let waits = job.status == Status::Restarting || defective(Defect::TerminalJobRevived);
            if !waits || attempt != job.attempt + 1 {
                return None;
            }
            job.status = Status::Running;
            job.attempt = attempt;
            job.give_up_pending(defect);
        }
        // apply/job.rs, `end`
        Decision::End { attempt, status } => {
            let fits = match status {
                Status::Finished => job.status == Status::Running && job.final_checkpoint != 0,
                _ => job.status == Status::Cancelling,
            };
            if !fits || attempt != job.attempt {
                return None;
            }
            job.status = status;
            job.pending = None;
            if let Some(retained) = job.retained.take() {
                job.retired = job.retired.with(retained.objects());
                if status == Status::Finished {
                    job.finished_at = retained.states.map(|state| state.position);
                }
            }
        }
    }
    Some(job)
}

impl Decided {
    fn give_up_pending(&mut self, defect: Option<Defect>) {
        if defect != Some(Defect::PendingSurvivesAttempt) {
            self.pending = None;
        }
    }
}
