//! What is done to the data of a group while none of its members runs.
//!
//! ```text
//!   backup file ─────────────────┐
//!                                ├──▶ state, last log id ──▶ a new lineage ──▶ data directory of a group of one
//!   data directories, survivors ─┘
//! ```
//!
//! - [`backup`]: reading a backup, and what it says of itself. A backup is a snapshot file, as members keep them.
//! - [`survivor`]: what a data directory has. [`rules`]: which of several to go on from, and when not to (pure).
//! - [`founding`]: writing the data directory of the new group.
//!
//! The new group has one member, with a node id and an incarnation of its own. Others join it with empty directories, like
//! any other: there is one way into a group.

pub(crate) mod backup;
pub(crate) mod founding;
pub(crate) mod rules;
pub(crate) mod survivor;

/// Where in a log something is. Ordered as Raft orders logs: who is ahead has more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub term: u64,
    pub index: u64,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.term, self.index)
    }
}

impl std::str::FromStr for Position {
    type Err = String;

    /// Inverse of `Display`.
    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || format!("expected TERM/INDEX, such as 7/1234, not {text:?}");
        let (term, index) = text.split_once('/').ok_or_else(malformed)?;
        Ok(Self {
            term: term.parse().map_err(|_| malformed())?,
            index: index.parse().map_err(|_| malformed())?,
        })
    }
}
