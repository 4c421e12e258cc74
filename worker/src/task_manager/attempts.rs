//! Which attempts of which jobs may run here, and when: fences and slots. Pure.
//!
//! ```text
//!            higher than any before        lower attempts gone, slots free
//! deployed ────────────────────────▶ waiting ────────────────────────────▶ live ──all tasks ended──▶ over
//!     └─ otherwise: refused              └─ replaced, canceled, or too long for others' slots ─▶ over
//! ```
//!
//! What must stay true: tasks of two attempts of a job never run here at once; an attempt at or below one that was
//! canceled, or below one that was deployed, never starts again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flott_node::Mutant;
use flott_proto::ids::{AttemptNumber, JobId, SubtaskId, TaskId};

/// Jobs whose fence is remembered. Beyond it the oldest that run nothing are forgotten (ids follow time).
const JOBS_MAX: usize = 4096;

/// What a deployment leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DeployStep {
    /// It waits, at least for these live tasks to end; interrupt them. Those of `replaced` waited and never start.
    Waits {
        interrupt: Vec<TaskId>,
        replaced: Vec<TaskId>,
    },
    /// The attempt is deployed already: nothing to do.
    Known,
    /// A higher attempt was deployed, or this one was canceled.
    Fenced { by: AttemptNumber },
    /// It can never start here.
    TooLarge { needed: u32 },
}

#[derive(Debug)]
struct Waiting<D> {
    attempt: AttemptNumber,
    tasks: BTreeSet<SubtaskId>,
    deployment: D,
    /// When it was deployed.
    since: Duration,
}

#[derive(Debug)]
struct Live {
    tasks: BTreeSet<SubtaskId>,
    slots: u32,
}

#[derive(Debug)]
struct Job<D> {
    deployed: AttemptNumber,
    canceled: AttemptNumber,
    live: BTreeMap<AttemptNumber, Live>,
    waiting: Option<Waiting<D>>,
}

/// All attempts that this TaskManager knows of. `D` is what is needed to start one.
#[derive(Debug)]
pub(crate) struct Attempts<D> {
    slots: u32,
    jobs: BTreeMap<JobId, Job<D>>,
}

/// Slots that these tasks take: one holds a subtask of each vertex.
fn slots_needed(tasks: &BTreeSet<SubtaskId>) -> u32 {
    let mut by_vertex: BTreeMap<_, u32> = BTreeMap::new();
    for task in tasks {
        *by_vertex.entry(&task.vertex).or_default() += 1;
    }
    by_vertex.into_values().max().unwrap_or(0)
}

fn task_ids(
    job: &JobId,
    attempt: AttemptNumber,
    tasks: &BTreeSet<SubtaskId>,
) -> impl Iterator<Item = TaskId> {
    tasks.iter().map(move |subtask| TaskId {
        job: job.clone(),
        attempt,
        subtask: subtask.clone(),
    })
}

impl<D> Attempts<D> {
    pub(crate) fn new(slots: u32) -> Self {
        Self {
            slots,
            jobs: BTreeMap::new(),
        }
    }

    /// The leader deploys these tasks.
    pub(crate) fn on_deploy(
        &mut self,
        job: &JobId,
        attempt: AttemptNumber,
        tasks: BTreeSet<SubtaskId>,
        deployment: D,
        now: Duration,
    ) -> DeployStep {
        let needed = slots_needed(&tasks);
        let entry = self.job(job);
        if attempt <= entry.canceled {
            return DeployStep::Fenced { by: entry.canceled };
        }
        if attempt < entry.deployed {
            return DeployStep::Fenced { by: entry.deployed };
        }
        if attempt == entry.deployed {
            return DeployStep::Known;
        }
        entry.deployed = attempt;
        let replaced = entry.waiting.take();
        let replaced =
            replaced.map(|waiting| task_ids(job, waiting.attempt, &waiting.tasks).collect());
        let interrupt = entry
            .live
            .iter()
            .flat_map(|(attempt, live)| task_ids(job, *attempt, &live.tasks))
            .collect();
        if needed > self.slots {
            return DeployStep::TooLarge { needed };
        }
        self.job(job).waiting = Some(Waiting {
            attempt,
            tasks,
            deployment,
            since: now,
        });
        DeployStep::Waits {
            interrupt,
            replaced: replaced.unwrap_or_default(),
        }
    }

    /// The next deployment that may start; it is live from now on.
    pub(crate) fn next_to_start(&mut self) -> Option<(JobId, AttemptNumber, D)> {
        let used: u32 = self
            .jobs
            .values()
            .flat_map(|job| job.live.values())
            .map(|live| live.slots)
            .sum();
        let free = self.slots.saturating_sub(used);
        let startable = |job: &Job<D>| {
            let fits = |waiting: &Waiting<D>| slots_needed(&waiting.tasks) <= free;
            let is_alone = job.live.is_empty() || Mutant::TwoAttemptsAtOnce.is_planted();
            is_alone && job.waiting.as_ref().is_some_and(fits)
        };
        let (id, job) = self.jobs.iter_mut().find(|(_, job)| startable(job))?;
        let waiting = job.waiting.take()?;
        let live = Live {
            slots: slots_needed(&waiting.tasks),
            tasks: waiting.tasks,
        };
        job.live.insert(waiting.attempt, live);
        Some((id.clone(), waiting.attempt, waiting.deployment))
    }

