//! The phases of a run.

use std::path::Path;

use flott_chaos_basis::random::Random;
use flott_node::mutant::Mutant;

use super::clients::{self, Shared};
use super::member::{self, Running};
use super::observer::Observer;
use super::plan::Plan;
use crate::agenda::Agenda;
use crate::environment::Surroundings;
use crate::faults;
use crate::invariants::reads;
use crate::kernel::hosts::{Death, HostId};
use crate::kernel::{self, MILLISECOND, SECOND, count, with};
use crate::object_store::Store;
use crate::verdict::Verdict;
use crate::world::{self, Step, World};

/// For the group to be formed.
const FORMING: u64 = 20 * SECOND;
/// For the group to work again once everything is mended. Members that join take some seconds.
const RECOVERY: u64 = 60 * SECOND;
/// Writes that it has to acknowledge then.
const RECOVERED_WRITES: usize = 30;

/// What is planned.
#[derive(Clone, Debug)]
pub enum Later {
    /// The process of that host is started.
    Start(HostId),
    /// It is killed, and started again at once.
    Restart(HostId),
    /// It is not stopped any more.
    Resume(HostId),
    /// These links do not work.
    Cut(Vec<(HostId, HostId)>),
    /// They work again.
    Join(Vec<(HostId, HostId)>),
    /// These are not slow any more, and lose nothing.
    Improve(Vec<(HostId, HostId)>),
    /// That disk is as it was.
    FastDisk(HostId),
    /// The same.
    RoomOnDisk(HostId),
    /// The same.
    GoodSyncs(HostId),
    /// Something goes wrong.
    Strike,
    /// The operator does something.
    Operate,
}

/// The group and everything around it.
#[derive(Debug)]
pub struct Group {
    pub(super) plan: Plan,
    pub(super) world: World,
    pub(super) members: Vec<Running>,
    pub(super) observer: Observer,
    pub(super) random: Random,
    pub(super) agenda: Agenda<Later>,
    pub(super) clients: Shared,
    is_safety: bool,
    narrates: bool,
}

/// Runs a seed, with its files below `directory`. The thread must be a new one: it is simulated from now on, for ever.
pub fn run(plan: Plan, mutants: &[Mutant], directory: &Path, narrates: bool) -> Verdict {
    kernel::boot(plan.seed, plan.member_hosts() + 1, directory);
    world::enter(Surroundings::new(
        mutants.iter().copied(),
        plan.log_segment_bytes,
        Store::default(),
    ));
    let mut random = plan.random.clone();
    let world = World::new(random.fork());
    let mut group = Group {
        world,
        members: (0..plan.member_hosts())
            .map(|_| Running::default())
            .collect(),
        observer: Observer::default(),
        random,
        clients: Shared::default(),
        agenda: Agenda::default(),
        is_safety: true,
        narrates,
        plan,
    };
    let violation = group.phases().err();
    let mut verdict = Verdict::of(group.plan.seed, violation);
    let (acknowledged, _) = group.clients.acknowledged();
    let (observer, committed) = (&group.observer, &group.observer.committed);
    verdict.count("acknowledged writes", acknowledged as u64);
    verdict.count("leaders", observer.leaders() as u64);
    verdict.count("entries", committed.last());
    verdict.count("digests compared", observer.digests());
    verdict.count("changes of members", committed.memberships() as u64);
    // Nothing of it is dropped: its processes are as dead as if they had been killed.
    std::mem::forget(group);
    verdict
}

impl Group {
    pub(super) fn say(&self, what: &str) {
        if self.narrates {
            world::narrate(what);
        }
    }

