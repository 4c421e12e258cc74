//! What tables a database has, and what tables a checkpoint has instead.
//!
//! A merge of tables makes no new state, but new files. Were a checkpoint to consist of what the database consists of, all
//! that merges rewrite would be uploaded again, more often the larger a state is. So a checkpoint has the *unmerged*
//! tables: those that the database had at some earlier time, and all that has been flushed since. It takes over what was
//! merged only when that rids it of at least as many bytes as have to be uploaded for it: when most of what was merged is
//! garbage.
//!
//! What must stay true: the unmerged tables and those of the database hold the same state; and they are tables that could
//! be a database's, with their levels and ages as they were.

use std::collections::BTreeSet;

use super::manifest::{self, Counters, Edit, Tables};

/// Follows a database's manifest. Pure.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    /// The manifest's name, and up to where it was read.
    manifest: String,
    offset: u64,
    counters: Counters,
    live: Tables,
    unmerged: Tables,
    /// Since the unmerged tables were those of the database.
    has_merged: bool,
    /// The unmerged tables are of no use any more: not the same state, or not to be had.
    is_lost: bool,
}

/// One set of tables, and the manifest that lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) tables: Tables,
    pub(super) manifest: Vec<u8>,
}

impl Lineage {
    /// From where on `manifest` has to be read.
    pub(super) fn offset_in(&self, manifest: &str) -> u64 {
        if self.manifest == manifest {
            self.offset
        } else {
            0
        }
    }

    /// What has been written to `manifest` since; see [`Self::offset_in`].
    pub(super) fn read(&mut self, manifest: &str, log: &[u8]) -> Result<(), String> {
        let offset = self.offset_in(manifest);
        if self.manifest != manifest {
            // It begins with all tables that there are. What merges took in before is not known then.
            self.is_lost |= !self.manifest.is_empty();
            self.manifest = manifest.to_owned();
            self.live.clear();
        }
        for record in manifest::records(log, offset)? {
            let edit = manifest::decode(&record, &mut self.counters)?;
            self.apply(edit);
        }
        self.offset = offset + log.len() as u64;
        Ok(())
    }

    fn apply(&mut self, edit: Edit) {
        let Edit { deleted, added } = edit;
        self.live.retain(|number, _| !deleted.contains(number));
        if deleted.is_empty() {
            self.unmerged.extend(added.clone());
        } else if added.is_empty() && !self.has_merged {
            // Dropped as a whole, for nothing in them is needed.
            self.unmerged.retain(|number, _| !deleted.contains(number));
        } else {
            self.has_merged = true;
        }
        self.live.extend(added);
    }

    /// Whether the database's tables are these.
    pub(super) fn is_of(&self, tables: &BTreeSet<u64>) -> bool {
        self.live.keys().eq(tables)
    }

    /// A snapshot is made now, of tables that are all flushed: the tables of the database, and the unmerged ones.
    pub(super) fn snapshot(&mut self) -> (Version, Version) {
        let merged = self.live.iter();
        let merged = merged.filter(|(number, _)| !self.unmerged.contains_key(number));
        let to_upload: u64 = merged.map(|(_, table)| table.size).sum();
        let saved = size_of(&self.unmerged).saturating_sub(size_of(&self.live));
        if self.is_lost || saved >= to_upload {
            self.unmerged = self.live.clone();
            (self.has_merged, self.is_lost) = (false, false);
        }
        (self.version(&self.live), self.version(&self.unmerged))
    }

    fn version(&self, tables: &Tables) -> Version {
        Version {
            tables: tables.clone(),
            manifest: manifest::encode(tables, &self.counters),
        }
    }

    /// The unmerged tables of the last snapshot could not be had.
    pub(super) fn lose(&mut self) {
        self.is_lost = true;
    }
}