    /// The leader cancels all attempts up to this one: live tasks to interrupt, and tasks that waited and never start.
    pub(crate) fn on_cancel(
        &mut self,
        job: &JobId,
        up_to: AttemptNumber,
    ) -> (Vec<TaskId>, Vec<TaskId>) {
        let entry = self.job(job);
        entry.canceled = entry.canceled.max(up_to);
        let waiting = entry.waiting.take_if(|waiting| waiting.attempt <= up_to);
        let dropped =
            waiting.map(|waiting| task_ids(job, waiting.attempt, &waiting.tasks).collect());
        let live = entry.live.range(..=up_to);
        let interrupt = live
            .flat_map(|(attempt, live)| task_ids(job, *attempt, &live.tasks))
            .collect();
        (interrupt, dropped.unwrap_or_default())
    }

    /// Tasks deployed at `deployed_by` or before that still wait because tasks of other jobs hold the slots. They never
    /// start: nobody can say that those will ever end, and elsewhere there may be room.
    pub(crate) fn give_up(&mut self, deployed_by: Duration) -> Vec<TaskId> {
        let mut given_up = Vec::new();
        for (id, job) in &mut self.jobs {
            // Its own former tasks have been interrupted, so they do end.
            if !job.live.is_empty() {
                continue;
            }
            if let Some(waiting) = job.waiting.take_if(|waiting| waiting.since <= deployed_by) {
                given_up.extend(task_ids(id, waiting.attempt, &waiting.tasks));
            }
        }
        given_up
    }

    /// A live task's thread is gone. Whether it was the last of its attempt here.
    pub(crate) fn on_ended(&mut self, task: &TaskId) -> bool {
        let Some(job) = self.jobs.get_mut(&task.job) else {
            return false;
        };
        let Some(live) = job.live.get_mut(&task.attempt) else {
            return false;
        };
        live.tasks.remove(&task.subtask);
        let over = live.tasks.is_empty();
        if over {
            job.live.remove(&task.attempt);
        }
        over
    }

    /// Nothing that was deployed so far may run, or start; live tasks to interrupt.
    pub(crate) fn cancel_all(&mut self) -> Vec<TaskId> {
        let jobs: Vec<JobId> = self.jobs.keys().cloned().collect();
        let cancel = |job: &JobId| self.on_cancel(job, AttemptNumber(u32::MAX)).0;
        jobs.iter().flat_map(cancel).collect()
    }

    /// Whether something of the job runs or waits.
    pub(crate) fn has_tasks_of(&self, job: &JobId) -> bool {
        let job = self.jobs.get(job);
        job.is_some_and(|job| !job.live.is_empty() || job.waiting.is_some())
    }

