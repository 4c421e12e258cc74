//! Kinds of faults, whom they strike, and one step of a schedule. Pure.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::target::Node;

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
}

impl Kind {
    /// All, in the order of tables.
    pub const ALL: [Self; 17] = [
        Self::Kill,
        Self::Pause,
        Self::Isolate,
        Self::Deaf,
        Self::Mute,
        Self::Flap,
        Self::Slow,
        Self::Reset,
        Self::Thin,
        Self::StoreOutage,
        Self::StoreRefusal,
        Self::StoreSlow,
        Self::Transfer,
        Self::Restart,
        Self::Replace,
        Self::Rescale,
        Self::Savepoint,
    ];

    /// Whether it needs an object store that can be broken.
    pub fn is_of_store(self) -> bool {
        matches!(
            self,
            Self::StoreOutage | Self::StoreRefusal | Self::StoreSlow
        )
    }

    /// Whether it is an operator's doing: it takes as long as it takes, and leaves nothing to undo.
    pub fn is_operation(self) -> bool {
        matches!(
            self,
            Self::Transfer | Self::Restart | Self::Replace | Self::Rescale | Self::Savepoint
        )
    }

    /// Shortest and longest.
    pub fn lasts(self) -> (Duration, Duration) {
        let range = |least, most| (Duration::from_millis(least), Duration::from_millis(most));
        match self {
            Self::Kill => range(200, 8_000),
            Self::Pause | Self::Isolate | Self::Deaf | Self::Mute => range(500, 8_000),
            Self::Flap | Self::Reset => range(2_000, 8_000),
            Self::Slow | Self::Thin => range(3_000, 12_000),
            Self::StoreOutage | Self::StoreRefusal | Self::StoreSlow => range(1_000, 12_000),
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
            Self::StoreOutage => "store-outage",
            Self::StoreRefusal => "store-refusal",
            Self::StoreSlow => "store-slow",
            Self::Transfer => "transfer",
            Self::Restart => "restart",
            Self::Replace => "replace",
            Self::Rescale => "rescale",
            Self::Savepoint => "savepoint",
        })
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
        let amount = match self.amount {
            0 => String::new(),
            amount => format!(" {amount}"),
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
        for kind in Kind::ALL {
            let json = serde_json::to_value(kind).unwrap();
            assert_eq!(json.as_str(), Some(kind.to_string().as_str()));
            let value = kind.to_possible_value().unwrap();
            assert_eq!(value.get_name(), kind.to_string());
        }
        assert_eq!(Kind::value_variants().len(), Kind::ALL.len());
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
