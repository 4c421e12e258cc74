//! What clients asked and were told, in the order of a clock that nobody else sees.

/// What a client wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// To write this value, which nobody else writes.
    Write(u64),
    /// To replace what it has read before, by its revision, with this value.
    Swap {
        /// The revision that it expects.
        expected: u64,
        /// The value.
        value: u64,
    },
    /// To read.
    Read,
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The write has this revision.
    Written {
        /// Of the state after it.
        revision: u64,
    },
    /// Somebody had written in between. Nothing was changed.
    Differs,
    /// The key had this value, written by that revision, in a state of this revision. None: it was absent.
    Found {
        /// Of the state that was read.
        revision: u64,
        /// Value and revision of the write.
        entry: Option<(u64, u64)>,
    },
    /// It was certainly not done.
    Refused,
    /// It was done, or not, or will be.
    Unknown,
}

/// One operation of one client.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "as the names say")]
pub struct Operation {
    pub client: u32,
    pub key: u32,
    pub action: Action,
    pub begun: u64,
    pub ended: u64,
    pub told: Told,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In any order.
    pub operations: Vec<Operation>,
}
