//! Files for the log to be written into, made before they are needed.
//!
//! Writing where a file has blocks already needs no change of the file system's own records, which halves the time of a
//! sync. So a segment is written full of zeros before its first frame, or is one that the log does not need any more,
//! under a new name. A thread of its own does that, one segment ahead of the writer.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use flott_node::Mutant;

/// The ending of a discarded segment's name.
pub(super) const SPARE: &str = "spare";

/// Discarded segments that wait to be used again; more are deleted. Those of two snapshots: what one purge gives back is
/// enough until the next, so that in the long run no file is written full only to be written again.
const DISCARDED_MAX: usize = 16;

/// Written at once when a segment is made, and then synced: a larger piece would hold up the log's own syncs for longer.
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// The name of a segment, in order of its number.
pub(super) fn path_of(directory: &Path, segment: u64) -> PathBuf {
    directory.join(format!("{segment:016x}.log"))
}

/// The number in a segment's name.
pub(super) fn number_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(".log")?;
    u64::from_str_radix(name, 16)
        .ok()
        .filter(|_| name.len() == 16)
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    if Mutant::DirectoryNotSynced.is_planted() {
        return Ok(());
    }
    File::open(directory)?.sync_all()
}

/// Makes a segment whose blocks are there and whose contents mean nothing. Durable when it returns.
pub(super) fn make(directory: &Path, segment: u64, bytes: u64) -> io::Result<File> {
    let path = path_of(directory, segment);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(path)?;
    let mut left = bytes;
    while left > 0 {
        let step = left.min(ZEROS.len() as u64);
        file.write_all(&ZEROS[..step as usize])?;
        file.sync_data()?;
        left -= step;
    }
    file.sync_all()?;
    sync_directory(directory)?;
    Ok(file)
}

/// Gives a discarded segment a new number.
fn rename(directory: &Path, discarded: &Path, segment: u64) -> io::Result<File> {
    let path = path_of(directory, segment);
    fs::rename(discarded, &path)?;
    sync_directory(directory)?;
    OpenOptions::new().read(true).write(true).open(path)
}

/// Prepares segments in the background.
#[derive(Debug)]
pub(super) struct Spares {
    /// None once it is told to stop.
    orders: Option<SyncSender<u64>>,
    ready: Receiver<io::Result<File>>,
    discarded: SyncSender<PathBuf>,
    ordered: Option<u64>,
    thread: Option<JoinHandle<()>>,
    /// What the thread does with an order, if there is no thread: in a simulation.
    inline: Option<Inline>,
}

struct Inline(Box<dyn FnMut() + Send>);

impl std::fmt::Debug for Inline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inline")
    }
}

impl Spares {
    pub(super) fn start(directory: &Path, bytes: u64) -> io::Result<Self> {
        let (orders, orders_receiver) = sync_channel::<u64>(1);
        let (ready_sender, ready) = sync_channel(1);
        let (discarded, discarded_receiver) = sync_channel::<PathBuf>(DISCARDED_MAX);
        let directory = directory.to_owned();
        let prepare = move |segment| {
            let made = match discarded_receiver.try_recv() {
                Ok(spare) => rename(&directory, &spare, segment),
                Err(_) => make(&directory, segment, bytes),
            };
            ready_sender.send(made)
        };
        #[cfg(feature = "simulation")]
        if flott_node::simulation::is_on() {
            let carry_out = move || {
                if let Ok(segment) = orders_receiver.try_recv() {
                    // It is taken before the next one is ordered, so there is room.
                    let _ = prepare(segment);
                }
            };
            return Ok(Self {
                orders: Some(orders),
                ready,
                discarded,
                ordered: None,
                thread: None,
                inline: Some(Inline(Box::new(carry_out))),
            });
        }
        let prepare = move || {
            while let Ok(segment) = orders_receiver.recv() {
                if prepare(segment).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new()
            .name("raft-log-spares".to_owned())
            .spawn(prepare)?;
        Ok(Self {
            orders: Some(orders),
            ready,
            discarded,
            ordered: None,
            thread: Some(thread),
            inline: None,
        })
    }

    /// Has the segment prepared, unless it is being prepared already.
    pub(super) fn order(&mut self, segment: u64) {
        if self.ordered.is_none()
            && let Some(orders) = &self.orders
            && orders.try_send(segment).is_ok()
        {
            self.ordered = Some(segment);
            if let Some(Inline(carry_out)) = &mut self.inline {
                carry_out();
            }
        }
    }

    /// The segment, as soon as it is prepared.
    pub(super) fn take(&mut self, segment: u64) -> io::Result<File> {
        self.order(segment);
        assert_eq!(self.ordered, Some(segment), "segments are used in order");
        self.ordered = None;
        let gone = || io::Error::other("the thread that prepares the log's files has ended");
        self.ready.recv().map_err(|_| gone())?
    }

    /// Takes the oldest segment, which is not needed any more and which nobody reads; deletes it if there are enough.
    ///
    /// It loses its name at once. So the segments that have theirs always follow each other without a gap: file systems
    /// make changes of one directory durable in order.
    pub(super) fn discard(&self, directory: &Path, segment: u64) -> io::Result<()> {
        let spare = directory.join(format!("{segment:016x}.{SPARE}"));
        fs::rename(path_of(directory, segment), &spare)?;
        match self.discarded.try_send(spare) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(spare) | TrySendError::Disconnected(spare)) => {
                fs::remove_file(spare)
            }
        }
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        self.orders = None;
        // What it has prepared and nobody took is found, and deleted, at the next start.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
