//! The phases of a run.

use std::path::Path;

use flott_chaos_basis::random::Random;
use flott_node::mutant::Mutant;

use super::job::Job;
use super::plan::{MEMBERS, Plan};
use super::taskmanager;
use super::users::{self, Shared};
use super::watch::Watch;
use crate::agenda::Agenda;
use crate::environment::Surroundings;
use crate::faults;
use crate::kernel::hosts::{Death, HostId};
use crate::kernel::{self, SECOND, with};
use crate::object_store::{Manners, Store};
use crate::raft_group::member::{self, Running};
use crate::raft_group::observer::Observer;
use crate::verdict::Verdict;
use crate::world::{self, Step, World};

/// For the group to be formed.
const FORMING: u64 = 20 * SECOND;
/// For every job to come to its end once everything is mended, beside the time that reading its records takes.
const RECOVERY: u64 = 60 * SECOND;
/// For what was retired to be deleted, and for the rest to be collected.
const QUIESCENCE: u64 = 30 * SECOND;
/// Between two looks at the output.
const LOOK_EVERY: u64 = SECOND / 2;

/// What is planned.
#[derive(Clone, Debug)]
pub enum Later {
    /// The process of that host is started.
    Start(HostId),
    /// It is not stopped any more.
    Resume(HostId),
    /// A TaskManager loses its links to all JobManagers but that one.
    LeaveTo(HostId, HostId),
    /// These links work again.
    Join(Vec<(HostId, HostId)>),
    /// These are not slow any more, and lose nothing.
    Improve(Vec<(HostId, HostId)>),
    /// The object store is as it was.
    GoodStore,
    /// Something goes wrong.
    Strike,
    /// The output is read.
    Look,
}

/// The cluster and everything around it.
#[derive(Debug)]
pub struct Cluster {
    pub(super) plan: Plan,
    pub(super) world: World,
    pub(super) members: Vec<Running>,
    pub(super) store: Store,
    pub(super) watch: Watch,
    pub(super) random: Random,
    pub(super) agenda: Agenda<Later>,
    pub(super) observer: Observer,
    users: Shared,
    pub(super) is_safety: bool,
    narrates: bool,
}

/// Runs a seed, with its files below `directory`. The thread must be a new one: it is simulated from now on, for ever.
pub fn run(plan: Plan, mutants: &[Mutant], directory: &Path, narrates: bool) -> Verdict {
    let output = directory.join(plan.file_server().to_string());
    let kept = Job::of(&plan, &output.join("kept"));
    let endless = Plan {
        records: 0,
        parallelism: 1,
        ..plan.clone()
    };
    let canceled = Job::of(&endless, &output.join("canceled"));
    let (kept, canceled) = match (kept, canceled) {
        (Ok(kept), Ok(canceled)) => (kept, canceled),
        (Err(error), _) | (_, Err(error)) => {
            return Verdict {
                seed: plan.seed,
                violation: Some(format!("the job does not compile: {error}")),
                ..Verdict::default()
            };
        }
    };
    kernel::boot(plan.seed, plan.hosts(), directory);
    let store = Store::default();
    world::enter(Surroundings::new(
        mutants.iter().copied(),
        128 << 10,
        store.clone(),
    ));
    let mut random = plan.random.clone();
    let world = World::new(random.fork());
    let mut cluster = Cluster {
        world,
        members: (0..MEMBERS).map(|_| Running::default()).collect(),
        watch: Watch::new(&plan, &output),
        observer: Observer::default(),
        store,
        random,
        users: Shared::default(),
        agenda: Agenda::default(),
        is_safety: true,
        narrates,
        plan,
    };
    let violation = cluster.phases((kept, canceled)).err();
    let mut verdict = Verdict::of(cluster.plan.seed, violation);
    let (rows, checkpoints) = cluster.watch.figures();
    verdict.count("rows verified", rows);
    verdict.count("checkpoints seen complete", checkpoints);
    verdict.count("objects deleted", cluster.store.deleted());
    verdict.count("leaders", cluster.observer.leaders() as u64);
    verdict.count("entries", cluster.observer.committed.last());
    // Nothing of it is dropped: its processes are as dead as if they had been killed.
    std::mem::forget(cluster);
    verdict
}

