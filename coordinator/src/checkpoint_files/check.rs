//! Whether the files of checkpoints are as they were written: there, with their size and their CRC-32C.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use flott_node::storage::{self, ObjectStorage};
use flott_proto::ids::CheckpointId;
use flott_proto::paths;
use flott_proto::state_handle::StateFile;
use futures::{StreamExt, TryStreamExt, stream};

use super::{FilesError, decode, read_metadata};
use crate::core::Job;
use crate::core::checkpoint::{CheckpointStore, CompletedCheckpoint};

/// Files read at once. Each is in memory while it is, and what the leader does besides must not wait.
const READS_IN_FLIGHT_MAX: usize = 4;

/// What is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Missing,
    Size { expected: u64, found: u64 },
    Checksum { expected: u32, found: u32 },
    Metadata(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("it is missing"),
            Self::Size { expected, found } => {
                write!(f, "it has {found} bytes instead of {expected}")
            }
            Self::Checksum { expected, found } => {
                write!(f, "its CRC-32C is {found:08x} instead of {expected:08x}")
            }
            Self::Metadata(what) => f.write_str(what),
        }
    }
}

/// An object that is not as it was written.
#[derive(Debug)]
pub(crate) struct Damaged {
    /// Relative to the checkpoint root; of a part of a savepoint, all of it.
    pub(crate) path: String,
    pub(crate) fault: Fault,
    /// Who needs it, in ascending order.
    pub(crate) checkpoints: Vec<CheckpointId>,
}

/// What was looked at, and what was found.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    pub(crate) checkpoints: usize,
    pub(crate) files: usize,
    /// Of the state files, each once.
    pub(crate) bytes: u64,
    pub(crate) damaged: Vec<Damaged>,
}

impl Verified {
    /// Leaves out what only checkpoints lack that have been retired since: their files are gone for good reason.
    pub(crate) fn forget_retired(&mut self, now: &CheckpointStore) {
        let kept: BTreeSet<CheckpointId> = kept(now).map(|checkpoint| checkpoint.id).collect();
        for damaged in &mut self.damaged {
            damaged.checkpoints.retain(|id| kept.contains(id));
        }
        self.damaged
            .retain(|damaged| !damaged.checkpoints.is_empty());
    }
}

/// What is wrong with a state file below `root`, if anything.
pub(crate) async fn file(root: &str, file: &StateFile) -> Result<Option<Fault>, FilesError> {
    Ok(content(&ObjectStorage::open_existing(root)?, file).await?)
}

/// Checks all that the retained checkpoints and the savepoints of a job need. Without `contents` state files are looked
/// up and not read; `_metadata` objects are always read.
pub(crate) async fn all(job: &Job, contents: bool) -> Result<Verified, FilesError> {
    let store = &job.checkpoints;
    let mut verified = Verified {
        checkpoints: kept(store).count(),
        ..Verified::default()
    };
    if verified.checkpoints == 0 {
        return Ok(verified);
    }
    for (root, needed) in needed(job) {
        verified.files += needed.len();
        verified.bytes += needed.values().map(|(file, _)| file.size).sum::<u64>();
        let mut damaged = files(root, &needed, contents).await?;
        if root != job.settings.checkpoint_dir {
            for damaged in &mut damaged {
                damaged.path = format!("{root}/{}", damaged.path);
            }
        }
        verified.damaged.extend(damaged);
    }
    for checkpoint in kept(store) {
        let damaged = metadata(&job.settings.checkpoint_dir, checkpoint).await?;
        verified.damaged.extend(damaged);
    }
    Ok(verified)
}

