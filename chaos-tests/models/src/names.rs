//! Numbers and sets of names, small enough for millions of states.

use std::fmt;

/// Parallel subtasks of the one job. Every one reads, keeps state and writes output.
pub const SUBTASKS: usize = 2;

/// More than any bound allows.
const ATTEMPTS_MAX: u32 = 3;
pub const CHECKPOINTS_MAX: usize = 4;

/// The number of an election.
pub type Epoch = u8;
/// 1 is the first.
pub type Attempt = u8;
/// 1 is the first; 0 is none.
pub type Checkpoint = u8;
/// What a subtask reads between two snapshots, by number.
pub type Interval = u8;

/// A state file: written by one attempt of one subtask for one checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    pub subtask: usize,
    pub attempt: Attempt,
    pub checkpoint: Checkpoint,
}

/// Objects of checkpoint storage: state files, and the `_metadata` of checkpoints.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Objects(u64);

/// What sinks write: the rows of an interval as one attempt of one subtask read them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Output(u64);

fn bit(subtask: usize, attempt: Attempt, within: usize) -> u64 {
    assert!(subtask < SUBTASKS && u32::from(attempt) <= ATTEMPTS_MAX && within < CHECKPOINTS_MAX);
    let row = subtask * ATTEMPTS_MAX as usize + usize::from(attempt - 1);
    1 << (row * CHECKPOINTS_MAX + within)
}

impl Objects {
    pub const NONE: Self = Self(0);

    pub fn file(file: File) -> Self {
        Self(bit(
            file.subtask,
            file.attempt,
            usize::from(file.checkpoint - 1),
        ))
    }

    pub fn metadata(checkpoint: Checkpoint) -> Self {
        Self(1 << (48 + checkpoint))
    }

    pub fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    pub fn and(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    pub fn has(self, others: Self) -> bool {
        others.without(self) == Self::NONE
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The state files among them.
    pub fn files(self) -> impl Iterator<Item = File> {
        let all = (0..SUBTASKS).flat_map(|subtask| {
            (1..=ATTEMPTS_MAX as Attempt).flat_map(move |attempt| {
                (1..=CHECKPOINTS_MAX as Checkpoint).map(move |checkpoint| File {
                    subtask,
                    attempt,
                    checkpoint,
                })
            })
        });
        all.filter(move |file| self.has(Self::file(*file)))
    }

    /// The file that was written last.
    pub fn newest(self) -> Self {
        let newest = self.files().max_by_key(|file| file.checkpoint);
        newest.map_or(Self::NONE, Self::file)
    }

    /// Those written by attempts before this one.
    pub fn of_closed_writers(self, present: Attempt) -> Self {
        let closed = self.files().filter(|file| file.attempt < present);
        closed.fold(Self::NONE, |all, file| all.with(Self::file(file)))
    }
}

impl Output {
    pub fn of(subtask: usize, attempt: Attempt, interval: Interval) -> Self {
        Self(bit(subtask, attempt, usize::from(interval)))
    }

    pub fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    pub fn has(self, others: Self) -> bool {
        others.0 & !self.0 == 0
    }

    /// How many attempts' rows of that interval are among these.
    pub fn times(self, subtask: usize, interval: Interval) -> usize {
        let attempts = 1..=ATTEMPTS_MAX as Attempt;
        attempts
            .filter(|attempt| self.has(Self::of(subtask, *attempt, interval)))
            .count()
    }
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metadata =
            (1..=CHECKPOINTS_MAX as Checkpoint).filter(|id| self.has(Self::metadata(*id)));
        f.debug_set()
            .entries(
                self.files()
                    .map(|file| format!("s{}/a{}/{}", file.subtask, file.attempt, file.checkpoint)),
            )
            .entries(metadata.map(|id| format!("chk-{id}")))
            .finish()
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut set = f.debug_set();
        for subtask in 0..SUBTASKS {
            for attempt in 1..=ATTEMPTS_MAX as Attempt {
                for interval in 0..CHECKPOINTS_MAX as Interval {
                    if self.has(Self::of(subtask, attempt, interval)) {
                        set.entry(&format!("s{subtask}/a{attempt}/rows {interval}"));
                    }
                }
            }
        }
        set.finish()
    }
}
