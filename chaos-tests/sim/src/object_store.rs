//! The object store that all processes share: in memory, durable once a request is carried out, and never quite reliable.
//!
//! ```text
//!   request ──▶ on its way ──▶ carried out ──▶ answer on its way ──▶ answered
//!       │           │ whoever sent it may be dead by then        │ lost: an error, though it was carried out
//!       └ refused while the store is out of order
//! ```
//!
//! What must stay true: no object is ever written with two contents.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};

use crate::kernel::hosts::HostId;
use crate::kernel::{self, MILLISECOND, count, with};

/// How the store is at present. Times in nanoseconds.
#[derive(Clone, Debug)]
pub struct Manners {
    /// Of one way, at least and at most.
    pub latency: (u64, u64),
    /// Of a thousand requests so many are refused.
    pub refused_permille: u64,
    /// Of a thousand requests so many are carried out, and answered with an error.
    pub lost_answers_permille: u64,
    /// Machines that do not reach it.
    pub unreachable: BTreeSet<HostId>,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            latency: (MILLISECOND, 8 * MILLISECOND),
            refused_permille: 0,
            lost_answers_permille: 0,
            unreachable: BTreeSet::new(),
        }
    }
}

/// What a request changes.
#[derive(Clone, Debug)]
enum Change {
    Put(Path, Bytes),
    Delete(Path),
}

#[derive(Debug, Default)]
struct Contents {
    objects: BTreeMap<Path, Bytes>,
    /// By the time at which they are carried out.
    coming: BTreeMap<(u64, u64), Change>,
    serial: u64,
    manners: Manners,
    /// What was ever written, by a hash of its content: the first.
    written: BTreeMap<Path, Bytes>,
    violation: Option<String>,
    deleted: u64,
}

impl Contents {
    /// Carries out what has arrived by now.
    fn settle(&mut self, now: u64) {
        while let Some(first) = self.coming.first_entry()
            && first.key().0 <= now
        {
            let change = first.remove();
            self.carry_out(change);
        }
    }

    fn carry_out(&mut self, change: Change) {
        match change {
            Change::Put(path, bytes) => {
                let first = self.written.entry(path.clone());
                let first = first.or_insert_with(|| bytes.clone());
                if *first != bytes {
                    self.violation.get_or_insert_with(|| {
                        format!("objects: {path} was written with two contents")
                    });
                }
                self.objects.insert(path, bytes);
            }
            Change::Delete(path) => {
                self.deleted += u64::from(self.objects.remove(&path).is_some());
            }
        }
    }
}

/// The store. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Store(Arc<Mutex<Contents>>);

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulated object store")
    }
}

fn failed(what: &'static str) -> Error {
    Error::Generic {
        store: "simulated",
        source: what.into(),
    }
}

