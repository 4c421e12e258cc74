//! The process that cleans up behind a run: what has outlived its time, and everything when the harness is gone.

use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use flott_node::SharedClock;
use tokio::process::{Child, ChildStdin, Command};

use super::undo::heal;

/// After its time to live, a fault is left to the harness for so long.
const GRACE: Duration = Duration::from_secs(15);
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often machines of others are asked once more at the end, if they do not answer.
const TRIES_MAX: u32 = 10;
/// Between two of these.
const TRY_EVERY: Duration = Duration::from_secs(5);

/// Starts the watchdog of a run: this program, as `chaos watchdog`. It ends when its standard input, held here, closes.
pub fn start(journal: &Path) -> anyhow::Result<(Child, ChildStdin)> {
    let program = std::env::current_exe().context("this program has no path")?;
    let mut child = Command::new(program)
        .arg("watchdog")
        .arg(journal)
        // So that Ctrl-C ends the harness, and not whoever is to clean up behind it.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start the watchdog")?;
    let lifeline = child.stdin.take().context("standard input was piped")?;
    Ok((child, lifeline))
}

/// The watchdog itself: until standard input closes, undoes what has outlived its time; then everything. Machines of others that
/// do not answer are asked a few times more, and are left to themselves, who undo it too.
pub async fn watch(journal: &Path, clock: &SharedClock) -> anyhow::Result<()> {
    let (sender, mut closed) = tokio::sync::oneshot::channel::<()>();
    let wait = move || {
        let mut buffer = [0; 64];
        while std::io::stdin()
            .lock()
            .read(&mut buffer)
            .is_ok_and(|read| read > 0)
        {}
        drop(sender);
    };
    std::thread::Builder::new()
        .name("harness-watch".to_owned())
        .spawn(wait)?;
    loop {
        tokio::select! {
            _ = &mut closed => break,
            () = clock.sleep(LOOK_EVERY) => {
                heal(journal, clock.now_ms() - GRACE.as_millis() as i64).await?;
            }
        }
    }
    for _ in 0..TRIES_MAX {
        if heal(journal, i64::MAX).await?.left.is_empty() {
            break;
        }
        clock.sleep(TRY_EVERY).await;
    }
    Ok(())
}
