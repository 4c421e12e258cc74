//! This TaskManager's end of all data connections: the listener, and which attempts are deployed here.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flott_node::config::options;
use flott_node::{OnFailure, SharedClock, Tasks, Transport};
use flott_proto::ids::{AttemptNumber, ClusterId, JobId, TaskManagerId};
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tracing::{info, warn};

use super::attempt::Over;
use super::frame::{FrameHeader, FrameKind};
use super::gate::InputGate;
use super::{ChannelId, inbound};
use crate::Error;

/// What a data connection begins with: the protocol and its version.
pub(super) const PREAMBLE: &[u8; 8] = b"FLOTTX01";
/// A handshake message names each channel; 64 KiB would be thousands.
const HANDSHAKE_BYTES_MAX: u32 = 4 << 20;
/// Allocated upon the word of a length alone; most batches are smaller.
const ALLOCATED_AT_ONCE: usize = 1 << 20;
/// How long a goodbye, or what comes before it, may take.
pub(super) const GOODBYE_DEADLINE: Duration = Duration::from_secs(1);
/// How long a sender waits here for the deployment of its attempt; then it asks again.
const DEPLOYMENT_DEADLINE: Duration = Duration::from_secs(10);
/// Data connections of one TaskManager: beyond any cluster this is meant for, below a process's file limit.
const CONNECTIONS_MAX: usize = 4096;
/// Jobs whose latest attempt is remembered after its end. Only senders that are late need it.
const ENDED_JOBS_MAX: usize = 1024;

/// Where the channels of an attempt end in this process.
#[derive(Debug)]
pub struct AttemptChannels {
    pub cluster: ClusterId,
    pub gates: BTreeMap<ChannelId, (Arc<InputGate>, usize)>,
    /// Cancelled when the attempt is over here.
    pub over: Arc<Over>,
}

/// The highest attempt of a job that was deployed here, and its channels while it lasts.
#[derive(Debug)]
struct Deployed {
    attempt: AttemptNumber,
    channels: Option<Arc<AttemptChannels>>,
}

/// The data listener and the register of deployed attempts.
#[derive(Debug)]
pub struct Exchange {
    id: TaskManagerId,
    address: String,
    deployed: Mutex<BTreeMap<JobId, Deployed>>,
    /// Counts changes of `deployed`, for those who wait for one.
    changes: watch::Sender<u64>,
    transport: Transport,
    tasks: Tasks,
    clock: SharedClock,
}

impl Exchange {
    /// Listens on `host:port` (port 0: any free one) until the tasks are cancelled.
    pub async fn bind(
        id: TaskManagerId,
        host: &str,
        port: u16,
        transport: Transport,
        tasks: Tasks,
        clock: SharedClock,
    ) -> Result<Arc<Self>, Error> {
        #[cfg(feature = "simulation")]
        if let Some(environment) = flott_node::simulation::environment() {
            let address = format!("{host}:{port}");
            let exchange = Self::at(id, address.clone(), transport, &tasks, clock);
            let incoming = environment.listen(&address);
            let accepting = Arc::clone(&exchange).accept_simulated(incoming);
            tasks.spawn("data listener", OnFailure::Shutdown, accepting);
            return Ok(exchange);
        }
        let failed = |source| Error::Io {
            place: format!(
                "cannot listen for data on {host}:{port} (taskmanager.host, taskmanager.data.port)"
            ),
            source,
        };
        let listener = TcpListener::bind((host, port)).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        transport.check_own_host(host, options::TASKMANAGER_HOST.key())?;
        transport.check_listener(bound, options::TASKMANAGER_HOST.key())?;
        let port = bound.port();
        let address = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        let exchange = Self::at(id, address, transport, &tasks, clock);
        let accepting = Arc::clone(&exchange);
        tasks.spawn(
            "data listener",
            OnFailure::Shutdown,
            accepting.accept(listener),
        );
        Ok(exchange)
    }

