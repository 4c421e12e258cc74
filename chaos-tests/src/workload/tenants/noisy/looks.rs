//! Lists and watches without a pause; and what may be seen by them.

use flott_proto::wire::job_manager_client::JobManagerClient;
use flott_proto::wire::key_value_client::KeyValueClient;
use flott_proto::wire::{self, kv_event, kv_response};
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use super::super::PREFIX;
use super::{Abuse, DEADLINE, DISAPPOINTED, Tally};
use crate::invariants::tenants::Tenant;
use crate::workload::client;

/// Messages that a watcher takes before it goes and comes again.
const WATCHED_MAX: u32 = 16;

impl Abuse {
    /// Writes down what the noisy tenant read and did not write.
    pub(super) fn look_at(&self, outcome: &kv_response::Outcome) {
        if let kv_response::Outcome::Range(range) = outcome {
            range
                .entries
                .iter()
                .for_each(|entry| self.look_at_entry(entry));
        }
    }

    fn look_at_entry(&self, entry: &wire::KvEntry) {
        if Tenant::Noisy.wrote(&entry.value) {
            return;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).chars().take(40).collect();
        let (key, value): (String, String) = (text(&entry.key), text(&entry.value));
        self.saw(format!("the value {value:?} at {key}"));
    }

    /// The request, for the cluster under test only.
    fn named<T>(&self, request: T) -> Request<T> {
        let mut request = Request::new(request);
        let cluster = self.tenants.client.cluster();
        cluster.name_in(request.metadata_mut());
        request
    }

    /// A channel to one of the members.
    async fn channel(&self, number: u32) -> Option<Channel> {
        let addresses = self.tenants.client.addresses();
        let address = addresses.get(number as usize % addresses.len())?;
        let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
        endpoint.connect_timeout(DEADLINE).connect().await.ok()
    }

    /// Watches all keys, leaves, and comes again, at every member.
    pub(super) async fn watch(self, number: u32) {
        for turn in 0.. {
            let watched = tokio::select! { biased;
                () = self.over.cancelled() => return,
                watched = tokio::time::timeout(DEADLINE, self.watch_once(number.wrapping_add(turn))) => watched,
            };
            if matches!(watched, Ok(Some(()))) {
                self.tally.count(Tally::DONE, "watch");
            } else {
                self.tally.count(Tally::REFUSED, "no watch");
                self.tenants.clock().sleep(DISAPPOINTED).await;
            }
        }
    }

    async fn watch_once(&self, number: u32) -> Option<()> {
        let request = wire::KvWatchRequest {
            namespace: self.tenants.namespace(Tenant::Noisy),
            keys: Some(client::prefix(PREFIX, PREFIX)),
            start_revision: 0,
        };
        let mut service = KeyValueClient::new(self.channel(number).await?);
        let mut changes = service.watch(self.named(request)).await.ok()?.into_inner();
        for _ in 0..WATCHED_MAX {
            for event in changes.message().await.ok()??.events {
                if let Some(kv_event::Change::Put(entry)) = event.change {
                    self.look_at_entry(&entry);
                }
            }
        }
        Some(())
    }

    /// Lists jobs without a pause.
    pub(super) async fn list(self, number: u32) {
        for turn in 0.. {
            let listed = tokio::select! { biased;
                () = self.over.cancelled() => return,
                listed = tokio::time::timeout(DEADLINE, self.list_at(number.wrapping_add(turn))) => listed,
            };
            if !matches!(listed, Ok(Some(()))) {
                self.tally.count(Tally::REFUSED, "no list");
                self.tenants.clock().sleep(DISAPPOINTED).await;
            }
        }
    }

    /// At one member, until it refuses: one that does not lead does at once.
    async fn list_at(&self, number: u32) -> Option<()> {
        let mut service = JobManagerClient::new(self.channel(number).await?);
        loop {
            let request = wire::ListJobsRequest {
                namespace: self.tenants.namespace(Tenant::Noisy),
            };
            let jobs = service.list_jobs(self.named(request)).await;
            let jobs = jobs.ok()?.into_inner().jobs;
            self.tally.count(Tally::DONE, "list");
            let foreign = jobs
                .iter()
                .filter(|job| !Tenant::Noisy.submitted(&job.name));
            foreign.for_each(|job| self.saw(format!("job {} ({})", job.name, job.id)));
        }
    }
}
