//! ZooKeeper under load: sessions whose requests are pipelined, in its native protocol ([`jute`](super::jute)).
//!
//! A read is `sync` and `getData` one behind the other in the same session: ZooKeeper has no single linearizable read, and
//! this pair, which is ordered by the leader but not confirmed by a majority, is the nearest that its clients use.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::{Bytes, BytesMut};
use flott_cli::bench::figures::Figures;
use flott_cli::bench::load::{Load, Place, run};
use flott_cli::bench::{KEYS, key};
use flott_node::{OnFailure, SharedClock, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use super::jute::{self, Kind, NODE_EXISTS, Reply};
use super::{ANSWER_TIMEOUT, spread};

/// The parent of all keys, and what a key begins with.
const PARENT: &str = "/flott-bench";
const PREFIX: &str = "/flott-bench/";
/// How long the server keeps a session without a sign of life; loads are never silent for so long.
const SESSION_TIMEOUT_MS: i32 = 20_000;
/// Requests of all places of a session that are not sent yet: each place has two at most.
const REQUESTS_MAX: usize = 2048;
/// What is written at once.
const REQUESTS_AT_ONCE_MAX: usize = 1024;

/// A request without its number, and where its answer goes.
struct Request {
    message: Box<dyn FnOnce(i32) -> Bytes + Send>,
    answer: oneshot::Sender<Result<(Reply, Bytes), String>>,
}

/// A session. Clones share it.
#[derive(Clone)]
struct Session {
    requests: mpsc::Sender<Request>,
    server: u64,
}

impl Session {
    /// Connects to the server with this index.
    async fn connect(servers: &[String], server: usize, tasks: &Tasks) -> anyhow::Result<Self> {
        let address = &servers[server];
        let begun = tokio::time::timeout(ANSWER_TIMEOUT, begin(address)).await;
        let connection = begun.context("no answer in time").and_then(|begun| begun);
        let connection = connection
            .with_context(|| format!("cannot begin a session with ZooKeeper at {address}"))?;
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        tasks.spawn("ZooKeeper session", OnFailure::Log, async move {
            converse(connection, receiver).await;
            Ok::<_, Infallible>(())
        });
        let server = server as u64 + 1;
        Ok(Self { requests, server })
    }

    async fn send(
        &self,
        message: impl FnOnce(i32) -> Bytes + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<(Reply, Bytes), String>>, String> {
        let (answer, answered) = oneshot::channel();
        let message = Box::new(message);
        let request = Request { message, answer };
        let ended = |_| "the session has ended".to_owned();
        self.requests.send(request).await.map_err(ended)?;
        Ok(answered)
    }

    async fn call(
        &self,
        message: impl FnOnce(i32) -> Bytes + Send + 'static,
    ) -> Result<Bytes, String> {
        done(self.send(message).await?).await
    }
}

/// The answer of a request that succeeded.
async fn done(
    answered: oneshot::Receiver<Result<(Reply, Bytes), String>>,
) -> Result<Bytes, String> {
    let (reply, body) = answered
        .await
        .map_err(|_| "the session has ended".to_owned())??;
    match reply.error {
        0 => Ok(body),
        error => Err(format!("ZooKeeper's error {error}")),
    }
}

async fn begin(address: &str) -> anyhow::Result<TcpStream> {
    let mut connection = TcpStream::connect(address).await?;
    connection.set_nodelay(true)?;
    connection
        .write_all(&jute::connect(SESSION_TIMEOUT_MS))
        .await?;
    let mut length = [0; 4];
    connection.read_exact(&mut length).await?;
    let length = u32::from_be_bytes(length) as usize;
    ensure!(
        length <= jute::MESSAGE_BYTES_MAX,
        "an answer of {length} bytes"
    );
    let mut answer = vec![0; length];
    connection.read_exact(&mut answer).await?;
    if jute::connected(answer.into())? == 0 {
        bail!("the server refused the session");
    }
    Ok(connection)
}

/// Sends what comes, all that waits at once, and hands out the answers, which come in the order of the requests. Ends with
/// the last handle, or with the connection; then whoever waits for an answer hears that the session has ended.
async fn converse(connection: TcpStream, mut requests: mpsc::Receiver<Request>) {
    let (mut reader, mut writer) = connection.into_split();
    let (mut input, mut output) = (BytesMut::with_capacity(64 << 10), BytesMut::new());
    let mut taken = Vec::with_capacity(REQUESTS_AT_ONCE_MAX);
    let mut sent = VecDeque::new();
    let mut number = 0_i32;
    loop {
        tokio::select! { biased;
            read = reader.read_buf(&mut input) => {
                if !read.is_ok_and(|read| read > 0) || !hand_out(&mut input, &mut sent) {
                    return;
                }
            }
            written = writer.write_buf(&mut output), if !output.is_empty() => {
                if written.is_err() {
                    return;
                }
            }
            count = requests.recv_many(&mut taken, REQUESTS_AT_ONCE_MAX), if output.is_empty() => {
                if count == 0 {
                    // The server ends the session anyway; so it need not wait for its timeout.
                    let _ = writer.write_all(&jute::close(number.wrapping_add(1))).await;
                    return;
                }
                for Request { message, answer } in taken.drain(..) {
                    number = number.checked_add(1).unwrap_or(1);
                    output.extend_from_slice(&message(number));
                    sent.push_back((number, answer));
                }
            }
        }
    }
}

type Sent = VecDeque<(i32, oneshot::Sender<Result<(Reply, Bytes), String>>)>;

/// Hands out all whole answers; whether the conversation makes sense.
fn hand_out(input: &mut BytesMut, sent: &mut Sent) -> bool {
    loop {
        let message = match jute::next_message(input) {
            Ok(Some(message)) => message,
            Ok(None) => return true,
            Err(_) => return false,
        };
        let (Ok((reply, body)), Some((number, answer))) = (jute::reply(message), sent.pop_front())
        else {
            return false;
        };
        if reply.number != number {
            return false;
        }
        // A place that has stopped waiting misses nothing.
        let _ = answer.send(Ok((reply, body)));
    }
}

/// The servers, and which of them leads.
#[derive(Clone, Debug)]
pub struct ZooKeeper {
    servers: Vec<String>,
    leader: usize,
    version: String,
}

impl ZooKeeper {
    /// Asks every server what it is.
    pub async fn find(servers: &[String]) -> anyhow::Result<Self> {
        let (mut leader, mut version) = (None, String::new());
        for (index, server) in servers.iter().enumerate() {
            let told = tokio::time::timeout(ANSWER_TIMEOUT, status(server)).await;
            let told = told.context("no answer in time").and_then(|told| told);
            let told = told.with_context(|| format!("ZooKeeper at {server}"))?;
            let line = |begins: &str| told.lines().find_map(|line| line.strip_prefix(begins));
            if line("Mode: ").with_context(|| format!("{server} serves nobody yet: {told}"))?
                == "leader"
            {
                leader = Some(index);
            }
            let whole = line("Zookeeper version: ").unwrap_or_default();
            version = whole
                .split(['-', ','])
                .next()
                .unwrap_or_default()
                .to_owned();
        }
        let leader = leader.context("ZooKeeper has no leader")?;
        let servers = servers.to_vec();
        Ok(Self {
            servers,
            leader,
            version,
        })
    }

    /// Its name and version.
    pub fn name(&self) -> String {
        format!("ZooKeeper {}", self.version)
    }

    /// Runs one load over `sessions` sessions.
    pub async fn measure(
        &self,
        load: &Load,
        in_flight: u64,
        sessions: u64,
        clock: &SharedClock,
    ) -> anyhow::Result<Figures> {
        let tasks = Tasks::default();
        let count = sessions.min(in_flight);
        let mut sessions = Vec::new();
        for server in spread(self.servers.len(), self.leader, count as usize) {
            sessions.push(Session::connect(&self.servers, server, &tasks).await?);
        }
        fill(&sessions[0], &load.value).await?;
        let place = |number: usize| ZooKeeperPlace {
            session: sessions[number % sessions.len()].clone(),
            path: key(PREFIX, number),
            bytes: load.value.len(),
        };
        let mut places: Vec<_> = (0..in_flight as usize).map(place).collect();
        let measured = run(&mut places, load, &**clock).await;
        Ok(Figures::new(load, in_flight, count, measured))
    }

    /// Waits until there is a leader, and a write succeeds at every server, within `limit`.
    pub async fn wait_ready(
        servers: &[String],
        limit: Duration,
        clock: &SharedClock,
    ) -> anyhow::Result<()> {
        super::compare::until(limit, clock, async || {
            Self::find(servers).await?;
            let tasks = Tasks::default();
            for server in 0..servers.len() {
                let session = Session::connect(servers, server, &tasks).await?;
                make(&session, PARENT.to_owned(), Bytes::new()).await?;
            }
            Ok(())
        })
        .await
    }
}

/// What the server's four-letter command says.
async fn status(server: &str) -> anyhow::Result<String> {
    let mut connection = TcpStream::connect(server).await?;
    connection.write_all(b"srvr").await?;
    let mut told = String::new();
    connection.read_to_string(&mut told).await?;
    Ok(told)
}

/// Makes all keys with this value.
async fn fill(session: &Session, value: &Bytes) -> anyhow::Result<()> {
    make(session, PARENT.to_owned(), Bytes::new()).await?;
    for number in 0..KEYS {
        let path = key(PREFIX, number);
        make(session, path.clone(), value.clone()).await?;
        let value = value.clone();
        let set = session
            .call(move |number| jute::set_data(number, &path, &value))
            .await;
        set.map_err(anyhow::Error::msg)?;
    }
    Ok(())
}

async fn make(session: &Session, path: String, value: Bytes) -> anyhow::Result<()> {
    let sent = session
        .send(move |number| jute::create(number, &path, &value))
        .await;
    let answered = sent.map_err(anyhow::Error::msg)?.await;
    let (reply, _) = answered
        .context("the session has ended")?
        .map_err(anyhow::Error::msg)?;
    let made = reply.error == 0 || reply.error == NODE_EXISTS;
    ensure!(
        made,
        "{:?} failed with ZooKeeper's error {}",
        Kind::Create,
        reply.error
    );
    Ok(())
}

struct ZooKeeperPlace {
    session: Session,
    path: String,
    bytes: usize,
}

impl ZooKeeperPlace {
    async fn within<T>(answer: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        let late = |_| Err("no answer in time".to_owned());
        tokio::time::timeout(ANSWER_TIMEOUT, answer)
            .await
            .unwrap_or_else(late)
    }
}

impl Place for ZooKeeperPlace {
    async fn write(&mut self, value: Bytes) -> Result<u64, String> {
        let path = self.path.clone();
        let set = self
            .session
            .call(move |number| jute::set_data(number, &path, &value));
        Self::within(set).await.map(|_| self.session.server)
    }

    async fn read(&mut self) -> Result<u64, String> {
        let (synced, path) = (self.path.clone(), self.path.clone());
        let read = async {
            let sync = self
                .session
                .send(move |number| jute::sync(number, &synced))
                .await?;
            let get = self
                .session
                .send(move |number| jute::get_data(number, &path))
                .await?;
            done(sync).await?;
            jute::data(done(get).await?).map_err(|error| error.to_string())
        };
        match Self::within(read).await? {
            data if data.len() == self.bytes => Ok(self.session.server),
            _ => Err("the read found something else than was written".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;

    use super::*;

    fn answer(number: i32) -> BytesMut {
        let mut message = BytesMut::new();
        message.put_i32(16);
        message.put_i32(number);
        message.put_i64(1);
        message.put_i32(0);
        message
    }

    #[test]
    fn answers_go_to_the_requests_in_their_order() {
        let (mut sent, mut answered) = (Sent::new(), Vec::new());
        for number in 1..=2 {
            let (sender, receiver) = oneshot::channel();
            sent.push_back((number, sender));
            answered.push(receiver);
        }
        let mut input = answer(1);
        assert!(hand_out(&mut input, &mut sent));
        assert_eq!(answered[0].try_recv().unwrap().unwrap().0.number, 1);
        assert!(answered[1].try_recv().is_err());
        let mut strange = answer(7);
        assert!(
            !hand_out(&mut strange, &mut sent),
            "an answer to another request ends the session"
        );
    }
}
