//! A JobManager in a simulation: everything that a real one consists of, but for its HTTP port, on one thread.
//!
//! Where a real process asks the system, this one asks [`flott_node::simulation`]. What an observer wants to know of it,
//! [`Probe`] tells.

use std::io;
use std::time::Duration;

use flott_node::config::Configuration;
use flott_node::tls::Connection;
use flott_node::{SystemClock, Tasks, Transport};
use futures::Stream;
use tokio::sync::watch;

use crate::Error;
use crate::raft::RaftNode;
use crate::server::{Services, start_raft};

pub use crate::raft::probe::{Kind, LogEntry, Probe, Seen};

/// One simulated JobManager.
#[derive(Debug)]
pub struct JobManager {
    raft: RaftNode,
    parts: Tasks,
}

impl JobManager {
    /// Starts it from its data directory, to be reached at `address` through `incoming`.
    pub async fn start(
        configuration: Configuration,
        address: String,
        incoming: impl Stream<Item = io::Result<Connection>> + Send + Unpin + 'static,
    ) -> Result<Self, Error> {
        let clock = SystemClock::shared();
        let transport = Transport::loopback();
        let parts = Tasks::default();
        let raft = start_raft(&configuration, &address, &transport, &clock, &parts).await?;
        let services = Services {
            raft: raft.clone(),
            configuration,
            transport,
            clock,
            parts: parts.clone(),
            address,
        };
        let (office_sender, office) = watch::channel(None);
        services.serve(&office, incoming)?;
        services.lead(office_sender)?;
        Ok(Self { raft, parts })
    }

    /// Its Raft node.
    pub fn raft(&self) -> &RaftNode {
        &self.raft
    }

    /// What an observer sees of it.
    pub fn probe(&self) -> Probe {
        self.raft.probe()
    }

    /// Waits until a part has failed that the process cannot do without; what it says.
    pub async fn failed(&self) -> String {
        self.parts.cancellation().cancelled().await;
        let ended = self.parts.shutdown(Duration::ZERO).await;
        ended
            .err()
            .unwrap_or_else(|| "it was told to end".to_owned())
    }
}
