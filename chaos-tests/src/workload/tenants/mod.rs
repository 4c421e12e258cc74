//! Two namespaces on one cluster: one is well-behaved, the other does what a bad tenant does, as fast as it can.
//!
//! ```text
//! noisy    rest │ abuse │ rest │ abuse │ …      both use keys of the same names
//! steady   the same few requests a second, all the time, and a job of its own
//! ```
//!
//! - [`steady`]: asks, looks at both namespaces, and reads everything again at the end. [`noisy`]: floods, lists, watches,
//!   submits and cancels, and goes against its quota.
//!
//! Everything that both were told is written down; [`crate::invariants::tenants`] judges it. What must stay true: nothing
//! here is asked for in any other namespace than these two, and both are gone at the end.

pub mod noisy;
pub mod steady;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use flott_node::SharedClock;
use serde_json::Value;

use super::registers::Registers;
use crate::invariants::tenants::{Event, Tenant};
use crate::target::client::Client;

/// Registers of the steady tenant. The noisy one uses the same names, and more.
const KEYS: u32 = 8;
/// Begins the names of all keys, of both.
const PREFIX: &str = "shared/";
/// What the noisy tenant may use: soon used up.
const NOISY_QUOTA: [&str; 8] = [
    "--max-jobs",
    "2",
    "--max-slots",
    "2",
    "--max-kv-bytes",
    "2mb",
    "--max-checkpoint-bytes",
    "64mb",
];
/// What the steady tenant may use: enough, unless another's use were counted as its own.
const STEADY_QUOTA: [&str; 6] = [
    "--max-jobs",
    "1",
    "--max-slots",
    "1",
    "--max-kv-bytes",
    "64kb",
];
/// Jobs that the noisy tenant may have, as in its quota.
const NOISY_JOBS: usize = 2;
/// For the namespaces and the steady tenant's job, before there is any fault; and for their end.
const BOUND: Duration = Duration::from_secs(60);

/// Both tenants.
#[derive(Debug)]
pub struct Tenants {
    client: Arc<Client>,
    /// Where scripts are written.
    directory: PathBuf,
    /// Tells this run from others on the same cluster.
    run: String,
    /// When the run began.
    start: Duration,
    registers: Arc<Registers>,
    /// The steady tenant's job.
    job: String,
    events: Mutex<Vec<Event>>,
}

impl Tenants {
    /// Makes both namespaces, and submits the steady tenant's job.
    pub async fn settle(
        client: Arc<Client>,
        directory: &Path,
        run: &str,
        start: Duration,
    ) -> anyhow::Result<Arc<Self>> {
        for (tenant, quota) in [
            (Tenant::Steady, &STEADY_QUOTA[..]),
            (Tenant::Noisy, &NOISY_QUOTA[..]),
        ] {
            let name = namespace(tenant, run);
            let create = [&["namespace", "create", &name][..], quota].concat();
            let created = async || client.json(&create).await.map(drop);
            client
                .until("a namespace to be made", BOUND, created, |()| true)
                .await?;
        }
        let namespace = namespace(Tenant::Steady, run);
        let (file, name) = (script(directory, &namespace), format!("{namespace}-0"));
        let job = client
            .submit(SCRIPT, &file, &name, 1, &["-z", &namespace])
            .await;
        let registers = Registers::of(
            &namespace,
            KEYS,
            client.addresses(),
            PREFIX,
            start,
            client.clock.clone(),
        );
        Ok(Arc::new(Self {
            directory: directory.to_owned(),
            run: run.to_owned(),
            start,
            registers,
            job: job.context("the steady tenant's job was not accepted")?,
            events: Mutex::default(),
            client,
        }))
    }

    /// What both tenants did and saw until now.
    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Deletes the noisy tenant's namespace, and waits until it is gone.
    pub async fn evict(&self) -> anyhow::Result<()> {
        let name = self.namespace(Tenant::Noisy);
        let delete = async || {
            // Deleting what is being deleted, or is gone, may be refused.
            let _ = self.delete(Tenant::Noisy).await;
            self.client.json(&["namespace", "list"]).await
        };
        let is_gone = |list: &Value| {
            let mut all = list["namespaces"].as_array().into_iter().flatten();
            !all.any(|namespace| namespace["name"] == name.as_str())
        };
        self.client
            .until("the noisy namespace to be gone", BOUND, delete, is_gone)
            .await
            .map(drop)
    }

    /// Asks for the end of both namespaces, whatever comes of it: something else went wrong.
    pub async fn leave(&self) {
        for tenant in Tenant::ALL {
            let _ = self.delete(tenant).await;
        }
    }

    /// Asks for the end of a tenant's namespace.
    pub async fn delete(&self, tenant: Tenant) -> anyhow::Result<()> {
        let name = self.namespace(tenant);
        let answer = self
            .client
            .ask(&["namespace", "delete", &name, "--yes"])
            .await?;
        ensure!(answer.code == Some(0), "{}", answer.stderr.trim());
        Ok(())
    }

    fn namespace(&self, tenant: Tenant) -> String {
        namespace(tenant, &self.run)
    }

    fn clock(&self) -> &SharedClock {
        &self.client.clock
    }

    fn elapsed(&self) -> Duration {
        self.clock().monotonic().saturating_sub(self.start)
    }

    fn now_ms(&self) -> u64 {
        self.elapsed().as_millis() as u64
    }

    fn record(&self, event: Event) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push(event);
    }
}

/// A tenant's namespace in a run.
fn namespace(tenant: Tenant, run: &str) -> String {
    format!("chaos-{}-{run}", tenant.word())
}

/// Where the script of a namespace's jobs is written.
fn script(directory: &Path, namespace: &str) -> PathBuf {
    directory.join(format!("{namespace}.sql"))
}

/// A job that goes on until it is canceled: a count for each auction, in keyed state, of bids without end; a hundred a second.
const SCRIPT: &str = "CREATE TABLE bids (auction BIGINT, price BIGINT, date_time TIMESTAMP(3),
  WATERMARK FOR date_time AS date_time - INTERVAL '4' SECOND
) WITH ('connector' = 'nexmark', 'nexmark.table-type' = 'bid', 'nexmark.events' = '0', 'nexmark.events-per-second' = '100');
CREATE TABLE nowhere (auction BIGINT, bids BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO nowhere
SELECT auction, COUNT(*) AS bids
FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(date_time), INTERVAL '1' SECOND))
GROUP BY window_start, window_end, auction;
";
