//! A cluster of processes of our own on this machine, joined by a [`Network`].
//!
//! ```text
//! jobmanager-N  listens at a place of its own; everybody knows it by the address that the network gives it
//! taskmanager-N knows the JobManagers by these addresses
//! ```
//!
//! A process ends with this one, even if this one is killed: its standard input closes. One that is stopped by SIGSTOP
//! ends when it is woken, which [`crate::campaign::undo`] sees to. What must stay true: a process that ends although nobody
//! here ended it is noticed ([`ends`]).

mod ends;
mod rollout;

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use flott_node::SharedClock;
use serde_json::Value;
use tokio::process::{Child, ChildStdin};

use super::Node;
use super::client::Client;
use super::control::{Control, Library};
use super::network::{Network, Seat};
use crate::cluster::processes;
use ends::Excuse;
pub use rollout::Programs;
use rollout::Rollout;

/// For a cluster to come up: seconds on an idle machine, more for a debug build on a busy one.
const START_BOUND: Duration = Duration::from_secs(120);
/// For a process that was asked to end.
const END_BOUND: Duration = Duration::from_secs(30);
/// Of a log, for an error message.
const LOG_TAIL_LINES: usize = 8;

/// What a cluster consists of.
#[derive(Clone, Debug)]
pub struct Shape {
    #[expect(missing_docs, reason = "how many")]
    pub jobmanagers: u32,
    #[expect(missing_docs, reason = "how many")]
    pub taskmanagers: u32,
    /// Of each TaskManager.
    pub slots: u32,
    /// `key=value` for all processes.
    pub settings: Vec<String>,
    /// Environment of all processes.
    pub environment: Vec<(String, String)>,
    /// What is loaded into them so that their clocks and disks can be changed; or why nothing is.
    pub preload: Library,
}

/// The running cluster.
#[derive(Debug)]
pub struct Local {
    rollout: Mutex<Rollout>,
    directory: PathBuf,
    shape: Shape,
    jobmanagers: Mutex<Vec<Place>>,
    taskmanagers: Mutex<Vec<Place>>,
    /// What lies between the processes.
    pub network: Network,
    clock: SharedClock,
}

/// Where a process lives, whether or not it runs.
#[derive(Debug)]
struct Place {
    node: Node,
    seat: Seat,
    running: Option<Running>,
    /// Left for good: replaced by another.
    retired: bool,
    excuse: Excuse,
}

#[derive(Debug)]
struct Running {
    child: Child,
    pid: i32,
    _lifeline: Option<ChildStdin>,
}

impl Local {
    /// Starts the processes under `directory`, makes a cluster of them, and waits until it can run jobs.
    pub async fn start(
        programs: Programs,
        directory: &Path,
        shape: Shape,
        network: Network,
        clock: SharedClock,
    ) -> anyhow::Result<(Arc<Self>, Client)> {
        let first = programs.first.clone();
        let local = Arc::new(Self {
            rollout: Mutex::new(Rollout::new(programs)),
            directory: directory.to_owned(),
            jobmanagers: Mutex::default(),
            taskmanagers: Mutex::default(),
            network,
            clock: clock.clone(),
            shape,
        });
        for _ in 0..local.shape.jobmanagers {
            local.add_jobmanager().await?;
        }
        let client = Client::new(first, local.addresses(), clock);
        let client = match local.network.is_beyond_loopback() {
            true => client.insecure(),
            false => client,
        };
        local.make_cluster(&client).await?;
        for number in 1..=local.shape.taskmanagers {
            local.add(Node::Taskmanager(number)).await?;
        }
        let wanted = local.shape.taskmanagers as usize;
        let registered = |status: &Value| {
            status["leader"].as_u64().is_some_and(|leader| leader != 0)
                && status["taskmanagers"].as_array().map(Vec::len) >= Some(wanted)
        };
        client
            .until(
                "a leader and all TaskManagers",
                START_BOUND,
                async || {
                    local.check_alive()?;
                    client.json(&["cluster", "status"]).await
                },
                registered,
            )
            .await?;
        Ok((local, client))
    }

    async fn make_cluster(&self, client: &Client) -> anyhow::Result<()> {
        let addresses = self.addresses().join(",");
        let mut arguments = vec!["cluster", "init", "-m", &addresses];
        arguments.extend(client.security());
        let init = async || {
            self.check_alive()?;
            let answer = crate::cluster::flott(client.binary(), &arguments).await?;
            ensure!(answer.code == Some(0), "{}", answer.stderr.trim());
            Ok(())
        };
        client
            .until("the cluster to be made", START_BOUND, init, |()| true)
            .await
    }

