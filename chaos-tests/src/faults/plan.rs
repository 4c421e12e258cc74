//! A schedule of faults, made from a seed. Pure.
//!
//! A seed replays the plan, not the interleaving of real processes. Some faults overlap, at most [`OVERLAP_MAX`] at a
//! time, so a group of three may lose its quorum for a while: then nothing can be acknowledged, and nothing may be lost.
//! Most do not: a group that cannot work shows little.

use std::fmt;
use std::time::Duration;

use flott_chaos_basis::random::Random;
use serde::Serialize;

/// Faults at the same time.
const OVERLAP_MAX: usize = 2;
/// So many of a hundred faults begin while another is under way.
const OVERLAP_PERCENT: u64 = 30;
/// From the begin of one fault to that of one which overlaps with it.
const STAGGER: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(1_000));
/// From the end of one fault to the begin of the next.
const REST: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(900));
/// Faults strike the leader in so many of a hundred cases; otherwise anybody, the leader included.
const LEADER_PERCENT: u64 = 60;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Fault {
    /// SIGKILL; started again at the end.
    Kill,
    /// SIGSTOP; SIGCONT at the end.
    Pause,
    /// Cut off from all other members, in both directions.
    Isolate,
    /// Cut off together with as many others as make a minority.
    Minority,
    /// Hears nobody, is heard by all.
    Deaf,
    /// Is heard by nobody, hears all.
    Mute,
}

impl Fault {
    /// All kinds, in the order of tables.
    pub const ALL: [Self; 6] = [
        Self::Kill,
        Self::Pause,
        Self::Isolate,
        Self::Minority,
        Self::Deaf,
        Self::Mute,
    ];

    /// Whether it is done to the network.
    pub fn is_partition(self) -> bool {
        !matches!(self, Self::Kill | Self::Pause)
    }

    /// Shortest and longest.
    fn lasts(self) -> (Duration, Duration) {
        let range = |least, most| (Duration::from_millis(least), Duration::from_millis(most));
        match self {
            Self::Kill => range(200, 2_000),
            Self::Pause => range(500, 5_000),
            Self::Isolate | Self::Minority | Self::Deaf | Self::Mute => range(500, 3_500),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Isolate => "isolate",
            Self::Minority => "minority",
            Self::Deaf => "deaf",
            Self::Mute => "mute",
        })
    }
}

/// Whom it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Whom {
    /// Who leads at that moment.
    Leader,
    /// The member of that number, from 1.
    Member(u32),
}

/// One fault of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// After the begin of the faults.
    pub at: Duration,
    /// Until it is undone.
    pub lasts: Duration,
    /// What.
    pub fault: Fault,
    /// To whom.
    pub whom: Whom,
}

impl Step {
    /// When it is undone.
    pub fn ends(&self) -> Duration {
        self.at + self.lasts
    }
}

/// Faults by the time of their begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What is done when.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Faults of all kinds for `length`, to a group of `members`. If that is at least eight seconds, among them are at
    /// least one kill, one pause and one partition.
    pub fn mixed(random: &mut Random, members: u32, length: Duration) -> Self {
        let partition = |random: &mut Random| *random.pick(&Fault::ALL[2..]);
        let mut kinds = vec![Fault::Kill, Fault::Pause, partition(random)];
        let first = random.below(3) as usize;
        kinds.rotate_left(first);
        let mut steps: Vec<Step> = Vec::new();
        let mut at = random.duration(Duration::from_millis(100), Duration::from_millis(600));
        while at < length {
            let fault = match kinds.pop() {
                Some(fault) => fault,
                None if random.percent(50) => partition(random),
                None => *random.pick(&[Fault::Kill, Fault::Pause]),
            };
            let whom = if random.percent(LEADER_PERCENT) {
                Whom::Leader
            } else {
                Whom::Member(1 + random.below(u64::from(members)) as u32)
            };
            let (least, most) = fault.lasts();
            // The first ones leave time for those that every plan has to have.
            let most = if kinds.is_empty() { most } else { length / 5 };
            let left = length.saturating_sub(at);
            let lasts = random.duration(least, most.min(left).max(least));
            steps.push(Step {
                at,
                lasts,
                fault,
                whom,
            });
            at = if random.percent(OVERLAP_PERCENT) {
                let at = at + random.duration(STAGGER.0, STAGGER.1);
                first_time_with_room(&steps, at)
            } else {
                let end = steps.iter().map(Step::ends).max().unwrap_or_default();
                end + random.duration(REST.0, REST.1)
            };
        }
        Self { steps }
    }

    /// The leader is paused `count` times for `lasts`, with time to recover in between.
    pub fn pauses_of_the_leader(count: u32, lasts: Duration, recovery: Duration) -> Self {
        let step = |number| Step {
            at: (lasts + recovery) * number,
            lasts,
            fault: Fault::Pause,
            whom: Whom::Leader,
        };
        Self {
            steps: (0..count).map(step).collect(),
        }
    }

    /// When the last fault is undone.
    pub fn ends(&self) -> Duration {
        self.steps.iter().map(Step::ends).max().unwrap_or_default()
    }
}

