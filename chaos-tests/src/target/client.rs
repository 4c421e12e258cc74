//! A user of the cluster under test: the command line, and the addresses that it is given.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use flott_cli::known_cluster::KnownCluster;
use flott_node::SharedClock;
use flott_proto::wire;
use futures::future::join_all;
use serde_json::Value;

use crate::cluster::status::status_of;
use crate::cluster::{Answer, flott_with};
use crate::runs::Overdue;

/// Between two looks at a condition. Each is a process of its own.
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// For the command line to find a leader, before it gives up and we ask again.
const PATIENCE: &str = "5 s";

/// The command line, and whom it asks.
#[derive(Debug)]
pub struct Client {
    binary: PathBuf,
    addresses: Mutex<Vec<String>>,
    is_insecure: bool,
    /// Once a JobManager has answered. Another cluster may take the port of one that was killed.
    cluster: KnownCluster,
    /// What waits are measured with.
    pub clock: SharedClock,
}

impl Client {
    /// A client of the JobManagers at `addresses`, any of which may be down.
    pub fn new(binary: PathBuf, addresses: Vec<String>, clock: SharedClock) -> Self {
        Self {
            binary,
            addresses: Mutex::new(addresses),
            is_insecure: false,
            cluster: KnownCluster::default(),
            clock,
        }
    }

    /// The same, in plain text also beyond loopback.
    pub fn insecure(self) -> Self {
        Self {
            is_insecure: true,
            ..self
        }
    }

    /// What every verb is told about how to connect.
    pub fn security(&self) -> &'static [&'static str] {
        match self.is_insecure {
            true => &["--insecure"],
            false => &[],
        }
    }

    /// The cluster that it speaks with.
    pub fn cluster(&self) -> &KnownCluster {
        &self.cluster
    }

    /// Where the JobManagers are reached.
    pub fn addresses(&self) -> Vec<String> {
        let addresses = self.addresses.lock();
        addresses.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// After a member was replaced.
    pub fn set_addresses(&self, addresses: Vec<String>) {
        *self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    /// The `flott` program.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// `flott <arguments> -m <addresses>`, whatever comes of it.
    pub async fn ask(&self, arguments: &[&str]) -> anyhow::Result<Answer> {
        let addresses = self.addresses().join(",");
        let mut all = arguments.to_vec();
        all.extend(["-m", &addresses, "--timeout", PATIENCE]);
        all.extend(self.security());
        // By a variable, not an option: of two builds under test the older one may not know it.
        let cluster = self.cluster.id();
        let named = cluster.map(|id| ("FLOTT_CLUSTER_ID", PathBuf::from(id.as_str())));
        flott_with(&self.binary, &all, named.as_slice()).await
    }

    /// The JSON that a verb prints; an error if it fails.
    pub async fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let answer = self.ask(&[arguments, &["-o", "json"]].concat()).await?;
        ensure!(
            answer.code == Some(0),
            "flott {arguments:?}: {}",
            answer.stderr.trim()
        );
        serde_json::from_str(&answer.stdout)
            .with_context(|| format!("flott {arguments:?} printed no JSON: {}", answer.stdout))
    }

    /// Submits the script `sql`, written to `file`, under the name `name`, with these further options; the job's id. An error
    /// may mean that it was accepted all the same.
    pub async fn submit(
        &self,
        sql: &str,
        file: &Path,
        name: &str,
        parallelism: u32,
        options: &[&str],
    ) -> anyhow::Result<String> {
        std::fs::write(file, sql).with_context(|| format!("cannot write {}", file.display()))?;
        let parallelism = parallelism.to_string();
        let path = file.to_str().context("a path that is text")?;
        let run = ["run", "-d", "-f", path, "--name", name, "-p", &parallelism];
        let answer = self.json(&[&run, options].concat()).await?;
        let id = answer["id"].as_str().map(str::to_owned);
        id.with_context(|| format!("no id in {answer}"))
    }

    /// The job as `flott info` tells it.
    pub async fn info(&self, job: &str) -> anyhow::Result<Value> {
        self.json(&["info", job]).await
    }

    /// What the JobManagers that answer say about the group.
    pub async fn statuses(&self) -> Vec<wire::ClusterStatusResponse> {
        let addresses = self.addresses();
        let asked = addresses.iter();
        let asked = asked.map(|address| status_of(&self.cluster, address));
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// The address of the leading JobManager; `None` while nobody who answers knows one.
    pub async fn leader(&self) -> Option<String> {
        let statuses = self.statuses().await;
        let newest = statuses
            .iter()
            .filter(|status| status.leader != 0)
            .max_by_key(|status| (status.term, status.answered_by == status.leader))?;
        let member = newest
            .members
            .iter()
            .find(|member| member.id == newest.leader)?;
        Some(member.address.clone())
    }

    /// Asks `question` until `holds` says yes, at most for `bound`; an error says what was waited for, and the last answer.
    pub async fn until<T: std::fmt::Debug>(
        &self,
        what: &str,
        bound: Duration,
        mut question: impl AsyncFnMut() -> anyhow::Result<T>,
        mut holds: impl FnMut(&T) -> bool,
    ) -> anyhow::Result<T> {
        let end = self.clock.monotonic() + bound;
        loop {
            let answer = question().await;
            match answer {
                Ok(answer) if holds(&answer) => return Ok(answer),
                answer if self.clock.monotonic() >= end => {
                    let mut last = format!("{answer:?}");
                    last.truncate(last.floor_char_boundary(600));
                    let text = format!("waited {} s for {what}; last: {last}", bound.as_secs());
                    return Err(Overdue(text).into());
                }
                _ => self.clock.sleep(LOOK_EVERY).await,
            }
        }
    }
}

/// Whether the job has tasks and all of them run or have read all input.
pub fn all_tasks_run(info: &Value) -> bool {
    let vertices = info["vertices"].as_array().into_iter().flatten();
    let tasks = vertices.flat_map(|vertex| vertex["tasks"].as_array().into_iter().flatten());
    let mut states = tasks
        .map(|task| task["state"].as_str().unwrap_or_default())
        .peekable();
    states.peek().is_some() && states.all(|state| matches!(state, "RUNNING" | "END_OF_DATA"))
}

/// Whether a job in that state never runs again.
pub fn is_terminal(state: &str) -> bool {
    matches!(state, "FINISHED" | "FAILED" | "CANCELED")
}