    /// Tasks that wait to be started.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = TaskId> {
        self.jobs.iter().flat_map(|(id, job)| {
            let waiting = job.waiting.iter();
            waiting.flat_map(move |waiting| task_ids(id, waiting.attempt, &waiting.tasks))
        })
    }

    fn job(&mut self, job: &JobId) -> &mut Job<D> {
        if self.jobs.len() >= JOBS_MAX && !self.jobs.contains_key(job) {
            let over = |entry: &Job<D>| entry.live.is_empty() && entry.waiting.is_none();
            let oldest = self
                .jobs
                .iter()
                .find(|(_, entry)| over(entry))
                .map(|(id, _)| id.clone());
            oldest.and_then(|oldest| self.jobs.remove(&oldest));
        }
        self.jobs.entry(job.clone()).or_insert_with(|| Job {
            deployed: AttemptNumber::NONE,
            canceled: AttemptNumber::NONE,
            live: BTreeMap::new(),
            waiting: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(digit: char) -> JobId {
        digit.to_string().repeat(32).parse().unwrap()
    }

    fn tasks(count: u32) -> BTreeSet<SubtaskId> {
        let subtask = |subtask| SubtaskId {
            vertex: "v".parse().unwrap(),
            subtask,
        };
        (0..count).map(subtask).collect()
    }

    fn deploy(attempts: &mut Attempts<u32>, digit: char, attempt: u32, count: u32) -> DeployStep {
        deploy_at(attempts, digit, attempt, count, 0)
    }

    fn deploy_at(
        attempts: &mut Attempts<u32>,
        digit: char,
        attempt: u32,
        count: u32,
        second: u64,
    ) -> DeployStep {
        let (number, now) = (AttemptNumber(attempt), Duration::from_secs(second));
        attempts.on_deploy(&job(digit), number, tasks(count), attempt, now)
    }

    fn started(attempts: &mut Attempts<u32>) -> Vec<(JobId, u32)> {
        std::iter::from_fn(|| attempts.next_to_start())
            .map(|(job, _, attempt)| (job, attempt))
            .collect()
    }

    fn end(attempts: &mut Attempts<u32>, digit: char, attempt: u32, count: u32) {
        let ids: Vec<_> = task_ids(&job(digit), AttemptNumber(attempt), &tasks(count)).collect();
        for (at, task) in ids.iter().enumerate() {
            assert_eq!(attempts.on_ended(task), at + 1 == ids.len());
        }
    }

    #[test]
    fn a_higher_attempt_waits_until_the_lower_one_is_gone() {
        let mut attempts = Attempts::new(2);
        deploy(&mut attempts, 'a', 1, 2);
        assert_eq!(started(&mut attempts), [(job('a'), 1)]);
        let DeployStep::Waits { interrupt, .. } = deploy(&mut attempts, 'a', 2, 2) else {
            panic!("attempt 2 is the newest");
        };
        assert_eq!(interrupt.len(), 2);
        assert_eq!(started(&mut attempts), []);
        let DeployStep::Waits { replaced, .. } = deploy(&mut attempts, 'a', 3, 1) else {
            panic!("attempt 3 is the newest");
        };
        assert!(
            replaced.iter().all(|task| task.attempt == AttemptNumber(2)) && replaced.len() == 2
        );
        end(&mut attempts, 'a', 1, 2);
        assert_eq!(started(&mut attempts), [(job('a'), 3)]);
    }

    #[test]
    fn what_is_over_never_starts_again() {
        let mut attempts = Attempts::new(2);
        deploy(&mut attempts, 'a', 3, 1);
        assert_eq!(deploy(&mut attempts, 'a', 3, 1), DeployStep::Known);
        assert_eq!(
            deploy(&mut attempts, 'a', 2, 1),
            DeployStep::Fenced {
                by: AttemptNumber(3)
            }
        );
        let (interrupt, dropped) = attempts.on_cancel(&job('a'), AttemptNumber(4));
        assert_eq!((interrupt.len(), dropped.len()), (0, 1));
        assert_eq!(
            deploy(&mut attempts, 'a', 4, 1),
            DeployStep::Fenced {
                by: AttemptNumber(4)
            }
        );
        assert_eq!(started(&mut attempts), []);
        deploy(&mut attempts, 'a', 5, 1);
        assert_eq!(started(&mut attempts), [(job('a'), 5)]);
        assert_eq!(attempts.on_cancel(&job('a'), AttemptNumber(4)).0, []);
        assert_eq!(attempts.on_cancel(&job('a'), AttemptNumber(5)).0.len(), 1);
    }

    #[test]
    fn after_everything_was_cancelled_nothing_of_it_starts() {
        let mut attempts = Attempts::new(2);
        deploy(&mut attempts, 'a', 1, 2);
        deploy(&mut attempts, 'b', 7, 2);
        assert_eq!(started(&mut attempts), [(job('a'), 1)]);
        assert_eq!(attempts.cancel_all().len(), 2);
        assert_eq!(attempts.waiting().count(), 0);
        end(&mut attempts, 'a', 1, 2);
        assert_eq!(started(&mut attempts), []);
    }

    #[test]
    fn jobs_share_the_slots_and_wait_for_one_another() {
        let mut attempts = Attempts::new(2);
        deploy(&mut attempts, 'a', 1, 1);
        deploy(&mut attempts, 'b', 1, 2);
        assert_eq!(started(&mut attempts), [(job('a'), 1)]);
        assert_eq!(attempts.waiting().count(), 2);
        assert_eq!(
            deploy(&mut attempts, 'c', 1, 3),
            DeployStep::TooLarge { needed: 3 }
        );
        end(&mut attempts, 'a', 1, 1);
        assert_eq!(started(&mut attempts), [(job('b'), 1)]);
    }
    #[test]
    fn a_deployment_does_not_wait_for_ever_for_slots_that_nobody_gives_back() {
        let mut attempts = Attempts::new(1);
        deploy_at(&mut attempts, 'a', 1, 1, 0);
        assert_eq!(started(&mut attempts), [(job('a'), 1)]);
        deploy_at(&mut attempts, 'b', 1, 1, 5);
        deploy_at(&mut attempts, 'a', 2, 1, 5);
        assert_eq!(attempts.give_up(Duration::from_secs(4)), []);
        let given_up = attempts.give_up(Duration::from_secs(5));
        let named: Vec<_> = given_up.iter().map(|task| &task.job).collect();
        assert_eq!(named, [&job('b')]);
        assert_eq!(deploy(&mut attempts, 'b', 1, 1), DeployStep::Known);
        end(&mut attempts, 'a', 1, 1);
        assert_eq!(started(&mut attempts), [(job('a'), 2)]);
    }
}
