//! The Raft log on disk: entries, vote, committed and purged positions, and the storage marker.
//!
//! ```text
//!   RaftCore ──append/vote/truncate/purge──▶ tail (memory, readable at once)
//!                                       └──▶ queue ──▶ writer thread ──▶ one frame, one sync ──▶ acknowledged
//!   replication, apply ◀── tail for recent entries, files for older ones
//! ```
//!
//! What must stay true:
//!
//! - Nothing is acknowledged before it is on disk, and in the order in which it was submitted: votes and entries share
//!   one queue, because a vote that becomes durable after the entries it precedes loses committed data.
//! - An entry is readable when `append` returns. The tail keeps every entry that is not on disk yet.
//! - After a failed write nothing is ever acknowledged again: the process ends ([`ExitHook`]).
//!
//! A log of our own rather than a general store: it appends, cuts its end, drops its beginning, and reads ranges, and a
//! sync is most of what a decision costs. Files that are written over need half the time of growing ones, and nothing is
//! written twice.
//!
//! [`tail`] is the memory, [`writer`] the thread. [`disk`] is the log on disk, of [`segment`]s, each holding frames of
//! [`entry`]s and votes; [`recovery`] reads and checks it, [`spares`] makes the files.

mod disk;
mod entry;
mod recovery;
mod segment;
mod spares;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt::{self, Debug};
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flott_proto::wire;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use prost::Message;
use tokio::sync::{mpsc, oneshot};

use self::disk::{Disk, Stored};
use self::tail::{Tail, Wanted};
pub(crate) use self::writer::{ExitHook, WriteFault, WriterThread};
use self::writer::{Write, Writer};
use super::codec;
use super::directory::DataDirectory;
use super::error::RaftError;
use super::types::{Ballot, Entry, LogId, TypeConfig};

/// Writes that wait for the writer thread. When it is full, Raft waits for the disk.
const QUEUE_MAX: usize = 1024;

/// Encoded entries that one read for a follower returns at most, unless a single entry is larger. The size of a
/// replication request.
const READ_BYTES_MAX: usize = 1 << 20;

/// How the log is opened. The default is production's.
#[derive(Clone)]
pub(crate) struct LogOptions {
    /// Called after a write failed.
    pub(crate) exit: ExitHook,
    /// Makes writes fail, for tests.
    pub(crate) fault: Option<WriteFault>,
    /// Bytes of a file.
    pub(crate) segment_bytes: usize,
    /// Bytes of recent entries that stay in memory for followers that are nearly up to date.
    pub(crate) tail_bytes_max: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        #[cfg(feature = "simulation")]
        if let Some(environment) = flott_node::simulation::environment() {
            let segment_bytes = environment.log_segment_bytes();
            return Self {
                exit: writer::exit_process(),
                fault: None,
                segment_bytes,
                tail_bytes_max: segment_bytes / 2,
            };
        }
        Self {
            exit: writer::exit_process(),
            fault: None,
            // Two of the largest entries fit.
            segment_bytes: 8 << 20,
            tail_bytes_max: 16 << 20,
        }
    }
}

impl Debug for LogOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogOptions")
            .field("tail_bytes_max", &self.tail_bytes_max)
            .finish_non_exhaustive()
    }
}

/// How many writes the writer thread has begun and ended.
#[derive(Debug, Default)]
struct Progress {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// What the writer thread and all readers see.
struct Shared {
    disk: Arc<Disk>,
    tail: Mutex<Tail>,
    progress: Progress,
    /// Last: the directory is unlocked after the database is closed.
    _directory: DataDirectory,
}

impl Shared {
    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the entries of `start..end` are, as far as the log contains them and up to the one that exceeds `bytes_max`.
    fn find(&self, start: u64, end: u64, bytes_max: usize) -> Found {
        let tail = self.tail();
        let wanted = tail.plan(start, end);
        if wanted.disk.is_empty() {
            return Found::InMemory(tail::limit(wanted.memory, bytes_max));
        }
        // Located under the lock: what is on disk now is what the tail's positions describe.
        let located = self
            .disk
            .locate(wanted.disk.start, wanted.disk.end, bytes_max);
        Found::OnDisk(located, wanted)
    }

