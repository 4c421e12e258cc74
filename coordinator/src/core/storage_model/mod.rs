//! Is every file there that somebody needs, and does nothing stay that nobody needs? A model of all that writes to object
//! storage and deletes from it, driven by chance in small steps.
//!
//! Real is what decides: [`ClusterState::apply`], [`plan`](super::plan), [`Observed`](super::Observed) and
//! [`orphans`](super::orphans). Modelled are those around it, each with a step of its own, so that anything may come between
//! any two: the log, the leader and its errands on storage, deposed leaders that do not know it, TaskManagers, their tasks and
//! uploads, and people.
//!
//! - [`objects`]: the store. Forbids that a name means two things.
//! - [`task`], [`uploads`], [`task_managers`]: snapshots, uploads, acks held and repeated.
//! - [`leader`], [`errands`]: what is decided, and what is done about it.
//! - [`user`]: submissions, savepoints, cancellations, clean-up.
//! - [`checks`]: what must hold after every step, and what must be left at the end.
//!
//! One thing stays that nobody needs, and is told apart: what a put leaves that came to its effect after its job's directory,
//! or that of the savepoint, had been emptied for good.
//!
//! Each [`Mutant`] is a bug planted in this model or, by a switch, in the code; the tests show that it is found.

mod checks;
mod errands;
mod leader;
mod objects;
mod random;
mod task;
mod task_managers;
mod tests;
mod uploads;
mod user;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use flott_proto::ids::{CheckpointId, JobId, LeaderEpoch, TaskManagerId};
use flott_proto::paths;
use flott_proto::wire::{self, command::Decision};

use self::errands::Errand;
use self::leader::{Deposed, Leader, Proposal};
use self::objects::Objects;
use self::random::Random;
use self::task_managers::{TASK_MANAGERS, TaskManager};
use super::checkpoint::completed::ACCEPTS_ANY_FILE;
use super::job::Job;
use super::observed::Now;
use super::plan::Settings;
use super::{ClusterState, Response};

/// Steps that are shown of a run that failed.
const SHOWN_MAX: usize = 60;

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutant {
    None,
    /// Files are deleted when their retirement is proposed, not when it is applied.
    DeletesBeforeRetirement,
    /// An ack may name files that neither its writer wrote nor its base has.
    AcceptsForeignFiles,
    /// A deposed leader deletes what, as far as it knows, nobody needs.
    DeposedLeaderDeletes,
}

#[derive(Debug)]
struct Model {
    seed: u64,
    mutant: Mutant,
    random: Random,
    steps: u64,
    /// The last ones.
    shown: VecDeque<String>,
    /// How often something of interest came about.
    counts: BTreeMap<&'static str, u64>,

    state: ClusterState,
    index: u64,
    now: Now,
    settings: Settings,
    leader: Leader,
    deposed: Vec<Deposed>,
    proposals: Vec<Proposal>,
    errands: Vec<Errand>,
    task_managers: BTreeMap<TaskManagerId, TaskManager>,
    submissions: Vec<wire::SubmitJob>,

    objects: Objects,
    /// Objects that are being written by somebody who has given up or is dead.
    ghosts: Vec<String>,
    damaged: BTreeSet<String>,

    /// By directory: the objects of every savepoint that ever completed and that nobody has claimed.
    savepoints: BTreeMap<String, BTreeSet<String>>,
    claimed: BTreeSet<String>,
    has_had_checkpoints: BTreeSet<JobId>,
    /// Checkpoints that were given up because they are damaged.
    discarded: BTreeSet<(JobId, CheckpointId)>,
    /// By directory of a job or savepoint: the step at which it was listed to be emptied for the last time.
    swept_at: BTreeMap<String, u64>,

    connections: u64,
    task_managers_ever: u32,
    submitted_ever: u64,
    requests: u64,
    /// Local names of files, and contents.
    names: u64,
}

