//! The library that changes clocks and disks, in a process of its own that does what it is told: what the page says
//! happens, to what it says, for as long as it says; and nothing else.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use flott_chaos_basis::control::{ALWAYS, Lever};
use flott_chaos_tests::cluster::beside;
use flott_chaos_tests::target::control::{Control, library};
use flott_node::{SharedClock, SystemClock};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// For an answer.
const ANSWER_BOUND: Duration = Duration::from_secs(60);
const HOUR_MS: i64 = 3_600_000;
/// ENOSPC and EIO of Linux.
const NO_ROOM: &str = "28";
const BROKEN: &str = "5";

/// The process, a directory on the disk that its page is about, and one that is not.
struct Probe {
    _child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    control: Control,
    meant: PathBuf,
    other: PathBuf,
    clock: SharedClock,
}

impl Probe {
    fn start(directory: &Path) -> anyhow::Result<Self> {
        let (meant, other) = (directory.join("meant"), directory.join("meant-not"));
        for directory in [&meant, &other] {
            std::fs::create_dir(directory)?;
            std::fs::write(directory.join("file"), "content")?;
        }
        let control = Control::create(&directory.join("page"), &meant)?;
        let library = library(None).map_err(anyhow::Error::msg)?;
        let program = beside("flott-chaos-probe")?;
        let mut child = Command::new(&program)
            .envs(control.environment(&library))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| {
                format!(
                    "cannot start {}: run `cargo build -p flott-chaos-preload` first",
                    program.display()
                )
            })?;
        let stdout = child.stdout.take().context("it was piped")?;
        Ok(Self {
            stdin: child.stdin.take().context("it was piped")?,
            stdout: BufReader::new(stdout).lines(),
            _child: child,
            control,
            meant,
            other,
            clock: SystemClock::shared(),
        })
    }

    async fn ask(&mut self, what: impl Display) -> anyhow::Result<String> {
        self.stdin.write_all(format!("{what}\n").as_bytes()).await?;
        let answer = tokio::time::timeout(ANSWER_BOUND, self.stdout.next_line()).await;
        let answer = answer.with_context(|| format!("no answer to {what}"))??;
        answer.context("it has ended")
    }

    /// What comes of it on the disk that is meant, and on the other.
    async fn both(&mut self, verb: &str) -> anyhow::Result<[String; 2]> {
        let [meant, other] = [&self.meant, &self.other].map(|at| at.join("file"));
        Ok([
            self.ask(format!("{verb} {}", meant.display())).await?,
            self.ask(format!("{verb} {}", other.display())).await?,
        ])
    }

    /// Presses a lever for an hour.
    fn press(&self, lever: Lever, amount: u64, left: u64) -> anyhow::Result<()> {
        self.control
            .press(lever, self.clock.now_ms() + HOUR_MS, amount, left)
    }

    /// Its wall clock against ours, and its monotonic clock, milliseconds.
    async fn clocks(&mut self) -> anyhow::Result<(i64, i64)> {
        let before = self.clock.now_ms();
        let answer = self.ask("clock").await?;
        let (wall, monotonic) = answer.split_once(' ').context("two numbers")?;
        Ok((wall.parse::<i64>()? - before, monotonic.parse()?))
    }
}

#[tokio::test]
async fn the_wall_clock_jumps_to_either_side_and_the_monotonic_clock_does_not() -> anyhow::Result<()>
{
    let directory = tempfile::tempdir()?;
    let mut probe = Probe::start(directory.path())?;
    let hour_ns = HOUR_MS * 1_000_000;
    let near = |off: i64, expected: i64| (off - expected).abs() < HOUR_MS / 2;
    let mut monotonic = Vec::new();
    for (offset, expected) in [(0, 0), (hour_ns, HOUR_MS), (-hour_ns, -HOUR_MS), (0, 0)] {
        probe.control.release(Lever::Clock)?;
        if offset != 0 {
            probe.press(Lever::Clock, offset.cast_unsigned(), ALWAYS)?;
        }
        let (off, at) = probe.clocks().await?;
        ensure!(near(off, expected), "off by {off} instead of {expected}");
        monotonic.push(at);
    }
    ensure!(monotonic.is_sorted(), "{monotonic:?}");
    ensure!(monotonic[3] < HOUR_MS, "{monotonic:?}");
    let pid = probe._child.id().context("it runs")?;
    ensure!(u32::try_from(probe.control.process()?)? == pid);
    ensure!(probe.control.times(Lever::Clock)? > 0);
    // Its time is over: nobody has to release it.
    probe
        .control
        .press(Lever::Clock, 1, hour_ns.cast_unsigned(), ALWAYS)?;
    let (off, _) = probe.clocks().await?;
    ensure!(near(off, 0), "off by {off}");
    Ok(())
}

