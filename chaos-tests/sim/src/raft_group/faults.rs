//! What goes wrong: chosen at random among the kinds of the plan, each for a while.

use super::plan::Fault;
use super::run::{Group, Later};
use crate::kernel::hosts::{Death, HostId};
use crate::kernel::{MILLISECOND, SECOND, with};

/// How long a machine is away.
const AWAY: (u64, u64) = (50 * MILLISECOND, 3 * SECOND);
/// How long a fault of the network or a disk lasts.
const LASTS: (u64, u64) = (100 * MILLISECOND, 4 * SECOND);
/// Millionths by which clocks are wrong: two of them together by less than what leases allow for.
const DRIFT_PPM: u64 = 15_000;

impl Group {
    fn lasts(&mut self) -> u64 {
        // Most are short, some are long enough for the log to be purged meanwhile.
        let most = if self.random.permille(700) {
            LASTS.1 / 4
        } else {
            LASTS.1
        };
        self.random.between(LASTS.0, most)
    }

    fn any_member(&mut self) -> HostId {
        let leads = |host: &HostId| self.observer.last(*host).is_some_and(|seen| seen.is_leader);
        let leader = (0..self.plan.member_hosts()).find(leads);
        match leader {
            // Leaders have more to lose.
            Some(leader) if self.random.permille(450) => leader,
            _ => self.random.below(self.plan.member_hosts() as u64) as usize,
        }
    }

    /// Something goes wrong.
    pub fn strike(&mut self) {
        let fault = *self.random.pick(&self.plan.faults);
        let host = self.any_member();
        if self.inflict(fault, host) {
            with(|kernel| {
                kernel.trace.count(fault.name());
                kernel.trace.add(fault.name(), &[kernel.now, host as u64]);
            });
            self.say(&format!("{} at host {host}", fault.name()));
        }
    }

    /// Whether there was anything to inflict it upon.
    fn inflict(&mut self, fault: Fault, host: HostId) -> bool {
        let is_up = self.world.is_up(host);
        match fault {
            Fault::Kill if is_up => self.end(host, &Death::Killed),
            Fault::PowerLoss if is_up => self.end(host, &Death::PowerLost),
            Fault::PowerLossInWrite | Fault::KillInWrite if is_up => {
                let operations = self.random.between(1, 40) as u32;
                let death = if fault == Fault::KillInWrite {
                    Death::Killed
                } else {
                    Death::PowerLost
                };
                with(|kernel| {
                    kernel.hosts[host].dies_in_file_operation = Some((operations, death))
                });
            }
            Fault::KillAll | Fault::PowerLossOfAll => {
                let death = if fault == Fault::KillAll {
                    Death::Killed
                } else {
                    Death::PowerLost
                };
                for host in 0..self.plan.member_hosts() {
                    if self.world.is_up(host) {
                        self.end(host, &death);
                    }
                }
            }
            Fault::Pause if is_up => {
                with(|kernel| kernel.hosts[host].is_paused = true);
                let lasts = self.lasts();
                self.later(lasts, Later::Resume(host));
            }
            Fault::Isolate => {
                let cut = self
                    .others(host)
                    .flat_map(|other| [(host, other), (other, host)]);
                let cut = cut.collect();
                self.cut(cut);
            }
            Fault::OneWay => {
                let out = self.random.permille(500);
                let all = self.random.permille(500);
                let mut cut: Vec<_> = self
                    .others(host)
                    .map(|other| if out { (host, other) } else { (other, host) })
                    .collect();
                if !all {
                    self.random.shuffle(&mut cut);
                    cut.truncate(1);
                }
                self.cut(cut);
            }
            Fault::Bridge | Fault::Split => {
                let mut hosts: Vec<_> = self.others(host).collect();
                self.random.shuffle(&mut hosts);
                let at = self.random.between(1, hosts.len() as u64) as usize;
                let (one, other) = hosts.split_at(at.min(hosts.len() - 1).max(1));
                let mut one = one.to_vec();
                if fault == Fault::Split {
                    one.push(host);
                }
                let pairs = one
                    .iter()
                    .flat_map(|a| other.iter().flat_map(move |b| [(*a, *b), (*b, *a)]));
                let cut = pairs.collect();
                self.cut(cut);
            }
            Fault::Flap => {
                let other = self.others(host).next().unwrap_or(host);
                let period = self.random.between(30, 400) * MILLISECOND;
                let times = self.random.between(3, 12);
                for time in 0..times {
                    let links = vec![(host, other), (other, host)];
                    self.later(2 * time * period, Later::Cut(links.clone()));
                    self.later((2 * time + 1) * period, Later::Join(links));
                }
            }
            Fault::BadLinks => {
                let (latency, loss) = *self.random.pick(&[
                    (0, 50),
                    (0, 300),
                    (60 * MILLISECOND, 0),
                    (150 * MILLISECOND, 0),
                    (20 * MILLISECOND, 20),
                ]);
                let others: Vec<_> = self.others(host).collect();
                let lasts = self.lasts();
                for other in others {
                    for (from, to) in [(host, other), (other, host)] {
                        with(|kernel| {
                            kernel.set_link(from, to, |link| {
                                link.jitter = latency.max(link.jitter);
                                link.loss_permille = loss;
                            });
                        });
                        self.later(lasts, Later::GoodLink(from, to));
                    }
                }
            }
            Fault::Reset => {
                let others: Vec<_> = self.others(host).collect();
                let broken: u64 = others
                    .iter()
                    .map(|other| with(|kernel| kernel.reset_connections(host, *other, 500)))
                    .sum();
                return broken > 0;
            }
            Fault::SlowDisk => {
                let most = self.random.between(5, 120) * MILLISECOND;
                with(|kernel| kernel.hosts[host].disk.most = most);
                let lasts = self.lasts();
                self.later(lasts, Later::FastDisk(host));
            }
            Fault::HungDisk => {
                let lasts = self.lasts();
                with(|kernel| kernel.hosts[host].disk_hangs_until = kernel.now + lasts);
            }
            Fault::FullDisk => {
                let lasts = self.lasts();
                let creeps = self.random.permille(500);
                with(|kernel| {
                    let host = &mut kernel.hosts[host];
                    host.disk_free = if creeps { 100 << 20 } else { 10 << 20 };
                    host.disk_is_full = !creeps;
                });
                self.later(lasts, Later::RoomOnDisk(host));
            }
            Fault::FailedSync => {
                with(|kernel| kernel.hosts[host].sync_fails_permille = 200);
                let lasts = self.lasts();
                self.later(lasts, Later::GoodSyncs(host));
            }
            Fault::Drift => {
                let by = self.random.below(2 * DRIFT_PPM + 1);
                let ppm = by as i64 - DRIFT_PPM as i64;
                with(|kernel| {
                    let now = kernel.now;
                    kernel.hosts[host].clock.set_drift(now, ppm);
                });
            }
            Fault::ClockJump => {
                let by = self.random.below(2 * 3600 * SECOND);
                let by = by as i64 - (3600 * SECOND) as i64;
                with(|kernel| kernel.hosts[host].clock.wall_offset = by);
            }
            Fault::QuickRestart => {
                let leads = |host: &HostId| {
                    let seen = self.observer.last(*host);
                    seen.is_some_and(|seen| seen.is_leader)
                };
                let Some(leader) = (0..self.plan.member_hosts()).find(leads) else {
                    return false;
                };
                let mut others: Vec<_> = self.others(leader).collect();
                others.retain(|host| self.world.is_up(*host));
                self.random.shuffle(&mut others);
                let [candidate, between, ..] = others[..] else {
                    return false;
                };
                self.cut(vec![(leader, candidate), (candidate, leader)]);
                let after = self.random.between(50, 600) * MILLISECOND;
                self.later(after, Later::Restart(between));
            }
            Fault::Kill
            | Fault::PowerLoss
            | Fault::PowerLossInWrite
            | Fault::KillInWrite
            | Fault::Pause => return false,
        }
        true
    }

