//! One run, from the plan to the evidence.
//!
//! An error of the harness itself is an error; what the cluster did wrong is evidence. Whatever happens, the processes are
//! healed or gone at the end, and everything seen is in the run's directory: plan, history, jobs, checkpoints, faults, logs.
//!
//! `ground`: a cluster of our own. `abroad`: one of others. `guard`: who cleans up behind both. `faults`: while they are under
//! way. `afterwards`: everything has to work again.

mod abroad;
mod afterwards;
mod faults;
mod ground;
mod guard;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use flott_chaos_basis::random::Random;
use flott_node::SharedClock;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::abroad::Abroad;
use self::ground::Ground;
use crate::campaign::judge::{Evidence, Progress};
use crate::campaign::leftovers::{suspicious_lines, write_down};
use crate::campaign::load::{self, SequenceJob};
use crate::campaign::observe::Observer;
use crate::campaign::place::Place;
use crate::campaign::plan::{Plan, Workload};
use crate::campaign::pulse::Pulse;
use crate::invariants::sequence::{Extent, Reader};
use crate::report::Finding;
use crate::runs::Overdue;
use crate::target::client::Client;
use crate::target::control::Library;
use crate::target::local::{Local, Programs};
use crate::workload::bank::Bank;
use crate::workload::reference::{self, queries::Query};
use crate::workload::registers::Registers;
use crate::workload::sequence::sequence;
use crate::workload::tenants::{Tenants, noisy, steady};

/// For the first checkpoint and the first committed records.
const WARM_UP_BOUND: Duration = Duration::from_secs(120);
/// For everything to work again, once everything is healed. Flink's own suite allows 180 s.
pub const LIVENESS_BOUND: Duration = Duration::from_secs(60);
/// Between two looks at the processes and at what is committed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Runs longer than this are observed less often: each look starts processes.
const LONG: Duration = Duration::from_secs(900);

/// What to run, and how.
#[derive(Clone, Debug)]
pub struct Course {
    #[expect(missing_docs, reason = "its name says it")]
    pub plan: Plan,
    #[expect(missing_docs, reason = "its name says it")]
    pub place: Place,
    /// Of the faults, or of the observation.
    pub length: Duration,
    /// New or empty.
    pub directory: PathBuf,
    /// The `flott` program, and the one that a rolling upgrade goes to.
    pub programs: Programs,
    /// What is loaded into it if the plan changes clocks or disks.
    pub library: Library,
}

/// What is broken.
enum Broken {
    /// A cluster that was made for it.
    Ours(Ground),
    /// One that others have.
    Theirs(Abroad),
    Nothing,
}

/// Everything that is needed while a run goes on.
struct Run<'a> {
    course: &'a Course,
    clock: SharedClock,
    start: Duration,
    client: Arc<Client>,
    observer: Arc<Observer>,
    local: Option<Arc<Local>>,
    registers: Option<Arc<Registers>>,
    tenants: Option<Arc<Tenants>>,
    bank: Option<Arc<Bank>>,
    /// The jobs of the reference queries that run under faults.
    reference: BTreeMap<Query, String>,
    job: Option<SequenceJob>,
    reader: Reader,
    random: Random,
    /// When something went wrong.
    failed_at_ms: Option<u64>,
    told: &'a (dyn Fn(&str) + Sync),
}

