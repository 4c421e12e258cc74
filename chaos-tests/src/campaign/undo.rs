//! What undoes a fault, written down before the fault: so that whoever comes later can undo it, if the harness died.
//!
//! ```text
//! {"begun":{"id":7,"what":"pause jobmanager-2","expires_ms":1764161000000,"undo":{"wake":{"pid":4711,"born":88123}}}}
//! {"done":7}
//! ```
//!
//! A watchdog process ([`watch`]) undoes what has outlived its time, and everything when the harness is gone; `chaos heal`
//! does the same by hand. Most faults end with the harness, because proxy or switch are part of it and the processes end
//! with it; a stopped process does not, for it cannot notice, and names of network namespaces do not. What must stay true:
//! nothing is woken, and no limit is lifted, but that of the very process that was struck, told by when it was born.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use flott_chaos_basis::control::Lever;
use flott_node::SharedClock;
use serde::{Deserialize, Serialize};
use tokio::process::{Child, ChildStdin, Command};

use crate::cluster::processes;
use crate::target::control::Control;
use crate::target::netns::names;

/// The file in the directory of a run.
pub const FILE: &str = "undo.jsonl";
/// After its time to live, a fault is left to the harness for so long.
const GRACE: Duration = Duration::from_secs(15);
/// When something expires that lasts as long as the run: later than every moment at which somebody looks, but for the
/// last look.
const NEVER_MS: i64 = i64::MAX - 1;
/// How often the watchdog looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How a fault is undone by somebody who has only this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undo {
    /// SIGCONT to the process that was born then, in ticks since the machine started.
    Wake {
        #[expect(missing_docs, reason = "the process")]
        pid: i32,
        #[expect(missing_docs, reason = "see above")]
        born: u64,
    },
    /// The process that was born then may open files as before. None: without a limit.
    Files {
        #[expect(missing_docs, reason = "the process")]
        pid: i32,
        #[expect(missing_docs, reason = "see above")]
        born: u64,
        #[expect(missing_docs, reason = "the limit that counts")]
        soft: Option<u64>,
        #[expect(missing_docs, reason = "the limit of the limit")]
        hard: Option<u64>,
    },
    /// A lever of a process's page is off. It does nothing any more after its time anyway.
    Release {
        #[expect(missing_docs, reason = "the file")]
        page: PathBuf,
        /// Its number among [`Lever::ALL`].
        lever: usize,
    },
    /// The network namespaces that the harness has made are removed. Until it ends, it needs them.
    RemoveNamespaces {
        #[expect(missing_docs, reason = "the harness")]
        pid: i32,
        #[expect(missing_docs, reason = "see above")]
        born: u64,
    },
    /// The harness's end undoes it.
    EndsWithHarness,
}

/// A fault that is, or may be, under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Unique in the file.
    pub id: u64,
    /// In words.
    pub what: String,
    /// Milliseconds since 1970 after which it should be undone.
    pub expires_ms: i64,
    #[expect(missing_docs, reason = "see there")]
    pub undo: Undo,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Begun(Entry),
    Done(u64),
}

/// The file of a run, open for writing.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    open: Mutex<(File, u64)>,
    clock: SharedClock,
}

impl Journal {
    /// A new file in `directory`.
    pub fn create(directory: &Path, clock: SharedClock) -> anyhow::Result<Self> {
        let path = directory.join(FILE);
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self {
            path,
            open: Mutex::new((file, 0)),
            clock,
        })
    }

    #[expect(missing_docs, reason = "where the file is")]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// On disk when this returns; then the fault may be applied. Its number.
    pub fn begin(&self, what: &str, lasts: Duration, undo: Undo) -> anyhow::Result<u64> {
        self.begin_until(what, self.clock.now_ms() + lasts.as_millis() as i64, undo)
    }

    /// The same for what lasts as long as the run, however long that is.
    pub fn begin_for_the_run(&self, what: &str, undo: Undo) -> anyhow::Result<u64> {
        self.begin_until(what, NEVER_MS, undo)
    }

    fn begin_until(&self, what: &str, expires_ms: i64, undo: Undo) -> anyhow::Result<u64> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.1 += 1;
        let entry = Entry {
            id: open.1,
            what: what.to_owned(),
            expires_ms,
            undo,
        };
        let id = entry.id;
        write(&mut open.0, &Line::Begun(entry))?;
        Ok(id)
    }

    /// The fault is undone.
    pub fn done(&self, id: u64) -> anyhow::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        write(&mut open.0, &Line::Done(id))
    }
}