impl Store {
    /// Changes how it is.
    pub fn set_manners(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.contents().manners);
    }

    /// All objects, as of now, with their sizes.
    pub fn objects(&self) -> BTreeMap<String, u64> {
        let contents = self.contents();
        let objects = contents.objects.iter();
        objects
            .map(|(path, bytes)| (path.to_string(), bytes.len() as u64))
            .collect()
    }

    /// The size of an object, if it is there.
    pub fn size(&self, path: &str) -> Option<u64> {
        let bytes = self.contents().objects.get(&Path::from(path)).cloned();
        bytes.map(|bytes| bytes.len() as u64)
    }

    /// What must not have happened to an object.
    pub fn violation(&self) -> Option<String> {
        self.contents().violation.clone()
    }

    /// Objects that were there, and are not any more.
    pub fn deleted(&self) -> u64 {
        self.contents().deleted
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        let mut contents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        contents.settle(kernel::now());
        contents
    }

    /// A request of the running process, from being sent to being answered.
    async fn request(&self, change: Option<Change>) -> Result<()> {
        let Some(host) = with(|kernel| kernel.living()) else {
            return std::future::pending().await;
        };
        let manners = self.contents().manners.clone();
        let (there, back, is_refused, is_lost) = with(|kernel| {
            let chance = &mut kernel.chance;
            let (least, most) = manners.latency;
            (
                chance.between(least, most),
                chance.between(least, most) + 2 * MILLISECOND,
                chance.permille(manners.refused_permille),
                chance.permille(manners.lost_answers_permille),
            )
        });
        if manners.unreachable.contains(&host) {
            sleep(1000 * MILLISECOND).await;
            return Err(failed("the store cannot be reached"));
        }
        if is_refused {
            sleep(there).await;
            count("store: a request was refused");
            return Err(failed("503 Slow Down"));
        }
        let changes = change.is_some();
        let at = change.map(|change| {
            let mut contents = self.contents();
            contents.serial += 1;
            let at = (kernel::now() + there, contents.serial);
            contents.coming.insert(at, change);
            at
        });
        sleep(there + back).await;
        if let Some(at) = at {
            // Its own clock may run fast.
            let mut contents = self.contents();
            if let Some(change) = contents.coming.remove(&at) {
                contents.carry_out(change);
            }
        }
        if changes && is_lost {
            count("store: an answer was lost");
            return Err(failed("the connection was reset"));
        }
        Ok(())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the time of a request passes for whoever sends it"
)]
async fn sleep(ns: u64) {
    tokio::time::sleep(Duration::from_nanos(ns)).await;
}

fn meta(path: &Path, bytes: &Bytes) -> ObjectMeta {
    ObjectMeta {
        location: path.clone(),
        last_modified: Default::default(),
        size: bytes.len() as u64,
        e_tag: None,
        version: None,
    }
}

#[async_trait]
impl ObjectStore for Store {
    async fn put_opts(&self, path: &Path, payload: PutPayload, _: PutOptions) -> Result<PutResult> {
        let change = Change::Put(path.clone(), payload.into());
        self.request(Some(change)).await?;
        Ok(PutResult {
            e_tag: None,
            version: None,
        })
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(failed("no file of a simulation is so large"))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.request(None).await?;
        let bytes = self.contents().objects.get(path).cloned();
        let bytes = bytes.ok_or_else(|| Error::NotFound {
            path: path.to_string(),
            source: "there is no such object".into(),
        })?;
        let meta = meta(path, &bytes);
        let whole: Range<u64> = 0..meta.size;
        let range = match options.range {
            None => whole,
            Some(GetRange::Bounded(range)) => range.start.min(meta.size)..range.end.min(meta.size),
            Some(GetRange::Offset(offset)) => offset.min(meta.size)..meta.size,
            Some(GetRange::Suffix(length)) => meta.size.saturating_sub(length)..meta.size,
        };
        let part = bytes.slice(range.start as usize..range.end as usize);
        let payload = stream::once(async { Ok(part) }).boxed();
        Ok(GetResult {
            payload: GetResultPayload::Stream(payload),
            meta,
            range,
            attributes: Default::default(),
        })
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |path: Result<Path>| {
            let store = store.clone();
            async move {
                let path = path?;
                store.request(Some(Change::Delete(path.clone()))).await?;
                Ok(path)
            }
        };
        paths.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned().unwrap_or_default());
        let listed = async move {
            let found = store.request(None).await.map(|()| {
                let contents = store.contents();
                let objects = contents.objects.iter();
                let below = objects.filter(|(path, _)| {
                    let mut rest = path.prefix_match(&prefix).into_iter().flatten();
                    rest.next().is_some()
                });
                below.map(|(path, bytes)| Ok(meta(path, bytes))).collect()
            });
            let found: Vec<Result<ObjectMeta>> = found.unwrap_or_else(|error| vec![Err(error)]);
            stream::iter(found)
        };
        stream::once(listed).flatten().boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(Error::NotImplemented {
            operation: "list_with_delimiter".to_owned(),
            implementer: "the simulation".to_owned(),
        })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented {
            operation: "copy_opts".to_owned(),
            implementer: "the simulation".to_owned(),
        })
    }
}
