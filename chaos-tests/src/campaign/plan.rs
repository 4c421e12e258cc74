//! A run, made from a seed: how the cluster is made, what is worked, and what is broken when. Pure; JSON on disk.
//!
//! Swarm testing: each seed leaves most kinds of faults out, and turns each knob to one of a few values. A run with
//! everything in it finds less, because its faults stand in each other's way (Groce and others, "Swarm Testing", 2012).

mod size;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flott_chaos_basis::random::Random;
use serde::{Deserialize, Serialize};

pub use self::size::Size;
use super::fault::{Kind, Step, Whom};
use crate::target::Target;

/// The format of plans; an older one is refused.
pub const VERSION: u32 = 1;
/// Faults at the same time.
const OVERLAP_MAX: usize = 2;
/// So many of a hundred faults begin while another is under way.
const OVERLAP_PERCENT: u64 = 35;
/// No step ends later. A number that is far off is a mistake, and overflows somewhere.
const STEP_ENDS_MAX_MS: u64 = 30 * 24 * 3_600_000;

/// Each kind is in so many of a hundred plans.
const KIND_PERCENT: u64 = 40;

/// What a run works the cluster with.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// The sequence job, its checkpoints and their files.
    Seq,
    /// Registers in the replicated key-value space.
    Register,
    /// Jobs that come and go.
    Jobs,
    /// An abusive namespace beside a well-behaved one.
    Tenants,
    /// Queries over flights and bids, without faults and under them.
    Reference,
    /// Accounts in the replicated key-value space, and transfers between them.
    Bank,
}

impl Workload {
    /// What is worked where nothing is said. The others are there only if they are named: an abusive tenant is no guest for
    /// other people's clusters, and seeds go on to mean what they have meant.
    pub const USUAL: [Self; 3] = [Self::Seq, Self::Register, Self::Jobs];
}

/// How the cluster is made, and how hard it is worked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knobs {
    #[expect(missing_docs, reason = "how many")]
    pub jobmanagers: u32,
    #[expect(missing_docs, reason = "how many")]
    pub taskmanagers: u32,
    /// Of each TaskManager.
    pub slots: u32,
    /// Of the sequence job.
    pub parallelism: u32,
    /// Of the sequence job.
    pub records_per_second: u64,
    /// Of the sequence job in all; 0: until the end of the run.
    #[serde(default)]
    pub records: u64,
    /// Checkpoints lie in an object store that can be broken.
    #[serde(default)]
    pub store: bool,
    /// Configuration of all processes.
    pub settings: BTreeMap<String, String>,
}

/// A whole run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`VERSION`].
    pub version: u32,
    /// Begins every choice that is made while the plan is carried out, too.
    pub seed: u64,
    /// Whose processes are broken, and how they are joined.
    #[serde(default, skip_serializing_if = "Target::is_local")]
    pub target: Target,
    #[expect(missing_docs, reason = "see there")]
    pub knobs: Knobs,
    #[expect(missing_docs, reason = "see there")]
    pub workloads: BTreeSet<Workload>,
    /// By the time of their begin.
    pub steps: Vec<Step>,
}

/// What a plan is made for.
#[derive(Clone, Debug)]
pub struct Wanted {
    #[expect(missing_docs, reason = "see there")]
    pub target: Target,
    /// Of the faults.
    pub length: Duration,
    /// Kinds to choose from.
    pub kinds: Vec<Kind>,
    /// Whether all of them are to be in it; otherwise a random part.
    pub all_kinds: bool,
    /// None: a random part.
    pub workloads: Option<BTreeSet<Workload>>,
    /// None: one of a few.
    pub records_per_second: Option<u64>,
    /// Of a cluster that is there. None: the plan's own.
    pub size: Option<Size>,
}

