//! Accepting: each handshake in a task of its own, with a deadline, and not more of them at once than are bounded.
//!
//! Somebody who connects and says nothing costs a place among the handshakes until the deadline, and holds up nobody
//! while there are others.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::{TlsAcceptor, TlsStream};
use tracing::warn;

use super::connection::Connection;
use super::{Mode, Protocol, Tls, Transport, metrics};
use crate::{OnFailure, SharedClock, Tasks};

/// A handshake takes milliseconds, and a round trip around the world a third of a second.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// More than the processes of a large cluster begin at once, and little memory.
const HANDSHAKES_MAX: usize = 256;
/// Connections that stand and have not been taken over by the server.
const ACCEPTED_MAX: usize = 64;
/// After an error of accepting, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// For the other side to read why it is refused.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(1);
/// Of failed handshakes not more than one is logged in this time: anybody can cause them.
const FAILURES_LOGGED_EVERY: Duration = Duration::from_secs(1);

/// How every TLS connection begins: a record of the handshake.
const HANDSHAKE_RECORD: u8 = 22;
/// How HTTP/2 in plain text begins.
const HTTP2_PREFACE: &[u8; 4] = b"PRI ";
/// SETTINGS, and GOAWAY with INADEQUATE_SECURITY: what tells a client of HTTP/2 in plain text what is the matter.
const GO_AWAY: &[u8] = b"\0\0\0\x04\0\0\0\0\0\
    \0\0\x21\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0cthis port speaks TLS only";

impl Transport {
    /// Takes an accepted socket over: TLS if this process has it. The error says what was wrong.
    pub async fn accept(&self, stream: TcpStream, protocol: Protocol) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        let address = stream.peer_addr()?.to_string();
        let Mode::Tls(tls) = &self.0 else {
            return Ok(Connection::plain_text(stream, &address));
        };
        let accepted = tokio::time::timeout(
            HANDSHAKE_DEADLINE,
            handshake(tls, stream, &address, protocol),
        )
        .await;
        let accepted = accepted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        accepted.inspect_err(|_| metrics::handshake_failed())
    }

    /// The connections to `listener`, until `tasks` are cancelled. Runs on the threads of whoever calls it.
    pub fn incoming(
        &self,
        listener: TcpListener,
        protocol: Protocol,
        tasks: &Tasks,
        clock: &SharedClock,
    ) -> impl Stream<Item = io::Result<Connection>> + Send + Unpin + use<> {
        let (accepted, mut connections) = mpsc::channel(ACCEPTED_MAX);
        let accepting = Accepting {
            transport: self.clone(),
            protocol,
            tasks: tasks.clone(),
            clock: clock.clone(),
            accepted,
            failures: Arc::default(),
        };
        tasks.spawn("accept", OnFailure::Shutdown, accepting.run(listener));
        futures::stream::poll_fn(move |context| connections.poll_recv(context))
    }
}

#[derive(Clone)]
struct Accepting {
    transport: Transport,
    protocol: Protocol,
    tasks: Tasks,
    clock: SharedClock,
    accepted: mpsc::Sender<io::Result<Connection>>,
    failures: Arc<Mutex<Failures>>,
}

/// Failed handshakes since one was logged.
#[derive(Default)]
struct Failures {
    logged_at: Option<Duration>,
    suppressed: u64,
}

impl Failures {
    /// Whether to log one that happens now, and how many were not.
    fn on_failure(&mut self, now: Duration) -> Option<u64> {
        let soon = |at: Duration| now.saturating_sub(at) < FAILURES_LOGGED_EVERY;
        if self.logged_at.is_some_and(soon) {
            self.suppressed += 1;
            return None;
        }
        self.logged_at = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl Accepting {
    async fn run(self, listener: TcpListener) -> Result<(), io::Error> {
        let cancelled = self.tasks.cancellation().clone();
        let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        loop {
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (listener.accept().await, place)
            };
            let (accepted, place) = tokio::select! { biased;
                () = cancelled.cancelled() => return Ok(()),
                () = self.accepted.closed() => return Ok(()),
                next = next => next,
            };
            match accepted {
                Ok((stream, from)) => {
                    let this = self.clone();
                    self.tasks.spawn("handshake", OnFailure::Log, async move {
                        this.take_over(stream, from).await;
                        drop(place);
                        Ok::<_, io::Error>(())
                    });
                }
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    self.clock.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn take_over(&self, stream: TcpStream, from: SocketAddr) {
        let accepted = tokio::select! { biased;
            () = self.tasks.cancellation().cancelled() => return,
            accepted = self.transport.accept(stream, self.protocol) => accepted,
        };
        match accepted {
            // An error means that the server is gone.
            Ok(connection) => drop(self.accepted.send(Ok(connection)).await),
            Err(error) => {
                let now = self.clock.monotonic();
                let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(suppressed) = failures.on_failure(now) {
                    warn!(%from, %error, suppressed, "connection refused");
                }
            }
        }
    }
}

async fn handshake(
    tls: &Arc<Tls>,
    stream: TcpStream,
    address: &str,
    protocol: Protocol,
) -> io::Result<Connection> {
    let mut first = [0; HTTP2_PREFACE.len()];
    let seen = stream.peek(&mut first).await?;
    if seen > 0 && first[0] != HANDSHAKE_RECORD {
        if first == *HTTP2_PREFACE {
            farewell(stream, GO_AWAY).await;
        }
        return Err(invalid("it speaks plain text to a port for TLS"));
    }
    let material = tls.current.load_full();
    let accepting = TlsAcceptor::from(material.server(protocol)).accept(stream);
    match accepting.into_fallible().await {
        Ok(stream) => Ok(Connection::tls(
            TlsStream::Server(stream),
            &material.identity,
            address,
        )),
        Err((error, stream)) => {
            // The alert is sent; closing with something unread would take it back.
            farewell(stream, &[]).await;
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
            Err(match inner {
                Some(rustls::Error::NoCertificatesPresented) => invalid("it shows no certificate"),
                Some(certificate @ rustls::Error::InvalidCertificate(_)) => invalid(&format!(
                    "its certificate is refused: {}",
                    super::material::explain(certificate, &tls.files)
                )),
                Some(rustls::Error::AlertReceived(alert)) => invalid(&format!(
                    "it does not want this connection (TLS alert {alert:?})"
                )),
                _ => error,
            })
        }
    }
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Lets the other side read the last words.
async fn farewell(mut stream: TcpStream, words: &[u8]) {
    let saying = async {
        stream.write_all(words).await?;
        stream.shutdown().await?;
        let mut unread = [0; 4096];
        while stream.read(&mut unread).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    // What nobody wants to hear is not said.
    let _ = tokio::time::timeout(FAREWELL_DEADLINE, saying).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_logged_once_a_second_and_counted_meanwhile() {
        let mut failures = Failures::default();
        let at = |millis| Duration::from_millis(millis);
        assert_eq!(failures.on_failure(at(0)), Some(0));
        assert_eq!(failures.on_failure(at(1)), None);
        assert_eq!(failures.on_failure(at(999)), None);
        assert_eq!(failures.on_failure(at(1000)), Some(2));
        assert_eq!(failures.on_failure(at(5000)), Some(0));
    }

    #[test]
    fn the_farewell_is_two_whole_frames() {
        let length = |at: usize| usize::from(GO_AWAY[at + 1]) << 8 | usize::from(GO_AWAY[at + 2]);
        assert_eq!((GO_AWAY[3], length(0)), (4, 0));
        assert_eq!((GO_AWAY[9 + 3], 9 + 9 + length(9)), (7, GO_AWAY.len()));
    }
}
