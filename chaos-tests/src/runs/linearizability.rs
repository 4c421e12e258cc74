//! Registers under faults: is every answer that of one register that never fails?
//!
//! ```text
//! start ─► warm-up ─► safety: the plan's faults, overlapping ─► heal ─► liveness: ten writes within 30 s
//!       ─► final reads through every member ─► all members hold the same ─► judge
//! ```
//!
//! A run counts only if its faults happened and enough was acknowledged meanwhile; otherwise it is *unknown*, not good.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use flott_chaos_basis::random::Random;
use flott_node::SharedClock;
use flott_proto::wire::{self, kv_response};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::until;
use crate::cluster::group::{Group, Options};
use crate::cluster::network::Network;
use crate::cluster::status::status;
use crate::faults::inject::{self, Struck};
use crate::faults::plan::{Fault, Plan};
use crate::history::{Action, History, Operation, Outcome};
use crate::invariants::leaders::Leaders;
use crate::invariants::linearizable::{self, Limits};
use crate::report::{HistoryReport, Verdict};
use crate::workload::client::{self, Attempt, Connection};
use crate::workload::registers::{Client, Kind, Registers};

/// Clients that give up soon, and those that repeat. One patient client for each member comes on top.
const HASTY_CLIENTS: u32 = 10;
const REPEATING_CLIENTS: u32 = 3;
/// Acknowledged operations before the first fault.
const WARM_UP: u64 = 100;
/// For the group to work: at the start, and after healing.
const LIVENESS: Duration = Duration::from_secs(30);
/// Acknowledged writes that show that it does.
const LIVENESS_WRITES: u32 = 10;
/// For all members to hold the same, once nothing is written any more.
const CONVERGENCE: Duration = Duration::from_secs(30);
/// With fewer acknowledgements while faults were under way, a run has shown little.
const ACKNOWLEDGED_UNDER_FAULTS_MIN: u64 = 100;
/// Between two rounds of asking who leads.
const WITNESS_PAUSE: Duration = Duration::from_millis(200);
/// Numbers of the clients that come after the faults; the others count from 1.
const LATER_CLIENTS: u32 = 900;

/// What is run.
#[derive(Clone, Debug)]
pub struct Course {
    /// Names the run, and begins the clients' choices.
    pub seed: u64,
    /// Size of the group.
    pub members: u32,
    /// Registers.
    pub keys: u32,
    /// What is done to the group.
    pub plan: Plan,
    /// Configuration of the members.
    pub options: Options,
}

impl Course {
    /// The course of that seed: mixed faults for `length`.
    pub fn mixed(seed: u64, members: u32, length: Duration) -> Self {
        let mut random = Random::new(seed);
        let plan = Plan::mixed(&mut random.fork(), members, length);
        // Small enough that snapshots are taken and the log is purged while members are away; or practically never.
        let entries = *random.pick(&[300, 1_000, 50_000]);
        let overrides = vec![format!("high-availability.raft.snapshot-entries={entries}")];
        Self {
            seed,
            members,
            keys: 10,
            plan,
            options: Options {
                overrides,
                ..Options::default()
            },
        }
    }
}

/// What there is to judge.
#[derive(Debug)]
pub struct Evidence {
    /// All operations.
    pub history: History,
    /// What was done to the group.
    pub struck: Vec<Struck>,
    /// When the faults began, in the history's time.
    pub faults_from: Duration,
    leaders: Leaders,
}

/// Runs the course in `directory` and judges it. What went wrong with the group is part of the verdict; an error is a
/// failure of the harness.
pub async fn run(
    course: &Course,
    directory: &Path,
    network: Arc<Network>,
    clock: &SharedClock,
) -> anyhow::Result<(HistoryReport, Evidence)> {
    let registers = Registers::new(course.keys, course.members, "register/", clock.clone());
    let mut evidence = Evidence {
        history: History::default(),
        struck: Vec::new(),
        faults_from: Duration::ZERO,
        leaders: Leaders::default(),
    };
    network.heal().await?;
    let options = course.options.clone();
    let group = Group::start(directory, course.members, network, options).await?;
    let lived = live(course, &group, &registers, &mut evidence, clock).await;
    group.put_all_down().await?;
    let report = judge(course, &evidence, lived.err());
    let file = std::fs::File::create(directory.join("history.jsonl"))?;
    evidence
        .history
        .write_to(std::io::BufWriter::new(file))
        .context("cannot write the history")?;
    Ok((report, evidence))
}

