//! Kinds of faults, whom they strike, and one step of a schedule. Pure.

use std::fmt;
use std::time::Duration;

use flott_chaos_basis::control::Lever;
use serde::{Deserialize, Serialize};

use crate::target::{Node, Target};

/// A kind of fault, or of what an operator does meanwhile.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// SIGKILL; started again at the end.
    Kill,
    /// SIGSTOP; SIGCONT at the end.
    Pause,
    /// Cut off from all other processes, in both directions.
    Isolate,
    /// Hears nobody, is heard by all.
    Deaf,
    /// Is heard by nobody, hears all.
    Mute,
    /// Isolated and back, every second.
    Flap,
    /// All that it says and hears is late by `amount` milliseconds.
    Slow,
    /// Its connections break, every 200 ms.
    Reset,
    /// All that it says and hears goes through a line of `amount` bytes a second.
    Thin,
    /// Of all frames that it sends and receives, `amount` of a thousand are lost.
    Loss,
    /// So many come twice.
    Duplicate,
    /// So many are overtaken by those behind them.
    Reorder,
    /// It is in a minority of the JobManagers, which is cut off together with the TaskManagers that the bits of `amount` name.
    Split,
    /// It alone is heard by two halves of the cluster, which do not hear each other; the bits of `amount` say which
    /// TaskManagers are in the first.
    Bridge,
    /// The object store does not answer.
    StoreOutage,
    /// The object store answers with 503.
    StoreRefusal,
    /// Every answer of the object store is late by `amount` milliseconds.
    StoreSlow,
    /// The leader is asked to hand over.
    Transfer,
    /// The JobManagers are restarted in order, one after the other.
    Restart,
    /// A JobManager is replaced by a new one.
    Replace,
    /// The sequence job goes on at parallelism `amount`.
    Rescale,
    /// A savepoint of the sequence job.
    Savepoint,
    /// Its wall clock is `amount` milliseconds ahead, and jumps back at the end.
    ClockAhead,
    /// Its wall clock is `amount` milliseconds behind, and jumps ahead at the end.
    ClockBack,
    /// There is no room on its disk.
    DiskFull,
    /// Of a thousand syncs of its disk `amount` fail; 0: the next one does.
    SyncError,
    /// Each sync of its disk takes `amount` milliseconds longer.
    DiskSlow,
    /// No sync of its disk comes back before the end.
    DiskHung,
    /// It can open no more than `amount` files beyond those that it has.
    FewFiles,
    /// So many threads of others want nothing but the processor.
    Busy,
    /// Killed; a bit of its log flips; started, it refuses, and is replaced.
    BitFlip,
    /// Killed; its newest snapshot is cut short; started, it does without, or refuses and is replaced.
    TornSnapshot,
    /// The next `amount` processes, 0: all, are restarted with the other build, one after the other. When all run it, the next
    /// step begins to take them back.
    Upgrade,
    /// Every tenth of a second there are `amount` MiB of memory for it; if it takes more, it has to wait, or is refused.
    Memory,
}

impl Kind {
    /// What is drawn from where nothing is said, as far as the target has it ([`Self::is_drawn_on`]). The others are there only
    /// if they are asked for, so that seeds go on to mean what they have meant.
    pub const USUAL: [Self; 22] = [
        Self::Kill,
        Self::Pause,
        Self::Isolate,
        Self::Deaf,
        Self::Mute,
        Self::Flap,
        Self::Slow,
        Self::Reset,
        Self::Thin,
        Self::Loss,
        Self::Duplicate,
        Self::Reorder,
        Self::Split,
        Self::Bridge,
        Self::StoreOutage,
        Self::StoreRefusal,
        Self::StoreSlow,
        Self::Transfer,
        Self::Restart,
        Self::Replace,
        Self::Rescale,
        Self::Savepoint,
    ];

    /// All.
    pub fn all() -> impl Iterator<Item = Self> {
        let more = More::ALL.into_iter().flat_map(More::kinds);
        Self::USUAL.into_iter().chain(more.copied())
    }

    /// Whether it is done from within the process, by the library that is loaded into it.
    pub fn is_inside(self) -> bool {
        lever_of(self).is_some()
    }

    /// Whether a JobManager may end by it: one that cannot write its log any more does, before it promises what it cannot
    /// keep.
    pub fn may_end(self) -> bool {
        matches!(
            self,
            Self::DiskFull | Self::SyncError | Self::DiskHung | Self::FewFiles | Self::Memory
        )
    }

    /// Whether it needs an object store that can be broken.
    pub fn is_of_store(self) -> bool {
        matches!(
            self,
            Self::StoreOutage | Self::StoreRefusal | Self::StoreSlow
        )
    }

