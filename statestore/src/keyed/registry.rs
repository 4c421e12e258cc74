//! The numbers that stand for state names in stored keys.
//!
//! A number belongs to one database and goes with it into every checkpoint. Two databases may number the same states
//! differently: then they cannot be tablets of one backend, and who copies between them translates by name.

use std::collections::BTreeMap;

use super::tablets::Tablets;
use super::{FORMAT, StateId, codec};
use crate::error::Error;
use crate::rocks::{Batch, Database};

/// By operator uid and state name.
type Name = (String, String);

/// All states of one database.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    ids: BTreeMap<Name, StateId>,
}

impl Registry {
    /// Marks a new database as ours.
    pub(crate) fn create(database: &Database, max_parallelism: u32) -> Result<Self, Error> {
        let mut batch = Batch::default();
        let format = [FORMAT.to_be_bytes(), max_parallelism.to_be_bytes()].concat();
        batch.put(&codec::format_key(), &format);
        database.write(&batch)?;
        Ok(Self::default())
    }

    /// Reads the states of a restored database, if it is one of ours and fits.
    pub(crate) fn load(database: &Database, max_parallelism: u32) -> Result<Self, Error> {
        let damaged = |reason: &str| Error::Incomplete {
            reason: format!("the restored database {reason}"),
        };
        let format = database
            .get(&codec::format_key())?
            .ok_or_else(|| damaged("does not say what it is"))?;
        let stored = format.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        match stored {
            Some(FORMAT) => {}
            Some(stored) => return Err(Error::Format { stored }),
            None => return Err(damaged("has a damaged format entry")),
        }
        let stored = format[4..]
            .first_chunk()
            .map(|bytes| u32::from_be_bytes(*bytes));
        let stored = stored.ok_or_else(|| damaged("has a damaged format entry"))?;
        if stored != max_parallelism {
            return Err(Error::MaxParallelism {
                stored,
                asked: max_parallelism,
            });
        }
        let prefix = codec::names_prefix();
        let mut names = database.range(prefix.clone(), codec::after_prefix(&prefix));
        let mut ids = BTreeMap::new();
        while let Some((key, value)) = names.next()? {
            let name = codec::split_name(key).ok_or_else(|| damaged("has a damaged state name"))?;
            let id = <[u8; 2]>::try_from(value).map(u16::from_be_bytes).ok();
            // A higher one would be taken for that of timers.
            let id = id.filter(|id| *id <= codec::STATE_ID_MAX).map(StateId);
            ids.insert(name, id.ok_or_else(|| damaged("has a damaged state id"))?);
        }
        Ok(Self { ids })
    }

    /// The numbers of all these, if they do not contradict each other.
    pub(crate) fn unite(registries: Vec<Self>) -> Option<Self> {
        let (mut united, mut names) = (Self::default(), BTreeMap::new());
        for (name, id) in registries.into_iter().flat_map(|registry| registry.ids) {
            let same_id = united.ids.insert(name.clone(), id).unwrap_or(id);
            let same_name = names.insert(id, name.clone()).unwrap_or(name.clone());
            if same_id != id || same_name != name {
                return None;
            }
        }
        Some(united)
    }

    /// Every tablet has every number, as they stand here.
    pub(crate) fn store(&self, tablets: &Tablets) -> Result<(), Error> {
        let mut batch = Batch::default();
        for ((uid, name), id) in &self.ids {
            batch.put(&codec::name_key(uid, name), &id.0.to_be_bytes());
        }
        let mut databases = tablets.databases();
        databases.try_for_each(|database| database.write(&batch))
    }

    /// The id of a state, registered now, in all `databases`, if it is new.
    pub(crate) fn get_or_add<'d>(
        &mut self,
        mut databases: impl Iterator<Item = &'d Database>,
        operator_uid: &str,
        name: &str,
    ) -> Result<StateId, Error> {
        let full_name = (operator_uid.to_owned(), name.to_owned());
        if let Some(id) = self.ids.get(&full_name) {
            return Ok(*id);
        }
        let next = self.ids.values().max().map_or(0, |id| id.0 + 1);
        if next > codec::STATE_ID_MAX {
            return Err(Error::TooManyStates {
                max: codec::STATE_ID_MAX,
            });
        }
        let mut batch = Batch::default();
        batch.put(&codec::name_key(operator_uid, name), &next.to_be_bytes());
        databases.try_for_each(|database| database.write(&batch))?;
        self.ids.insert(full_name, StateId(next));
        Ok(StateId(next))
    }

    /// Every state: operator uid, name, id.
    pub(crate) fn states(&self) -> impl Iterator<Item = (&str, &str, StateId)> {
        self.ids
            .iter()
            .map(|((uid, name), id)| (uid.as_str(), name.as_str(), *id))
    }
}

#[cfg(test)]
mod tests {
    use flott_decoders::{Seeds, told};

    use super::*;
    use crate::rocks::{MEMORY_BYTES_MIN, Memory};

    const MAX_PARALLELISM: u32 = 128;

    fn database(directory: &std::path::Path) -> Database {
        let database = Database::create(directory, &Memory::of(MEMORY_BYTES_MIN)).unwrap();
        Registry::create(&database, MAX_PARALLELISM).unwrap();
        database
    }

    /// Its successor would be none, and its values would lie among the timers of another state.
    #[test]
    fn a_state_id_beyond_the_highest_is_damage() {
        for stored in [&[0x80, 0][..], &[0xFF, 0xFF], &[0], &[0, 1, 2]] {
            let directory = tempfile::tempdir().unwrap();
            let database = database(&directory.path().join("db"));
            let mut batch = Batch::default();
            batch.put(&codec::name_key("op", "count"), stored);
            database.write(&batch).unwrap();
            let loaded = Registry::load(&database, MAX_PARALLELISM);
            assert!(
                matches!(loaded, Err(Error::Incomplete { .. })),
                "{stored:?}"
            );
        }
    }

    /// An entry of a name or of the format: its key and, behind a byte with the key's length, its value.
    #[test]
    fn any_entry_of_a_registry_is_one_or_refused() {
        let directory = tempfile::tempdir().unwrap();
        let database = database(&directory.path().join("db"));
        let format = [FORMAT.to_be_bytes(), MAX_PARALLELISM.to_be_bytes()].concat();
        let entry = |key: &[u8], value: &[u8]| [&[key.len() as u8][..], key, value].concat();
        let seeds = Seeds::of([
            entry(&codec::name_key("op", "count"), &[0, 7]),
            entry(&codec::format_key(), &format),
        ]);
        flott_decoders::check!(seeds.inputs(300)).for_each(|bytes: &[u8]| {
            let Some((length, rest)) = bytes.split_first() else {
                return;
            };
            let (key, value) = rest.split_at(rest.len().min((*length).into()));
            if !key.starts_with(&codec::META) {
                return;
            }
            let mut batch = Batch::default();
            batch.put(key, value);
            database.write(&batch).unwrap();
            if let Ok(mut registry) = told(Registry::load(&database, MAX_PARALLELISM)) {
                let databases = std::iter::empty();
                drop(told(registry.get_or_add(databases, "op", "another")));
            }
            let mut undo = Batch::default();
            undo.delete(key);
            undo.put(&codec::format_key(), &format);
            database.write(&undo).unwrap();
        });
    }
}
