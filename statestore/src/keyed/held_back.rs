//! Changes that are held back while a snapshot's files are being linked.
//!
//! A snapshot seals the databases' memtables and no more. Until they are flushed and linked, nothing may be written to the
//! databases, or it would be in the snapshot; so changes wait here, where reads find them first. The task stands still
//! only if it changes more meanwhile than may wait.

use std::sync::Arc;

use super::changes::Changes;
use crate::rocks::Batch;
use crate::snapshot::Linking;

/// The changes since a snapshot was taken, and what they wait for.
#[derive(Debug)]
pub(super) struct HeldBack {
    linking: Arc<Linking>,
    pub(super) changes: Changes,
}

impl HeldBack {
    /// Until `linking` is over.
    pub(super) fn until(linking: Arc<Linking>) -> Self {
        let changes = Changes::default();
        Self { linking, changes }
    }

    /// Whether there is nothing to wait for any more.
    pub(super) fn is_over(&self) -> bool {
        self.linking.is_over()
    }

    /// Sees to it that there is nothing to wait for, and gives what is to be written now, in this order: what the snapshot
    /// was to write and did not, and what was held back.
    pub(super) fn release(self) -> [Batch; 2] {
        self.linking.run();
        [self.linking.unwritten(), self.changes.to_batch()]
    }
}
