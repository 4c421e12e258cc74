//! Opens tablets on their files as they are.

use std::fs;
use std::path::Path;

use flott_node::Mutant;
use flott_proto::key_group::KeyGroupRange;
use flott_proto::state_handle::StateFile;
use futures::future::try_join_all;

use super::plan::Part;
use super::{Source, download};
use crate::blocking;
use crate::error::Error;
use crate::keyed::registry::Registry;
use crate::keyed::tablets::{Tablet, Tablets};
use crate::keyed::{self, BackendOptions, KeyedBackend, codec};
use crate::rocks::{Database, Memory};
use crate::snapshot::diff::{FileKey, FilesByKey};

/// A backend of `key_groups` with a tablet for each part. `None`, with `dir` empty again, if the parts number their
/// states differently: they come from jobs of different shape, and have to be copied together.
pub(super) async fn open(
    dir: &Path,
    source: &Source,
    parts: &[Part],
    max_parallelism: u32,
    key_groups: KeyGroupRange,
    options: BackendOptions,
) -> Result<Option<KeyedBackend>, Error> {
    keyed::prepare(dir)?;
    let downloads = parts.iter().enumerate().map(|(number, part)| {
        let database_dir = keyed::database_dir(dir, number);
        async move {
            fs::create_dir(&database_dir).map_err(Error::local(&database_dir))?;
            download::download(source, &part.tablet, &database_dir).await
        }
    });
    let _checks = try_join_all(downloads).await?;
    let files = restored_files(parts);
    let ranges: Vec<KeyGroupRange> = parts.iter().map(|part| part.take).collect();
    let dir = dir.to_owned();
    blocking("restore", move || {
        let memory = Memory::of(options.memory_bytes);
        let (mut tablets, mut registries) = (Vec::new(), Vec::new());
        for (number, range) in ranges.into_iter().enumerate() {
            let database_dir = keyed::database_dir(&dir, number);
            let mut taken = range;
            if Mutant::KeyGroupLost.is_planted() && range.first < range.last {
                taken.first += 1;
            }
            let database = Database::open(&database_dir, &memory, codec::outside(taken))?;
            registries.push(Registry::load(&database, max_parallelism)?);
            tablets.push(Tablet { range, database });
        }
        let count = tablets.len();
        let tablets = Tablets::new(tablets);
        if let Some(mut registry) = Registry::unite(registries) {
            registry.store(&tablets)?;
            let backend =
                KeyedBackend::over(&dir, tablets, registry, key_groups, options, &memory)?;
            return Ok(Some(backend.restored_from(files)));
        }
        drop(tablets);
        for number in 0..count {
            let database_dir = keyed::database_dir(&dir, number);
            fs::remove_dir_all(&database_dir).map_err(Error::local(&database_dir))?;
        }
        Ok(None)
    })
    .await
}

/// The files that the tablets are opened on, each as one of the range that it is opened for.
fn restored_files(parts: &[Part]) -> FilesByKey {
    let of_part = |part: &Part| {
        let key_groups = part.take;
        let key = move |file: &StateFile| FileKey {
            key_groups,
            local_name: file.local_name.clone(),
        };
        let files = part.tablet.files.values();
        let files = files.map(|file| (key(file), file.clone()));
        files.collect::<Vec<_>>()
    };
    parts.iter().flat_map(of_part).collect()
}
