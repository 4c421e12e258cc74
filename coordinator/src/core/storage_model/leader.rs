//! The leader: plans, proposes, and is replaced at any moment. What it had begun goes on without it.

use flott_proto::ids::{CheckpointId, JobId, LeaderEpoch};
use flott_proto::wire::{self, command::Decision};

use super::super::observed::{Now, UnderWay};
use super::super::{ClusterState, Observed, Response, plan};
use super::{Model, Mutant};

#[derive(Debug)]
pub(super) struct Leader {
    pub(super) epoch: LeaderEpoch,
    pub(super) observed: Observed,
    /// Refused decisions: tried again after the next tick.
    refused: Vec<UnderWay>,
}

impl Leader {
    pub(super) fn new(epoch: LeaderEpoch, now: Now) -> Self {
        Self {
            epoch,
            observed: Observed::empty(now.monotonic),
            refused: Vec::new(),
        }
    }
}

/// One that was replaced and does not know it: it goes on with the state that it last saw.
#[derive(Debug)]
pub(super) struct Deposed {
    leader: Leader,
    pub(super) state: ClusterState,
}

/// Who waits for a decision.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    Plan(UnderWay),
    /// The one who deleted the files.
    ForgetFiles(JobId),
    /// Nobody any more: the answer was lost.
    Nobody,
}

/// A decision that is on its way through the log.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) epoch: LeaderEpoch,
    pub(super) decision: Decision,
    pub(super) asked: Asked,
}

impl Model {
    /// Another leader takes office.
    pub(super) fn change_leader(&mut self) -> Option<String> {
        let state = self.state.clone();
        let activate = wire::ActivateJobManager {
            node_id: 1,
            incarnation: "i".into(),
            address: "a:1".into(),
        };
        self.apply(LeaderEpoch::NONE, Decision::ActivateJobManager(activate));
        let new = Leader::new(self.state.epoch, self.now);
        let leader = std::mem::replace(&mut self.leader, new);
        self.deposed.push(Deposed { leader, state });
        for task_manager in self.task_managers.values_mut() {
            task_manager.disconnect();
        }
        self.saw("leader change");
        Some(format!("epoch {} begins", self.state.epoch))
    }

    /// The leader looks at everything and does what follows.
    pub(super) fn plan(&mut self) -> Option<String> {
        self.leader.observed.on_state(&self.state, self.now);
        let plan = plan(&self.state, &self.leader.observed, &self.settings, self.now);
        let what = format!(
            "plan: {} messages, {} decisions, {} works",
            plan.sends.len(),
            plan.proposals.len() + plan.chores.len(),
            plan.works.len()
        );
        if plan.sends.is_empty()
            && plan.works.is_empty()
            && plan.proposals.is_empty()
            && plan.chores.is_empty()
        {
            return None;
        }
        for (to, message) in plan.sends {
            self.leader.observed.on_sent(&to, &message);
            let connected = self.task_managers.get_mut(&to);
            if let Some(it) = connected.filter(|it| it.connection.is_some()) {
                it.inbox.push_back(message);
            }
        }
        let of_jobs = plan.proposals.into_iter();
        let of_jobs = of_jobs.map(|(job, decision)| (UnderWay::Proposal(job), decision));
        for (what, decision) in of_jobs.chain(plan.chores) {
            if self.mutant == Mutant::DeletesBeforeRetirement {
                self.delete_too_early(&decision);
            }
            self.leader.observed.on_proposed(what.clone(), &decision);
            self.proposals.push(Proposal {
                epoch: self.leader.epoch,
                decision,
                asked: Asked::Plan(what),
            });
        }
        let state = self.state.clone();
        for work in plan.works {
            self.begin(self.leader.epoch, &state, work);
        }
        Some(what)
    }

    /// The bug of a leader that deletes what a decision will retire, without waiting for the decision.
    fn delete_too_early(&mut self, decision: &Decision) {
        let mut ahead = self.state.clone();
        let command = wire::Command {
            now_ms: self.now.wall_ms,
            epoch: self.leader.epoch.0,
            decision: Some(decision.clone()),
        };
        ahead.apply(self.index + 1, &command);
        for job in ahead.jobs.values() {
            let retired = job.checkpoints.retired.iter().cloned().collect();
            self.begin_deleting(self.leader.epoch, &job.id, retired);
        }
    }

