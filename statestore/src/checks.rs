//! Checksums of files on this disk that several tasks restore from at once: each file is read once.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OnceCell;

use crate::error::Error;
use crate::snapshot::file_checksum;

/// A CRC-32C and a size, once they are known.
type Cell = OnceCell<(u32, u64)>;

/// A file, whatever its name: device and inode.
type FileId = (u64, u64);

/// The checks of files that somebody holds. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checks(Arc<Mutex<Cells>>);

type Cells = BTreeMap<FileId, Weak<Cell>>;

/// As long as it is held, its file is not read again for another check, whatever its name.
#[derive(Debug)]
pub(crate) struct Check(#[expect(dead_code, reason = "held, not read")] Arc<Cell>);

impl Checks {
    /// The CRC-32C and the size of a local file that nobody changes.
    pub(crate) async fn file(&self, path: PathBuf) -> Result<((u32, u64), Check), Error> {
        let metadata = fs::metadata(&path).map_err(Error::local(&path))?;
        let cell = self.cell((metadata.dev(), metadata.ino()));
        let found = cell.get_or_try_init(|| file_checksum(path)).await?;
        Ok((*found, Check(Arc::clone(&cell))))
    }

    fn cell(&self, file: FileId) -> Arc<Cell> {
        let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = cells.get(&file).and_then(Weak::upgrade) {
            return held;
        }
        cells.retain(|_, cell| cell.strong_count() > 0);
        let cell = Arc::default();
        cells.insert(file, Arc::downgrade(&cell));
        cell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_once_as_long_as_a_check_of_it_is_held() {
        let tmp = tempfile::tempdir().unwrap();
        let (path, other_name) = (tmp.path().join("a"), tmp.path().join("b"));
        fs::write(&path, b"before").unwrap();
        fs::hard_link(&path, &other_name).unwrap();
        let checks = Checks::default();
        let (before, held) = checks.file(path.clone()).await.unwrap();
        assert_eq!(before, (crc32c::crc32c(b"before"), 6));
        fs::write(&path, b"now").unwrap();
        let (again, also_held) = checks.clone().file(other_name).await.unwrap();
        assert_eq!(again, before, "not read again");
        drop((held, also_held));
        let (now, _) = checks.file(path).await.unwrap();
        assert_eq!(now, (crc32c::crc32c(b"now"), 3));
        assert!(checks.file(tmp.path().join("c")).await.is_err());
    }
}
