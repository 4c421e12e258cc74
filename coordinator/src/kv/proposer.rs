//! From many small writes to few log entries.
//!
//! While entries are on their way, what arrives gathers, and the next entry takes all of it: entries grow by themselves
//! under load, and a single write never waits for company.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flott_node::{OnFailure, SharedClock, Tasks};
use flott_proto::wire::{self, command::Decision, kv_failure::Reason};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use prost::Message;
use tokio::sync::{Notify, watch};

use super::failure;
use super::fair_queue::FairQueue;
use crate::core::Response;
use crate::leader::Office;
use crate::raft::{ProposeError, RaftNode};
use crate::task_managers::leader_elsewhere;

/// Entries on their way. Two: one being committed, one being gathered and sent meanwhile.
const IN_FLIGHT_MAX: usize = 2;
/// Writes of one entry, and their bytes: applying and sending it stays short.
const ENTRY_WRITES_MAX: usize = 1024;
const ENTRY_BYTES_MAX: usize = 1 << 20;

/// A write of more bytes is refused when the disk is nearly full.
const LARGE_BYTES: usize = 4 << 10;

/// Takes the answer to one write.
pub(crate) type Answer = Box<dyn FnOnce(wire::KvResponse) + Send>;

struct Waiting {
    proposal: wire::KvProposal,
    answer: Answer,
}

/// Proposes writes to the key-value spaces. Clones are the same.
#[derive(Clone)]
pub(crate) struct Proposer(Arc<Inner>);

struct Inner {
    raft: RaftNode,
    office: watch::Receiver<Option<Office>>,
    clock: SharedClock,
    tasks: Tasks,
    queue: Mutex<FairQueue<Waiting>>,
    /// There is something in the queue.
    news: Notify,
}

impl std::fmt::Debug for Proposer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proposer").finish_non_exhaustive()
    }
}

impl Proposer {
    pub(crate) fn new(
        raft: RaftNode,
        office: watch::Receiver<Option<Office>>,
        clock: SharedClock,
        tasks: Tasks,
    ) -> Self {
        let on_raft = raft.clone();
        let proposer = Self(Arc::new(Inner {
            raft,
            office,
            clock,
            tasks: tasks.clone(),
            queue: Mutex::default(),
            news: Notify::new(),
        }));
        let running = proposer.clone();
        let _on_its_threads = on_raft.enter_threads();
        tasks.spawn("propose writes", OnFailure::Shutdown, async move {
            running.run().await;
            Ok::<_, String>(())
        });
        proposer
    }

    /// Has the group carry out writes whose form has been checked; each is answered once, with `sequence` 0.
    pub(crate) fn submit(&self, writes: impl IntoIterator<Item = (wire::KvProposal, Answer)>) {
        const TOO_MANY: &str = "too many writes are waiting; try again, more slowly";
        const DISK_LOW: &str =
            "the leader's disk is nearly full: nothing large is written until it has room again";
        let disk_is_low = self.0.raft.disk_is_low();
        let mut refused = Vec::new();
        {
            let mut queue = self.queue();
            for (proposal, answer) in writes {
                let bytes = proposal.encoded_len();
                if disk_is_low && bytes > LARGE_BYTES {
                    refused.push((answer, Reason::Quota, DISK_LOW));
                    continue;
                }
                let namespace = proposal.namespace.clone();
                let waiting = Waiting { proposal, answer };
                if let Err(back) = queue.push(&namespace, bytes, waiting) {
                    refused.push((back.answer, Reason::Busy, TOO_MANY));
                }
            }
        }
        for (answer, reason, what) in refused {
            answer(failure(reason, what));
        }
        self.0.news.notify_one();
    }

    fn queue(&self) -> MutexGuard<'_, FairQueue<Waiting>> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Proposes what waits, as far as entries may be on their way; until the process ends.
    async fn run(self) {
        let cancelled = self.0.tasks.cancellation().clone();
        let mut on_their_way = FuturesUnordered::new();
        loop {
            while on_their_way.len() < IN_FLIGHT_MAX {
                let batch = self.queue().take(ENTRY_WRITES_MAX, ENTRY_BYTES_MAX);
                if batch.is_empty() {
                    break;
                }
                on_their_way.push(self.propose(batch));
            }
            tokio::select! { biased;
                () = cancelled.cancelled() => return,
                Some(()) = on_their_way.next() => {}
                () = self.0.news.notified(), if on_their_way.len() < IN_FLIGHT_MAX => {}
            }
        }
    }

    async fn propose(&self, batch: Vec<Waiting>) {
        let (proposals, answers): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|waiting| (waiting.proposal, waiting.answer))
            .unzip();
        let responses = self.carry_out(proposals).await;
        match responses {
            Ok(responses) => {
                assert_eq!(responses.len(), answers.len(), "each write has its answer");
                for (answer, response) in answers.into_iter().zip(responses) {
                    answer(response);
                }
            }
            Err(response) => answers
                .into_iter()
                .for_each(|answer| answer(response.clone())),
        }
    }

    async fn carry_out(
        &self,
        proposals: Vec<wire::KvProposal>,
    ) -> Result<Vec<wire::KvResponse>, wire::KvResponse> {
        let inner = &*self.0;
        let office = inner.office.borrow().clone();
        let office = office.ok_or_else(|| not_leader(&inner.raft))?;
        let command = wire::Command {
            now_ms: office.log_clock.now_ms(&inner.clock),
            epoch: office.epoch.0,
            decision: Some(Decision::KvBatch(wire::KvBatch { proposals })),
        };
        match inner.raft.propose(command).await {
            Ok(applied) => match applied.response {
                Response::Kv(responses) => Ok(responses),
                // Another leader took office in between.
                Response::Refused(_) | Response::Applied => Err(not_leader(&inner.raft)),
            },
            Err(ProposeError::NotLeader { .. } | ProposeError::Shutdown) => {
                Err(not_leader(&inner.raft))
            }
            Err(error @ ProposeError::TooLarge { .. }) => {
                Err(failure(Reason::Invalid, error.to_string()))
            }
            Err(error @ ProposeError::Unknown) => Err(failure(
                Reason::Unknown,
                format!("{error}; with a request id it is safe to repeat"),
            )),
        }
    }
}

/// The answer of a member that does not lead: nothing was done, and who leads if that is known.
pub(super) fn not_leader(raft: &RaftNode) -> wire::KvResponse {
    use wire::kv_response::Outcome;
    let (message, leader) = leader_elsewhere(raft);
    let outcome = Outcome::Failure(wire::KvFailure {
        reason: Reason::NotLeader.into(),
        message,
        leader_address: leader.unwrap_or_default(),
    });
    wire::KvResponse {
        outcome: Some(outcome),
        ..Default::default()
    }
}