    /// Reads them. Does not block: what is on disk is read elsewhere.
    async fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        match self.find(start, end, bytes_max) {
            Found::InMemory(entries) => Ok(entries),
            Found::OnDisk(located, wanted) => {
                let reading = flott_node::spawn_blocking(move || join(&located, wanted, bytes_max));
                reading.await.map_err(io::Error::other)?
            }
        }
    }
}

/// Where entries are.
enum Found {
    InMemory(Vec<Entry>),
    /// And perhaps the last of them in memory.
    OnDisk(Stored, Wanted),
}

/// The entries on disk and then those in memory, ending early once they exceed `bytes_max`.
fn join(located: &Stored, wanted: Wanted, bytes_max: usize) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut bytes = 0;
    for read in located.read() {
        let (entry, size) = read?;
        bytes += size;
        entries.push(entry);
        if bytes > bytes_max {
            return Ok(entries);
        }
    }
    let reached = entries.last().map(|entry: &Entry| entry.log_id.index + 1);
    if reached.is_none_or(|next| next != wanted.disk.end) {
        let what = format!(
            "entries up to {} are missing, found up to {reached:?}",
            wanted.disk.end
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    entries.extend(tail::limit(wanted.memory, bytes_max.saturating_sub(bytes)));
    Ok(entries)
}

/// The log, as openraft writes it. Clones share it.
#[derive(Clone)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Write>,
}

/// The log, as replication and `apply` read it.
#[derive(Clone)]
pub(crate) struct LogReader(Arc<Shared>);

/// A log at one moment.
#[cfg(feature = "simulation")]
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) purged: Option<LogId>,
    pub(crate) last: Option<LogId>,
    pub(crate) committed: Option<LogId>,
    pub(crate) cuts: u64,
}

/// Writes the storage marker through the same queue as everything else.
#[derive(Clone)]
pub(crate) struct MarkerWriter(mpsc::Sender<Write>);

impl LogStore {
    /// Opens and checks the log in `directory`. Also returns its marker, if it has one, and the thread that writes,
    /// which ends when all clones of the store and of [`MarkerWriter`] are dropped. Blocks on the disk.
    pub(crate) fn open(
        directory: DataDirectory,
        options: LogOptions,
    ) -> Result<(Self, Option<wire::RaftStorageMarker>, WriterThread), RaftError> {
        let path = directory.log();
        let opened = disk::open(&path, options.segment_bytes, options.tail_bytes_max)?;
        let marker = opened.marker;
        let shared = Arc::new(Shared {
            disk: opened.disk,
            tail: Mutex::new(opened.tail),
            progress: Progress::default(),
            _directory: directory,
        });
        let (queue, writes) = mpsc::channel(QUEUE_MAX);
        let thread = Writer::spawn(Arc::clone(&shared), opened.journal, writes, options, path)?;
        Ok((Self { shared, queue }, marker, thread))
    }

    pub(crate) fn reader(&self) -> LogReader {
        LogReader(Arc::clone(&self.shared))
    }

    pub(crate) fn marker_writer(&self) -> MarkerWriter {
        MarkerWriter(self.queue.clone())
    }

    /// Whether this log has ever held a vote or an entry.
    pub(crate) fn is_empty(&self) -> bool {
        let tail = self.shared.tail();
        tail.vote().is_none() && tail.last().is_none()
    }

    /// The last entry, or the last that was purged.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.shared.tail().last()
    }

    /// Up to where the log is known to be committed.
    pub(crate) fn committed(&self) -> Option<LogId> {
        self.shared.tail().committed()
    }

    /// The highest term that this node has voted in; 0 before the first.
    pub(crate) fn vote_term(&self) -> u64 {
        self.shared
            .tail()
            .vote()
            .map_or(0, |vote| vote.leader_id.term)
    }

    /// The last entry that was purged.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.shared.tail().purged()
    }

    async fn enqueue(&self, write: Write) -> io::Result<()> {
        self.queue.send(write).await.map_err(|_| writer::stopped())
    }
}

