//! Bringing a local cluster up: start all processes, make the cluster if it is new, await that it can run jobs.

use std::path::Path;
use std::time::Duration;

use flott_node::config::{Configuration, options};
use flott_node::{SystemClock, Transport};
use tracing::info;

use super::child::OWN_KEYS;
use super::layout::{Layout, is_free};
use super::security::Security;
use super::supervise::Shared;
use super::{LocalCluster, LocalOptions, Role};
use crate::Error;
use crate::client::Client;

/// Longest wait for ports that the processes of a cluster before may still hold: they end when their parent does.
const PORTS_WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest wait until all is up. Seconds on an idle machine; a debug build on a busy one needs more.
const READY_WAIT_MAX: Duration = Duration::from_secs(120);
/// Between two looks at the cluster.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Of a log, for an error message.
const LOG_TAIL_LINES: usize = 5;

impl LocalCluster {
    /// Starts the cluster in `options.dir`, and returns when a leader is active and every TaskManager is registered. On
    /// the directory of an earlier cluster that one goes on, with its jobs.
    ///
    /// Needs a tokio runtime, also while the cluster lives.
    pub async fn start(mut options: LocalOptions) -> Result<Self, Error> {
        let overrides = Configuration::from_map(&options.overrides).map_err(Error::Override)?;
        overrides.validate().map_err(Error::Override)?;
        options.overrides = overrides.to_map();
        if let Some(own) = OWN_KEYS
            .iter()
            .find(|key| options.overrides.contains_key(**key))
        {
            return Err(Error::Usage(format!(
                "{own} is chosen by `flott local` for each process and cannot be set"
            )));
        }
        if options.taskmanagers > 0 && options.slots == 0 {
            return Err(Error::Usage(
                "a TaskManager needs at least one slot".to_owned(),
            ));
        }
        let shutdown_timeout = overrides.get(&options::SHUTDOWN_TIMEOUT)?;
        let layout = Layout::open(&options.dir)?;
        let members = layout.members(options.jobmanagers)?;
        layout.remove_cluster();
        let clock = SystemClock::shared();
        let security = match options.tls {
            true => Some(Security::open(&layout.certificates(), clock.clone())?),
            false => None,
        };

        let cluster = Self::new(layout, members, security, options, shutdown_timeout, clock);
        let brought_up = cluster.shared.bring_up().await;
        if let Err(error) = brought_up {
            cluster.stop().await;
            return Err(error);
        }
        Ok(cluster)
    }

    /// A client of this cluster.
    pub fn client(&self, patience: Duration) -> Result<Client, Error> {
        self.shared.client(patience)
    }
}

impl Shared {
    fn client(&self, patience: Duration) -> Result<Client, Error> {
        let transport = match &self.security {
            Some(security) => security.transport()?,
            None => Transport::loopback(),
        };
        let (addresses, clock) = (self.members.addresses(), self.clock.clone());
        Ok(Client::new(addresses, patience, transport, clock)?)
    }

    async fn bring_up(self: &std::sync::Arc<Self>) -> Result<(), Error> {
        self.until(PORTS_WAIT_MAX, "its ports are free", async |shared| {
            Ok(shared.members.ports().into_iter().all(is_free))
        })
        .await?;
        for number in 1..=self.members.jobmanagers.len() as u32 {
            self.start((Role::JobManager, number))?;
        }
        let mut ids = Vec::new();
        for number in 1..=self.options.taskmanagers {
            ids.push(self.start((Role::TaskManager, number))?.id);
        }
        let client = self.client(READY_WAIT_MAX)?;
        self.make_cluster(&client).await?;
        self.until(
            READY_WAIT_MAX,
            "a leader is active and all TaskManagers are registered",
            async |shared| {
                for address in shared.members.addresses() {
                    let Ok(status) = client.status_of(&address).await else {
                        continue;
                    };
                    let active = status.leader != 0
                        && status.leader == status.answered_by
                        && status.epoch != 0;
                    let registered =
                        |id: &String| status.task_managers.iter().any(|tm| tm.id == *id);
                    if active && ids.iter().all(registered) {
                        return Ok(true);
                    }
                }
                Ok(false)
            },
        )
        .await?;
        self.publish()
    }

    /// `cluster init`, if all members are fresh.
    async fn make_cluster(&self, client: &Client) -> Result<(), Error> {
        let mut pristine = 0;
        let addresses = self.members.addresses();
        for address in &addresses {
            self.until(
                READY_WAIT_MAX,
                "every JobManager answers",
                async |_| match client.status_of(address).await {
                    Ok(status) => {
                        pristine += usize::from(status.pristine);
                        Ok(true)
                    }
                    Err(error) if error.is_unavailable() => Ok(false),
                    Err(error) => Err(error.into()),
                },
            )
            .await?;
        }
        // Some pristine and some not: init was cut short, or one disk was wiped. The others know what to do.
        if pristine == addresses.len() {
            let cluster_id = client.init(addresses).await?;
            info!(cluster_id, "cluster made");
        }
        Ok(())
    }

    /// Looks again and again until `condition` holds. An error if it does not within `limit`, or if a process ends.
    async fn until<'a>(
        &'a self,
        limit: Duration,
        what: &str,
        mut condition: impl AsyncFnMut(&'a Self) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let deadline = self.clock.monotonic() + limit;
        loop {
            if condition(self).await? {
                return Ok(());
            }
            let ended = self.state().first_ended();
            if let Some((name, how)) = ended {
                let log = self.layout.process(&name)?.join("flott.log");
                let text = format!(
                    "{name} ended ({how}): {} (all of it in {})",
                    tail(&log),
                    log.display()
                );
                return Err(Error::Local(text));
            }
            if self.clock.monotonic() >= deadline {
                let text = format!(
                    "waited {} s in vain until {what}; see the flott.log files under {}",
                    limit.as_secs(),
                    self.options.dir.display()
                );
                return Err(Error::Local(text));
            }
            self.clock.sleep(LOOK_EVERY).await;
        }
    }
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(LOG_TAIL_LINES).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}
