//! A cluster of real processes: `flott local`, the pids that it writes down, and the command line to ask it.
//!
//! - [`flott_binary`]: which binary. [`processes`]: killing, and knowing that something is dead. `failpoint`: killing at an
//!   exact place. [`memory`]: little of it for one process.
//! - [`jobmanager`]: one more JobManager, to replace another. `ports`: where it may listen.
//! - [`room`]: namespaces in which anything may be broken. [`network`]: one of its own for each member, and cuts.
//!   [`probe`]: whether this machine can. [`disks`]: disks that lose their power. [`group`]: JobManagers alone, started in there. [`status`]: asking them.
//!
//! Every wait is for a condition and has a deadline; what was last seen is in the error.

mod binary;
pub mod disks;
mod failpoint;
pub mod group;
pub mod jobmanager;
pub mod memory;
pub mod network;
pub(crate) mod ports;
pub mod probe;
pub mod processes;
pub mod room;
pub mod status;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use flott_node::{Failpoint, SharedClock, SystemClock};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

pub use binary::{beside, flott_binary};

/// Debug builds on two cores start slowly; a healthy start takes a few seconds.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How often a condition is looked at again.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// `cluster.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Members {
    /// In the order in which they were started first.
    pub jobmanagers: Vec<Member>,
    /// Likewise.
    pub taskmanagers: Vec<Member>,
}

/// One process of a cluster.
#[derive(Clone, Debug, Deserialize)]
pub struct Member {
    /// A number for a JobManager, text for a TaskManager.
    pub id: Value,
    /// The operating system's id of the process.
    pub pid: i32,
    /// `host:port`
    pub address: String,
}

/// What one call of the command line did.
#[derive(Debug)]
pub struct Answer {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Everything printed to standard output.
    pub stdout: String,
    /// Everything printed to standard error.
    pub stderr: String,
}

/// A running `flott local` and its children.
#[derive(Debug)]
pub struct Cluster {
    directory: PathBuf,
    binary: PathBuf,
    local: Child,
    clock: SharedClock,
}

impl Cluster {
    /// Starts `flott local --dir <directory>` with `arguments` and waits until it says `ready`.
    pub async fn start<A: AsRef<OsStr>>(directory: &Path, arguments: &[A]) -> anyhow::Result<Self> {
        Self::start_in(directory, arguments, &[]).await
    }

