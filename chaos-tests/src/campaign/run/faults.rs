//! While faults are under way: the plan's steps, beside a look at the processes and at what is committed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Broken, LOOK_EVERY, Run};
use crate::campaign::fault::Step;
use crate::campaign::judge::Evidence;
use crate::campaign::strike::{self, Outcome, Site, Struck};
use crate::campaign::strike_remote;
use crate::campaign::words::line_of;

/// Between two lines that say how far a run is.
const TELL_EVERY: Duration = Duration::from_secs(60);

impl Run<'_> {
    /// The plan's faults, or as long without.
    pub(super) async fn under_faults(
        &mut self,
        evidence: &mut Evidence,
        broken: &Broken,
        job: Option<String>,
    ) -> anyhow::Result<()> {
        evidence.faults_from_ms = self.now_ms();
        evidence.before = self.progress()?;
        match broken {
            Broken::Ours(ground) => {
                let site = Site {
                    local: Arc::clone(&ground.local),
                    client: Arc::clone(&self.client),
                    journal: Arc::clone(&ground.guard.journal),
                    store: ground.store.clone(),
                    job,
                    clock: self.clock.clone(),
                    replacing: tokio::sync::Mutex::default(),
                };
                let strike = async |step: &Step| strike::strike(step, &site).await;
                let struck = self.carry_out(evidence, strike).await;
                ground.local.heal()?;
                struck?;
            }
            Broken::Theirs(abroad) => {
                let site = abroad.site(job);
                let strike = async |step: &Step| strike_remote::strike(step, &site).await;
                let struck = self.carry_out(evidence, strike).await;
                evidence.unhealed = abroad.heal().await?;
                struck?;
            }
            Broken::Nothing => {
                let length = self.course.length;
                let error = self.keep_looking(Some(length)).await;
                if self.now_ms() < evidence.faults_from_ms + length.as_millis() as u64 {
                    return Err(error);
                }
            }
        }
        evidence.faults_until_ms = self.now_ms();
        evidence.after = self.progress()?;
        Ok(())
    }

    /// All steps, until something is wrong.
    async fn carry_out(
        &mut self,
        evidence: &mut Evidence,
        strike: impl AsyncFn(&Step) -> anyhow::Result<Outcome>,
    ) -> anyhow::Result<()> {
        let (course, told) = (self.course, self.told);
        let (clock, start) = (self.clock.clone(), self.start);
        // A run that breaks off must show what it was broken by.
        let ended = Mutex::new(Vec::new());
        let tell = |struck: &Struck| {
            told(&line_of(struck));
            let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
            ended.push(struck.clone());
        };
        let struck = tokio::select! {
            struck = strike::carry_out(&course.plan.steps, &clock, start, strike, tell) => struck,
            error = self.keep_looking(None) => Err(error),
        };
        evidence.struck = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
        evidence.struck.sort_by_key(|struck| struck.from_ms);
        struck
    }

    /// Looks at the processes and at what is committed until something is wrong, or for that time.
    async fn keep_looking(&mut self, length: Option<Duration>) -> anyhow::Error {
        let end = length.map(|length| self.clock.monotonic() + length);
        let mut tell_at = self.clock.monotonic() + TELL_EVERY;
        loop {
            self.clock.sleep(LOOK_EVERY).await;
            if let Some(local) = &self.local
                && let Err(error) = local.check_alive()
            {
                return error;
            }
            let committed = match self.committed() {
                Ok(committed) => committed,
                Err(error) => return error,
            };
            let now = self.clock.monotonic();
            if now >= tell_at {
                tell_at = now + TELL_EVERY;
                let seconds = self.now_ms() / 1_000;
                let leaders = self.observer.with(|seen| seen.leader_changes);
                (self.told)(&format!(
                    "{seconds:>6} s  {committed} records verified, {leaders} changes of leader"
                ));
            }
            if end.is_some_and(|end| now >= end) {
                return anyhow::anyhow!("the time is over");
            }
        }
    }
}