impl Plan {
    /// The plan of that seed.
    pub fn from_seed(seed: u64, wanted: &Wanted) -> Self {
        let mut random = Random::new(seed);
        let workloads = match &wanted.workloads {
            Some(workloads) => workloads.clone(),
            None => {
                let others = [Workload::Register, Workload::Jobs];
                let mut chosen: BTreeSet<_> =
                    others.into_iter().filter(|_| random.percent(70)).collect();
                chosen.insert(Workload::Seq);
                chosen
            }
        };
        let kinds = choose_kinds(&mut random.fork(), wanted, &workloads);
        let mut knobs = choose_knobs(&mut random.fork(), wanted);
        if let Some(size) = wanted.size {
            size.fix(&mut knobs);
        }
        knobs.store = kinds.iter().any(|kind| kind.is_of_store());
        if kinds.contains(&Kind::TornSnapshot) && wanted.size.is_none() {
            // So that there are snapshots soon.
            let entries = "high-availability.raft.snapshot-entries";
            knobs.settings.insert(entries.to_owned(), "200".to_owned());
        }
        let steps = schedule(&mut random.fork(), &kinds, &knobs, wanted.length);
        Self {
            version: VERSION,
            seed,
            target: wanted.target,
            knobs,
            workloads,
            steps,
        }
    }

    /// Kinds that are in the plan.
    pub fn kinds(&self) -> BTreeSet<Kind> {
        self.steps.iter().map(|step| step.kind).collect()
    }

    /// When the last fault is undone.
    pub fn ends(&self) -> Duration {
        let end = self
            .steps
            .iter()
            .filter(|step| !step.kind.is_operation())
            .map(Step::ends_ms)
            .max();
        Duration::from_millis(end.unwrap_or(0))
    }

    /// Sixteen digits that tell this plan from others.
    pub fn digest(&self) -> String {
        // FNV-1a over the JSON: to recognise a plan, not to protect it.
        let json = serde_json::to_vec(self).unwrap_or_default();
        let hash = json.iter().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
        });
        format!("{hash:016x}")
    }

    /// What cannot be carried out; empty if everything can.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.version != VERSION {
            complaints.push(format!("version {} instead of {VERSION}", self.version));
        }
        let knobs = &self.knobs;
        for (what, is_wrong) in [
            ("jobmanagers: 1 to 9", !(1..=9).contains(&knobs.jobmanagers)),
            (
                "taskmanagers: 1 to 16",
                !(1..=16).contains(&knobs.taskmanagers),
            ),
            ("slots: 1 to 64", !(1..=64).contains(&knobs.slots)),
            (
                "parallelism: 1 to 64",
                !(1..=64).contains(&knobs.parallelism),
            ),
            ("without workloads", self.workloads.is_empty()),
            (
                "busy: 1 to 64 threads",
                self.steps
                    .iter()
                    .any(|step| step.kind == Kind::Busy && !(1..=64).contains(&step.amount)),
            ),
            (
                "memory: 1 to 65536 MiB",
                self.steps
                    .iter()
                    .any(|step| step.kind == Kind::Memory && !(1..=65_536).contains(&step.amount)),
            ),
            (
                "steps that end after more than 30 days",
                self.steps
                    .iter()
                    .any(|step| step.ends_ms() > STEP_ENDS_MAX_MS),
            ),
        ] {
            if is_wrong {
                complaints.push(what.to_owned());
            }
        }
        if self.kinds().iter().any(|kind| kind.is_of_store()) && !knobs.store {
            complaints.push("faults of an object store that is not there".to_owned());
        }
        complaints
    }
}

