//! The databases of one backend: each has the state of a run of key groups.
//!
//! A backend begins with one. After a change of parallelism it has a tablet for each earlier owner of a part of its key
//! groups, opened on that owner's files; so state is never rewritten because the parallelism changes. A tablet may hold
//! entries of key groups beyond its range, which another has taken over: nobody ever reads them again, so what was deleted
//! there since cannot come back.
//!
//! What must stay true: the ranges are disjoint and in order, and make up the backend's; all tablets number their states
//! alike.

use std::fs;
use std::path::Path;

use flott_proto::key_group::{KeyGroup, KeyGroupRange};

use super::codec;
use crate::error::Error;
use crate::rocks::{Batch, Database};
use crate::snapshot::diff::FileKey;
use crate::snapshot::{LinkedTablet, SnapshotFile};

/// One database and the key groups that it answers for.
#[derive(Debug)]
pub(crate) struct Tablet {
    pub(crate) range: KeyGroupRange,
    pub(crate) database: Database,
}

/// All tablets of a backend.
#[derive(Debug)]
pub(crate) struct Tablets(Vec<Tablet>);

impl Tablets {
    /// Panics if the ranges of `tablets` do not follow each other.
    pub(crate) fn new(tablets: Vec<Tablet>) -> Self {
        assert!(!tablets.is_empty(), "a backend has a database");
        let follow = |pair: &[Tablet]| pair[0].range.last + 1 == pair[1].range.first;
        assert!(tablets.windows(2).all(follow), "tablets leave no gap");
        Self(tablets)
    }

    /// The database of a key group, which is the backend's.
    pub(super) fn of(&self, group: KeyGroup) -> &Database {
        &self.0[self.number_of(group)].database
    }

    fn number_of(&self, group: KeyGroup) -> usize {
        self.0
            .partition_point(|tablet| tablet.range.last < group.0)
            .min(self.0.len() - 1)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Tablet> {
        self.0.iter()
    }

    pub(super) fn databases(&self) -> impl Iterator<Item = &Database> {
        self.0.iter().map(|tablet| &tablet.database)
    }

    /// The values of many stored keys, in their order.
    pub(super) fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        if let [only] = self.0.as_slice() {
            return only.database.get_many(keys.iter().copied());
        }
        let mut by_tablet = vec![Vec::new(); self.0.len()];
        for (at, key) in keys.iter().enumerate() {
            by_tablet[self.number_of_stored(key)].push(at);
        }
        let mut values = vec![None; keys.len()];
        for (tablet, positions) in self.0.iter().zip(&by_tablet) {
            let found = tablet
                .database
                .get_many(positions.iter().map(|at| keys[*at]))?;
            for (at, value) in positions.iter().zip(found) {
                values[*at] = value;
            }
        }
        Ok(values)
    }

    /// Carries out the changes in each tablet that they concern. An error ends the task, so it does not matter that some
    /// tablets may have them then and others not.
    pub(crate) fn write(&self, batch: &Batch) -> Result<(), Error> {
        if let [only] = self.0.as_slice() {
            return only.database.write(batch);
        }
        let parts = batch.split(self.0.len(), |key| self.number_of_stored(key));
        for (tablet, part) in self.0.iter().zip(&parts) {
            if part.len() > 0 {
                tablet.database.write(part)?;
            }
        }
        Ok(())
    }

    fn number_of_stored(&self, key: &[u8]) -> usize {
        let group = codec::group_of(key).expect("a batch has the keys of values and timers");
        self.number_of(group)
    }

    /// The tables that were flushed before a snapshot asked for it, and can be uploaded already.
    pub(crate) fn early(&self) -> Vec<(FileKey, SnapshotFile)> {
        let of_tablet = |tablet: &Tablet| {
            let files = tablet.database.early();
            LinkedTablet::by_key(tablet.range, &files)
        };
        self.0.iter().flat_map(of_tablet).collect()
    }

    /// Begins to write to disk what is in memory now. The disk works on all tablets at once.
    pub(crate) fn begin_flush(&self) -> Result<(), Error> {
        self.databases().try_for_each(Database::begin_flush)
    }

    /// Flushes all, and links their files into directories below `dir`.
    pub(crate) fn link_into(&self, dir: &Path) -> Result<Vec<LinkedTablet>, Error> {
        let link = |(number, tablet): (usize, &Tablet)| {
            let dir = dir.join(number.to_string());
            fs::create_dir(&dir).map_err(Error::local(&dir))?;
            Ok(LinkedTablet {
                key_groups: tablet.range,
                files: tablet.database.link_into(&dir)?,
            })
        };
        self.0.iter().enumerate().map(link).collect()
    }
}
