//! Restart strategies: after a failure, when may the next attempt start, if at all? Pure.
//!
//! As Flink's `restart-strategy.type`: none, fixed-delay, exponential-delay, failure-rate.

use std::time::Duration;

use super::job::FailureHistory;
use super::settings::later;

#[derive(Clone, Debug, PartialEq)]
pub enum RestartStrategy {
    None,
    FixedDelay {
        attempts_max: u64,
        delay: Duration,
    },
    ExponentialDelay {
        initial: Duration,
        max: Duration,
        multiplier: f64,
        reset_after: Duration,
        attempts_max: u64,
    },
    FailureRate {
        failures_max: u64,
        interval: Duration,
        delay: Duration,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start the next attempt at that time; the backoff is what the failure after this one grows from.
    RestartAt {
        at_ms: i64,
        backoff_ms: u64,
    },
    Fail,
}

impl RestartStrategy {
    /// What to do about a failure noticed at `now_ms`; `history` holds those before it.
    pub fn decide(&self, history: &FailureHistory, now_ms: i64) -> Decision {
        let restart_after = |delay: Duration, backoff_ms| Decision::RestartAt {
            // 0 means "fails for good" in the replicated entry.
            at_ms: later(now_ms, delay).max(1),
            backoff_ms,
        };
        let since = |interval: Duration| now_ms.saturating_sub(later(0, interval));
        match self {
            Self::None => Decision::Fail,
            Self::FixedDelay {
                attempts_max,
                delay,
            } => {
                if history.times_ms.len() as u64 >= *attempts_max {
                    Decision::Fail
                } else {
                    restart_after(*delay, 0)
                }
            }
            Self::ExponentialDelay {
                initial,
                max,
                multiplier,
                reset_after,
                attempts_max,
            } => {
                let calm_since = since(*reset_after);
                let calm = history
                    .times_ms
                    .last()
                    .is_none_or(|last| *last < calm_since);
                let recent = history
                    .times_ms
                    .iter()
                    .rev()
                    .take_while(|time| **time >= calm_since)
                    .count() as u64;
                if recent >= *attempts_max {
                    return Decision::Fail;
                }
                // Nobody has promised that the first is not the longer one.
                let initial = (*initial).min(*max);
                let backoff = if calm || history.backoff_ms == 0 {
                    initial
                } else {
                    let grown = Duration::from_millis(
                        (history.backoff_ms as f64 * multiplier.max(1.0)) as u64,
                    );
                    grown.clamp(initial, *max)
                };
                restart_after(backoff, later(0, backoff) as u64)
            }
            Self::FailureRate {
                failures_max,
                interval,
                delay,
            } => {
                let from = since(*interval);
                let recent = history
                    .times_ms
                    .iter()
                    .filter(|time| **time >= from)
                    .count() as u64;
                if recent >= *failures_max {
                    Decision::Fail
                } else {
                    restart_after(*delay, 0)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(times_ms: &[i64], backoff_ms: u64) -> FailureHistory {
        FailureHistory {
            times_ms: times_ms.to_vec(),
            backoff_ms,
            ..FailureHistory::default()
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// It was a panic of the leader, and of the next one, when the job failed for the second time.
    #[test]
    fn a_first_backoff_above_the_highest_is_the_highest() {
        let strategy = RestartStrategy::ExponentialDelay {
            initial: 100 * SECOND,
            max: 60 * SECOND,
            multiplier: 1.5,
            reset_after: 3600 * SECOND,
            attempts_max: u64::MAX,
        };
        let highest = Decision::RestartAt {
            at_ms: 61_000,
            backoff_ms: 60_000,
        };
        assert_eq!(strategy.decide(&history(&[], 0), 1_000), highest);
        assert_eq!(strategy.decide(&history(&[500], 100_000), 1_000), highest);
    }

    #[test]
    fn a_delay_beyond_all_time_does_not_end_before_it_begins() {
        let delay = Duration::MAX;
        let fixed = RestartStrategy::FixedDelay {
            attempts_max: 3,
            delay,
        };
        let rate = RestartStrategy::FailureRate {
            failures_max: 3,
            interval: Duration::MAX,
            delay,
        };
        let never = Decision::RestartAt {
            at_ms: i64::MAX,
            backoff_ms: 0,
        };
        assert_eq!(fixed.decide(&history(&[], 0), 5_000), never);
        assert_eq!(rate.decide(&history(&[1], 0), 5_000), never);
        let often = history(&[1, 2, 3], 0);
        assert_eq!(rate.decide(&often, 5_000), Decision::Fail);
    }

    #[test]
    fn none_fails_at_once() {
        assert_eq!(
            RestartStrategy::None.decide(&history(&[], 0), 5),
            Decision::Fail
        );
    }

    #[test]
    fn a_fixed_delay_ends_after_its_attempts() {
        let strategy = RestartStrategy::FixedDelay {
            attempts_max: 2,
            delay: SECOND,
        };
        assert_eq!(
            strategy.decide(&history(&[], 0), 10),
            Decision::RestartAt {
                at_ms: 1010,
                backoff_ms: 0
            }
        );
        assert_eq!(strategy.decide(&history(&[1, 2], 0), 10), Decision::Fail);
    }

    #[test]
    fn an_exponential_delay_grows_to_its_maximum_and_resets_after_a_calm_time() {
        let strategy = RestartStrategy::ExponentialDelay {
            initial: Duration::from_millis(100),
            max: Duration::from_millis(300),
            multiplier: 2.0,
            reset_after: 60 * SECOND,
            attempts_max: 5,
        };
        let decide = |times: &[i64], backoff, now| strategy.decide(&history(times, backoff), now);
        assert_eq!(
            decide(&[], 0, 1000),
            Decision::RestartAt {
                at_ms: 1100,
                backoff_ms: 100
            }
        );
        assert_eq!(
            decide(&[900], 100, 1000),
            Decision::RestartAt {
                at_ms: 1200,
                backoff_ms: 200
            }
        );
        assert_eq!(
            decide(&[800, 900], 200, 1000),
            Decision::RestartAt {
                at_ms: 1300,
                backoff_ms: 300
            }
        );
        assert_eq!(
            decide(&[900], 300, 100_000),
            Decision::RestartAt {
                at_ms: 100_100,
                backoff_ms: 100
            }
        );
        assert_eq!(decide(&[1, 2, 3, 4, 5], 300, 1000), Decision::Fail);
    }

    #[test]
    fn a_failure_rate_counts_within_its_interval_only() {
        let strategy = RestartStrategy::FailureRate {
            failures_max: 2,
            interval: SECOND,
            delay: SECOND,
        };
        assert_eq!(strategy.decide(&history(&[0, 100], 0), 500), Decision::Fail);
        assert_eq!(
            strategy.decide(&history(&[0, 100], 0), 1050),
            Decision::RestartAt {
                at_ms: 2050,
                backoff_ms: 0
            }
        );
    }
}
