//! Why a call to the key-value space did not succeed, and what that says about a write.

use std::time::Duration;

use flott_node::tls::PlainTextRefused;
pub use flott_proto::wire::kv_failure::Reason;

/// What is known about a write that was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing changed, and nothing will.
    NotApplied,
    /// It was applied, or was not, or will be yet.
    Unknown,
}

/// Why a call failed for good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    #[error("{address:?} is not an address of the form host:port")]
    Address { address: String },
    #[error(transparent)]
    PlainText(#[from] PlainTextRefused),
    /// The cluster answered, and refused. Trying again without a change is of no use.
    #[error("{message}")]
    Refused { reason: Reason, message: String },
    /// Nobody led, or all were too busy, until the patience was used up. A write was not applied.
    #[error("no leading JobManager answered within {} s ({last})", patience.as_secs_f64())]
    Unavailable { patience: Duration, last: String },
    /// A write was sent, and how it ended is not known. Whoever cares reads.
    #[error("the write was sent but not answered for certain ({last})")]
    Unknown { last: String },
    /// The process is ending, before the call was sent.
    #[error("the session has ended")]
    Closed,
}

impl KvError {
    /// For a write: whether it may have been applied.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Unknown { .. } => Outcome::Unknown,
            Self::Address { .. }
            | Self::PlainText(_)
            | Self::Refused { .. }
            | Self::Unavailable { .. }
            | Self::Closed => Outcome::NotApplied,
        }
    }

    /// Whether the cluster refused for this reason.
    pub fn is(&self, wanted: Reason) -> bool {
        matches!(self, Self::Refused { reason, .. } if *reason == wanted)
    }
}
