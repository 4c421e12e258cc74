//! What has happened, as one number: two runs with the same number did the same.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The record of a run.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    events: u64,
    counts: BTreeMap<&'static str, u64>,
}

impl Trace {
    /// Something happened, described by these numbers.
    pub fn add(&mut self, event: &'static str, numbers: &[u64]) {
        self.events += 1;
        self.hash = xxh3_64_with_seed(event.as_bytes(), self.hash);
        for number in numbers {
            self.hash = xxh3_64_with_seed(&number.to_le_bytes(), self.hash);
        }
    }

    /// Something happened that is worth being counted.
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// All of it.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many things happened.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// How often each thing did that is counted.
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }
}
