//! When the demo kills what: a pure function of the seed, so that a run can be repeated.
//!
//! Must stay true: the leader dies well before the TaskManager, so that what each death costs can be told apart, and
//! both die well inside the job's run.

use std::fmt;
use std::time::Duration;

/// The moments of one run's kills.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KillPlan {
    /// Share of the input's rows after which the leader dies, 0 to 1.
    pub(crate) leader_at: f64,
    /// Wait this long after that share was seen; spreads the moments evenly over the heartbeats that report it.
    pub(crate) leader_delay: Duration,
    /// Wait for a checkpoint that is triggered but not complete, and kill the leader inside it.
    pub(crate) inside_checkpoint: bool,
    /// Share of the input's rows after which a TaskManager dies.
    pub(crate) worker_at: f64,
    pub(crate) worker_delay: Duration,
    /// Which of the TaskManagers dies, as an index into their list modulo its length.
    pub(crate) worker: usize,
}

/// Longest wait after the row count was reached: one checkpoint interval, so that every phase of it is hit.
const DELAY_MAX_MS: u64 = 1_000;

impl KillPlan {
    /// The plan of `seed`. Stable: the same seed means the same plan in every version.
    pub(crate) fn from_seed(seed: u64) -> Self {
        let mut draws = SplitMix64(seed);
        Self {
            leader_at: draws.between(0.20, 0.45),
            leader_delay: draws.delay(),
            inside_checkpoint: draws.next() & 1 == 1,
            worker_at: draws.between(0.55, 0.80),
            worker_delay: draws.delay(),
            worker: (draws.next() >> 32) as usize,
        }
    }
}

impl fmt::Display for KillPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (leader, worker) = (self.leader_at * 100.0, self.worker_at * 100.0);
        let inside = if self.inside_checkpoint {
            " inside a checkpoint"
        } else {
            ""
        };
        write!(
            f,
            "the leader dies at {leader:.0} % of the rows{inside}, a TaskManager at {worker:.0} %"
        )
    }
}

/// Steele, Lea and Flood's generator: ten lines, and unlike a crate's it never changes its sequence.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        let unit = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        low + unit * (high - low)
    }

    fn delay(&mut self) -> Duration {
        Duration::from_millis(self.next() % DELAY_MAX_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_kills_the_leader_first_and_both_inside_the_run() {
        for seed in 0..1_000 {
            let plan = KillPlan::from_seed(seed);
            assert!((0.20..0.45).contains(&plan.leader_at), "{seed}: {plan:?}");
            assert!((0.55..0.80).contains(&plan.worker_at), "{seed}: {plan:?}");
            assert!(plan.leader_delay < Duration::from_secs(1));
            assert!(plan.worker_delay < Duration::from_secs(1));
        }
    }

    #[test]
    fn a_seed_is_a_repeatable_run() {
        assert_eq!(KillPlan::from_seed(7), KillPlan::from_seed(7));
        assert_ne!(KillPlan::from_seed(7), KillPlan::from_seed(8));
        assert_eq!(
            SplitMix64(0).next(),
            0xE220_A839_7B1D_CDAF,
            "the published first value of seed 0"
        );
    }

    #[test]
    fn the_ten_seeds_of_the_verdict_differ_in_kind() {
        let plans: Vec<_> = (1..=10).map(KillPlan::from_seed).collect();
        assert!(plans.iter().any(|plan| plan.inside_checkpoint));
        assert!(plans.iter().any(|plan| !plan.inside_checkpoint));
        assert!(plans.iter().any(|plan| plan.worker % 2 == 0));
        assert!(plans.iter().any(|plan| plan.worker % 2 == 1));
    }
}