    fn others(&self, host: HostId) -> impl Iterator<Item = HostId> + use<> {
        (0..self.plan.member_hosts()).filter(move |other| *other != host)
    }

    fn cut(&mut self, links: Vec<(HostId, HostId)>) {
        self.set_cut(&links, true);
        let lasts = self.lasts();
        self.later(lasts, Later::Join(links));
    }

    pub(super) fn set_cut(&self, links: &[(HostId, HostId)], cut: bool) {
        with(|kernel| {
            for (from, to) in links {
                kernel.set_link(*from, *to, |link| link.is_cut = cut);
            }
        });
    }

    /// The process of a host ends, and is started again some time later.
    pub fn end(&mut self, host: HostId, death: &Death) {
        self.world.kill(host, death);
        self.after_death(host);
    }

    pub(super) fn after_death(&mut self, host: HostId) {
        std::mem::take(&mut self.members[host]).forget();
        let away = self.random.between(AWAY.0, AWAY.1);
        self.later(away, Later::Start(host));
    }

    /// Everything works again.
    pub fn mend(&mut self) {
        with(|kernel| {
            let hosts = kernel.hosts.len();
            for from in 0..hosts {
                for to in 0..hosts {
                    let (latency, jitter) = (self.plan.latency, self.plan.jitter);
                    kernel.set_link(from, to, |link| {
                        (link.latency, link.jitter) = (latency, jitter);
                        (link.loss_permille, link.is_cut) = (0, false);
                    });
                }
            }
            for host in &mut kernel.hosts {
                host.disk = Default::default();
                (host.disk_hangs_until, host.disk_free) = (0, 50 << 30);
                (host.disk_is_full, host.sync_fails_permille) = (false, 0);
                host.dies_in_file_operation = None;
                if host.is_paused {
                    host.is_paused = false;
                    host.is_runnable = true;
                }
            }
        });
    }
}
