//! The process of one JobManager.

use std::sync::{Arc, Mutex, PoisonError};

use flott_coordinator::simulation::{JobManager, Probe};
use flott_node::config::{Configuration, options};
use flott_node::tls::Connection;
use futures::StreamExt;

use super::plan::Plan;
use crate::kernel::hosts::{Death, HostId};
use crate::kernel::{network, with};
use crate::world::World;

/// Where a host's JobManager is reached.
pub fn address(host: HostId) -> String {
    format!("jm{host}:6123")
}

/// A JobManager that runs, and what is seen of it.
#[derive(Clone, Debug, Default)]
pub struct Running(Arc<Mutex<Option<Observed>>>);

type Observed = (Arc<JobManager>, Arc<Probe>);

impl Running {
    /// The JobManager, once it has started.
    pub fn jobmanager(&self) -> Option<Arc<JobManager>> {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running
            .as_ref()
            .map(|(jobmanager, _)| Arc::clone(jobmanager))
    }

    /// What is seen of it.
    pub fn probe(&self) -> Option<Arc<Probe>> {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().map(|(_, probe)| Arc::clone(probe))
    }

    fn set(&self, jobmanager: Arc<JobManager>) {
        let probe = Arc::new(jobmanager.probe());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((jobmanager, probe));
    }

    /// Its process has ended: it is left as it stands, and nothing of it is ever dropped.
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

/// The settings of a JobManager of the plan.
pub fn configuration(plan: &Plan) -> Configuration {
    let mut configuration = Configuration::default();
    configuration.set(
        &options::RAFT_HEARTBEAT_INTERVAL,
        format!("{} ms", plan.heartbeat_ms),
    );
    configuration.set(
        &options::RAFT_ELECTION_TIMEOUT_MIN,
        format!("{} ms", plan.election_ms),
    );
    configuration.set(
        &options::RAFT_ELECTION_TIMEOUT_MAX,
        format!("{} ms", plan.election_ms * 2),
    );
    configuration.set(&options::RAFT_SNAPSHOT_ENTRIES, plan.snapshot_entries);
    configuration.set(&options::RAFT_SNAPSHOT_BYTES, "256kb");
    configuration
}

/// Has the process of the first host found a group of the first `members`. If it fails, nobody leads, which is noticed.
pub fn found(world: &mut World, founder: &Running, members: usize) -> Result<(), String> {
    let founder = founder.jobmanager().ok_or("the founder runs")?;
    let addresses = (0..members).map(address).collect();
    world.spawn(0, async move {
        let _ = founder.raft().initialize(addresses).await;
    });
    Ok(())
}

/// What a JobManager's process does: it runs until it is killed, or until it ends itself.
pub async fn main(mut configuration: Configuration, host: HostId, running: Running) {
    let directory = with(|kernel| kernel.files.directory(host));
    configuration.set(&options::RAFT_DIR, directory.join("data").display());
    let incoming = network::listen(&address(host)).map(|stream| {
        Ok::<_, std::io::Error>(Connection::simulated(Box::new(stream), "a simulated peer"))
    });
    let started = JobManager::start(configuration, address(host), incoming).await;
    let why = match started {
        Ok(jobmanager) => {
            let jobmanager = Arc::new(jobmanager);
            running.set(Arc::clone(&jobmanager));
            jobmanager.failed().await
        }
        Err(error) => {
            let source = std::error::Error::source(&error);
            let source = source.map(ToString::to_string).unwrap_or_default();
            format!("did not start: {error}: {source}")
        }
    };
    with(|kernel| kernel.end_current(Death::Exited(why)));
}
