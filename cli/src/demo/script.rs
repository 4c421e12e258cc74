//! The demo's course: which step comes next, decided from samples. Pure; `mod.rs` carries the steps out.
//!
//! ```text
//! Starting ─all tasks run─▶ BeforeLeader ─row count, delay, (checkpoint under way)─▶ kill leader ─▶ LeaderDown
//!   ─failover over─▶ start it again ─▶ BeforeWorker ─row count, delay─▶ kill worker, start another ─▶ WorkerDown
//!   ─recovery over─▶ Ending ─FINISHED─▶ Done
//! ```

use std::time::Duration;

use super::plan::KillPlan;
use super::sample::Sample;

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Wait,
    KillLeader,
    /// Start the JobManager again that was killed.
    RestartJobManager,
    KillWorkerAndReplace,
    /// The job is in a terminal state.
    Done,
}

/// Where the course stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    BeforeLeader { due: Option<Duration> },
    LeaderDown { since: Duration },
    BeforeWorker { due: Option<Duration> },
    WorkerDown { since: Duration },
    Ending,
}

/// How long to look for a checkpoint under way before the leader is killed anyway: several checkpoint intervals.
const CHECKPOINT_WAIT_MAX: Duration = Duration::from_secs(4);
/// A failover or recovery that takes longer is waited for no more; the verdict then says what is missing.
const RECOVERY_WAIT_MAX: Duration = Duration::from_secs(30);

/// The course of one demo run.
#[derive(Debug)]
pub(crate) struct Script {
    plan: KillPlan,
    total_rows: u64,
    phase: Phase,
}

impl Script {
    /// The course by `plan` over an input of `total_rows`.
    pub(crate) fn new(plan: KillPlan, total_rows: u64) -> Self {
        Self {
            plan,
            total_rows,
            phase: Phase::Starting,
        }
    }

    /// Whether to poll closely: a kill is due or being recovered from.
    pub(crate) fn is_tense(&self) -> bool {
        match self.phase {
            Phase::Starting | Phase::Ending => false,
            Phase::BeforeLeader { due } | Phase::BeforeWorker { due } => due.is_some(),
            Phase::LeaderDown { .. } | Phase::WorkerDown { .. } => true,
        }
    }

    /// Decides after a sample. `rows` is the progress estimate; `recovered` whether the last death's phases are over.
    pub(crate) fn on_sample(&mut self, sample: &Sample, rows: u64, recovered: bool) -> Step {
        if matches!(sample.state(), "FINISHED" | "FAILED" | "CANCELED") {
            return Step::Done;
        }
        let share = rows as f64 / self.total_rows.max(1) as f64;
        match self.phase {
            Phase::Starting => {
                if sample.all_tasks_running() {
                    self.phase = Phase::BeforeLeader { due: None };
                }
                Step::Wait
            }
            Phase::BeforeLeader { due: None } if share >= self.plan.leader_at => {
                self.phase = Phase::BeforeLeader {
                    due: Some(sample.at + self.plan.leader_delay),
                };
                Step::Wait
            }
            Phase::BeforeLeader { due: Some(due) } if sample.at >= due => {
                let waited = sample.at >= due + CHECKPOINT_WAIT_MAX;
                // The last sample before the kill is what the tasks are compared with, so it must show them.
                let ready = sample.job.is_some() && sample.leadership().is_some();
                if ready
                    && (!self.plan.inside_checkpoint || sample.checkpoint_in_progress() || waited)
                {
                    self.phase = Phase::LeaderDown { since: sample.at };
                    return Step::KillLeader;
                }
                Step::Wait
            }
            Phase::LeaderDown { since } if recovered || sample.at >= since + RECOVERY_WAIT_MAX => {
                self.phase = Phase::BeforeWorker { due: None };
                Step::RestartJobManager
            }
            Phase::BeforeWorker { due: None } if share >= self.plan.worker_at => {
                self.phase = Phase::BeforeWorker {
                    due: Some(sample.at + self.plan.worker_delay),
                };
                Step::Wait
            }
            Phase::BeforeWorker { due: Some(due) } if sample.at >= due && sample.job.is_some() => {
                self.phase = Phase::WorkerDown { since: sample.at };
                Step::KillWorkerAndReplace
            }
            Phase::WorkerDown { since } if recovered || sample.at >= since + RECOVERY_WAIT_MAX => {
                self.phase = Phase::Ending;
                Step::Wait
            }
            _ => Step::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::samples::*;
    use super::*;

    fn plan(inside_checkpoint: bool) -> KillPlan {
        let delay = Duration::from_millis(300);
        KillPlan {
            leader_at: 0.2,
            leader_delay: delay,
            inside_checkpoint,
            worker_at: 0.6,
            worker_delay: delay,
            worker: 0,
        }
    }

    fn running(at_ms: u64) -> Sample {
        with_job(led_by(at_ms, 1, 1), 1, 0)
    }

    #[test]
    fn the_course_goes_through_both_kills_in_order() {
        let mut script = Script::new(plan(false), 1_000);
        let mut steps = Vec::new();
        for (at_ms, rows, recovered) in [
            (0, 0, false),
            (100, 100, false),
            (200, 200, false),
            (400, 250, false),
            (500, 300, false),
            (600, 700, false),
            (700, 700, true),
            (800, 700, false),
            (1_000, 750, false),
            (1_100, 800, false),
            (1_200, 800, true),
        ] {
            steps.push(script.on_sample(&running(at_ms), rows, recovered));
        }
        let expected = [
            Step::Wait,
            Step::Wait,
            Step::Wait,
            Step::Wait,
            Step::KillLeader,
            Step::Wait,
            Step::RestartJobManager,
            Step::Wait,
            Step::Wait,
            Step::KillWorkerAndReplace,
            Step::Wait,
        ];
        assert_eq!(steps, expected);
        let mut finished = running(2_000);
        finished
            .job
            .as_mut()
            .unwrap()
            .summary
            .as_mut()
            .unwrap()
            .state = "FINISHED".to_owned();
        assert_eq!(script.on_sample(&finished, 1_000, false), Step::Done);
    }

    #[test]
    fn an_aimed_kill_waits_for_a_checkpoint_but_not_for_ever() {
        let aimed_at = |samples: &[Sample]| {
            let mut script = Script::new(plan(true), 1_000);
            samples
                .iter()
                .position(|sample| script.on_sample(sample, 500, false) == Step::KillLeader)
        };
        let in_checkpoint = with_checkpoint(running(900), 3, "IN_PROGRESS", 1_000_890, 0);
        assert_eq!(
            aimed_at(&[running(0), running(100), running(500), in_checkpoint]),
            Some(3)
        );
        assert_eq!(
            aimed_at(&[running(0), running(100), running(500), running(4_500)]),
            Some(3)
        );
    }

    #[test]
    fn without_a_leader_nobody_is_killed() {
        let mut script = Script::new(plan(false), 1_000);
        script.on_sample(&running(0), 500, false);
        script.on_sample(&running(100), 500, false);
        assert_eq!(script.on_sample(&led_by(900, 0, 2), 500, false), Step::Wait);
        assert_eq!(
            script.on_sample(&running(950), 500, false),
            Step::KillLeader
        );
    }
}
