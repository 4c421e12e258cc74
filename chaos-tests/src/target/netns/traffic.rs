//! Carries frames between TAP devices as [`Switch`] says: the only place of this network that reads, writes and waits.
//!
//! One task owns the switch and the devices' writing ends; each device has a task that reads it into the mailbox. If the
//! mailbox is full, the interface's own queue fills, and then it loses frames, as before a busy switch.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use flott_node::{OnFailure, SharedClock, Tasks};
use tokio::sync::{mpsc, watch};

use super::switch::{Switch, Tally};
use super::tap::{FRAME_BYTES_MAX, Tap};
use crate::target::rules::{Book, End};

/// Frames that were read and not yet looked at: a few milliseconds of a busy network.
pub const MAILBOX_FRAMES: usize = 1_024;

/// What comes into the mailbox.
#[derive(Debug)]
pub enum Event {
    /// A machine with that number is there from now on.
    Joined(End, u8, Arc<Tap>),
    /// It sends this.
    Arrived(End, Vec<u8>),
}

/// What the task that owns the switch needs.
#[derive(Debug)]
pub struct Traffic {
    /// Decides.
    pub switch: Switch,
    /// The mailbox.
    pub events: mpsc::Receiver<Event>,
    /// What is done to frames.
    pub rules: watch::Receiver<Book>,
    /// Where it tells what was done.
    pub tally: watch::Sender<Tally>,
    /// Says when frames are due.
    pub clock: SharedClock,
}

impl Traffic {
    /// Carries frames until the tasks are to end.
    pub async fn run(mut self, tasks: Tasks) -> Result<(), Infallible> {
        let mut taps: BTreeMap<End, Arc<Tap>> = BTreeMap::new();
        loop {
            let due = self.switch.next_due();
            tokio::select! { biased;
                () = tasks.cancellation().cancelled() => return Ok(()),
                Some(event) = self.events.recv() => match event {
                    Event::Joined(end, host, tap) => {
                        self.switch.join(end, host);
                        taps.insert(end, tap);
                    }
                    Event::Arrived(from, frame) => {
                        let now = self.clock.monotonic();
                        self.switch.arrive(from, frame, &self.rules.borrow(), now);
                    }
                },
                () = until(due, &self.clock) => {}
            }
            while let Some((to, frame)) = self.switch.depart(self.clock.monotonic()) {
                if let Some(tap) = taps.get(&to) {
                    tap.send(&frame);
                }
            }
            self.tally.send_replace(self.switch.tally());
        }
    }
}

/// Until then; for ever if there is nothing to wait for.
async fn until(due: Option<Duration>, clock: &SharedClock) {
    match due {
        Some(due) => clock.sleep(due.saturating_sub(clock.monotonic())).await,
        None => std::future::pending().await,
    }
}

/// Reads what a machine sends, until it is gone or the tasks are to end.
pub fn listen(tasks: &Tasks, end: End, tap: Arc<Tap>, events: mpsc::Sender<Event>) {
    let cancel = tasks.cancellation().clone();
    tasks.spawn("switch port", OnFailure::Log, async move {
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        loop {
            let read = tokio::select! { biased;
                () = cancel.cancelled() => return Ok::<_, Infallible>(()),
                read = tap.receive(&mut buffer) => read,
            };
            // The interface is gone, or so is the switch.
            let Ok(bytes @ 1..) = read else { return Ok(()) };
            let frame = buffer[..bytes].to_vec();
            if events.send(Event::Arrived(end, frame)).await.is_err() {
                return Ok(());
            }
        }
    });
}