/// Carries the course out; what there is to judge.
pub async fn run(
    course: &Course,
    clock: &SharedClock,
    told: &(dyn Fn(&str) + Sync),
) -> anyhow::Result<Evidence> {
    let plan = &course.plan;
    let complaints = plan.complaints();
    ensure!(
        complaints.is_empty(),
        "this plan cannot be carried out: {}",
        complaints.join("; ")
    );
    std::fs::create_dir_all(&course.directory)?;
    ensure!(
        !course.directory.join("plan.json").exists(),
        "{} has the files of another run; name another --directory",
        course.directory.display()
    );
    let abroad = match &course.place {
        Place::Own => {
            ground::check(plan.target).await?;
            None
        }
        Place::Observed(_) => None,
        Place::Remote(addresses, inventory) => {
            Some(Abroad::reach(course, addresses, inventory, clock).await?)
        }
    };
    std::fs::write(
        course.directory.join("plan.json"),
        serde_json::to_vec_pretty(plan)?,
    )?;
    let start = clock.monotonic();
    let (broken, client) = match (abroad, &course.place) {
        (Some(abroad), _) => {
            let client = Arc::clone(&abroad.client);
            (Broken::Theirs(abroad), client)
        }
        (None, Place::Own) => {
            let ground = Ground::prepare(course, clock).await?;
            let client = Arc::clone(&ground.client);
            (Broken::Ours(ground), client)
        }
        (None, Place::Observed(addresses) | Place::Remote(addresses, _)) => {
            let binary = course.programs.first.clone();
            let client = Client::new(binary, addresses.clone(), clock.clone());
            (Broken::Nothing, Arc::new(client))
        }
    };
    let every = if course.length > LONG {
        2 * LOOK_EVERY
    } else {
        LOOK_EVERY / 2
    };
    let mut run = Run {
        course,
        clock: clock.clone(),
        start,
        observer: Observer::new(Arc::clone(&client), start, every),
        client,
        local: match &broken {
            Broken::Ours(ground) => Some(Arc::clone(&ground.local)),
            Broken::Theirs(_) | Broken::Nothing => None,
        },
        registers: None,
        tenants: None,
        bank: None,
        reference: BTreeMap::new(),
        job: None,
        reader: Reader::default(),
        random: Random::new(plan.seed).fork(),
        failed_at_ms: None,
        told,
    };
    let mut evidence = Evidence::default();
    let lived = run.live(&mut evidence, &broken).await;
    if let Err(error) = lived {
        match error.downcast_ref::<Overdue>() {
            Some(_) => evidence.overdue.push(run.found(&error)),
            None => evidence.broken.push(run.found(&error)),
        }
    }
    run.conclude(&mut evidence);
    match broken {
        Broken::Ours(ground) => {
            evidence.suspicious = suspicious_lines(&ground.local);
            ground.leave().await?;
        }
        Broken::Theirs(abroad) => abroad.guard.leave().await?,
        Broken::Nothing => {}
    }
    write_down(&course.directory, &evidence)?;
    Ok(evidence)
}

