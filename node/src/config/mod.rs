//! Flink's configuration keys, typed.
//!
//! A process reads its settings once, from layers of which the later wins: the defaults in [`options`], a YAML file with
//! nested or dotted keys, `-D key=value`. A job's own settings are such a map too ([`Configuration::from_map`]). Every
//! value remembers where it came from, so that an error can name the line. A key that nobody reads is an error with
//! the nearest known key; Flink's older names are understood with a warning ([`foreign`] has what Flink knows and Flott
//! does not need).
//!
//! What must stay true: only keys of [`options::ALL`] are ever stored, under their present name.

mod foreign;
mod load;
mod mask;
mod option;
pub mod options;
mod value;
mod yaml;

use std::collections::BTreeMap;

pub use option::{ConfigError, ConfigOption, OptionInfo, Origin};
pub use value::{
    ClaimMode, ConfigValue, MemorySize, RestartStrategyType, Seconds, StateBackendType,
};

/// Settings by key, with where each came from. Cheap enough to clone once per component.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    entries: BTreeMap<&'static str, Entry>,
    warnings: Vec<String>,
}

#[derive(Clone, Debug)]
struct Entry {
    value: String,
    origin: Origin,
}

impl Configuration {
    /// The value of `option`: the one that was set, or the default.
    ///
    /// Fails if the text that was set is not of the option's type; the error names key, value, origin and what is
    /// expected. After [`Self::validate`] it cannot fail.
    pub fn get<T: ConfigValue>(&self, option: &ConfigOption<T>) -> Result<T, ConfigError> {
        let (text, origin) = match self.entries.get(option.key()) {
            Some(entry) => (entry.value.as_str(), entry.origin.clone()),
            None => (option.default_text(), Origin::Default),
        };
        T::parse(text).ok_or_else(|| ConfigError::Invalid {
            key: option.key(),
            value: text.to_owned(),
            origin,
            expected: T::EXPECTED,
        })
    }

    /// Whether `option` was set, rather than left at its default.
    pub fn is_set<T>(&self, option: &ConfigOption<T>) -> bool {
        self.entries.contains_key(option.key())
    }

    /// Sets `option` from within the program. The text is checked when it is read.
    pub fn set<T>(&mut self, option: &ConfigOption<T>, value: impl ToString) {
        let entry = Entry {
            value: value.to_string(),
            origin: Origin::Program,
        };
        self.entries.insert(option.key(), entry);
    }

    /// Lays `later` over these settings: what it sets wins.
    #[must_use]
    pub fn merge(mut self, later: Self) -> Self {
        self.entries.extend(later.entries);
        self.warnings.extend(later.warnings);
        self
    }

    /// What was set, as text by key, without the defaults: what travels with a job.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        let text = |(key, entry): (&&str, &Entry)| ((*key).to_owned(), entry.value.clone());
        self.entries.iter().map(text).collect()
    }

    /// What was set, with where it came from: key, text, origin.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str, &Origin)> {
        self.entries
            .iter()
            .map(|(key, entry)| (*key, entry.value.as_str(), &entry.origin))
    }

    /// What a person should know about these settings: old names, and settings of Flink that mean nothing here.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Checks every value that was set, and those that only make sense together.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for info in options::ALL {
            if let Some(entry) = self
                .entries
                .get(info.key)
                .filter(|entry| !(info.check)(&entry.value))
            {
                return Err(ConfigError::Invalid {
                    key: info.key,
                    value: entry.value.clone(),
                    origin: entry.origin.clone(),
                    expected: info.expected,
                });
            }
        }
        self.above(
            &options::RAFT_ELECTION_TIMEOUT_MIN,
            &options::RAFT_HEARTBEAT_INTERVAL,
        )?;
        self.above(
            &options::RAFT_ELECTION_TIMEOUT_MAX,
            &options::RAFT_ELECTION_TIMEOUT_MIN,
        )?;
        self.above(&options::HEARTBEAT_TIMEOUT, &options::HEARTBEAT_INTERVAL)?;
        if self.get(&options::SSL_REST_ENABLED)? && !self.get(&options::SSL_ENABLED)? {
            return Err(ConfigError::Contradiction {
                key: options::SSL_REST_ENABLED.key(),
                value: self.text(&options::SSL_REST_ENABLED).to_owned(),
                origin: self.origin(&options::SSL_REST_ENABLED),
                rule: format!("come with {}: true", options::SSL_ENABLED.key()),
            });
        }
        self.at_least_one(&options::PARALLELISM)?;
        self.at_least_one(&options::MAX_PARALLELISM)?;
        self.at_least_one(&options::TASK_SLOTS)?;
        self.at_least_one(&options::NUM_RETAINED)
    }

    /// Fails unless `greater` is above `lesser`: equal time-outs expire in any order.
    fn above<T: ConfigValue + PartialOrd>(
        &self,
        greater: &ConfigOption<T>,
        lesser: &ConfigOption<T>,
    ) -> Result<(), ConfigError> {
        if self.get(greater)? > self.get(lesser)? {
            return Ok(());
        }
        Err(ConfigError::Contradiction {
            key: greater.key(),
            value: self.text(greater).to_owned(),
            origin: self.origin(greater),
            rule: format!("be greater than {} ({})", lesser.key(), self.text(lesser)),
        })
    }

    fn at_least_one(&self, option: &ConfigOption<u32>) -> Result<(), ConfigError> {
        if self.get(option)? >= 1 {
            return Ok(());
        }
        Err(ConfigError::Contradiction {
            key: option.key(),
            value: self.text(option).to_owned(),
            origin: self.origin(option),
            rule: "be at least 1".to_owned(),
        })
    }

    fn text<'a, T>(&'a self, option: &'a ConfigOption<T>) -> &'a str {
        self.entries
            .get(option.key())
            .map_or(option.default_text(), |entry| &entry.value)
    }

    fn origin<T>(&self, option: &ConfigOption<T>) -> Origin {
        self.entries
            .get(option.key())
            .map_or(Origin::Default, |entry| entry.origin.clone())
    }
}

#[cfg(test)]
mod tests;
