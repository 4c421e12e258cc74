//! How long each death cost, phase by phase. Pure: samples in, durations out.
//!
//! Every duration counts from the kill. What the demo sees by polling is late by up to one polling interval; what the
//! cluster stamps itself (attempt times, checkpoints) is compared by wall clock, which all processes share.

use std::time::Duration;

use flott_proto::wire::CheckpointInfo;
use serde::Serialize;

use super::sample::{Placements, Sample, completed_at_ms};

/// What the death of the leading JobManager cost.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LeaderFailover {
    /// The killed node.
    pub(crate) node: u64,
    /// Milliseconds since the epoch.
    pub(crate) killed_at_ms: i64,
    /// A survivor no longer believes in the dead leader.
    pub(crate) detected_ms: Option<u64>,
    /// A survivor names another leader.
    pub(crate) elected_ms: Option<u64>,
    /// The new leader reports every task as running.
    pub(crate) adopted_ms: Option<u64>,
    /// The first checkpoint after the kill is complete.
    pub(crate) committed_ms: Option<u64>,
    /// The job's attempt before the kill and at the last look before anything else was killed.
    pub(crate) attempt_before: u32,
    pub(crate) attempt_after: u32,
    /// Tasks that exist no longer, run elsewhere or run in another attempt.
    pub(crate) tasks_restarted: usize,
    /// The checkpoint that was under way when the leader died; 0 for none.
    pub(crate) checkpoint_hit: u64,
    /// What became of it: COMPLETED or FAILED; empty for none.
    pub(crate) checkpoint_hit_status: String,
    #[serde(skip)]
    killed_at: Duration,
    #[serde(skip)]
    term: u64,
    #[serde(skip)]
    epoch: u64,
    #[serde(skip)]
    placements: Placements,
}

impl LeaderFailover {
    /// The leader that `before`, the last sample before the kill, names was killed at `killed_at` (monotonic) and
    /// `killed_at_ms` (wall).
    pub(crate) fn new(before: &Sample, killed_at: Duration, killed_at_ms: i64) -> Self {
        let leadership = before.leadership();
        Self {
            node: leadership.map_or(0, |status| status.leader),
            killed_at_ms,
            detected_ms: None,
            elected_ms: None,
            adopted_ms: None,
            committed_ms: None,
            attempt_before: before.attempt(),
            attempt_after: 0,
            tasks_restarted: 0,
            checkpoint_hit: 0,
            checkpoint_hit_status: String::new(),
            killed_at,
            term: leadership.map_or(0, |status| status.term),
            epoch: leadership.map_or(0, |status| status.epoch),
            placements: before.placements(),
        }
    }

    /// Takes in a sample that was begun after the kill. Not to be called once something else was killed.
    pub(crate) fn on_sample(&mut self, sample: &Sample) {
        let elapsed = millis(sample.at.saturating_sub(self.killed_at));
        let moved_on = |term: u64, leader: u64| term > self.term || leader != self.node;
        if sample
            .members
            .iter()
            .any(|status| moved_on(status.term, status.leader))
        {
            self.detected_ms.get_or_insert(elapsed);
        }
        let successor = sample
            .leadership()
            .filter(|status| status.leader != self.node || status.term > self.term);
        if successor.is_some() {
            self.elected_ms.get_or_insert(elapsed);
        }
        let in_office = successor.is_some_and(|status| status.epoch > self.epoch);
        if in_office && sample.all_tasks_running() {
            self.adopted_ms.get_or_insert(elapsed);
        }
        if let Some(completed_at) = sample.first_completed_after(self.killed_at_ms) {
            self.committed_ms
                .get_or_insert((completed_at - self.killed_at_ms).unsigned_abs());
        }
        if in_office && sample.job.is_some() {
            self.attempt_after = sample.attempt();
            let now = sample.placements();
            let moved = self
                .placements
                .iter()
                .filter(|(task, placement)| now.get(task) != Some(placement));
            self.tasks_restarted = moved.count();
        }
    }

    /// Notes which of `checkpoints` was between its trigger and its end when the leader died.
    pub(crate) fn find_checkpoint_hit(
        &mut self,
        checkpoints: impl Iterator<Item = CheckpointInfo>,
    ) {
        let hit = |checkpoint: &CheckpointInfo| {
            checkpoint.triggered_at_ms <= self.killed_at_ms
                && self.killed_at_ms < completed_at_ms(checkpoint)
        };
        let hit = checkpoints
            .filter(hit)
            .max_by_key(|checkpoint| checkpoint.id)
            .unwrap_or_default();
        self.checkpoint_hit = hit.id;
        self.checkpoint_hit_status = hit.status;
    }

