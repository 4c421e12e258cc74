//! Who changes the group while things go wrong: hands leadership over, makes snapshots, adds, promotes, replaces and removes
//! members.
//!
//! It asks whoever leads, as a person would, and takes no for an answer.

use std::sync::Arc;

use flott_chaos_basis::random::Random;
use flott_coordinator::raft::RaftNode;
use flott_proto::ids::NodeId;

use super::member;
use super::run::Group;
use crate::kernel;

impl Group {
    /// Does something, or tries to.
    pub fn operate(&mut self) {
        let leads = |host: &usize| self.observer.leads(*host) && self.world.is_up(*host);
        let Some(leader) = (0..self.plan.member_hosts()).find(leads) else {
            return;
        };
        let Some(jobmanager) = self.members[leader].jobmanager() else {
            return;
        };
        let random = self.random.fork();
        let hosts = self.plan.member_hosts();
        let may_change = self.plan.changes_members;
        let least = self.plan.members;
        self.world.spawn(leader, async move {
            let act = Act {
                raft: jobmanager.raft(),
                hosts,
                least,
                random,
            };
            act.run(may_change).await;
            // Kept for as long as it is used.
            drop(Arc::clone(&jobmanager));
        });
    }
}

struct Act<'a> {
    raft: &'a RaftNode,
    hosts: usize,
    /// Voters that the group is to have at least.
    least: usize,
    random: Random,
}

fn count(what: &'static str, done: bool) {
    if done {
        kernel::count(what);
    }
}

impl Act<'_> {
    async fn run(mut self, may_change: bool) {
        let choice = self.random.below(if may_change { 10 } else { 4 });
        match choice {
            0 | 1 => {
                let done = self.raft.transfer_leadership().await.is_ok();
                count("operator: leadership handed over", done);
            }
            2 | 3 => {
                let done = self.raft.make_snapshot().await;
                count("operator: snapshot", done);
            }
            4 | 5 => {
                let host = self.random.below(self.hosts as u64) as usize;
                let added = self.raft.add_learner(member::address(host)).await;
                count("operator: learner added", added.is_ok());
            }
            _ => self.change_voters().await,
        }
    }

    async fn change_voters(&mut self) {
        let members = self.raft.members().await;
        let (voters, learners): (Vec<_>, Vec<_>) = members.iter().partition(|member| member.voter);
        let any = |random: &mut Random, of: &[NodeId]| (!of.is_empty()).then(|| *random.pick(of));
        let voters: Vec<NodeId> = voters.iter().map(|member| member.id).collect();
        let learners: Vec<NodeId> = learners.iter().map(|member| member.id).collect();
        let learner = any(&mut self.random, &learners);
        let voter = any(&mut self.random, &voters);
        match (learner, voter) {
            (Some(learner), Some(voter)) if self.random.permille(500) => {
                let done = self.raft.replace_member(voter, learner).await.is_ok();
                count("operator: member replaced", done);
            }
            (Some(learner), _) => {
                let done = self.raft.promote_member(learner).await.is_ok();
                count("operator: member promoted", done);
            }
            (None, Some(voter)) if voters.len() > self.least => {
                let done = self.raft.remove_member(voter).await.is_ok();
                count("operator: member removed", done);
            }
            _ => {}
        }
    }
}
