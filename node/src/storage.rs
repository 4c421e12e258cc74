//! An object store under one root, opened by its URL.
//!
//! Checkpoints, savepoints and large job graphs go through here, whatever the store: a directory, S3, or memory in
//! tests. Two things hold for every store: an object becomes visible whole or not at all, and once `put` or `put_file`
//! has returned it survives a power cut. Every request has a deadline, and what may pass by itself is tried again a
//! bounded number of times; an [`Error`] that comes out of here is worth a decision by the caller.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::ffi::OsString;
use std::io;
use std::path::{Path as LocalPath, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, RetryConfig, WriteMultipart};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::debug;

/// How long one request may take: long enough for a part of [`PART_BYTES`] on a slow line (300 kB/s).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Tries after the first. With the delays below a hiccup of two seconds passes unnoticed, and a real outage is reported
/// before a checkpoint would time out.
const RETRIES_MAX: usize = 4;
const RETRY_DELAY_MIN: Duration = Duration::from_millis(50);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(2);

/// Files above this size are uploaded in parts of this size. S3 wants at least 5 MiB a part.
const PART_BYTES: usize = 8 << 20;

/// Parts of one file in flight: bounds memory to `PARTS_IN_FLIGHT_MAX * PART_BYTES` an upload.
const PARTS_IN_FLIGHT_MAX: usize = 4;

/// All `memory://` roots of this process are prefixes of one store, so that two openings of a name share its objects.
static MEMORY: LazyLock<Arc<InMemory>> = LazyLock::new(Arc::default);

/// What went wrong, by what the caller may do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Retries are used up; a later try may succeed.
    #[error("storage unavailable for {path}")]
    Unavailable {
        path: String,
        #[source]
        source: object_store::Error,
    },
    /// There is no such object; trying again is useless.
    #[error("object {path} does not exist")]
    NotFound { path: String },
    /// The store refuses: credentials or file permissions have to be changed.
    #[error("access to {path} denied; check the credentials or the permissions")]
    Denied {
        path: String,
        #[source]
        source: object_store::Error,
    },
    /// The root cannot be used as it is written; the configuration has to be changed.
    #[error("storage root {root:?} is not usable: {reason}")]
    InvalidRoot { root: String, reason: String },
    /// The path is not one that every object store can hold.
    #[error("object path {path:?} is invalid")]
    InvalidPath {
        path: String,
        #[source]
        source: object_store::path::Error,
    },
    /// The local file of an upload or a download could not be read or written.
    #[error("local file {} failed", path.display())]
    Local {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Error {
    fn of(path: &str, source: object_store::Error) -> Self {
        let path = path.to_owned();
        match source {
            object_store::Error::NotFound { .. } => Self::NotFound { path },
            object_store::Error::InvalidPath { source } => Self::InvalidPath { path, source },
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => Self::Denied { path, source },
            source if is_permission_error(&source) => Self::Denied { path, source },
            source => Self::Unavailable { path, source },
        }
    }

    fn local(path: &LocalPath) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Local { path, source }
    }

    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// The local file system's refusals come as an `io::Error` somewhere down the chain.
fn is_permission_error(error: &object_store::Error) -> bool {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return matches!(
                io.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            );
        }
        next = error.source();
    }
    false
}

/// The settings of S3 that the process was started with.
fn environment() -> BTreeMap<String, String> {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os()
        .filter_map(text)
        .filter(|(name, _)| name.starts_with("AWS_"))
        .collect()
}

/// An object store under one root. Cheap to clone; all paths are relative to the root, separated by `/`.
#[derive(Clone, Debug)]
pub struct ObjectStorage {
    store: Arc<dyn ObjectStore>,
    root: Arc<str>,
    /// What stands before every path inside `store`.
    prefix: Path,
    /// Set when the store is a directory: where it is, for fsync.
    directory: Option<Arc<LocalPath>>,
}

