//! What one poll of the cluster saw, and the few facts the demo reads out of it. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use flott_proto::wire::{CheckpointInfo, ClusterStatusResponse, JobDetails, operator};

/// One look at every JobManager, and at the job through the leading one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Monotonic time since the demo began.
    pub(crate) at: Duration,
    /// Milliseconds since the epoch, to compare with what the cluster reports.
    pub(crate) wall_ms: i64,
    /// The answer of each JobManager that answered.
    pub(crate) members: Vec<ClusterStatusResponse>,
    /// Absent while nobody leads, and before the job is there.
    pub(crate) job: Option<JobDetails>,
    /// Newest first; empty where `job` is absent.
    pub(crate) checkpoints: Vec<CheckpointInfo>,
}

/// Where a subtask of a job ran, and in which attempt.
pub(crate) type Placements = BTreeMap<(String, u32), (String, u32)>;

impl Sample {
    /// The answer of a member that knows a leader; of several, that of the latest term.
    pub(crate) fn leadership(&self) -> Option<&ClusterStatusResponse> {
        self.members
            .iter()
            .filter(|status| status.leader != 0)
            .max_by_key(|status| (status.term, status.epoch))
    }

    /// The job's attempt; 0 while unknown.
    pub(crate) fn attempt(&self) -> u32 {
        self.job
            .as_ref()
            .and_then(|job| job.summary.as_ref())
            .map_or(0, |summary| summary.attempt)
    }

    /// The job's state, or "unknown".
    pub(crate) fn state(&self) -> &str {
        self.job
            .as_ref()
            .and_then(|job| job.summary.as_ref())
            .map_or("unknown", |summary| &summary.state)
    }

    /// Whether every task of the job does its work.
    pub(crate) fn all_tasks_running(&self) -> bool {
        let states = || {
            self.job
                .iter()
                .flat_map(|job| &job.vertices)
                .flat_map(|vertex| &vertex.tasks)
        };
        states().next().is_some()
            && states().all(|task| matches!(task.state.as_str(), "RUNNING" | "END_OF_DATA"))
    }

    /// Rows that the job's sources read since its present attempt began.
    pub(crate) fn rows_read(&self) -> u64 {
        let Some(job) = &self.job else { return 0 };
        let graph = job.graph.iter().flat_map(|graph| &graph.vertices);
        let sources: Vec<&str> = graph
            .filter(|vertex| matches!(vertex.chain.first(), Some(first) if matches!(first.kind, Some(operator::Kind::Source(_)))))
            .map(|vertex| vertex.uid.as_str())
            .collect();
        let tasks = job
            .vertices
            .iter()
            .filter(|vertex| sources.contains(&vertex.id.as_str()))
            .flat_map(|vertex| &vertex.tasks);
        tasks
            .filter_map(|task| task.counters.as_ref())
            .map(|counters| counters.records_in.max(counters.records_out))
            .sum()
    }

    /// Where every subtask runs.
    pub(crate) fn placements(&self) -> Placements {
        let mut placements = Placements::new();
        for vertex in self.job.iter().flat_map(|job| &job.vertices) {
            for task in &vertex.tasks {
                placements.insert(
                    (vertex.id.clone(), task.subtask),
                    (task.task_manager.clone(), task.attempt),
                );
            }
        }
        placements
    }

    /// Whether a checkpoint is triggered but not complete.
    pub(crate) fn checkpoint_in_progress(&self) -> bool {
        self.checkpoints
            .iter()
            .any(|checkpoint| checkpoint.status == "IN_PROGRESS")
    }

    /// When the first checkpoint that completed after `wall_ms` did so, milliseconds since the epoch.
    pub(crate) fn first_completed_after(&self, wall_ms: i64) -> Option<i64> {
        self.checkpoints
            .iter()
            .filter(|checkpoint| checkpoint.status == "COMPLETED")
            .map(completed_at_ms)
            .filter(|at| *at > wall_ms)
            .min()
    }
}

/// When a checkpoint ended, milliseconds since the epoch.
pub(crate) fn completed_at_ms(checkpoint: &CheckpointInfo) -> i64 {
    checkpoint
        .triggered_at_ms
        .saturating_add_unsigned(checkpoint.duration_ms)
}

/// Rows of the whole input that are behind the job, across restarts of the job.
///
/// Counters begin at 0 with each attempt, so a new attempt's are added to the estimate at the time of the checkpoint that
/// it went back to. An estimate, for pacing the demo and for display; the verdict never uses it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    attempt: u32,
    base: u64,
    rows: u64,
    history: Vec<(i64, u64)>,
    last_checkpoint_ms: i64,
}

impl Progress {
    /// Takes in a sample; the estimate after it.
    pub(crate) fn on_sample(&mut self, sample: &Sample) -> u64 {
        let attempt = sample.attempt();
        if attempt == 0 {
            return self.rows;
        }
        if attempt > self.attempt {
            let position = self
                .history
                .partition_point(|(wall_ms, _)| *wall_ms <= self.last_checkpoint_ms);
            self.base = position
                .checked_sub(1)
                .map_or(0, |index| self.history[index].1);
            self.attempt = attempt;
            self.rows = self.base;
        }
        let completed = sample
            .checkpoints
            .iter()
            .filter(|checkpoint| checkpoint.status == "COMPLETED");
        let newest = completed
            .map(|checkpoint| checkpoint.triggered_at_ms)
            .max()
            .unwrap_or(0);
        self.last_checkpoint_ms = self.last_checkpoint_ms.max(newest);
        // A leader that has just taken over has not yet heard every counter.
        self.rows = self.rows.max(self.base + sample.rows_read());
        if self
            .history
            .last()
            .is_none_or(|(_, rows)| *rows != self.rows)
        {
            self.history.push((sample.wall_ms, self.rows));
        }
        self.rows
    }
}

