//! What one writer knows of its own uploads: which checkpoints a delta can be made against, and which files are up
//! already. Pure; the uploader asks under a lock.
//!
//! ```text
//! upload ends  ──▶ pending ── completed ──▶ completed ── a later one completed ──▶ forgotten
//!                     └────── aborted or overtaken ─────────────────────────────▶ forgotten
//! ```
//!
//! A table that was uploaded early, before any snapshot had it, waits for the first that has it.
//!
//! A pending checkpoint serves as a base too: only the leader names bases, and it names completed checkpoints; that the
//! notice of completion was lost with an earlier leader does not matter.
//!
//! Why a known file may be reused: a live file has been in every checkpoint of this writer that completed since it was
//! uploaded, so the newest of them still refers to it and nobody has deleted it; and what no completed checkpoint refers
//! to is not deleted while its writer lives.

use std::collections::BTreeMap;
use std::sync::Arc;

use flott_proto::ids::CheckpointId;
use flott_proto::key_group::KeyGroupRange;
use flott_proto::state_handle::StateFile;

use super::diff::{FileKey, FilesByKey};
use crate::rocks::table_number;

/// Bases and reusable files of one writer.
#[derive(Debug, Default)]
pub(crate) struct Bases {
    by_checkpoint: BTreeMap<CheckpointId, Arc<FilesByKey>>,
    /// Tables only.
    uploaded: FilesByKey,
    /// Tables that are up, and that no snapshot has had.
    early: FilesByKey,
    /// Paths of those that no snapshot will ever have.
    passed: Vec<String>,
    /// Files of a checkpoint from which the state was restored at another parallelism, and the checkpoint: while it is
    /// the base they are kept, and can be added, but they are no subtask's whole state.
    inherited: Option<(CheckpointId, FilesByKey)>,
    /// Aborts may overtake the end of an upload: these are not recorded any more.
    aborted: Option<CheckpointId>,
}

impl Bases {
    /// What a snapshot is compared with if the leader names `checkpoint` as the base: its id, or 0 if a change against it
    /// cannot be told; its files; and further files that need no upload.
    pub(crate) fn base(
        &self,
        checkpoint: CheckpointId,
    ) -> (CheckpointId, Arc<FilesByKey>, FilesByKey) {
        let mut uploaded = self.uploaded.clone();
        uploaded.extend(self.early.clone());
        if let Some((inherited_from, files)) = &self.inherited
            && *inherited_from == checkpoint
        {
            uploaded.extend(files.clone());
        }
        match self.by_checkpoint.get(&checkpoint) {
            Some(files) => (checkpoint, Arc::clone(files), uploaded),
            None => (CheckpointId::NONE, Arc::default(), uploaded),
        }
    }

    /// The state was restored from this checkpoint, and the local database opened on its files. They are a base, but are
    /// not reused otherwise: only as long as the leader names that checkpoint is it certain that they are kept.
    pub(crate) fn on_restored(&mut self, checkpoint: CheckpointId, files: FilesByKey) {
        self.by_checkpoint.insert(checkpoint, Arc::new(files));
    }

    /// The state was restored from these files of this checkpoint, which were those of other subtasks.
    pub(crate) fn on_inherited(&mut self, checkpoint: CheckpointId, files: FilesByKey) {
        self.inherited = Some((checkpoint, files));
    }

    /// A file is up.
    pub(crate) fn on_uploaded(&mut self, key: FileKey, file: StateFile) {
        self.uploaded.insert(key, file);
    }

    /// A table is up, and no snapshot has had it.
    pub(crate) fn on_uploaded_early(&mut self, key: FileKey, file: StateFile) {
        self.early.insert(key, file);
    }

    /// Whether a table was uploaded.
    pub(crate) fn is_up(&self, key: &FileKey) -> bool {
        self.uploaded.contains_key(key) || self.early.contains_key(key)
    }

    /// A snapshot has these files. What of them was uploaded early is as any other from now on; its bytes.
    pub(crate) fn on_snapshot<'a>(&mut self, files: impl Iterator<Item = &'a FileKey>) -> u64 {
        let early = files.filter_map(|key| self.early.remove_entry(key));
        let early: Vec<(FileKey, StateFile)> = early.collect();
        let bytes = early.iter().map(|(_, file)| file.size).sum();
        self.uploaded.extend(early);
        bytes
    }

    /// A checkpoint's files are all up; its fate is open.
    pub(crate) fn on_pending(&mut self, checkpoint: CheckpointId, files: FilesByKey) {
        // A table that this snapshot does not have any more will never be live again.
        self.uploaded.retain(|key, _| files.contains_key(key));
        let newest = newest_tables(&files);
        let passed = |key: &FileKey, _: &mut StateFile| {
            let newest = newest.get(&key.key_groups);
            newest.is_some_and(|newest| table_number(&key.local_name) < Some(*newest))
        };
        let passed = self.early.extract_if(.., passed);
        self.passed.extend(passed.map(|(_, file)| file.path));
        if self.aborted.is_none_or(|aborted| aborted < checkpoint) {
            self.by_checkpoint.insert(checkpoint, Arc::new(files));
        }
    }

    /// The paths of what was uploaded early and will be in no snapshot. Nobody else knows of it.
    pub(crate) fn take_passed(&mut self) -> Vec<String> {
        std::mem::take(&mut self.passed)
    }

    /// There will be no further snapshot.
    pub(crate) fn on_end(&mut self) {
        let early = std::mem::take(&mut self.early);
        self.passed
            .extend(early.into_values().map(|file| file.path));
    }

    /// A checkpoint has completed: those before it are of no use as a base.
    pub(crate) fn on_completed(&mut self, checkpoint: CheckpointId) {
        if self.by_checkpoint.contains_key(&checkpoint) {
            self.by_checkpoint = self.by_checkpoint.split_off(&checkpoint);
            self.inherited = None;
        }
    }

    /// A checkpoint will never complete.
    pub(crate) fn on_aborted(&mut self, checkpoint: CheckpointId) {
        self.by_checkpoint.remove(&checkpoint);
        self.aborted = self.aborted.max(Some(checkpoint));
    }
}

