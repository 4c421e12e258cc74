//! Where a run of `chaos run` takes place.
//!
//! - [`client`]: what any user of a cluster has: addresses of JobManagers and the command line. Enough for workloads and
//!   checkers, so a run that only observes needs nothing else.
//! - [`local`]: a cluster of processes of our own, without root. [`proxy`]: a user-space network between them, which can
//!   be cut and slowed for each pair; [`owner`]: which process is behind a connection.
//! - [`control`]: the clock and the disk of a process of ours. [`store`]: an object store that can be broken.
//!
//! Must stay true: a process that is stopped or killed here was started here.

pub mod client;
pub mod control;
pub mod local;
pub mod owner;
pub mod proxy;
pub mod store;

use std::fmt;

use serde::{Deserialize, Serialize};

/// A process of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Node {
    /// Numbered from 1.
    Jobmanager(u32),
    /// Numbered from 1.
    Taskmanager(u32),
}

impl Node {
    /// Whether it is a member of the Raft group.
    pub fn is_jobmanager(self) -> bool {
        matches!(self, Self::Jobmanager(_))
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Jobmanager(number) => write!(f, "jobmanager-{number}"),
            Self::Taskmanager(number) => write!(f, "taskmanager-{number}"),
        }
    }
}