impl Cluster {
    pub(super) fn say(&self, what: &str) {
        if self.narrates {
            world::narrate(what);
        }
    }

    fn phases(&mut self, jobs: (Job, Job)) -> Result<(), String> {
        with(|kernel| {
            for host in 0..MEMBERS {
                kernel.network.name(&member::address(host), host);
            }
            kernel.files.scratch = self.plan.worker_hosts().collect();
            for host in self.plan.worker_hosts() {
                kernel.network.name(&taskmanager::address(host), host);
            }
            for host in 0..self.plan.hosts() {
                kernel.replace_disk(host);
            }
        });
        self.mend();
        (0..self.plan.user_host()).for_each(|host| self.start(host));
        self.form()?;
        let (plan, shared) = (self.plan.clone(), self.users.clone());
        let user_host = self.plan.user_host();
        let (kept, canceled) = jobs;
        self.world
            .start(user_host, users::main(plan, kept, canceled, shared));
        with(|kernel| {
            kernel.dies_at_step_permille = self.plan.dies_at_step_permille;
            kernel.proposals_wait_permille = self.plan.proposals_wait_permille;
        });
        self.agenda.add(self.plan.fault_every, Later::Strike);
        self.agenda.add(LOOK_EVERY, Later::Look);
        let end = kernel::now() + self.plan.safety;
        self.until(end, |_| false)?;
        self.say("everything is mended");
        self.is_safety = false;
        self.mend();
        self.users.known().is_quiet = true;
        self.recover()?;
        self.come_to_rest()?;
        let submitted = self.users.known().submitted.clone();
        self.watch.check_end(&submitted, &self.store)
    }

    pub(super) fn start(&mut self, host: HostId) {
        if self.world.is_up(host) {
            return;
        }
        self.say(&format!("host {host} starts"));
        if host < MEMBERS {
            let running = Running::default();
            self.members[host] = running.clone();
            let main = member::main(self.plan.jobmanager(), host, running);
            self.world.start(host, main);
        } else {
            // Another process finds nothing that it could use.
            with(|kernel| kernel.replace_disk(host));
            self.world
                .start(host, taskmanager::main(self.plan.clone(), host));
        }
    }

    /// The JobManagers found the group.
    fn form(&mut self) -> Result<(), String> {
        let end = kernel::now() + FORMING;
        let started = |cluster: &Self| {
            let mut members = cluster.members.iter();
            members.all(|member| member.jobmanager().is_some())
        };
        if !self.until(end, started)? {
            return Err("liveness: not all JobManagers started".to_owned());
        }
        member::found(&mut self.world, &self.members[0], MEMBERS)?;
        match self.until(end, |cluster| cluster.leader().is_some())? {
            true => Ok(()),
            false => Err("liveness: no leader was elected at the beginning".to_owned()),
        }
    }

    pub(super) fn leader(&self) -> Option<HostId> {
        self.observer.in_office(0..MEMBERS)
    }

    /// Everything has to work again: every job comes to its end.
    fn recover(&mut self) -> Result<(), String> {
        let reading = self.plan.records / self.plan.records_per_second * SECOND;
        let end = kernel::now() + RECOVERY + 2 * reading;
        let ended = |cluster: &Self| {
            let known = cluster.users.known();
            let state = known.state.as_ref();
            let all_ended = state.is_some_and(|state| {
                let mut jobs = state.jobs.values();
                jobs.all(|job| job.status.is_terminal())
            });
            known.has_finished && known.has_canceled && all_ended
        };
        if self.until(end, ended)? {
            return Ok(());
        }
        let jobs = self.watch.state().into_iter();
        let jobs = jobs.flat_map(|state| state.jobs.values());
        let jobs = jobs.map(|job| {
            let pending = &job.checkpoints.pending;
            let cause = &job.failures.last_cause;
            format!(
                "{} {} attempt {} {pending:?} {cause}",
                job.id, job.status, job.attempt
            )
        });
        Err(format!(
            "liveness: not all jobs came to their end: {:#?}",
            jobs.collect::<Vec<_>>()
        ))
    }

