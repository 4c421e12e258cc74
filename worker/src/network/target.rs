//! The sending end of one channel: its elements go out as there is credit, and wait here in order while there is none.
//!
//! A task does not take new input while something waits here, so that is what one step of the task gave; it can still take
//! a snapshot then, and the barrier of an unaligned checkpoint goes out ahead of it. Control elements keep their place
//! behind what waits.

use std::sync::Arc;

use super::credit::Cost;
use super::gate::{CHANNEL_CREDIT, InputGate};
use super::outbound::Outbound;
use super::queue::ElementQueue;
use super::{Barrier, Element};
use crate::Error;
use crate::task::mailbox::Mailbox;
use crate::task::run::WAIT_MAX;

/// What may wait in one target, beyond a single batch that is larger. A step that gives more (a window that closes over
/// many keys) waits for credit in the middle, and takes no snapshot before it is through.
const WAITING_MAX: Cost = CHANNEL_CREDIT;

/// The way into one channel.
#[derive(Clone, Debug)]
pub enum ChannelSender {
    /// To a task of this process: by reference.
    Local {
        gate: Arc<InputGate>,
        channel: usize,
    },
    /// Over a connection.
    Remote {
        outbound: Arc<Outbound>,
        channel: u32,
    },
}

impl ChannelSender {
    fn try_send(&self, element: Element, cost: Cost, sender: &Arc<Mailbox>) -> Result<(), Element> {
        match self {
            Self::Local { gate, channel } => gate.try_push(*channel, element, cost, sender),
            Self::Remote { outbound, channel } => outbound.try_push(*channel, element, cost),
        }
    }
}

/// The sending end of one channel.
#[derive(Debug)]
pub(super) struct Target {
    /// The receiving subtask.
    pub(super) subtask: u32,
    sender: ChannelSender,
    waiting: ElementQueue,
    /// Of what waits.
    cost: Cost,
}

impl Target {
    pub(super) fn new(subtask: u32, sender: ChannelSender) -> Self {
        Self {
            subtask,
            sender,
            waiting: ElementQueue::default(),
            cost: Cost::default(),
        }
    }

    /// Sends behind what waits, or lets it wait too. Waits for credit only where too much waits already.
    pub(super) fn send(
        &mut self,
        mut element: Element,
        sender: &Arc<Mailbox>,
    ) -> Result<(), Error> {
        let cost = element.cost();
        loop {
            if self.flush(sender) {
                match self.sender.try_send(element, cost, sender) {
                    Ok(()) => return Ok(()),
                    Err(refused) => element = refused,
                }
            }
            if cost.fits(self.cost, WAITING_MAX) || cost == Cost::default() || never_waits() {
                self.hold(element, cost);
                return Ok(());
            }
            sender.check()?;
            sender.wait(WAIT_MAX);
        }
    }

    /// Lets an element of a restored checkpoint wait, however many there are.
    pub(super) fn restore(&mut self, element: Element) {
        let cost = element.cost();
        self.hold(element, cost);
    }

    fn hold(&mut self, element: Element, cost: Cost) {
        self.cost += cost;
        self.waiting.push(element, cost);
    }

    /// Sends what there is credit for; whether nothing waits any more. Where something does the task is woken once there
    /// is credit.
    pub(super) fn flush(&mut self, sender: &Arc<Mailbox>) -> bool {
        while let Some((element, cost)) = self.waiting.pop() {
            if let Err(refused) = self.sender.try_send(element, cost, sender) {
                self.waiting.put_back(refused, cost);
                return false;
            }
            self.cost -= cost;
        }
        true
    }

    /// Sends a barrier ahead of all that waits, and gives a copy of that.
    pub(super) fn overtake(&self, barrier: Barrier, sender: &Arc<Mailbox>) -> Vec<Element> {
        // It needs no credit. Only a task that has ended takes nothing any more, and then this one is about to.
        drop(
            self.sender
                .try_send(Element::Barrier(barrier), Cost::default(), sender),
        );
        #[cfg(test)]
        if FORGETS_WHAT_IS_OVERTAKEN.get() {
            return Vec::new();
        }
        let waiting = self.waiting.elements();
        waiting
            .filter(|element| element.is_stored())
            .cloned()
            .collect()
    }
}

/// A simulated task has no thread that could wait in the middle of a step.
fn never_waits() -> bool {
    #[cfg(feature = "simulation")]
    return flott_node::simulation::is_on();
    #[cfg(not(feature = "simulation"))]
    false
}

#[cfg(test)]
thread_local! {
    /// A planted bug, for `barrier/model.rs`, which must find it: a barrier overtakes, and nothing is stored.
    pub(crate) static FORGETS_WHAT_IS_OVERTAKEN: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}