impl ObjectStorage {
    /// Opens `root`: `file:///x`, a plain path (absolute or relative; made absolute), `s3://bucket/prefix` or
    /// `memory:///name`. A directory is created if it is missing; one that cannot be created yet is opened all the same,
    /// and every request fails until it can. S3 takes its credentials and its endpoint from
    /// the environment, by the names that its tools use; see [`Self::open_with`].
    pub fn open(root: &str) -> Result<Self, Error> {
        Self::open_with(root, &environment())
    }

    /// As [`Self::open`], for reading what must be there already: a missing directory is an error and is not created.
    pub fn open_existing(root: &str) -> Result<Self, Error> {
        let path = root.trim().strip_prefix("file://").unwrap_or(root.trim());
        if !path.contains("://") && !LocalPath::new(path).is_dir() {
            return Err(Error::NotFound {
                path: root.to_owned(),
            });
        }
        Self::open(root)
    }

    /// As [`Self::open`], with options for S3 by the names that its tools use as environment variables
    /// (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT`, `AWS_REGION`, `AWS_ALLOW_HTTP`, …). Names that are
    /// not options are ignored, so that the whole environment can be passed.
    pub fn open_with(root: &str, options: &BTreeMap<String, String>) -> Result<Self, Error> {
        let invalid = |reason: String| Error::InvalidRoot {
            root: root.to_owned(),
            reason,
        };
        let trimmed = root.trim();
        let Some((scheme, rest)) = trimmed.split_once("://") else {
            if trimmed.is_empty() {
                return Err(invalid("it is empty; give a directory or a URL".to_owned()));
            }
            return Self::open_directory(root, LocalPath::new(trimmed));
        };
        let prefix = |path: &str| {
            Path::parse(path.trim_matches('/')).map_err(|error| invalid(error.to_string()))
        };
        match scheme {
            "file" => {
                let url = url::Url::parse(trimmed).map_err(|error| invalid(error.to_string()))?;
                let path = url.to_file_path();
                let path = path.map_err(|()| {
                    invalid("a file URL has three slashes: file:///directory".to_owned())
                })?;
                Self::open_directory(root, &path)
            }
            "memory" => {
                let prefix = prefix(rest)?;
                let store = Arc::clone(&*MEMORY) as Arc<dyn ObjectStore>;
                Ok(Self {
                    store,
                    root: format!("memory:///{prefix}").into(),
                    prefix,
                    directory: None,
                })
            }
            "s3" | "s3a" => {
                let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
                if bucket.is_empty() {
                    return Err(invalid("it names no bucket: s3://bucket/prefix".to_owned()));
                }
                // The tries are ours to count: the client's own are kept few.
                let retry = RetryConfig {
                    max_retries: 1,
                    retry_timeout: REQUEST_TIMEOUT,
                    ..RetryConfig::default()
                };
                let builder = AmazonS3Builder::new()
                    .with_bucket_name(bucket)
                    .with_retry(retry);
                let builder = options.iter().fold(builder, |builder, (name, value)| {
                    match name.to_ascii_lowercase().parse() {
                        Ok(key) => builder.with_config(key, value),
                        Err(_) => builder,
                    }
                });
                let store = builder
                    .build()
                    .map_err(|error| invalid(error.to_string()))?;
                let prefix = prefix(path)?;
                let root = format!("s3://{bucket}/{prefix}");
                let root = root.trim_end_matches('/').into();
                Ok(Self {
                    store: Arc::new(store),
                    root,
                    prefix,
                    directory: None,
                })
            }
            other => Err(invalid(format!(
                "{other}:// is unknown; use a path, file://, s3:// or memory://"
            ))),
        }
    }