    /// The same with further environment, for all processes.
    pub async fn start_in<A: AsRef<OsStr>>(
        directory: &Path,
        arguments: &[A],
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let binary = flott_binary()?;
        std::fs::create_dir_all(directory)?;
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(directory.join("local.log"))?;
        let mut local = Command::new(&binary)
            .args(["local", "--dir"])
            .arg(directory)
            .args(arguments)
            .env(Failpoint::VARIABLE, failpoint::directory(directory))
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let stdout = local.stdout.take().context("standard output was piped")?;
        let cluster = Self {
            directory: directory.to_owned(),
            binary,
            local,
            clock: SystemClock::shared(),
        };
        let mut lines = BufReader::new(stdout).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                if line.trim() == "ready" {
                    return Ok(());
                }
            }
            bail!(
                "flott local ended before it was ready; see {}",
                cluster.directory.join("local.log").display()
            )
        };
        tokio::time::timeout(START_DEADLINE, ready)
            .await
            .context("flott local was not ready in time")??;
        Ok(cluster)
    }

    /// The members as `cluster.json` names them now.
    pub fn members(&self) -> anyhow::Result<Members> {
        let path = self.directory.join("cluster.json");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("in {}", path.display()))
    }

    /// The directory given at the start.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The addresses of all JobManagers, for `-m`.
    pub fn addresses(&self) -> anyhow::Result<String> {
        let members = self.members()?;
        Ok(members
            .jobmanagers
            .iter()
            .map(|member| member.address.as_str())
            .collect::<Vec<_>>()
            .join(","))
    }

    /// Runs `flott <arguments> -m <all members>`, whatever comes of it.
    pub async fn ask<A: AsRef<OsStr>>(&self, arguments: &[A]) -> anyhow::Result<Answer> {
        let addresses = self.addresses()?;
        let mut all: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        all.extend([OsStr::new("-m"), OsStr::new(&addresses)]);
        flott_with(&self.binary, &all, &self.credentials()).await
    }

    /// What a client of a cluster with `--tls` shows; nothing without.
    fn credentials(&self) -> Vec<(&'static str, PathBuf)> {
        let certificates = self.directory.join("certs");
        let files = [
            ("FLOTT_TLS_CA", certificates.join("ca.pem")),
            ("FLOTT_TLS_CERT", certificates.join("client-local.pem")),
            ("FLOTT_TLS_KEY", certificates.join("client-local.key")),
        ];
        files
            .into_iter()
            .filter(|(_, file)| file.exists())
            .collect()
    }

    /// Runs a verb that must succeed; its JSON.
    pub async fn json<A: AsRef<OsStr>>(&self, arguments: &[A]) -> anyhow::Result<Value> {
        let mut all: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        all.extend([OsStr::new("-o"), OsStr::new("json")]);
        let answer = self.ask(&all).await?;
        ensure!(answer.code == Some(0), "{all:?} failed: {answer:?}");
        serde_json::from_str(&answer.stdout)
            .with_context(|| format!("{all:?} printed no JSON: {answer:?}"))
    }

    /// Submits `sql` (written to a file in the directory) in the background with further `arguments`; the job's id.
    pub async fn submit<A: AsRef<OsStr>>(
        &self,
        sql: &str,
        arguments: &[A],
    ) -> anyhow::Result<String> {
        let file = self.directory.join("job.sql");
        std::fs::write(&file, sql)?;
        let mut all: Vec<&OsStr> = vec![
            OsStr::new("run"),
            OsStr::new("-d"),
            OsStr::new("-f"),
            file.as_os_str(),
        ];
        all.extend(arguments.iter().map(AsRef::as_ref));
        let answer = self.json(&all).await?;
        answer["id"]
            .as_str()
            .map(str::to_owned)
            .with_context(|| format!("no id in {answer}"))
    }

    /// The job as `flott info` tells it.
    pub async fn info(&self, job: &str) -> anyhow::Result<Value> {
        self.json(&["info", job]).await
    }

    /// The job's checkpoints, newest first.
    pub async fn checkpoints(&self, job: &str) -> anyhow::Result<Vec<Value>> {
        let answer = self.json(&["checkpoints", job]).await?;
        answer["checkpoints"]
            .as_array()
            .cloned()
            .with_context(|| format!("no checkpoints in {answer}"))
    }

    /// Asks `question` until `holds` says yes, at most for `deadline`; the answer that it said yes to.
    ///
    /// A failing question is asked again: while nobody leads there is no answer.
    pub async fn until<T: std::fmt::Debug, F: Future<Output = anyhow::Result<T>>>(
        &self,
        what: &str,
        deadline: Duration,
        mut question: impl FnMut() -> F,
        mut holds: impl FnMut(&T) -> bool,
    ) -> anyhow::Result<T> {
        let end = self.clock.monotonic() + deadline;
        loop {
            let answer = question().await;
            match answer {
                Ok(answer) if holds(&answer) => return Ok(answer),
                answer if self.clock.monotonic() >= end => {
                    bail!("waited {deadline:?} for {what}; last: {answer:#?}")
                }
                _ => self.clock.sleep(POLL_INTERVAL).await,
            }
        }
    }

    /// Waits until the job is in `state`.
    pub async fn until_state(
        &self,
        job: &str,
        state: &str,
        deadline: Duration,
    ) -> anyhow::Result<Value> {
        self.until(
            &format!("job state {state}"),
            deadline,
            || self.info(job),
            |info| info["state"] == state,
        )
        .await
    }

    /// Waits until `count` checkpoints more than those of `known` are complete.
    pub async fn until_checkpoints(
        &self,
        job: &str,
        count: usize,
        known: &[Value],
        deadline: Duration,
    ) -> anyhow::Result<Vec<Value>> {
        let newest_known = newest_completed(known);
        let more =
            |checkpoints: &Vec<Value>| newest_completed(checkpoints) >= newest_known + count as u64;
        self.until(
            &format!("{count} more checkpoints"),
            deadline,
            || self.checkpoints(job),
            more,
        )
        .await
    }

    /// The leading JobManager as `cluster status` and `cluster.json` name it.
    pub async fn leader(&self, deadline: Duration) -> anyhow::Result<Member> {
        let status = || self.json(&["cluster", "status"]);
        let led = |status: &Value| leader_address(status).is_some();
        let status = self.until("a leader", deadline, status, led).await?;
        let address = leader_address(&status).context("just seen")?;
        let members = self.members()?.jobmanagers;
        members
            .into_iter()
            .find(|member| member.address == address)
            .with_context(|| format!("{address} is not in cluster.json"))
    }

    /// Stops everything by SIGTERM to `flott local`, as a user's Ctrl-C would.
    pub async fn stop(mut self, deadline: Duration) -> anyhow::Result<()> {
        processes::terminate(self.local_pid()?)?;
        let status = tokio::time::timeout(deadline, self.local.wait())
            .await
            .context("flott local did not stop in time")??;
        ensure!(status.success(), "flott local ended with {status}");
        Ok(())
    }

    /// Kills `flott local` and every process of the cluster, and waits until they are gone.
    pub async fn kill_everything(mut self) -> anyhow::Result<()> {
        // The parent is stopped first: it must neither see its children die nor start new ones.
        let local = self.local_pid()?;
        processes::stop(local)?;
        let members = self.members()?;
        let pids: Vec<i32> = members
            .jobmanagers
            .iter()
            .chain(&members.taskmanagers)
            .map(|member| member.pid)
            .collect();
        for pid in &pids {
            processes::kill_if_alive(*pid)?;
        }
        self.local.kill().await?;
        let alive = || async { Ok(pids.iter().filter(|pid| processes::is_alive(**pid)).count()) };
        self.until(
            "all processes to be gone",
            Duration::from_secs(10),
            alive,
            |alive| *alive == 0,
        )
        .await?;
        Ok(())
    }

    /// The process that starts the others, and starts them again with `--respawn`.
    pub fn local_pid(&self) -> anyhow::Result<i32> {
        let pid = self.local.id().context("flott local has ended")?;
        Ok(i32::try_from(pid)?)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A failed test leaves no processes behind. After stop() there is nothing left to kill.
        let Ok(None) = self.local.try_wait() else {
            return;
        };
        let _ = self.local.start_kill();
        if let Ok(members) = self.members() {
            for member in members.jobmanagers.iter().chain(&members.taskmanagers) {
                let _ = processes::kill_if_alive(member.pid);
            }
        }
    }
}

