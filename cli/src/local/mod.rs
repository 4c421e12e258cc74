//! A cluster of child processes on one machine: what `flott local` runs and the demo and the chaos tests break.
//!
//! ```text
//! DIR/local.json         the JobManagers' ports: chosen once, because the members know each other by them
//! DIR/cluster.json       the processes that run now; rewritten whenever one starts or ends
//! DIR/jobmanager-N/      config.yaml, flott.log, and raft/ (the member's identity and log)
//! DIR/taskmanager-N/     config.yaml, flott.log, and work/ (may be lost)
//! DIR/certs              with TLS: the CA, and everybody's certificates
//! DIR/checkpoints        default execution.checkpointing.dir; DIR/savepoints likewise
//! ```
//!
//! - [`LocalCluster`] starts, kills, restarts and stops the children. [`layout`] is the directory. [`child`] is one
//!   process: its configuration, its start, its end. [`start`] brings a cluster up and awaits that it is ready.
//!   [`security`] makes certificates. [`command`] is `flott local` itself.
//!
//! What must stay true: no child outlives its parent. Each holds the read end of a pipe as its standard input, and ends
//! when the other end closes, however the parent died. Each child is in a process group of its own, so that Ctrl-C
//! reaches only the parent, which stops them in order.

mod child;
pub(crate) mod command;
mod layout;
mod security;
mod start;
mod supervise;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use supervise::LocalCluster;

/// What a local cluster consists of.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// Where everything is kept; made if missing. A cluster that was there before is started again.
    pub dir: PathBuf,
    /// 0: as many as the directory has, or 3.
    pub jobmanagers: u32,
    pub taskmanagers: u32,
    /// Task slots of each TaskManager.
    pub slots: u32,
    /// Configuration of all processes, over the defaults of a local cluster.
    pub overrides: BTreeMap<String, String>,
    /// Make certificates, and speak TLS only.
    pub tls: bool,
    /// Start a child again that ended by itself or was killed from outside.
    pub respawn: bool,
    /// The `flott` binary.
    pub executable: PathBuf,
}

/// What a process of the cluster does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    JobManager,
    TaskManager,
}

impl Role {
    /// The verb of the command line, and the beginning of a process's name.
    pub fn verb(self) -> &'static str {
        match self {
            Self::JobManager => "jobmanager",
            Self::TaskManager => "taskmanager",
        }
    }
}

/// A process that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    pub role: Role,
    /// `jobmanager-1`, `taskmanager-2`: stays the same when the process is started again.
    pub name: String,
    /// The JobManager's number in its group; 0 for a TaskManager.
    pub node_id: u64,
    /// The name under which a TaskManager registers, new with every start; the node id for a JobManager.
    pub id: String,
    pub pid: u32,
    /// A JobManager's RPC address, a TaskManager's data address.
    pub address: String,
    /// Where `/readyz` and `/metrics` are.
    pub http: String,
    pub log: PathBuf,
}

#[cfg(test)]
mod tests;