    /// A deposed leader plans once more. Its decisions and messages are refused for their epoch; its work on storage is done.
    pub(super) fn plan_deposed(&mut self) -> Option<String> {
        if self.deposed.is_empty() {
            return None;
        }
        let at = self.random.below(self.deposed.len());
        let Deposed { leader, state } = &mut self.deposed[at];
        leader.observed.on_state(state, self.now);
        let plan = plan(state, &leader.observed, &self.settings, self.now);
        let (epoch, state) = (leader.epoch, state.clone());
        let count = plan.works.len();
        for work in plan.works {
            self.begin(epoch, &state, work);
        }
        if self.mutant == Mutant::DeposedLeaderDeletes
            && let Some(job) = self.random.pick(state.jobs.keys().cloned())
        {
            self.begin_collecting(state, &job);
        }
        self.deposed.swap_remove(at);
        Some(format!("deposed {epoch} begins {count} works"))
    }

    /// A decision comes out of the log.
    pub(super) fn decide(&mut self) -> Option<String> {
        if self.proposals.is_empty() {
            return None;
        }
        let at = self.random.below(self.proposals.len());
        let in_office = self.proposals[at].epoch == self.leader.epoch;
        if in_office && self.random.percent(3) {
            return Some(self.lose_answer(at));
        }
        let proposal = self.proposals.swap_remove(at);
        let completing = match &proposal.decision {
            Decision::CompleteCheckpoint(complete) => Some(CheckpointId(complete.checkpoint_id)),
            _ => None,
        };
        let what = format!("{:.120?}", proposal.decision);
        let response = self.apply(proposal.epoch, proposal.decision);
        if !in_office {
            return Some(format!("refused for its epoch: {what}"));
        }
        let outcome = format!("{response:?}: {what}");
        match (proposal.asked, response) {
            (Asked::Plan(it), Response::Refused(reason)) => {
                self.saw("refused decision");
                if let (UnderWay::Proposal(job), Some(checkpoint)) = (&it, completing) {
                    let observed = &mut self.leader.observed;
                    observed.on_completion_refused(job, checkpoint, &reason);
                }
                self.leader.refused.push(it);
            }
            (Asked::Plan(it), _) => self.leader.observed.on_decided(&it),
            (Asked::ForgetFiles(job), _) => self.done(&UnderWay::DeleteFiles(job)),
            (Asked::Nobody, _) => {}
        }
        Some(outcome)
    }

    /// The leader is told that its decision was not replicated; it may be, later.
    fn lose_answer(&mut self, at: usize) -> String {
        let asked = std::mem::replace(&mut self.proposals[at].asked, Asked::Nobody);
        match asked {
            Asked::Plan(it) => self.leader.refused.push(it),
            Asked::ForgetFiles(job) => self.done(&UnderWay::DeleteFiles(job)),
            Asked::Nobody => {}
        }
        self.saw("lost answer");
        "an answer is lost".to_owned()
    }

    /// What the leader of that epoch sees, or saw at last.
    pub(super) fn observed_of(&self, epoch: LeaderEpoch) -> &Observed {
        let deposed = self.deposed.iter().map(|deposed| &deposed.leader);
        let mut leaders = deposed.chain([&self.leader]);
        &leaders
            .find(|leader| leader.epoch == epoch)
            .unwrap()
            .observed
    }

    pub(super) fn done(&mut self, what: &UnderWay) {
        self.leader.observed.under_way.remove(what);
    }

    /// Time passes; those who are connected are heard of.
    pub(super) fn pass_time(&mut self, ms: u64) -> Option<String> {
        self.now.monotonic += std::time::Duration::from_millis(ms);
        self.now.wall_ms += ms as i64;
        for (id, task_manager) in &self.task_managers {
            if task_manager.connection.is_some()
                && let Some(observed) = self.leader.observed.task_managers.get_mut(id)
            {
                observed.last_heard = self.now.monotonic;
            }
        }
        for what in std::mem::take(&mut self.leader.refused) {
            self.leader.observed.on_decided(&what);
        }
        Some(format!("{ms} ms pass"))
    }
}
