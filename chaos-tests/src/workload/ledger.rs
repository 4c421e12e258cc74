//! Writers that write each key once, and remember what they were promised. At the end everything is read back.
//!
//! This finds a lost write wherever it was lost; [`super::registers`] looks harder at fewer keys.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use flott_node::SharedClock;
use flott_proto::wire::kv_response;
use tokio_util::sync::CancellationToken;

use super::client::{self, Attempt, Connection};
use crate::cluster::network;

/// Begins the name of every key.
const PREFIX: &str = "ledger/";
/// Bytes of a value: a job's record, say.
const VALUE_BYTES: usize = 256;
/// Before the next member is asked, when one did not do it.
const RETRY_PAUSE: Duration = Duration::from_millis(3);
/// Before a part of the read-back is tried again.
const READ_PAUSE: Duration = Duration::from_millis(50);
/// For an answer to a part of the read-back.
const READ_DEADLINE: Duration = Duration::from_secs(5);

/// An acknowledgement, as the measurements need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// When the request was sent.
    pub called: Duration,
    /// When the answer came.
    pub at: Duration,
    /// Who gave it.
    pub member: u32,
}

/// What all writers were promised.
#[derive(Debug)]
pub struct Ledger {
    members: u32,
    clock: SharedClock,
    entries: Mutex<Entries>,
    /// The member that acknowledged last; 0: none.
    leader: AtomicU32,
    acknowledged: AtomicU64,
    /// The pause of a writer after each acknowledgement.
    pace: Duration,
    /// For an answer.
    deadline: Duration,
}

#[derive(Debug, Default)]
struct Entries {
    acknowledged: BTreeSet<String>,
    /// Sent, and not heard of yet, or never: there or not.
    unknown: BTreeSet<String>,
    /// Acknowledgements since the last [`Ledger::take_recent`].
    recent: Vec<Acknowledged>,
}

/// What became of the ledger's promises.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Audit {
    /// Writes that were acknowledged.
    pub acknowledged: usize,
    /// Writes of unknown outcome, and how many of them are there.
    pub unknown: usize,
    #[expect(missing_docs, reason = "see above")]
    pub unknown_found: usize,
    /// Acknowledged, and not there: the first few, and how many.
    pub lost: Vec<String>,
    #[expect(missing_docs, reason = "see above")]
    pub lost_count: usize,
    /// There with another value, or never written at all.
    pub wrong: Vec<String>,
}

impl Audit {
    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.lost_count == 0 && self.wrong.is_empty()
    }
}

impl Ledger {
    /// An empty ledger on a group of `members`.
    pub fn new(members: u32, clock: SharedClock, pace: Duration, deadline: Duration) -> Arc<Self> {
        Arc::new(Self {
            members,
            clock,
            entries: Mutex::default(),
            leader: AtomicU32::new(0),
            acknowledged: AtomicU64::new(0),
            pace,
            deadline,
        })
    }

    /// The member that acknowledged last.
    pub fn leader(&self) -> Option<u32> {
        Some(self.leader.load(Ordering::Relaxed)).filter(|leader| *leader != 0)
    }

    /// Acknowledged writes until now.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Acknowledgements since the last call, by time.
    pub fn take_recent(&self) -> Vec<Acknowledged> {
        let mut recent = std::mem::take(&mut self.entries().recent);
        recent.sort_by_key(|acknowledged| acknowledged.at);
        recent
    }

    /// Writes until `stop`. Two writers must have different numbers, in all runs on one group.
    pub async fn write(self: Arc<Self>, writer: u32, stop: CancellationToken) {
        let mut connections: Vec<_> = (1..=self.members).map(Connection::to).collect();
        let mut target = writer % self.members;
        let mut number = 0_u64;
        while !stop.is_cancelled() {
            number += 1;
            let key = format!("{PREFIX}{writer:04}/{number:010}");
            let called = self.clock.monotonic();
            self.entries().unknown.insert(key.clone());
            let attempt = connections[target as usize]
                .attempt(client::put(&key, &value_of(&key)), "", self.deadline)
                .await;
            let next = (target + 1) % self.members;
            match attempt {
                Attempt::Done {
                    member,
                    outcome: kv_response::Outcome::Put(_),
                } => {
                    let at = self.clock.monotonic();
                    self.acknowledge(key, Acknowledged { called, at, member });
                    if !self.pace.is_zero() {
                        self.clock.sleep(self.pace).await;
                    }
                    continue;
                }
                Attempt::Done { .. } | Attempt::Unknown(_) => target = next,
                Attempt::NotSent => {
                    self.entries().unknown.remove(&key);
                    target = next;
                }
                // Not back to the one that was just asked, whoever says so.
                Attempt::Refused { leader, .. } => {
                    self.entries().unknown.remove(&key);
                    let at = |member: &u32| leader.as_ref() == Some(&network::address(*member + 1));
                    let named = (0..self.members).find(at);
                    target = named.filter(|named| *named != target).unwrap_or(next);
                }
            }
            self.clock.sleep(RETRY_PAUSE).await;
        }
    }