fn choose_kinds(random: &mut Random, wanted: &Wanted, workloads: &BTreeSet<Workload>) -> Vec<Kind> {
    let possible: Vec<Kind> = wanted
        .kinds
        .iter()
        .copied()
        // Their clients know the members' addresses from the beginning.
        .filter(|kind| !kind.replaces() || !workloads.iter().any(knows_members))
        .filter(|kind| {
            workloads.contains(&Workload::Seq) || !matches!(kind, Kind::Rescale | Kind::Savepoint)
        })
        .collect();
    if wanted.all_kinds || possible.len() <= 2 {
        return possible;
    }
    let mut chosen: Vec<Kind> = possible
        .iter()
        .copied()
        .filter(|_| random.percent(KIND_PERCENT))
        .collect();
    // At least one that hurts.
    while !chosen.iter().any(|kind| !kind.is_operation()) {
        let kind = *random.pick(&possible);
        if !chosen.contains(&kind) {
            chosen.push(kind);
        }
        if possible.iter().all(|kind| kind.is_operation()) {
            break;
        }
    }
    // Nobody names another build in order to see it left out.
    if possible.contains(&Kind::Upgrade) && !chosen.contains(&Kind::Upgrade) {
        chosen.push(Kind::Upgrade);
    }
    chosen
}

fn knows_members(workload: &Workload) -> bool {
    matches!(
        workload,
        Workload::Register | Workload::Tenants | Workload::Bank
    )
}

fn choose_knobs(random: &mut Random, wanted: &Wanted) -> Knobs {
    let mut settings = BTreeMap::new();
    // Of one value: storage that fails for seconds must not fail the job, and a broken pipeline is started again soon.
    for (key, values) in [
        (
            "execution.checkpointing.interval",
            &["300 ms", "1 s", "1 s", "3 s"][..],
        ),
        ("execution.checkpointing.num-retained", &["1", "3"]),
        (
            "high-availability.raft.snapshot-entries",
            &["200", "2000", "50000"],
        ),
        (
            "execution.state-recovery.from-local",
            &["true", "true", "false"],
        ),
        ("heartbeat.timeout", &["1500 ms", "3 s"]),
        ("execution.buffer-timeout", &["0 ms", "5 ms", "50 ms"]),
        ("execution.checkpointing.timeout", &["3 s", "10 s"]),
        (
            "execution.checkpointing.tolerable-failed-checkpoints",
            &["1000000"],
        ),
        ("restart-strategy.exponential-delay.max-backoff", &["2 s"]),
    ] {
        let value = match values {
            [only] => only,
            several => random.pick(several),
        };
        settings.insert(key.to_owned(), (*value).to_owned());
    }
    let taskmanagers = *random.pick(&[2, 2, 3]);
    Knobs {
        jobmanagers: 3,
        taskmanagers,
        slots: 4,
        // So that the job fits on the workers that are left, or does not.
        parallelism: *random.pick(&[2, 3, 4, 6]),
        records_per_second: wanted
            .records_per_second
            .unwrap_or(*random.pick(&[2_000, 10_000, 30_000])),
        records: 0,
        store: false,
        settings,
    }
}

/// Steps of all these kinds, with times to recover in between.
fn schedule(random: &mut Random, kinds: &[Kind], knobs: &Knobs, length: Duration) -> Vec<Step> {
    let length = length.as_millis() as u64;
    let mut steps: Vec<Step> = Vec::new();
    if kinds.is_empty() {
        return steps;
    }
    // Everything once before anything twice.
    let mut due: Vec<Kind> = Vec::new();
    // Some plans leave the cluster little time to recover.
    let rest_max = *random.pick(&[1_000, 4_000, 10_000]);
    let mut at = 500 + random.below(1_500);
    while at < length {
        if due.is_empty() {
            due = kinds.to_vec();
        }
        let kind = due.swap_remove(random.below(due.len() as u64) as usize);
        let (least, most) = kind.lasts();
        let lasts = random.duration(least, most).as_millis() as u64;
        let (whom, amount) = choose_whom(random, kind, knobs);
        steps.push(Step {
            at_ms: at,
            lasts_ms: lasts,
            kind,
            whom,
            amount,
        });
        at = if kind.is_operation() {
            // Done within seconds; whatever comes next meets it.
            at + 500 + random.below(4_000)
        } else if random.percent(OVERLAP_PERCENT) {
            first_time_with_room(&steps, at + 100 + random.below(2_000))
        } else {
            let faults = steps.iter().filter(|step| !step.kind.is_operation());
            let end = faults.map(Step::ends_ms).max().unwrap_or(at);
            end + 200 + random.below(rest_max)
        };
    }
    steps
}

