//! What lies between the processes of a cluster of our own, and by which addresses they know each other.
//!
//! | | proxy | namespaces |
//! |---|---|---|
//! | needs | nothing | root |
//! | JobManagers are reached through | a port of ours | their own address |
//! | goes through it | what is said to JobManagers | everything, data between TaskManagers too |
//! | can be done to it | cut, late, slow, broken | also lost, doubled, overtaken |

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use flott_chaos_basis::random::Random;
use flott_node::SharedClock;
use tokio::process::Command;

use super::Node;
use super::netns::Lan;
use super::netns::switch::Tally;
use super::proxy::Proxy;
use super::rules::Rules;
use crate::cluster::ports::free_port;

/// Of JobManagers that have an address of their own.
const JOBMANAGER_PORT: u16 = 6123;

/// One of two ways to join processes.
#[derive(Debug)]
pub enum Network {
    /// In user space, above TCP.
    Proxy(Arc<Proxy>),
    /// In user space, below IP.
    Lan(Lan),
}

/// Where a process is.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    /// What it is told to listen at. Port 0: any.
    pub listens_at: SocketAddr,
    /// By what the others know it.
    pub known_as: SocketAddr,
}

impl Network {
    /// Ports of ours on loopback.
    pub fn proxy(clock: SharedClock) -> Self {
        Self::Proxy(Proxy::new(clock))
    }

    /// Namespaces. `random` decides what becomes of frames.
    pub async fn lan(random: Random, clock: SharedClock) -> anyhow::Result<Self> {
        Ok(Self::Lan(Lan::lay(random, clock).await?))
    }

    /// What is done to what goes through it.
    pub fn rules(&self) -> &Rules {
        match self {
            Self::Proxy(proxy) => &proxy.rules,
            Self::Lan(lan) => &lan.rules,
        }
    }

    /// Whether it carries frames, which can be lost; otherwise bytes of connections, which cannot.
    pub fn has_frames(&self) -> bool {
        matches!(self, Self::Lan(_))
    }

    /// Whether plain text leaves the loopback interface, which Flott has to be told to allow.
    pub fn is_beyond_loopback(&self) -> bool {
        self.has_frames()
    }

    /// What was done to frames until now; nothing where there are none.
    pub fn tally(&self) -> Tally {
        match self {
            Self::Proxy(_) => Tally::default(),
            Self::Lan(lan) => lan.tally(),
        }
    }

    /// Where services of the harness are reached by the processes.
    pub fn harness(&self) -> IpAddr {
        match self {
            Self::Proxy(_) => Ipv4Addr::LOCALHOST.into(),
            Self::Lan(lan) => lan.harness().into(),
        }
    }

    /// Makes a place for a process that is to be started.
    pub async fn seat(&self, node: Node) -> anyhow::Result<Seat> {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match (self, node) {
            (Self::Proxy(proxy), Node::Jobmanager(_)) => {
                let (own, known) = (free_port()?, free_port()?);
                proxy.open(node, known, loopback(own)).await?;
                Ok(Seat {
                    listens_at: loopback(own),
                    known_as: loopback(known),
                })
            }
            // Nobody knows it but by what it says itself.
            (Self::Proxy(_), Node::Taskmanager(_)) => Ok(Seat {
                listens_at: loopback(0),
                known_as: loopback(0),
            }),
            (Self::Lan(lan), _) => {
                let port = if node.is_jobmanager() {
                    JOBMANAGER_PORT
                } else {
                    0
                };
                let address = SocketAddr::from((lan.connect(node).await?, port));
                Ok(Seat {
                    listens_at: address,
                    known_as: address,
                })
            }
        }
    }

    /// Begins a command that is to run at the place of `node`. The process that it becomes is the program's own.
    pub fn command(&self, node: Node, program: &Path) -> Command {
        match self {
            Self::Proxy(_) => Command::new(program),
            Self::Lan(lan) => lan.command(node, program),
        }
    }

    /// From now on that process is `node`.
    pub fn know(&self, pid: i32, node: Node) {
        if let Self::Proxy(proxy) = self {
            proxy.know(pid, node);
        }
    }

    /// Breaks the connections that a process takes part in; how many.
    pub async fn reset(&self, node: Node) -> anyhow::Result<usize> {
        match self {
            Self::Proxy(proxy) => Ok(proxy.reset(node)),
            Self::Lan(lan) => lan.reset(node).await,
        }
    }

    /// Removes what is left of it on this machine. No process may be in it any more.
    pub async fn take_down(&self) -> anyhow::Result<()> {
        match self {
            Self::Proxy(_) => Ok(()),
            Self::Lan(lan) => lan.take_down().await,
        }
    }
}
