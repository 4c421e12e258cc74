//! A job's files in checkpoint storage, checked and cleaned up because somebody asked for it. The leader does it: it can
//! reach the storage, and it knows what is needed.

use flott_node::storage::ObjectStorage;
use flott_proto::wire;
use tonic::{Response, Status};
use tracing::info;

use super::{Answer, Dispatcher};
use crate::checkpoint_files::{self, FilesError, check};
use crate::core::orphans::{Orphan, orphans};
use crate::leader::chain;
use crate::metrics;

/// Objects named in one answer: well below what a message may hold.
const NAMED_MAX: usize = 10_000;
/// Objects deleted between two looks at whether this process still leads.
const DELETE_BATCH: usize = 64;

impl Dispatcher {
    /// Reads everything that the job's retained checkpoints and savepoints need.
    pub(super) async fn verify(
        &self,
        request: wire::VerifyCheckpointsRequest,
    ) -> Answer<wire::VerifyCheckpointsResponse> {
        let job = self.job(&request.namespace, &request.job_id).await?;
        let checked = check::all(&job, request.contents).await;
        let mut verified = checked.map_err(|error| unreadable(&error))?;
        let now = self.job(&request.namespace, &request.job_id).await?;
        verified.forget_retired(&now.checkpoints);
        let damaged_count = verified.damaged.len() as u64;
        let damaged = verified.damaged.into_iter().take(NAMED_MAX);
        let damaged = damaged.map(|damaged| wire::DamagedFile {
            path: damaged.path,
            fault: damaged.fault.to_string(),
            checkpoint_ids: damaged.checkpoints.iter().map(|id| id.0).collect(),
        });
        Ok(Response::new(wire::VerifyCheckpointsResponse {
            checkpoints: verified.checkpoints as u64,
            files: verified.files as u64,
            bytes: verified.bytes,
            damaged: damaged.collect(),
            damaged_count,
        }))
    }

    /// Finds the orphans of a job, and deletes them if that is said.
    pub(super) async fn collect(
        &self,
        request: wire::CollectOrphansRequest,
    ) -> Answer<wire::CollectOrphansResponse> {
        let cluster = self.raft.cluster_id();
        let cluster = cluster.ok_or_else(|| Status::unavailable("there is no cluster yet"))?;
        let job = self.job(&request.namespace, &request.job_id).await?;
        // The state is read first: what is retired meanwhile was needed when it was listed.
        let state = self.state().await?;
        let objects = checkpoint_files::objects(&cluster, &job).await;
        let objects = objects.map_err(|error| unreadable(&error))?;
        let mut found = orphans(&state, &cluster, &job, objects);
        let count = found.len() as u64;
        let bytes = found.iter().map(|orphan| orphan.bytes).sum();
        found.truncate(NAMED_MAX);
        if request.delete {
            self.delete(&job.settings.checkpoint_dir, &found).await?;
            info!(job = %job.id, objects = found.len(), "orphans deleted");
        }
        let orphan = |orphan: Orphan| wire::Orphan {
            path: orphan.path,
            bytes: orphan.bytes,
            reason: orphan.why.to_string(),
        };
        Ok(Response::new(wire::CollectOrphansResponse {
            orphans: found.into_iter().map(orphan).collect(),
            count,
            bytes,
        }))
    }

    /// An orphan stays one, whoever leads: so this may be repeated, and may end half-way.
    async fn delete(&self, root: &str, found: &[Orphan]) -> Result<(), Status> {
        let unreadable = |error: flott_node::storage::Error| unreadable(&error.into());
        let storage = ObjectStorage::open_existing(root).map_err(unreadable)?;
        for batch in found.chunks(DELETE_BATCH) {
            self.state().await?;
            for orphan in batch {
                storage.delete(&orphan.path).await.map_err(unreadable)?;
            }
            metrics::orphans_deleted(batch.len());
        }
        Ok(())
    }
}

/// Asking again at once is of no use: the storage has been asked several times.
fn unreadable(error: &FilesError) -> Status {
    Status::aborted(format!(
        "the checkpoint storage does not answer as it should: {}",
        chain(error)
    ))
}
