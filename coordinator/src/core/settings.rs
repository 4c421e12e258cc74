//! A job's settings, read once from its configuration.
//!
//! The configuration was validated when the job was submitted. What a later build no longer understands falls back to
//! the default: a committed entry must never fail to apply.

use std::collections::BTreeMap;
use std::time::Duration;

use flott_node::config::{
    ConfigError, ConfigOption, ConfigValue, Configuration, RestartStrategyType, options,
};

use super::restart::RestartStrategy;

#[derive(Clone, Debug, PartialEq)]
pub struct JobSettings {
    /// Zero: no periodic checkpoints.
    pub checkpoint_interval: Duration,
    pub checkpoint_timeout: Duration,
    pub checkpoint_min_pause: Duration,
    /// Root of checkpoints; a path or URL.
    pub checkpoint_dir: String,
    /// After this long tasks need not align; none: they always do.
    pub unaligned_after: Option<Duration>,
    pub retained_max: usize,
    pub tolerable_failed_checkpoints: u32,
    pub restart_strategy: RestartStrategy,
}

/// So long after a time (ms), or the end of all time: a setting may be longer than there is.
pub(super) fn later(at_ms: i64, by: Duration) -> i64 {
    at_ms.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX))
}

impl JobSettings {
    /// The settings of a job in the replicated state.
    pub fn of(configuration: &BTreeMap<String, String>) -> Self {
        let parsed = Configuration::from_map(configuration).unwrap_or_default();
        Self::read(&parsed)
            .or_else(|_| Self::read(&Configuration::default()))
            .expect("every default is valid")
    }

    /// The settings in `configuration`; fails on a value that is not of its option's type.
    pub fn read(configuration: &Configuration) -> Result<Self, ConfigError> {
        fn get<T: ConfigValue>(
            from: &Configuration,
            option: &ConfigOption<T>,
        ) -> Result<T, ConfigError> {
            from.get(option)
        }
        let from = configuration;
        let restart_strategy = match get(from, &options::RESTART_STRATEGY)? {
            RestartStrategyType::None => RestartStrategy::None,
            RestartStrategyType::FixedDelay => RestartStrategy::FixedDelay {
                attempts_max: get(from, &options::RESTART_FIXED_ATTEMPTS)?.into(),
                delay: get(from, &options::RESTART_FIXED_DELAY)?,
            },
            RestartStrategyType::ExponentialDelay => RestartStrategy::ExponentialDelay {
                initial: get(from, &options::RESTART_EXP_INITIAL)?,
                max: get(from, &options::RESTART_EXP_MAX)?,
                multiplier: get(from, &options::RESTART_EXP_MULTIPLIER)?,
                reset_after: get(from, &options::RESTART_EXP_RESET)?,
                attempts_max: get(from, &options::RESTART_EXP_ATTEMPTS)?
                    .map_or(u64::MAX, u64::from),
            },
            RestartStrategyType::FailureRate => RestartStrategy::FailureRate {
                failures_max: get(from, &options::RESTART_RATE_MAX)?.into(),
                interval: get(from, &options::RESTART_RATE_INTERVAL)?,
                delay: get(from, &options::RESTART_RATE_DELAY)?,
            },
        };
        let unaligned = get(from, &options::UNALIGNED_ENABLED)?;
        let aligned_timeout = get(from, &options::ALIGNED_TIMEOUT)?;
        Ok(Self {
            checkpoint_interval: get(from, &options::CHECKPOINT_INTERVAL)?,
            checkpoint_timeout: get(from, &options::CHECKPOINT_TIMEOUT)?,
            checkpoint_min_pause: get(from, &options::CHECKPOINT_MIN_PAUSE)?,
            checkpoint_dir: get(from, &options::CHECKPOINT_DIR)?,
            unaligned_after: unaligned.then_some(aligned_timeout),
            retained_max: get(from, &options::NUM_RETAINED)?.max(1) as usize,
            tolerable_failed_checkpoints: get(from, &options::TOLERABLE_FAILED)?,
            restart_strategy,
        })
    }
}
