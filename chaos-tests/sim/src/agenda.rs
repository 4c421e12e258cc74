//! What is planned, by its time. What has the same time is in the order in which it was added.

use std::collections::BTreeMap;

use crate::kernel;

/// What is to come.
#[derive(Debug)]
pub struct Agenda<T> {
    planned: BTreeMap<(u64, u64), T>,
    added: u64,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self {
            planned: BTreeMap::new(),
            added: 0,
        }
    }
}

impl<T> Agenda<T> {
    /// Plans something for so many nanoseconds from now.
    pub fn add(&mut self, after: u64, what: T) {
        self.added += 1;
        self.planned
            .insert((kernel::now() + after, self.added), what);
    }

    /// When the next of it is due.
    pub fn next_at(&self) -> Option<u64> {
        self.planned.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the next of it that is due by now.
    pub fn due(&mut self) -> Option<T> {
        let entry = self.planned.first_entry()?;
        (entry.key().0 <= kernel::now()).then(|| entry.remove())
    }
}
