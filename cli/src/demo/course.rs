//! The loop of one run: look, decide, do. It ends with the job.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};

use super::Setup;
use super::observe::Observer;
use super::plan::KillPlan;
use super::recovery::{LeaderFailover, WorkerRecovery};
use super::run::JOBMANAGERS;
use super::sample::Sample;
use super::script::{Script, Step};
use super::seen::Seen;
use super::view::View;
use crate::local::{LocalCluster, Role};

/// Between two looks while nothing is at stake, and around a kill.
const CALM_INTERVAL: Duration = Duration::from_millis(100);
const TENSE_INTERVAL: Duration = Duration::from_millis(10);
/// What a run may take beyond reading the input at its pace: start, recoveries and the last checkpoint.
const OVERTIME_MAX: Duration = Duration::from_secs(120);

/// A run under way.
pub(super) struct Course<'a, W> {
    setup: &'a Setup,
    cluster: &'a LocalCluster,
    observer: &'a Observer,
    plan: KillPlan,
    view: &'a mut View<W>,
    script: Script,
    seen: Seen,
    /// The name of the JobManager that was killed and not yet started again.
    down: Option<String>,
}

/// What a run leaves.
pub(super) struct Ended {
    pub(super) seen: Seen,
    /// The sample in which the job has ended.
    pub(super) last: Sample,
}

impl<'a, W: Write> Course<'a, W> {
    pub(super) fn new(
        setup: &'a Setup,
        cluster: &'a LocalCluster,
        observer: &'a Observer,
        plan: KillPlan,
        view: &'a mut View<W>,
    ) -> Self {
        let script = Script::new(plan.clone(), setup.expected.input_rows);
        let (seen, down) = (Seen::new(), None);
        Self {
            setup,
            cluster,
            observer,
            plan,
            view,
            script,
            seen,
            down,
        }
    }

    /// Runs until the job has ended, however.
    pub(super) async fn run(mut self, title: &str) -> anyhow::Result<Ended> {
        let rows = self.setup.expected.input_rows;
        let members = JOBMANAGERS as usize;
        let limit = Duration::from_secs(rows / self.setup.rows_per_second) + OVERTIME_MAX;
        let mut next_frame = Duration::ZERO;
        loop {
            let sample = self.observer.sample().await;
            for event in self.seen.take_in(&sample, rows) {
                self.view.event(sample.at, &event)?;
            }
            let recovered = self.seen.recovered();
            let step = self.script.on_sample(&sample, self.seen.rows, recovered);
            if sample.at >= next_frame || step == Step::Done {
                next_frame = sample.at + CALM_INTERVAL;
                self.view
                    .show(&self.seen.frame(title, &sample, members, rows))?;
            }
            if step == Step::Done {
                return Ok(Ended {
                    seen: self.seen,
                    last: sample,
                });
            }
            self.carry_out(step, &sample).await?;
            if sample.at > limit {
                let status = sample.job.as_ref().map_or("", |job| &job.status_text);
                let (seconds, state) = (sample.at.as_secs(), sample.state());
                bail!("the job did not end within {seconds} s; it is {state} {status}");
            }
            let tense = self.script.is_tense();
            self.setup
                .clock
                .sleep(if tense { TENSE_INTERVAL } else { CALM_INTERVAL })
                .await;
        }
    }

    async fn carry_out(&mut self, step: Step, sample: &Sample) -> anyhow::Result<()> {
        match step {
            Step::Wait | Step::Done => Ok(()),
            Step::KillLeader => self.kill_leader(sample).await,
            Step::RestartJobManager => {
                let Some(name) = self.down.take() else {
                    return Ok(());
                };
                self.cluster.start_process(&name)?;
                self.tell(&format!("{name} is started again"))
            }
            Step::KillWorkerAndReplace => self.kill_worker(sample).await,
        }
    }

    async fn kill_leader(&mut self, sample: &Sample) -> anyhow::Result<()> {
        let leadership = sample
            .leadership()
            .context("the script kills only a known leader")?;
        let address = self.observer.address_of(sample, leadership.leader)?;
        let mut running = self.cluster.processes().into_iter();
        let leader =
            running.find(|process| process.role == Role::JobManager && process.address == address);
        let name = leader
            .with_context(|| format!("the leader at {address} is not ours"))?
            .name;
        let (at, wall) = (self.observer.elapsed(), self.setup.clock.now_ms());
        self.seen.failover = Some(LeaderFailover::new(sample, at, wall));
        self.cluster.kill(&name).await?;
        self.view
            .event(at, &format!("SIGKILL: {name}, the leader"))?;
        self.down = Some(name);
        Ok(())
    }

    async fn kill_worker(&mut self, sample: &Sample) -> anyhow::Result<()> {
        let running = self.cluster.processes().into_iter();
        let workers: Vec<_> = running
            .filter(|process| process.role == Role::TaskManager)
            .collect();
        let chosen = workers.get(self.plan.worker % workers.len().max(1));
        let name = &chosen.context("no TaskManager runs")?.name;
        let (at, wall) = (self.observer.elapsed(), self.setup.clock.now_ms());
        self.seen.recovery = Some(WorkerRecovery::new(sample, name, at, wall));
        self.cluster.kill(name).await?;
        self.view.event(at, &format!("SIGKILL: {name}"))?;
        let fresh = self.cluster.add_taskmanager()?;
        self.tell(&format!("{fresh} is started in its place"))
    }

    fn tell(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(self.view.event(self.observer.elapsed(), text)?)
    }
}