/// State files of one root by path, and who needs them.
type Needed<'a> = BTreeMap<&'a str, (&'a StateFile, Vec<CheckpointId>)>;

/// What is wrong with these files below `root`.
async fn files(
    root: &str,
    needed: &Needed<'_>,
    contents: bool,
) -> Result<Vec<Damaged>, FilesError> {
    let missing = |(file, by): &(&StateFile, Vec<CheckpointId>)| Damaged {
        path: file.path.clone(),
        fault: Fault::Missing,
        checkpoints: by.clone(),
    };
    let storage = match ObjectStorage::open_existing(root) {
        Ok(storage) => storage,
        Err(storage::Error::NotFound { .. }) => return Ok(needed.values().map(missing).collect()),
        Err(error) => return Err(error.into()),
    };
    let sizes = sizes(&storage, needed).await?;
    let checks = needed.values().map(|(file, by)| {
        let (storage, size) = (&storage, sizes.get(&file.path).copied());
        async move {
            let fault = match size {
                None => Some(Fault::Missing),
                Some(found) if found != file.size => Some(Fault::Size {
                    expected: file.size,
                    found,
                }),
                Some(_) if contents => content(storage, file).await?,
                Some(_) => None,
            };
            Ok::<_, FilesError>(fault.map(|fault| Damaged {
                path: file.path.clone(),
                fault,
                checkpoints: by.clone(),
            }))
        }
    });
    // Collected first: the compiler cannot see that a stream of them is Send.
    let checks: Vec<_> = checks.collect();
    stream::iter(checks)
        .buffered(READS_IN_FLIGHT_MAX)
        .try_filter_map(|damaged| async { Ok(damaged) })
        .try_collect()
        .await
}

/// What is retained, and the user's.
fn kept(store: &CheckpointStore) -> impl Iterator<Item = &CompletedCheckpoint> {
    store
        .retained
        .iter()
        .chain(&store.savepoints)
        .map(|kept| &**kept)
}

/// Every state file, by what its path is relative to.
fn needed(job: &Job) -> BTreeMap<&str, Needed<'_>> {
    let mut needed: BTreeMap<&str, Needed<'_>> = BTreeMap::new();
    for checkpoint in kept(&job.checkpoints) {
        let of_root = needed
            .entry(checkpoint.root(&job.settings.checkpoint_dir))
            .or_default();
        for file in checkpoint.files() {
            let (_, by) = of_root
                .entry(&file.path)
                .or_insert_with(|| (file, Vec::new()));
            by.push(checkpoint.id);
        }
    }
    for (_, by) in needed.values_mut().flat_map(BTreeMap::values_mut) {
        by.sort_unstable();
    }
    needed
}

/// The objects in all directories that the files are in: of jobs, also those of a cluster that this one goes on from; of
/// the savepoint.
async fn sizes(
    storage: &ObjectStorage,
    needed: &Needed<'_>,
) -> Result<BTreeMap<String, u64>, FilesError> {
    let directories: BTreeSet<&str> = needed
        .keys()
        .map(|path| paths::job_of(path).unwrap_or_default())
        .collect();
    let mut sizes = BTreeMap::new();
    for directory in directories {
        sizes.extend(storage.list(directory).await?);
    }
    Ok(sizes)
}

async fn content(
    storage: &ObjectStorage,
    file: &StateFile,
) -> Result<Option<Fault>, storage::Error> {
    let bytes = match storage.get(&file.path).await {
        Ok(bytes) => bytes,
        Err(storage::Error::NotFound { .. }) => return Ok(Some(Fault::Missing)),
        Err(error) => return Err(error),
    };
    let (size, checksum) = (bytes.len() as u64, crc32c::crc32c(&bytes));
    Ok(if size != file.size {
        Some(Fault::Size {
            expected: file.size,
            found: size,
        })
    } else if checksum != file.crc32c {
        Some(Fault::Checksum {
            expected: file.crc32c,
            found: checksum,
        })
    } else {
        None
    })
}

/// Looks at a checkpoint's `_metadata` object, which is needed to start another job from it.
async fn metadata(
    checkpoint_dir: &str,
    checkpoint: &CompletedCheckpoint,
) -> Result<Option<Damaged>, FilesError> {
    let read = match &checkpoint.metadata_object {
        Some(path) => ObjectStorage::open_existing(checkpoint_dir)?
            .get(path)
            .await
            .map_err(FilesError::from)
            .and_then(|bytes| {
                decode(&bytes).map_err(|what| FilesError::Malformed {
                    path: path.clone(),
                    what,
                })
            }),
        None => {
            let found = read_metadata(&checkpoint.external_path).await;
            found.map(|found| found.metadata)
        }
    };
    let fault = match read {
        Ok(_) => return Ok(None),
        Err(FilesError::Malformed { what, .. }) => Fault::Metadata(what),
        Err(FilesError::Storage(storage::Error::NotFound { .. })) => Fault::Missing,
        Err(error) => return Err(error),
    };
    let of_savepoint = || format!("{}/{}", checkpoint.external_path, paths::METADATA);
    Ok(Some(Damaged {
        path: checkpoint
            .metadata_object
            .clone()
            .unwrap_or_else(of_savepoint),
        fault,
        checkpoints: vec![checkpoint.id],
    }))
}

#[cfg(test)]
mod tests;
