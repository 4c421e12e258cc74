//! Reading the log's files when they are opened.
//!
//! Every frame is read and checked, in order. The log ends where no frame follows any more; if one does follow, what lies
//! between was acknowledged and is damaged, and the log is refused: nothing in it can be trusted to be all there was.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flott_proto::wire;
use prost::Message;

use super::super::codec;
use super::super::error::RaftError;
use super::super::types::LogId;
use super::entry;
use super::segment::{Kind, Seal, find_frame, frame_at, records};
use super::spares::{SPARE, number_of};

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) segment: u64,
    pub(super) offset: u32,
    pub(super) bytes: u32,
    /// Bytes of this entry and those before it. Only differences mean something.
    pub(super) total: u64,
}

impl Location {
    /// The same, as that of the entry behind `last`.
    pub(super) fn behind(self, last: Option<&Self>) -> Self {
        let total = last.map_or(0, |last| last.total) + u64::from(self.bytes);
        Self { total, ..self }
    }
}

/// One file.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) file: Arc<File>,
    /// The highest index of any entry in it, if it has one.
    pub(super) last_index: Option<u64>,
}

/// What is not an entry, encoded as it is stored.
#[derive(Clone, Debug, Default)]
pub(super) struct HardState {
    pub(super) vote: Option<Vec<u8>>,
    pub(super) committed: Option<Vec<u8>>,
    pub(super) purged: Option<Vec<u8>>,
    pub(super) marker: Option<Vec<u8>>,
}

impl HardState {
    /// Takes one of [`Self::records`].
    pub(super) fn set(&mut self, kind: Kind, value: Vec<u8>) {
        let place = match kind {
            Kind::Vote => &mut self.vote,
            Kind::Committed => &mut self.committed,
            Kind::Purged => &mut self.purged,
            Kind::Marker => &mut self.marker,
            Kind::Entry | Kind::Truncate => return,
        };
        *place = Some(value);
    }

    /// All there is, as records.
    pub(super) fn records(&self) -> impl Iterator<Item = (Kind, &Vec<u8>)> {
        let all = [
            (Kind::Vote, &self.vote),
            (Kind::Committed, &self.committed),
            (Kind::Purged, &self.purged),
            (Kind::Marker, &self.marker),
        ];
        all.into_iter()
            .filter_map(|(kind, value)| Some((kind, value.as_ref()?)))
    }
}

/// A log as it was found.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) hard: HardState,
    /// Where the entries lie: consecutive indexes from `first` on.
    pub(super) entries: VecDeque<Location>,
    pub(super) first: u64,
    /// Of the entries, in the same order.
    pub(super) ids: VecDeque<LogId>,
    pub(super) segments: BTreeMap<u64, Segment>,
    /// Where the next frame goes in the last segment, and its number.
    pub(super) end: usize,
    pub(super) next_sequence: u64,
    /// The last frame of all, and where it begins in the last segment.
    pub(super) last_frame: Option<(usize, Vec<u8>)>,
}

struct Replay<'a> {
    directory: &'a Path,
    recovered: Recovered,
}

/// Reads the log in `directory`; an empty one if there is none. What is left of files that were never used is deleted.
pub(super) fn recover(directory: &Path, salt: u64) -> Result<Recovered, RaftError> {
    let (numbered, leftovers) = list(directory)?;
    for leftover in leftovers {
        fs::remove_file(&leftover).map_err(RaftError::storage("delete", &leftover))?;
    }
    let mut replay = Replay {
        directory,
        recovered: Recovered {
            hard: HardState::default(),
            entries: VecDeque::new(),
            first: 0,
            ids: VecDeque::new(),
            segments: BTreeMap::new(),
            end: 0,
            next_sequence: 0,
            last_frame: None,
        },
    };
    let last = last_used(&numbered, salt)?;
    for (segment, path) in numbered {
        if last.is_none_or(|last| segment > last) {
            // Prepared, and never used.
            fs::remove_file(&path).map_err(RaftError::storage("delete", &path))?;
        } else {
            replay.segment(&path, segment, Seal { salt, segment })?;
        }
    }
    replay.finish()
}

type Numbered = BTreeMap<u64, PathBuf>;

fn list(directory: &Path) -> Result<(Numbered, Vec<PathBuf>), RaftError> {
    let failed = || RaftError::storage("list", directory);
    let (mut numbered, mut leftovers) = (BTreeMap::new(), Vec::new());
    for file in fs::read_dir(directory).map_err(failed())? {
        let path = file.map_err(failed())?.path();
        if let Some(number) = number_of(&path) {
            numbered.insert(number, path);
        } else if path.extension().is_some_and(|extension| extension == SPARE) {
            leftovers.push(path);
        }
    }
    Ok((numbered, leftovers))
}

fn read(path: &Path) -> Result<(File, Vec<u8>), RaftError> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let mut file = file.map_err(RaftError::storage("open", path))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .map_err(RaftError::storage("read", path))?;
    Ok((file, bytes))
}

