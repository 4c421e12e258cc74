//! Which processes have ended by themselves, and which of them may.
//!
//! ```text
//! no reason to end ──excuse──▶ may end ──end_excuse──▶ may end for GRACE ──▶ no reason to end
//! ```
//!
//! A JobManager that cannot write its log ends, as it should: it must not promise what it cannot keep. So whoever breaks a
//! disk excuses its process first. One that has ended so is started again as soon as no such fault is under way. Any other
//! process that ends although nobody here ended it is an error, and so is one that a signal ended.

use std::time::Duration;

use anyhow::bail;

use super::{Local, Place, Running};
use crate::target::Node;

/// After the fault: what has seen its disk fail hands leadership over before it ends, or is starved.
const GRACE: Duration = Duration::from_secs(30);

/// Whether a process may end.
#[derive(Debug, Default)]
pub(super) struct Excuse {
    /// Faults under way that are reasons.
    reasons: u32,
    /// When the last of them ended.
    ended_at: Option<Duration>,
    /// How often it has ended so.
    ends: u32,
    /// It has ended so, and was not started since.
    is_down: bool,
}

impl Excuse {
    fn holds(&self, now: Duration) -> bool {
        let recently = |ended: Duration| now.saturating_sub(ended) < GRACE;
        self.reasons > 0 || self.ended_at.is_some_and(recently)
    }

    fn end(&mut self, now: Duration) {
        self.reasons = self.reasons.saturating_sub(1);
        self.ended_at = Some(now);
    }
}

impl Local {
    /// From now on it may end by itself, until [`Self::end_excuse`] was called as often.
    pub fn excuse(&self, node: Node) {
        self.with(node, |place| place.excuse.reasons += 1);
    }

    /// That reason to end is over.
    pub fn end_excuse(&self, node: Node) {
        let now = self.clock.monotonic();
        self.with(node, |place| place.excuse.end(now));
    }

    /// All reasons to end are over.
    pub(super) fn forgive(&self) {
        let now = self.clock.monotonic();
        for node in self.nodes() {
            // Whoever had no reason to end is for `check_alive` to find.
            let _ = self.notice(node);
            self.with(node, |place| {
                if place.excuse.reasons > 0 {
                    place.excuse.reasons = 0;
                    place.excuse.ended_at = Some(now);
                }
            });
        }
    }

    /// How often it has ended by itself and might.
    pub fn ends(&self, node: Node) -> u32 {
        self.with(node, |place| place.excuse.ends).unwrap_or(0)
    }

    /// Fails if a process has ended that nobody here ended and that had no reason to. One that had is started again, if the
    /// reason is over.
    pub fn check_alive(&self) -> anyhow::Result<()> {
        for node in self.nodes() {
            self.notice(node)?;
            let is_due = |place: &mut Place| {
                let excuse = &mut place.excuse;
                let is_due = excuse.is_down && excuse.reasons == 0;
                excuse.is_down &= !is_due;
                is_due && place.running.is_none()
            };
            if self.with(node, is_due) == Some(true) {
                self.start_process(node)?;
            }
        }
        Ok(())
    }

    /// Takes the handle of a running process; an error if it has ended by itself without a reason.
    pub(super) fn take(&self, node: Node) -> anyhow::Result<Option<Running>> {
        self.notice(node)?;
        Ok(self.with(node, |place| place.running.take()).flatten())
    }

    /// Notices if it has ended by itself; an error if it had no reason to.
    fn notice(&self, node: Node) -> anyhow::Result<()> {
        let now = self.clock.monotonic();
        let look = |place: &mut Place| {
            let ended = match &mut place.running {
                Some(running) => running.child.try_wait()?,
                None => None,
            };
            let Some(status) = ended else {
                return Ok(None);
            };
            if !place.excuse.holds(now) || status.code().is_none() {
                return Ok(Some(status));
            }
            place.running = None;
            place.excuse.ends += 1;
            place.excuse.is_down = true;
            std::io::Result::Ok(None)
        };
        match self.with(node, look).transpose()?.flatten() {
            Some(status) => bail!("{node} ended by itself with {status}:\n{}", self.tail(node)),
            None => Ok(()),
        }
    }

    fn with<T>(&self, node: Node, what: impl FnOnce(&mut Place) -> T) -> Option<T> {
        let mut places = self.places(node);
        let place = places.iter_mut().find(|place| place.node == node);
        place.map(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_reason_may_end_and_for_some_time_afterwards() {
        let at = Duration::from_secs;
        let mut excuse = Excuse::default();
        assert!(!excuse.holds(at(1)));
        excuse.reasons = 2;
        excuse.end(at(10));
        assert!(excuse.holds(at(1_000)), "another fault is under way");
        excuse.end(at(1_000));
        assert!(excuse.holds(at(1_029)));
        assert!(!excuse.holds(at(1_030)));
        excuse.end(at(2_000));
        assert_eq!(excuse.reasons, 0);
    }
}