    /// Starts one more JobManager, which belongs to no cluster yet.
    pub async fn add_jobmanager(&self) -> anyhow::Result<Node> {
        let node = Node::Jobmanager(self.places(Node::Jobmanager(1)).len() as u32 + 1);
        self.add(node).await?;
        Ok(node)
    }

    async fn add(&self, node: Node) -> anyhow::Result<()> {
        let seat = self.network.seat(node).await?;
        self.places(node).push(Place {
            node,
            seat,
            running: None,
            retired: false,
            excuse: Excuse::default(),
        });
        self.start_process(node)
    }

    /// The address by which a JobManager is known.
    pub fn address(&self, node: Node) -> anyhow::Result<String> {
        let places = self.places(node);
        let place = places.iter().find(|place| place.node == node);
        let place = place.with_context(|| format!("there is no {node}"))?;
        Ok(place.seat.known_as.to_string())
    }

    /// The JobManager that is known by that address.
    pub fn at(&self, address: &str) -> Option<Node> {
        let places = self.places(Node::Jobmanager(1));
        let found = places
            .iter()
            .find(|place| address == place.seat.known_as.to_string());
        found.map(|place| place.node)
    }

    /// The addresses of the JobManagers that belong to the group.
    pub fn addresses(&self) -> Vec<String> {
        let places = self.places(Node::Jobmanager(1));
        let members = places.iter().filter(|place| !place.retired);
        members
            .map(|place| place.seat.known_as.to_string())
            .collect()
    }

    /// The JobManagers that belong to the group.
    pub fn jobmanagers(&self) -> Vec<Node> {
        let places = self.places(Node::Jobmanager(1));
        places
            .iter()
            .filter(|place| !place.retired)
            .map(|place| place.node)
            .collect()
    }

    /// All TaskManagers.
    pub fn taskmanagers(&self) -> Vec<Node> {
        self.places(Node::Taskmanager(1))
            .iter()
            .map(|place| place.node)
            .collect()
    }

    /// All processes that belong to the cluster.
    pub fn nodes(&self) -> Vec<Node> {
        [self.jobmanagers(), self.taskmanagers()].concat()
    }

    /// Where a JobManager keeps its log and snapshots.
    pub fn raft_directory(&self, node: Node) -> PathBuf {
        self.directory.join(node.to_string()).join("raft")
    }

    /// What a process has logged since it was started first.
    pub fn log(&self, node: Node) -> PathBuf {
        self.directory.join(format!("{node}.log"))
    }

    /// The page that a process obeys, and whoever is started in its place; why it obeys none.
    pub fn control(&self, node: Node) -> Result<Control, String> {
        let obeyed = self.shape.preload.as_ref();
        obeyed
            .map(|_| Control::at(&self.page(node)))
            .map_err(Clone::clone)
    }

    fn page(&self, node: Node) -> PathBuf {
        self.directory.join(format!("{node}.page"))
    }

    /// Starts a process that does not run.
    pub fn start_process(&self, node: Node) -> anyhow::Result<()> {
        let addresses = self.addresses().join(",");
        let mut places = self.places(node);
        let place = places.iter_mut().find(|place| place.node == node);
        let place = place.with_context(|| format!("there is no {node}"))?;
        ensure!(place.running.is_none(), "{node} runs already");
        let directory = self.directory.join(node.to_string());
        std::fs::create_dir_all(&directory)?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log(node))?;
        let program = self.rollout().program(node).to_owned();
        let mut command = self.network.command(node, &program);
        let host = place.seat.listens_at.ip();
        let mut own = match node {
            Node::Jobmanager(number) => {
                command.arg("jobmanager");
                vec![
                    format!("jobmanager.rpc.address={host}"),
                    format!("jobmanager.rpc.port={}", place.seat.listens_at.port()),
                    format!("high-availability.raft.node-id={number}"),
                    format!(
                        "high-availability.raft.dir={}",
                        directory.join("raft").display()
                    ),
                ]
            }
            Node::Taskmanager(_) => {
                command.arg("taskmanager");
                vec![
                    format!("taskmanager.host={host}"),
                    format!("high-availability.jobmanager.addresses={addresses}"),
                    format!("taskmanager.numberOfTaskSlots={}", self.shape.slots),
                    format!("io.tmp.dirs={}", directory.display()),
                ]
            }
        };
        if self.network.is_beyond_loopback() {
            own.push("security.insecure=true".to_owned());
        }
        command.arg("--exit-with-stdin");
        for setting in own.iter().chain(&self.shape.settings) {
            command.args(["-D", setting]);
        }
        if let Ok(library) = &self.shape.preload {
            let page = self.page(node);
            let control = match page.exists() {
                true => Control::at(&page),
                false => Control::create(&page, &directory)?,
            };
            command.envs(control.environment(library));
        }
        let mut child = command
            .envs(self.shape.environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let pid = i32::try_from(child.id().context("it has just been started")?)?;
        self.network.know(pid, node);
        let lifeline = child.stdin.take();
        place.running = Some(Running {
            child,
            pid,
            _lifeline: lifeline,
        });
        Ok(())
    }

