//! Where a backend's entries are read and written: its tablets, and what is in memory before them.

use std::path::PathBuf;
use std::sync::Arc;

use flott_node::config::StateBackendType;
use flott_proto::key_group::KeyGroup;
use tokio::sync::Notify;
use tracing::info;

use super::BackendOptions;
use super::changes::Changes;
use super::expiry::Expiry;
use super::held_back::HeldBack;
use super::resident::Resident;
use super::tablets::Tablets;
use super::walk::Walk;
use crate::error::Error;
use crate::rocks::{Batch, Database, Memory};
use crate::snapshot::{EarlyTables, Linking};

/// Changes that wait for a snapshot take an eighth of the memory, and at most this much: they are written at once when the wait is over, and that should not be felt.
const HELD_BACK_BYTES_MAX: u64 = 16 << 20;

/// The entries of one task.
#[derive(Debug)]
pub(super) struct Store {
    tablets: Arc<Tablets>,
    /// While a snapshot is linked.
    held_back: Option<HeldBack>,
    held_back_bytes_max: usize,
    /// All entries, if they are kept in memory, too. Nothing is held back then: it is not written before the next snapshot.
    resident: Option<Resident>,
    early: Arc<Notify>,
    expiry: Arc<Expiry>,
}

impl Store {
    /// Over tablets that share `memory`.
    pub(super) fn new(
        tablets: Tablets,
        options: BackendOptions,
        memory: &Memory,
    ) -> Result<Self, Error> {
        let bytes = options.memory_bytes();
        let resident = match options.backend {
            StateBackendType::RocksDb => None,
            // The other half is for writing to disk.
            StateBackendType::HashMap => Resident::load(&tablets, (bytes / 2) as usize)?,
        };
        Ok(Self {
            tablets: Arc::new(tablets),
            held_back: None,
            held_back_bytes_max: (bytes / 8).min(HELD_BACK_BYTES_MAX) as usize,
            resident,
            early: Arc::clone(&memory.early),
            expiry: Arc::clone(&memory.expiry),
        })
    }

    /// When entries expire.
    pub(super) fn expiry(&self) -> &Arc<Expiry> {
        &self.expiry
    }

    /// Whether all entries are in memory.
    pub(super) fn is_resident(&self) -> bool {
        self.resident.is_some()
    }

    /// What is flushed before a snapshot asks for it.
    pub(super) fn early(&self) -> EarlyTables {
        EarlyTables::of(&self.tablets, Arc::clone(&self.early))
    }

    /// All databases, with nothing held back from them.
    pub(super) fn databases(&mut self) -> Result<impl Iterator<Item = &Database>, Error> {
        self.settle()?;
        Ok(self.tablets.databases())
    }

    /// The values of many stored keys, in their order.
    pub(super) fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        if let Some(resident) = &self.resident {
            let value = |key: &&[u8]| resident.entries.get(key).cloned().flatten();
            return Ok(keys.iter().map(value).collect());
        }
        let Some(HeldBack { changes, .. }) = &self.held_back else {
            return self.tablets.get_many(keys);
        };
        let changed: Vec<_> = keys.iter().map(|key| changes.get(key)).collect();
        let others = keys.iter().zip(&changed);
        let others = others.filter_map(|(key, changed)| changed.is_none().then_some(*key));
        let stored = self.tablets.get_many(&others.collect::<Vec<_>>())?;
        let mut stored = stored.into_iter();
        let values = changed.into_iter().map(|changed| match changed {
            Some(value) => value.clone(),
            None => stored.next().flatten(),
        });
        Ok(values.collect())
    }

    /// Carries out the changes, in memory or in the databases.
    pub(super) fn write(&mut self, batch: &Batch) -> Result<(), Error> {
        if let Some(resident) = &mut self.resident {
            resident.write(batch);
            resident.sweep(&self.expiry.so_far(), batch.len());
            if resident.is_too_large() {
                info!("the state has outgrown its memory, and is on disk from now on");
                self.spill()?;
            }
            return Ok(());
        }
        if self.held_back.as_ref().is_some_and(HeldBack::is_over) {
            self.settle()?;
        }
        let Some(HeldBack { changes, .. }) = &mut self.held_back else {
            return self.tablets.write(batch);
        };
        batch.for_each(|key, value| changes.set(key, value));
        if changes.size_bytes() > self.held_back_bytes_max {
            self.settle()?;
        }
        Ok(())
    }

    /// The entries of a key group whose stored keys are in `from..to`, in order, as they are now.
    pub(super) fn range(&self, group: KeyGroup, from: Vec<u8>, to: Vec<u8>) -> Walk<'_> {
        if let Some(resident) = &self.resident {
            return Walk::new(None, Some(resident.entries.range(from, to)));
        }
        let changes = self.held_back.as_ref().map(|held_back| &held_back.changes);
        let changed = changes.map(|changes: &Changes| changes.range(from.clone(), to.clone()));
        Walk::new(Some(self.tablets.of(group).range(from, to)), changed)
    }

    /// What there is now is what will be linked into `dir`; what is written from now on is not.
    pub(super) fn seal(&mut self, dir: PathBuf) -> Result<Arc<Linking>, Error> {
        self.settle()?;
        let unwritten = match &mut self.resident {
            Some(resident) => resident.take_unsaved(),
            None => {
                self.tablets.begin_flush()?;
                Batch::default()
            }
        };
        let linking = Arc::new(Linking::new(Arc::clone(&self.tablets), dir, unwritten));
        self.held_back = Some(HeldBack::until(Arc::clone(&linking)));
        Ok(linking)
    }

    /// Waits for a snapshot that is being linked, and writes what it has kept from being written.
    fn settle(&mut self) -> Result<(), Error> {
        let Some(held_back) = self.held_back.take() else {
            return Ok(());
        };
        let mut batches = held_back.release().into_iter();
        batches.try_for_each(|batch| self.tablets.write(&batch))
    }

    /// The databases have everything, and memory nothing.
    fn spill(&mut self) -> Result<(), Error> {
        self.settle()?;
        match self.resident.take() {
            Some(mut resident) => self.tablets.write(&resident.take_unsaved()),
            None => Ok(()),
        }
    }
}
