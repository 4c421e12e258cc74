//! The cluster of our own that a run breaks: its network, its object store, its processes.

use std::sync::Arc;

use anyhow::Context;
use flott_chaos_basis::random::Random;
use flott_node::SharedClock;

use super::Course;
use super::guard::Guard;
use crate::campaign::place::{CannotRun, shape};
use crate::campaign::undo::Undo;
use crate::cluster::processes;
use crate::target::client::Client;
use crate::target::local::Local;
use crate::target::network::Network;
use crate::target::store::Store;
use crate::target::{Target, netns};

/// What a run stands on.
pub(super) struct Ground {
    pub(super) local: Arc<Local>,
    pub(super) client: Arc<Client>,
    /// None: checkpoints lie in a directory.
    pub(super) store: Option<Arc<Store>>,
    pub(super) guard: Guard,
    /// Its entry in the journal, if the network leaves something on the machine.
    network: Option<u64>,
}

/// Fails if this machine lacks what the course needs.
pub(super) async fn check(target: Target) -> anyhow::Result<()> {
    match target {
        Target::Local => Ok(()),
        Target::Netns => match netns::missing().await {
            Some(missing) => Err(CannotRun(missing).into()),
            None => Ok(()),
        },
        Target::Remote => Err(anyhow::anyhow!(
            "this plan is for machines of others: name them by --hosts"
        )),
    }
}

impl Ground {
    /// Starts everything, and waits until the cluster can run jobs.
    pub(super) async fn prepare(course: &Course, clock: &SharedClock) -> anyhow::Result<Self> {
        let plan = &course.plan;
        let guard = Guard::post(&course.directory, clock)?;
        let (network, entry) = match plan.target {
            Target::Local => (Network::proxy(clock.clone()), None),
            Target::Netns => {
                let pid = i32::try_from(std::process::id())?;
                let born = processes::born(pid).context("this process is not in /proc")?;
                let undo = Undo::RemoveNamespaces { pid, born };
                let entry = guard
                    .journal
                    .begin_for_the_run("network namespaces", undo)?;
                // Another sequence of numbers than that of the run.
                let random = Random::new(!plan.seed);
                let network = Network::lan(random, clock.clone()).await;
                (network.context("the network cannot be laid")?, Some(entry))
            }
            Target::Remote => unreachable!("was refused"),
        };
        let store = match plan.knobs.store {
            true => Some(Arc::new(Store::start(network.harness()).await?)),
            false => None,
        };
        let shape = shape(plan, &course.directory, store.as_deref(), &course.library);
        let directory = course.directory.join("cluster");
        let programs = course.programs.clone();
        let (local, client) = Local::start(programs, &directory, shape, network, clock.clone())
            .await
            .context("the cluster did not start")?;
        Ok(Self {
            local,
            client: Arc::new(client),
            store,
            guard,
            network: entry,
        })
    }

    /// Ends everything; nothing of it is left on the machine.
    pub(super) async fn leave(self) -> anyhow::Result<()> {
        self.local.put_all_down().await?;
        if let Some(entry) = self.network {
            self.guard.journal.done(entry)?;
        }
        self.guard.leave().await
    }
}
