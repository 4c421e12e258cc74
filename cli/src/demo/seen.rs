//! What a run has seen so far, sample by sample. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use flott_proto::wire::CheckpointInfo;

use super::recovery::{LeaderFailover, WorkerRecovery};
use super::sample::{Progress, Sample};
use super::verdict::CheckpointFigures;
use super::view::Frame;

/// The display's rate is over this much time.
const RATE_WINDOW: Duration = Duration::from_secs(2);

/// All that is kept of the samples.
pub(super) struct Seen {
    progress: Progress,
    /// The estimate of rows behind the job.
    pub(super) rows: u64,
    rates: VecDeque<(Duration, u64)>,
    /// Every checkpoint that was ever listed, as it was listed last.
    checkpoints: BTreeMap<u64, CheckpointInfo>,
    /// Present from the kill on.
    pub(super) failover: Option<LeaderFailover>,
    pub(super) recovery: Option<WorkerRecovery>,
}

impl Seen {
    pub(super) fn new() -> Self {
        Self {
            progress: Progress::default(),
            rows: 0,
            rates: VecDeque::new(),
            checkpoints: BTreeMap::new(),
            failover: None,
            recovery: None,
        }
    }

    /// Takes in a sample of a job over `total_rows`; what is worth telling.
    pub(super) fn take_in(&mut self, sample: &Sample, total_rows: u64) -> Vec<String> {
        for checkpoint in &sample.checkpoints {
            self.checkpoints.insert(checkpoint.id, checkpoint.clone());
        }
        self.rows = self.progress.on_sample(sample);
        if sample.state() == "FINISHED" {
            // The last counters may not have been reported any more.
            self.rows = total_rows;
        }
        self.rates.push_back((sample.at, self.rows));
        while self
            .rates
            .front()
            .is_some_and(|(at, _)| *at + RATE_WINDOW < sample.at)
        {
            self.rates.pop_front();
        }
        let (what, before, after) = match (&mut self.failover, &mut self.recovery) {
            (_, Some(recovery)) => {
                let before = recovery.phases();
                recovery.on_sample(sample);
                (
                    "worker recovery",
                    before.to_vec(),
                    recovery.phases().to_vec(),
                )
            }
            (Some(failover), None) => {
                let before = failover.phases();
                failover.on_sample(sample);
                (
                    "leader failover",
                    before.to_vec(),
                    failover.phases().to_vec(),
                )
            }
            (None, None) => return Vec::new(),
        };
        let passed = before
            .iter()
            .zip(&after)
            .filter(|((_, before), (_, after))| before.is_none() && after.is_some());
        passed
            .map(|(_, (phase, at))| {
                format!("{what}: {phase} {} ms after the kill", at.unwrap_or(0))
            })
            .collect()
    }

    /// Finds out which checkpoint the leader's death fell into.
    pub(super) fn find_checkpoint_hit(&mut self) {
        if let Some(failover) = &mut self.failover {
            failover.find_checkpoint_hit(self.checkpoints.values().cloned());
        }
    }

    /// Whether everything that was killed so far has been recovered from.
    pub(super) fn recovered(&self) -> bool {
        match (&self.failover, &self.recovery) {
            (_, Some(recovery)) => recovery.is_over(),
            (Some(failover), None) => failover.is_over(),
            (None, None) => false,
        }
    }

    pub(super) fn frame(
        &self,
        title: &str,
        sample: &Sample,
        members: usize,
        total_rows: u64,
    ) -> Frame {
        let rate = match (self.rates.front(), self.rates.back()) {
            (Some((from, first)), Some((to, last))) if to > from => {
                last.saturating_sub(*first) as f64 / (*to - *from).as_secs_f64()
            }
            _ => 0.0,
        };
        Frame::of(title, sample, members, self.rows, total_rows, rate)
    }

    pub(super) fn figures(&self, last: &Sample) -> CheckpointFigures {
        let completed = || {
            self.checkpoints
                .values()
                .filter(|checkpoint| checkpoint.status == "COMPLETED")
        };
        CheckpointFigures {
            completed: last.job.as_ref().map_or(0, |job| job.completed_checkpoints),
            failed: last.job.as_ref().map_or(0, |job| job.failed_checkpoints),
            uploaded_bytes: completed()
                .map(|checkpoint| checkpoint.uploaded_bytes)
                .sum(),
            full_bytes: completed().map(|checkpoint| checkpoint.size_bytes).sum(),
            state_bytes: completed()
                .next_back()
                .map_or(0, |checkpoint| checkpoint.size_bytes),
        }
    }
}
