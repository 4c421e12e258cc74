//! What a demo run proved: one table, one JSON object, and whether it passed. Pure.
//!
//! Must stay true: a run in which a kill did not happen, or in which nothing was compared, never passes.

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::recovery::{LeaderFailover, WorkerRecovery};
use super::verify::Comparison;
use super::view::bytes;
use crate::commands::progress::thousands;

/// Figures over all checkpoints of the run.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct CheckpointFigures {
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    /// Over the completed checkpoints that were seen.
    pub(crate) uploaded_bytes: u64,
    /// What uploading the whole state each time would have been.
    pub(crate) full_bytes: u64,
    /// Of the newest completed checkpoint.
    pub(crate) state_bytes: u64,
}

/// All that a run found out.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) seed: u64,
    pub(crate) passed: bool,
    /// Why it did not pass; empty if it did.
    pub(crate) failures: Vec<String>,
    /// The job's terminal state.
    pub(crate) job_state: String,
    pub(crate) restarts: u32,
    pub(crate) seconds: f64,
    pub(crate) comparison: Comparison,
    pub(crate) leader_failover: Option<LeaderFailover>,
    pub(crate) worker_recovery: Option<WorkerRecovery>,
    pub(crate) checkpoints: CheckpointFigures,
}

impl Verdict {
    /// Judges: fills in `passed` and `failures`.
    pub(crate) fn judge(mut self) -> Self {
        let mut failures = Vec::new();
        let mut fail = |text: String| failures.push(text);
        if self.job_state != "FINISHED" {
            fail(format!("the job ended as {}", self.job_state));
        }
        let result = &self.comparison;
        if !result.is_exact() {
            fail(format!(
                "the committed result is not exact: {} lost, {} duplicated, {} wrong of {} rows",
                result.lost, result.duplicated, result.wrong, result.expected_rows
            ));
        }
        match &self.leader_failover {
            None => fail("the leader was never killed".to_owned()),
            Some(failover) if failover.node == 0 || failover.attempt_before == 0 => {
                fail("the leader was killed before it was known what ran".to_owned());
            }
            Some(failover) if failover.adopted_ms.is_none() => {
                fail("no new leader reported all tasks as running".to_owned());
            }
            Some(failover) => {
                if failover.tasks_restarted > 0 || failover.attempt_after != failover.attempt_before
                {
                    fail(format!(
                        "the leader's death restarted {} tasks",
                        failover.tasks_restarted
                    ));
                }
            }
        }
        match &self.worker_recovery {
            None => fail("no TaskManager was killed".to_owned()),
            Some(recovery) if recovery.attempt_after <= recovery.attempt_before => {
                fail("the TaskManager's death started no new attempt".to_owned());
            }
            Some(_) => {}
        }
        self.passed = failures.is_empty();
        self.failures = failures;
        self
    }

    /// The table that ends a run.
    pub(crate) fn table(&self) -> String {
        let mut table = new_table();
        let result = &self.comparison;
        let mut row = |name: &str, value: String| {
            table.add_row([name.to_owned(), value]);
        };
        row(
            "rows",
            format!(
                "{} read, {} of {} result rows committed",
                thousands(result.input_rows),
                thousands(result.committed_rows),
                thousands(result.expected_rows)
            ),
        );
        row(
            "lost",
            format!(
                "{} result rows, {} input rows",
                result.lost, result.input_rows_lost
            ),
        );
        row(
            "duplicated",
            format!(
                "{} result rows, {} input rows",
                result.duplicated, result.input_rows_duplicated
            ),
        );
        row("wrong", format!("{} result rows", result.wrong));
        if let Some(failover) = &self.leader_failover {
            row("leader failover", phases(&failover.phases()));
            row(
                "tasks restarted by it",
                format!(
                    "{} (attempt {} before, {} after)",
                    failover.tasks_restarted, failover.attempt_before, failover.attempt_after
                ),
            );
            row(
                "killed inside a checkpoint",
                match failover.checkpoint_hit {
                    0 => "no".to_owned(),
                    id => format!("yes, #{id}, {} afterwards", failover.checkpoint_hit_status),
                },
            );
        }
        if let Some(recovery) = &self.worker_recovery {
            row("worker recovery", phases(&recovery.phases()));
        }
        let checkpoints = &self.checkpoints;
        row(
            "checkpoints",
            format!(
                "{} completed, {} failed",
                checkpoints.completed, checkpoints.failed
            ),
        );
        row(
            "bytes uploaded",
            format!(
                "{} (whole state each time: {}; state at the end: {})",
                bytes(checkpoints.uploaded_bytes),
                bytes(checkpoints.full_bytes),
                bytes(checkpoints.state_bytes)
            ),
        );
        let verdict = if self.passed {
            "passed".to_owned()
        } else {
            format!("FAILED: {}", self.failures.join("; "))
        };
        row(
            "verdict",
            format!("{verdict} (seed {}, {:.1} s)", self.seed, self.seconds),
        );
        table.to_string()
    }
}