    /// What is to be deleted is, and what nobody needs is collected.
    fn come_to_rest(&mut self) -> Result<(), String> {
        let end = kernel::now() + QUIESCENCE;
        let forgotten = |cluster: &Self| {
            let state = cluster.watch.state();
            state.is_some_and(|state| {
                let mut jobs = state.jobs.values();
                jobs.all(|job| job.checkpoints.retired.is_empty())
            })
        };
        if !self.until(end, forgotten)? {
            return Err("liveness: retired files are not deleted".to_owned());
        }
        let (plan, shared) = (self.plan.clone(), self.users.clone());
        self.world
            .spawn(self.plan.user_host(), users::collect(plan, shared));
        let end = kernel::now() + QUIESCENCE;
        match self.until(end, |cluster| cluster.users.known().has_collected)? {
            true => Ok(()),
            false => Err("liveness: orphans cannot be collected".to_owned()),
        }
    }

    /// Goes on until `end`, or until it is as wanted: whether it was.
    fn until(&mut self, end: u64, wanted: impl Fn(&Self) -> bool) -> Result<bool, String> {
        loop {
            let until = self.agenda.next_at().unwrap_or(end).min(end);
            match self.world.step(until) {
                Step::Ran(host) => {
                    self.look(host)?;
                    if wanted(self) {
                        return Ok(true);
                    }
                }
                Step::Died(host, death) => {
                    self.look(host)?;
                    self.say(&format!("host {host} ended: {death:?}"));
                    if let Death::Exited(why) = &death {
                        return Err(format!("host {host} ended: {why}"));
                    }
                    self.after_death(host);
                }
                Step::Reached if kernel::now() >= end => return Ok(wanted(self)),
                Step::Reached => {
                    while let Some(what) = self.agenda.due() {
                        self.carry_out(what)?;
                    }
                }
            }
        }
    }

    /// Looks at what a process has just done.
    fn look(&mut self, host: HostId) -> Result<(), String> {
        world::check_panics()?;
        if let Some(violation) = self.store.violation() {
            return Err(violation);
        }
        if host < MEMBERS && self.world.is_up(host) {
            self.observer.look(host, &self.members)?;
            if let (Some(seen), Some(probe)) =
                (self.observer.last(host), self.members[host].probe())
            {
                let applied = seen.applied;
                self.watch
                    .on_member(applied, &probe, &self.store, &self.users)?;
            }
        }
        let told = with(|kernel| std::mem::take(&mut kernel.told));
        self.observer.on_told(&told)?;
        self.watch.on_told(told)
    }

    fn carry_out(&mut self, what: Later) -> Result<(), String> {
        match what {
            Later::Start(host) => self.start(host),
            Later::Resume(host) => with(|kernel| kernel.hosts[host].resume()),
            Later::LeaveTo(worker, member) => self.leave_to(worker, member),
            Later::Join(links) => faults::set_cut(&links, false),
            Later::Improve(links) => faults::improve(&links, self.plan.jitter),
            Later::GoodStore => self
                .store
                .set_manners(|manners| *manners = Manners::default()),
            Later::Strike if self.is_safety => {
                self.strike();
                let pause = faults::pause(&mut self.random, self.plan.fault_every);
                self.agenda.add(pause, Later::Strike);
            }
            Later::Strike => {}
            Later::Look => {
                self.watch.check_output()?;
                self.agenda.add(LOOK_EVERY, Later::Look);
            }
        }
        Ok(())
    }
}
