//! One process of a local cluster: its configuration, its start, and the task that owns it until it has ended.
//!
//! Only the owning task signals a process, and only while it has not been waited for. So no signal ever reaches another
//! process that was given the same number.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use flott_node::config::{ConfigOption, options};
use flott_node::tls;
use rustix::process::{Pid, Signal};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

use super::layout::{Layout, Member, Members, free_ports};
use super::security::Security;
use super::{LocalOptions, ProcessInfo, Role};
use crate::Error;

/// Signals that may wait for the owning task, which does nothing else: more than anybody sends at once.
const SIGNALS_MAX: usize = 16;

/// A process that has just been started.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) info: ProcessInfo,
    pub(super) signals: mpsc::Sender<Signal>,
    pub(super) owner: Owner,
}

/// The process, for the task that owns it.
#[derive(Debug)]
pub(super) struct Owner {
    child: Child,
    signals: mpsc::Receiver<Signal>,
    /// Its closing tells the child that its parent is gone.
    _lifeline: Option<ChildStdin>,
}

impl Owner {
    /// Passes signals on until the process has ended; how it ended.
    pub(super) async fn run(mut self) -> std::io::Result<ExitStatus> {
        loop {
            tokio::select! {
                ended = self.child.wait() => return ended,
                Some(signal) = self.signals.recv() => self.send(signal),
            }
        }
    }

