//! The thread that writes the log: the only one that changes its files.
//!
//! It takes what is queued, makes it one frame, syncs once, and acknowledges in the order of submission. While one frame
//! is being synced the next one gathers, so frames grow by themselves under load and a single write never waits for
//! company. What nobody waits for is written with the next frame that somebody waits for.
//!
//! ```text
//!   Running ──write or sync fails──▶ Failed: every acknowledgement is an error; ExitHook ends the process
//! ```

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use flott_node::Mutant;
use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

use super::super::error::RaftError;
use super::super::types::TypeConfig;
use super::disk::Journal;
use super::segment::Kind;
use super::{LogOptions, Shared};

/// Ends the process. Called once, after a write failed and before anything that depended on it was answered.
pub(crate) type ExitHook = Arc<dyn Fn() + Send + Sync>;

/// Asked before every batch; an error stands for the disk's.
pub(crate) type WriteFault = Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

/// Bytes of one batch. A larger one would let acknowledgements wait without making the sync cheaper.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Bytes of one frame, unless a single entry is larger. Well below a segment, so that no segment is wasted on one.
const FRAME_BYTES_MAX: usize = 4 << 20;

/// Writes of one batch.
const BATCH_WRITES_MAX: usize = 1024;

/// The exit code of a process that can no longer write its log (`EX_SOFTWARE` of sysexits.h).
const EXIT_CODE: i32 = 70;

/// Production's hook. An fsync that failed once cannot be repeated: the kernel may have dropped the data, so the log
/// in memory and the log on disk differ in ways that nobody can know. Only a restart reads what is really there.
pub(super) fn exit_process() -> ExitHook {
    #[cfg(feature = "simulation")]
    if let Some(environment) = flott_node::simulation::environment() {
        return Arc::new(move || environment.exit(EXIT_CODE));
    }
    Arc::new(|| std::process::exit(EXIT_CODE))
}

/// The writer thread ended; the log cannot be written any more.
pub(super) fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the raft log writer has stopped")
}

/// One change, in the order in which Raft wants them on disk.
pub(super) enum Write {
    Append {
        entries: Vec<(u64, Vec<u8>)>,
        /// See `Tail::truncations`.
        truncations: u64,
        done: IOFlushed<TypeConfig>,
    },
    Vote {
        value: Vec<u8>,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// Nobody waits for it: it becomes durable with whatever is synced next.
    Committed {
        value: Vec<u8>,
    },
    Truncate {
        from: u64,
    },
    /// Nobody waits for it; once it is durable, the files are given back.
    Purge {
        upto: u64,
        value: Vec<u8>,
    },
    Marker {
        value: Vec<u8>,
        done: oneshot::Sender<io::Result<()>>,
    },
}

impl Write {
    fn bytes(&self) -> usize {
        match self {
            Self::Append { entries, .. } => entries.iter().map(|(_, encoded)| encoded.len()).sum(),
            _ => 64,
        }
    }