#[tokio::test]
async fn writes_find_no_room_on_the_disk_that_is_meant_and_syncs_go_on() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut probe = Probe::start(directory.path())?;
    for is_full in [false, true, false] {
        if is_full {
            probe.press(Lever::Full, 0, ALWAYS)?;
        } else {
            probe.control.release(Lever::Full)?;
        }
        let expected = if is_full { NO_ROOM } else { "ok" };
        for verb in ["write", "at", "vectored"] {
            let said = probe.both(verb).await?;
            ensure!(said == [expected, "ok"], "{verb}: {said:?}");
        }
        let said = probe.both("sync").await?;
        ensure!(said == ["ok", "ok"], "{said:?}");
        let (from, to) = (probe.other.join("file"), probe.meant.join("copy"));
        let copy = format!("copy {} {}", from.display(), to.display());
        let said = probe.ask(copy).await?;
        ensure!(said == expected, "copy: {said}");
    }
    ensure!(probe.control.times(Lever::Full)? == 4);
    Ok(())
}

#[tokio::test]
async fn a_sync_fails_once_or_always_on_the_disk_that_is_meant_and_writes_go_on()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut probe = Probe::start(directory.path())?;
    probe.press(Lever::SyncError, 1_000, 1)?;
    for expected in [BROKEN, "ok", "ok"] {
        let said = probe.both("sync").await?;
        ensure!(said == [expected, "ok"], "once: {said:?}");
    }
    probe.control.release(Lever::SyncError)?;
    probe.press(Lever::SyncError, 1_000, ALWAYS)?;
    for _ in 0..3 {
        let said = probe.both("sync").await?;
        ensure!(said == [BROKEN, "ok"], "always: {said:?}");
        let said = probe.both("write").await?;
        ensure!(said == ["ok", "ok"], "{said:?}");
    }
    probe.control.release(Lever::SyncError)?;
    let said = probe.both("sync").await?;
    ensure!(said == ["ok", "ok"], "{said:?}");
    // Half of them: with so many syncs, neither none nor all.
    probe.press(Lever::SyncError, 500, ALWAYS)?;
    let mut failed = 0;
    for _ in 0..100 {
        failed += u32::from(probe.both("sync").await?[0] == BROKEN);
    }
    ensure!((1..100).contains(&failed), "{failed} of 100");
    Ok(())
}

#[tokio::test]
async fn a_slow_disk_takes_its_time_and_a_hung_one_is_well_when_its_time_is_over()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut probe = Probe::start(directory.path())?;
    let clock = probe.clock.clone();
    probe.press(Lever::Slow, 300, 1)?;
    let begin = clock.monotonic();
    ensure!(probe.both("sync").await? == ["ok", "ok"]);
    ensure!(clock.monotonic() - begin >= Duration::from_millis(300));
    // Nobody releases it, as if the harness were dead.
    let until_ms = clock.now_ms() + 700;
    probe.control.press(Lever::Hung, until_ms, 0, ALWAYS)?;
    ensure!(probe.both("sync").await? == ["ok", "ok"]);
    ensure!(clock.now_ms() >= until_ms, "it came back too soon");
    // Or somebody does.
    probe.press(Lever::Hung, 0, ALWAYS)?;
    let hung = probe.control.times(Lever::Hung)?;
    let control = probe.control.clone();
    let release = async {
        while control.times(Lever::Hung)? == hung {
            clock.sleep(Duration::from_millis(10)).await;
        }
        control.release(Lever::Hung)
    };
    let (said, released) = tokio::join!(probe.both("sync"), release);
    released?;
    ensure!(said? == ["ok", "ok"]);
    Ok(())
}

#[tokio::test]
async fn a_page_that_is_none_changes_nothing() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let library = library(None).map_err(anyhow::Error::msg)?;
    for (name, content) in [
        ("absent", None),
        ("short", Some(7)),
        ("unknown", Some(4096)),
    ] {
        let page = directory.path().join(name);
        if let Some(bytes) = content {
            std::fs::write(&page, vec![1; bytes])?;
        }
        let file = directory.path().join("file");
        std::fs::write(&file, "")?;
        let mut child = Command::new(beside("flott-chaos-probe")?)
            .envs(Control::at(&page).environment(&library))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut stdin = child.stdin.take().context("it was piped")?;
        let asked = format!("sync {0}\nwrite {0}\n", file.display());
        stdin.write_all(asked.as_bytes()).await?;
        drop(stdin);
        let output = child.wait_with_output().await?;
        let said = String::from_utf8(output.stdout)?;
        ensure!(said == "ok\nok\n", "{name}: {said}");
    }
    Ok(())
}
