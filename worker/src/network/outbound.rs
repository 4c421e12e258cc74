//! The sending end of a connection: all channels from the tasks here to those of one other TaskManager.
//!
//! ```text
//! connect ──refused, not deployed yet: again──▶ connect … ──hello accepted──▶ pump ──attempt over──▶ goodbye, close
//!    └──no success in time──▶ lost                                              └──error, end──────▶ lost
//! ```
//!
//! Tasks put elements into their channel's queue and never wait for the network itself, only for credit. One writer
//! takes a channel's next element in turn, and sends whatever is there with one write: small elements share a packet
//! under load, and nothing lingers when there is none. Lost means that the sending tasks fail and name the peer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flott_node::tls::{self, Connection, Halves, Whom};
use flott_proto::ids::{AttemptNumber, ClusterId, JobId, LeaderEpoch, TaskManagerId};
use flott_proto::wire::{Hello, HelloReply};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use super::attempt::Over;
use super::codec::ChannelEncoder;
use super::credit::Credit;
use super::exchange::{self, Exchange};
use super::frame::{FrameHeader, FrameKind, HEADER_BYTES};
use super::gate::CHANNEL_CREDIT;
use super::queue::ElementQueue;
use super::topology::Location;
use super::{ChannelId, Cost, Element};
use crate::task::mailbox::Mailbox;
use crate::{Error, metrics};

/// How long a peer may take until it has deployed its part of the attempt.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// A peer that refuses connections has no listener any more: it is dead, and waiting on only delays the recovery.
const REFUSED_DEADLINE: Duration = Duration::from_secs(1);
/// Between two tries.
const CONNECT_RETRY: Duration = Duration::from_millis(25);
/// A write carries up to about so much.
const WRITE_BYTES: usize = 256 * 1024;

#[derive(Debug)]
struct Channel {
    queue: ElementQueue,
    credit: Credit,
    sender: Arc<Mailbox>,
    /// The sender waits for credit.
    waiting: bool,
    /// It is among `State::ready`.
    ready: bool,
}

#[derive(Debug)]
struct State {
    channels: Vec<Channel>,
    /// Channels with something to send, in turn.
    ready: VecDeque<u32>,
}

/// Between the tasks that send and the connection's writer.
#[derive(Debug)]
pub struct Outbound {
    peer: Location,
    ids: Vec<ChannelId>,
    state: Mutex<State>,
    work: Notify,
}

/// What a connection is for.
#[derive(Clone, Debug)]
pub struct Purpose {
    pub cluster: ClusterId,
    pub job: JobId,
    pub attempt: AttemptNumber,
    pub epoch: LeaderEpoch,
    /// Cancelled when the attempt is over here.
    pub over: Arc<Over>,
}

/// How a connection came to its end.
#[derive(Debug)]
pub(super) enum End {
    /// Either side's attempt is over.
    Orderly,
    Lost(String),
}

impl Outbound {
    /// To `peer`; the channels with the mailboxes of their sending tasks are numbered as they stand.
    pub fn new(peer: Location, channels: Vec<(ChannelId, Arc<Mailbox>)>) -> Self {
        let channel = |(_, sender): &(ChannelId, Arc<Mailbox>)| Channel {
            queue: ElementQueue::default(),
            credit: Credit::new(CHANNEL_CREDIT),
            sender: Arc::clone(sender),
            waiting: false,
            ready: false,
        };
        Self {
            peer,
            state: Mutex::new(State {
                channels: channels.iter().map(channel).collect(),
                ready: VecDeque::new(),
            }),
            ids: channels.into_iter().map(|(id, _)| id).collect(),
            work: Notify::new(),
        }
    }

