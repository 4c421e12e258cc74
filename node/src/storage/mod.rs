//! An object store under one root, opened by its URL.
//!
//! Checkpoints, savepoints and large job graphs go through here, whatever the store: a directory, S3, or memory in
//! tests. Two things hold for every store: an object becomes visible whole or not at all, and once `put` or `put_file`
//! has returned it survives a power cut. Every request has a deadline, and what may pass by itself is tried again a
//! bounded number of times; an [`Error`] that comes out of here is worth a decision by the caller.
//!
//! A request whose answer was lost may have been carried out, and is repeated all the same. That is harmless because a
//! path is written by one writer with one content, and never again.
//!
//! - `open`: from a root as people write it to a store. `multipart`: files that are larger than one request.
//! - `error`: what can go wrong, by what to do about it. `local`: local files, without blocking anybody.

mod error;
mod local;
mod multipart;
mod open;

use std::fs;
use std::io::{self, Write};
use std::path::Path as LocalPath;
use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::debug;

pub use self::error::Error;
use self::local::on_disk;

/// How long one request, or one piece of a body, may take: long enough for a part of [`PART_BYTES`] on a slow line
/// (300 kB/s).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Tries after the first. With the delays below a hiccup of two seconds passes unnoticed, and a real outage is reported
/// before a checkpoint would time out.
const RETRIES_MAX: usize = 4;
const RETRY_DELAY_MIN: Duration = Duration::from_millis(50);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(2);

/// Files above this size are uploaded in parts of this size. S3 wants at least 5 MiB a part.
const PART_BYTES: u64 = 8 << 20;

/// Parts of files that this process holds in memory for uploads, whatever the number of tasks and stores: 128 MiB. More
/// would not fill a line any better. Never closed.
static UPLOAD_MEMORY: Semaphore = Semaphore::const_new(16);

async fn upload_memory() -> Option<SemaphorePermit<'static>> {
    #[cfg(feature = "simulation")]
    if crate::simulation::is_on() {
        // Simulated processes share what is static, and one that is killed gives nothing back.
        return None;
    }
    UPLOAD_MEMORY.acquire().await.ok()
}

/// An object store under one root. Cheap to clone; all paths are relative to the root, separated by `/`.
#[derive(Clone, Debug)]
pub struct ObjectStorage {
    store: Arc<dyn ObjectStore>,
    /// The same store if it is S3, for uploads in parts.
    s3: Option<Arc<AmazonS3>>,
    root: Arc<str>,
    /// What stands before every path inside `store`.
    prefix: Path,
    /// Set when the store is a directory: where it is, for fsync.
    directory: Option<Arc<LocalPath>>,
    request_timeout: Duration,
}