    /// Whether another member may come into the place of one.
    pub fn replaces(self) -> bool {
        matches!(self, Self::Replace | Self::BitFlip | Self::TornSnapshot)
    }

    /// Whether it needs a network of frames: connections, which are all that a proxy sees, lose nothing.
    pub fn is_of_frames(self) -> bool {
        matches!(self, Self::Loss | Self::Duplicate | Self::Reorder)
    }

    /// Whether seeds draw it on that target. Seeds of `local` go on to mean what they have meant.
    pub fn is_drawn_on(self, target: Target) -> bool {
        match target {
            Target::Local => !self.is_of_frames() && !matches!(self, Self::Split | Self::Bridge),
            Target::Netns => true,
            // Only what a shell can do.
            Target::Remote => {
                Self::USUAL.contains(&self) && !self.is_of_store() && !self.replaces()
            }
        }
    }

    /// Whether it is an operator's doing, or needs an operator: it takes as long as it takes, and leaves nothing to undo.
    pub fn is_operation(self) -> bool {
        matches!(
            self,
            Self::Transfer
                | Self::Restart
                | Self::Replace
                | Self::Rescale
                | Self::Savepoint
                | Self::BitFlip
                | Self::TornSnapshot
                | Self::Upgrade
        )
    }

    /// Shortest and longest.
    pub fn lasts(self) -> (Duration, Duration) {
        let range = |least, most| (Duration::from_millis(least), Duration::from_millis(most));
        match self {
            Self::Kill => range(200, 8_000),
            Self::Pause | Self::Isolate | Self::Deaf | Self::Mute => range(500, 8_000),
            Self::Flap | Self::Reset => range(2_000, 8_000),
            Self::Split | Self::Bridge => range(1_000, 10_000),
            Self::Slow | Self::Thin => range(3_000, 12_000),
            Self::Loss | Self::Duplicate | Self::Reorder => range(3_000, 12_000),
            Self::StoreOutage | Self::StoreRefusal | Self::StoreSlow => range(1_000, 12_000),
            Self::ClockAhead | Self::ClockBack => range(2_000, 12_000),
            Self::DiskFull | Self::SyncError | Self::FewFiles => range(500, 8_000),
            Self::DiskSlow | Self::Busy => range(3_000, 12_000),
            Self::Memory => range(3_000, 12_000),
            // A JobManager ends if its disk hangs for twenty seconds.
            Self::DiskHung => range(500, 25_000),
            // Every process is started once, and waited for.
            Self::Upgrade => range(120_000, 120_000),
            // Of an operation: until it is given up.
            _ => range(30_000, 30_000),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Isolate => "isolate",
            Self::Deaf => "deaf",
            Self::Mute => "mute",
            Self::Flap => "flap",
            Self::Slow => "slow",
            Self::Reset => "reset",
            Self::Thin => "thin",
            Self::Loss => "loss",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::Split => "split",
            Self::Bridge => "bridge",
            Self::StoreOutage => "store-outage",
            Self::StoreRefusal => "store-refusal",
            Self::StoreSlow => "store-slow",
            Self::Transfer => "transfer",
            Self::Restart => "restart",
            Self::Replace => "replace",
            Self::Rescale => "rescale",
            Self::Savepoint => "savepoint",
            Self::ClockAhead => "clock-ahead",
            Self::ClockBack => "clock-back",
            Self::DiskFull => "disk-full",
            Self::SyncError => "sync-error",
            Self::DiskSlow => "disk-slow",
            Self::DiskHung => "disk-hung",
            Self::FewFiles => "few-files",
            Self::Busy => "busy",
            Self::BitFlip => "bit-flip",
            Self::TornSnapshot => "torn-snapshot",
            Self::Upgrade => "upgrade",
            Self::Memory => "memory",
        })
    }
}

/// Kinds that have to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum More {
    /// clock-ahead, clock-back
    Clock,
    /// disk-full, sync-error, disk-slow, disk-hung
    Disk,
    /// few-files, busy
    Pressure,
    /// bit-flip, torn-snapshot
    Damage,
    /// upgrade; needs --upgrade-to, and is in every plan with it
    Upgrade,
    /// memory
    Memory,
}

impl More {
    #[expect(missing_docs, reason = "its name says it")]
    pub const ALL: [Self; 6] = [
        Self::Clock,
        Self::Disk,
        Self::Pressure,
        Self::Damage,
        Self::Upgrade,
        Self::Memory,
    ];

    /// What they are.
    pub fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Clock => &[Kind::ClockAhead, Kind::ClockBack],
            Self::Disk => &[
                Kind::DiskFull,
                Kind::SyncError,
                Kind::DiskSlow,
                Kind::DiskHung,
            ],
            Self::Pressure => &[Kind::FewFiles, Kind::Busy],
            Self::Damage => &[Kind::BitFlip, Kind::TornSnapshot],
            Self::Upgrade => &[Kind::Upgrade],
            Self::Memory => &[Kind::Memory],
        }
    }
}

