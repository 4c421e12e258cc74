//! What is said of a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
    /// Whether it may be called clean.
    pub fn is_clean(&self) -> bool {
        self.violation.is_none()
    }
}