/// The number of each tablet's newest table. What is flushed after a snapshot has a higher one.
fn newest_tables(files: &FilesByKey) -> BTreeMap<KeyGroupRange, u64> {
    let mut newest = BTreeMap::new();
    for key in files.keys() {
        if let Some(number) = table_number(&key.local_name) {
            let of_tablet = newest.entry(key.key_groups).or_insert(number);
            *of_tablet = number.max(*of_tablet);
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> FilesByKey {
        let file = |name: &&str| {
            let key_groups = KeyGroupRange { first: 0, last: 1 };
            let key = FileKey {
                key_groups,
                local_name: (*name).to_owned(),
            };
            let (path, local_name) = (format!("w/{name}"), (*name).to_owned());
            let file = StateFile {
                path,
                local_name,
                size: 1,
                crc32c: 0,
                tablets: vec![key_groups],
            };
            (key, file)
        };
        names.iter().map(file).collect()
    }

    fn base_of(bases: &Bases, id: u64) -> u64 {
        bases.base(CheckpointId(id)).0.0
    }

    #[test]
    fn only_the_newest_completed_and_what_came_after_it_are_bases() {
        let mut bases = Bases::default();
        bases.on_restored(CheckpointId(2), files(&["1.sst"]));
        bases.on_pending(CheckpointId(3), files(&["1.sst"]));
        bases.on_pending(CheckpointId(4), files(&["1.sst"]));
        assert_eq!([2, 3, 4].map(|id| base_of(&bases, id)), [2, 3, 4]);
        bases.on_completed(CheckpointId(3));
        bases.on_completed(CheckpointId(9));
        assert_eq!([2, 3, 4, 9].map(|id| base_of(&bases, id)), [0, 3, 4, 0]);
        bases.on_aborted(CheckpointId(4));
        assert_eq!([3, 4].map(|id| base_of(&bases, id)), [3, 0]);
    }

    #[test]
    fn an_abort_that_overtakes_the_upload_leaves_no_base() {
        let mut bases = Bases::default();
        bases.on_aborted(CheckpointId(5));
        bases.on_pending(CheckpointId(5), files(&["1.sst"]));
        assert_eq!(base_of(&bases, 5), 0);
        bases.on_pending(CheckpointId(6), files(&["1.sst"]));
        assert_eq!(base_of(&bases, 6), 6);
    }

    #[test]
    fn tables_that_are_gone_are_forgotten() {
        let mut bases = Bases::default();
        for (key, file) in files(&["1.sst", "2.sst"]) {
            bases.on_uploaded(key, file);
        }
        bases.on_pending(CheckpointId(1), files(&["2.sst", "3.sst"]));
        assert_eq!(bases.base(CheckpointId(0)).2, files(&["2.sst"]));
    }

    #[test]
    fn inherited_files_are_added_while_their_checkpoint_is_the_base() {
        let mut bases = Bases::default();
        bases.on_inherited(CheckpointId(2), files(&["1.sst"]));
        let (base, kept, uploaded) = bases.base(CheckpointId(2));
        assert!(base == CheckpointId::NONE && kept.is_empty());
        assert_eq!(uploaded, files(&["1.sst"]));
        assert!(bases.base(CheckpointId(3)).2.is_empty(), "another base");
        bases.on_pending(CheckpointId(3), files(&["1.sst"]));
        bases.on_completed(CheckpointId(3));
        assert_eq!(base_of(&bases, 3), 3);
        assert!(bases.base(CheckpointId(2)).2.is_empty(), "it may be gone");
    }

    #[test]
    fn what_was_uploaded_early_waits_for_the_snapshot_that_has_it() {
        let mut bases = Bases::default();
        for (key, file) in files(&["1.sst", "2.sst", "9.sst", "1000000.sst"]) {
            assert!(!bases.is_up(&key));
            bases.on_uploaded_early(key.clone(), file);
            assert!(bases.is_up(&key));
        }
        let snapshot = files(&["2.sst", "8.sst", "MANIFEST-1"]);
        assert_eq!(bases.on_snapshot(snapshot.keys()), 1);
        assert_eq!(bases.on_snapshot(snapshot.keys()), 0, "counted once");
        // The first was merged; the others were flushed after the snapshot.
        bases.on_pending(CheckpointId(1), snapshot);
        assert_eq!(bases.take_passed(), ["w/1.sst"]);
        let known = ["1000000.sst", "2.sst", "9.sst"];
        assert_eq!(bases.base(CheckpointId(1)).2, files(&known));
        let nothing = files(&["MANIFEST-1"]);
        bases.on_pending(CheckpointId(2), nothing);
        assert!(bases.take_passed().is_empty());
        bases.on_end();
        assert_eq!(bases.take_passed(), ["w/1000000.sst", "w/9.sst"]);
    }
}
