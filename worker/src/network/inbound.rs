//! The receiving end of a connection: reads frames into the gates, and carries grants back.
//!
//! ```text
//! hello ──wrong cluster, receiver, attempt or channel──▶ refused
//!   └──(waits until the attempt is deployed here)──▶ accepted ──▶ pump ──attempt over──▶ goodbye, drain, close
//!                                                                  └──error, end──▶ lost: the receiving tasks fail
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flott_node::tls::{Connection, Halves, Protocol, Role};
use flott_proto::ids::TaskManagerId;
use flott_proto::wire::{Hello, HelloReply};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use super::attempt::Over;
use super::codec::ChannelDecoder;
use super::exchange::{self, AttemptChannels, Exchange};
use super::frame::{FrameHeader, FrameKind, HEADER_BYTES};
use super::gate::{CHANNEL_CREDIT, InputGate};
use super::outbound::End;
use super::{ChannelId, Cost};
use crate::{Error, metrics};

/// A peer that opens a connection says hello at once.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);
/// Read at once where frames are small.
const READ_BYTES: usize = 256 * 1024;

/// Grants on their way back to the sender, added up by channel while the connection is busy.
#[derive(Debug, Default)]
pub struct GrantSink {
    pending: Mutex<BTreeMap<u32, Cost>>,
    work: Notify,
}

impl GrantSink {
    /// The task consumed that much of a channel.
    pub fn grant(&self, channel: u32, cost: Cost) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        *pending.entry(channel).or_default() += cost;
        drop(pending);
        self.work.notify_one();
    }

    fn take(&self) -> BTreeMap<u32, Cost> {
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The channels of an accepted connection.
struct Inbound {
    sender: TaskManagerId,
    channels: Vec<(Arc<InputGate>, usize)>,
    sink: Arc<GrantSink>,
    over: Arc<Over>,
    orderly: bool,
}

impl Inbound {
    fn fail(&mut self, what: &str) {
        self.orderly = true;
        for (gate, _) in &self.channels {
            gate.mailbox().interrupt(Error::ConnectionLost {
                peer: self.sender.clone(),
                what: what.to_owned(),
            });
        }
    }
}

impl Drop for Inbound {
    /// Also when the connection's future panics or is dropped.
    fn drop(&mut self) {
        if !self.orderly {
            self.fail("its connection was given up");
        }
    }
}

/// Runs one accepted socket to its end.
pub(super) async fn accept_and_serve(stream: TcpStream, exchange: Arc<Exchange>) {
    let accepted = exchange.transport().accept(stream, Protocol::Data).await;
    match accepted {
        Ok(stream) => serve(stream, exchange).await,
        Err(error) => warn!(%error, "data connection refused"),
    }
}

/// Runs one connection to its end.
pub(super) async fn serve(mut stream: Connection, exchange: Arc<Exchange>) {
    let hello = match tokio::time::timeout(HELLO_DEADLINE, read_hello(&mut stream)).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(error)) => return debug!(%error, "not a data connection"),
        Err(_) => return debug!("a connection said no hello"),
    };
    let (job, attempt) = (hello.job_id.clone(), hello.attempt);
    let admitted = stream.peer().admit(&[Role::TaskManager]);
    let accepted = match admitted {
        Ok(()) => accept(&hello, &exchange).await,
        Err(reason) => Err((reason, false)),
    };
    let mut inbound = match accepted {
        Ok(inbound) => inbound,
        Err((refusal, retry)) => {
            info!(
                job,
                attempt,
                sender = hello.sender,
                refusal,
                "data connection refused"
            );
            let reply = HelloReply {
                refusal,
                retry,
                ..HelloReply::default()
            };
            if let Err(error) = exchange::write_message(&mut stream, &reply).await {
                debug!(%error, "refusal not delivered");
            }
            return;
        }
    };
    let reply = HelloReply {
        credit_rows: CHANNEL_CREDIT.rows,
        credit_bytes: CHANNEL_CREDIT.bytes,
        ..HelloReply::default()
    };
    if let Err(error) = exchange::write_message(&mut stream, &reply).await {
        return inbound.fail(&error.full_text());
    }
    metrics::connection_opened();
    let end = pump(&inbound, &exchange, stream).await;
    metrics::connection_closed();
    let sender = inbound.sender.clone();
    match end {
        _ if inbound.over.is_cancelled() => inbound.orderly = true,
        End::Orderly => {
            info!(job, attempt, %sender, "data connection closed by the sender");
            inbound.orderly = true;
        }
        End::Lost(what) => {
            warn!(job, attempt, %sender, cause = what, "data connection lost");
            inbound.fail(&what);
        }
    }
}