    /// Installs the build that a rolling upgrade, or the way back, has come to for the next `amount` processes, JobManagers
    /// first; 0: for all. Who they are; nobody if there is one program only.
    pub fn install_for_next(&self, amount: usize) -> Vec<Node> {
        let nodes = self.nodes();
        self.rollout().install_for_next(&nodes, amount)
    }

    fn rollout(&self) -> MutexGuard<'_, Rollout> {
        self.rollout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process, if it runs.
    pub fn pid(&self, node: Node) -> Option<i32> {
        let places = self.places(node);
        let place = places.iter().find(|place| place.node == node)?;
        place.running.as_ref().map(|running| running.pid)
    }

    /// SIGKILL, and waits until it is gone. False: it does not run.
    pub async fn kill(&self, node: Node) -> anyhow::Result<bool> {
        let Some(mut running) = self.take(node)? else {
            return Ok(false);
        };
        running.child.kill().await?;
        Ok(true)
    }

    /// SIGTERM, and waits until it has ended in order. False: it does not run.
    pub async fn end(&self, node: Node) -> anyhow::Result<bool> {
        let Some(mut running) = self.take(node)? else {
            return Ok(false);
        };
        processes::terminate(running.pid)?;
        match tokio::time::timeout(END_BOUND, running.child.wait()).await {
            Ok(ended) => drop(ended?),
            // It was stopped meanwhile, or is stuck: that is for the checkers to find, not for us to wait for.
            Err(_) => running.child.kill().await?,
        }
        Ok(true)
    }

    /// From now on this member does not belong to the group, and may end by itself.
    pub fn retire(&self, node: Node) {
        let mut places = self.places(node);
        if let Some(place) = places.iter_mut().find(|place| place.node == node) {
            place.retired = true;
        }
    }

    /// From now on this JobManager belongs to the group.
    pub fn adopt(&self, node: Node) {
        let mut places = self.places(node);
        if let Some(place) = places.iter_mut().find(|place| place.node == node) {
            place.retired = false;
        }
    }

    /// SIGKILL, whether or not it has ended by itself before: one that has left the group may.
    pub async fn kill_if_running(&self, node: Node) -> anyhow::Result<()> {
        let running = {
            let mut places = self.places(node);
            let place = places.iter_mut().find(|place| place.node == node);
            place.and_then(|place| place.running.take())
        };
        if let Some(mut running) = running {
            running.child.kill().await?;
        }
        Ok(())
    }

    /// The last lines of a process's log.
    pub fn tail(&self, node: Node) -> String {
        let text = std::fs::read(self.log(node)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    /// Lifts all rules, makes clocks and disks right, wakes whoever is stopped and starts whoever does not run.
    pub fn heal(&self) -> anyhow::Result<()> {
        self.network.rules().lift_all();
        self.forgive();
        for node in self.nodes() {
            if let Ok(control) = self.control(node) {
                control.release_all()?;
            }
            match self.pid(node) {
                // One that has ended is for `check_alive` to find, and is not to hide what else went wrong.
                Some(pid) => drop(processes::go_on(pid)),
                None => self.start_process(node)?,
            }
        }
        Ok(())
    }

    /// Kills all, and removes the network.
    pub async fn put_all_down(&self) -> anyhow::Result<()> {
        let all = |node| {
            self.places(node)
                .iter()
                .map(|place| place.node)
                .collect::<Vec<_>>()
        };
        for node in [all(Node::Jobmanager(1)), all(Node::Taskmanager(1))].concat() {
            self.kill_if_running(node).await?;
        }
        self.network.take_down().await
    }

    /// The clock of the run.
    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }

    fn places(&self, node: Node) -> MutexGuard<'_, Vec<Place>> {
        let places = match node {
            Node::Jobmanager(_) => &self.jobmanagers,
            Node::Taskmanager(_) => &self.taskmanagers,
        };
        places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
