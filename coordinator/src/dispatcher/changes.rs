//! What somebody waits for who waits for something to be decided.

use tokio::sync::watch;

/// Tells of entries that were applied, and of who is in office.
#[derive(Debug)]
pub(super) struct Changes<A, O> {
    applied: watch::Receiver<A>,
    office: watch::Receiver<O>,
}

impl<A, O> Changes<A, O> {
    /// From now on: who uses it looks at what there is before he waits.
    ///
    /// A clone of a receiver has seen as much as the one that it was made of: of what that has never looked at, it would
    /// tell at once.
    pub(super) fn from_now(mut applied: watch::Receiver<A>, office: &watch::Receiver<O>) -> Self {
        let mut office = office.clone();
        applied.mark_unchanged();
        office.mark_unchanged();
        Self { applied, office }
    }

    /// Waits for the next. Fails once there will be none.
    pub(super) async fn next(&mut self) -> Result<(), watch::error::RecvError> {
        tokio::select! {
            changed = self.applied.changed() => changed,
            changed = self.office.changed() => changed,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// Found by the simulation, whose time stood still: who waited for a savepoint looked on and on, since each look cloned
    /// a watch that told of the leader's taking office.
    #[test]
    fn what_was_before_wakes_nobody() {
        let (apply, applied) = watch::channel(0);
        let (take, office) = watch::channel(0);
        apply.send(1).unwrap();
        take.send(1).unwrap();
        let mut changes = Changes::from_now(applied, &office);
        assert!(changes.next().now_or_never().is_none());
        for change in [&apply, &take] {
            change.send(2).unwrap();
            assert!(matches!(changes.next().now_or_never(), Some(Ok(()))));
            assert!(changes.next().now_or_never().is_none());
        }
        drop((apply, take));
        assert!(matches!(changes.next().now_or_never(), Some(Err(_))));
    }
}