async fn read_hello(stream: &mut Connection) -> Result<Hello, Error> {
    let failed = |source| Error::Io {
        place: "data connection handshake".into(),
        source,
    };
    let mut preamble = [0; exchange::PREAMBLE.len()];
    stream.read_exact(&mut preamble).await.map_err(failed)?;
    if preamble != *exchange::PREAMBLE {
        return Err(Error::Protocol(format!("preamble {preamble:?}")));
    }
    exchange::read_message(stream).await
}

/// Why not, and whether asking again can help.
type Refusal = (String, bool);

async fn accept(hello: &Hello, exchange: &Exchange) -> Result<Inbound, Refusal> {
    let never = |what: String| (what, false);
    let malformed = |error: flott_proto::Malformed| (error.to_string(), false);
    if hello.receiver != exchange.id().as_str() {
        return Err(never(format!(
            "this is task manager {}, not {}",
            exchange.id(),
            hello.receiver
        )));
    }
    let sender: TaskManagerId = hello.sender.parse().map_err(malformed)?;
    let job = hello.job_id.parse().map_err(malformed)?;
    let attempt: Arc<AttemptChannels> = exchange
        .deployed(&job, flott_proto::ids::AttemptNumber(hello.attempt))
        .await?;
    if attempt.cluster.as_str() != hello.cluster_id {
        return Err(never(format!(
            "the job is of cluster {}, not {}",
            attempt.cluster, hello.cluster_id
        )));
    }
    let sink = Arc::new(GrantSink::default());
    let mut channels = Vec::with_capacity(hello.channels.len());
    for wire in &hello.channels {
        let id = ChannelId::from(wire);
        let (gate, position) = attempt
            .gates
            .get(&id)
            .ok_or_else(|| never(format!("{id} does not end here")))?;
        channels.push((Arc::clone(gate), *position));
    }
    for (number, (gate, position)) in channels.iter().enumerate() {
        if !gate.attach(*position, &sink, number as u32) {
            return Err(never("its channels are connected already".into()));
        }
    }
    Ok(Inbound {
        sender,
        channels,
        sink,
        over: Arc::clone(&attempt.over),
        orderly: false,
    })
}

async fn pump(inbound: &Inbound, exchange: &Exchange, stream: Connection) -> End {
    match stream.into_halves() {
        Halves::PlainText(stream) => {
            let (reader, writer) = stream.into_split();
            pump_halves(inbound, exchange, reader, writer).await
        }
        Halves::Tls(stream) => {
            let (reader, writer) = tokio::io::split(*stream);
            pump_halves(inbound, exchange, reader, writer).await
        }
    }
}

async fn pump_halves(
    inbound: &Inbound,
    exchange: &Exchange,
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
) -> End {
    let mut reader = BufReader::with_capacity(READ_BYTES, reader);
    let end = tokio::select! {
        end = read_elements(inbound, &mut reader) => end,
        end = write_grants(inbound, exchange, writer) => end,
    };
    if inbound.over.is_cancelled() && inbound.over.is_orderly() {
        // Closing with data unread would reset the connection, and the goodbye might not arrive.
        exchange::drain(&mut reader, exchange.clock()).await;
    }
    end
}

async fn read_elements(inbound: &Inbound, reader: &mut (impl AsyncRead + Unpin)) -> End {
    let mut decoders: Vec<ChannelDecoder> = inbound
        .channels
        .iter()
        .map(|_| ChannelDecoder::default())
        .collect();
    let channels = decoders.len() as u32;
    loop {
        match read_element(inbound, &mut decoders, channels, reader).await {
            Ok(true) => (),
            Ok(false) => return End::Orderly,
            Err(error) => return End::Lost(error.full_text()),
        }
    }
}