fn size_of(tables: &Tables) -> u64 {
    tables.values().map(|table| table.size).sum()
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::table;
    use super::*;

    fn tables(sizes: &[(u64, u64)]) -> Tables {
        let sizes = sizes.iter();
        let tables = sizes.map(|(number, size)| (*number, table(*number, *size)));
        tables.collect()
    }

    fn edit(deleted: &[u64], added: &[(u64, u64)]) -> Edit {
        Edit {
            deleted: deleted.to_vec(),
            added: tables(added),
        }
    }

    fn numbers(version: &Version) -> Vec<u64> {
        version.tables.keys().copied().collect()
    }

    /// A database whose tables 1, 2 and 3 have 100 bytes each.
    fn begun() -> Lineage {
        let mut lineage = Lineage::default();
        for number in 1..=3 {
            lineage.apply(edit(&[], &[(number, 100)]));
        }
        let (live, unmerged) = lineage.snapshot();
        assert_eq!(numbers(&live), [1, 2, 3]);
        assert_eq!(live, unmerged);
        lineage
    }

    #[test]
    fn a_merge_that_saves_little_is_not_taken_over() {
        let mut lineage = begun();
        lineage.apply(edit(&[1, 2, 3], &[(4, 290)]));
        lineage.apply(edit(&[], &[(5, 100)]));
        let (live, unmerged) = lineage.snapshot();
        assert_eq!(numbers(&live), [4, 5]);
        assert_eq!(numbers(&unmerged), [1, 2, 3, 5]);
    }

    #[test]
    fn a_merge_that_saves_what_it_costs_is_taken_over() {
        let mut lineage = begun();
        lineage.apply(edit(&[1, 2, 3], &[(4, 150)]));
        let (live, unmerged) = lineage.snapshot();
        assert_eq!(numbers(&live), [4]);
        assert_eq!(live, unmerged);
        lineage.apply(edit(&[4], &[(6, 140)]));
        assert_eq!(numbers(&lineage.snapshot().1), [4], "that one is not");
    }

    #[test]
    fn what_a_merge_took_in_before_a_snapshot_had_it_is_not_lost() {
        let mut lineage = begun();
        lineage.apply(edit(&[], &[(4, 100)]));
        lineage.apply(edit(&[1, 2, 3, 4], &[(5, 390)]));
        let (live, unmerged) = lineage.snapshot();
        assert_eq!(numbers(&live), [5]);
        assert_eq!(numbers(&unmerged), [1, 2, 3, 4]);
    }

    #[test]
    fn what_was_dropped_stays_dropped() {
        let mut lineage = begun();
        lineage.apply(edit(&[1], &[]));
        assert_eq!(numbers(&lineage.snapshot().1), [2, 3]);
        // A merge of which nothing was left: to drop only what is there of its sources would bring back the others.
        lineage.apply(edit(&[2, 3], &[(4, 190)]));
        lineage.apply(edit(&[4], &[]));
        let (live, unmerged) = lineage.snapshot();
        assert!(numbers(&live).is_empty() && live == unmerged);
    }

    #[test]
    fn what_cannot_be_had_is_given_up_with_the_next_snapshot() {
        let mut lineage = begun();
        lineage.apply(edit(&[1, 2, 3], &[(4, 290)]));
        lineage.lose();
        assert_eq!(numbers(&lineage.snapshot().1), [4]);
        lineage.apply(edit(&[4], &[(5, 280)]));
        assert_eq!(numbers(&lineage.snapshot().1), [4], "only once");
    }

    #[test]
    fn a_new_manifest_begins_with_all_that_there_is() {
        let mut lineage = Lineage::default();
        let log = |sizes: &[(u64, u64)]| manifest::encode(&tables(sizes), &Counters::default());
        lineage
            .read("MANIFEST-000001", &log(&[(1, 100), (2, 100)]))
            .unwrap();
        assert_eq!(numbers(&lineage.snapshot().1), [1, 2]);
        assert!(lineage.offset_in("MANIFEST-000001") > 0);
        assert_eq!(lineage.offset_in("MANIFEST-000007"), 0);
        lineage
            .read("MANIFEST-000007", &log(&[(3, 190), (4, 10)]))
            .unwrap();
        let (live, unmerged) = lineage.snapshot();
        assert_eq!(numbers(&live), [3, 4]);
        assert_eq!(live, unmerged);
    }
}
