//! The log on disk: opening it, reading old entries, writing frames.
//!
//! ```text
//! <log>/salt                    a random number, written once
//! <log>/<number>.log            segments, consecutive; the last one is written to
//! <log>/<number>.spare          not needed any more; to be used again
//! ```
//!
//! Each segment begins with a frame that repeats vote, positions and marker, so that the segments before it can go.
//!
//! [`Disk`] is what readers share: where each entry lies. [`Journal`] is the writer's alone.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flott_node::Mutant;
use flott_proto::wire;
use prost::Message;
use uuid::Uuid;

use super::super::error::RaftError;
use super::super::types::Entry;
use super::super::{codec, directory};
use super::entry;
use super::recovery::{HardState, Location, Segment, recover};
use super::segment::{FrameBuilder, Kind, Seal};
use super::spares::{self, Spares};
use super::tail::Tail;

const SALT: &str = "salt";

/// A file of the version before this one, which kept the log in RocksDB.
const OLD_FORMAT: &str = "CURRENT";

/// Which entries there are and where.
#[derive(Debug, Default)]
struct Index {
    first: u64,
    entries: VecDeque<Location>,
    segments: BTreeMap<u64, Segment>,
}

impl Index {
    fn push(&mut self, entry: u64, location: Location) {
        if self.entries.is_empty() {
            self.first = entry;
        }
        let next = self.first + self.entries.len() as u64;
        assert_eq!(entry, next, "the raft log must not have holes");
        let location = location.behind(self.entries.back());
        self.entries.push_back(location);
        let segment = self.segments.get_mut(&location.segment);
        let segment = segment.expect("the segment that is written to is listed");
        segment.last_index = segment.last_index.max(Some(entry));
    }

    fn cut(&mut self, from: u64) {
        let keep = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.entries.truncate(keep);
    }

    fn purge(&mut self, upto: u64) {
        while self.first <= upto && self.entries.pop_front().is_some() {
            self.first += 1;
        }
    }
}

/// The entries on disk, for readers.
#[derive(Debug)]
pub(super) struct Disk {
    index: Mutex<Index>,
}

/// Where entries lie, with their files held open: they can be read later, whatever happens to the log.
#[derive(Debug)]
pub(super) struct Stored(Vec<(u64, Location, Arc<File>)>);

impl Stored {
    /// Reads and checks the entries; each with its encoded size.
    pub(super) fn read(&self) -> impl Iterator<Item = io::Result<(Entry, usize)>> + '_ {
        self.0.iter().map(|(index, location, file)| {
            let mut framed = vec![0; location.bytes as usize];
            file.read_exact_at(&mut framed, u64::from(location.offset))?;
            let entry = entry::decode(*index, &framed)
                .map_err(|what| io::Error::new(io::ErrorKind::InvalidData, what))?;
            Ok((entry, framed.len()))
        })
    }
}

impl Disk {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Encoded bytes of the entries after `index`.
    pub(super) fn bytes_after(&self, index: u64) -> u64 {
        let log = self.index();
        let skip = usize::try_from((index + 1).saturating_sub(log.first)).unwrap_or(usize::MAX);
        let (Some(first), Some(last)) = (log.entries.get(skip), log.entries.back()) else {
            return 0;
        };
        last.total - first.total + u64::from(first.bytes)
    }

    /// Where the entries of `start..end` lie, ending early once they exceed `bytes_max`.
    pub(super) fn locate(&self, start: u64, end: u64, bytes_max: usize) -> Stored {
        let index = self.index();
        let skip = usize::try_from(start.saturating_sub(index.first)).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let located = index
            .entries
            .iter()
            .skip(skip)
            .zip(start.max(index.first)..end);
        let fits = located.take_while(|(location, _)| {
            let more = bytes <= bytes_max;
            bytes = bytes.saturating_add(location.bytes as usize);
            more
        });
        let open = fits.map(|(location, entry)| {
            let segment = &index.segments[&location.segment];
            (entry, *location, Arc::clone(&segment.file))
        });
        Stored(open.collect())
    }
}

/// The end of the log, where it is written.
#[derive(Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    salt: u64,
    disk: Arc<Disk>,
    /// As the frames written so far have it.
    hard: HardState,
    segment: u64,
    file: Arc<File>,
    /// Where the next frame goes.
    end: usize,
    sequence: u64,
    segment_bytes: usize,
    spares: Spares,
    frame: FrameBuilder,
    /// What the frame that is being put together says, in order.
    in_frame: Vec<Step>,
}

/// What a record of a frame means once the frame is on disk.
#[derive(Debug)]
enum Step {
    /// Where in the frame it lies.
    Entry {
        index: u64,
        at: usize,
        bytes: usize,
    },
    Cut {
        from: u64,
    },
    Purge {
        upto: u64,
        value: Vec<u8>,
    },
    Hard {
        kind: Kind,
        value: Vec<u8>,
    },
}

/// What is found in a log's directory.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) disk: Arc<Disk>,
    pub(super) journal: Journal,
    pub(super) marker: Option<wire::RaftStorageMarker>,
    pub(super) tail: Tail,
}

