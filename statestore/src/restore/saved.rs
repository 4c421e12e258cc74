//! Saved state, opened to be looked at: a copy of one tablet, read and never changed.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use flott_proto::key_group::KeyGroupRange;
use flott_proto::state_handle::SubtaskState;

use super::plan::{Part, RestorePlan, plan};
use super::{Source, download};
use crate::blocking;
use crate::error::Error;
use crate::keyed::registry::Registry;
use crate::keyed::{StateId, Timer, codec, damaged};
use crate::rocks::{Database, Memory};

/// Memory for reading a tablet: it is read once, from one end to the other.
const READ_MEMORY_BYTES: u64 = 8 << 20;

/// One saved tablet, opened for reading: of the key groups that were taken from it.
#[derive(Debug)]
pub struct SavedTablet {
    key_groups: KeyGroupRange,
    database: Database,
    registry: Registry,
    dir: PathBuf,
}

impl SavedTablet {
    /// The parts that make up what the subtask of these key groups saved.
    pub fn parts_of(state: &SubtaskState, key_groups: KeyGroupRange) -> Result<Vec<Part>, Error> {
        Ok(match plan(key_groups, std::slice::from_ref(state))? {
            RestorePlan::Empty => Vec::new(),
            RestorePlan::Open(parts) | RestorePlan::Rebuild(parts) => parts,
        })
    }

    /// Brings the files of the part's tablet into `dir`, which is empty, checks them, and opens them. The caller removes
    /// `dir`.
    pub async fn open(
        dir: &Path,
        source: &Source,
        part: &Part,
        max_parallelism: u32,
    ) -> Result<Self, Error> {
        download::download(source, &part.tablet, dir).await?;
        let (dir, key_groups) = (dir.to_owned(), part.take);
        blocking("open a saved tablet", move || {
            let database = Database::open_read_only(&dir, &Memory::of(READ_MEMORY_BYTES))?;
            let registry = Registry::load(&database, max_parallelism)?;
            Ok(Self {
                key_groups,
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

    /// Gives every value of the state to `each`, as key, namespace and value, until that has enough.
    pub fn for_each_value(
        &self,
        state: StateId,
        mut each: impl FnMut(Vec<u8>, Vec<u8>, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        for group in self.key_groups.groups() {
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
        mut each: impl FnMut(Timer) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        for group in self.key_groups.groups() {
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
