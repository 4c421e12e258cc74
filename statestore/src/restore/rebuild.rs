//! Copies the entries of a range of key groups from other subtasks' tablets into a new database.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flott_proto::key_group::KeyGroupRange;

use super::plan::Part;
use super::{Source, download};
use crate::blocking;
use crate::error::Error;
use crate::keyed::registry::Registry;
use crate::keyed::tablets::{Tablet, Tablets};
use crate::keyed::{self, BackendOptions, KeyedBackend, codec};
use crate::rocks::{Batch, Database, Memory};

/// Entries are copied in batches of this many bytes.
const BATCH_BYTES: usize = 1 << 20;

/// Memory for reading a tablet: it is read once, from one end to the other.
const READ_MEMORY_BYTES: u64 = 8 << 20;

/// Sets its flag when the restore is given up, so that the copying thread does not go on in a directory that is being
/// removed.
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A backend of `key_groups` from the given ranges of tablets. One tablet after the other, so that local disk holds one
/// of them beside the new state.
pub(super) async fn rebuild(
    dir: &Path,
    source: &Source,
    parts: &[Part],
    max_parallelism: u32,
    key_groups: KeyGroupRange,
    options: BackendOptions,
) -> Result<KeyedBackend, Error> {
    keyed::prepare(dir)?;
    let given_up = GivenUp(Arc::default());
    let database_dir = keyed::database_dir(dir, 0);
    let memory = Memory::of(options.memory_bytes);
    let new_memory = memory.clone();
    let mut new = blocking("restore", move || {
        let database = Database::create(&database_dir, &new_memory)?;
        let registry = Registry::create(&database, max_parallelism)?;
        Ok((database, registry))
    })
    .await?;
    for (number, part) in parts.iter().enumerate() {
        let from = dir.join(format!("tablet-{number}"));
        fs::create_dir(&from).map_err(Error::local(&from))?;
        download::download(source, &part.tablet, &from).await?;
        let (take, flag) = (part.take, Arc::clone(&given_up.0));
        new = blocking("restore", move || {
            let (database, mut registry) = new;
            copy(
                &from,
                take,
                max_parallelism,
                &database,
                &mut registry,
                &flag,
            )?;
            fs::remove_dir_all(&from).map_err(Error::local(&from))?;
            Ok((database, registry))
        })
        .await?;
    }
    let dir: PathBuf = dir.to_owned();
    blocking("restore", move || {
        let (database, registry) = new;
        let range = key_groups;
        let tablets = Tablets::new(vec![Tablet { range, database }]);
        KeyedBackend::over(&dir, tablets, registry, key_groups, options, &memory)
    })
    .await
}

/// Copies the entries of key groups `take`, giving each state the number that its name has in the new database.
fn copy(
    from: &Path,
    take: KeyGroupRange,
    max_parallelism: u32,
    to: &Database,
    registry: &mut Registry,
    given_up: &AtomicBool,
) -> Result<(), Error> {
    let tablet = Database::open_read_only(from, &Memory::of(READ_MEMORY_BYTES))?;
    let old = Registry::load(&tablet, max_parallelism)?;
    let numbers = registry.take_over(to, &old)?;
    let mut batch = Batch::default();
    let mut entries = tablet.range(
        codec::group_start(take.first),
        codec::group_start(take.last + 1),
    );
    while let Some((stored, value)) = entries.next()? {
        let key = codec::with_state(stored, |id| numbers.get(&id).copied());
        let key = key.ok_or_else(|| keyed::damaged(from, "an entry"))?;
        batch.put(&key, value);
        if batch.size_bytes() >= BATCH_BYTES {
            to.write(&batch)?;
            batch.clear();
            if given_up.load(Ordering::Relaxed) {
                let source = "the restore was given up".into();
                return Err(Error::Backend {
                    action: "restore",
                    source,
                });
            }
        }
    }
    to.write(&batch)
}