/// The earliest moment from `at` on when fewer than [`OVERLAP_MAX`] of the steps are under way.
fn first_time_with_room(steps: &[Step], at: Duration) -> Duration {
    let mut ends: Vec<Duration> = steps
        .iter()
        .map(Step::ends)
        .filter(|end| *end > at)
        .collect();
    ends.sort_unstable();
    match ends.len().checked_sub(OVERLAP_MAX) {
        Some(index) => ends[index],
        None => at,
    }
}

/// The directed pairs of members whose frames are dropped when a partition strikes `member` of `members`.
pub fn cut_pairs(fault: Fault, member: u32, members: u32) -> Vec<(u32, u32)> {
    let minority = (members - 1) / 2;
    let companions = if fault == Fault::Minority {
        minority.saturating_sub(1)
    } else {
        0
    };
    let inside = |other: u32| (other + members - member) % members <= companions;
    let mut pairs = Vec::new();
    for from in 1..=members {
        for to in 1..=members {
            let leaves = inside(from) && !inside(to);
            let enters = !inside(from) && inside(to);
            let cut = match fault {
                Fault::Kill | Fault::Pause => false,
                Fault::Isolate | Fault::Minority => leaves || enters,
                Fault::Deaf => enters,
                Fault::Mute => leaves,
            };
            if cut {
                pairs.push((from, to));
            }
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(8);

    #[test]
    fn a_seed_means_the_same_plan_and_another_seed_another() {
        let plan = |seed| Plan::mixed(&mut Random::new(seed), 3, LENGTH);
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
    }

    #[test]
    fn every_plan_kills_pauses_and_cuts_within_its_time_and_with_few_faults_at_once() {
        for seed in 0..300 {
            let plan = Plan::mixed(&mut Random::new(seed), 3, LENGTH);
            let has = |kind: fn(Fault) -> bool| plan.steps.iter().any(|step| kind(step.fault));
            assert!(has(|fault| fault == Fault::Kill), "{plan:?}");
            assert!(has(|fault| fault == Fault::Pause), "{plan:?}");
            assert!(has(Fault::is_partition), "{plan:?}");
            assert!(
                plan.ends() <= LENGTH + Duration::from_millis(600),
                "{plan:?}"
            );
            for step in &plan.steps {
                let at_once = |other: &&Step| other.at <= step.at && step.at < other.ends();
                let at_once = plan.steps.iter().filter(at_once).count();
                assert!(at_once <= OVERLAP_MAX, "{at_once} at once in {plan:?}");
            }
        }
    }

    #[test]
    fn a_cut_separates_the_struck_from_the_rest_and_nobody_else() {
        assert_eq!(
            cut_pairs(Fault::Isolate, 2, 3),
            [(1, 2), (2, 1), (2, 3), (3, 2)]
        );
        assert_eq!(cut_pairs(Fault::Deaf, 2, 3), [(1, 2), (3, 2)]);
        assert_eq!(cut_pairs(Fault::Mute, 2, 3), [(2, 1), (2, 3)]);
        assert_eq!(
            cut_pairs(Fault::Minority, 3, 3),
            cut_pairs(Fault::Isolate, 3, 3)
        );
        // Of five, two: the struck one and the next.
        let pairs = cut_pairs(Fault::Minority, 5, 5);
        assert_eq!(pairs.len(), 12);
        assert!(!pairs.contains(&(5, 1)) && !pairs.contains(&(2, 3)));
        assert!(pairs.contains(&(5, 2)) && pairs.contains(&(4, 1)));
        assert!(cut_pairs(Fault::Kill, 1, 3).is_empty());
    }

    #[test]
    fn pauses_leave_time_to_recover() {
        let (lasts, recovery) = (Duration::from_secs(5), Duration::from_secs(2));
        let plan = Plan::pauses_of_the_leader(3, lasts, recovery);
        assert_eq!(plan.steps.len(), 3);
        assert_eq!(plan.steps[2].at, Duration::from_secs(14));
        assert_eq!(plan.ends(), Duration::from_secs(19));
    }
}
