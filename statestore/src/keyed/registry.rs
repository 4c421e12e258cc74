//! The numbers that stand for state names in stored keys, and in what form each state's entries are.
//!
//! A number belongs to one database and goes with it into every checkpoint. Two databases may number the same states
//! differently: then they cannot be tablets of one backend, and who copies between them translates by name.

use std::collections::BTreeMap;

use super::form::Form;
use super::tablets::Tablets;
use super::{FORMAT, StateId, codec};
use crate::error::Error;
use crate::rocks::{Batch, Database};

/// By operator uid and state name.
type Name = (String, String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Registered {
    id: StateId,
    form: Form,
}

impl Registered {
    /// As it is stored.
    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.id.0.to_be_bytes().to_vec();
        if self.form != Form::default() {
            bytes.push(self.form.to_byte());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (id, form) = bytes.split_first_chunk()?;
        let id = u16::from_be_bytes(*id);
        let form = match form {
            [] => Form::default(),
            [byte] => Form::from_byte(*byte).filter(|form| *form != Form::default())?,
            _ => return None,
        };
        // A higher id would be taken for that of timers.
        (id <= codec::STATE_ID_MAX).then_some(Self {
            id: StateId(id),
            form,
        })
    }
}

/// All states of one database.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    states: BTreeMap<Name, Registered>,
    /// How many numbers were given to elements of lists, by whoever had these states.
    numbers: u64,
    /// What the databases have of that.
    saved_numbers: u64,
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
        let mut states = BTreeMap::new();
        while let Some((key, value)) = names.next()? {
            let name = codec::split_name(key).ok_or_else(|| damaged("has a damaged state name"))?;
            let registered = Registered::from_bytes(value);
            states.insert(
                name,
                registered.ok_or_else(|| damaged("has a damaged state id"))?,
            );
        }
        let numbers = match database.get(&codec::numbers_key())? {
            None => 0,
            Some(stored) => <[u8; 8]>::try_from(stored)
                .map(u64::from_be_bytes)
                .map_err(|_| damaged("has a damaged count of elements"))?,
        };
        Ok(Self {
            states,
            numbers,
            saved_numbers: numbers,
        })
    }

    /// The numbers of all these, if they do not contradict each other.
    pub(crate) fn unite(registries: Vec<Self>) -> Option<Self> {
        let (mut united, mut names) = (Self::default(), BTreeMap::new());
        for registry in registries {
            united.numbers = united.numbers.max(registry.numbers);
            for (name, state) in registry.states {
                let same = united.states.insert(name.clone(), state).unwrap_or(state);
                let same_name = names.insert(state.id, name.clone());
                if same != state || same_name.is_some_and(|other| other != name) {
                    return None;
                }
            }
        }
        Some(united)
    }

    /// Every tablet has every state, as they stand here.
    pub(crate) fn store(&mut self, tablets: &Tablets) -> Result<(), Error> {
        let mut batch = Batch::default();
        for ((uid, name), state) in &self.states {
            batch.put(&codec::name_key(uid, name), &state.to_bytes());
        }
        tablets
            .databases()
            .try_for_each(|database| database.write(&batch))?;
        self.save_numbers(tablets.databases(), self.numbers)
    }

    /// Numbers up to this one were given to elements of lists, which whoever reads those must know.
    pub(crate) fn save_numbers<'d>(
        &mut self,
        mut databases: impl Iterator<Item = &'d Database>,
        numbers: u64,
    ) -> Result<(), Error> {
        self.numbers = self.numbers.max(numbers);
        if self.saved_numbers == self.numbers {
            return Ok(());
        }
        let mut batch = Batch::default();
        batch.put(&codec::numbers_key(), &self.numbers.to_be_bytes());
        databases.try_for_each(|database| database.write(&batch))?;
        self.saved_numbers = self.numbers;
        Ok(())
    }

    /// How many numbers were given to elements of lists.
    pub(crate) fn numbers(&self) -> u64 {
        self.numbers
    }

    /// Takes over the states of another database into the one of this: the numbers there by those that they have here.
    pub(crate) fn take_over(
        &mut self,
        database: &Database,
        other: &Self,
    ) -> Result<BTreeMap<StateId, StateId>, Error> {
        self.numbers = self.numbers.max(other.numbers);
        let mut ids = BTreeMap::new();
        for ((uid, name), state) in &other.states {
            let here = self.get_or_add([database].into_iter(), uid, name, state.form)?;
            ids.insert(state.id, here);
        }
        Ok(ids)
    }

    /// The id of a state, registered now, in all `databases`, if it is new.
    pub(crate) fn get_or_add<'d>(
        &mut self,
        mut databases: impl Iterator<Item = &'d Database>,
        operator_uid: &str,
        name: &str,
        form: Form,
    ) -> Result<StateId, Error> {
        let full_name = (operator_uid.to_owned(), name.to_owned());
        if let Some(state) = self.states.get(&full_name) {
            return match state.form == form {
                true => Ok(state.id),
                false => Err(Error::OtherForm {
                    operator_uid: operator_uid.to_owned(),
                    name: name.to_owned(),
                    stored: state.form.to_string(),
                    asked: form.to_string(),
                }),
            };
        }
        let ids = self.states.values().map(|state| state.id.0);
        let next = ids.max().map_or(0, |id| id + 1);
        if next > codec::STATE_ID_MAX {
            return Err(Error::TooManyStates {
                max: codec::STATE_ID_MAX,
            });
        }
        let id = StateId(next);
        let state = Registered { id, form };
        let mut batch = Batch::default();
        batch.put(&codec::name_key(operator_uid, name), &state.to_bytes());
        databases.try_for_each(|database| database.write(&batch))?;
        self.states.insert(full_name, state);
        Ok(id)
    }

    /// Every state: operator uid, name, id.
    pub(crate) fn states(&self) -> impl Iterator<Item = (&str, &str, StateId)> {
        self.states
            .iter()
            .map(|((uid, name), state)| (uid.as_str(), name.as_str(), state.id))
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
        for stored in [
            &[0x80, 0][..],
            &[0xFF, 0xFF],
            &[0],
            &[0, 1, 0],
            &[0, 1, 2, 3],
        ] {
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
            entry(&codec::name_key("op", "list"), &[0, 8, 0x83]),
            entry(&codec::numbers_key(), &7u64.to_be_bytes()),
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
                let form = Form::default();
                drop(told(registry.get_or_add(databases, "op", "another", form)));
            }
            let mut undo = Batch::default();
            undo.delete(key);
            undo.put(&codec::format_key(), &format);
            database.write(&undo).unwrap();
        });
    }
}