/// Opens and checks the log in `directory`, and keeps its end in memory. Blocks on the disk.
pub(super) fn open(
    directory: &Path,
    segment_bytes: usize,
    tail_bytes_max: usize,
) -> Result<Opened, RaftError> {
    directory::create(directory).map_err(RaftError::storage("create", directory))?;
    if directory.join(OLD_FORMAT).exists() {
        let path = directory.to_owned();
        return Err(RaftError::UnsupportedFormat {
            path,
            found: 1,
            supported: directory::FORMAT_VERSION,
        });
    }
    let salt = salt(directory)?;
    let recovered = recover(directory, salt)?;
    let corrupt = |what: String| RaftError::corrupt(directory, what);
    let decode = |error: prost::DecodeError| corrupt(error.to_string());
    let hard = recovered.hard;
    let marker = hard.marker.as_deref().map(wire::RaftStorageMarker::decode);
    let marker = marker.transpose().map_err(decode)?;
    let purged = hard.purged.as_deref().map(wire::RaftLogId::decode);
    let purged = purged.transpose().map_err(decode)?;
    let mut tail = Tail::new(
        tail_bytes_max,
        purged.map(|id| codec::log_id_from_wire(&id)),
    );
    if let Some(vote) = hard.vote.as_deref() {
        let vote = wire::RaftBallot::decode(vote).map_err(decode)?;
        tail.set_vote(codec::ballot_from_wire(&vote));
    }
    if let Some(committed) = hard.committed.as_deref() {
        let committed = wire::RaftLogId::decode(committed).map_err(decode)?;
        tail.set_committed(codec::log_id_from_wire(&committed));
    }
    let end_index = recovered.first + recovered.entries.len() as u64;
    let disk = Arc::new(Disk {
        index: Mutex::new(Index {
            first: recovered.first,
            entries: recovered.entries,
            segments: recovered.segments,
        }),
    });
    for (read, id) in disk
        .locate(0, end_index, usize::MAX)
        .read()
        .zip(&recovered.ids)
    {
        let (entry, bytes) = read.map_err(|error| corrupt(error.to_string()))?;
        tail.append(entry, bytes);
        tail.on_persisted(id.index + 1, 0);
    }
    let failed = || RaftError::storage("prepare files in", directory);
    let spares = Spares::start(directory, segment_bytes as u64).map_err(failed())?;
    let last = {
        let index = disk.index();
        let last = index.segments.last_key_value();
        last.map(|(number, segment)| (*number, Arc::clone(&segment.file)))
    };
    let (segment, file) = match last {
        Some(last) => last,
        None => {
            let file = spares::make(directory, 0, segment_bytes as u64).map_err(failed())?;
            let file = Arc::new(file);
            let first = Segment {
                file: Arc::clone(&file),
                last_index: None,
            };
            disk.index().segments.insert(0, first);
            (0, file)
        }
    };
    if let Some(last) = &recovered.last_frame {
        make_certain(directory, &file, last).map_err(failed())?;
    }
    let journal = Journal {
        directory: directory.to_owned(),
        salt,
        disk: Arc::clone(&disk),
        hard,
        segment,
        file,
        end: recovered.end,
        sequence: recovered.next_sequence,
        segment_bytes,
        spares,
        frame: FrameBuilder::new(),
        in_frame: Vec::new(),
    };
    Ok(Opened {
        disk,
        journal,
        marker,
        tail,
    })
}

/// Makes durable what was read. The process before this one may have been killed between writing the last frame and
/// syncing it, or the sync has failed: then the frame is in the system's memory, the disk does not have it, and a sync alone
/// would not write it again.
fn make_certain(directory: &Path, file: &File, last: &(usize, Vec<u8>)) -> io::Result<()> {
    if Mutant::ReadWithoutSync.is_planted() {
        return Ok(());
    }
    let (at, frame) = last;
    file.write_all_at(frame, *at as u64)?;
    file.sync_all()?;
    spares::sync_directory(directory)
}

/// The directory's random number; drawn if there is none.
fn salt(directory: &Path) -> Result<u64, RaftError> {
    let path = directory.join(SALT);
    match fs::read(&path) {
        Ok(bytes) => match <[u8; 8]>::try_from(&bytes[..]) {
            Ok(bytes) => Ok(u64::from_le_bytes(bytes)),
            Err(_) => Err(RaftError::corrupt(&path, "it has not 8 bytes")),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (salt, _) = Uuid::new_v4().as_u64_pair();
            let write = || -> io::Result<()> {
                let temporary = directory.join("salt.tmp");
                let mut file = File::create(&temporary)?;
                file.write_all(&salt.to_le_bytes())?;
                file.sync_all()?;
                fs::rename(&temporary, &path)?;
                spares::sync_directory(directory)
            };
            write().map_err(RaftError::storage("write", &path))?;
            Ok(salt)
        }
        Err(error) => Err(RaftError::storage("read", &path)(error)),
    }
}