    fn send(&self, signal: Signal) {
        // No pid: it has been waited for. A failure to signal means that it ends just now.
        let pid = self
            .child
            .id()
            .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

/// Starts the process `number` (from 1) of a role.
pub(super) fn start(
    role: Role,
    number: u32,
    layout: &Layout,
    members: &Members,
    security: Option<&Security>,
    options: &LocalOptions,
) -> Result<Started, Error> {
    let name = format!("{}-{number}", role.verb());
    let dir = layout.process(&name)?;
    let mut settings = shared_settings(layout, members);
    let certified = |role, name: &str| match security {
        Some(security) => security.settings(role, name),
        None => Ok(BTreeMap::new()),
    };
    let (node_id, id, address, http) = match role {
        Role::JobManager => {
            let member = members
                .jobmanagers
                .get(number as usize - 1)
                .ok_or_else(|| Error::Local(format!("there is no {name} in this cluster")))?;
            settings.jobmanager(member, &dir);
            let certificate = certified(tls::Role::JobManager, &member.address())?;
            settings.0.extend(certificate);
            (
                member.node_id,
                member.node_id.to_string(),
                member.address(),
                member.http_port,
            )
        }
        Role::TaskManager => {
            let ports = free_ports(2, &members.ports())?;
            // A name is never used twice: the leader tells a process from the one before it by its name.
            let id = format!("{name}-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
            settings.taskmanager(&id, ports[0], ports[1], options.slots, &dir);
            settings.0.extend(certified(tls::Role::TaskManager, &name)?);
            (0, id, format!("127.0.0.1:{}", ports[0]), ports[1])
        }
    };
    settings.0.extend(options.overrides.clone());
    let config = dir.join("config.yaml");
    std::fs::write(&config, settings.to_yaml()).map_err(Error::file("cannot write", &config))?;
    let log = dir.join("flott.log");

    let mut child = command(role, &options.executable, &config, &log)?
        .spawn()
        .map_err(Error::file("cannot start", &options.executable))?;
    let pid = child
        .id()
        .ok_or_else(|| Error::Local(format!("{name} ended at once; see {}", log.display())))?;
    let (signals, received) = mpsc::channel(SIGNALS_MAX);
    // Taken out, because waiting for a child closes the pipe that is left in it.
    let lifeline = child.stdin.take();
    let http = format!("127.0.0.1:{http}");
    let info = ProcessInfo {
        role,
        name,
        node_id,
        id,
        pid,
        address,
        http,
        log,
    };
    Ok(Started {
        info,
        signals,
        owner: Owner {
            child,
            signals: received,
            _lifeline: lifeline,
        },
    })
}

fn command(role: Role, executable: &Path, config: &Path, log: &Path) -> Result<Command, Error> {
    let log_file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log);
    let log_file = log_file.map_err(Error::file("cannot open", log))?;
    let same_file = log_file
        .try_clone()
        .map_err(Error::file("cannot open", log))?;
    let mut command = Command::new(executable);
    command
        .arg(role.verb())
        .arg("--config")
        .arg(config)
        .arg("--exit-with-stdin");
    command
        .stdin(Stdio::piped())
        .stdout(log_file)
        .stderr(same_file);
    command.process_group(0).kill_on_drop(true);
    Ok(command)
}

/// A process's configuration, as it is written to its `config.yaml`.
#[derive(Debug)]
struct Settings(BTreeMap<String, String>);

fn shared_settings(layout: &Layout, members: &Members) -> Settings {
    let mut settings = Settings(BTreeMap::new());
    settings.set(
        &options::JOBMANAGER_ADDRESSES,
        members.addresses().join(","),
    );
    settings.set(&options::CHECKPOINT_DIR, layout.checkpoints().display());
    settings.set(&options::SAVEPOINT_DIR, layout.savepoints().display());
    settings
}

impl Settings {
    fn set<T>(&mut self, option: &ConfigOption<T>, value: impl ToString) {
        self.0.insert(option.key().to_owned(), value.to_string());
    }

    fn jobmanager(&mut self, member: &Member, dir: &Path) {
        self.set(&options::JOBMANAGER_RPC_ADDRESS, "127.0.0.1");
        self.set(&options::JOBMANAGER_RPC_PORT, member.rpc_port);
        self.set(&options::RAFT_NODE_ID, member.node_id);
        self.set(&options::RAFT_DIR, dir.join("raft").display());
        self.set(&options::REST_PORT, member.http_port);
    }

    fn taskmanager(&mut self, id: &str, data_port: u16, http_port: u16, slots: u32, dir: &Path) {
        self.set(&options::TASKMANAGER_HOST, "127.0.0.1");
        self.set(&options::TASKMANAGER_ID, id);
        self.set(&options::TASKMANAGER_DATA_PORT, data_port);
        self.set(&options::TASK_SLOTS, slots);
        self.set(&options::TMP_DIRS, dir.join("work").display());
        self.set(&options::REST_PORT, http_port);
    }

    /// One quoted line per key. JSON's quoting is YAML's double quoting.
    fn to_yaml(&self) -> String {
        let mut text = "# Written by `flott local` at every start of this process.\n".to_owned();
        for (key, value) in &self.0 {
            text.push_str(&format!(
                "{key}: {}\n",
                serde_json::Value::from(value.as_str())
            ));
        }
        text
    }
}

/// The keys that `flott local` sets itself and that would break the cluster if they were the same for all processes.
pub(super) const OWN_KEYS: [&str; 10] = [
    options::JOBMANAGER_RPC_ADDRESS.key(),
    options::JOBMANAGER_RPC_PORT.key(),
    options::JOBMANAGER_ADDRESSES.key(),
    options::RAFT_DIR.key(),
    options::RAFT_NODE_ID.key(),
    options::TASKMANAGER_HOST.key(),
    options::TASKMANAGER_ID.key(),
    options::TASKMANAGER_DATA_PORT.key(),
    options::TMP_DIRS.key(),
    options::REST_PORT.key(),
];

#[cfg(test)]
mod tests {
    use flott_node::config::Configuration;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut settings = Settings(BTreeMap::new());
        settings.set(&options::CHECKPOINT_DIR, "/a b/\"c\" #d: é");
        settings.set(&options::RAFT_NODE_ID, 3);
        let read = Configuration::from_yaml(&settings.to_yaml(), "config.yaml").unwrap();
        assert_eq!(read.to_map(), settings.0);
        read.validate().unwrap();
    }

    #[tokio::test]
    async fn a_signal_to_a_process_that_ended_goes_nowhere() {
        let child = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
        let (signals, received) = mpsc::channel(1);
        let owner = Owner {
            child,
            signals: received,
            _lifeline: None,
        };
        signals.send(Signal::KILL).await.unwrap();
        owner.run().await.unwrap();
    }
}
