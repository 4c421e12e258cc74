//! Brings a tablet's files here and checks every byte.

use std::path::Path;

use flott_node::storage::{self, ObjectStorage};
use flott_proto::state_handle::StateFile;
use futures::{StreamExt, TryStreamExt, stream};

use super::Source;
use super::fetch::fetch;
use super::plan::Tablet;
use crate::checks::{Check, Checks};
use crate::error::Error;
use crate::metrics;
use crate::rocks::{is_immutable, point_to_manifest};

/// Files in flight: enough to fill the line from object storage.
const DOWNLOADS_IN_FLIGHT_MAX: usize = 8;

/// Makes `dir`, which is empty, a database that can be opened. As long as somebody holds the checks, tasks that need the same
/// files do not read them again.
pub(super) async fn download(
    source: &Source,
    tablet: &Tablet,
    dir: &Path,
) -> Result<Vec<Check>, Error> {
    let files: Vec<_> = tablet
        .files
        .values()
        .map(|file| bring(source, file, dir))
        .collect();
    let checks = stream::iter(files)
        .buffer_unordered(DOWNLOADS_IN_FLIGHT_MAX)
        .try_collect()
        .await?;
    point_to_manifest(dir, &tablet.manifest)?;
    Ok(checks)
}

async fn bring(source: &Source, file: &StateFile, dir: &Path) -> Result<Check, Error> {
    let Some(local) = &source.local else {
        let checks = Checks::default();
        return fetch(file, || download_file(&source.storage, &checks, file, dir)).await;
    };
    if let Some(check) = local.fetch(file, &dir.join(&file.local_name)).await {
        metrics::found_locally(file.size);
        return Ok(check);
    }
    let checks = local.checks();
    fetch(file, || download_file(&source.storage, checks, file, dir)).await
}

async fn download_file(
    storage: &ObjectStorage,
    checks: &Checks,
    file: &StateFile,
    dir: &Path,
) -> Result<Check, Error> {
    let local = dir.join(&file.local_name);
    // RocksDB never changes a table, so one that lies on this disk need not be copied.
    let linked = is_immutable(&file.local_name) && storage.link_file(&file.path, &local).await;
    if !linked {
        match storage.get_file(&file.path, &local).await {
            Ok(_) => {}
            Err(storage::Error::NotFound { .. }) => {
                return Err(Error::Missing {
                    path: file.path.clone(),
                });
            }
            Err(error) => return Err(error.into()),
        }
    }
    let ((crc32c, size), check) = checks.file(local).await?;
    let corrupt = |reason| {
        Err(Error::Corrupt {
            path: file.path.clone(),
            reason,
        })
    };
    if size != file.size {
        return corrupt(format!("it has {size} bytes instead of {}", file.size));
    }
    if crc32c != file.crc32c {
        return corrupt(format!(
            "its CRC-32C is {crc32c:08x} instead of {:08x}",
            file.crc32c
        ));
    }
    if linked {
        metrics::found_locally(size);
    } else {
        metrics::downloaded(size);
    }
    Ok(check)
}