/// Runs the binary with `arguments` to its end, within a minute.
pub async fn flott<A: AsRef<OsStr>>(binary: &Path, arguments: &[A]) -> anyhow::Result<Answer> {
    flott_with(binary, arguments, &[]).await
}

/// The same with further environment.
pub async fn flott_with<A: AsRef<OsStr>>(
    binary: &Path,
    arguments: &[A],
    environment: &[(&str, PathBuf)],
) -> anyhow::Result<Answer> {
    let mut command = Command::new(binary);
    command
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(START_DEADLINE, command.output())
        .await
        .context("flott did not end in time")??;
    Ok(Answer {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The id of the newest completed checkpoint; 0 for none.
pub fn newest_completed(checkpoints: &[Value]) -> u64 {
    let completed = checkpoints
        .iter()
        .filter(|checkpoint| checkpoint["status"] == "COMPLETED");
    completed
        .filter_map(|checkpoint| checkpoint["id"].as_u64())
        .max()
        .unwrap_or(0)
}

fn leader_address(status: &Value) -> Option<String> {
    let leader = status["leader"].as_u64().filter(|leader| *leader != 0)?;
    let member = status["members"]
        .as_array()?
        .iter()
        .find(|member| member["id"].as_u64() == Some(leader))?;
    member["address"].as_str().map(str::to_owned)
}
