//! What a simulation puts in the place of a process's surroundings.
//!
//! A simulated process runs on one thread, beside others. Time, randomness and the file system are replaced below it, in
//! the calls to the system; here is what cannot be: connections, threads, object stores, and the end of the process. Only
//! builds with the feature `simulation` have any of it, and then only on a thread that has called [`enter`].

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use object_store::ObjectStore;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::failpoint::Failpoint;
use crate::mutant::Mutant;

/// The bytes of a connection.
pub trait Stream: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin> Stream for T {}

/// Connections, as somebody makes them.
pub type Incoming = BoxStream<'static, Box<dyn Stream>>;

/// A connection on its way.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// The surroundings of the processes on this thread. Every call is about the one that runs at the moment.
pub trait Environment: fmt::Debug + Send + Sync {
    /// Connects to `address`, `host:port`.
    fn connect(&self, address: &str) -> Connecting;

    /// Listens at `address`, `host:port`: the connections, as they come.
    fn listen(&self, address: &str) -> Incoming;

    /// The object store that all processes share: what `sim://` stands for.
    fn object_store(&self) -> Arc<dyn ObjectStore>;

    /// How long work takes for which a real process has other threads.
    fn blocking_takes(&self) -> Duration;

    /// How long the next write of the Raft log takes.
    fn log_write_takes(&self) -> Duration;

    /// How long the next proposal waits before Raft has it: as for room, where much is in flight.
    fn proposal_waits(&self) -> Duration;

    /// Bytes that are free on the disk, and all of them.
    fn disk_space(&self) -> (u64, u64);

    /// Bytes of a file of the Raft log: small ones, so that there are several.
    fn log_segment_bytes(&self) -> usize;

    /// The process comes by this point. Returns, but nothing that it does afterwards need have an effect.
    fn passes(&self, point: Failpoint);

    /// The process tells something of itself.
    fn tells(&self, told: Told);

    /// The process ends with this code. Returns, but nothing that it does afterwards has an effect.
    fn exit(&self, code: i32);

    /// Whether this defect is in the program.
    fn has(&self, mutant: Mutant) -> bool;
}

/// What a process tells of itself, for that is hard to see from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A task has begun.
    TaskBegan {
        /// Of the job, in hexadecimal.
        job: String,
        /// Its number.
        attempt: u32,
        /// Vertex and subtask.
        subtask: String,
        /// The checkpoint whose state it is given; 0: none, or what the job was submitted with.
        restored: u64,
    },
    /// It has ended, and holds nothing any more.
    TaskEnded {
        /// As it began.
        job: String,
        /// As it began.
        attempt: u32,
        /// As it began.
        subtask: String,
    },
    /// It has made visible what belongs to that checkpoint.
    TaskCommitted {
        /// As it began.
        job: String,
        /// As it began.
        attempt: u32,
        /// As it began.
        subtask: String,
        /// Which is complete.
        checkpoint: u64,
    },
    /// It has acknowledged a checkpoint.
    TaskAcknowledged {
        /// As it began.
        job: String,
        /// As it began.
        attempt: u32,
        /// As it began.
        subtask: String,
        /// Of which its part is stored.
        checkpoint: u64,
    },
    /// A TaskManager has taken a message as one of its leader.
    LeaderObeyed {
        /// Of the message.
        epoch: u64,
    },
    /// A JobManager has carried out an entry of its log.
    Decided {
        /// Of the entry.
        index: u64,
        /// Of its proposer.
        epoch: u64,
        /// By it the proposer takes office.
        takes_office: bool,
    },
    /// Something rare, in words.
    Happened(&'static str),
}

/// Something rare has happened, in words.
pub fn happened(what: &'static str) {
    tell(Told::Happened(what));
}

/// The process that runs at the moment tells this, if it is simulated.
pub fn tell(told: Told) {
    if let Some(environment) = environment() {
        environment.tells(told);
    }
}

thread_local! {
    static ENVIRONMENT: RefCell<Option<Arc<dyn Environment>>> = const { RefCell::new(None) };
}

/// From now on whatever runs on this thread is simulated.
pub fn enter(environment: Arc<dyn Environment>) {
    ENVIRONMENT.with_borrow_mut(|current| *current = Some(environment));
}

/// The surroundings, if this thread is simulated.
pub fn environment() -> Option<Arc<dyn Environment>> {
    ENVIRONMENT.with_borrow(Clone::clone)
}

/// Whether this thread is simulated.
pub fn is_on() -> bool {
    ENVIRONMENT.with_borrow(Option::is_some)
}
