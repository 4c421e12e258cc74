//! A snapshot of a database: its files, with second names in a directory of the snapshot's own.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flott_node::Failpoint;
use rocksdb::{FileType, FlushOptions, LiveFilesStorageInfo, LiveFilesStorageInfoOptions};

use super::lineage::{Lineage, Version};
use super::manifest::table_name;
use super::{Rocks, failed};
use crate::error::Error;

/// In a snapshot's directory, the manifest of what the database consists of.
const LIVE_MANIFEST: &str = "LIVE";

/// A file of a saved database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SavedFile {
    /// In the directory of a database.
    pub(crate) name: String,
    pub(crate) size: u64,
    /// Where it is; `None` if the database does not have it any more.
    pub(crate) path: Option<PathBuf>,
}

/// A database at one moment: its state, as two sets of files.
#[derive(Debug)]
pub(crate) struct Linked {
    /// Those that it consists of.
    pub(crate) live: Vec<SavedFile>,
    /// Those that a checkpoint had better consist of, if all can be had that are not here: most are uploaded.
    pub(crate) unmerged: Vec<SavedFile>,
    /// Hears of what became of them.
    pub(crate) fate: Arc<Fate>,
}

/// What has become of the unmerged files of snapshots: for the next snapshot.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    is_lost: AtomicBool,
    stored: Mutex<BTreeSet<String>>,
}

impl Fate {
    /// Some of them cannot be had.
    pub(crate) fn lost(&self) {
        self.is_lost.store(true, Ordering::Relaxed);
    }

    /// The table is in object storage.
    pub(crate) fn stored(&self, name: &str) {
        self.names().insert(name.to_owned());
    }

    /// Whether some could not be had, since it was asked last.
    pub(super) fn take_lost(&self) -> bool {
        self.is_lost.swap(false, Ordering::Relaxed)
    }

    /// What has been stored since it was asked last.
    fn take_stored(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.names())
    }

    fn names(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rocks {
    /// What it consists of now is what its checkpoints consist of, and what will be flushed.
    pub(super) fn begin_to_follow(&self) -> Result<(), Error> {
        self.holding_files(|files| self.follow(&mut self.lineage(), files).map(drop))
    }

    /// Flushes, and gives all tables a second name in `dir`. The manifests are made anew; what else a database has can be
    /// made from these: `CURRENT` names the manifest, and the options are ours.
    pub(crate) fn link_into(&self, dir: &Path) -> Result<Linked, Error> {
        Failpoint::BeforeFlush.pass();
        let mut wait = FlushOptions::default();
        wait.set_wait(true);
        // A snapshot is never delayed by compactions that are behind.
        wait.set_allow_write_stall(true);
        self.db.flush_opt(&wait).map_err(failed("flush"))?;
        Failpoint::Flushed.pass();
        let linked = self.holding_files(|files| {
            let mut lineage = self.lineage();
            let manifest = self.follow(&mut lineage, files)?;
            if self.fate.take_lost() {
                lineage.lose();
            }
            let (live, unmerged) = lineage.snapshot();
            drop(lineage);
            let here = self.link_tables(&live, &unmerged, dir)?;
            let linked = Linked {
                live: save(&live, &manifest, &dir.join(LIVE_MANIFEST), &here, dir)?,
                unmerged: save(&unmerged, &manifest, &dir.join(&manifest), &here, dir)?,
                fate: Arc::clone(&self.fate),
            };
            let stored = self.fate.take_stored();
            self.flushed.retain(|number| {
                unmerged.tables.contains_key(&number) && !stored.contains(&table_name(number))
            });
            Ok(linked)
        });
        Failpoint::Linked.pass();
        self.end_rest()?;
        linked
    }

    /// Gives the tables of both versions second names in `dir`: those of the database, and what of the others is here still.
    /// Returns which are.
    fn link_tables(
        &self,
        live: &Version,
        unmerged: &Version,
        dir: &Path,
    ) -> Result<BTreeSet<u64>, Error> {
        let mut here = BTreeSet::new();
        for number in live.tables.keys() {
            let name = table_name(*number);
            let to = dir.join(&name);
            fs::hard_link(self.db.path().join(&name), &to).map_err(Error::local(&to))?;
            here.insert(*number);
        }
        for number in unmerged.tables.keys() {
            if !here.contains(number)
                && self.flushed.link(*number, &dir.join(table_name(*number)))?
            {
                here.insert(*number);
            }
        }
        Ok(here)
    }

    /// What `work` makes of the files that there are now; none of them is deleted meanwhile.
    fn holding_files<T>(
        &self,
        work: impl FnOnce(&LiveFilesStorageInfo) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.db
            .disable_file_deletions()
            .map_err(failed("hold its files"))?;
        let files = self
            .db
            .get_livefiles_storage_info(&LiveFilesStorageInfoOptions::new())
            .map_err(failed("list its files"));
        let done = files.and_then(|files| work(&files));
        self.db
            .enable_file_deletions()
            .map_err(failed("release its files"))?;
        done
    }

    /// Reads on in the manifest, up to where it tells of exactly these files. Returns its name.
    fn follow(&self, lineage: &mut Lineage, files: &LiveFilesStorageInfo) -> Result<String, Error> {
        let manifest = files
            .iter()
            .find(|file| file.file_type() == FileType::DescriptorFile);
        let manifest = manifest.ok_or_else(|| failed_follow("there is none".to_owned()))?;
        let name = manifest.relative_filename_lossy().into_owned();
        let path = self.db.path().join(&name);
        let offset = lineage.offset_in(&name);
        let log = read_part(&path, offset, manifest.size()).map_err(Error::local(&path))?;
        lineage.read(&name, &log).map_err(failed_follow)?;
        let tables = files
            .iter()
            .filter(|file| file.file_type() == FileType::TableFile);
        let tables: BTreeSet<u64> = tables.map(|file| file.file_number()).collect();
        if lineage.is_of(&tables) {
            Ok(name)
        } else {
            Err(failed_follow(format!("it does not tell of {tables:?}")))
        }
    }

    fn lineage(&self) -> MutexGuard<'_, Lineage> {
        self.lineage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The files of a version: its tables, of which those that are `here` are in `dir`, and its manifest, which is written to
/// `path`.
fn save(
    version: &Version,
    manifest: &str,
    path: &Path,
    here: &BTreeSet<u64>,
    dir: &Path,
) -> Result<Vec<SavedFile>, Error> {
    fs::write(path, &version.manifest).map_err(Error::local(path))?;
    let tables = version.tables.iter().map(|(number, table)| {
        let name = table_name(*number);
        SavedFile {
            path: here.contains(number).then(|| dir.join(&name)),
            name,
            size: table.size,
        }
    });
    let manifest = SavedFile {
        name: manifest.to_owned(),
        size: version.manifest.len() as u64,
        path: Some(path.to_owned()),
    };
    Ok(tables.chain([manifest]).collect())
}

fn failed_follow(reason: String) -> Error {
    Error::Backend {
        action: "follow its manifest",
        source: reason.into(),
    }
}

/// The bytes from `offset` to `end`.
fn read_part(path: &Path, offset: u64, end: u64) -> std::io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut part = vec![0; end.saturating_sub(offset) as usize];
    file.read_exact(&mut part)?;
    Ok(part)
}
