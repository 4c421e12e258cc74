//! The verdict on a run, and the figures that are published. Pure.
//!
//! *Unknown* is a verdict of its own: a planned kind of fault that was never installed, or a workload that made no progress
//! while faults were under way, has shown nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::fault::Kind;
use super::observe::Seen;
use super::plan::{Plan, Workload};
use super::strike::{Outcome, Struck};
use super::vacuity::vacuity;
use crate::history::{Counts, History, Outcome as Answer};
use crate::invariants::linearizable::{self, Limits};
use crate::invariants::same_rows::{self, Rows};
use crate::invariants::sequence::Found;
use crate::invariants::tenants::figures::{Figures, figures};
use crate::invariants::tenants::{self, Tenancy};
use crate::invariants::{bank, checkpoint_log, jobs};
use crate::report::{Finding, Verdict};
use crate::workload::bank::TERMS;
use crate::workload::reference::queries::Query;

/// If the harness itself comes late so often, what did not happen in time says nothing.
const TOO_LATE_PERCENT: u64 = 5;

/// What there is to judge. Times are milliseconds since the run began.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "their names say it")]
pub struct Evidence {
    pub struck: Vec<Struck>,
    pub history: History,
    pub tenancy: Tenancy,
    pub bank: Vec<bank::Event>,
    /// The accounts were read once more at the end.
    pub bank_closed: bool,
    /// Rows of each reference query, without faults and under them.
    pub reference: BTreeMap<Query, [Rows; 2]>,
    /// Those that have come to their ends under faults.
    pub reference_ended: BTreeSet<Query>,
    /// When the history's clock began.
    pub registers_begin_ms: u64,
    pub seen: Seen,
    pub job: Option<String>,
    pub job_finished: bool,
    pub sequence: Option<Found>,
    pub closure: Option<Closure>,
    pub liveness: Option<Liveness>,
    /// What must not happen, and did: a process that ended by itself, say.
    pub broken: Vec<Finding>,
    /// What did not happen in time.
    pub overdue: Vec<Finding>,
    /// How often of a hundred times the harness itself came late.
    pub late_percent: u64,
    /// Faults that are still there, for nobody could undo them.
    pub unhealed: Vec<String>,
    /// Lines of logs.
    pub suspicious: Vec<String>,
    pub faults_from_ms: u64,
    pub faults_until_ms: u64,
    pub length_ms: u64,
    /// When faults began, and when they had ended.
    pub before: Progress,
    pub after: Progress,
    /// The last list of jobs was taken when everything had been healed.
    pub is_over: bool,
}

/// How far the workloads are.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "their names say it")]
pub struct Progress {
    pub records: u64,
    pub checkpoint: u64,
    /// Operations of registers.
    pub acknowledged: u64,
}

/// The files of the sequence job's checkpoints, at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "their names say it")]
pub struct Closure {
    pub checkpoints: u64,
    pub files: u64,
    pub bytes: u64,
    /// Needed, and missing or changed.
    pub damaged: Vec<String>,
    /// Not needed, and there: left by processes that were killed, and collected.
    pub orphans: u64,
}

/// How long after healing things worked again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "their names say it")]
pub struct Liveness {
    pub leader_ms: u64,
    pub writes_ms: u64,
    pub tasks_ms: u64,
    pub checkpoint_ms: u64,
    pub records_ms: u64,
}

/// What became of the steps of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "their names say it")]
pub struct Struckness {
    pub planned: u64,
    pub installed: u64,
    /// Of those, of the leader.
    pub of_leader: u64,
    pub skipped: u64,
    pub indeterminate: u64,
}

/// How a reference query fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fared {
    /// Without faults.
    pub rows: u64,
    /// Under them.
    pub has_ended: bool,
}