/// From the warm-up to the final reads. An error says what the group did not do.
async fn live(
    course: &Course,
    group: &Group,
    registers: &Arc<Registers>,
    evidence: &mut Evidence,
    clock: &SharedClock,
) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut random = Random::new(course.seed).fork();
    let mut clients = JoinSet::new();
    let count = HASTY_CLIENTS + REPEATING_CLIENTS + course.members;
    for number in 1..=count {
        let kind = match number {
            1..=HASTY_CLIENTS => Kind::Hasty,
            _ if number <= HASTY_CLIENTS + REPEATING_CLIENTS => Kind::Repeating,
            _ => Kind::Patient,
        };
        let client = Client::new(registers, number, kind, random.fork());
        clients.spawn(client.run(stop.clone()));
    }
    let mut witnesses = JoinSet::new();
    for member in group.numbers() {
        witnesses.spawn(witness(member, stop.clone(), clock.clone()));
    }
    let lived = async {
        until(clock, LIVENESS, async || {
            let acknowledged = registers.acknowledged();
            (acknowledged >= WARM_UP)
                .then_some(())
                .ok_or_else(|| format!("only {acknowledged} operations were acknowledged"))
        })
        .await
        .context("before any fault")?;
        evidence.faults_from = clock.monotonic().saturating_sub(registers.start);
        let leader = || registers.leader();
        evidence.struck = inject::carry_out(&course.plan, group, leader, clock).await?;
        group.heal().await?;
        let operations = &mut evidence.history.operations;
        show_liveness(registers, random.fork(), clock, operations).await?;
        group.check_alive()
    }
    .await;
    stop.cancel();
    while let Some(operations) = clients.join_next().await {
        evidence.history.operations.extend(operations?);
    }
    while let Some(seen) = witnesses.join_next().await {
        for (member, term, leader) in seen? {
            evidence.leaders.observe(member, term, leader);
        }
    }
    lived?;
    let operations = &mut evidence.history.operations;
    final_reads(registers, random.fork(), clock, operations).await?;
    converge(registers, clock).await?;
    group.check_alive()
}

/// Writes through whoever leads until ten are acknowledged. Whatever comes of it, all attempts are added to `operations`: a
/// later read may find what one of them wrote.
pub(crate) async fn show_liveness(
    registers: &Arc<Registers>,
    mut random: Random,
    clock: &SharedClock,
    operations: &mut Vec<Operation>,
) -> anyhow::Result<()> {
    let mut client = Client::new(registers, LATER_CLIENTS, Kind::Hasty, random.fork());
    let (mut acknowledged, mut number) = (0, 0_u64);
    until(clock, LIVENESS, async || {
        number += 1;
        let key = random.below(u64::from(registers.keys)) as u32;
        let action = Action::Write(client.value(number));
        let operation = client.operate(key, action).await;
        if operation.as_ref().is_some_and(Operation::is_acknowledged) {
            acknowledged += 1;
        }
        operations.extend(operation);
        (acknowledged >= LIVENESS_WRITES)
            .then_some(())
            .ok_or_else(|| format!("only {acknowledged} writes were acknowledged"))
    })
    .await
    .context("after everything was healed")
}

/// Reads every register through every member, and adds the reads to `operations`.
pub(crate) async fn final_reads(
    registers: &Arc<Registers>,
    mut random: Random,
    clock: &SharedClock,
    operations: &mut Vec<Operation>,
) -> anyhow::Result<()> {
    for member in 1..=registers.members {
        let number = LATER_CLIENTS * registers.members + member;
        let mut client = Client::new(registers, number, Kind::Patient, random.fork());
        for key in 0..registers.keys {
            until(clock, LIVENESS, async || {
                let operation = client.operate(key, Action::Read).await;
                let known = operation.as_ref().is_some_and(Operation::is_acknowledged);
                let last =
                    format!("register {key} cannot be read at member {member}: {operation:?}");
                operations.extend(operation);
                known.then_some(()).ok_or(last)
            })
            .await?;
        }
    }
    Ok(())
}

/// Waits until all members hold the same entries, revisions included.
async fn converge(registers: &Registers, clock: &SharedClock) -> anyhow::Result<()> {
    let mut connections: Vec<_> = (1..=registers.members).map(Connection::to).collect();
    until(clock, CONVERGENCE, async || {
        let mut held: Option<(u32, Vec<wire::KvEntry>)> = None;
        for connection in &mut connections {
            let keys = client::prefix(&registers.prefix, &registers.prefix);
            let attempt = connection
                .attempt(client::range(keys, 0, true), "", Duration::from_secs(5))
                .await;
            let Attempt::Done {
                outcome: kv_response::Outcome::Range(range),
                ..
            } = attempt
            else {
                return Err(format!("a stale read was answered with {attempt:?}"));
            };
            if range.more {
                return Err("the registers do not fit into one answer".to_owned());
            }
            match &held {
                Some((first, entries)) if *entries != range.entries => {
                    let other = connection.member();
                    return Err(format!(
                        "members {first} and {other} hold different things: {entries:?} and {:?}",
                        range.entries
                    ));
                }
                Some(_) => {}
                None => held = Some((connection.member(), range.entries)),
            }
        }
        Ok(())
    })
    .await
}

