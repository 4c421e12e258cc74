//! Where a run of `chaos run` takes place.
//!
//! - [`client`]: what any user of a cluster has: addresses of JobManagers and the command line. Enough for workloads and
//!   checkers, so a run that only observes needs nothing else.
//! - [`local`]: a cluster of processes of our own. [`network`]: what lies between them, which is one of two, and can be cut
//!   and slowed for each directed pair by the same [`rules`].
//! - [`proxy`]: ports of ours, without root; [`owner`]: which process is behind a connection. [`netns`]: a network namespace
//!   for each process, and a switch of ours that carries their frames.
//! - [`control`]: the clock and the disk of a process of ours. [`store`]: an object store that can be broken.
//! - [`remote`]: a cluster that others have, through shells on their machines.
//!
//! Must stay true: a process that is stopped or killed was started here, or is one that somebody has named for it.

pub mod client;
pub mod control;
pub mod local;
pub mod netns;
pub mod network;
pub mod owner;
pub mod proxy;
pub mod remote;
pub mod rules;
pub mod store;

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whose processes are broken, and how they are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// On loopback, JobManagers behind a proxy in user space; without root
    #[default]
    Local,
    /// In network namespaces, joined by a switch in user space that loses, doubles and reorders frames; needs root
    Netns,
    /// Others' machines, through their shells
    #[value(skip)]
    Remote,
}

impl Target {
    /// For what is not said where it is usual.
    pub fn is_local(&self) -> bool {
        *self == Self::Local
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Netns => "netns",
            Self::Remote => "remote",
        })
    }
}

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
    /// The one that is displayed so.
    pub fn named(text: &str) -> Option<Self> {
        let (kind, number) = text.rsplit_once('-')?;
        let number = number.parse().ok().filter(|number| *number > 0)?;
        let node = match kind {
            "jobmanager" => Self::Jobmanager(number),
            "taskmanager" => Self::Taskmanager(number),
            _ => return None,
        };
        // No second way to write the same.
        (node.to_string() == text).then_some(node)
    }

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