    /// Whether something is promised once this is written.
    fn needs_sync(&self) -> bool {
        !matches!(self, Self::Committed { .. } | Self::Purge { .. })
    }
}

/// Waits for the writer thread.
#[derive(Debug)]
pub(crate) struct WriterThread(
    /// None in a simulation, where a task writes.
    Option<JoinHandle<()>>,
);

impl WriterThread {
    /// Returns when everything queued is written and the thread no longer uses the database. Blocks until all senders
    /// are gone.
    pub(crate) fn join(self) {
        if self.0.is_some_and(|thread| thread.join().is_err()) {
            error!("the raft log writer panicked");
        }
    }
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    journal: Journal,
    writes: mpsc::Receiver<Write>,
    options: LogOptions,
    path: PathBuf,
    failed: bool,
}

impl Writer {
    pub(super) fn spawn(
        shared: Arc<Shared>,
        journal: Journal,
        writes: mpsc::Receiver<Write>,
        options: LogOptions,
        path: PathBuf,
    ) -> Result<WriterThread, RaftError> {
        let writer = Self {
            shared,
            journal,
            writes,
            options,
            path: path.clone(),
            failed: false,
        };
        #[cfg(feature = "simulation")]
        if let Some(environment) = flott_node::simulation::environment() {
            #[expect(
                clippy::disallowed_methods,
                reason = "it stands for a thread, whose end is told by its queue"
            )]
            let _running = tokio::spawn(writer.run_as_task(environment));
            return Ok(WriterThread(None));
        }
        let spawned = thread::Builder::new()
            .name("raft-log".to_owned())
            .spawn(move || writer.run());
        spawned
            .map(|thread| WriterThread(Some(thread)))
            .map_err(RaftError::storage("start the writer thread of", &path))
    }

    fn run(mut self) {
        while let Some(first) = self.writes.blocking_recv() {
            let gathered = self.gather(first);
            self.shared.progress.begun.fetch_add(1, Ordering::AcqRel);
            self.write(gathered);
        }
        self.close();
    }

    /// The same in a simulation, where the time that a write takes passes before it.
    #[cfg(feature = "simulation")]
    async fn run_as_task(mut self, environment: Arc<dyn flott_node::simulation::Environment>) {
        while let Some(first) = self.writes.recv().await {
            let gathered = self.gather(first);
            self.shared.progress.begun.fetch_add(1, Ordering::AcqRel);
            #[expect(
                clippy::disallowed_methods,
                reason = "it stands for a system call that takes its time"
            )]
            tokio::time::sleep(environment.log_write_takes()).await;
            self.write(gathered);
        }
        self.close();
    }

    /// What is queued by now, beginning with `first`, as far as it makes one batch.
    fn gather(&mut self, first: Write) -> Vec<Write> {
        let mut bytes = first.bytes();
        let mut gathered = vec![first];
        while bytes < BATCH_BYTES_MAX && gathered.len() < BATCH_WRITES_MAX {
            let Ok(next) = self.writes.try_recv() else {
                break;
            };
            bytes += next.bytes();
            gathered.push(next);
        }
        gathered
    }

    fn write(&mut self, gathered: Vec<Write>) {
        let written = if self.failed {
            Err(stopped())
        } else {
            self.commit(&gathered)
        };
        self.shared.progress.ended.fetch_add(1, Ordering::AcqRel);
        if let Err(failure) = &written
            && !self.failed
        {
            self.on_failure(failure);
        }
        self.answer(gathered, &written);
    }

    fn close(mut self) {
        if !self.failed
            && let Err(failure) = self.journal.sync()
        {
            self.on_failure(&failure);
        }
        info!(path = %self.path.display(), "raft log closed");
    }

    /// Writes them, and returns when all that somebody waits for is on disk.
    fn commit(&mut self, writes: &[Write]) -> io::Result<()> {
        if let Some(fault) = &self.options.fault {
            fault()?;
        }
        for write in writes {
            match write {
                Write::Append { entries, .. } => {
                    for (index, encoded) in entries {
                        if self.journal.frame_bytes() + encoded.len() > FRAME_BYTES_MAX {
                            self.journal.sync()?;
                        }
                        self.journal.add_entry(*index, encoded);
                    }
                }
                Write::Vote { .. } if Mutant::VoteNotWritten.is_planted() => {}
                Write::Truncate { .. } if Mutant::CutNotWritten.is_planted() => {}
                Write::Vote { value, .. } => self.journal.add(Kind::Vote, value.clone()),
                Write::Committed { value } => self.journal.add(Kind::Committed, value.clone()),
                Write::Marker { value, .. } => self.journal.add(Kind::Marker, value.clone()),
                Write::Truncate { from } => self.journal.add_cut(*from),
                Write::Purge { upto, value } => self.journal.add_purge(*upto, value.clone()),
            }
        }
        let full = self.journal.frame_bytes() > FRAME_BYTES_MAX;
        if full || writes.iter().any(Write::needs_sync) {
            self.journal.sync()?;
        }
        Ok(())
    }

    fn on_failure(&mut self, failure: &io::Error) {
        error!(
            path = %self.path.display(),
            %failure,
            "cannot write the raft log; this process ends now. Check the disk (space, health, permissions) and start \
             it again; if the log turns out corrupt, remove this node from the cluster and join again with an empty \
             directory"
        );
        self.failed = true;
        (self.options.exit)();
    }

    fn answer(&self, writes: Vec<Write>, written: &io::Result<()>) {
        let result = || match written {
            Ok(()) => Ok(()),
            Err(failure) => Err(io::Error::new(failure.kind(), failure.to_string())),
        };
        for write in writes {
            match write {
                Write::Append {
                    entries,
                    truncations,
                    done,
                } => {
                    if let (Ok(()), Some((last, _))) = (written, entries.last()) {
                        self.shared.tail().on_persisted(last + 1, truncations);
                    }
                    done.io_completed(result());
                }
                Write::Vote { done, .. } | Write::Marker { done, .. } => {
                    // The one who waited may have given up.
                    let _ = done.send(result());
                }
                Write::Committed { .. } | Write::Truncate { .. } | Write::Purge { .. } => {}
            }
        }
    }
}
