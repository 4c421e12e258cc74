//! Which state may answer a read.
//!
//! - **At the leader**: its published state, if after looking at it the leader still has its lease. Everything that
//!   anybody was told is in it: by this leader before it was told, by earlier ones before this one took office, and by
//!   later ones nothing while the lease lasts. Followers may be ahead, but never of what this leader has announced as
//!   committed, so the state has to contain that. A process that was stopped in between finds its lease gone.
//! - **At any other member**: the leader is asked how far its state is, under the same rule; this member answers when it
//!   has got as far. Questions that come while one is on its way share the next one.
//! - **Stale**: whatever state there is here; the answer says how old it may be.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flott_node::{Mutant, OnFailure, SharedClock, Tasks};
use flott_proto::wire::{self, kv_failure::Reason};
use tokio::sync::{oneshot, watch};

use super::failure;
use super::proposer::not_leader;
use crate::core::ClusterState;
use crate::leader::Office;
use crate::raft::RaftNode;

/// For the group to confirm a leader, and for this member to get as far as the leader. Beyond, the client tries another.
const READ_WAIT: Duration = Duration::from_secs(2);
/// Reads that wait for the same answer of the leader.
const WAITING_MAX: usize = 65_536;

type Reached = Result<u64, wire::KvResponse>;

/// Finds the state that may answer. Clones are the same.
#[derive(Clone)]
pub(crate) struct Reads(Arc<Inner>);

struct Inner {
    raft: RaftNode,
    office: watch::Receiver<Option<Office>>,
    clock: SharedClock,
    tasks: Tasks,
    asking: Mutex<Asking>,
}

#[derive(Default)]
struct Asking {
    under_way: bool,
    waiting: Vec<oneshot::Sender<Reached>>,
}

impl std::fmt::Debug for Reads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reads").finish_non_exhaustive()
    }
}

impl Reads {
    pub(crate) fn new(
        raft: RaftNode,
        office: watch::Receiver<Option<Office>>,
        clock: SharedClock,
        tasks: Tasks,
    ) -> Self {
        Self(Arc::new(Inner {
            raft,
            office,
            clock,
            tasks,
            asking: Mutex::default(),
        }))
    }

    /// Answers by a state that contains all that anybody was told before now; at once if this is the leader.
    pub(crate) async fn linearizable<T>(
        &self,
        answer: impl Fn(&ClusterState) -> T,
    ) -> Result<T, wire::KvResponse> {
        if let Some(answered) = self.at_leader(&answer) {
            return Ok(answered);
        }
        if Mutant::ReadAtFollower.is_planted() {
            return Ok(answer(&self.0.raft.state()));
        }
        let reached = self.ask_leader().await?;
        self.await_applied(reached).await?;
        Ok(answer(&self.0.raft.state()))
    }

    /// How long ago this member last knew that its state was up to date, ms.
    pub(crate) fn stale_ms(&self) -> u64 {
        let age = self.0.raft.staleness();
        age.map_or(u64::MAX, |age| {
            u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
        })
    }

    fn in_office(&self) -> Option<flott_proto::ids::LeaderEpoch> {
        self.0.office.borrow().as_ref().map(|office| office.epoch)
    }

    /// Answers if this member leads beyond doubt. The lease is looked at after the state, so that no later leader can
    /// have told anybody anything that the state lacks.
    fn at_leader<T>(&self, answer: &impl Fn(&ClusterState) -> T) -> Option<T> {
        let epoch = self.in_office()?;
        if !self.0.raft.has_applied_what_it_announced() {
            return None;
        }
        let state = self.0.raft.state();
        if state.epoch != epoch {
            return None;
        }
        let answered = answer(&state);
        let sure = self.0.raft.lease_is_valid() || Mutant::ReadWithoutLease.is_planted();
        sure.then_some(answered)
    }

    /// Asks the leader how far its decisions are.
    async fn ask_leader(&self) -> Reached {
        let (answer, reached) = oneshot::channel();
        let begin = {
            let mut asking = self.asking();
            if asking.waiting.len() >= WAITING_MAX {
                return Err(failure(
                    Reason::Busy,
                    "too many reads are waiting; try again",
                ));
            }
            asking.waiting.push(answer);
            !std::mem::replace(&mut asking.under_way, true)
        };
        if begin {
            let this = self.clone();
            self.0
                .tasks
                .spawn("read index", OnFailure::Log, async move {
                    this.ask_for_all().await;
                    Ok::<_, String>(())
                });
        }
        reached.await.unwrap_or_else(|_| Err(in_doubt()))
    }

    /// Asks until nobody waits any more. Who comes while a question is on its way has to wait for the next: the leader
    /// may have answered before something that the newcomer knows of.
    async fn ask_for_all(&self) {
        loop {
            let waiting = {
                let mut asking = self.asking();
                if asking.waiting.is_empty() {
                    asking.under_way = false;
                    return;
                }
                std::mem::take(&mut asking.waiting)
            };
            let asked = tokio::time::timeout(READ_WAIT, self.0.raft.read_index()).await;
            let reached = match asked {
                Ok(Some(index)) => Ok(index),
                Ok(None) => Err(not_leader(&self.0.raft)),
                Err(_) => Err(in_doubt()),
            };
            for waiter in waiting {
                // Who waited may have given up.
                let _ = waiter.send(reached.clone());
            }
        }
    }

    fn asking(&self) -> std::sync::MutexGuard<'_, Asking> {
        self.0.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn await_applied(&self, index: u64) -> Result<(), wire::KvResponse> {
        let mut applied = self.0.raft.applied();
        let waiting = applied.wait_for(|applied| *applied >= index);
        tokio::select! { biased;
            reached = waiting => reached.map(drop).map_err(|_| in_doubt()),
            () = self.0.clock.sleep(READ_WAIT) => {
                Err(failure(Reason::Busy, "this member is too far behind; ask another"))
            }
        }
    }
}

fn in_doubt() -> wire::KvResponse {
    failure(
        Reason::Busy,
        "nobody leads beyond doubt at present; try again",
    )
}