    fn open_directory(root: &str, path: &LocalPath) -> Result<Self, Error> {
        let invalid = |reason: String| Error::InvalidRoot {
            root: root.to_owned(),
            reason,
        };
        let path = std::path::absolute(path).map_err(|error| invalid(error.to_string()))?;
        let name = path
            .to_str()
            .ok_or_else(|| invalid("it is not UTF-8".to_owned()))?
            .to_owned();
        let (store, prefix) = match std::fs::create_dir_all(&path) {
            Ok(()) => {
                let store = LocalFileSystem::new_with_prefix(&path)
                    .map_err(|error| Error::of(root, error))?;
                // A directory whose last object was deleted goes too: a job leaves nothing behind.
                (store.with_automatic_cleanup(true), Path::default())
            }
            // It may be mended while we run, and until then it is each request that fails, not who opens.
            Err(_) => {
                let prefix = Path::from_absolute_path(&path);
                let prefix = prefix.map_err(|error| invalid(error.to_string()))?;
                (LocalFileSystem::new(), prefix)
            }
        };
        let store = Arc::new(store);
        Ok(Self {
            store,
            root: name.into(),
            prefix,
            directory: Some(path.into()),
        })
    }

    /// The root in its normal form: an absolute path for a directory, else a URL without a slash at its end. Opening it
    /// again, in any process, gives the same objects.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The full name of an object, for people and for messages.
    pub fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.root.trim_end_matches('/'))
    }

    /// Writes a whole object. It is durable when this returns.
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        let at = self.resolve(path)?;
        retried(|| async {
            let put = self.store.put(&at, PutPayload::from_bytes(bytes.clone()));
            self.within_deadline(path, put).await?;
            self.sync(path).await
        })
        .await
    }

    /// Reads a whole object.
    pub async fn get(&self, path: &str) -> Result<Bytes, Error> {
        let at = self.resolve(path)?;
        retried(|| self.within_deadline(path, async { self.store.get(&at).await?.bytes().await }))
            .await
    }

    /// Uploads a local file and returns its size in bytes. The object is durable when this returns. Dropping the future
    /// leaves no visible object.
    pub async fn put_file(&self, path: &str, local: &LocalPath) -> Result<u64, Error> {
        let at = self.resolve(path)?;
        retried(|| async {
            let mut file = tokio::fs::File::open(local)
                .await
                .map_err(Error::local(local))?;
            let size = file.metadata().await.map_err(Error::local(local))?.len();
            if size <= PART_BYTES as u64 {
                let mut bytes = Vec::with_capacity(size as usize);
                file.read_to_end(&mut bytes)
                    .await
                    .map_err(Error::local(local))?;
                self.within_deadline(path, self.store.put(&at, bytes.into()))
                    .await?;
            } else {
                let upload = self
                    .within_deadline(path, self.store.put_multipart(&at))
                    .await?;
                let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
                if let Err(error) = self.put_parts(path, local, &mut file, &mut upload).await {
                    // Best effort: what a failed upload leaves invisible costs storage only.
                    let _ = self.within_deadline(path, upload.abort()).await;
                    return Err(error);
                }
                self.within_deadline(path, upload.finish()).await?;
            }
            self.sync(path).await?;
            Ok(size)
        })
        .await
    }

    async fn put_parts(
        &self,
        path: &str,
        local: &LocalPath,
        file: &mut tokio::fs::File,
        upload: &mut WriteMultipart,
    ) -> Result<(), Error> {
        loop {
            let mut part = Vec::with_capacity(PART_BYTES);
            let read = (&mut *file)
                .take(PART_BYTES as u64)
                .read_to_end(&mut part)
                .await;
            if read.map_err(Error::local(local))? == 0 {
                return Ok(());
            }
            self.within_deadline(path, upload.wait_for_capacity(PARTS_IN_FLIGHT_MAX))
                .await?;
            upload.put(part.into());
        }
    }

    /// Downloads an object into a local file, which is created or replaced, and returns its size in bytes. Not synced:
    /// a local copy is lost with the machine anyway. After an error the local file may hold a part of the object.
    pub async fn get_file(&self, path: &str, local: &LocalPath) -> Result<u64, Error> {
        let at = self.resolve(path)?;
        retried(|| async {
            let object = self.within_deadline(path, self.store.get(&at)).await?;
            let mut file = tokio::fs::File::create(local)
                .await
                .map_err(Error::local(local))?;
            let (mut chunks, mut size) = (object.into_stream(), 0);
            while let Some(chunk) = self.within_deadline(path, chunks.try_next()).await? {
                size += chunk.len() as u64;
                file.write_all(&chunk).await.map_err(Error::local(local))?;
            }
            file.flush().await.map_err(Error::local(local))?;
            Ok(size)
        })
        .await
    }

    /// Deletes an object; one that does not exist is deleted already.
    pub async fn delete(&self, path: &str) -> Result<(), Error> {
        let at = self.resolve(path)?;
        let deleted = retried(|| self.within_deadline(path, self.store.delete(&at))).await;
        match deleted {
            Err(Error::NotFound { .. }) => Ok(()),
            other => other,
        }
    }

    /// Every object below `prefix` (whole path components; empty for all) with its size in bytes, in order of path.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, Error> {
        let at = self.resolve(prefix)?;
        let mut found = retried(|| async {
            let mut listing = self.store.list(Some(&at)).boxed();
            let mut found = Vec::new();
            while let Some(object) = self.within_deadline(prefix, listing.try_next()).await? {
                let path: Path = match object.location.prefix_match(&self.prefix) {
                    Some(parts) => parts.collect(),
                    None => continue,
                };
                found.push((path.to_string(), object.size));
            }
            Ok(found)
        })
        .await?;
        found.sort_unstable();
        Ok(found)
    }

    /// Whether there is such an object.
    pub async fn exists(&self, path: &str) -> Result<bool, Error> {
        let at = self.resolve(path)?;
        match retried(|| self.within_deadline(path, self.store.head(&at))).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn resolve(&self, path: &str) -> Result<Path, Error> {
        let parsed = Path::parse(path);
        let parsed = parsed.map_err(|source| Error::InvalidPath {
            path: path.to_owned(),
            source,
        })?;
        Ok(self.prefix.parts().chain(parsed.parts()).collect())
    }

    async fn within_deadline<T>(
        &self,
        path: &str,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Error> {
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, request).await;
        let answer = answer.unwrap_or_else(|_| {
            let reason = format!("no answer within {REQUEST_TIMEOUT:?}");
            let source = Box::new(io::Error::new(io::ErrorKind::TimedOut, reason));
            Err(object_store::Error::Generic {
                store: "deadline",
                source,
            })
        });
        answer.map_err(|error| Error::of(&self.url(path), error))
    }

    /// Makes an object of a directory durable: its bytes, and its name in every directory up to the root. A directory
    /// that has not changed costs next to nothing to sync.
    async fn sync(&self, path: &str) -> Result<(), Error> {
        let Some(root) = self.directory.clone() else {
            return Ok(());
        };
        let file = root.join(path);
        let synced = tokio::task::spawn_blocking(move || {
            let mut next: Option<&LocalPath> = Some(&file);
            while let Some(path) = next {
                std::fs::File::open(path)?.sync_all()?;
                next = if path == &*root { None } else { path.parent() };
            }
            Ok(())
        });
        let synced = synced
            .await
            .unwrap_or_else(|panic| Err(io::Error::other(panic)));
        synced.map_err(|error| {
            let source = object_store::Error::Generic {
                store: "fsync",
                source: Box::new(error),
            };
            Error::of(&self.url(path), source)
        })
    }
}

/// Tries again what may pass by itself.
async fn retried<T, F>(request: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let delays = ExponentialBuilder::new()
        .with_min_delay(RETRY_DELAY_MIN)
        .with_max_delay(RETRY_DELAY_MAX)
        .with_max_times(RETRIES_MAX)
        .with_jitter();
    request
        .retry(delays)
        .when(Error::is_transient)
        .notify(|error, delay| debug!(%error, ?delay, "storage request failed, trying again"))
        .await
}

#[cfg(test)]
mod tests;
