//! Which files a source reads, and opening one at a position.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flott_proto::wire::FileSplitState;

use crate::Error;

/// How much of a file is read at a time.
const BUFFER: usize = 128 * 1024;

/// The bytes of a split, decompressed.
pub(super) type Bytes = Box<dyn Read + Send>;

/// The files of a source, in their order, all unread: the file itself, or the files of the directory by name. Names
/// that begin with `.` or `_` are passed over, as are directories within.
///
/// Every subtask asks for itself when a job starts afresh, and must get the same answer: the files have to be in place
/// by then. From the first checkpoint on, the list is part of the state.
pub(super) fn find(path: &Path, place: &str) -> Result<Vec<FileSplitState>, Error> {
    let metadata = fs::metadata(path).map_err(unreadable("read", path, place))?;
    let mut files = Vec::new();
    if metadata.is_dir() {
        let entries = fs::read_dir(path).map_err(unreadable("list", path, place))?;
        for entry in entries {
            let entry = entry.map_err(unreadable("list", path, place))?;
            let name = entry.file_name();
            let hidden = name.to_string_lossy().starts_with(['.', '_']);
            // Follows links, so that a linked file is a split.
            if !hidden && entry.path().is_file() {
                files.push(entry.path());
            }
        }
        files.sort();
    } else {
        files.push(path.to_owned());
    }
    let split = |(index, file): (usize, PathBuf)| {
        let path = file.to_str().ok_or_else(|| {
            Error::user(place, format!("the file name {file:?} is not valid UTF-8"))
        })?;
        Ok(FileSplitState {
            index: index as u32,
            path: path.to_owned(),
            byte_offset: 0,
            line: 0,
            finished: false,
        })
    };
    files.into_iter().enumerate().map(split).collect()
}

/// The decompressed bytes of a file, `offset` bytes on. A plain file is positioned; of a compressed one the bytes
/// before are decompressed and dropped.
pub(super) fn open(path: &Path, offset: u64, place: &str) -> Result<Bytes, Error> {
    let mut file = File::open(path).map_err(unreadable("open", path, place))?;
    let extension = path.extension().and_then(|extension| extension.to_str());
    let mut bytes: Bytes = match extension {
        Some("zst" | "zstd") => {
            let buffered = BufReader::with_capacity(BUFFER, file);
            let decoder = zstd::stream::read::Decoder::with_buffer(buffered);
            Box::new(decoder.map_err(unreadable("decompress", path, place))?)
        }
        Some("gz") => {
            let buffered = BufReader::with_capacity(BUFFER, file);
            Box::new(flate2::bufread::MultiGzDecoder::new(buffered))
        }
        _ => {
            let length = file
                .metadata()
                .map_err(unreadable("read", path, place))?
                .len();
            if length < offset {
                return Err(shorter(path, offset, length, place));
            }
            file.seek(SeekFrom::Start(offset))
                .map_err(unreadable("read", path, place))?;
            return Ok(Box::new(file));
        }
    };
    let skipped = io::copy(&mut bytes.by_ref().take(offset), &mut io::sink())
        .map_err(unreadable("decompress", path, place))?;
    if skipped < offset {
        return Err(shorter(path, offset, skipped, place));
    }
    Ok(bytes)
}

fn shorter(path: &Path, offset: u64, length: u64, place: &str) -> Error {
    Error::user(
        place,
        format!(
            "{} has {length} bytes, but {offset} of it were read before the checkpoint; put the file back as it was",
            path.display()
        ),
    )
}

/// For `map_err`: what another attempt meets again is the job's fault, the rest is the machine's.
pub(super) fn unreadable(
    verb: &'static str,
    path: &Path,
    place: &str,
) -> impl FnOnce(io::Error) -> Error {
    let (path, place) = (path.to_owned(), place.to_owned());
    move |source| match source.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::AlreadyExists
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::InvalidData
        | io::ErrorKind::UnexpectedEof => {
            Error::user(place, format!("cannot {verb} {}: {source}", path.display()))
        }
        _ => Error::Io {
            place: format!("{place}: cannot {verb} {}", path.display()),
            source,
        },
    }
}
