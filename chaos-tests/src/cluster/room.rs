//! A closed room on this machine: a process with network, mount and process namespaces of its own.
//!
//! ```text
//! chaos …  ── unshare ──►  chaos … --in-room   (process 1 of the room; clients run here, on the bridge)
//!  waits, passes the end on    ├── member 1, in network namespace jm1
//!                              ├── member 2, in network namespace jm2   …
//! ```
//!
//! Whatever is broken in there – processes stopped, networks cut, disks without power – the kernel takes it all away when
//! process 1 of the room ends, and process 1 ends when the one outside does, however that died: by a panic, a signal, or
//! SIGKILL. So nothing has to be undone for the machine's sake, two runs do not see each other, and no address or device
//! of the machine can be reached by mistake.
//!
//! Root is not needed where the system lets users make namespaces; loop devices need it.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, bail, ensure};
use rustix::process::geteuid;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use super::probe::lacking;

/// The argument by which this program knows that it is inside.
pub const INSIDE: &str = "--in-room";

/// What `unshare` is told.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--kill-child=KILL",
        "--mount-proc",
    ]);
    if !geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.kill_on_drop(true);
    command
}

/// What this machine lacks for a room; `None` if it has everything.
pub async fn missing() -> Option<String> {
    // `nft` says what the kernel has only in the namespace where it is asked.
    let script = "ip link add br0 type bridge && nft add table bridge probe && type nsenter perl";
    let mut probe = unshare();
    probe.args(["sh", "-c", script]);
    lacking(&mut probe, |why| {
        format!("{why} (needed: root or user namespaces, ip, nft, nsenter, perl)")
    })
    .await
}

/// Runs this program with `arguments` in a room, to its end or until this process is told to end.
pub async fn run(arguments: &[OsString]) -> anyhow::Result<ExitStatus> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let program = std::env::current_exe().context("this program has no path")?;
    let mut room = unshare()
        .arg(program)
        .args(arguments)
        .arg(INSIDE)
        // Held open for as long as this process lives.
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot start unshare")?;
    // Taken out, because waiting for a child closes the pipe that is left in it.
    let _lifeline = room.stdin.take();
    tokio::select! {
        ended = room.wait() => Ok(ended?),
        _ = terminate.recv() => end(room).await,
        _ = interrupt.recv() => end(room).await,
    }
}

async fn end(mut room: tokio::process::Child) -> anyhow::Result<ExitStatus> {
    room.kill().await?;
    bail!("told to end; everything in the room was killed")
}

/// Furnishes the room from within: a place for network namespaces, and loopback.
pub async fn furnish() -> anyhow::Result<()> {
    end_with_stdin()?;
    // Over the machine's /run, for this room only: names of network namespaces are files there.
    command("mount", ["-t", "tmpfs", "none", "/run"]).await?;
    std::fs::create_dir("/run/netns")?;
    command("ip", ["link", "set", "lo", "up"]).await
}

/// Ends this process, and with it the room, when the one outside is gone.
fn end_with_stdin() -> anyhow::Result<()> {
    let watch = || {
        let mut buffer = [0; 64];
        while std::io::stdin()
            .lock()
            .read(&mut buffer)
            .is_ok_and(|read| read > 0)
        {}
        std::process::exit(1);
    };
    std::thread::Builder::new()
        .name("outside-watch".to_owned())
        .spawn(watch)?;
    Ok(())
}

/// Runs a command that must succeed.
pub async fn command<A: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = A>,
) -> anyhow::Result<()> {
    feed(program, arguments, "").await
}

/// Runs a command that must succeed, with `input` as its standard input.
pub async fn feed<A: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = A>,
    input: &str,
) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let mut stdin = child.stdin.take().context("standard input was piped")?;
    // One that does not read its input says by its exit code whether it is content.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await?;
    ensure!(
        output.status.success(),
        "{program} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Whether this is process 1 of a room: what is done in there must not be done to the machine.
pub fn is_inside() -> bool {
    std::process::id() == 1 && Path::new("/run/netns").is_dir()
}
