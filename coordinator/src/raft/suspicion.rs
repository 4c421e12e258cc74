//! Notices at once that the leader's process has died.
//!
//! A process that dies breaks its connections, long before its silence says anything. The others have promised it not to
//! elect another one before their lease is over; so that is when they do, rather than a random time later. The vote is
//! asked for before it is taken (pre-vote), so a suspicion that is wrong disturbs nobody.

use std::sync::Weak;
use std::time::Duration;

use flott_node::SharedClock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::error::RaftError;
use super::members::fatal;
use super::node::Inner;

/// Between two candidacies. Also the time that each member lets the one before it have: two that stand at once may split
/// the votes.
const STAGGER: Duration = Duration::from_millis(30);

/// Candidacies before it is left to openraft's own time-outs.
const CANDIDACIES_MAX: u32 = 8;

/// Who was last seen to break its connection, and how often any has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Broken {
    node: u64,
    count: u64,
}

/// Where broken connections are reported.
#[derive(Clone, Debug, Default)]
pub(super) struct Suspicion(watch::Sender<Broken>);

/// A stream from another member. Dropped without [`Self::ended`], it is taken to be broken.
#[derive(Debug)]
pub(super) struct Watched {
    suspicion: Suspicion,
    node: u64,
    ended: bool,
}

impl Suspicion {
    pub(super) fn watch(&self, node: u64) -> Watched {
        Watched {
            suspicion: self.clone(),
            node,
            ended: false,
        }
    }
}

impl Watched {
    /// The other side has ended it as streams are ended.
    pub(super) fn ended(&mut self) {
        self.ended = true;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.ended {
            self.suspicion.0.send_modify(|broken| {
                broken.node = self.node;
                broken.count += 1;
            });
        }
    }
}

/// Runs until the node ends.
pub(super) async fn run(
    inner: Weak<Inner>,
    suspicion: Suspicion,
    clock: SharedClock,
    ending: CancellationToken,
) -> Result<(), RaftError> {
    let mut broken = suspicion.0.subscribe();
    // The node holds the other end.
    drop(suspicion);
    loop {
        tokio::select! { biased;
            () = ending.cancelled() => return Ok(()),
            changed = broken.changed() => if changed.is_err() { return Ok(()) },
        }
        let suspect = broken.borrow_and_update().node;
        let standing = stand_against(&inner, suspect, &clock);
        tokio::select! { biased;
            () = ending.cancelled() => return Ok(()),
            stood = standing => stood?,
        }
    }
}

/// Stands for election once the lease of `suspect` is over, unless it turns out to live or somebody else is elected.
async fn stand_against(
    inner: &Weak<Inner>,
    suspect: u64,
    clock: &SharedClock,
) -> Result<(), RaftError> {
    let first = inner.upgrade().and_then(|inner| {
        let due = inner.timing.lease() + STAGGER * inner.turn_after(suspect)?;
        Some(due.saturating_sub(inner.freshness.silence()))
    });
    let Some(mut wait) = first else {
        return Ok(());
    };
    for candidacy in 1..=CANDIDACIES_MAX {
        clock.sleep(wait).await;
        wait = STAGGER;
        let Some(inner) = inner.upgrade() else {
            return Ok(());
        };
        let leader = inner.leadership.borrow().leader.clone();
        let silence = inner.freshness.silence();
        // It speaks: only a connection broke.
        let speaks = silence < inner.timing.lease() / 2;
        if speaks || leader.is_none_or(|(leader, _)| leader.0 != suspect) || !inner.rpc.may_stand()
        {
            return Ok(());
        }
        debug!(
            suspect,
            ?silence,
            candidacy,
            "the leader's connection broke; standing for election"
        );
        let triggered = inner.raft.trigger().elect(true).await;
        triggered.map_err(fatal)?;
    }
    Ok(())
}

impl Inner {
    /// How many voters come before this node when `suspect` is to be succeeded; none if this node has no vote.
    fn turn_after(&self, suspect: u64) -> Option<u32> {
        let membership = self.membership();
        let mut voters = membership.voter_ids().filter(|id| *id != suspect);
        let turn = voters.position(|id| id == self.identity.node)?;
        u32::try_from(turn).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stream_that_did_not_end_as_streams_do_is_broken() {
        let suspicion = Suspicion::default();
        let broken = suspicion.0.subscribe();
        let mut watched = suspicion.watch(1);
        watched.ended();
        drop(watched);
        assert!(!broken.has_changed().unwrap());
        drop(suspicion.watch(2));
        assert_eq!(*broken.borrow(), Broken { node: 2, count: 1 });
        drop(suspicion.watch(2));
        assert_eq!(broken.borrow().count, 2, "each break is told");
    }
}