fn write(file: &mut File, line: &Line) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    file.write_all(&text)?;
    Ok(file.sync_data()?)
}

/// What was begun and is not known to be undone.
pub fn pending(journal: &Path) -> anyhow::Result<Vec<Entry>> {
    let text = fs::read_to_string(journal)
        .with_context(|| format!("cannot read {}", journal.display()))?;
    let mut pending = BTreeMap::new();
    for line in text.lines() {
        // The last line may be torn: then its fault was not applied yet.
        match serde_json::from_str(line) {
            Ok(Line::Begun(entry)) => drop(pending.insert(entry.id, entry)),
            Ok(Line::Done(id)) => drop(pending.remove(&id)),
            Err(_) => {}
        }
    }
    Ok(pending.into_values().collect())
}

/// Undoes everything pending that expired before `before_ms`; what was done about each.
pub fn heal(journal: &Path, before_ms: i64) -> anyhow::Result<Vec<String>> {
    let mut done = Vec::new();
    let mut expired = pending(journal)?;
    expired.retain(|entry| entry.expires_ms < before_ms);
    // Last what may fail: a process that is stopped needs nothing but a signal.
    expired.sort_by_key(|entry| matches!(entry.undo, Undo::RemoveNamespaces { .. }));
    for entry in expired {
        let what = match entry.undo {
            Undo::Wake { pid, born } if processes::born(pid) == Some(born) => {
                processes::go_on(pid)?;
                "woken"
            }
            Undo::Files {
                pid,
                born,
                soft,
                hard,
            } if processes::born(pid) == Some(born) => {
                processes::limit_files(pid, soft, hard)?;
                "may open files again"
            }
            Undo::Wake { .. } | Undo::Files { .. } => "its process is gone",
            Undo::Release { page, lever } => match Lever::ALL.get(lever) {
                Some(lever) if page.exists() => {
                    Control::at(&page).release(*lever)?;
                    "undone"
                }
                _ => "its page is gone",
            },
            Undo::RemoveNamespaces { pid, born } if is_another(pid, born) => {
                "left alone: another process has the number of the one that made them"
            }
            Undo::RemoveNamespaces { pid, .. } => match names::remove_all(pid.cast_unsigned())? {
                0 => "there were none",
                _ => "removed",
            },
            Undo::EndsWithHarness => "ended with the run",
        };
        done.push(format!("{}: {what}", entry.what));
        let mut file = OpenOptions::new().append(true).open(journal)?;
        write(&mut file, &Line::Done(entry.id))?;
    }
    Ok(done)
}

/// The harness that still needs what would be removed; None if it is gone.
pub fn harness(journal: &Path) -> anyhow::Result<Option<i32>> {
    let needs = |entry: Entry| match entry.undo {
        Undo::RemoveNamespaces { pid, born } => {
            (processes::is_alive(pid) && !is_another(pid, born)).then_some(pid)
        }
        _ => None,
    };
    Ok(pending(journal)?.into_iter().find_map(needs))
}

/// Whether that number is another process's by now.
fn is_another(pid: i32, born: u64) -> bool {
    processes::born(pid).is_some_and(|now| now != born)
}

/// Starts the watchdog of a run: this program, as `chaos watchdog`. It ends when its standard input, held here, closes.
pub fn watchdog(journal: &Path) -> anyhow::Result<(Child, ChildStdin)> {
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

/// The watchdog itself: until standard input closes, undoes what has outlived its time; then everything.
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
                heal(journal, clock.now_ms() - GRACE.as_millis() as i64)?;
            }
        }
    }
    heal(journal, i64::MAX).map(drop)
}

#[cfg(test)]
mod tests {
    use flott_node::SystemClock;

    use super::*;

