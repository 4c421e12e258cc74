//! What goes wrong: chosen at random among the kinds of the plan, each for a while.

use super::plan::Fault;
use super::run::{Group, Later};
use crate::faults;
use crate::kernel::hosts::{Death, HostId};
use crate::kernel::{self, MILLISECOND, SECOND, with};

/// A fault of the network or a disk lasts at most so long.
const LASTS_MOST: u64 = 4 * SECOND;

impl Group {
    fn lasts(&mut self) -> u64 {
        faults::lasts(&mut self.random, LASTS_MOST)
    }

    fn any_member(&mut self) -> HostId {
        match self.believer() {
            // Leaders have more to lose.
            Some(leader) if self.random.permille(450) => leader,
            _ => self.random.below(self.plan.member_hosts() as u64) as usize,
        }
    }

    /// The first that believes to lead.
    fn believer(&self) -> Option<HostId> {
        (0..self.plan.member_hosts()).find(|host| self.observer.leads(*host))
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
                self.agenda.add(lasts, Later::Resume(host));
            }
            Fault::Isolate => {
                self.cut(faults::between(host, self.others(host)));
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
                    let links = faults::between(host, [other]);
                    self.agenda
                        .add(2 * time * period, Later::Cut(links.clone()));
                    self.agenda.add((2 * time + 1) * period, Later::Join(links));
                }
            }
            Fault::BadLinks => {
                let (jitter, loss) = *self.random.pick(&[
                    (0, 50),
                    (0, 300),
                    (60 * MILLISECOND, 0),
                    (150 * MILLISECOND, 0),
                    (20 * MILLISECOND, 20),
                ]);
                let links = faults::between(host, self.others(host));
                faults::worsen(&links, jitter, loss);
                let lasts = self.lasts();
                self.agenda.add(lasts, Later::Improve(links));
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
                self.agenda.add(lasts, Later::FastDisk(host));
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
                self.agenda.add(lasts, Later::RoomOnDisk(host));
            }
            Fault::FailedSync => {
                with(|kernel| kernel.hosts[host].sync_fails_permille = 200);
                let lasts = self.lasts();
                self.agenda.add(lasts, Later::GoodSyncs(host));
            }
            Fault::Drift => {
                faults::drift(&mut self.random, host);
            }
            Fault::ClockJump => {
                let by = self.random.below(2 * 3600 * SECOND);
                let by = by as i64 - (3600 * SECOND) as i64;
                with(|kernel| kernel.hosts[host].clock.wall_offset = by);
            }
            Fault::QuickRestart => {
                let Some(leader) = self.believer() else {
                    return false;
                };
                let mut others = self.voters(leader);
                // With the candidate itself they are a majority.
                let needed = others.len() / 2;
                others.retain(|host| *host != leader && self.world.is_up(*host));
                self.random.shuffle(&mut others);
                let Some((candidate, restarted)) = others.split_first() else {
                    return false;
                };
                let (candidate, restarted) = (*candidate, restarted.iter().take(needed));
                // Nothing is written meanwhile: a candidate that lacks an entry gets no vote.
                let cut_after = 200 * MILLISECOND;
                self.clients.rest_until(kernel::now() + 2 * SECOND);
                let links = faults::between(leader, [candidate]);
                self.agenda.add(cut_after, Later::Cut(links.clone()));
                let lasts = SECOND + self.lasts();
                self.agenda.add(cut_after + lasts, Later::Join(links));
                let after = self.random.between(50, 600) * MILLISECOND;
                for host in restarted {
                    self.agenda.add(cut_after + after, Later::Restart(*host));
                }
            }
            Fault::Kill
            | Fault::PowerLoss
            | Fault::PowerLossInWrite
            | Fault::KillInWrite
            | Fault::Pause => return false,
        }
        true
    }

    /// Machines of those that may vote, as that one sees it.
    fn voters(&self, host: HostId) -> Vec<HostId> {
        let seen = self.observer.last(host);
        let voters = seen.map_or(&[][..], |seen| &seen.voters);
        let votes = |host: &HostId| {
            let node = self.observer.last(*host).map(|seen| seen.node);
            node.is_some_and(|node| voters.iter().any(|set| set.contains(&node)))
        };
        (0..self.plan.member_hosts()).filter(votes).collect()
    }

    fn others(&self, host: HostId) -> impl Iterator<Item = HostId> + use<> {
        (0..self.plan.member_hosts()).filter(move |other| *other != host)
    }

    fn cut(&mut self, links: Vec<(HostId, HostId)>) {
        faults::set_cut(&links, true);
        let lasts = self.lasts();
        self.agenda.add(lasts, Later::Join(links));
    }

    /// The process of a host ends, and is started again some time later.
    pub fn end(&mut self, host: HostId, death: &Death) {
        self.world.kill(host, death);
        self.after_death(host);
    }

    pub(super) fn after_death(&mut self, host: HostId) {
        self.forget(host);
        let away = faults::away(&mut self.random);
        self.agenda.add(away, Later::Start(host));
    }

    /// The process of that host is no more.
    pub(super) fn forget(&mut self, host: HostId) {
        std::mem::take(&mut self.members[host]).forget();
        self.observer.on_death(host);
    }

    /// Everything works again.
    pub fn mend(&mut self) {
        faults::mend(self.plan.latency, self.plan.jitter);
    }
}
