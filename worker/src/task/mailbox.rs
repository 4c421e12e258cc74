//! How others reach a task's thread: control events, the order to end, and the latch on which the thread waits.
//!
//! A task's thread waits nowhere but on its latch: whatever it may be waiting for (input, room in a channel, a control
//! event, its end) sets the latch. So a task that is to end does so within milliseconds, wherever it stands.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flott_proto::ids::CheckpointId;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::network::Barrier;

/// What a task is told. The order to end is no such event: it overtakes all of them, see [`Mailbox::interrupt`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Source tasks emit this barrier; others have heard of the checkpoint.
    TriggerCheckpoint {
        barrier: Barrier,
        /// After this long without a snapshot the task need not align.
        unaligned_after: Option<Duration>,
    },
    /// What was prepared for it becomes visible.
    CheckpointCompleted(CheckpointId),
    /// It will never complete.
    CheckpointAborted(CheckpointId),
    /// The final checkpoint is committed everywhere: the task ends as FINISHED.
    Finish,
}

/// Events that a task has not yet taken. A task takes them between two batches, so more means that it hangs: at one
/// checkpoint a second this is half an hour's worth.
const CONTROL_EVENTS_MAX: usize = 4096;

/// One task's mailbox. Others post, the task's thread takes and waits.
#[derive(Debug, Default)]
pub struct Mailbox {
    latch: Mutex<bool>,
    changed: Condvar,
    events: Mutex<VecDeque<Control>>,
    /// Set once `cause` is, and read without a lock between any two batches.
    interrupted: AtomicBool,
    cause: Mutex<Option<Error>>,
    cancellation: CancellationToken,
    /// The latch of a simulated task, which has no thread.
    #[cfg(feature = "simulation")]
    woken: tokio::sync::Notify,
}

impl Mailbox {
    /// Delivers an event. A task that takes none any more is interrupted as failed.
    pub fn post(&self, event: Control) {
        let mut events = lock(&self.events);
        if events.len() < CONTROL_EVENTS_MAX {
            events.push_back(event);
            drop(events);
            self.wake();
        } else {
            drop(events);
            let what = format!("task has left {CONTROL_EVENTS_MAX} control events unanswered");
            self.interrupt(Error::Fatal(what));
        }
    }

    /// The oldest event.
    pub fn take(&self) -> Option<Control> {
        lock(&self.events).pop_front()
    }

    /// Tells the task to end with this error; the first cause holds. [`Error::Canceled`] is the orderly one.
    pub fn interrupt(&self, cause: Error) {
        lock(&self.cause).get_or_insert(cause);
        self.interrupted.store(true, Ordering::Release);
        self.cancellation.cancel();
        self.wake();
    }

    /// Fails if the task is to end: with the cause at the first call, then with [`Error::Canceled`].
    pub fn check(&self) -> Result<(), Error> {
        if !self.interrupted.load(Ordering::Acquire) {
            return Ok(());
        }
        let cause = lock(&self.cause).replace(Error::Canceled);
        Err(cause.unwrap_or(Error::Canceled))
    }

    /// Cancelled when the task is interrupted: for what it does asynchronously.
    pub fn cancellation(&self) -> &CancellationToken {
        &self.cancellation
    }

    /// Something that the task may be waiting for has happened.
    pub fn wake(&self) {
        *lock(&self.latch) = true;
        self.changed.notify_one();
        #[cfg(feature = "simulation")]
        self.woken.notify_one();
    }

    /// Waits until [`Self::wake`] was called since the last wait ended, or for `timeout`.
    pub fn wait(&self, timeout: Duration) {
        let latch = lock(&self.latch);
        let waited = self
            .changed
            .wait_timeout_while(latch, timeout, |woken| !*woken);
        let (mut latch, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *latch = false;
    }

    /// The same, of a simulated task.
    #[cfg(feature = "simulation")]
    pub(super) async fn wait_simulated(&self, timeout: Duration, clock: &flott_node::SharedClock) {
        tokio::select! {
            () = self.woken.notified() => (),
            () = clock.sleep(timeout) => (),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_wake_before_the_wait_is_not_lost() {
        let mailbox = Mailbox::default();
        mailbox.post(Control::Finish);
        mailbox.wait(LONG);
        assert_eq!(mailbox.take(), Some(Control::Finish));
        assert_eq!(mailbox.take(), None);
    }

    #[test]
    fn an_interrupt_ends_a_wait_and_its_first_cause_holds() {
        let mailbox = Arc::new(Mailbox::default());
        let waiter = Arc::clone(&mailbox);
        let thread = std::thread::Builder::new()
            .name("waiter".into())
            .spawn(move || {
                loop {
                    if let Err(error) = waiter.check() {
                        return error;
                    }
                    waiter.wait(LONG);
                }
            });
        mailbox.interrupt(Error::Panicked("first".into()));
        mailbox.interrupt(Error::Canceled);
        assert_eq!(
            thread.unwrap().join().unwrap().to_string(),
            "task panicked: first"
        );
        assert!(matches!(mailbox.check(), Err(Error::Canceled)));
        assert!(mailbox.cancellation().is_cancelled());
    }

    #[test]
    fn a_task_that_takes_no_events_is_failed_rather_than_flooded() {
        let mailbox = Mailbox::default();
        for _ in 0..=CONTROL_EVENTS_MAX {
            mailbox.post(Control::Finish);
        }
        assert!(mailbox.check().is_err());
    }
}