impl Model {
    fn new(seed: u64, mutant: Mutant) -> Self {
        let now = Now {
            monotonic: Duration::ZERO,
            wall_ms: 1_000_000,
        };
        let mut model = Self {
            seed,
            mutant,
            random: Random(seed),
            steps: 0,
            shown: VecDeque::new(),
            counts: BTreeMap::new(),
            state: ClusterState::default(),
            index: 0,
            now,
            settings: Settings {
                cluster: "c".parse().unwrap(),
                heartbeat_timeout: Duration::from_secs(1),
                reconnect_grace: Duration::from_millis(500),
                results_expire_after: Duration::from_secs(1 << 30),
                results_max: None,
            },
            leader: Leader::new(LeaderEpoch::NONE, now),
            deposed: Vec::new(),
            proposals: Vec::new(),
            errands: Vec::new(),
            task_managers: BTreeMap::new(),
            submissions: Vec::new(),
            objects: Objects::default(),
            ghosts: Vec::new(),
            damaged: BTreeSet::new(),
            savepoints: BTreeMap::new(),
            claimed: BTreeSet::new(),
            has_had_checkpoints: BTreeSet::new(),
            discarded: BTreeSet::new(),
            swept_at: BTreeMap::new(),
            connections: 0,
            task_managers_ever: 0,
            submitted_ever: 0,
            requests: 0,
            names: 0,
        };
        ACCEPTS_ANY_FILE.set(mutant == Mutant::AcceptsForeignFiles);
        model.change_leader();
        model.deposed.clear();
        for _ in 0..TASK_MANAGERS {
            model.add_task_manager();
        }
        model
    }

    /// `steps` steps by chance, then to the end without faults.
    fn run(&mut self, steps: u64) {
        while self.steps < steps {
            if let Some(what) = self.step() {
                self.note(what);
                self.check();
            }
        }
        self.settle();
    }

    /// One thing happens, or nothing if what chance chose has nothing to do.
    fn step(&mut self) -> Option<String> {
        match self.random.below(3000) {
            0..450 => self.plan(),
            450..900 => self.decide(),
            900..1350 => self.hear(),
            1350..1800 => self.tell_leader(),
            1800..2340 => self.work_on_state(),
            2340..2700 => self.run_errand(),
            2700..2820 => {
                let ms = self.random.below(60) as u64;
                self.pass_time(ms)
            }
            2820..2860 => self.connect(),
            2860..2880 => self.ghost(),
            2880..2900 => self.prepare_submission(),
            2900..2920 => self.submit(),
            2920..2925 => self.request_savepoint(),
            2925..2928 => self.rescale(),
            2928..2931 => self.cancel(),
            2931..2933 => self.end_input(),
            2933..2936 => self.dismiss(),
            2936..2946 => self.clean_up(),
            2946..2950 => self.damage(),
            2950..2960 => self.change_leader(),
            2960..2980 => self.plan_deposed(),
            2980..2984 => self.disconnect(),
            2984..2988 => self.kill_task_manager(),
            2988..2994 => self.fail_task(),
            2994.. => self.confuse_task(),
        }
    }

    fn note(&mut self, what: String) {
        self.steps += 1;
        if self.shown.len() == SHOWN_MAX {
            self.shown.pop_front();
        }
        self.shown.push_back(what);
    }

    fn saw(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// An entry comes out of the log.
    fn apply(&mut self, epoch: LeaderEpoch, decision: Decision) -> Response {
        self.index += 1;
        let kind = match &decision {
            Decision::CompleteCheckpoint(_) => Some("checkpoint"),
            Decision::AbortCheckpoint(_) => Some("abort"),
            Decision::DiscardCheckpoint(_) => Some("discard"),
            Decision::StartAttempt(_) => Some("attempt"),
            Decision::ForgetJobs(_) => Some("forgotten job"),
            _ => None,
        };
        let discarded = match &decision {
            Decision::DiscardCheckpoint(it) => {
                Some((it.job_id.parse().unwrap(), CheckpointId(it.checkpoint_id)))
            }
            _ => None,
        };
        let command = wire::Command {
            now_ms: self.now.wall_ms,
            epoch: epoch.0,
            decision: Some(decision),
        };
        let response = self.state.apply(self.index, &command);
        self.state.check();
        if response == Response::Applied {
            self.discarded.extend(discarded);
            if let Some(kind) = kind {
                self.saw(kind);
            }
        }
        self.remember();
        response
    }

    fn directory(&self, job: &Job) -> String {
        paths::job(&self.settings.cluster, &job.namespace, &job.id)
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (seed, mutant, steps) = (self.seed, self.mutant, self.steps);
            eprintln!("seed {seed}, mutant {mutant:?}, after {steps} steps; the last:");
            for what in &self.shown {
                eprintln!("  {what}");
            }
        }
    }
}
