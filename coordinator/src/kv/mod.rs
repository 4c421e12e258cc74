//! The key-value service: clients' requests to the replicated spaces of [`crate::core::kv`].
//!
//! ```text
//!   Pipeline ─┐              ┌─ reads ──▶ published state, under the leader's lease or a read index
//!   Call ─────┼─▶ service ───┤
//!   Watch ────┘              └─ writes ─▶ proposer: a queue for each namespace ─▶ one log entry for many writes
//!                  ▲                                                                     │ applied
//!                  └────────────────────────────── watches ◀─────────────────────────────┘
//! ```
//!
//! - [`service`]: the gRPC service. [`proposer`]: writes to batches, fairly; [`fair_queue`] decides whose turn it is.
//! - [`reads`]: which state may answer. [`watches`]: the latest changes of every namespace, for those who follow them.
//!
//! What must stay true: a write is answered as applied only after its entry is applied here; a read that is not `stale`
//! contains everything that anybody was told before it began.

mod fair_queue;
mod proposer;
mod reads;
mod service;
pub(crate) mod watches;

pub(crate) use proposer::Proposer;
pub(crate) use reads::Reads;
pub(crate) use service::KeyValueService;

use flott_proto::wire::{self, kv_failure::Reason, kv_response::Outcome};

use crate::core::kv::write::failed;

/// The answer to a request that was not carried out, or of which that is not known.
fn failure(reason: Reason, message: impl Into<String>) -> wire::KvResponse {
    let outcome = Outcome::Failure(failed(reason, message));
    wire::KvResponse {
        outcome: Some(outcome),
        ..Default::default()
    }
}
