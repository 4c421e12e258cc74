//! What a TaskManager is told at its start: read once, checked, logged whole, passed down.

use std::path::PathBuf;
use std::time::Duration;

use flott_node::Transport;
use flott_node::config::{Configuration, options};
use flott_node::health::HttpPort;
use flott_node::tls::Role;
use flott_proto::ids::{ClusterId, TaskManagerId};

use crate::Error;

/// The settings of one TaskManager process.
#[derive(Clone, Debug)]
pub struct TaskManagerConfig {
    pub id: TaskManagerId,
    pub slots: u32,
    /// Where other TaskManagers reach this one; the data listener's port is chosen if 0.
    pub host: String,
    pub data_port: u16,
    pub http: HttpPort,
    /// How JobManagers and other TaskManagers are reached, and reach this one.
    pub transport: Transport,
    /// How often renewed certificates are looked for.
    pub tls_reload_interval: Duration,
    /// host:port of all JobManagers.
    pub jobmanagers: Vec<String>,
    /// `None`: whichever cluster the first leader is of.
    pub cluster: Option<ClusterId>,
    /// Working state goes into a directory in here that is named by `id`.
    pub tmp_dir: PathBuf,
    /// For keyed state, shared by the slots.
    pub managed_memory_bytes: u64,
    /// Until a leader says otherwise.
    pub heartbeat_interval: Duration,
    pub heartbeat_timeout: Duration,
    /// Keep files of checkpoints here, for restores.
    pub local_recovery: bool,
    /// How long a deployment waits for slots that tasks of other jobs hold.
    pub slot_request_timeout: Duration,
    pub shutdown_timeout: Duration,
}

impl TaskManagerConfig {
    /// Reads the settings. Fails at the first that cannot be used, naming it.
    pub fn read(configuration: &Configuration) -> Result<Self, Error> {
        let invalid =
            |error: flott_node::config::ConfigError| Error::Configuration(error.to_string());
        let mut jobmanagers = configuration
            .get(&options::JOBMANAGER_ADDRESSES)
            .map_err(invalid)?;
        if jobmanagers.is_empty() {
            let host = configuration
                .get(&options::JOBMANAGER_RPC_ADDRESS)
                .map_err(invalid)?;
            let port = configuration
                .get(&options::JOBMANAGER_RPC_PORT)
                .map_err(invalid)?;
            jobmanagers.push(format!("{host}:{port}"));
        }
        let id = configuration
            .get(&options::TASKMANAGER_ID)
            .map_err(invalid)?;
        let id = if id.is_empty() { generated_id() } else { id };
        let cluster = configuration.get(&options::CLUSTER_ID).map_err(invalid)?;
        let slots = configuration.get(&options::TASK_SLOTS).map_err(invalid)?;
        if slots == 0 {
            let key = options::TASK_SLOTS.key();
            return Err(Error::Configuration(format!(
                "`{key}: 0` must be at least 1"
            )));
        }
        let transport = Transport::from_configuration(configuration, Role::TaskManager)?;
        Ok(Self {
            id: id.parse()?,
            slots,
            host: configuration
                .get(&options::TASKMANAGER_HOST)
                .map_err(invalid)?,
            data_port: configuration
                .get(&options::TASKMANAGER_DATA_PORT)
                .map_err(invalid)?,
            http: HttpPort::from_configuration(configuration, &transport).map_err(invalid)?,
            tls_reload_interval: configuration
                .get(&options::SSL_RELOAD_INTERVAL)
                .map_err(invalid)?,
            transport,
            jobmanagers,
            cluster: if cluster.is_empty() {
                None
            } else {
                Some(cluster.parse()?)
            },
            tmp_dir: configuration.get(&options::TMP_DIRS).map_err(invalid)?,
            managed_memory_bytes: configuration
                .get(&options::MANAGED_MEMORY)
                .map_err(invalid)?
                .0,
            heartbeat_interval: configuration
                .get(&options::HEARTBEAT_INTERVAL)
                .map_err(invalid)?,
            heartbeat_timeout: configuration
                .get(&options::HEARTBEAT_TIMEOUT)
                .map_err(invalid)?,
            local_recovery: configuration
                .get(&options::LOCAL_RECOVERY)
                .map_err(invalid)?,
            slot_request_timeout: configuration
                .get(&options::SLOT_REQUEST_TIMEOUT)
                .map_err(invalid)?,
            shutdown_timeout: configuration
                .get(&options::SHUTDOWN_TIMEOUT)
                .map_err(invalid)?,
        })
    }
}

/// Unique to one start of a process, and short enough to read.
fn generated_id() -> String {
    let uuid = uuid::Uuid::new_v4().simple().to_string();
    format!("tm-{}", &uuid[..12])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(entries: &[(&str, &str)]) -> Result<TaskManagerConfig, Error> {
        let map: BTreeMap<String, String> = entries
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect();
        TaskManagerConfig::read(&Configuration::from_map(&map).unwrap())
    }

    #[test]
    fn without_settings_it_looks_for_the_local_jobmanager_under_an_id_of_its_own() {
        let config = read(&[]).unwrap();
        assert_eq!(config.jobmanagers, ["127.0.0.1:6123"]);
        assert_ne!(config.id, read(&[]).unwrap().id);
        assert_eq!(config.cluster, None);
    }

    #[test]
    fn a_setting_that_cannot_be_is_named() {
        let error = read(&[("taskmanager.numberOfTaskSlots", "0")]).unwrap_err();
        assert!(error.to_string().contains("numberOfTaskSlots"), "{error}");
        assert!(read(&[("taskmanager.resource-id", "../x")]).is_err());
    }
}