    /// Queues an element of a channel, or gives it back if there is no credit; its task is then woken once there is.
    pub fn try_push(&self, number: u32, element: Element, cost: Cost) -> Result<(), Element> {
        let mut state = self.state();
        let channel = &mut state.channels[number as usize];
        if !channel.credit.take(cost) {
            channel.waiting = true;
            return Err(element);
        }
        channel.queue.push(element, cost);
        if !std::mem::replace(&mut channel.ready, true) {
            state.ready.push_back(number);
        }
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    /// The next element to send.
    fn pop(&self) -> Option<(u32, Element, Cost)> {
        let mut state = self.state();
        let number = state.ready.pop_front()?;
        let channel = &mut state.channels[number as usize];
        let (element, cost) = channel.queue.pop().expect("a ready channel has an element");
        channel.ready = !channel.queue.is_empty();
        if channel.ready {
            state.ready.push_back(number);
        }
        Some((number, element, cost))
    }

    fn on_grant(&self, number: u32, grant: Cost) -> Result<(), Error> {
        let mut state = self.state();
        let channel = &mut state.channels[number as usize];
        channel
            .credit
            .give_back(grant)
            .map_err(|error| Error::Protocol(error.to_string()))?;
        if std::mem::take(&mut channel.waiting) {
            let sender = Arc::clone(&channel.sender);
            drop(state);
            sender.wake();
        }
        Ok(())
    }

    /// All tasks that send here fail.
    fn fail(&self, what: &str) {
        for channel in &self.state().channels {
            channel.sender.interrupt(Error::ConnectionLost {
                peer: self.peer.task_manager.clone(),
                what: what.to_owned(),
            });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fails the tasks unless it is told that the end was orderly: also when the connection's future panics or is dropped.
struct FailUnlessOrderly {
    outbound: Arc<Outbound>,
    orderly: bool,
}

impl Drop for FailUnlessOrderly {
    fn drop(&mut self) {
        if !self.orderly {
            self.outbound.fail("its connection was given up");
        }
    }
}

/// Runs a connection to its end.
pub(super) async fn run(outbound: Arc<Outbound>, exchange: Arc<Exchange>, purpose: Purpose) {
    let mut guard = FailUnlessOrderly {
        outbound: Arc::clone(&outbound),
        orderly: false,
    };
    let peer = &outbound.peer.task_manager;
    let stream = tokio::select! { biased;
        () = purpose.over.cancelled() => {
            guard.orderly = true;
            return;
        }
        stream = connect(&outbound, &exchange, &purpose) => stream,
    };
    let end = match stream {
        Err(what) => End::Lost(what),
        Ok((stream, limit)) => {
            info!(job = %purpose.job, attempt = %purpose.attempt, %peer, channels = outbound.ids.len(), "data connection opened");
            metrics::connection_opened();
            for channel in &mut outbound.state().channels {
                channel.credit.set_limit(limit);
            }
            let end = pump(&outbound, &exchange, &purpose, stream).await;
            metrics::connection_closed();
            end
        }
    };
    match end {
        _ if purpose.over.is_cancelled() => guard.orderly = true,
        End::Orderly => {
            info!(job = %purpose.job, attempt = %purpose.attempt, %peer, "data connection closed by the receiver");
            guard.orderly = true;
        }
        End::Lost(what) => {
            warn!(job = %purpose.job, attempt = %purpose.attempt, %peer, cause = what, "data connection lost");
            outbound.fail(&what);
            guard.orderly = true;
        }
    }
}

/// Until the peer accepts, or has had its time.
async fn connect(
    outbound: &Outbound,
    exchange: &Exchange,
    purpose: &Purpose,
) -> Result<(Connection, Cost), String> {
    let mut failure = "no answer".to_owned();
    tokio::select! {
        connected = try_to_connect(outbound, exchange, purpose, &mut failure) => return connected,
        () = exchange.clock().sleep(CONNECT_DEADLINE) => (),
    }
    Err(format!(
        "cannot connect to {}: {failure}",
        outbound.peer.address
    ))
}

/// Until the peer accepts, refuses for good, or is dead. `failure` is always the latest.
async fn try_to_connect(
    outbound: &Outbound,
    exchange: &Exchange,
    purpose: &Purpose,
    failure: &mut String,
) -> Result<(Connection, Cost), String> {
    let (peer, clock) = (&outbound.peer, exchange.clock());
    let mut refused_since = None;
    loop {
        let connecting = exchange
            .transport()
            .connect(&peer.address, Whom::TaskManager);
        *failure = match connecting.await {
            Ok(stream) => {
                refused_since = None;
                match say_hello(stream, outbound, exchange.id(), purpose).await {
                    Ok((stream, reply)) if reply.refusal.is_empty() => {
                        let limit = Cost {
                            rows: reply.credit_rows,
                            bytes: reply.credit_bytes,
                        };
                        return Ok((stream, limit));
                    }
                    Ok((_, reply)) if !reply.retry => {
                        return Err(format!("refused by {}: {}", peer.address, reply.refusal));
                    }
                    Ok((_, reply)) => reply.refusal,
                    // Time does not mend a certificate.
                    Err(error) => match tls::refusal(&error) {
                        Some(reason) => return Err(reason),
                        None => error.full_text(),
                    },
                }
            }
            Err(error) => {
                if error.kind() == std::io::ErrorKind::ConnectionRefused {
                    refused_since.get_or_insert(clock.monotonic());
                }
                if let Some(reason) = tls::refusal(&error) {
                    return Err(reason);
                }
                error.to_string()
            }
        };
        let now = clock.monotonic();
        if refused_since.is_some_and(|since| now.saturating_sub(since) >= REFUSED_DEADLINE) {
            return Err(format!("cannot connect to {}: {failure}", peer.address));
        }
        debug!(peer = %peer.task_manager, failure = failure.as_str(), "data connection not accepted yet");
        clock.sleep(CONNECT_RETRY).await;
    }
}

async fn say_hello(
    mut stream: Connection,
    outbound: &Outbound,
    own: &TaskManagerId,
    purpose: &Purpose,
) -> Result<(Connection, HelloReply), Error> {
    let failed = |source| Error::Io {
        place: "data connection handshake".into(),
        source,
    };
    let hello = Hello {
        cluster_id: purpose.cluster.to_string(),
        job_id: purpose.job.to_string(),
        attempt: purpose.attempt.0,
        sender: own.to_string(),
        receiver: outbound.peer.task_manager.to_string(),
        epoch: purpose.epoch.0,
        channels: outbound.ids.iter().copied().map(Into::into).collect(),
    };
    stream.write_all(exchange::PREAMBLE).await.map_err(failed)?;
    exchange::write_message(&mut stream, &hello).await?;
    let reply = exchange::read_message(&mut stream).await?;
    Ok((stream, reply))
}

async fn pump(
    outbound: &Outbound,
    exchange: &Exchange,
    purpose: &Purpose,
    stream: Connection,
) -> End {
    match stream.into_halves() {
        Halves::PlainText(stream) => {
            let (reader, writer) = stream.into_split();
            pump_halves(outbound, exchange, purpose, reader, writer).await
        }
        Halves::Tls(stream) => {
            let (reader, writer) = tokio::io::split(*stream);
            pump_halves(outbound, exchange, purpose, reader, writer).await
        }
    }
}

async fn pump_halves(
    outbound: &Outbound,
    exchange: &Exchange,
    purpose: &Purpose,
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
) -> End {
    let mut reader = BufReader::new(reader);
    let end = tokio::select! {
        end = read_grants(outbound, &mut reader) => end,
        end = write_elements(outbound, exchange, &purpose.over, writer) => end,
    };
    if purpose.over.is_cancelled() && purpose.over.is_orderly() {
        // Closing with grants unread would reset the connection, and the goodbye might not arrive.
        exchange::drain(&mut reader, exchange.clock()).await;
    }
    end
}

async fn read_grants(outbound: &Outbound, reader: &mut (impl AsyncRead + Unpin)) -> End {
    let channels = outbound.ids.len() as u32;
    loop {
        let mut head = [0; HEADER_BYTES];
        if let Err(error) = reader.read_exact(&mut head).await {
            return End::Lost(format!("reading failed: {error}"));
        }
        let frame = FrameHeader::decode(&head, channels).and_then(|header| {
            header.check(&[])?;
            match header.kind {
                FrameKind::Goodbye => Ok(true),
                FrameKind::Credit => {
                    let grant = Cost {
                        rows: header.rows.into(),
                        bytes: header.bytes.into(),
                    };
                    outbound.on_grant(header.channel, grant).map(|()| false)
                }
                other => Err(Error::Protocol(format!("{other:?} from the receiving end"))),
            }
        });
        match frame {
            Ok(true) => return End::Orderly,
            Ok(false) => (),
            Err(error) => return End::Lost(error.to_string()),
        }
    }
}

async fn write_elements(
    outbound: &Outbound,
    exchange: &Exchange,
    over: &Over,
    mut writer: impl AsyncWrite + Unpin,
) -> End {
    let mut encoders: Vec<ChannelEncoder> = outbound
        .ids
        .iter()
        .map(|_| ChannelEncoder::default())
        .collect();
    let mut buffer = Vec::with_capacity(WRITE_BYTES);
    loop {
        buffer.clear();
        if over.is_cancelled() {
            exchange::say_goodbye(&mut writer, over, exchange.clock()).await;
            return End::Orderly;
        }
        while buffer.len() < WRITE_BYTES {
            let Some((number, element, cost)) = outbound.pop() else {
                break;
            };
            let encoded = encoders[number as usize].encode(number, &element, cost, &mut buffer);
            if let Err(error) = encoded {
                return End::Lost(error.full_text());
            }
        }
        if buffer.is_empty() {
            tokio::select! {
                () = outbound.work.notified() => (),
                () = over.cancelled() => (),
            }
            continue;
        }
        metrics::bytes_sent(buffer.len());
        // A frame cut short would be a protocol error, so even when the attempt is over a write has its time to end.
        let given_up = async {
            over.cancelled().await;
            exchange.clock().sleep(exchange::GOODBYE_DEADLINE).await;
        };
        // TLS keeps what the network does not take at once until it is told to send it.
        let written = async {
            writer.write_all(&buffer).await?;
            writer.flush().await
        };
        tokio::select! {
            written = written => if let Err(error) = written {
                return End::Lost(format!("writing failed: {error}"));
            },
            () = given_up => return End::Orderly,
        }
    }
}