/// Makes what was written durable.
fn sync(file: &File) -> io::Result<()> {
    if Mutant::AcknowledgeBeforeSync.is_planted() {
        return Ok(());
    }
    match file.sync_data() {
        Err(_) if Mutant::RetryFailedSync.is_planted() => file.sync_data(),
        synced => synced,
    }
}

impl Journal {
    /// Bytes of the frame that is being put together.
    pub(super) fn frame_bytes(&self) -> usize {
        self.frame.len()
    }

    pub(super) fn add_entry(&mut self, index: u64, encoded: &[u8]) {
        let number = index.to_le_bytes();
        let begins = self.frame.push(Kind::Entry, &[&number, encoded]);
        self.in_frame.push(Step::Entry {
            index,
            at: begins + number.len(),
            bytes: encoded.len(),
        });
    }

    /// The entries from index `from` on are gone.
    pub(super) fn add_cut(&mut self, from: u64) {
        self.frame.push(Kind::Truncate, &[&from.to_le_bytes()]);
        self.in_frame.push(Step::Cut { from });
    }

    /// The entries up to `upto` are gone; the log may go on anywhere behind it.
    pub(super) fn add_purge(&mut self, upto: u64, value: Vec<u8>) {
        self.frame.push(Kind::Purged, &[&value]);
        self.in_frame.push(Step::Purge { upto, value });
    }

    /// Vote, committed position or marker.
    pub(super) fn add(&mut self, kind: Kind, value: Vec<u8>) {
        self.frame.push(kind, &[&value]);
        self.in_frame.push(Step::Hard { kind, value });
    }

    /// Writes the frame, if there is anything in it, and returns when it is on disk. Files that are not needed any more
    /// are given back.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.frame.is_empty() {
            return Ok(());
        }
        // An empty segment takes any frame, and grows if it has to.
        if self.end > 0 && self.end + self.frame.len() > self.segment_bytes {
            self.next_segment()?;
        }
        let at = self.end;
        self.write_frame()?;
        self.carry_out(at)?;
        // Prepared in time for the next frame that does not fit.
        if self.end > self.segment_bytes / 4 {
            self.spares.order(self.segment + 1);
        }
        Ok(())
    }

    /// The frame, which begins at `frame_at`, is on disk.
    fn carry_out(&mut self, frame_at: usize) -> io::Result<()> {
        let mut index = self.disk.index();
        let mut purged = None;
        for step in self.in_frame.drain(..) {
            match step {
                Step::Entry {
                    index: entry,
                    at,
                    bytes,
                } => {
                    let location = Location {
                        segment: self.segment,
                        offset: (frame_at + at) as u32,
                        bytes: bytes as u32,
                        total: 0,
                    };
                    index.push(entry, location);
                }
                Step::Cut { from } => index.cut(from),
                Step::Purge { upto, value } => {
                    index.purge(upto);
                    self.hard.set(Kind::Purged, value);
                    purged = Some(upto);
                }
                Step::Hard { kind, value } => self.hard.set(kind, value),
            }
        }
        drop(index);
        purged.map_or(Ok(()), |upto| self.reclaim(upto))
    }

    fn write_frame(&mut self) -> io::Result<()> {
        let seal = Seal {
            salt: self.salt,
            segment: self.segment,
        };
        let bytes = self.frame.seal(seal, self.sequence);
        self.file.write_all_at(bytes, self.end as u64)?;
        sync(&self.file)?;
        self.end += bytes.len();
        self.sequence += 1;
        self.frame.clear();
        Ok(())
    }

    /// Goes on in the next segment, which begins with all that is not an entry.
    fn next_segment(&mut self) -> io::Result<()> {
        let number = self.segment + 1;
        let file = Arc::new(self.spares.take(number)?);
        let segment = Segment {
            file: Arc::clone(&file),
            last_index: None,
        };
        self.disk.index().segments.insert(number, segment);
        (self.segment, self.file, self.end) = (number, file, 0);
        let mut head = FrameBuilder::new();
        for (kind, value) in self.hard.records() {
            head.push(kind, &[value]);
        }
        std::mem::swap(&mut head, &mut self.frame);
        self.write_frame()?;
        std::mem::swap(&mut head, &mut self.frame);
        Ok(())
    }

    /// The entries up to `upto` are gone, and that is on disk: gives back the files that have nothing else.
    fn reclaim(&mut self, upto: u64) -> io::Result<()> {
        let mut index = self.disk.index();
        while let Some((&number, segment)) = index.segments.first_key_value() {
            let needed = segment.last_index.is_some_and(|last| last > upto);
            if needed || number == self.segment {
                break;
            }
            let removed = index.segments.remove(&number);
            let read = removed.is_some_and(|segment| Arc::strong_count(&segment.file) > 1);
            if read {
                // Someone still reads it: it must not be written over.
                fs::remove_file(spares::path_of(&self.directory, number))?;
            } else {
                self.spares.discard(&self.directory, number)?;
            }
        }
        Ok(())
    }
}