    /// The phases in their order, with when each was passed in milliseconds after the kill.
    pub(crate) fn phases(&self) -> [(&'static str, Option<u64>); 4] {
        [
            ("detected", self.detected_ms),
            ("elected", self.elected_ms),
            ("adopted", self.adopted_ms),
            ("next checkpoint complete", self.committed_ms),
        ]
    }

    /// Whether all phases are over.
    pub(crate) fn is_over(&self) -> bool {
        self.adopted_ms.is_some() && self.committed_ms.is_some()
    }
}

/// What the death of a TaskManager cost.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WorkerRecovery {
    pub(crate) task_manager: String,
    /// Milliseconds since the epoch.
    pub(crate) killed_at_ms: i64,
    /// The leader saw the failure.
    pub(crate) detected_ms: Option<u64>,
    /// The leader started a new attempt.
    pub(crate) started_ms: Option<u64>,
    /// All its tasks run.
    pub(crate) running_ms: Option<u64>,
    /// A source of the new attempt has read rows, or a checkpoint of it is complete.
    pub(crate) progress_ms: Option<u64>,
    /// The first checkpoint after all tasks ran is complete.
    pub(crate) committed_ms: Option<u64>,
    pub(crate) attempt_before: u32,
    pub(crate) attempt_after: u32,
    #[serde(skip)]
    killed_at: Duration,
}

impl WorkerRecovery {
    /// `task_manager` was killed at `killed_at` (monotonic) and `killed_at_ms` (wall); `before` is the last sample before.
    pub(crate) fn new(
        before: &Sample,
        task_manager: &str,
        killed_at: Duration,
        killed_at_ms: i64,
    ) -> Self {
        Self {
            task_manager: task_manager.to_owned(),
            killed_at_ms,
            detected_ms: None,
            started_ms: None,
            running_ms: None,
            progress_ms: None,
            committed_ms: None,
            attempt_before: before.attempt(),
            attempt_after: before.attempt(),
            killed_at,
        }
    }

    /// Takes in a sample that was begun after the kill.
    pub(crate) fn on_sample(&mut self, sample: &Sample) {
        if self.is_over() || sample.attempt() <= self.attempt_before {
            return;
        }
        let since_kill = |wall_ms: i64| u64::try_from(wall_ms - self.killed_at_ms).ok();
        let times = sample
            .job
            .as_ref()
            .and_then(|job| job.attempt_times)
            .unwrap_or_default();
        // A second failure on the way belongs to the same recovery: the first sight counts, and the last start.
        self.detected_ms = self
            .detected_ms
            .or(since_kill(times.failure_detected_at_ms));
        self.started_ms = since_kill(times.started_at_ms);
        self.running_ms = since_kill(times.all_running_at_ms);
        self.attempt_after = sample.attempt();
        if self.running_ms.is_none() {
            self.progress_ms = None;
            return;
        }
        let committed = sample
            .first_completed_after(times.all_running_at_ms)
            .and_then(since_kill);
        if self.progress_ms.is_none() && sample.rows_read() > 0 {
            self.progress_ms = Some(millis(sample.at.saturating_sub(self.killed_at)));
        }
        self.progress_ms = self
            .progress_ms
            .min(committed)
            .or(self.progress_ms)
            .or(committed);
        self.committed_ms = committed;
    }

