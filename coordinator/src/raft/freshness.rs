//! How old this member's state may be.
//!
//! With every message the leader says how far the group's decisions are. Once this member has applied that much, its state
//! lacked nothing at the moment when the message came (as of when it was sent: the network's delay is not known).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use flott_node::SharedClock;
use tokio::sync::watch;

#[derive(Debug, Default)]
struct Heard {
    /// What the last message said, and when it came.
    commit: u64,
    at: Duration,
    /// When the state last lacked nothing.
    fresh_at: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct Freshness {
    clock: SharedClock,
    applied: watch::Receiver<u64>,
    heard: Mutex<Heard>,
}

impl Freshness {
    pub(crate) fn new(clock: SharedClock, applied: watch::Receiver<u64>) -> Self {
        let heard = Heard {
            at: clock.monotonic(),
            ..Heard::default()
        };
        Self {
            clock,
            applied,
            heard: Mutex::new(heard),
        }
    }

    /// For how long no leader has said anything; since the start at most.
    pub(crate) fn silence(&self) -> Duration {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        self.clock.monotonic().saturating_sub(heard.at)
    }

    /// The leader says that the group has decided up to `commit`.
    pub(crate) fn on_heard(&self, commit: u64) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        self.settle(&mut heard);
        heard.commit = commit;
        heard.at = self.clock.monotonic();
    }

    /// Since when the state may lack something.
    pub(crate) fn age(&self) -> Option<Duration> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        self.settle(&mut heard);
        let fresh_at = heard.fresh_at?;
        Some(self.clock.monotonic().saturating_sub(fresh_at))
    }

    fn settle(&self, heard: &mut Heard) {
        if heard.commit != 0 && *self.applied.borrow() >= heard.commit {
            heard.fresh_at = Some(heard.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use flott_node::clock::ManualClock;

    use super::*;

    #[test]
    fn a_state_is_as_old_as_the_last_message_that_it_has_caught_up_with() {
        let clock = Arc::new(ManualClock::new(0));
        let (applied, receiver) = watch::channel(0);
        let freshness = Freshness::new(Arc::<ManualClock>::clone(&clock), receiver);
        assert_eq!(freshness.age(), None);
        freshness.on_heard(10);
        clock.advance(Duration::from_secs(1));
        assert_eq!(freshness.age(), None, "it has not caught up");
        applied.send_replace(10);
        assert_eq!(freshness.age(), Some(Duration::from_secs(1)));
        freshness.on_heard(20);
        clock.advance(Duration::from_secs(2));
        assert_eq!(
            freshness.age(),
            Some(Duration::from_secs(3)),
            "of the message before"
        );
        applied.send_replace(25);
        assert_eq!(freshness.age(), Some(Duration::from_secs(2)));
    }
}