/// One run in figures: `report.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "their names say it")]
pub struct Report {
    pub seed: u64,
    pub plan: String,
    /// The version of the program under test, in its words.
    pub version: String,
    pub place: String,
    /// `held`, `violated` or `unknown`.
    pub verdict: String,
    pub violations: Vec<String>,
    pub doubts: Vec<String>,
    /// Those of them that showed at one moment.
    #[serde(default)]
    pub moments: Vec<Finding>,
    /// When the clock of history.jsonl began.
    #[serde(default)]
    pub registers_begin_ms: u64,
    #[serde(default)]
    pub faults_from_ms: u64,
    pub length_ms: u64,
    pub faults_ms: u64,
    #[serde(default)]
    pub late_percent: u64,
    pub faults: BTreeMap<Kind, Struckness>,
    pub leader_changes: u64,
    /// From a fault that struck the leader to the first write that another member acknowledged.
    pub failovers_ms: Vec<u64>,
    pub attempts: u64,
    pub checkpoints: u64,
    pub writes_acknowledged: u64,
    pub operations: u64,
    pub operations_unknown: u64,
    pub registers_checked: u64,
    pub jobs_submitted: u64,
    pub jobs_acknowledged: u64,
    pub jobs_canceled: u64,
    pub lists: u64,
    pub records_verified: u64,
    pub records_lost: u64,
    pub records_duplicated: u64,
    pub records_out_of_order: u64,
    pub records_unknown: u64,
    pub closure: Option<Closure>,
    pub liveness: Option<Liveness>,
    #[serde(default)]
    pub tenants: Option<Figures>,
    #[serde(default)]
    pub bank: Option<bank::Counts>,
    #[serde(default)]
    pub reference: BTreeMap<Query, Fared>,
    /// All of these have come to their ends. Older runs had one, and said this alone.
    #[serde(default)]
    pub reference_ended: bool,
    /// What could not be seen there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_judged: Vec<String>,
}

/// What the run has shown.
pub fn judge(plan: &Plan, evidence: &Evidence) -> (Verdict, Report) {
    let faults = count(plan, &evidence.struck);
    let mut violations = evidence.broken.clone();
    let mut doubts = Vec::new();
    match excuse(evidence) {
        None => violations.extend(evidence.overdue.iter().cloned()),
        Some(excuse) => doubts.extend(evidence.overdue.iter().map(|overdue| Finding {
            what: format!("{}, but {excuse}", overdue.what),
            ..overdue.clone()
        })),
    }
    let left = evidence.unhealed.iter();
    doubts.extend(left.map(|what| Finding::in_all(format!("it may not be undone: {what}"))));
    violations.extend(
        evidence
            .suspicious
            .iter()
            .map(|line| Finding::in_all(format!("in the log of {line}"))),
    );
    let conflicts = evidence.seen.leaders.conflicts().iter();
    violations.extend(conflicts.map(Finding::in_all));
    violations.extend(jobs::check(&evidence.seen.jobs, evidence.is_over));
    violations.extend(checkpoint_log::check(&evidence.seen.checkpoints));
    if let Some(found) = evidence.sequence.as_ref().filter(|found| !found.is_clean()) {
        violations.push(Finding::in_all(found.to_string()));
    }
    if let Some(closure) = &evidence.closure {
        violations.extend(
            closure
                .damaged
                .iter()
                .map(|file| Finding::in_all(format!("a checkpoint needs {file}"))),
        );
    }
    let mut registers_checked = 0;
    if plan.workloads.contains(&Workload::Register) {
        let judged = linearizable::check(&evidence.history, Limits::default());
        registers_checked = (judged.linearizable + judged.violations.len()) as u64;
        violations.extend(judged.findings(evidence.registers_begin_ms));
        if !judged.undecided.is_empty() {
            let what = format!("registers {:?} were not decided", judged.undecided);
            doubts.push(Finding::in_all(what));
        }
    }
    let fared = plan.workloads.contains(&Workload::Tenants).then(|| {
        let struck = evidence.struck.iter().filter(|struck| was_done(struck));
        let times: Vec<_> = struck
            .map(|struck| struck.from_ms..struck.until_ms)
            .collect();
        figures(&evidence.tenancy.events, &times)
    });
    if let Some(figures) = &fared {
        let registers = evidence.tenancy.registers();
        violations.extend(tenants::check(&evidence.tenancy, &registers));
        doubts.extend(tenants::doubts(&evidence.tenancy, &registers, figures));
    }
    let has_bank = plan.workloads.contains(&Workload::Bank);
    if has_bank {
        violations.extend(bank::check(&evidence.bank, TERMS));
        doubts.extend(bank::doubts(&evidence.bank, evidence.bank_closed));
    }
    let mut reference = BTreeMap::new();
    for (query, [undisturbed, disturbed]) in &evidence.reference {
        let has_ended = evidence.reference_ended.contains(query);
        let rows = undisturbed.count();
        reference.insert(*query, Fared { rows, has_ended });
        let found = same_rows::check(query.name(), undisturbed, disturbed, has_ended);
        violations.extend(found);
    }
    doubts.extend(vacuity(plan, evidence, &faults));
    let [violated, doubted] = [&violations, &doubts].map(|found| Finding::words(found));
    let verdict = Verdict::of(violated.clone(), doubted.clone());
    let moments = violations.into_iter().chain(doubts);
    let counts: Counts = evidence.history.counts();
    let jobs = jobs::counts(&evidence.seen.jobs);
    let found = evidence.sequence.clone().unwrap_or_default();
    let writes = crate::runs::linearizability::acknowledged_writes(&evidence.history);
    let report = Report {
        seed: plan.seed,
        plan: plan.digest(),
        version: String::new(),
        place: String::new(),
        verdict: match verdict {
            Verdict::Held => "held",
            Verdict::Violated(_) => "violated",
            Verdict::Unknown(_) => "unknown",
        }
        .to_owned(),
        violations: violated,
        doubts: doubted,
        moments: moments.filter(|found| found.at_ms.is_some()).collect(),
        registers_begin_ms: evidence.registers_begin_ms,
        faults_from_ms: evidence.faults_from_ms,
        length_ms: evidence.length_ms,
        faults_ms: evidence
            .faults_until_ms
            .saturating_sub(evidence.faults_from_ms),
        late_percent: evidence.late_percent,
        faults,
        leader_changes: evidence.seen.leader_changes,
        failovers_ms: failovers(evidence),
        attempts: evidence.seen.attempts,
        checkpoints: evidence.seen.newest_checkpoint,
        writes_acknowledged: writes.len() as u64,
        operations: counts.attempted,
        operations_unknown: counts.unknown,
        registers_checked,
        jobs_submitted: jobs.submitted,
        jobs_acknowledged: jobs.acknowledged,
        jobs_canceled: jobs.canceled,
        lists: jobs.lists,
        records_verified: found.verified,
        records_lost: found.lost,
        records_duplicated: found.duplicated,
        records_out_of_order: found.out_of_order,
        records_unknown: found.unknown,
        closure: evidence.closure.clone(),
        liveness: evidence.liveness,
        tenants: fared,
        bank: has_bank.then(|| bank::counts(&evidence.bank)),
        reference_ended: !reference.is_empty() && reference.values().all(|fared| fared.has_ended),
        reference,
        not_judged: Vec::new(),
    };
    (verdict, report)
}