/// The last segment that has a frame.
fn last_used(numbered: &Numbered, salt: u64) -> Result<Option<u64>, RaftError> {
    for (&segment, path) in numbered.iter().rev() {
        let (_, bytes) = read(path)?;
        if find_frame(&bytes, 0, Seal { salt, segment }).is_some() {
            return Ok(Some(segment));
        }
    }
    Ok(None)
}

impl Replay<'_> {
    fn segment(&mut self, path: &Path, segment: u64, seal: Seal) -> Result<(), RaftError> {
        let (file, bytes) = read(path)?;
        let corrupt = |what: String| RaftError::corrupt(path, what);
        let previous = self.recovered.segments.keys().next_back().copied();
        if previous.is_some_and(|previous| previous + 1 != segment) {
            return Err(corrupt("the file before it is missing".to_owned()));
        }
        let first_of_all = previous.is_none();
        let found = Segment {
            file: Arc::new(file),
            last_index: None,
        };
        self.recovered.segments.insert(segment, found);
        let mut at = 0;
        let mut last_frame = None;
        while let Some(frame) = frame_at(&bytes, at, seal) {
            let expected = self.recovered.next_sequence;
            if !(first_of_all && at == 0) && frame.sequence != expected {
                return Err(corrupt(format!(
                    "frame {expected} is missing at byte {at}, the next one is {}",
                    frame.sequence
                )));
            }
            self.recovered.next_sequence = frame.sequence + 1;
            let payload_at = at + super::segment::HEADER_BYTES;
            for record in records(frame.payload) {
                let (kind, begins, value) = record.map_err(corrupt)?;
                let location = Location {
                    segment,
                    offset: u32::try_from(payload_at + begins).unwrap_or(u32::MAX),
                    bytes: value.len() as u32,
                    total: 0,
                };
                self.record(kind, value, location).map_err(corrupt)?;
            }
            last_frame = Some(at..frame.next.min(bytes.len()));
            at = frame.next;
        }
        if let Some(later) = find_frame(&bytes, at, seal) {
            return Err(corrupt(format!(
                "it is damaged between byte {at} and byte {later}"
            )));
        }
        if at == 0 {
            return Err(corrupt("it has lost its contents".to_owned()));
        }
        // That no frame at the end is missing is seen by the sequence, at the beginning of the next segment.
        self.recovered.end = at;
        self.recovered.last_frame = last_frame.map(|at| (at.start, bytes[at].to_vec()));
        Ok(())
    }

    fn record(&mut self, kind: Kind, value: &[u8], location: Location) -> Result<(), String> {
        let log = &mut self.recovered;
        match kind {
            Kind::Entry => {
                let (index, framed) = entry::split_index(value)?;
                let id = entry::log_id(index, framed)?;
                let next = log.first + log.entries.len() as u64;
                if log.entries.is_empty() {
                    log.first = index;
                } else if index != next {
                    return Err(format!("entry {next} is missing, the next one is {index}"));
                }
                let value = (value.len() - framed.len()) as u32;
                let location = Location {
                    offset: location.offset + value,
                    bytes: framed.len() as u32,
                    ..location
                };
                let location = location.behind(log.entries.back());
                log.entries.push_back(location);
                log.ids.push_back(id);
                let segment = log.segments.get_mut(&location.segment);
                let segment = segment.ok_or("an entry without its file")?;
                segment.last_index = segment.last_index.max(Some(index));
            }
            Kind::Truncate => {
                let from = u64::from_le_bytes(value.try_into().map_err(|_| "a malformed cut")?);
                let keep = from.saturating_sub(log.first);
                let keep = usize::try_from(keep).unwrap_or(usize::MAX);
                log.entries.truncate(keep);
                log.ids.truncate(keep);
            }
            Kind::Purged => {
                let upto = wire::RaftLogId::decode(value).map_err(|error| error.to_string())?;
                while log.first <= upto.index && log.entries.pop_front().is_some() {
                    log.ids.pop_front();
                    log.first += 1;
                }
                log.hard.set(kind, value.to_vec());
            }
            Kind::Vote | Kind::Committed | Kind::Marker => log.hard.set(kind, value.to_vec()),
        }
        Ok(())
    }

    /// Checks what only the whole can tell.
    fn finish(mut self) -> Result<Recovered, RaftError> {
        let corrupt = |what: String| RaftError::corrupt(self.directory, what);
        let purged = match &self.recovered.hard.purged {
            Some(encoded) => {
                let id = wire::RaftLogId::decode(&encoded[..]);
                Some(id.map_err(|error| corrupt(error.to_string()))?)
            }
            None => None,
        };
        let expected = purged.map_or(0, |purged| purged.index + 1);
        if self.recovered.entries.is_empty() {
            self.recovered.first = expected;
        } else if self.recovered.first != expected {
            return Err(corrupt(format!(
                "entry {expected} is missing, the first one is {}",
                self.recovered.first
            )));
        }
        let mut previous = purged.map(|id| codec::log_id_from_wire(&id));
        for id in &self.recovered.ids {
            let falls = |before: LogId| id.committed_leader_id() < before.committed_leader_id();
            if previous.is_some_and(falls) {
                return Err(corrupt(format!("the term falls at entry {}", id.index)));
            }
            previous = Some(*id);
        }
        Ok(self.recovered)
    }
}
