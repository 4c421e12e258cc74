//! Hands each member to the invariants after each of its steps.

use std::collections::BTreeMap;
use std::ops::Range;

use flott_coordinator::simulation::Seen;
use flott_node::simulation::Told;

use super::member::Running;
use crate::invariants::Look;
use crate::invariants::book::Book;
use crate::invariants::committed::Committed;
use crate::invariants::elections::Elections;
use crate::invariants::epochs::Epochs;
use crate::invariants::log_matching::LogMatching;
use crate::invariants::offices::Offices;
use crate::invariants::states::States;
use crate::kernel::hosts::HostId;
use crate::kernel::{SECOND, count, with};

/// Between two digests of one member's whole state.
const DIGEST_EVERY: u64 = SECOND / 2;

/// What is known of the group.
#[derive(Debug, Default)]
pub struct Observer {
    book: Book,
    elections: Elections,
    log_matching: LogMatching,
    /// What was committed.
    pub committed: Committed,
    epochs: Epochs,
    offices: Offices,
    states: States,
    digested: BTreeMap<HostId, u64>,
    last: BTreeMap<HostId, (u32, Seen)>,
    /// A leader whose membership has just become joint.
    pub became_joint: Option<HostId>,
}

/// Has `f` see the clock of that host.
fn as_host<T>(host: HostId, f: impl FnOnce() -> T) -> T {
    with(|kernel| kernel.current = Some(host));
    let result = f();
    with(|kernel| kernel.current = None);
    result
}

impl Observer {
    /// A member as it was seen last, if that was in its present life.
    pub fn last(&self, host: HostId) -> Option<&Seen> {
        let life = with(|kernel| kernel.hosts[host].life);
        let (seen_life, seen) = self.last.get(&host)?;
        (*seen_life == life).then_some(seen)
    }

    /// Whether a member believed, when it was seen last, that it leads.
    pub fn leads(&self, host: HostId) -> bool {
        self.last(host).is_some_and(|seen| seen.is_leader)
    }

    /// Which of these members leads: it has a lease, and its epoch was decided.
    pub fn in_office(&self, hosts: Range<HostId>) -> Option<HostId> {
        hosts.into_iter().find(|host| {
            let seen = self.last(*host);
            seen.is_some_and(|seen| seen.is_leader && seen.has_lease && seen.epoch > 0)
        })
    }

    /// How often a leader was elected.
    pub fn leaders(&self) -> usize {
        self.elections.count()
    }

    /// How many digests of states met another one.
    pub fn digests(&self) -> u64 {
        self.states.compared()
    }

    /// What processes told since the last time, once [`Self::look`] has looked at the one that ran.
    pub fn on_told(&mut self, told: &[(HostId, Told)]) -> Result<(), String> {
        for (host, told) in told {
            self.offices.check(*host, told)?;
            if let Told::Happened(what) = told {
                count(what);
            }
        }
        Ok(())
    }

    /// The process of a machine has ended.
    pub fn on_death(&mut self, host: HostId) {
        self.offices.on_death(host);
    }

    /// Looks at a member, which has just made a step.
    pub fn look(&mut self, host: HostId, all: &[Running]) -> Result<(), String> {
        let Some(probe) = all[host].probe() else {
            return Ok(());
        };
        let (life, now) = with(|kernel| (kernel.hosts[host].life, kernel.now));
        let seen = as_host(host, || probe.look());
        let read = self.book.read(host, life, &probe, &seen);
        let appended = read.map_err(|error| format!("host {host} cannot read its log: {error}"))?;
        let look = Look {
            host,
            life,
            seen: &seen,
            appended: &appended,
            now,
        };
        if let Some(first) = appended.first() {
            let before = first.index.checked_sub(1);
            let before = before.and_then(|index| self.book.entry(host, index));
            self.log_matching.check(&look, before)?;
        }
        self.committed.check_applied(&look, &self.book)?;
        if self.elections.check(&look)? {
            count("a leader was elected");
            self.on_elected(host);
            self.committed.check_leader(&look, &self.book)?;
        }
        self.epochs.check(&look)?;
        if seen.has_lease {
            self.check_leases(all)?;
        }
        let digested = self.digested.entry(host).or_default();
        if now >= *digested + DIGEST_EVERY && seen.applied > 0 {
            *digested = now;
            self.states.check(host, seen.applied, probe.digest())?;
        }
        self.count_what_is_rare(host, life, &seen);
        self.last.insert(host, (life, seen));
        Ok(())
    }

    fn on_elected(&self, host: HostId) {
        let others = self.last.iter().filter(|(other, _)| **other != host);
        if others
            .clone()
            .any(|(_, (_, seen))| seen.is_leader && seen.last > seen.committed)
        {
            count("a leader was replaced with entries in flight");
        }
        if others.clone().any(|(_, (_, seen))| seen.voters.len() > 1) {
            count("a leader was elected in a joint membership");
        }
    }

    fn count_what_is_rare(&mut self, host: HostId, life: u32, seen: &Seen) {
        let Some((before_life, before)) = self.last.get(&host) else {
            return;
        };
        if *before_life != life {
            if before.voters.len() > 1 {
                count("a member was restarted in a joint membership");
            }
            return;
        }
        if before.cuts != seen.cuts {
            count("a log was cut");
        }
        if seen.purged > before.last {
            count("a snapshot was installed");
        }
        if seen.snapshot > before.snapshot {
            count("a snapshot was made or installed");
        }
        if seen.purged > before.purged {
            count("a log was purged");
        }
        if before.voters.len() == 1 && seen.voters.len() > 1 {
            count("a membership became joint");
            self.became_joint = seen.is_leader.then_some(host);
        }
    }

    fn check_leases(&self, all: &[Running]) -> Result<(), String> {
        let mut leases = Vec::new();
        for (host, running) in all.iter().enumerate() {
            let Some(jobmanager) = running.jobmanager() else {
                continue;
            };
            if as_host(host, || jobmanager.raft().lease_is_valid()) {
                let term = self.last(host).map_or(0, |seen| seen.term);
                leases.push((jobmanager.raft().node_id().0, term));
            }
        }
        Elections::check_leases(&leases)
    }

    /// That host has another data directory from now on.
    pub fn forget(&mut self, host: HostId) {
        self.epochs.forget(host);
        self.last.remove(&host);
    }

    /// The states of all members at the end, which have applied equally much.
    pub fn compare(&mut self, all: &[Running]) -> Result<(), String> {
        for (host, running) in all.iter().enumerate() {
            if let Some(probe) = running.probe() {
                let seen = as_host(host, || probe.look());
                self.states.check(host, seen.applied, probe.digest())?;
            }
        }
        Ok(())
    }
}
