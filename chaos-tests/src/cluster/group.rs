//! A group of JobManagers alone, each in a network namespace of its own and started directly: what the tests of the
//! replicated key-value space break.
//!
//! Must stay true: a member that ends without having been killed is noticed ([`Group::check_alive`]), and its log says
//! why. Members die with the room that they are in, so nothing here needs a `Drop`.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use flott_node::{SharedClock, SystemClock};
use tokio::process::{Child, Command};

use super::network::{self, Network};
use super::{flott, flott_binary, processes};

/// Debug builds on two busy cores start slowly.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// Between two tries.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Of a log, for an error message.
const LOG_TAIL_LINES: usize = 12;

/// How a group's members are configured.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `key=value` for every member.
    pub overrides: Vec<String>,
    /// Environment of every member.
    pub environment: Vec<(OsString, OsString)>,
}

/// The members, numbered from 1.
#[derive(Debug)]
pub struct Group {
    binary: PathBuf,
    directory: PathBuf,
    options: Options,
    members: Vec<Mutex<Option<Child>>>,
    /// Where the members live.
    pub network: Arc<Network>,
}

impl Group {
    /// Starts `members` fresh JobManagers under `directory` and makes a cluster of them.
    pub async fn start(
        directory: &Path,
        members: u32,
        network: Arc<Network>,
        options: Options,
    ) -> anyhow::Result<Self> {
        let group = Self {
            binary: flott_binary()?,
            directory: directory.to_owned(),
            options,
            members: (0..members).map(|_| Mutex::new(None)).collect(),
            network,
        };
        for member in group.numbers() {
            group.start_member(member)?;
        }
        group.initialize().await?;
        Ok(group)
    }

    /// The numbers of all members.
    pub fn numbers(&self) -> std::ops::RangeInclusive<u32> {
        1..=self.members.len() as u32
    }

    /// How many there are.
    pub fn size(&self) -> u32 {
        self.members.len() as u32
    }

    /// Where a member keeps its log and snapshots.
    pub fn raft_directory(directory: &Path, member: u32) -> PathBuf {
        directory.join(format!("jm{member}")).join("raft")
    }

    /// What a member wrote to its log since it was started first.
    pub fn log(&self, member: u32) -> PathBuf {
        self.directory.join(format!("jm{member}.log"))
    }

    async fn initialize(&self) -> anyhow::Result<()> {
        let clock: SharedClock = SystemClock::shared();
        let addresses: Vec<String> = self.numbers().map(network::address).collect();
        let addresses = addresses.join(",");
        let end = clock.monotonic() + START_DEADLINE;
        loop {
            let answer = flott(
                &self.binary,
                &["cluster", "init", "--insecure", "-m", &addresses],
            )
            .await?;
            if answer.code == Some(0) {
                return Ok(());
            }
            self.check_alive()?;
            ensure!(
                clock.monotonic() < end,
                "the cluster could not be made: {answer:?}"
            );
            clock.sleep(POLL_INTERVAL).await;
        }
    }

    /// Starts a member that does not run.
    pub fn start_member(&self, member: u32) -> anyhow::Result<()> {
        let mut slot = self.slot(member)?;
        ensure!(slot.is_none(), "member {member} runs already");
        let directory = self.directory.join(format!("jm{member}"));
        std::fs::create_dir_all(&directory)?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log(member))?;
        let mut net = OsString::from("--net=");
        net.push(network::namespace(member));
        let mut command = Command::new("nsenter");
        // The network is within this machine, and what is tested is not its protection.
        command
            .arg(net)
            .arg(&self.binary)
            .args(["jobmanager", "--insecure"]);
        let raft = Self::raft_directory(&self.directory, member);
        let own = [
            format!("jobmanager.rpc.address={}", network::host(member)),
            "jobmanager.rpc.port=6123".to_owned(),
            format!("high-availability.raft.node-id={member}"),
            format!("high-availability.raft.dir={}", raft.display()),
        ];
        for setting in own.iter().chain(&self.options.overrides) {
            command.arg("-D").arg(setting);
        }
        let child = command
            .envs(self.options.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start nsenter")?;
        *slot = Some(child);
        Ok(())
    }

    /// SIGKILL, and waits until it is gone. False: it does not run.
    pub async fn kill(&self, member: u32) -> anyhow::Result<bool> {
        let child = self.slot(member)?.take();
        let Some(mut child) = child else {
            return Ok(false);
        };
        if let Some(status) = child.try_wait()? {
            bail!("{}", self.ended_by_itself(member, &status.to_string()));
        }
        child.kill().await?;
        Ok(true)
    }

    /// SIGKILL, and waits until it is gone, whether or not it has ended by itself before.
    pub async fn put_down(&self, member: u32) -> anyhow::Result<()> {
        let child = self.slot(member)?.take();
        if let Some(mut child) = child {
            child.kill().await?;
        }
        Ok(())
    }

    /// Waits until a member ends by itself, which is right after its disk is gone or it was told to stop.
    pub async fn wait(&self, member: u32, deadline: Duration) -> anyhow::Result<()> {
        let child = self.slot(member)?.take();
        let Some(mut child) = child else {
            return Ok(());
        };
        let ended = tokio::time::timeout(deadline, child.wait()).await;
        ended.with_context(|| format!("member {member} did not end within {deadline:?}"))??;
        Ok(())
    }

    /// The process of a running member.
    pub fn pid(&self, member: u32) -> anyhow::Result<Option<i32>> {
        let slot = self.slot(member)?;
        let pid = slot.as_ref().and_then(Child::id);
        Ok(pid.map(i32::try_from).transpose()?)
    }

    /// Starts whoever does not run, wakes whoever is stopped, and mends the network.
    pub async fn heal(&self) -> anyhow::Result<()> {
        self.network.heal().await?;
        for member in self.numbers() {
            match self.pid(member)? {
                Some(pid) => processes::go_on(pid)?,
                None => self.start_member(member)?,
            }
        }
        Ok(())
    }

    /// Kills all.
    pub async fn put_all_down(&self) -> anyhow::Result<()> {
        for member in self.numbers() {
            self.put_down(member).await?;
        }
        Ok(())
    }

    /// Fails if a member has ended that nobody killed, or has panicked.
    pub fn check_alive(&self) -> anyhow::Result<()> {
        for member in self.numbers() {
            if let Some(child) = self.slot(member)?.as_mut()
                && let Some(status) = child.try_wait()?
            {
                bail!("{}", self.ended_by_itself(member, &status.to_string()));
            }
            let log = std::fs::read_to_string(self.log(member)).unwrap_or_default();
            if let Some(line) = log.lines().find(|line| line.contains("panicked at")) {
                bail!("member {member} panicked: {line}");
            }
        }
        Ok(())
    }

    fn ended_by_itself(&self, member: u32, status: &str) -> String {
        let log = std::fs::read_to_string(self.log(member)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n  ");
        format!("member {member} ended by itself, {status}; its log ends with\n  {tail}")
    }

    fn slot(&self, member: u32) -> anyhow::Result<std::sync::MutexGuard<'_, Option<Child>>> {
        let index = (member as usize).checked_sub(1);
        let slot = index.and_then(|index| self.members.get(index));
        let slot = slot.with_context(|| format!("there is no member {member}"))?;
        Ok(slot.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
