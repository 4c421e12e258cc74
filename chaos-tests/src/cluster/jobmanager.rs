//! One JobManager beside those of `flott local`: what a member is replaced by, or one on a data directory that is there.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use tokio::process::{Child, ChildStdin, Command};

use super::flott_binary;
use super::ports::free_port;

/// A JobManager. Ends with its handle.
#[derive(Debug)]
pub struct JobManager {
    /// Where it listens.
    pub address: String,
    log: PathBuf,
    child: Child,
    /// Its closing ends the process, whatever becomes of this one.
    _lifeline: ChildStdin,
}

impl JobManager {
    /// Starts a fresh one, which belongs to no cluster yet, with its data and its log in `directory`, which must be its own.
    /// `settings` are `key=value`.
    pub fn start(directory: &Path, settings: &[String]) -> anyhow::Result<Self> {
        Self::run(directory, &directory.join("raft"), free_port()?, settings)
    }

    /// Starts one on the data directory `raft`, at the address where it was reached before. Its log goes into `directory`.
    pub fn start_on(
        raft: &Path,
        address: &str,
        directory: &Path,
        settings: &[String],
    ) -> anyhow::Result<Self> {
        let port = address.rsplit_once(':').context("no port")?.1.parse()?;
        Self::run(directory, raft, port, settings)
    }

    fn run(directory: &Path, raft: &Path, port: u16, settings: &[String]) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let path = directory.join("flott.log");
        let log = OpenOptions::new().create(true).append(true).open(&path)?;
        let own = [
            format!("jobmanager.rpc.port={port}"),
            format!("high-availability.raft.dir={}", raft.display()),
        ];
        let mut command = Command::new(flott_binary()?);
        command.args(["jobmanager", "--exit-with-stdin"]);
        for setting in own.iter().chain(settings) {
            command.args(["-D", setting]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a JobManager")?;
        let lifeline = child.stdin.take().context("standard input was piped")?;
        Ok(Self {
            address: format!("127.0.0.1:{port}"),
            log: path,
            child,
            _lifeline: lifeline,
        })
    }

    /// Waits until it ends by itself; what it has logged.
    pub async fn ended(&mut self, deadline: Duration) -> anyhow::Result<String> {
        let ended = tokio::time::timeout(deadline, self.child.wait()).await;
        ended.context("the JobManager goes on")??;
        Ok(std::fs::read_to_string(&self.log)?)
    }

    /// The operating system's id of the process.
    pub fn pid(&self) -> anyhow::Result<i32> {
        let pid = self.child.id().context("the JobManager has ended")?;
        Ok(i32::try_from(pid)?)
    }
}
