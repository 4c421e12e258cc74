//! What goes wrong: chosen at random among the kinds of the plan, each for a while.

use super::plan::{Fault, MEMBERS};
use super::run::{Cluster, Later};
use crate::kernel::hosts::{Death, HostId};
use crate::kernel::{MILLISECOND, SECOND, with};
use crate::object_store::Manners;

/// How long a machine is away.
const AWAY: (u64, u64) = (50 * MILLISECOND, 3 * SECOND);
/// How long a fault of the network or the store lasts.
const LASTS: (u64, u64) = (100 * MILLISECOND, 5 * SECOND);
/// Millionths by which clocks are wrong.
const DRIFT_PPM: u64 = 15_000;

impl Cluster {
    fn lasts(&mut self) -> u64 {
        let most = if self.random.permille(700) {
            LASTS.1 / 4
        } else {
            LASTS.1
        };
        self.random.between(LASTS.0, most)
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
                let links = others.flat_map(|other| [(member, other), (other, member)]);
                self.cut(links.collect())
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
            Fault::PauseTaskManager => self.pause(worker),
            Fault::IsolateTaskManager => {
                let others = (0..self.plan.user_host()).filter(|other| *other != worker);
                let links = others.flat_map(|other| [(worker, other), (other, worker)]);
                self.cut(links.collect())
            }
            Fault::OneWayTaskManager => {
                let out = self.random.permille(500);
                let link = |other| {
                    if out {
                        (worker, other)
                    } else {
                        (other, worker)
                    }
                };
                let others = (0..self.plan.user_host()).filter(|other| *other != worker);
                self.cut(others.map(link).collect())
            }
            Fault::Reset => {
                let hosts = self.plan.user_host();
                let host = self.random.below(hosts as u64) as usize;
                let others = (0..hosts).filter(|other| *other != host);
                let reset = |other| with(|kernel| kernel.reset_connections(host, other, 500));
                others.map(reset).sum::<u64>() > 0
            }
            Fault::BadLinks => {
                let (latency, loss) = *self.random.pick(&[
                    (0, 50),
                    (0, 300),
                    (60 * MILLISECOND, 0),
                    (150 * MILLISECOND, 0),
                ]);
                let lasts = self.lasts();
                for other in (0..self.plan.user_host()).filter(|other| *other != worker) {
                    for (from, to) in [(worker, other), (other, worker)] {
                        with(|kernel| {
                            kernel.set_link(from, to, |link| {
                                link.jitter = latency.max(link.jitter);
                                link.loss_permille = loss;
                            });
                        });
                        self.later(lasts, Later::GoodLink(from, to));
                    }
                }
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
                self.later(lasts, Later::GoodStore);
                true
            }
            Fault::Unreachable => {
                let host = self.random.below(self.plan.user_host() as u64) as usize;
                self.store.set_manners(|manners| {
                    manners.unreachable.insert(host);
                });
                let lasts = self.lasts();
                self.later(lasts, Later::GoodStore);
                true
            }
            Fault::Drift => {
                let host = self.random.below(self.plan.user_host() as u64) as usize;
                let by = self.random.below(2 * DRIFT_PPM + 1) as i64 - DRIFT_PPM as i64;
                with(|kernel| {
                    let now = kernel.now;
                    kernel.hosts[host].clock.set_drift(now, by);
                });
                true
            }
        }
    }

    fn pause(&mut self, host: HostId) -> bool {
        if !self.world.is_up(host) {
            return false;
        }
        with(|kernel| kernel.hosts[host].is_paused = true);
        let lasts = self.lasts();
        self.later(lasts, Later::Resume(host));
        true
    }

    fn cut(&mut self, links: Vec<(HostId, HostId)>) -> bool {
        set_cut(&links, true);
        let lasts = self.lasts();
        self.later(lasts, Later::Join(links));
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
        if host < MEMBERS {
            std::mem::take(&mut self.members[host]).forget();
        }
        let away = self.random.between(AWAY.0, AWAY.1);
        self.later(away, Later::Start(host));
    }

    /// Everything works again.
    pub fn mend(&mut self) {
        self.store
            .set_manners(|manners| *manners = Manners::default());
        let (latency, jitter) = (self.plan.latency, self.plan.jitter);
        with(|kernel| {
            kernel.dies_at_step_permille = 0;
            let hosts = kernel.hosts.len();
            for from in 0..hosts {
                for to in 0..hosts {
                    kernel.set_link(from, to, |link| {
                        (link.latency, link.jitter) = (latency, jitter);
                        (link.loss_permille, link.is_cut) = (0, false);
                    });
                }
            }
            for host in &mut kernel.hosts {
                host.dies_in_file_operation = None;
                if host.is_paused {
                    host.is_paused = false;
                    host.is_runnable = true;
                }
            }
        });
    }
}

pub(super) fn set_cut(links: &[(HostId, HostId)], cut: bool) {
    with(|kernel| {
        for (from, to) in links {
            kernel.set_link(*from, *to, |link| link.is_cut = cut);
        }
    });
}
