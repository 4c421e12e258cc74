//! A database as a build for simulations has it: of RocksDB, or of that which stands in its place on a simulated thread.

use std::ops::Range;
use std::path::Path;

use super::simulated::{Simulated, SimulatedCursor};
use super::{Batch, Entry, Linked, Memory, Rocks, RocksCursor, SavedFile};
use crate::error::Error;

/// See [`Rocks`].
#[derive(Debug)]
pub(crate) enum Database {
    Rocks(Rocks),
    Simulated(Simulated),
}

/// See [`RocksCursor`].
#[derive(Debug)]
pub(crate) enum Cursor<'a> {
    Rocks(RocksCursor<'a>),
    Simulated(SimulatedCursor),
}

fn is_simulated() -> bool {
    flott_node::simulation::is_on()
}

impl Database {
    pub(crate) fn create(dir: &Path, memory: &Memory) -> Result<Self, Error> {
        Ok(match is_simulated() {
            true => Self::Simulated(Simulated::create(dir, memory)?),
            false => Self::Rocks(Rocks::create(dir, memory)?),
        })
    }

    pub(crate) fn open(
        dir: &Path,
        memory: &Memory,
        foreign: Vec<Range<Vec<u8>>>,
    ) -> Result<Self, Error> {
        Ok(match is_simulated() {
            true => Self::Simulated(Simulated::open(dir, memory, &foreign)?),
            false => Self::Rocks(Rocks::open(dir, memory, foreign)?),
        })
    }

    pub(crate) fn open_read_only(dir: &Path, memory: &Memory) -> Result<Self, Error> {
        Ok(match is_simulated() {
            true => Self::Simulated(Simulated::open(dir, memory, &[])?),
            false => Self::Rocks(Rocks::open_read_only(dir, memory)?),
        })
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Self::Rocks(database) => database.get(key),
            Self::Simulated(database) => Ok(database.get(key)),
        }
    }

    pub(crate) fn get_many<'k>(
        &self,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        match self {
            Self::Rocks(database) => database.get_many(keys),
            Self::Simulated(database) => Ok(keys.map(|key| database.get(key)).collect()),
        }
    }

    pub(crate) fn write(&self, batch: &Batch) -> Result<(), Error> {
        match self {
            Self::Rocks(database) => database.write(batch),
            Self::Simulated(database) => database.write(batch),
        }
    }

    pub(crate) fn range(&self, from: Vec<u8>, to: Vec<u8>) -> Cursor<'_> {
        match self {
            Self::Rocks(database) => Cursor::Rocks(database.range(from, to)),
            Self::Simulated(database) => Cursor::Simulated(database.range(from, to)),
        }
    }

    pub(crate) fn early(&self) -> Vec<SavedFile> {
        match self {
            Self::Rocks(database) => database.early(),
            Self::Simulated(database) => database.early(),
        }
    }

    pub(crate) fn begin_flush(&self) -> Result<(), Error> {
        match self {
            Self::Rocks(database) => database.begin_flush(),
            Self::Simulated(database) => database.flush(),
        }
    }

    pub(crate) fn link_into(&self, dir: &Path) -> Result<Linked, Error> {
        match self {
            Self::Rocks(database) => database.link_into(dir),
            Self::Simulated(database) => database.link_into(dir),
        }
    }
}

impl Cursor<'_> {
    pub(crate) fn next(&mut self) -> Result<Option<Entry<'_>>, Error> {
        match self {
            Self::Rocks(cursor) => cursor.next(),
            Self::Simulated(cursor) => Ok(cursor.next()),
        }
    }

    pub(crate) fn peek(&mut self) -> Result<Option<Entry<'_>>, Error> {
        match self {
            Self::Rocks(cursor) => cursor.peek(),
            Self::Simulated(cursor) => Ok(cursor.peek()),
        }
    }
}
