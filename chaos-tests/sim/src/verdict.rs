//! What is said of a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::kernel::{MILLISECOND, with};

/// A run of one seed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// Its seed.
    pub seed: u64,
    /// Two runs that did the same have the same.
    pub trace: u64,
    /// What must not be, in words; none if nothing was found.
    pub violation: Option<String>,
    /// Things that happened.
    pub events: u64,
    /// Virtual time that passed.
    pub virtual_ms: u64,
    /// How often what happened.
    pub counts: BTreeMap<String, u64>,
}

impl Verdict {
    /// On the run that this thread's kernel has seen.
    pub fn of(seed: u64, violation: Option<String>) -> Self {
        with(|kernel| {
            let counts = kernel.trace.counts().iter();
            Self {
                seed,
                trace: kernel.trace.hash(),
                violation,
                events: kernel.trace.events(),
                virtual_ms: kernel.now / MILLISECOND,
                counts: counts.map(|(what, n)| ((*what).to_owned(), *n)).collect(),
            }
        })
    }

    /// That happened so often.
    pub fn count(&mut self, what: &str, n: u64) {
        self.counts.insert(what.to_owned(), n);
    }

    /// Whether it may be called clean.
    pub fn is_clean(&self) -> bool {
        self.violation.is_none()
    }
}