/// False at the sender's goodbye.
async fn read_element(
    inbound: &Inbound,
    decoders: &mut [ChannelDecoder],
    channels: u32,
    reader: &mut (impl AsyncRead + Unpin),
) -> Result<bool, Error> {
    let (header, body) = read_frame(channels, reader).await?;
    if header.kind == FrameKind::Goodbye {
        return Ok(false);
    }
    metrics::bytes_received(HEADER_BYTES + body.len());
    let number = header.channel as usize;
    let (element, cost) = decoders[number].decode(&header, body)?;
    let (gate, position) = &inbound.channels[number];
    gate.push_remote(*position, element, cost)?;
    Ok(true)
}

/// A frame whose checksum is right.
async fn read_frame(
    channels: u32,
    reader: &mut (impl AsyncRead + Unpin),
) -> Result<(FrameHeader, Vec<u8>), Error> {
    let failed = |source| Error::Io {
        place: "reading failed".into(),
        source,
    };
    let mut head = [0; HEADER_BYTES];
    reader.read_exact(&mut head).await.map_err(failed)?;
    let header = FrameHeader::decode(&head, channels)?;
    let body = exchange::read_bytes(reader, header.body_length).await;
    let body = body.map_err(failed)?;
    header.check(&body)?;
    Ok((header, body))
}

async fn write_grants(
    inbound: &Inbound,
    exchange: &Exchange,
    mut writer: impl AsyncWrite + Unpin,
) -> End {
    let mut buffer = Vec::new();
    loop {
        tokio::select! {
            () = inbound.sink.work.notified() => (),
            () = inbound.over.cancelled() => {
                exchange::say_goodbye(&mut writer, &inbound.over, exchange.clock()).await;
                return End::Orderly;
            }
        }
        buffer.clear();
        for (channel, cost) in inbound.sink.take() {
            if let Err(error) = encode_grant(channel, cost, &mut buffer) {
                return End::Lost(error.full_text());
            }
        }
        let written = async {
            writer.write_all(&buffer).await?;
            writer.flush().await
        };
        if let Err(error) = written.await {
            return End::Lost(format!("writing failed: {error}"));
        }
    }
}

/// A grant beyond what a frame can say takes several.
fn encode_grant(channel: u32, mut cost: Cost, out: &mut Vec<u8>) -> Result<(), Error> {
    while cost != Cost::default() {
        let (rows, bytes) = (
            cost.rows.min(u32::MAX.into()),
            cost.bytes.min(u32::MAX.into()),
        );
        let header = FrameHeader {
            rows: rows as u32,
            bytes: bytes as u32,
            ..FrameHeader::control(FrameKind::Credit, channel)
        };
        header.write(&[], out)?;
        cost -= Cost { rows, bytes };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use flott_decoders::{Seeds, kind, told};
    use prost::Message;

    use super::*;

    /// What comes is a handshake, then frames; and no length makes it take memory for what does not come.
    #[test]
    fn any_bytes_on_a_connection_are_a_handshake_and_frames_or_refused() {
        let hello = Hello {
            sender: "tm-1".into(),
            receiver: "tm-2".into(),
            ..Hello::default()
        };
        let mut frames = Vec::new();
        let header = FrameHeader::control(FrameKind::Watermark, 1);
        header.write(&7_i64.to_le_bytes(), &mut frames).unwrap();
        FrameHeader::control(FrameKind::Goodbye, 0)
            .write(&[], &mut frames)
            .unwrap();
        let length = (hello.encoded_len() as u32).to_le_bytes();
        let handshake = [&length[..], &hello.encode_to_vec()].concat();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        flott_decoders::check!(Seeds::of([frames, handshake])).for_each(|bytes: &[u8]| {
            runtime.block_on(async {
                let mut reader = bytes;
                while let Ok((header, body)) = told(read_frame(5, &mut reader).await) {
                    kind(header.kind);
                    assert_eq!(header.body_length as usize, body.len());
                }
                drop(told(exchange::read_message::<Hello>(&mut &bytes[..]).await));
            });
        });
    }
}
