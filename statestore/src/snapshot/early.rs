//! Tables that are uploaded before a checkpoint asks for them.
//!
//! What does not fit into memory is flushed between two checkpoints. The next one will have it, so it is uploaded at once: the
//! more is written, the more of it is up when the barrier comes.
//!
//! ```text
//! flushed ──▶ up ── a snapshot has it ────────────────────────▶ as any other, see `bases`
//!              ├─── merged before that, and that taken over ──▶ deleted
//!              └─── the attempt ends ─────────────────────────▶ deleted
//! ```
//!
//! What must stay true: what is deleted here was in no snapshot, so no ack has named it.

use std::pin::pin;
use std::sync::{Arc, Weak};

use futures::FutureExt;
use tokio::sync::Notify;
use tracing::debug;

use super::diff::FileKey;
use super::{SnapshotFile, SnapshotUploader};
use crate::keyed::tablets::Tablets;
use crate::rocks::is_immutable;

/// What a task has flushed and no snapshot has asked for.
#[derive(Debug)]
pub struct EarlyTables {
    tablets: Weak<Tablets>,
    /// There are more.
    news: Arc<Notify>,
}

impl EarlyTables {
    /// Those of `tablets`; `news` is told when there are more.
    pub(crate) fn of(tablets: &Arc<Tablets>, news: Arc<Notify>) -> Self {
        let tablets = Arc::downgrade(tablets);
        Self { tablets, news }
    }

    /// Those that there are; none once the task's state is closed.
    fn tables(&self) -> Vec<(FileKey, SnapshotFile)> {
        let tablets = self.tablets.upgrade();
        tablets.map_or_else(Vec::new, |tablets| tablets.early())
    }
}

impl SnapshotUploader {
    /// Uploads tables of `early` as they come, but none while a snapshot is uploaded, until there is an end to it: one that is
    /// on its way then still arrives. Dropping this instead may leave an orphan.
    pub async fn upload_early(&self, early: &EarlyTables, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        loop {
            tokio::select! { biased;
                () = &mut end => return,
                () = early.news.notified() => {}
            }
            self.delete_passed().await;
            for (key, file) in early.tables() {
                // A snapshot that is being uploaded has them, or is in more of a hurry.
                let Ok(_turn) = self.turn.try_write() else {
                    break;
                };
                self.upload_one_early(key, file).await;
                if end.as_mut().now_or_never().is_some() {
                    return;
                }
            }
        }
    }

    async fn upload_one_early(&self, key: FileKey, file: SnapshotFile) {
        debug_assert!(is_immutable(&key.local_name), "{key:?} is a table");
        if self.bases().is_up(&key) {
            return;
        }
        match self.upload_file(&key, &file, None).await {
            Ok(up) => {
                #[cfg(feature = "simulation")]
                flott_node::simulation::happened("a table was uploaded early");
                self.bases().on_uploaded_early(key, up);
            }
            // It may have been merged meanwhile. What is not up, the next checkpoint uploads.
            Err(error) => debug!(table = %key.local_name, %error, "not uploaded early"),
        }
    }

    /// The attempt ends: deletes what was uploaded early and is in no snapshot. What cannot be deleted is an orphan.
    pub async fn give_up_early(&self) {
        self.bases().on_end();
        self.delete_passed().await;
    }

    async fn delete_passed(&self) {
        let passed = self.bases().take_passed();
        for path in passed {
            if let Err(error) = self.storage.delete(&path).await {
                debug!(path, %error, "an orphan: it was uploaded early, and could not be deleted");
            }
        }
    }
}