impl ObjectStorage {
    /// The root in its normal form: an absolute path for a directory, else a URL without a slash at its end. Opening it
    /// again, in any process, gives the same objects.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The full name of an object, for people and for messages.
    pub fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.root.trim_end_matches('/'))
    }

    /// With another deadline for each request and each piece of a body.
    pub fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
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
        retried(|| async {
            let object = self.within_deadline(path, self.store.get(&at)).await?;
            let mut bytes = Vec::with_capacity(object.meta.size as usize);
            let mut chunks = object.into_stream();
            while let Some(chunk) = self.within_deadline(path, chunks.try_next()).await? {
                bytes.extend_from_slice(&chunk);
            }
            Ok(bytes.into())
        })
        .await
    }

    /// Uploads a local file, which does not change meanwhile, and returns its size in bytes. The object is durable when
    /// this returns. Dropping the future leaves no visible object. All uploads of this process together hold a bounded
    /// part of their files in memory.
    pub async fn put_file(&self, path: &str, local: &LocalPath) -> Result<u64, Error> {
        let metadata = on_disk(local, |local| fs::metadata(local)).await;
        let size = metadata.map_err(Error::local(local))?.len();
        if size <= PART_BYTES {
            let _memory = upload_memory().await;
            self.put(path, read_part(local, 0, size).await?).await?;
        } else if let Some(s3) = &self.s3 {
            self.put_parts(s3, path, local, size).await?;
        } else {
            retried(|| self.put_in_sequence(path, local, size)).await?;
        }
        Ok(size)
    }

    /// For stores that are near: there is no latency that parts in flight could hide.
    async fn put_in_sequence(&self, path: &str, local: &LocalPath, size: u64) -> Result<(), Error> {
        let at = self.resolve(path)?;
        let upload = self.store.put_multipart(&at);
        let mut upload = self.within_deadline(path, upload).await?;
        for number in 0..parts(size) {
            let _memory = upload_memory().await;
            let part = upload.put_part(read_part(local, number, size).await?.into());
            self.within_deadline(path, part).await?;
        }
        self.within_deadline(path, upload.complete()).await?;
        self.sync(path).await
    }

    /// Makes the object another name of a local file to which nobody will ever write again, if the store is a directory on
    /// the same file system, and says whether it did. The object is durable when this returns.
    pub async fn put_link(&self, path: &str, local: &LocalPath) -> Result<bool, Error> {
        let (Some(root), Ok(at)) = (&self.directory, Path::parse(path)) else {
            return Ok(false);
        };
        let object = root.join(at.as_ref());
        if let Some(parent) = object.parent() {
            let made = on_disk(parent, |parent| fs::create_dir_all(parent)).await;
            made.map_err(Error::local(parent))?;
        }
        if on_disk(local, move |local| fs::hard_link(local, object))
            .await
            .is_err()
        {
            return Ok(false);
        }
        self.sync(path).await?;
        Ok(true)
    }

    /// Makes `local` another name of the object, if that is a file on the same file system, and says whether it did. Who
    /// uses it must never write to `local`, for that would be writing to the object; removing it is harmless.
    pub async fn link_file(&self, path: &str, local: &LocalPath) -> bool {
        let (Some(root), Ok(at)) = (&self.directory, Path::parse(path)) else {
            return false;
        };
        let object = root.join(at.as_ref());
        on_disk(local, move |local| fs::hard_link(object, local))
            .await
            .is_ok()
    }

    /// Downloads an object into a local file, which is created or replaced, and returns its size in bytes. Not synced:
    /// a local copy is lost with the machine anyway. After an error the local file may hold a part of the object.
    pub async fn get_file(&self, path: &str, local: &LocalPath) -> Result<u64, Error> {
        let at = self.resolve(path)?;
        retried(|| async {
            let object = self.within_deadline(path, self.store.get(&at)).await?;
            let mut file = on_disk(local, local::replace)
                .await
                .map_err(Error::local(local))?;
            let (mut chunks, mut size) = (object.into_stream(), 0);
            while let Some(chunk) = self.within_deadline(path, chunks.try_next()).await? {
                size += chunk.len() as u64;
                let written = on_disk(local, move |_| file.write_all(&chunk).map(|()| file)).await;
                file = written.map_err(Error::local(local))?;
            }
            Ok(size)
        })
        .await
    }

    /// Deletes an object; one that does not exist is deleted already.
    pub async fn delete(&self, path: &str) -> Result<(), Error> {
        let at = self.resolve(path)?;
        match self.request(path, || self.store.delete(&at)).await {
            Err(Error::NotFound { .. }) => Ok(()),
            other => other,
        }
    }

    /// Removes the root itself if it is a directory without anything in it. Elsewhere there is nothing to remove.
    pub async fn remove_directory_if_empty(&self) -> Result<(), Error> {
        let Some(directory) = &self.directory else {
            return Ok(());
        };
        match on_disk(directory, |directory| fs::remove_dir(directory)).await {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(Error::local(directory)),
        }
    }

    /// Every object below `prefix` (whole path components; empty for all) with its size in bytes, in order of path. Some
    /// stores show a little later than [`Self::exists`] what was written or deleted.
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
        Ok(self.size(path).await?.is_some())
    }

    /// An object's size in bytes, if there is one.
    async fn size(&self, path: &str) -> Result<Option<u64>, Error> {
        let at = self.resolve(path)?;
        match self.request(path, || self.store.head(&at)).await {
            Ok(object) => Ok(Some(object.size)),
            Err(Error::NotFound { .. }) => Ok(None),
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

    /// One request, within its deadline and tried again.
    async fn request<T, F>(&self, path: &str, mut send: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        retried(|| self.within_deadline(path, send())).await
    }

    async fn within_deadline<T>(
        &self,
        path: &str,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Error> {
        let answer = tokio::time::timeout(self.request_timeout, request).await;
        let answer = answer.unwrap_or_else(|_| {
            let reason = format!("no answer within {:?}", self.request_timeout);
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
        let synced = on_disk(&file, move |file| {
            let mut next = Some(file);
            while let Some(path) = next {
                fs::File::open(path)?.sync_all()?;
                next = if path == &*root { None } else { path.parent() };
            }
            Ok(())
        });
        let synced = synced.await;
        synced.map_err(|error| {
            let source = object_store::Error::Generic {
                store: "fsync",
                source: Box::new(error),
            };
            Error::of(&self.url(path), source)
        })
    }
}

/// How many parts a file of `size` bytes has.
fn parts(size: u64) -> u64 {
    size.div_ceil(PART_BYTES)
}

/// Reads a part of a file of `size` bytes.
async fn read_part(local: &LocalPath, number: u64, size: u64) -> Result<Bytes, Error> {
    let start = number * PART_BYTES;
    let length = (size - start).min(PART_BYTES) as usize;
    let read = on_disk(local, move |local| local::read_at(local, start, length)).await;
    read.map_err(Error::local(local))
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
