//! What undoes a fault, written down before the fault: so that whoever comes later can undo it, if the harness died.
//!
//! ```text
//! {"begun":{"id":7,"what":"pause jobmanager-2","expires_ms":1764161000000,"undo":{"wake":{"pid":4711,"born":88123}}}}
//! {"done":7}
//! ```
//!
//! A [`watchdog`](super::watchdog) undoes what has outlived its time, and everything when the harness is gone; `chaos heal`
//! does the same by hand. Most faults end with the harness, because proxy or switch are part of it and the processes end
//! with it; a stopped process does not, for it cannot notice, groups of the kernel's and names of network namespaces do not, and
//! nothing on machines of others does. What must stay true: nothing is woken, and no limit is lifted, but that of the very
//! process that was struck, told by when it was born; and what could not be undone stays in the file.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use flott_chaos_basis::control::Lever;
use flott_node::SharedClock;
use futures::future::join_all;
use serde::{Deserialize, Serialize};

use crate::cluster::{memory, processes};
use crate::target::control::Control;
use crate::target::netns::names;
use crate::target::remote::SHELL_BOUND;
use crate::target::remote::shell::{self, Answer};

/// The file in the directory of a run.
pub const FILE: &str = "undo.jsonl";
/// When something expires that lasts as long as the run: later than every moment at which somebody looks, but for the
/// last look.
const NEVER_MS: i64 = i64::MAX - 1;

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
    /// A group that the kernel gives little memory has no limit and nobody in it any more, and is gone.
    Memory {
        #[expect(missing_docs, reason = "its directory")]
        group: PathBuf,
        #[expect(missing_docs, reason = "where its processes were before")]
        home: PathBuf,
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
    /// This shell carries that script out, on a machine of others.
    Remote {
        #[expect(missing_docs, reason = "program and arguments")]
        shell: Vec<String>,
        #[expect(missing_docs, reason = "for its standard input")]
        script: String,
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

/// What came of healing, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Healed {
    /// What was done about each.
    pub done: Vec<String>,
    /// What is still to be undone, and why it could not be.
    pub left: Vec<String>,
}

/// Undoes everything pending that expired before `before_ms`.
pub async fn heal(journal: &Path, before_ms: i64) -> anyhow::Result<Healed> {
    let mut healed = Healed::default();
    let mut expired = pending(journal)?;
    expired.retain(|entry| entry.expires_ms < before_ms);
    // Last what may fail: a process that is stopped needs nothing but a signal.
    let may_fail =
        |undo: &Undo| matches!(undo, Undo::Memory { .. } | Undo::RemoveNamespaces { .. });
    expired.sort_by_key(|entry| may_fail(&entry.undo));
    // Others' machines may not answer; each is asked at once with the others, not after them.
    let (remote, own): (Vec<_>, Vec<_>) = expired
        .into_iter()
        .partition(|entry| matches!(entry.undo, Undo::Remote { .. }));
    for (entry, answer) in join_all(remote.into_iter().map(ask)).await {
        match answer {
            Answer::Done(said) => {
                healed.done.push(format!("{}: {}", entry.what, said.how));
                note(journal, entry.id)?;
            }
            Answer::Skipped(why) | Answer::Unclear(why) => {
                healed.left.push(format!("{}: {why}", entry.what));
            }
        }
    }
    for entry in own {
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
            Undo::Memory { group, home } if group.exists() => {
                memory::dissolve(&group, &home)?;
                "may take memory again"
            }
            Undo::Memory { .. } => "its group is gone",
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
            Undo::EndsWithHarness | Undo::Remote { .. } => "ended with the run",
        };
        healed.done.push(format!("{}: {what}", entry.what));
        note(journal, entry.id)?;
    }
    Ok(healed)
}

async fn ask(entry: Entry) -> (Entry, Answer) {
    let answer = match &entry.undo {
        Undo::Remote { shell, script } => shell::run(shell, script, SHELL_BOUND).await,
        _ => unreachable!("only those of others are asked"),
    };
    (entry, answer)
}

/// Writes down that it is undone, beside whoever else writes.
fn note(journal: &Path, id: u64) -> anyhow::Result<()> {
    let mut file = OpenOptions::new().append(true).open(journal)?;
    write(&mut file, &Line::Done(id))
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

#[cfg(test)]
mod tests;