impl Run<'_> {
    /// From the first job to the last read.
    async fn live(&mut self, evidence: &mut Evidence, broken: &Broken) -> anyhow::Result<()> {
        let plan = &self.course.plan;
        let name = format!("{:x}-{:x}", plan.seed, self.clock.now_ms());
        let (stop, stop_observer) = (CancellationToken::new(), CancellationToken::new());
        let mut helpers = JoinSet::new();
        if plan.workloads.contains(&Workload::Seq) {
            let sequence = sequence(plan.knobs.records, plan.knobs.records_per_second);
            let parallelism = plan.knobs.parallelism;
            let directory = &self.course.directory;
            let job = load::sequence(
                &self.client,
                &self.observer,
                directory,
                &name,
                sequence,
                parallelism,
            );
            self.job = Some(job.await?);
        }
        let id = self.job.as_ref().map(|job| job.id.clone());
        let observer = Arc::clone(&self.observer);
        helpers.spawn(observer.watch(id.clone(), stop_observer.clone()));
        if plan.workloads.contains(&Workload::Tenants) {
            let client = Arc::clone(&self.client);
            let settled = Tenants::settle(client, &self.course.directory, &name, self.start);
            self.tenants = Some(settled.await?);
        }
        if plan.workloads.contains(&Workload::Reference) {
            let (directory, length) = (&self.course.directory, self.course.length);
            let (client, observer) = (&self.client, &self.observer);
            let jobs = load::reference(client, observer, directory, &name, plan, length);
            self.reference = jobs.await?;
        }
        let pulse = Arc::new(Pulse::default());
        helpers.spawn(Arc::clone(&pulse).feel(self.clock.clone(), stop_observer.clone()));
        let mut clients = JoinSet::new();
        if plan.workloads.contains(&Workload::Register) {
            let registers = load::registers(&self.client, &name);
            clients = load::work_registers(&registers, &mut self.random, &stop);
            self.registers = Some(registers);
        }
        let mut tellers = JoinSet::new();
        if plan.workloads.contains(&Workload::Bank) {
            let prefix = format!("{}/{name}/", load::NAME);
            let random = self.random.fork();
            let bank = Bank::open(&self.client, &prefix, self.start, random).await?;
            tellers = bank.work(&mut self.random, &stop);
            self.bank = Some(bank);
        }
        if plan.workloads.contains(&Workload::Jobs) {
            let (client, observer) = (Arc::clone(&self.client), Arc::clone(&self.observer));
            let directory = self.course.directory.clone();
            let random = self.random.fork();
            helpers.spawn(load::work_jobs(
                client,
                observer,
                directory,
                name,
                random,
                stop.clone(),
            ));
        }
        let stop_abuse = CancellationToken::new();
        let mut asking = JoinSet::new();
        if let Some(tenants) = self.tenants.clone() {
            asking = steady::work(&tenants, &mut self.random, &stop);
            helpers.spawn(steady::look(Arc::clone(&tenants), stop.clone()));
            let random = self.random.fork();
            helpers.spawn(noisy::abuse(tenants, random, stop_abuse.clone()));
        }
        evidence.registers_begin_ms = self.now_ms();
        let lived = async {
            self.warm_up().await.context("before any fault")?;
            let struck = self.under_faults(evidence, broken, id).await;
            stop_abuse.cancel();
            struck?;
            self.show_liveness(evidence)
                .await
                .context("after everything was healed")
        }
        .await;
        if lived.is_err() {
            self.failed_at_ms = Some(self.now_ms());
        }
        stop.cancel();
        stop_abuse.cancel();
        while let Some(operations) = clients.join_next().await {
            evidence.history.operations.extend(operations?);
        }
        while let Some(operations) = asking.join_next().await {
            let history = &mut evidence.tenancy.history;
            history.operations.extend(operations?);
        }
        while let Some(events) = tellers.join_next().await {
            evidence.bank.extend(events?);
        }
        let ended = match lived {
            Ok(()) => self.end(evidence).await,
            Err(error) => Err(error),
        };
        stop_observer.cancel();
        while let Some(helper) = helpers.join_next().await {
            helper?;
        }
        if let Some(tenants) = &self.tenants {
            evidence.tenancy.events = tenants.take_events();
            if ended.is_err() {
                tenants.leave().await;
            }
        }
        evidence.late_percent = pulse.late_percent();
        // The last word: everything is healed, and everything that was told to end has ended.
        if ended.is_ok() {
            self.observer.look(None).await;
            evidence.is_over = true;
        }
        ended
    }

    fn now_ms(&self) -> u64 {
        self.clock
            .monotonic()
            .saturating_sub(self.start)
            .as_millis() as u64
    }

    /// What went wrong, and when.
    fn found(&self, error: &anyhow::Error) -> Finding {
        let at_ms = self.failed_at_ms.unwrap_or_else(|| self.now_ms());
        Finding::at(at_ms, format!("{error:#}"))
    }

    /// Reads what was committed since the last time; records that are right.
    fn committed(&mut self) -> anyhow::Result<u64> {
        let Some(job) = &self.job else { return Ok(0) };
        Ok(self.reader.read(&job.output)?.verified)
    }

    fn progress(&mut self) -> anyhow::Result<Progress> {
        let records = self.committed()?;
        let registers = self.registers.as_ref();
        Ok(Progress {
            records,
            checkpoint: self.observer.with(|seen| seen.newest_checkpoint),
            acknowledged: registers.map_or(0, |registers| registers.acknowledged()),
        })
    }

    async fn warm_up(&mut self) -> anyhow::Result<()> {
        let (client, registers) = (Arc::clone(&self.client), self.registers.clone());
        let observer = Arc::clone(&self.observer);
        let wants_records = self.job.is_some();
        client
            .until(
                "the first records, checkpoint and writes",
                WARM_UP_BOUND,
                async || {
                    let acknowledged = registers.as_ref().map(|registers| registers.acknowledged());
                    let checkpoint = observer.with(|seen| seen.newest_checkpoint);
                    Ok((self.committed()?, checkpoint, acknowledged))
                },
                |(records, checkpoint, acknowledged)| {
                    (!wants_records || (*records > 0 && *checkpoint > 0))
                        && acknowledged.is_none_or(|acknowledged| acknowledged >= 50)
                },
            )
            .await
            .map(drop)
    }

    /// Judges what is committed, and takes what the observer has.
    fn conclude(&mut self, evidence: &mut Evidence) {
        if let Some(job) = &self.job {
            let mut reader = std::mem::take(&mut self.reader);
            if let Err(error) = reader.read(&job.output) {
                evidence.broken.push(self.found(&error));
            }
            let extent = match job.sequence.records {
                records if records > 0 && evidence.job_finished => Extent::All(records),
                _ => Extent::NoGaps,
            };
            evidence.sequence = Some(reader.finish(extent));
            evidence.job = Some(job.id.clone());
        }
        if !self.reference.is_empty() {
            match reference::rows(&self.course.directory) {
                Ok(rows) => evidence.reference = rows,
                Err(error) => evidence.broken.push(self.found(&error)),
            }
        }
        evidence.seen = self.observer.with(|seen| seen.clone());
        evidence.length_ms = self.now_ms();
    }
}