    #[test]
    fn what_is_begun_is_pending_until_it_is_done_or_healed() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::create(directory.path(), SystemClock::shared()).unwrap();
        let begin = |what| {
            journal
                .begin(what, Duration::from_secs(5), Undo::EndsWithHarness)
                .unwrap()
        };
        let first = begin("a");
        begin("b");
        journal.done(first).unwrap();
        // The harness died in the middle of a line.
        let mut file = OpenOptions::new()
            .append(true)
            .open(journal.path())
            .unwrap();
        file.write_all(b"{\"beg").unwrap();
        let open = pending(journal.path()).unwrap();
        assert_eq!(
            open.iter()
                .map(|entry| entry.what.as_str())
                .collect::<Vec<_>>(),
            ["b"]
        );
        file.write_all(b"\n").unwrap();

        assert!(
            heal(journal.path(), 0).unwrap().is_empty(),
            "it has not expired"
        );
        assert_eq!(heal(journal.path(), i64::MAX).unwrap().len(), 1);
        assert!(pending(journal.path()).unwrap().is_empty());
        assert!(
            heal(journal.path(), i64::MAX).unwrap().is_empty(),
            "nothing twice"
        );
    }

    #[test]
    fn a_lever_is_released_and_a_page_that_is_gone_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::create(directory.path(), SystemClock::shared()).unwrap();
        let page = Control::create(&directory.path().join("page"), directory.path()).unwrap();
        let gone = directory.path().join("gone");
        for (path, lever) in [(page.path(), Lever::Full), (gone.as_path(), Lever::Hung)] {
            let page = path.to_owned();
            let lever = lever as usize;
            journal
                .begin(
                    "disk",
                    Duration::from_secs(5),
                    Undo::Release { page, lever },
                )
                .unwrap();
        }
        page.press(Lever::Full, i64::MAX, 0, 1).unwrap();
        let done = heal(journal.path(), i64::MAX).unwrap();
        assert_eq!(done, ["disk: undone", "disk: its page is gone"]);
        assert!(!page.is_on(Lever::Full).unwrap());
    }

    #[test]
    fn what_lasts_as_long_as_the_run_is_undone_only_when_that_is_over() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::create(directory.path(), SystemClock::shared()).unwrap();
        // No process has this number, so none has namespaces.
        let (pid, born) = (i32::MAX, 1);
        let undo = Undo::RemoveNamespaces { pid, born };
        journal.begin_for_the_run("namespaces", undo).unwrap();
        let far_off_ms = SystemClock::shared().now_ms() + 1_000_000_000_000;
        assert!(heal(journal.path(), far_off_ms).unwrap().is_empty());
        assert_eq!(harness(journal.path()).unwrap(), None);
        let done = heal(journal.path(), i64::MAX).unwrap();
        assert_eq!(done, ["namespaces: there were none"]);

        let own = i32::try_from(std::process::id()).unwrap();
        let born = processes::born(own).unwrap();
        let begin = |born| {
            let undo = Undo::RemoveNamespaces { pid: own, born };
            journal.begin_for_the_run("namespaces", undo).unwrap();
        };
        begin(born + 1);
        assert_eq!(harness(journal.path()).unwrap(), None);
        let done = heal(journal.path(), i64::MAX).unwrap();
        assert!(done[0].contains("left alone"), "{done:?}");
        begin(born);
        assert_eq!(harness(journal.path()).unwrap(), Some(own));
    }

    #[tokio::test]
    async fn a_stopped_process_is_woken_and_its_successor_is_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::create(directory.path(), SystemClock::shared()).unwrap();
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id().unwrap()).unwrap();
        let born = processes::born(pid).unwrap();
        for born in [born, born + 1] {
            journal
                .begin(
                    "pause cat",
                    Duration::from_secs(5),
                    Undo::Wake { pid, born },
                )
                .unwrap();
        }
        processes::stop(pid).unwrap();
        let done = heal(journal.path(), i64::MAX).unwrap();
        assert_eq!(done, ["pause cat: woken", "pause cat: its process is gone"]);
        // It is awake: it notices the end of its input.
        drop(child.stdin.take());
        assert!(child.wait().await.unwrap().success());
    }
}
