//! Looks at the whole cluster at once: every JobManager by itself, and the job through the one that leads.
//!
//! Every member is asked on its own and with a short deadline, because what counts here is what each of them believes
//! at this moment; a client that goes on until somebody answers would hide just that.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use flott_node::{SharedClock, Transport};
use futures::future::join_all;

use super::sample::Sample;
use crate::client::Client;

/// A live member answers from memory; one that is slower than this is as good as silent to somebody who watches.
const ANSWER_DEADLINE: Duration = Duration::from_millis(300);

/// The eyes of the demo on one job.
#[derive(Debug)]
pub(super) struct Observer {
    clock: SharedClock,
    start: Duration,
    /// By address. Each talks to one member only and never twice.
    members: BTreeMap<String, Client>,
    namespace: String,
    job_id: String,
}

impl Observer {
    /// Watches the members at `addresses`; times count from now.
    pub(super) fn new(
        addresses: &[String],
        namespace: &str,
        job_id: &str,
        clock: SharedClock,
    ) -> anyhow::Result<Self> {
        let mut members = BTreeMap::new();
        for address in addresses {
            members.insert(
                address.clone(),
                Client::new(
                    vec![address.clone()],
                    Duration::ZERO,
                    Transport::loopback(),
                    clock.clone(),
                )?,
            );
        }
        let start = clock.monotonic();
        Ok(Self {
            clock,
            start,
            members,
            namespace: namespace.to_owned(),
            job_id: job_id.to_owned(),
        })
    }

    /// Time since the beginning.
    pub(super) fn elapsed(&self) -> Duration {
        self.clock.monotonic() - self.start
    }

    /// One look. Stamped when the answers are in: what it shows was so at that time at the latest.
    pub(super) async fn sample(&self) -> Sample {
        let statuses = self.members.iter().map(|(address, client)| async move {
            tokio::time::timeout(ANSWER_DEADLINE, client.status_of(address))
                .await
                .ok()?
                .ok()
        });
        let mut sample = Sample {
            members: join_all(statuses).await.into_iter().flatten().collect(),
            ..Sample::default()
        };
        let leader = sample
            .leadership()
            .and_then(|status| self.members.get(&status.leader_address));
        if let Some(leader) = leader {
            let job = leader.describe(&self.namespace, &self.job_id);
            let checkpoints = leader.checkpoints(&self.namespace, &self.job_id);
            let both = async { tokio::join!(job, checkpoints) };
            if let Ok((Ok(job), Ok(checkpoints))) =
                tokio::time::timeout(ANSWER_DEADLINE, both).await
            {
                sample.job = Some(job);
                sample.checkpoints = checkpoints;
            }
        }
        sample.at = self.elapsed();
        sample.wall_ms = self.clock.now_ms();
        sample
    }

    /// The address of the member with that node id.
    pub(super) fn address_of(&self, sample: &Sample, node: u64) -> anyhow::Result<String> {
        let mut known = sample.members.iter().flat_map(|status| &status.members);
        let member = known
            .find(|member| member.id == node)
            .with_context(|| format!("no member has the id {node}"))?;
        Ok(member.address.clone())
    }
}