fn choose_whom(random: &mut Random, kind: Kind, knobs: &Knobs) -> (Whom, u64) {
    let number = random.below(1_000) as u32;
    let somebody = match random.below(100) {
        0..35 => Whom::Leader,
        35..60 => Whom::Follower(number),
        _ => Whom::Worker(number),
    };
    match kind {
        Kind::Kill | Kind::Pause => {
            let all = [Whom::Jobmanagers, Whom::Workers, Whom::Everybody];
            let whom = if random.percent(12) {
                *random.pick(&all)
            } else {
                somebody
            };
            (whom, 0)
        }
        Kind::Isolate | Kind::Deaf | Kind::Mute | Kind::Flap | Kind::Reset => (somebody, 0),
        Kind::Slow => (somebody, *random.pick(&[20, 60, 150])),
        Kind::Thin => (somebody, *random.pick(&[20_000, 200_000])),
        Kind::Loss => (anybody(random, somebody), *random.pick(&[10, 50, 200])),
        Kind::Duplicate | Kind::Reorder => (anybody(random, somebody), *random.pick(&[50, 300])),
        Kind::Split | Kind::Bridge => {
            let whom = match somebody {
                Whom::Worker(number) => Whom::Follower(number),
                jobmanager => jobmanager,
            };
            (whom, random.below(1_u64 << knobs.taskmanagers))
        }
        Kind::StoreSlow => (Whom::Nobody, *random.pick(&[50, 300])),
        Kind::ClockAhead | Kind::ClockBack => {
            let all = [Whom::Jobmanagers, Whom::Everybody];
            let whom = if random.percent(25) {
                *random.pick(&all)
            } else {
                somebody
            };
            // Less than a heartbeat, and more than any time-out.
            (whom, *random.pick(&[300, 60_000, 3_600_000]))
        }
        Kind::DiskFull | Kind::DiskHung => (somebody, 0),
        Kind::SyncError => (somebody, *random.pick(&[0, 100, 1_000])),
        Kind::DiskSlow => (somebody, *random.pick(&[20, 100, 400])),
        Kind::FewFiles => (somebody, *random.pick(&[0, 2, 10])),
        Kind::Busy => (Whom::Nobody, *random.pick(&[2, 4, 8])),
        Kind::Memory => (somebody, *random.pick(&[1, 4, 16])),
        Kind::Rescale => {
            let most = u64::from(knobs.slots * knobs.taskmanagers.saturating_sub(1)).max(1);
            (Whom::Nobody, 1 + random.below(most))
        }
        Kind::Upgrade => (Whom::Nobody, *random.pick(&[0, 1, 2])),
        Kind::Replace | Kind::BitFlip | Kind::TornSnapshot => {
            let whom = if random.percent(50) {
                Whom::Leader
            } else {
                Whom::Follower(number)
            };
            (whom, 0)
        }
        _ => (Whom::Nobody, 0),
    }
}

/// That process, or the network as a whole.
fn anybody(random: &mut Random, somebody: Whom) -> Whom {
    match random.percent(25) {
        true => Whom::Everybody,
        false => somebody,
    }
}

/// The earliest moment from `at` on when fewer than [`OVERLAP_MAX`] faults are under way.
fn first_time_with_room(steps: &[Step], at: u64) -> u64 {
    let faults = steps.iter().filter(|step| !step.kind.is_operation());
    let mut ends: Vec<u64> = faults.map(Step::ends_ms).filter(|end| *end > at).collect();
    ends.sort_unstable();
    match ends.len().checked_sub(OVERLAP_MAX) {
        Some(index) => ends[index],
        None => at,
    }
}

#[cfg(test)]
mod tests;
