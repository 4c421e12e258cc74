//! What is done to one process for some time, and may end it.

use std::time::Duration;

use super::fault::{Kind, Step};
use super::strike::Site;
use super::undo::Undo;
use crate::target::Node;

/// A fault at one process, from its line in the journal until it is undone.
pub(super) struct Held {
    pub(super) node: Node,
    may_end: bool,
    /// In the journal.
    id: u64,
    /// How often the process had ended by such faults before.
    ends: u32,
}

impl Held {
    /// Writes down how it is undone.
    pub(super) fn begin(step: &Step, site: &Site, node: Node, undo: Undo) -> anyhow::Result<Self> {
        let what = format!("{} ({node})", step.text());
        let lasts = Duration::from_millis(step.lasts_ms);
        Ok(Self {
            node,
            may_end: may_end(step.kind, node),
            id: site.journal.begin(&what, lasts, undo)?,
            ends: site.local.ends(node),
        })
    }

    /// From now on the process may end by it.
    pub(super) fn excuse(&self, site: &Site) {
        if self.may_end {
            site.local.excuse(self.node);
        }
    }

    /// It was undone, after [`Self::excuse`].
    pub(super) fn end(&self, site: &Site) -> anyhow::Result<()> {
        if self.may_end {
            site.local.end_excuse(self.node);
        }
        self.void(site)
    }

    /// It was not done at all.
    pub(super) fn void(&self, site: &Site) -> anyhow::Result<()> {
        site.journal.done(self.id)
    }

    /// Whether the process has ended since by what it may end by.
    pub(super) fn has_ended(&self, site: &Site) -> bool {
        site.local.ends(self.node) > self.ends
    }
}

/// Whether that process may end by it. Of a TaskManager only tasks fail.
fn may_end(kind: Kind, node: Node) -> bool {
    kind.may_end() && node.is_jobmanager()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_jobmanagers_may_end_and_only_by_what_they_cannot_write() {
        let [jobmanager, worker] = [Node::Jobmanager(1), Node::Taskmanager(1)];
        assert!(may_end(Kind::SyncError, jobmanager));
        assert!(!may_end(Kind::SyncError, worker));
        assert!(may_end(Kind::Memory, jobmanager));
        assert!(!may_end(Kind::DiskSlow, jobmanager));
        assert!(!may_end(Kind::ClockBack, jobmanager));
    }
}
