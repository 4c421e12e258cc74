//! Saved state, opened to be looked at: a copy of one tablet, read and never changed.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use flott_proto::key_group::KeyGroupRange;
use flott_proto::state_handle::SubtaskState;

use super::plan::{RestorePlan, plan};
use super::{Source, download};
use crate::blocking;
use crate::error::Error;
use crate::keyed::registry::Registry;
use crate::keyed::{StateId, Timer, codec, damaged};
use crate::rocks::Database;

/// Memory for reading a tablet: it is read once, from one end to the other.
const READ_MEMORY_BYTES: u64 = 8 << 20;

/// One saved tablet, opened for reading.
#[derive(Debug)]
pub struct SavedTablet {
    database: Database,
    registry: Registry,
    dir: PathBuf,
}

impl SavedTablet {
    /// The key groups of each tablet that a subtask saved.
    pub fn all_of(state: &SubtaskState) -> Vec<KeyGroupRange> {
        let mut tablets: Vec<_> = state.files.values().map(|file| file.key_groups).collect();
        tablets.sort_unstable();
        tablets.dedup();
        tablets
    }

    /// Brings the files of the tablet of these key groups into `dir`, which is empty, checks them, and opens them. The
    /// caller removes `dir`.
    pub async fn open(
        dir: &Path,
        source: &Source,
        state: &SubtaskState,
        tablet: KeyGroupRange,
        max_parallelism: u32,
    ) -> Result<Self, Error> {
        let mut state = state.clone();
        state.files.retain(|_, file| file.key_groups == tablet);
        let RestorePlan::OpenAsIs(files) = plan(tablet, &[state])? else {
            let reason = format!("there is no tablet of key groups {tablet}");
            return Err(Error::Incomplete { reason });
        };
        download::download(source, &files, dir).await?;
        let dir = dir.to_owned();
        blocking("open a saved tablet", move || {
            let database = Database::open_read_only(&dir, READ_MEMORY_BYTES)?;
            let registry = Registry::load(&database, max_parallelism)?;
            Ok(Self {
                database,
                registry,
                dir,
            })
        })
        .await
    }

    /// The states of an operator, by name.
    pub fn states_of(&self, operator_uid: &str) -> Vec<(&str, StateId)> {
        let all = self.registry.states();
        all.filter(|(uid, ..)| *uid == operator_uid)
            .map(|(_, name, id)| (name, id))
            .collect()
    }

    /// Gives every value of the state in these key groups to `each`, as key, namespace and value, until that has enough.
    pub fn for_each_value(
        &self,
        state: StateId,
        key_groups: KeyGroupRange,
        mut each: impl FnMut(Vec<u8>, Vec<u8>, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        for group in key_groups.groups() {
            let mut from = Vec::new();
            codec::push_key_prefix(&mut from, state, group, &[]);
            let to = codec::after_prefix(&from);
            let mut entries = self.database.range(from, to);
            while let Some((stored, value)) = entries.next()? {
                let (key, namespace) =
                    codec::split_value_key(stored).ok_or_else(|| damaged(&self.dir, "a value"))?;
                if each(key, namespace, value).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The same with its timers; those of one key group come in the order of their times.
    pub fn for_each_timer(
        &self,
        state: StateId,
        key_groups: KeyGroupRange,
        mut each: impl FnMut(Timer) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        for group in key_groups.groups() {
            let mut from = Vec::new();
            codec::push_timers_from(&mut from, state, group, i64::MIN);
            let to = codec::after_timers(state, group, i64::MAX);
            let mut entries = self.database.range(from, to);
            while let Some((stored, _)) = entries.next()? {
                let timer =
                    codec::split_timer(stored).ok_or_else(|| damaged(&self.dir, "a timer"))?;
                if each(timer).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
