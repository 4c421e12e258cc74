//! Uploads a file to S3 in parts, each of which is tried again by itself.
//!
//! An upload that fails or is dropped is aborted, so that no parts stay behind, which nobody sees and everybody pays
//! for. What an abort cannot reach (the machine dies) is left to a lifecycle rule of the bucket; so is an upload whose
//! beginning was carried out without an answer, which is empty.

use std::path::Path as LocalPath;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::MultipartId;
use object_store::aws::AmazonS3;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use tracing::debug;

use super::{Error, ObjectStorage, parts, read_part, retried, upload_memory};
use crate::{OnFailure, Tasks};

/// Parts of one file in flight: enough to fill a line, few enough to leave some of the upload memory to other files.
const PARTS_IN_FLIGHT_MAX: usize = 4;

impl ObjectStorage {
    pub(super) async fn put_parts(
        &self,
        s3: &Arc<AmazonS3>,
        path: &str,
        local: &LocalPath,
        size: u64,
    ) -> Result<(), Error> {
        let at = &self.resolve(path)?;
        let id = self.request(path, || s3.create_multipart(at)).await?;
        let mut unfinished = Unfinished {
            s3: Arc::clone(s3),
            at: at.clone(),
            id: Some(id.clone()),
            deadline: self.request_timeout,
        };
        let id = &id;
        let parts = (0..parts(size)).map(|number| async move {
            let _memory = upload_memory().await;
            let part = read_part(local, number, size).await?;
            let put = || s3.put_part(at, id, number as usize, part.clone().into());
            self.request(path, put).await
        });
        // Collected first: a stream over a borrowing iterator is not `Send` enough for a spawned task.
        let parts: Vec<_> = parts.collect();
        let parts: Vec<PartId> = stream::iter(parts)
            .buffered(PARTS_IN_FLIGHT_MAX)
            .try_collect()
            .await?;
        let complete = || async {
            let completed = s3.complete_multipart(at, id, parts.clone());
            match self.within_deadline(path, completed).await {
                // The upload is not known any more: an earlier try was carried out, and only its answer was lost …
                Err(Error::NotFound { .. }) if self.size(path).await? == Some(size) => Ok(()),
                // … or it is being carried out.
                Err(Error::NotFound { path }) => Err(Error::Unavailable {
                    path,
                    source: object_store::Error::Generic {
                        store: "S3",
                        source: "the upload is not known any more".into(),
                    },
                }),
                completed => completed.map(drop),
            }
        };
        retried(complete).await?;
        unfinished.id = None;
        Ok(())
    }
}

/// Aborts its upload when it is dropped while there is an `id`.
struct Unfinished {
    s3: Arc<AmazonS3>,
    at: Path,
    id: Option<MultipartId>,
    deadline: Duration,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let (Some(id), Ok(_runtime)) = (self.id.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let (s3, at, deadline) = (Arc::clone(&self.s3), self.at.clone(), self.deadline);
        // Best effort, and nobody is left who could wait for it.
        Tasks::default().spawn("abort of an upload", OnFailure::Log, async move {
            let aborted = tokio::time::timeout(deadline, s3.abort_multipart(&at, &id)).await;
            debug!(%at, ?aborted, "upload given up");
            Ok::<_, Error>(())
        });
    }
}
