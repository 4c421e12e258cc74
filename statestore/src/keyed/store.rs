//! The tablets of a backend, with the changes that a snapshot holds back.

use std::path::PathBuf;
use std::sync::Arc;

use flott_proto::key_group::KeyGroup;

use super::held_back::{HeldBack, Walk};
use super::tablets::Tablets;
use crate::error::Error;
use crate::rocks::{Batch, Database};
use crate::snapshot::Linking;

/// Where a task's entries are read and written.
#[derive(Debug)]
pub(super) struct Store {
    tablets: Arc<Tablets>,
    held_back: Option<HeldBack>,
    /// The most that is held back before the task waits.
    held_back_bytes_max: usize,
}

impl Store {
    pub(super) fn new(tablets: Tablets, held_back_bytes_max: usize) -> Self {
        Self {
            tablets: Arc::new(tablets),
            held_back: None,
            held_back_bytes_max,
        }
    }

    /// All databases, with nothing held back from them.
    pub(super) fn databases(&mut self) -> Result<impl Iterator<Item = &Database>, Error> {
        self.settle()?;
        Ok(self.tablets.databases())
    }

    /// The values of many stored keys, in their order.
    pub(super) fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let Some(held_back) = &self.held_back else {
            return self.tablets.get_many(keys);
        };
        let changed: Vec<_> = keys.iter().map(|key| held_back.get(key)).collect();
        let others = keys.iter().zip(&changed);
        let others = others.filter_map(|(key, changed)| changed.is_none().then_some(*key));
        let mut stored = self
            .tablets
            .get_many(&others.collect::<Vec<_>>())?
            .into_iter();
        let values = changed.into_iter().map(|changed| match changed {
            Some(value) => value.clone(),
            None => stored.next().flatten(),
        });
        Ok(values.collect())
    }

    /// Carries out the changes, or holds them back.
    pub(super) fn write(&mut self, batch: &Batch) -> Result<(), Error> {
        if self.held_back.as_ref().is_some_and(HeldBack::is_over) {
            self.settle()?;
        }
        let Some(held_back) = &mut self.held_back else {
            return self.tablets.write(batch);
        };
        held_back.add(batch);
        if held_back.size_bytes() > self.held_back_bytes_max {
            self.settle()?;
        }
        Ok(())
    }

    /// The entries of a key group whose stored keys are in `from..to`, in order, as they are now.
    pub(super) fn range(&self, group: KeyGroup, from: Vec<u8>, to: Vec<u8>) -> Walk<'_> {
        let bounds = (from.clone(), to.clone());
        let stored = self.tablets.of(group).range(from, to);
        Walk::new(stored, self.held_back.as_ref(), bounds)
    }

    /// What is stored now is what will be linked into `dir`; what is written from now on is not.
    pub(super) fn seal(&mut self, dir: PathBuf) -> Result<Arc<Linking>, Error> {
        self.settle()?;
        self.tablets
            .databases()
            .try_for_each(Database::begin_flush)?;
        let linking = Arc::new(Linking::new(Arc::clone(&self.tablets), dir));
        self.held_back = Some(HeldBack::until(Arc::clone(&linking)));
        Ok(linking)
    }

    /// Waits for a snapshot that is being linked, and writes what was held back.
    fn settle(&mut self) -> Result<(), Error> {
        match self.held_back.take() {
            Some(held_back) => self.tablets.write(&held_back.release()),
            None => Ok(()),
        }
    }
}