/// One line a run, and the totals: for several seeds.
pub(crate) fn summary(verdicts: &[Verdict]) -> String {
    let mut table = new_table();
    table.set_header([
        "seed",
        "verdict",
        "lost",
        "dupl.",
        "wrong",
        "detected",
        "elected",
        "adopted",
        "tasks restarted",
        "in checkpoint",
        "worker runs",
        "worker progress",
    ]);
    for verdict in verdicts {
        let leader = verdict.leader_failover.as_ref();
        let worker = verdict.worker_recovery.as_ref();
        table.add_row([
            verdict.seed.to_string(),
            if verdict.passed {
                "passed".to_owned()
            } else {
                "FAILED".to_owned()
            },
            verdict.comparison.lost.to_string(),
            verdict.comparison.duplicated.to_string(),
            verdict.comparison.wrong.to_string(),
            millis(leader.and_then(|failover| failover.detected_ms)),
            millis(leader.and_then(|failover| failover.elected_ms)),
            millis(leader.and_then(|failover| failover.adopted_ms)),
            leader.map_or("-".to_owned(), |failover| {
                failover.tasks_restarted.to_string()
            }),
            leader
                .map_or("-", |failover| {
                    if failover.checkpoint_hit > 0 {
                        "yes"
                    } else {
                        "no"
                    }
                })
                .to_owned(),
            millis(worker.and_then(|recovery| recovery.running_ms)),
            millis(worker.and_then(|recovery| recovery.progress_ms)),
        ]);
    }
    let passed = verdicts.iter().filter(|verdict| verdict.passed).count();
    let hit = verdicts
        .iter()
        .filter(|verdict| {
            verdict
                .leader_failover
                .as_ref()
                .is_some_and(|failover| failover.checkpoint_hit > 0)
        })
        .count();
    format!(
        "{table}\n{passed} of {} runs passed; {hit} leader kills fell between a checkpoint's trigger and its completion",
        verdicts.len()
    )
}

fn new_table() -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// A line for each phase: when it was over, counted from the kill.
fn phases(phases: &[(&str, Option<u64>)]) -> String {
    let lines = phases
        .iter()
        .map(|(name, at)| format!("{name:<25} {:>8}", millis(*at)));
    lines.collect::<Vec<_>>().join("\n")
}

fn millis(at: Option<u64>) -> String {
    at.map_or("never".to_owned(), |at| format!("{at} ms"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::sample::samples::*;
    use super::*;

    fn good() -> Verdict {
        let before = with_job(led_by(990, 1, 4), 1, 100);
        let killed = Duration::from_millis(1_000);
        let mut failover = LeaderFailover::new(&before, killed, 1_001_000);
        failover.on_sample(&with_checkpoint(
            with_job(led_by(1_500, 2, 5), 1, 100),
            7,
            "COMPLETED",
            1_001_700,
            50,
        ));
        let mut recovery = WorkerRecovery::new(&before, "tm-1", killed, 1_001_000);
        recovery.attempt_after = 2;
        Verdict {
            seed: 3,
            passed: false,
            failures: Vec::new(),
            job_state: "FINISHED".to_owned(),
            restarts: 1,
            seconds: 40.0,
            comparison: Comparison {
                input_rows: 10,
                expected_rows: 2,
                committed_rows: 2,
                ..Comparison::default()
            },
            leader_failover: Some(failover),
            worker_recovery: Some(recovery),
            checkpoints: CheckpointFigures::default(),
        }
    }

    #[test]
    fn an_exact_result_with_both_kills_and_no_restart_passes() {
        let verdict = good().judge();
        assert!(verdict.passed, "{:?}", verdict.failures);
        assert!(
            verdict.table().contains("passed (seed 3, 40.0 s)"),
            "{}",
            verdict.table()
        );
        assert!(summary(&[verdict]).contains("1 of 1 runs passed; 0 leader kills fell"));
    }

    #[test]
    fn each_broken_promise_fails_the_run() {
        type Break = fn(&mut Verdict);
        let breaks: [(&str, Break); 8] = [
            ("ended as FAILED", |verdict| {
                verdict.job_state = "FAILED".to_owned()
            }),
            ("1 lost", |verdict| verdict.comparison.lost = 1),
            ("not exact", |verdict| {
                verdict.comparison = Comparison::default()
            }),
            ("never killed", |verdict| verdict.leader_failover = None),
            ("restarted 2 tasks", |verdict| {
                verdict
                    .leader_failover
                    .iter_mut()
                    .for_each(|failover| failover.tasks_restarted = 2);
            }),
            ("no new leader", |verdict| {
                verdict
                    .leader_failover
                    .iter_mut()
                    .for_each(|failover| failover.adopted_ms = None);
            }),
            ("no TaskManager was killed", |verdict| {
                verdict.worker_recovery = None
            }),
            ("no new attempt", |verdict| {
                verdict
                    .worker_recovery
                    .iter_mut()
                    .for_each(|recovery| recovery.attempt_after = 1);
            }),
        ];
        for (reason, break_it) in breaks {
            let mut verdict = good();
            break_it(&mut verdict);
            let verdict = verdict.judge();
            assert!(!verdict.passed, "{reason}");
            assert!(
                verdict
                    .failures
                    .iter()
                    .any(|failure| failure.contains(reason)),
                "{reason}: {:?}",
                verdict.failures
            );
        }
    }
}
