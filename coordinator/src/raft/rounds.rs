//! What a node does again and again for as long as it lives.

use std::sync::{Arc, Weak};
use std::time::Duration;

use flott_node::SharedClock;
use tokio_util::sync::CancellationToken;

use super::node::Inner;

/// Lets a background task look at its node at a pace, without keeping it alive in between.
#[derive(Debug)]
pub(super) struct Rounds {
    inner: Weak<Inner>,
    clock: SharedClock,
    ending: CancellationToken,
}

impl Rounds {
    pub(super) fn new(inner: &Arc<Inner>, ending: &CancellationToken) -> Self {
        Self {
            inner: Arc::downgrade(inner),
            clock: inner.clock.clone(),
            ending: ending.clone(),
        }
    }

    /// The node, after a pause; none once it ends.
    pub(super) async fn next(&self, pause: Duration) -> Option<Arc<Inner>> {
        tokio::select! { biased;
            () = self.ending.cancelled() => None,
            () = self.clock.sleep(pause) => self.inner.upgrade(),
        }
    }
}