    fn phases(&mut self) -> Result<(), String> {
        with(|kernel| {
            for host in 0..self.plan.member_hosts() {
                kernel.network.name(&member::address(host), host);
            }
        });
        self.mend();
        for host in 0..self.plan.member_hosts() {
            with(|kernel| kernel.replace_disk(host));
            self.start(host);
        }
        self.form()?;
        let (plan, shared) = (self.plan.clone(), self.clients.clone());
        let client_host = self.plan.client_host();
        self.world.start(client_host, clients::main(plan, shared));
        with(|kernel| kernel.proposals_wait_permille = self.plan.proposals_wait_permille);
        self.agenda.add(self.plan.fault_every, Later::Strike);
        if let Some(every) = self.plan.operator_every {
            self.agenda.add(every, Later::Operate);
        }
        let end = kernel::now() + self.plan.safety;
        self.until(end, |_| false)?;
        self.say("everything is mended");
        self.is_safety = false;
        self.mend();
        self.recover()?;
        let checked = reads::check(&self.clients.history())?;
        for (what, n) in [
            ("reads", checked.reads),
            ("writes", checked.writes),
            ("writes of unknown outcome", checked.unknown),
        ] {
            (0..n).for_each(|_| count(what));
        }
        Ok(())
    }

    fn start(&mut self, host: HostId) {
        if self.world.is_up(host) {
            return;
        }
        let running = Running::default();
        self.members[host] = running.clone();
        self.world.start(
            host,
            member::main(member::configuration(&self.plan), host, running),
        );
    }

    /// The first members found the group.
    fn form(&mut self) -> Result<(), String> {
        let end = kernel::now() + FORMING;
        let started = |group: &Self| {
            group
                .members
                .iter()
                .all(|member| member.jobmanager().is_some())
        };
        if !self.until(end, started)? {
            return Err("liveness: not all members started".to_owned());
        }
        member::found(&mut self.world, &self.members[0], self.plan.members)?;
        let led = |group: &Self| group.leader().is_some();
        match self.until(end, led)? {
            true => Ok(()),
            false => Err("liveness: no leader was elected at the beginning".to_owned()),
        }
    }

    fn leader(&self) -> Option<HostId> {
        self.observer.in_office(0..self.plan.member_hosts())
    }

    /// The group has to work again: one leader, all members up to date, writes acknowledged.
    fn recover(&mut self) -> Result<(), String> {
        let (before, _) = self.clients.acknowledged();
        let end = kernel::now() + RECOVERY;
        let works = |group: &Self| {
            let written = group.clients.acknowledged().0 >= before + RECOVERED_WRITES;
            written && group.agrees()
        };
        if !self.until(end, works)? {
            return Err(format!("liveness: {}", self.describe(before)));
        }
        // Nothing is decided any more: all states become equal.
        let client_host = self.plan.client_host();
        self.world.kill(client_host, &Death::Killed);
        let end = kernel::now() + 10 * SECOND;
        self.until(end, |group| group.is_level())?;
        self.observer.compare(&self.members)
    }

    /// Whether the members are all there, and the membership is a simple one.
    fn agrees(&self) -> bool {
        let Some(seen) = self.leader().and_then(|leader| self.observer.last(leader)) else {
            return false;
        };
        let [voters] = &seen.voters[..] else {
            return false;
        };
        let near = |member: &u64| {
            let hosts = 0..self.plan.member_hosts();
            let mut all = hosts
                .into_iter()
                .filter_map(|host| self.observer.last(host));
            all.any(|other| other.node == *member && other.applied + 50 >= seen.applied)
        };
        voters.iter().chain(&seen.learners).all(near)
    }

    fn is_level(&self) -> bool {
        let hosts = 0..self.plan.member_hosts();
        let members = hosts
            .into_iter()
            .filter_map(|host| self.observer.last(host));
        let mut applied = members.map(|seen| seen.applied).filter(|index| *index > 0);
        let first = applied.next();
        applied.all(|index| Some(index) == first)
    }

    fn describe(&self, before: usize) -> String {
        let hosts = 0..self.plan.member_hosts();
        let members: Vec<_> = hosts
            .map(|host| (host, self.world.is_up(host), self.observer.last(host)))
            .collect();
        let written = self.clients.acknowledged().0 - before;
        format!("{written} writes acknowledged after everything was mended; {members:#?}")
    }

