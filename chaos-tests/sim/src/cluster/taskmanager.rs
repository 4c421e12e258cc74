//! The process of one TaskManager.

use flott_node::config::{Configuration, options};
use flott_node::{SystemClock, Tasks};
use flott_worker::config::TaskManagerConfig;

use super::plan::{MEMBERS, Plan};
use crate::kernel::hosts::{Death, HostId};
use crate::kernel::with;
use crate::raft_group::member;

/// Where the data of a host's TaskManager goes.
pub fn address(host: HostId) -> String {
    format!("tm{host}:7000")
}

fn configuration(plan: &Plan, host: HostId) -> Configuration {
    let directory = with(|kernel| kernel.files.directory(host));
    let members: Vec<String> = (0..MEMBERS).map(member::address).collect();
    let mut configuration = Configuration::default();
    configuration.set(&options::JOBMANAGER_ADDRESSES, members.join(","));
    configuration.set(&options::TASK_SLOTS, plan.slots);
    configuration.set(&options::TASKMANAGER_HOST, format!("tm{host}"));
    configuration.set(&options::TASKMANAGER_DATA_PORT, 7000);
    configuration.set(&options::TMP_DIRS, directory.join("tmp").display());
    configuration.set(&options::LOCAL_RECOVERY, plan.local_recovery);
    configuration.set(&options::INSECURE, true);
    configuration
}

/// What a TaskManager's process does: it runs until it is killed, or until it ends itself.
pub async fn main(plan: Plan, host: HostId) {
    let ended = match TaskManagerConfig::read(&configuration(&plan, host)) {
        Ok(config) => {
            let clock = SystemClock::shared();
            flott_worker::task_manager::run_with(config, Tasks::default(), clock).await
        }
        Err(error) => Err(error),
    };
    let why = match ended {
        Ok(()) => "it was told to end".to_owned(),
        Err(error) => error.full_text(),
    };
    with(|kernel| kernel.end_current(Death::Exited(why)));
}