/// Samples made up for tests.
#[cfg(test)]
pub(crate) mod samples {
    use flott_proto::wire::{
        AttemptTimes, JobGraph, JobSummary, Operator, Source, TaskCounters, TaskDetails, Vertex,
        VertexDetails,
    };

    use super::*;

    /// All members agree on `leader` (0: none) in `term`, `at_ms` after the start.
    pub(crate) fn led_by(at_ms: u64, leader: u64, term: u64) -> Sample {
        let status = ClusterStatusResponse {
            leader,
            term,
            epoch: term * 10,
            ..Default::default()
        };
        Sample {
            at: Duration::from_millis(at_ms),
            wall_ms: 1_000_000 + at_ms as i64,
            members: vec![status.clone(), status],
            ..Sample::default()
        }
    }

    /// Adds a job of one source vertex with two running tasks that together read `rows`.
    pub(crate) fn with_job(mut sample: Sample, attempt: u32, rows: u64) -> Sample {
        let source = Operator {
            kind: Some(operator::Kind::Source(Source::default())),
            ..Default::default()
        };
        let vertex = Vertex {
            uid: "source".to_owned(),
            chain: vec![source],
            ..Default::default()
        };
        let task = |subtask: u32| TaskDetails {
            subtask,
            task_manager: format!("tm-{}", subtask + 1),
            state: "RUNNING".to_owned(),
            attempt,
            counters: Some(TaskCounters {
                records_in: rows / 2,
                records_out: rows / 2,
                ..Default::default()
            }),
        };
        sample.job = Some(JobDetails {
            summary: Some(JobSummary {
                state: "RUNNING".to_owned(),
                attempt,
                ..Default::default()
            }),
            vertices: vec![VertexDetails {
                id: "source".to_owned(),
                tasks: vec![task(0), task(1)],
                ..Default::default()
            }],
            graph: Some(JobGraph {
                vertices: vec![vertex],
                ..Default::default()
            }),
            attempt_times: Some(AttemptTimes::default()),
            ..Default::default()
        });
        sample
    }

    /// Adds a checkpoint, newest first.
    pub(crate) fn with_checkpoint(
        mut sample: Sample,
        id: u64,
        status: &str,
        triggered_at_ms: i64,
        duration_ms: u64,
    ) -> Sample {
        let checkpoint = CheckpointInfo {
            id,
            status: status.to_owned(),
            triggered_at_ms,
            duration_ms,
            ..Default::default()
        };
        sample.checkpoints.insert(0, checkpoint);
        sample
    }
}

#[cfg(test)]
mod tests {
    use super::samples::*;
    use super::*;

    #[test]
    fn progress_falls_back_to_the_checkpoint_on_a_new_attempt() {
        let mut progress = Progress::default();
        assert_eq!(
            progress.on_sample(&with_job(led_by(100, 1, 1), 1, 1_000)),
            1_000
        );
        assert_eq!(
            progress.on_sample(&with_job(led_by(200, 1, 1), 1, 2_000)),
            2_000
        );
        let checkpointed = with_checkpoint(
            with_job(led_by(300, 1, 1), 1, 3_000),
            1,
            "COMPLETED",
            1_000_250,
            20,
        );
        assert_eq!(progress.on_sample(&checkpointed), 3_000);
        assert_eq!(
            progress.on_sample(&led_by(350, 0, 2)),
            3_000,
            "nobody leads: the last known value"
        );
        assert_eq!(
            progress.on_sample(&with_job(led_by(400, 1, 1), 2, 0)),
            2_000
        );
        assert_eq!(
            progress.on_sample(&with_job(led_by(500, 1, 1), 2, 600)),
            2_600
        );
    }

    #[test]
    fn a_new_leader_without_counters_does_not_turn_progress_back() {
        let mut progress = Progress::default();
        progress.on_sample(&with_job(led_by(100, 1, 1), 1, 1_000));
        assert_eq!(
            progress.on_sample(&with_job(led_by(200, 2, 2), 1, 0)),
            1_000
        );
    }

    #[test]
    fn the_latest_term_says_who_leads() {
        let mut sample = led_by(0, 1, 4);
        sample.members.push(ClusterStatusResponse {
            leader: 3,
            term: 5,
            ..Default::default()
        });
        sample.members.push(ClusterStatusResponse {
            leader: 0,
            term: 6,
            ..Default::default()
        });
        assert_eq!(sample.leadership().map(|status| status.leader), Some(3));
    }

    #[test]
    fn a_job_without_tasks_is_not_running() {
        assert!(!led_by(0, 1, 1).all_tasks_running());
        assert!(with_job(led_by(0, 1, 1), 1, 0).all_tasks_running());
    }
}
