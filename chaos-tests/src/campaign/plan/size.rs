//! A cluster that others have made is as large as it is, and set as it is.

use super::Knobs;

/// How large a cluster is that others have made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    #[expect(missing_docs, reason = "how many")]
    pub jobmanagers: u32,
    #[expect(missing_docs, reason = "how many")]
    pub taskmanagers: u32,
    /// Of each TaskManager.
    pub slots: u32,
}

impl Size {
    /// The knobs that are not ours to turn.
    pub(super) fn fix(self, knobs: &mut Knobs) {
        knobs.jobmanagers = self.jobmanagers;
        knobs.taskmanagers = self.taskmanagers;
        knobs.slots = self.slots;
        knobs.parallelism = knobs.parallelism.min(self.slots * self.taskmanagers);
        knobs.settings.clear();
    }
}
