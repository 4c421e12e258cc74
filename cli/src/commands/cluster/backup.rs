//! `flott cluster backup` and `verify-backup`: a file, or an object in an object store.
//!
//! ```text
//!   leader ──pieces──▶ <file>.part ──read back and checked──▶ synced ──▶ <file>, or uploaded
//! ```
//!
//! A backup has its name only once it was found to be whole: half of one is never taken for one.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flott_coordinator::recovery::{self, Manifest};
use flott_node::storage::{self, ObjectStorage};
use flott_proto::wire;
use tempfile::TempPath;
use tonic::Streaming;

use super::client;
use crate::args::{BackupArgs, OutputFormat, VerifyBackupArgs};
use crate::shapes::Backup;
use crate::{Error, output};

/// For the next piece to come.
const PIECE_WAIT: Duration = Duration::from_secs(30);

pub(super) async fn backup(arguments: &BackupArgs) -> Result<(), Error> {
    let client = client(&arguments.cluster)?;
    let place = Place::parse(&arguments.to);
    place.refuse_existing().await?;
    let pieces = client.backup().await?;
    let manifest = match &place {
        Place::File(path) => {
            let mut beside = path.clone().into_os_string();
            beside.push(".part");
            let beside = PathBuf::from(beside);
            let written = receive(pieces, &beside).await;
            let named = written.and_then(|manifest| {
                name(&beside, path).map_err(Error::file("cannot write", path))?;
                Ok(manifest)
            });
            // It is of no use, and may not exist.
            named.inspect_err(|_| drop(fs::remove_file(&beside)))?
        }
        Place::Object { root, name } => {
            let local = temporary()?;
            let manifest = receive(pieces, &local).await?;
            let storage = ObjectStorage::open(root).map_err(refused)?;
            storage.put_file(name, &local).await.map_err(refused)?;
            manifest
        }
    };
    print(&arguments.to, &manifest, arguments.cluster.output, "Wrote");
    Ok(())
}

pub(super) async fn verify(arguments: &VerifyBackupArgs) -> Result<(), Error> {
    let fetched = fetch(&arguments.from).await?;
    let manifest = check(fetched.path())?;
    print(&arguments.from, &manifest, arguments.output, "Intact:");
    Ok(())
}

/// A backup on this machine's disk, for as long as this lives.
#[derive(Debug)]
pub(super) enum Fetched {
    Here(PathBuf),
    Downloaded(TempPath),
}

impl Fetched {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Here(path) => path,
            Self::Downloaded(path) => path,
        }
    }
}

/// Brings the backup here, unless it is here.
pub(super) async fn fetch(from: &str) -> Result<Fetched, Error> {
    match Place::parse(from) {
        Place::File(path) => Ok(Fetched::Here(path)),
        Place::Object { root, name } => {
            let local = temporary()?;
            let storage = ObjectStorage::open_existing(&root).map_err(refused)?;
            storage.get_file(&name, &local).await.map_err(refused)?;
            Ok(Fetched::Downloaded(local))
        }
    }
}

/// Where a backup is or goes.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Object { root: String, name: String },
}

impl Place {
    fn parse(text: &str) -> Self {
        match text.split_once("://") {
            None => Self::File(PathBuf::from(text)),
            Some(_) => {
                let (root, name) = text.rsplit_once('/').unwrap_or((text, ""));
                Self::Object {
                    root: root.to_owned(),
                    name: name.to_owned(),
                }
            }
        }
    }

    async fn refuse_existing(&self) -> Result<(), Error> {
        let exists = match self {
            Self::File(path) => path.exists(),
            Self::Object { root, name } => {
                let storage = ObjectStorage::open(root).map_err(refused)?;
                storage.exists(name).await.map_err(refused)?
            }
        };
        if !exists {
            return Ok(());
        }
        let named = match self {
            Self::File(path) => path.display().to_string(),
            Self::Object { root, name } => format!("{root}/{name}"),
        };
        Err(Error::Refused(format!("{named} exists; name another file")))
    }
}