    /// The phases in their order, with when each was passed in milliseconds after the kill.
    pub(crate) fn phases(&self) -> [(&'static str, Option<u64>); 5] {
        [
            ("detected", self.detected_ms),
            ("new attempt", self.started_ms),
            ("all tasks run", self.running_ms),
            ("first rows seen", self.progress_ms),
            ("next checkpoint complete", self.committed_ms),
        ]
    }

    /// Whether all phases are over.
    pub(crate) fn is_over(&self) -> bool {
        self.committed_ms.is_some()
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use flott_proto::wire::AttemptTimes;

    use super::super::sample::samples::*;
    use super::*;

    const KILLED: (Duration, i64) = (Duration::from_millis(1_000), 1_001_000);

    #[test]
    fn leader_failover_is_told_phase_by_phase() {
        let before = with_job(led_by(990, 1, 4), 1, 100);
        let mut failover = LeaderFailover::new(&before, KILLED.0, KILLED.1);
        failover.on_sample(&led_by(1_100, 1, 4));
        assert_eq!(
            failover.detected_ms, None,
            "the survivors still believe in it"
        );
        failover.on_sample(&led_by(1_250, 0, 5));
        failover.on_sample(&led_by(1_300, 2, 5));
        failover.on_sample(&with_job(led_by(1_420, 2, 5), 1, 100));
        assert!(!failover.is_over());
        failover.on_sample(&with_checkpoint(
            with_job(led_by(1_900, 2, 5), 1, 100),
            7,
            "COMPLETED",
            1_001_700,
            50,
        ));
        assert_eq!(
            failover.phases().map(|(_, at)| at),
            [Some(250), Some(300), Some(420), Some(750)]
        );
        assert_eq!(
            (
                failover.tasks_restarted,
                failover.attempt_before,
                failover.attempt_after
            ),
            (0, 1, 1)
        );
        assert!(failover.is_over());
    }

    #[test]
    fn a_new_attempt_or_a_vanished_task_counts_as_restarted() {
        let before = with_job(led_by(990, 1, 4), 1, 100);
        let mut failover = LeaderFailover::new(&before, KILLED.0, KILLED.1);
        failover.on_sample(&with_job(led_by(1_500, 2, 5), 2, 0));
        assert_eq!((failover.tasks_restarted, failover.attempt_after), (2, 2));

        let mut failover = LeaderFailover::new(&before, KILLED.0, KILLED.1);
        let mut without_one = with_job(led_by(1_500, 2, 5), 1, 0);
        without_one.job.as_mut().unwrap().vertices[0].tasks.pop();
        failover.on_sample(&without_one);
        assert_eq!(failover.tasks_restarted, 1);
    }

    #[test]
    fn the_checkpoint_under_way_at_the_kill_is_found() {
        let mut failover = LeaderFailover::new(&led_by(990, 1, 4), KILLED.0, KILLED.1);
        let sample = with_checkpoint(led_by(2_000, 2, 5), 3, "COMPLETED", 1_000_000, 40);
        let sample = with_checkpoint(sample, 4, "COMPLETED", 1_000_980, 400);
        let sample = with_checkpoint(sample, 5, "COMPLETED", 1_001_900, 30);
        failover.find_checkpoint_hit(sample.checkpoints.iter().cloned());
        assert_eq!(failover.checkpoint_hit, 4);
        failover.find_checkpoint_hit(
            sample
                .checkpoints
                .iter()
                .filter(|checkpoint| checkpoint.id != 4)
                .cloned(),
        );
        assert_eq!(failover.checkpoint_hit, 0);
    }

    fn restarted(at_ms: u64, rows: u64, times: [i64; 3]) -> Sample {
        let mut sample = with_job(led_by(at_ms, 1, 4), 2, rows);
        let [failure_detected_at_ms, started_at_ms, all_running_at_ms] = times;
        sample.job.as_mut().unwrap().attempt_times = Some(AttemptTimes {
            failure_detected_at_ms,
            started_at_ms,
            all_running_at_ms,
        });
        sample
    }

    #[test]
    fn worker_recovery_is_told_phase_by_phase() {
        let before = with_job(led_by(990, 1, 4), 1, 100);
        let mut recovery = WorkerRecovery::new(&before, "tm-1", KILLED.0, KILLED.1);
        recovery.on_sample(&with_job(led_by(1_020, 1, 4), 1, 100));
        recovery.on_sample(&restarted(1_300, 0, [1_001_010, 1_001_200, 0]));
        assert_eq!(
            (recovery.detected_ms, recovery.running_ms),
            (Some(10), None)
        );
        recovery.on_sample(&restarted(1_500, 0, [1_001_010, 1_001_200, 1_001_450]));
        recovery.on_sample(&restarted(1_700, 20, [1_001_010, 1_001_200, 1_001_450]));
        assert_eq!(recovery.progress_ms, Some(700));
        recovery.on_sample(&with_checkpoint(
            restarted(2_300, 90, [1_001_010, 1_001_200, 1_001_450]),
            9,
            "COMPLETED",
            1_002_100,
            60,
        ));
        assert_eq!(
            recovery.phases().map(|(_, at)| at),
            [Some(10), Some(200), Some(450), Some(700), Some(1_160)]
        );
        assert!(recovery.is_over());
    }

    #[test]
    fn a_completed_checkpoint_is_progress_even_if_the_counters_come_later() {
        let before = with_job(led_by(990, 1, 4), 1, 100);
        let mut recovery = WorkerRecovery::new(&before, "tm-1", KILLED.0, KILLED.1);
        recovery.on_sample(&with_checkpoint(
            restarted(2_000, 0, [1_001_010, 1_001_200, 1_001_450]),
            9,
            "COMPLETED",
            1_001_600,
            60,
        ));
        assert_eq!(
            (recovery.progress_ms, recovery.committed_ms),
            (Some(660), Some(660))
        );
    }
}