/// Why what did not happen in time says nothing.
fn excuse(evidence: &Evidence) -> Option<String> {
    if evidence.late_percent >= TOO_LATE_PERCENT {
        return Some(format!(
            "the machine was too busy ({}% of our own timers came late)",
            evidence.late_percent
        ));
    }
    let left = evidence.unhealed.first()?;
    Some(format!("not everything was undone ({left})"))
}

/// Whether perhaps something was done.
fn was_done(struck: &Struck) -> bool {
    !matches!(struck.outcome, Outcome::Skipped(_))
}

fn count(plan: &Plan, struck: &[Struck]) -> BTreeMap<Kind, Struckness> {
    let mut counts: BTreeMap<Kind, Struckness> = BTreeMap::new();
    for step in &plan.steps {
        counts.entry(step.kind).or_default().planned += 1;
    }
    for struck in struck {
        let count = counts.entry(struck.step.kind).or_default();
        match &struck.outcome {
            Outcome::Installed { led, .. } => {
                count.installed += 1;
                count.of_leader += u64::from(*led);
            }
            Outcome::Skipped(_) => count.skipped += 1,
            Outcome::Indeterminate(_) => count.indeterminate += 1,
        }
    }
    counts
}

/// From each fault that made a leader unable to lead, to the first write acknowledged by another.
fn failovers(evidence: &Evidence) -> Vec<u64> {
    let mut writes: Vec<(u64, u32)> = evidence
        .history
        .operations
        .iter()
        .filter(|operation| operation.outcome == Answer::Done)
        .map(|operation| {
            let ended = evidence.registers_begin_ms + operation.ended_ns / 1_000_000;
            (ended, operation.member)
        })
        .collect();
    writes.sort_unstable();
    let lost_its_leader = |struck: &&Struck| {
        let kind = struck.step.kind;
        let takes_lead = matches!(kind, Kind::Kill | Kind::Pause | Kind::Isolate | Kind::Mute);
        let of_leader = matches!(&struck.outcome, Outcome::Installed { nodes, led: true, .. } if nodes.len() == 1);
        takes_lead && of_leader
    };
    let struck = evidence.struck.iter().filter(lost_its_leader);
    let mut failovers = Vec::new();
    for struck in struck {
        let before = writes
            .iter()
            .rev()
            .find(|(ended, _)| *ended <= struck.from_ms);
        let Some((_, leader)) = before else { continue };
        let next = writes
            .iter()
            .find(|(ended, member)| *ended > struck.from_ms && member != leader);
        // One that was back before anybody noticed has not been succeeded.
        let next = next.filter(|(ended, _)| *ended <= struck.until_ms + 10_000);
        failovers.extend(next.map(|(ended, _)| ended - struck.from_ms));
    }
    failovers
}