fn refused(error: storage::Error) -> Error {
    Error::Refused(Error::process(&error).line())
}

fn temporary() -> Result<TempPath, Error> {
    let file = tempfile::NamedTempFile::new();
    file.map(tempfile::NamedTempFile::into_temp_path)
        .map_err(Error::file("cannot write in", std::env::temp_dir()))
}

/// Writes what comes to `path`, makes it durable and checks it.
async fn receive(mut pieces: Streaming<wire::BackupChunk>, path: &Path) -> Result<Manifest, Error> {
    let failed = || Error::file("cannot write", path);
    let mut file = BufWriter::new(File::create(path).map_err(failed())?);
    let (mut total, mut received) = (0, 0);
    loop {
        let piece = tokio::time::timeout(PIECE_WAIT, pieces.message()).await;
        let piece = piece.map_err(|_| broken("the JobManager sends no more"))?;
        let Some(piece) = piece.map_err(|status| broken(status.message()))? else {
            break;
        };
        total = piece.total_bytes;
        received += piece.data.len() as u64;
        file.write_all(&piece.data).map_err(failed())?;
    }
    if received != total || total == 0 {
        return Err(broken(&format!("{received} of {total} bytes came")));
    }
    let file = file
        .into_inner()
        .map_err(|error| failed()(error.into_error()))?;
    file.sync_all().map_err(failed())?;
    check(path)
}

fn broken(why: &str) -> Error {
    Error::Refused(format!("the backup broke off, try again: {why}"))
}

fn check(path: &Path) -> Result<Manifest, Error> {
    recovery::verify(path).map_err(|error| Error::Refused(Error::process(&error).line()))
}

/// Gives the checked file its name, durably, unless somebody else has taken it.
fn name(beside: &Path, path: &Path) -> std::io::Result<()> {
    if path.exists() {
        return Err(std::io::ErrorKind::AlreadyExists.into());
    }
    fs::rename(beside, path)?;
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

fn print(place: &str, manifest: &Manifest, format: OutputFormat, done: &str) {
    match format {
        OutputFormat::Json => output::json(&Backup::of(place, manifest)),
        OutputFormat::Table => output::line(&format!(
            "{done} {place}: cluster {}, log entry {}, {} jobs ({} active), {} keys, {} bytes, sha256 {}",
            manifest.cluster,
            manifest.position,
            manifest.jobs,
            manifest.jobs_active,
            manifest.keys,
            manifest.bytes,
            manifest.sha256
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_file_unless_it_has_a_scheme() {
        let object = |root: &str, name: &str| Place::Object {
            root: root.to_owned(),
            name: name.to_owned(),
        };
        let table = [
            ("monday", Place::File("monday".into())),
            ("/b/monday", Place::File("/b/monday".into())),
            ("s3://b/monday", object("s3://b", "monday")),
            ("s3://b/flott/monday", object("s3://b/flott", "monday")),
            ("file:///b/monday", object("file:///b", "monday")),
        ];
        for (text, expected) in table {
            assert_eq!(Place::parse(text), expected);
        }
    }

    #[test]
    fn a_name_that_was_taken_meanwhile_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (beside, path) = (dir.path().join("b.part"), dir.path().join("b"));
        fs::write(&beside, "one").unwrap();
        name(&beside, &path).unwrap();
        fs::write(&beside, "two").unwrap();
        assert!(name(&beside, &path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
    }

    #[tokio::test]
    async fn what_is_no_backup_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("b");
        fs::write(&file, "hello, world").unwrap();
        let error = check(&file).unwrap_err().line();
        assert!(error.contains("is no usable backup"), "{error}");
        let missing = format!("file://{}/none", dir.path().display());
        let error = fetch(&missing).await.unwrap_err().line();
        assert!(error.contains("does not exist"), "{error}");
    }
}