    /// Goes on until `end`, or until it is as wanted: whether it was.
    fn until(&mut self, end: u64, wanted: impl Fn(&Self) -> bool) -> Result<bool, String> {
        loop {
            let until = self.agenda.next_at().unwrap_or(end).min(end);
            match self.world.step(until) {
                Step::Ran(host) => {
                    if host < self.members.len() {
                        self.observer.look(host, &self.members)?;
                    }
                    let told = with(|kernel| std::mem::take(&mut kernel.told));
                    self.observer.on_told(&told)?;
                    world::check_panics()?;
                    self.strike_at_joint_leader();
                    if wanted(self) {
                        return Ok(true);
                    }
                }
                Step::Died(host, death) => {
                    world::check_panics()?;
                    self.on_death(host, &death)?;
                }
                Step::Reached if kernel::now() >= end => return Ok(wanted(self)),
                Step::Reached => {
                    while let Some(what) = self.agenda.due() {
                        self.carry_out(what);
                    }
                }
            }
        }
    }

    /// Changes of voters that a leader leaves half done are rare unless somebody sees to it.
    fn strike_at_joint_leader(&mut self) {
        let joint = self.observer.became_joint.take();
        if let Some(leader) = joint.filter(|_| self.is_safety)
            && self.random.permille(400)
        {
            count("fault: kill of a leader in a joint membership");
            self.end(leader, &Death::Killed);
        }
    }

    fn carry_out(&mut self, what: Later) {
        match what {
            Later::Start(host) => {
                self.start(host);
            }
            Later::Restart(host) => {
                if self.is_safety && self.world.is_up(host) {
                    self.world.kill(host, &Death::Killed);
                    self.forget(host);
                    let away = self.random.between(1, 30) * MILLISECOND;
                    self.agenda.add(away, Later::Start(host));
                }
            }
            Later::Resume(host) => with(|kernel| kernel.hosts[host].resume()),
            Later::Cut(links) if self.is_safety => faults::set_cut(&links, true),
            Later::Cut(_) => {}
            Later::Join(links) => faults::set_cut(&links, false),
            Later::Improve(links) => faults::improve(&links, self.plan.jitter),
            Later::FastDisk(host) => with(|kernel| kernel.hosts[host].disk = Default::default()),
            Later::RoomOnDisk(host) => with(|kernel| {
                let host = &mut kernel.hosts[host];
                (host.disk_is_full, host.disk_free) = (false, 50 << 30);
            }),
            Later::GoodSyncs(host) => with(|kernel| kernel.hosts[host].sync_fails_permille = 0),
            Later::Strike if self.is_safety => {
                self.strike();
                let pause = faults::pause(&mut self.random, self.plan.fault_every);
                self.agenda.add(pause, Later::Strike);
            }
            Later::Operate if self.is_safety => {
                self.operate();
                let every = self.plan.operator_every.unwrap_or(SECOND);
                let pause = faults::pause(&mut self.random, every);
                self.agenda.add(pause, Later::Operate);
            }
            Later::Strike | Later::Operate => {}
        }
    }

    /// A process has ended by itself, or its machine has lost its power in a write.
    fn on_death(&mut self, host: HostId, death: &Death) -> Result<(), String> {
        self.say(&format!("host {host} ended: {death:?}"));
        if let Death::Exited(why) = death {
            if why.contains("was removed from its group") {
                count("a removed member ended");
                // Its machine is free for another member.
                with(|kernel| kernel.replace_disk(host));
                self.observer.forget(host);
            } else if !self.may_end(why) {
                return Err(format!("host {host} ended: {why}"));
            } else {
                count("a member ended because of its disk");
            }
        }
        self.after_death(host);
        Ok(())
    }

    /// Whether a process may end with these words, given what was done to it.
    fn may_end(&self, why: &str) -> bool {
        let disk_was_hurt = self.plan.faults.iter().any(|fault| {
            use super::plan::Fault;
            matches!(fault, Fault::FullDisk | Fault::FailedSync | Fault::HungDisk)
        });
        let of_the_disk = [
            "exit code 70",
            "No space left",
            "Input/output error",
            "disk",
        ];
        disk_was_hurt && of_the_disk.iter().any(|text| why.contains(text))
    }
}