    fn at(
        id: TaskManagerId,
        address: String,
        transport: Transport,
        tasks: &Tasks,
        clock: SharedClock,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            address,
            deployed: Mutex::default(),
            changes: watch::Sender::new(0),
            transport,
            tasks: tasks.clone(),
            clock,
        })
    }

    /// host:port for other TaskManagers.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The TaskManager that this is the exchange of.
    pub fn id(&self) -> &TaskManagerId {
        &self.id
    }

    pub(super) fn clock(&self) -> &SharedClock {
        &self.clock
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    pub(super) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// The attempt's channels may be connected from now on.
    pub(super) fn register(
        &self,
        job: &JobId,
        attempt: AttemptNumber,
        channels: Arc<AttemptChannels>,
    ) {
        let mut deployed = self.lock_deployed();
        let entry = Deployed {
            attempt,
            channels: Some(channels),
        };
        if let Some(before) = deployed.insert(job.clone(), entry) {
            assert!(
                before.attempt < attempt,
                "attempts rise: {} then {attempt}",
                before.attempt
            );
        }
        while deployed.len() > ENDED_JOBS_MAX {
            let ended = deployed.iter().find(|(_, entry)| entry.channels.is_none());
            let Some(ended) = ended.map(|(job, _)| job.clone()) else {
                break;
            };
            deployed.remove(&ended);
        }
        drop(deployed);
        self.changes.send_modify(|count| *count += 1);
    }

    /// The attempt is over here.
    pub(super) fn unregister(&self, job: &JobId, attempt: AttemptNumber) {
        let mut deployed = self.lock_deployed();
        if let Some(entry) = deployed
            .get_mut(job)
            .filter(|entry| entry.attempt == attempt)
        {
            entry.channels = None;
        }
        drop(deployed);
        self.changes.send_modify(|count| *count += 1);
    }

    /// The channels of an attempt, once it is deployed here. Otherwise why not, and whether asking again can help.
    pub(super) async fn deployed(
        &self,
        job: &JobId,
        attempt: AttemptNumber,
    ) -> Result<Arc<AttemptChannels>, (String, bool)> {
        let mut changes = self.changes.subscribe();
        let wait = async {
            loop {
                match self.lock_deployed().get(job) {
                    Some(entry) if entry.attempt > attempt => {
                        return Err((
                            format!("attempt {attempt} was replaced by {}", entry.attempt),
                            false,
                        ));
                    }
                    Some(entry) if entry.attempt == attempt => {
                        let over = || (format!("attempt {attempt} is over"), false);
                        return entry.channels.clone().ok_or_else(over);
                    }
                    _ => (),
                }
                if changes.changed().await.is_err() {
                    return Err(("shutting down".into(), false));
                }
            }
        };
        let waited = tokio::time::timeout(DEPLOYMENT_DEADLINE, wait).await;
        waited.unwrap_or_else(|_| Err((format!("attempt {attempt} is not deployed"), true)))
    }

    fn lock_deployed(&self) -> MutexGuard<'_, BTreeMap<JobId, Deployed>> {
        self.deployed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) -> Result<(), Infallible> {
        let cancelled = self.tasks.cancellation().clone();
        let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        info!(address = self.address, "listening for data");
        loop {
            let accepted = tokio::select! { biased;
                () = cancelled.cancelled() => return Ok(()),
                accepted = accept_one(&listener, &free) => accepted,
            };
            match accepted {
                Ok((stream, permit)) => {
                    let exchange = Arc::clone(&self);
                    self.tasks
                        .spawn("data connection in", OnFailure::Log, async move {
                            inbound::accept_and_serve(stream, exchange).await;
                            drop(permit);
                            Ok::<_, Infallible>(())
                        });
                }
                Err(error) => {
                    // Out of file descriptors, say: the peer tries again, and so do we.
                    warn!(%error, "cannot accept a data connection");
                    self.clock.sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

#[cfg(feature = "simulation")]
impl Exchange {
    async fn accept_simulated(
        self: Arc<Self>,
        mut incoming: flott_node::simulation::Incoming,
    ) -> Result<(), Infallible> {
        use tokio_stream::StreamExt;
        while let Some(stream) = incoming.next().await {
            let exchange = Arc::clone(&self);
            let stream = flott_node::tls::Connection::simulated(stream, "a simulated peer");
            self.tasks
                .spawn("data connection in", OnFailure::Log, async move {
                    inbound::serve(stream, exchange).await;
                    Ok::<_, Infallible>(())
                });
        }
        Ok(())
    }
}

async fn accept_one(
    listener: &TcpListener,
    free: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(free)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

/// Reads a handshake message behind its length.
pub(super) async fn read_message<M: Message + Default>(
    reader: &mut (impl AsyncRead + Unpin),
) -> Result<M, Error> {
    let failed = |source| Error::Io {
        place: "data connection handshake".into(),
        source,
    };
    let length = reader.read_u32_le().await.map_err(failed)?;
    if length > HANDSHAKE_BYTES_MAX {
        return Err(Error::Protocol(format!("a handshake of {length} bytes")));
    }
    let bytes = read_bytes(reader, length).await.map_err(failed)?;
    M::decode(bytes.as_slice()).map_err(|error| Error::Protocol(format!("handshake: {error}")))
}

/// Reads so many bytes. What they take grows with those that have come, whatever the length says.
pub(super) async fn read_bytes(
    reader: &mut (impl AsyncRead + Unpin),
    length: u32,
) -> std::io::Result<Vec<u8>> {
    let length = length as usize;
    let mut bytes = Vec::with_capacity(length.min(ALLOCATED_AT_ONCE));
    reader.take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() == length {
        Ok(bytes)
    } else {
        Err(std::io::ErrorKind::UnexpectedEof.into())
    }
}

/// Writes a handshake message behind its length.
pub(super) async fn write_message(
    writer: &mut (impl AsyncWrite + Unpin),
    message: &impl Message,
) -> Result<(), Error> {
    let mut bytes = (message.encoded_len() as u32).to_le_bytes().to_vec();
    bytes.extend(message.encode_to_vec());
    let written = async {
        writer.write_all(&bytes).await?;
        writer.flush().await
    };
    written.await.map_err(|source| Error::Io {
        place: "data connection handshake".into(),
        source,
    })
}

/// Lets the peer know that the end is an orderly one, if it is. Best effort: without it the peer's tasks fail.
pub(super) async fn say_goodbye(
    writer: &mut (impl AsyncWrite + Unpin),
    over: &Over,
    clock: &SharedClock,
) {
    if !over.is_orderly() {
        return;
    }
    let mut frame = Vec::new();
    let written = FrameHeader::control(FrameKind::Goodbye, 0).write(&[], &mut frame);
    debug_assert!(written.is_ok());
    let say = async {
        if writer.write_all(&frame).await.is_ok() {
            drop(writer.shutdown().await);
        }
    };
    tokio::select! {
        () = say => (),
        () = clock.sleep(GOODBYE_DEADLINE) => (),
    }
}

/// Reads and drops until the peer closes, within limits.
pub(super) async fn drain(reader: &mut (impl AsyncRead + Unpin), clock: &SharedClock) {
    let drain = async {
        let mut buffer = vec![0; 64 * 1024];
        while reader.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    };
    tokio::select! {
        () = drain => (),
        () = clock.sleep(GOODBYE_DEADLINE) => (),
    }
}