/// Keeps asking a member who leads: (who answered, term, leader).
async fn witness(
    member: u32,
    stop: CancellationToken,
    clock: SharedClock,
) -> BTreeSet<(u64, u64, u64)> {
    let mut seen = BTreeSet::new();
    while !stop.is_cancelled() {
        if let Some(status) = status(member).await {
            seen.insert((status.answered_by, status.term, status.leader));
        }
        clock.sleep(WITNESS_PAUSE).await;
    }
    seen
}

/// The verdict. `broken` is what the group did not do.
fn judge(course: &Course, evidence: &Evidence, broken: Option<anyhow::Error>) -> HistoryReport {
    let history = &evidence.history;
    let mut faults: BTreeMap<Fault, u32> = BTreeMap::new();
    for struck in &evidence.struck {
        if struck.member.is_ok() {
            *faults.entry(struck.step.fault).or_default() += 1;
        }
    }
    let leader_changes = leader_changes(history);
    let under_faults = acknowledged_under_faults(evidence);

    let mut violations: Vec<String> = broken.iter().map(|error| format!("{error:#}")).collect();
    violations.extend(evidence.leaders.conflicts().iter().cloned());
    let mut doubts = Vec::new();
    let judged = linearizable::check(history, Limits::default());
    violations.extend(judged.violations.iter().map(ToString::to_string));
    if !judged.undecided.is_empty() {
        doubts.push(format!("registers {:?} were not decided", judged.undecided));
    }
    if under_faults < ACKNOWLEDGED_UNDER_FAULTS_MIN {
        doubts.push(format!(
            "only {under_faults} operations were acknowledged while faults were under way"
        ));
    }
    for fault in Fault::ALL {
        let planned = course.plan.steps.iter().any(|step| step.fault == fault);
        if planned && !faults.contains_key(&fault) {
            doubts.push(format!("no {fault} struck anybody"));
        }
    }
    let killed_leader = |struck: &Struck| {
        struck.step.fault == Fault::Kill && struck.member.as_ref().is_ok_and(|(_, led)| *led)
    };
    if leader_changes == 0 && evidence.struck.iter().any(killed_leader) {
        doubts.push("the leader was killed, and nobody else was seen to lead".to_owned());
    }
    HistoryReport {
        seed: course.seed,
        members: course.members,
        counts: history.counts(),
        acknowledged_under_faults: under_faults,
        faults,
        leader_changes,
        verdict: Verdict::of(violations, doubts),
    }
}

/// Writes that were acknowledged, by the time of their acknowledgement: when, and by whom.
pub fn acknowledged_writes(history: &History) -> Vec<(Duration, u32)> {
    let mut writes: Vec<_> = history
        .operations
        .iter()
        .filter(|operation| operation.outcome == Outcome::Done)
        .map(|operation| (Duration::from_nanos(operation.ended_ns), operation.member))
        .collect();
    writes.sort_unstable();
    writes
}

/// How often another member acknowledged writes than before.
fn leader_changes(history: &History) -> u32 {
    let writes = acknowledged_writes(history);
    let changes = writes.windows(2).filter(|pair| pair[0].1 != pair[1].1);
    changes.count() as u32
}

/// Operations that were acknowledged between the begin and the end of some fault.
fn acknowledged_under_faults(evidence: &Evidence) -> u64 {
    let faults: Vec<_> = evidence
        .struck
        .iter()
        .filter(|struck| struck.member.is_ok())
        .map(|struck| {
            let at = |time: Duration| (evidence.faults_from + time).as_nanos() as u64;
            at(struck.from)..at(struck.until)
        })
        .collect();
    let under_a_fault = |operation: &&Operation| {
        operation.is_acknowledged()
            && faults
                .iter()
                .any(|fault| fault.contains(&operation.ended_ns))
    };
    let operations = evidence.history.operations.iter();
    operations.filter(under_a_fault).count() as u64
}

/// Refuses a history that nobody wrote to: a checker that has nothing to check finds nothing.
pub fn check_again(history: &History) -> anyhow::Result<Verdict> {
    ensure!(
        history.counts().acknowledged > 0,
        "the history has no acknowledged operation"
    );
    let judged = linearizable::check(history, Limits::default());
    let undecided = judged.undecided.iter();
    Ok(Verdict::of(
        judged.violations.iter().map(ToString::to_string).collect(),
        undecided
            .map(|key| format!("register {key} was not decided"))
            .collect(),
    ))
}
