//! Local files, touched where nobody waits for the thread.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use bytes::Bytes;

use crate::spawn_blocking;

/// Does `work` on the file or directory `path`.
pub(super) async fn on_disk<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let path = path.to_owned();
    let done = spawn_blocking(move || work(&path)).await;
    done.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

/// A new file in the place of whatever has that name: not overwritten, for that may be another name of something else.
pub(super) fn replace(path: &Path) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => File::create_new(path),
    }
}

/// So many bytes from `start` on.
pub(super) fn read_at(path: &Path, start: u64, length: usize) -> io::Result<Bytes> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut part = vec![0; length];
    file.read_exact(&mut part)?;
    Ok(part.into())
}