    fn acknowledge(&self, key: String, acknowledged: Acknowledged) {
        let mut entries = self.entries();
        entries.unknown.remove(&key);
        entries.acknowledged.insert(key);
        entries.recent.push(acknowledged);
        self.leader.store(acknowledged.member, Ordering::Relaxed);
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads everything back through the group, within `deadline`, and compares. Writers may go on meanwhile: what is
    /// acknowledged before has to be there, what is sent before the end may be.
    pub async fn audit(&self, deadline: Duration) -> anyhow::Result<Audit> {
        let acknowledged = self.entries().acknowledged.clone();
        let found = self.read_back(deadline).await?;
        let entries = self.entries();
        let later = entries.acknowledged.difference(&acknowledged);
        let excused = entries.unknown.iter().chain(later).cloned().collect();
        Ok(compare(&acknowledged, &excused, &found))
    }

    async fn read_back(&self, deadline: Duration) -> anyhow::Result<BTreeMap<String, String>> {
        let end = self.clock.monotonic() + deadline;
        let mut connections: Vec<_> = (1..=self.members).map(Connection::to).collect();
        let mut found = BTreeMap::new();
        let mut from = PREFIX.to_owned();
        let mut target = self.leader().unwrap_or(1) as usize - 1;
        loop {
            let keys = client::prefix(&from, PREFIX);
            let attempt = connections[target]
                .attempt(client::range(keys, 0, false), "", READ_DEADLINE)
                .await;
            if let Attempt::Done {
                outcome: kv_response::Outcome::Range(range),
                ..
            } = attempt
            {
                for entry in range.entries {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    from = text(&entry.key) + "\0";
                    found.insert(text(&entry.key), text(&entry.value));
                }
                if !range.more {
                    return Ok(found);
                }
            } else if self.clock.monotonic() > end {
                bail!("the ledger could not be read back in {deadline:?}; last: {attempt:?}");
            } else {
                target = (target + 1) % connections.len();
                self.clock.sleep(READ_PAUSE).await;
            }
        }
    }

    /// Waits until `count` more writes are acknowledged.
    pub async fn until_acknowledged(&self, count: u64, deadline: Duration) -> anyhow::Result<()> {
        let wanted = self.acknowledged() + count;
        let waited = async {
            while self.acknowledged() < wanted {
                self.clock.sleep(RETRY_PAUSE).await;
            }
        };
        tokio::time::timeout(deadline, waited)
            .await
            .with_context(|| {
                let missing = wanted - self.acknowledged();
                format!("{missing} of {count} writes were not acknowledged within {deadline:?}")
            })
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The only value that a key ever has: its own name, repeated.
fn value_of(key: &str) -> String {
    let mut value = key.repeat(VALUE_BYTES.div_ceil(key.len()));
    value.truncate(VALUE_BYTES);
    value
}

fn compare(
    acknowledged: &BTreeSet<String>,
    unknown: &BTreeSet<String>,
    found: &BTreeMap<String, String>,
) -> Audit {
    /// Named of each kind.
    const NAMED_MAX: usize = 10;
    let mut audit = Audit {
        acknowledged: acknowledged.len(),
        unknown: unknown.len(),
        unknown_found: unknown
            .iter()
            .filter(|key| found.contains_key(*key))
            .count(),
        ..Audit::default()
    };
    let lost = acknowledged.iter().filter(|key| !found.contains_key(*key));
    audit.lost = lost.clone().take(NAMED_MAX).cloned().collect();
    audit.lost_count = lost.count();
    for (key, value) in found {
        if audit.wrong.len() == NAMED_MAX {
            break;
        }
        if !acknowledged.contains(key) && !unknown.contains(key) {
            audit.wrong.push(format!("{key} was never written"));
        } else if *value != value_of(key) {
            audit.wrong.push(format!("{key} holds {value:?}"));
        }
    }
    audit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_changed_and_invented_entries_are_found_and_unknown_ones_excused() {
        let set = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
        let (acknowledged, unknown): (BTreeSet<String>, BTreeSet<String>) =
            (set(&["a", "b"]), set(&["c", "d"]));
        let found = |keys: &[&str]| {
            let entry = |key: &&str| ((*key).to_owned(), value_of(key));
            keys.iter().map(entry).collect::<BTreeMap<_, _>>()
        };
        let audit = compare(&acknowledged, &unknown, &found(&["a", "b", "c"]));
        assert!(audit.is_clean(), "{audit:?}");
        assert_eq!((audit.unknown, audit.unknown_found), (2, 1));

        let audit = compare(&acknowledged, &unknown, &found(&["a"]));
        assert_eq!((audit.lost_count, audit.lost), (1, vec!["b".to_owned()]));

        let audit = compare(&acknowledged, &unknown, &found(&["a", "b", "e"]));
        assert!(audit.wrong[0].contains("never written"), "{audit:?}");
        let mut changed = found(&["a", "b"]);
        changed.insert("a".to_owned(), "other".to_owned());
        assert!(!compare(&acknowledged, &unknown, &changed).is_clean());
    }
}
