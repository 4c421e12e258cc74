//! A network in user space: each process is reached through a port of ours, and what goes through it can be cut, slowed
//! and broken for each directed pair of processes.
//!
//! ```text
//! jobmanager-1 ──connects to──► port of jobmanager-2 ──forwards──► jobmanager-2
//!                 who is it? ([`super::owner`])   two pumps, each asks the rule of its pair
//! ```
//!
//! A cut holds bytes back, as a network that drops packets does below TCP: if the connection outlives it, they arrive
//! afterwards. Loss is a broken connection, which is what becomes of it above TCP. Connections of nobody we know, such as
//! those of clients, are left alone, but for faults of a whole process.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use flott_node::{OnFailure, SharedClock, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::rules::{End, Pair, Rules};
use super::{Node, owner};

/// Read at once: small, so that a rule about bandwidth is even.
const CHUNK_BYTES: usize = 16 << 10;
/// Chunks under way in a slow direction; then the sender waits, as behind a full link.
const CHUNKS_MAX: usize = 64;

/// All ports and rules.
#[derive(Debug)]
pub struct Proxy {
    /// What is done to bytes of a pair. A proxy has no frames, and does not heed what concerns them.
    pub rules: Rules,
    number: AtomicU64,
    pids: Mutex<BTreeMap<i32, Node>>,
    connections: Mutex<BTreeMap<u64, (Pair, CancellationToken)>>,
    clock: SharedClock,
    tasks: Tasks,
}

impl Proxy {
    /// Without ports and rules.
    pub fn new(clock: SharedClock) -> Arc<Self> {
        Arc::new(Self {
            rules: Rules::default(),
            number: AtomicU64::new(1),
            pids: Mutex::default(),
            connections: Mutex::default(),
            clock,
            tasks: Tasks::default(),
        })
    }

    /// A port through which `node`, which listens at `target`, is reached; its address.
    pub async fn open(
        self: &Arc<Self>,
        node: Node,
        port: u16,
        target: SocketAddr,
    ) -> anyhow::Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", port))
            .await
            .with_context(|| format!("cannot listen on port {port} for {node}"))?;
        let (tasks, proxy) = (self.tasks.clone(), Arc::clone(self));
        self.tasks.spawn("proxy port", OnFailure::Log, async move {
            loop {
                let (stream, peer) = listener.accept().await?;
                let forwarded = Arc::clone(&proxy).forward(stream, peer, node, target);
                tasks.spawn("proxied connection", OnFailure::Log, async move {
                    forwarded.await;
                    Ok::<_, io::Error>(())
                });
            }
            #[expect(unreachable_code, reason = "names the type of the task's error")]
            Ok::<_, io::Error>(())
        });
        Ok(())
    }

    /// From now on connections of that process are those of `node`.
    pub fn know(&self, pid: i32, node: Node) {
        let mut pids = self.pids.lock().unwrap_or_else(PoisonError::into_inner);
        pids.retain(|_, known| *known != node);
        pids.insert(pid, node);
    }

    /// Breaks the connections that either process of `node` takes part in; how many.
    pub fn reset(&self, node: Node) -> usize {
        let connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let own = connections
            .values()
            .filter(|((from, to), _)| *from == node.into() || *to == node.into());
        own.map(|(_, broken)| broken.cancel()).count()
    }

    async fn forward(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        to: Node,
        target: SocketAddr,
    ) {
        let Ok(local) = stream.local_addr() else {
            return;
        };
        let pids = self
            .pids
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let known: Vec<i32> = pids.keys().copied().collect();
        let from = tokio::task::spawn_blocking(move || owner::of_connection(peer, local, &known));
        let from = from
            .await
            .ok()
            .flatten()
            .and_then(|pid| pids.get(&pid).copied());
        // A process that is down refuses, and so does its port.
        let Ok(onward) = TcpStream::connect(target).await else {
            return;
        };
        let _ = (stream.set_nodelay(true), onward.set_nodelay(true));
        let broken = CancellationToken::new();
        // Whom we do not know is a client.
        let from = from.map_or(End::Harness, End::from);
        let to = End::from(to);
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let connections = || {
            self.connections
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        connections().insert(number, ((from, to), broken.clone()));
        let (here_read, here_write) = stream.into_split();
        let (there_read, there_write) = onward.into_split();
        let forth = self.pump((from, to), here_read, there_write);
        let back = self.pump((to, from), there_read, here_write);
        tokio::select! {
            () = broken.cancelled() => {}
            _ = async { tokio::join!(forth, back) } => {}
        }
        connections().remove(&number);
    }

    /// Carries bytes of one direction to its end, under the rules of its pair.
    async fn pump(&self, pair: Pair, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let (sender, mut chunks) = mpsc::channel::<(Duration, Vec<u8>)>(CHUNKS_MAX);
        let read = async move {
            let mut buffer = vec![0; CHUNK_BYTES];
            loop {
                let Ok(bytes @ 1..) = from.read(&mut buffer).await else {
                    return;
                };
                let due = self.clock.monotonic() + self.rules.of(pair).delay;
                if sender.send((due, buffer[..bytes].to_vec())).await.is_err() {
                    return;
                }
            }
        };
        let write = async move {
            let mut rules = self.rules.watch();
            while let Some((due, chunk)) = chunks.recv().await {
                let early = due.saturating_sub(self.clock.monotonic());
                if !early.is_zero() {
                    self.clock.sleep(early).await;
                }
                let open = rules.wait_for(|rules| !rules.of(pair).cut).await.is_ok();
                if !open || to.write_all(&chunk).await.is_err() {
                    return;
                }
                let bandwidth = self.rules.of(pair).bandwidth;
                if bandwidth > 0 {
                    let takes = chunk.len() as f64 / bandwidth as f64;
                    self.clock.sleep(Duration::from_secs_f64(takes)).await;
                }
            }
            let open = rules.wait_for(|rules| !rules.of(pair).cut).await.is_ok();
            if open {
                let _ = to.shutdown().await;
            }
        };
        tokio::join!(read, write);
    }
}
