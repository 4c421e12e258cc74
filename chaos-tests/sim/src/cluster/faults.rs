//! What goes wrong: chosen at random among the kinds of the plan, each for a while.

use super::plan::{Fault, MEMBERS};
use super::run::{Cluster, Later};
use crate::faults;
use crate::kernel::hosts::{Death, HostId};
use crate::kernel::{MILLISECOND, SECOND, with};
use crate::object_store::Manners;

/// A fault of the network or the store lasts at most so long.
const LASTS_MOST: u64 = 5 * SECOND;
/// Until a leader that is cut off has a successor with which TaskManagers have registered.
const SUCCESSION: u64 = 3 * SECOND / 2;
/// How long a TaskManager is left to a leader that was deposed. The silence of the others shows after three seconds.
const LEFT: u64 = 5 * SECOND;

impl Cluster {
    fn lasts(&mut self) -> u64 {
        faults::lasts(&mut self.random, LASTS_MOST)
    }

    fn any_member(&mut self) -> HostId {
        match self.leader() {
            Some(leader) if self.random.permille(600) => leader,
            _ => self.random.below(MEMBERS as u64) as usize,
        }
    }

    fn any_worker(&mut self) -> HostId {
        MEMBERS + self.random.below(self.plan.workers as u64) as usize
    }

    /// Of JobManagers and TaskManagers.
    fn any_host(&mut self) -> HostId {
        self.random.below(self.plan.user_host() as u64) as usize
    }

    /// JobManagers and TaskManagers without that one.
    fn others(&self, host: HostId) -> impl Iterator<Item = HostId> + use<> {
        (0..self.plan.user_host()).filter(move |other| *other != host)
    }

    /// Something goes wrong.
    pub fn strike(&mut self) {
        let fault = *self.random.pick(&self.plan.faults);
        if self.inflict(fault) {
            with(|kernel| {
                kernel.trace.count(fault.name());
                kernel.trace.add(fault.name(), &[kernel.now]);
            });
        }
    }

    /// Whether there was anything to inflict it upon.
    fn inflict(&mut self, fault: Fault) -> bool {
        let (member, worker) = (self.any_member(), self.any_worker());
        match fault {
            Fault::KillJobManager => self.end_if_up(member, &Death::Killed),
            Fault::PowerLossOfJobManager => self.end_if_up(member, &Death::PowerLost),
            Fault::LossOfAllJobManagers => {
                let death = match self.random.permille(500) {
                    true => Death::Killed,
                    false => Death::PowerLost,
                };
                for host in 0..MEMBERS {
                    self.end_if_up(host, &death);
                }
                true
            }
            Fault::PauseJobManager => self.pause(member),
            Fault::CutJobManagerOff => {
                let others = (0..MEMBERS).filter(|other| *other != member);
                self.cut(faults::between(member, others))
            }
            Fault::KillTaskManager => self.end_if_up(worker, &Death::Killed),
            Fault::KillTaskManagerInWrite => {
                let operations = self.random.between(1, 60) as u32;
                let death = Some((operations, Death::Killed));
                with(|kernel| kernel.hosts[worker].dies_in_file_operation = death);
                self.world.is_up(worker)
            }
            Fault::PowerLossOfAllTaskManagers => {
                for host in self.plan.worker_hosts() {
                    self.end_if_up(host, &Death::PowerLost);
                }
                let server = self.plan.file_server();
                with(|kernel| kernel.take_files_from(server, true));
                true
            }
            Fault::MovingPartition => {
                let Some(leader) = self.leader() else {
                    return false;
                };
                self.agenda.add(SUCCESSION, Later::LeaveTo(worker, leader));
                let others = (0..MEMBERS).filter(|other| *other != leader);
                self.cut_for(faults::between(leader, others), SUCCESSION + LEFT)
            }
            Fault::PauseTaskManager => self.pause(worker),
            Fault::IsolateTaskManager => self.cut(faults::between(worker, self.others(worker))),
            Fault::OneWayTaskManager => {
                let out = self.random.permille(500);
                let link = |other| {
                    if out {
                        (worker, other)
                    } else {
                        (other, worker)
                    }
                };
                self.cut(self.others(worker).map(link).collect())
            }
            Fault::Reset => {
                let host = self.any_host();
                let reset = |other| with(|kernel| kernel.reset_connections(host, other, 500));
                self.others(host).map(reset).sum::<u64>() > 0
            }
            Fault::BadLinks => {
                let (jitter, loss) = *self.random.pick(&[
                    (0, 50),
                    (0, 300),
                    (60 * MILLISECOND, 0),
                    (150 * MILLISECOND, 0),
                ]);
                let links = faults::between(worker, self.others(worker));
                faults::worsen(&links, jitter, loss);
                let lasts = self.lasts();
                self.agenda.add(lasts, Later::Improve(links));
                true
            }
            Fault::BadStore => {
                let (refused, lost, slow) =
                    *self
                        .random
                        .pick(&[(1000, 0, 8), (300, 100, 8), (0, 500, 50), (0, 100, 1500)]);
                self.store.set_manners(|manners| {
                    manners.refused_permille = refused;
                    manners.lost_answers_permille = lost;
                    manners.latency = (MILLISECOND, slow * MILLISECOND);
                });
                let lasts = self.lasts();
                self.agenda.add(lasts, Later::GoodStore);
                true
            }
            Fault::Unreachable => {
                let host = self.any_host();
                self.store.set_manners(|manners| {
                    manners.unreachable.insert(host);
                });
                let lasts = self.lasts();
                self.agenda.add(lasts, Later::GoodStore);
                true
            }
            Fault::Drift => {
                let host = self.any_host();
                faults::drift(&mut self.random, host);
                true
            }
        }
    }

    /// That TaskManager reaches no JobManager but one.
    pub(super) fn leave_to(&mut self, worker: HostId, member: HostId) {
        if !self.is_safety {
            return;
        }
        let others = (0..MEMBERS).filter(|other| *other != member);
        self.cut_for(faults::between(worker, others), LEFT);
    }

    fn pause(&mut self, host: HostId) -> bool {
        if !self.world.is_up(host) {
            return false;
        }
        with(|kernel| kernel.hosts[host].is_paused = true);
        let lasts = self.lasts();
        self.agenda.add(lasts, Later::Resume(host));
        true
    }

    fn cut(&mut self, links: Vec<(HostId, HostId)>) -> bool {
        let lasts = self.lasts();
        self.cut_for(links, lasts)
    }

    fn cut_for(&mut self, links: Vec<(HostId, HostId)>, lasts: u64) -> bool {
        faults::set_cut(&links, true);
        self.agenda.add(lasts, Later::Join(links));
        true
    }

    fn end_if_up(&mut self, host: HostId, death: &Death) -> bool {
        if !self.world.is_up(host) {
            return false;
        }
        self.world.kill(host, death);
        self.after_death(host);
        true
    }

    pub(super) fn after_death(&mut self, host: HostId) {
        self.watch.on_death(host);
        self.observer.on_death(host);
        if host < MEMBERS {
            std::mem::take(&mut self.members[host]).forget();
        }
        let away = faults::away(&mut self.random);
        self.agenda.add(away, Later::Start(host));
    }

    /// Everything works again.
    pub fn mend(&mut self) {
        self.store
            .set_manners(|manners| *manners = Manners::default());
        faults::mend(self.plan.latency, self.plan.jitter);
    }
}
