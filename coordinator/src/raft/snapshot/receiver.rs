//! Snapshots that other members send.
//!
//! One at a time, straight to a file. When the connection breaks, what has arrived stays, and the sender goes on from
//! there: a large snapshot comes over a bad line in the end. The whole is checked before it is used; if what was put
//! together from two attempts does not pass, it is thrown away and the next attempt begins at the beginning.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use flott_proto::wire;
use tokio::sync::Mutex;
use tonic::{Status, Streaming};
use tracing::{info, warn};

use super::super::state_machine::blocking;
use super::{Incoming, SnapshotFile, SnapshotStore};

/// For a leader to send the next chunk.
const CHUNK_WAIT: Duration = Duration::from_secs(30);

/// Receives for one node.
#[derive(Debug)]
pub(crate) struct SnapshotReceiver {
    store: Arc<SnapshotStore>,
    /// Taken while something is received: one at a time bounds the disk space.
    partial: Mutex<Option<Partial>>,
}

/// What has arrived of a snapshot.
#[derive(Debug)]
struct Partial {
    last_log_id: Option<wire::RaftLogId>,
    total_bytes: u64,
    received: u64,
    incoming: Incoming,
}

impl Partial {
    fn is_of(&self, last_log_id: Option<&wire::RaftLogId>, total_bytes: u64) -> bool {
        self.last_log_id.as_ref() == last_log_id && self.total_bytes == total_bytes
    }
}

impl SnapshotReceiver {
    pub(crate) fn new(store: Arc<SnapshotStore>) -> Self {
        Self {
            store,
            partial: Mutex::default(),
        }
    }

    /// How much of a snapshot has arrived in earlier attempts.
    pub(crate) fn offset(&self, of: &wire::RaftPrepareSnapshotRequest) -> u64 {
        // While one is being received nothing can be said; whoever sends it then is told to wait.
        let Ok(partial) = self.partial.try_lock() else {
            return 0;
        };
        let same = partial
            .as_ref()
            .filter(|partial| partial.is_of(of.last_log_id.as_ref(), of.total_bytes));
        same.map_or(0, |partial| partial.received)
    }

    /// The first message.
    pub(crate) async fn header(
        chunks: &mut Streaming<wire::RaftSnapshotChunk>,
    ) -> Result<wire::RaftSnapshotHeader, Status> {
        let first = next_chunk(chunks).await?;
        let header = first.and_then(|chunk| chunk.header);
        header.ok_or_else(|| Status::invalid_argument("snapshot without header"))
    }

    /// All that follows the header. The file is complete, durable and checked, and has a temporary name.
    pub(crate) async fn receive(
        &self,
        header: &wire::RaftSnapshotHeader,
        mut chunks: Streaming<wire::RaftSnapshotChunk>,
    ) -> Result<(wire::RaftSnapshotMeta, SnapshotFile), Status> {
        let Ok(mut slot) = self.partial.try_lock() else {
            return Err(Status::resource_exhausted(
                "another snapshot is being received",
            ));
        };
        let mut partial = self.begin(slot.take(), header).await?;
        info!(
            bytes = header.total_bytes,
            from = header.offset,
            "receiving raft snapshot"
        );
        if let Err(broken) = fill(&mut partial, &mut chunks).await {
            let goes_on = partial.received < partial.total_bytes;
            *slot = goes_on.then_some(partial);
            return Err(broken);
        }
        let incoming = partial.incoming;
        blocking(move || incoming.finish().map_err(std::io::Error::other))
            .await
            .map_err(disk)
    }

    /// Goes on with what is there, or begins anew.
    async fn begin(
        &self,
        partial: Option<Partial>,
        header: &wire::RaftSnapshotHeader,
    ) -> Result<Partial, Status> {
        if header.offset > 0 {
            let last_log_id = header.last_log_id.as_ref();
            let same = partial.filter(|partial| {
                partial.is_of(last_log_id, header.total_bytes) && partial.received == header.offset
            });
            return same.ok_or_else(|| {
                Status::aborted("what has arrived of this snapshot is not here any more")
            });
        }
        drop(partial);
        let store = Arc::clone(&self.store);
        let incoming = blocking(move || store.begin()).await.map_err(disk)?;
        Ok(Partial {
            last_log_id: header.last_log_id,
            total_bytes: header.total_bytes,
            received: 0,
            incoming,
        })
    }
}

async fn fill(
    partial: &mut Partial,
    chunks: &mut Streaming<wire::RaftSnapshotChunk>,
) -> Result<(), Status> {
    while let Some(chunk) = next_chunk(chunks).await? {
        let received = partial.received + chunk.data.len() as u64;
        if received > partial.total_bytes {
            partial.received = partial.total_bytes;
            return Err(Status::invalid_argument(
                "snapshot is longer than announced",
            ));
        }
        // A chunk is small and goes to the page cache.
        if let Err(error) = partial.incoming.write_all(&chunk.data) {
            // How much of it was written is not known.
            partial.received = partial.total_bytes;
            return Err(disk(error));
        }
        partial.received = received;
    }
    if partial.received == partial.total_bytes {
        Ok(())
    } else {
        Err(Status::aborted("snapshot is shorter than announced"))
    }
}

async fn next_chunk(
    chunks: &mut Streaming<wire::RaftSnapshotChunk>,
) -> Result<Option<wire::RaftSnapshotChunk>, Status> {
    let waited = tokio::time::timeout(CHUNK_WAIT, chunks.message()).await;
    waited.map_err(|_| Status::deadline_exceeded("the next snapshot chunk did not come"))?
}

fn disk(error: std::io::Error) -> Status {
    warn!(%error, "cannot receive raft snapshot");
    Status::aborted(format!("cannot receive snapshot: {error}"))
}
