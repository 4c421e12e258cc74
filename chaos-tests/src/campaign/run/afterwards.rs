//! After the faults: everything has to work again, and everything that was begun is ended.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;

use super::{LIVENESS_BOUND, Run};
use crate::campaign::judge::{Evidence, Liveness};
use crate::campaign::leftovers::closure;
use crate::invariants::tenants::Tenant;
use crate::runs::linearizability::{final_reads, show_liveness};
use crate::target::client::{all_tasks_run, is_terminal};
use crate::workload::tenants::steady;

/// For a job to end that was told to.
const END_BOUND: Duration = Duration::from_secs(60);
/// For an input with an end to be read to it, after the faults.
const INPUT_BOUND: Duration = Duration::from_secs(3_600);

impl Run<'_> {
    /// Waits until a leader, writes, tasks, checkpoints and records are there again.
    pub(super) async fn show_liveness(&mut self, evidence: &mut Evidence) -> anyhow::Result<()> {
        let begin = self.clock.monotonic();
        let took = |run: &Self| (run.clock.monotonic() - begin).as_millis() as u64;
        let mut liveness = Liveness::default();
        let client = Arc::clone(&self.client);
        let leader = async || Ok(client.leader().await);
        client
            .until("a leader", LIVENESS_BOUND, leader, Option::is_some)
            .await?;
        liveness.leader_ms = took(self);
        if let Some(registers) = self.registers.clone() {
            let random = self.random.fork();
            let operations = &mut evidence.history.operations;
            show_liveness(&registers, random, &self.clock, operations).await?;
            liveness.writes_ms = took(self);
        }
        if let Some(job) = self.job.clone() {
            let is_ending = job.sequence.records > 0;
            let info = async || client.info(&job.id).await;
            let runs = |info: &Value| {
                let state = info["state"].as_str().unwrap_or_default();
                (state == "RUNNING" && all_tasks_run(info)) || (is_ending && is_terminal(state))
            };
            let seen = client
                .until("all tasks to run", LIVENESS_BOUND, info, runs)
                .await?;
            liveness.tasks_ms = took(self);
            if !is_terminal(seen["state"].as_str().unwrap_or_default()) {
                let known = self.observer.with(|seen| seen.newest_checkpoint);
                let observer = Arc::clone(&self.observer);
                let newest = async || Ok(observer.with(|seen| seen.newest_checkpoint));
                let is_new = |newest: &u64| *newest > known;
                client
                    .until("a new checkpoint", LIVENESS_BOUND, newest, is_new)
                    .await?;
                liveness.checkpoint_ms = took(self);
                let known = self.committed()?;
                let records = async || self.committed();
                let more = |records: &u64| *records > known;
                client
                    .until("new records", LIVENESS_BOUND, records, more)
                    .await?;
                liveness.records_ms = took(self);
            }
        }
        evidence.liveness = Some(liveness);
        if let Some(local) = &self.local {
            local.check_alive()?;
        }
        Ok(())
    }

    /// Final reads, of accounts too; the end of tenants; the files of the sequence job; its end.
    pub(super) async fn end(&mut self, evidence: &mut Evidence) -> anyhow::Result<()> {
        if let Some(registers) = self.registers.clone() {
            let random = self.random.fork();
            let operations = &mut evidence.history.operations;
            final_reads(&registers, random, &self.clock, operations).await?;
        }
        if let Some(bank) = self.bank.clone() {
            let random = self.random.fork();
            let last = bank.close(&self.client, random).await?;
            evidence.bank.push(last);
            evidence.bank_closed = true;
        }
        if let Some(tenants) = self.tenants.clone() {
            // What goes with the noisy one must not be the steady one's.
            tenants.evict().await?;
            let random = self.random.fork();
            let operations = &mut evidence.tenancy.history.operations;
            steady::read_again(&tenants, random, operations).await?;
            tenants.delete(Tenant::Steady).await?;
        }
        for (query, job) in &self.reference {
            let what = format!("the query {query}");
            let ended = self.ended(&what, job, INPUT_BOUND).await?;
            ensure!(ended == "FINISHED", "{what} ended as {ended}");
            evidence.reference_ended.insert(*query);
        }
        let Some(job) = self.job.clone() else {
            return Ok(());
        };
        let client = Arc::clone(&self.client);
        if job.sequence.records == 0 {
            evidence.closure = Some(closure(&client, &job.id).await?);
        }
        let bound = if job.sequence.records == 0 {
            let stop = async || {
                let asked = client.json(&["stop", &job.id]).await;
                // One whose answer was lost has taken effect; asked again, an ended job refuses.
                let info = client.info(&job.id).await?;
                let is_over = info["state"].as_str().is_some_and(is_terminal);
                if is_over { Ok(()) } else { asked.map(drop) }
            };
            client
                .until("the sequence job to be stopped", END_BOUND, stop, |()| true)
                .await?;
            END_BOUND
        } else {
            INPUT_BOUND
        };
        let ended = self.ended("the sequence job", &job.id, bound).await?;
        ensure!(ended == "FINISHED", "the sequence job ended as {ended}");
        evidence.job_finished = true;
        Ok(())
    }

    /// Waits for the end of a job; the state in which it ended.
    async fn ended(&self, what: &str, job: &str, bound: Duration) -> anyhow::Result<String> {
        let state = async || {
            if let Some(local) = &self.local {
                local.check_alive()?;
            }
            let info = self.client.info(job).await?;
            Ok(info["state"].as_str().unwrap_or_default().to_owned())
        };
        let is_over = |state: &String| is_terminal(state);
        let what = format!("the end of {what}");
        self.client.until(&what, bound, state, is_over).await
    }
}