impl MarkerWriter {
    /// Replaces the storage marker; on disk when it returns.
    pub(crate) async fn write(&self, marker: &wire::RaftStorageMarker) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        let write = Write::Marker {
            value: marker.encode_to_vec(),
            done,
        };
        self.0.send(write).await.map_err(|_| writer::stopped())?;
        written.await.map_err(|_| writer::stopped())?
    }
}

impl LogReader {
    /// The first and the last index that the log contains, if it contains any.
    pub(crate) fn bounds(&self) -> Option<(u64, u64)> {
        let tail = self.0.tail();
        let first = tail.purged().map_or(0, |id| id.index + 1);
        let last = tail.last()?.index;
        (first <= last).then_some((first, last))
    }

    /// Where the log begins and ends, and how often it was cut.
    #[cfg(feature = "simulation")]
    pub(crate) fn view(&self) -> View {
        let tail = self.0.tail();
        View {
            purged: tail.purged(),
            last: tail.last(),
            committed: tail.committed(),
            cuts: tail.truncations(),
        }
    }

    /// The number of the write that the disk is busy with, if it is.
    pub(crate) fn writing(&self) -> Option<u64> {
        let progress = &self.0.progress;
        // In this order: a write that begins in between makes it look idle, never stuck.
        let begun = progress.begun.load(Ordering::Acquire);
        let ended = progress.ended.load(Ordering::Acquire);
        (begun > ended).then_some(begun)
    }

    /// Encoded bytes of the entries after `index` that are on disk.
    pub(crate) fn bytes_after(&self, index: u64) -> u64 {
        self.0.disk.bytes_after(index)
    }

    /// Entries from `start` on, before `end`, not much more than 1 MiB of them. May block on the disk.
    pub(crate) fn read_some(&self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        match self.0.find(start, end, READ_BYTES_MAX) {
            Found::InMemory(entries) => Ok(entries),
            Found::OnDisk(located, wanted) => join(&located, wanted, READ_BYTES_MAX),
        }
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.0.read(start, end, usize::MAX).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.0.read(start, end, READ_BYTES_MAX).await
    }

    async fn read_vote(&mut self) -> Result<Option<Ballot>, io::Error> {
        Ok(self.0.tail().vote())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let tail = self.shared.tail();
        Ok(LogState {
            last_purged_log_id: tail.purged(),
            last_log_id: tail.last(),
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader()
    }

    async fn save_vote(&mut self, vote: &Ballot) -> Result<(), io::Error> {
        // Readable before it is durable: a reader then stops serving the old leader, which is always safe.
        self.shared.tail().set_vote(*vote);
        let (done, written) = oneshot::channel();
        self.enqueue(Write::Vote {
            value: codec::ballot_to_wire(vote).encode_to_vec(),
            done,
        })
        .await?;
        written.await.map_err(|_| writer::stopped())?
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let Some(committed) = committed else {
            return Ok(());
        };
        self.shared.tail().set_committed(committed);
        self.enqueue(Write::Committed {
            value: codec::log_id_to_wire(&committed).encode_to_vec(),
        })
        .await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.tail().committed())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut encoded = Vec::new();
        let truncations = {
            let mut tail = self.shared.tail();
            for entry in entries {
                let value = entry::encode(&entry);
                let index = entry.log_id.index;
                tail.append(entry, value.len());
                encoded.push((index, value));
            }
            tail.truncations()
        };
        self.enqueue(Write::Append {
            entries: encoded,
            truncations,
            done: callback,
        })
        .await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        self.shared.tail().truncate_after(last_log_id);
        let from = last_log_id.map_or(0, |id| id.index + 1);
        self.enqueue(Write::Truncate { from }).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.shared.tail().purge(log_id);
        let value = codec::log_id_to_wire(&log_id).encode_to_vec();
        self.enqueue(Write::Purge {
            upto: log_id.index,
            value,
        })
        .await
    }
}
