//! A snapshot for somebody who asks, with all that anybody was told before.
//!
//! It is one of the files that this member keeps anyway: made now if the newest one lacks something, read piece by piece, and
//! readable to its end even if it is replaced meanwhile.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tracing::info;

use super::codec::term_of;
use super::error::RaftError;
use super::node::{Inner, RaftNode};
use super::snapshot::SnapshotFile;
use super::state_machine::blocking;

/// For a snapshot to be written: state in memory, at the pace of a slow disk.
const SNAPSHOT_WAIT: Duration = Duration::from_secs(300);

/// Another snapshot may have been under way when this one was asked for, and lack the last entries; the one after it cannot.
const TRIES_MAX: u32 = 8;

/// A backup that is being read.
#[derive(Clone, Debug)]
pub(crate) struct BackupFile(SnapshotFile);

impl BackupFile {
    /// Bytes in all.
    pub(crate) fn length(&self) -> u64 {
        self.0.length()
    }

    /// Up to `length_max` bytes from `offset` on; empty at the end.
    pub(crate) async fn read_at(&self, offset: u64, length_max: usize) -> std::io::Result<Vec<u8>> {
        let file = self.0.clone();
        blocking(move || file.read_at(offset, length_max)).await
    }
}

impl RaftNode {
    /// A snapshot that has all that any member had told anybody before this call. Leader only.
    pub(crate) async fn backup(&self) -> Result<BackupFile, RaftError> {
        self.inner().backup().await
    }
}

impl Inner {
    async fn backup(&self) -> Result<BackupFile, RaftError> {
        if !self.leadership.borrow().is_leader {
            return Err(self.not_leader());
        }
        let index = self.read_index().await.ok_or(RaftError::TimedOut(
            "the confirmation by a quorum that this jobmanager leads",
        ))?;
        let covering = tokio::time::timeout(SNAPSHOT_WAIT, self.snapshot_covering(index)).await;
        covering.map_err(|_| RaftError::TimedOut("writing a snapshot"))?
    }

    async fn snapshot_covering(&self, index: u64) -> Result<BackupFile, RaftError> {
        let fatal = |error: &dyn std::fmt::Display| RaftError::Fatal(error.to_string());
        let mut applied = self.published.applied();
        let reached = applied.wait_for(|applied| *applied >= index).await;
        reached.map_err(|error| fatal(&error))?;
        let mut metrics = self.raft.metrics();
        for _ in 0..TRIES_MAX {
            let found = self.reporter.snapshots.current();
            let found = found.and_then(|(meta, file)| Some((meta.last_log_id?, file)));
            let present = found.as_ref().map(|(last, _)| *last);
            if let Some((last, file)) = found.filter(|(last, _)| last.index >= index) {
                info!(
                    term = term_of(&last),
                    index = last.index,
                    bytes = file.length(),
                    "backup begins"
                );
                return Ok(BackupFile(file));
            }
            self.raft
                .trigger()
                .snapshot()
                .await
                .map_err(|error| fatal(&error))?;
            while metrics.borrow_and_update().snapshot <= present {
                metrics.changed().await.map_err(|error| fatal(&error))?;
            }
        }
        Err(RaftError::TimedOut("a snapshot with the latest entries"))
    }
}
