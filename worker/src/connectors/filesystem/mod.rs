//! Files as source and as sink: CSV and JSON lines.
//!
//! - [`source`]: reads the splits that belong to a subtask, one after another. [`split`]: which there are, and opening
//!   one at a position. [`csv`], [`json`]: records from bytes. [`rows`]: records to columns, with rows that do not
//!   fit named or skipped.
//! - [`sink`]: files that become visible when their checkpoint is complete. [`encode`]: columns to records.
//! - [`text`]: values of every SQL type as text, both ways.

mod csv;
mod encode;
mod json;
mod rows;
mod sink;
mod source;
mod split;
mod text;

use std::path::PathBuf;

pub(crate) use encode::Encoder;
pub(crate) use sink::FileSink;
pub(crate) use source::FileSource;
pub(crate) use text::moment_of_units;

use crate::Error;

/// The path of a table option: as it is, or a `file:` URL.
fn local_path(text: &str, place: &str) -> Result<PathBuf, Error> {
    let path = match text.split_once("://") {
        Some(("file", path)) => path,
        Some((scheme, _)) => {
            return Err(Error::user(
                place,
                format!(
                    "path {text:?}: the filesystem connector reads and writes local paths, not {scheme}"
                ),
            ));
        }
        None => text,
    };
    if path.is_empty() {
        return Err(Error::user(place, "the option 'path' is empty"));
    }
    Ok(PathBuf::from(path))
}