/// By which lever of a process's page it is done; none: not by the page.
pub fn lever_of(kind: Kind) -> Option<Lever> {
    match kind {
        Kind::ClockAhead | Kind::ClockBack => Some(Lever::Clock),
        Kind::DiskFull => Some(Lever::Full),
        Kind::SyncError => Some(Lever::SyncError),
        Kind::DiskSlow => Some(Lever::Slow),
        Kind::DiskHung => Some(Lever::Hung),
        _ => None,
    }
}

/// Whom a step strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Whom {
    /// The JobManager that leads at that moment.
    Leader,
    /// A JobManager that does not; which, is drawn by this number.
    Follower(u32),
    /// A TaskManager, drawn by this number.
    Worker(u32),
    /// All JobManagers.
    Jobmanagers,
    /// All TaskManagers.
    Workers,
    /// Every process.
    Everybody,
    /// No process: the job, the store or the group as a whole.
    Nobody,
}

impl Whom {
    /// The processes that are meant, while `leader` leads; why there are none.
    pub fn resolve(
        self,
        leader: Option<Node>,
        jobmanagers: &[Node],
        workers: &[Node],
    ) -> Result<Vec<Node>, String> {
        let drawn = |of: &[Node], number: u32| {
            let index = (number as usize).checked_rem(of.len());
            index
                .map(|index| vec![of[index]])
                .ok_or_else(|| "there is nobody".to_owned())
        };
        match self {
            Self::Leader => leader
                .map(|leader| vec![leader])
                .ok_or_else(|| "nobody leads".to_owned()),
            Self::Follower(number) => {
                let leader = leader.ok_or("nobody leads")?;
                let others: Vec<Node> = jobmanagers
                    .iter()
                    .copied()
                    .filter(|node| *node != leader)
                    .collect();
                drawn(&others, number)
            }
            Self::Worker(number) => drawn(workers, number),
            Self::Jobmanagers => Ok(jobmanagers.to_vec()),
            Self::Workers => Ok(workers.to_vec()),
            Self::Everybody => Ok([jobmanagers, workers].concat()),
            Self::Nobody => Ok(Vec::new()),
        }
    }
}

/// One fault of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Milliseconds after the begin of the faults.
    pub at_ms: u64,
    /// Its time to live: then it is undone.
    pub lasts_ms: u64,
    /// What.
    pub kind: Kind,
    /// To whom.
    pub whom: Whom,
    /// See the kind; 0 where it has no measure.
    #[serde(default)]
    pub amount: u64,
}

impl Step {
    /// When it is undone.
    pub fn ends_ms(&self) -> u64 {
        self.at_ms.saturating_add(self.lasts_ms)
    }

    /// The step in a few words.
    pub fn text(&self) -> String {
        let whom = match self.whom {
            Whom::Leader => " the leader",
            Whom::Follower(_) => " a follower",
            Whom::Worker(_) => " a worker",
            Whom::Jobmanagers => " all JobManagers",
            Whom::Workers => " all workers",
            Whom::Everybody => " everybody",
            Whom::Nobody => "",
        };
        // Bits say nothing to people; who was struck is said where it is known.
        let amount = match (self.kind, self.amount) {
            (Kind::Split | Kind::Bridge, _) | (_, 0) => String::new(),
            (_, amount) => format!(" {amount}"),
        };
        format!("{}{amount}{whom}", self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_on_the_command_line_in_json_and_in_a_table_is_the_same() {
        use clap::ValueEnum;
        for kind in Kind::all() {
            let json = serde_json::to_value(kind).unwrap();
            assert_eq!(json.as_str(), Some(kind.to_string().as_str()));
            let value = kind.to_possible_value().unwrap();
            assert_eq!(value.get_name(), kind.to_string());
        }
        let all: Vec<Kind> = Kind::all().collect();
        assert_eq!(Kind::value_variants(), all);
    }

    #[test]
    fn a_follower_is_never_the_leader() {
        let all = [1, 2, 3].map(Node::Jobmanager);
        for number in 0..6 {
            let struck = Whom::Follower(number)
                .resolve(Some(all[1]), &all, &[])
                .unwrap();
            assert!(struck.len() == 1 && struck[0] != all[1], "{struck:?}");
        }
        assert!(Whom::Leader.resolve(None, &all, &[]).is_err());
        assert!(Whom::Worker(7).resolve(None, &all, &[]).is_err());
        assert_eq!(Whom::Everybody.resolve(None, &all, &[]).unwrap(), all);
    }
}
