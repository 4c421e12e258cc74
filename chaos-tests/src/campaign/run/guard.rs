//! Who cleans up behind a run: the journal of what is to be undone, and the watchdog that reads it.

use std::path::Path;
use std::sync::Arc;

use flott_node::SharedClock;
use tokio::process::{Child, ChildStdin};

use crate::campaign::undo::Journal;
use crate::campaign::watchdog;

/// Both, while a run goes on.
pub(super) struct Guard {
    pub(super) journal: Arc<Journal>,
    watchdog: Child,
    /// Its closing, whatever becomes of this process, has the watchdog undo everything.
    lifeline: ChildStdin,
}

impl Guard {
    /// From now on whatever stands in the journal is undone.
    pub(super) fn post(directory: &Path, clock: &SharedClock) -> anyhow::Result<Self> {
        let journal = Arc::new(Journal::create(directory, clock.clone())?);
        let (watchdog, lifeline) = watchdog::start(journal.path())?;
        Ok(Self {
            journal,
            watchdog,
            lifeline,
        })
    }

    /// Returns when everything is undone that can be.
    pub(super) async fn leave(mut self) -> anyhow::Result<()> {
        drop(self.lifeline);
        self.watchdog.wait().await?;
        Ok(())
    }
}
