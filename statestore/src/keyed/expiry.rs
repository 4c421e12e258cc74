//! When entries expire: a state's TTL, and the time that it is measured by.
//!
//! What has a TTL is stored behind the time of its last write. Once its TTL has passed nobody reads it any more, and it is
//! left out when the entries are next gone through anyway: by a compaction, or with all of them in memory by the writes
//! (`resident`). So clean-up costs no reading of its own.
//!
//! The time is whatever the owner says, see [`super::KeyedBackend::advance_time`]. It never goes back, nor is a clock read here.
//!
//! What must stay true: what is left out was expired for every reader already.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use super::{StateId, codec};

/// Before every time.
const NEVER: i64 = i64::MIN;

/// What the databases of one task know of time. Until they are told of it, nothing expires.
#[derive(Debug)]
pub(crate) struct Expiry {
    now_ms: AtomicI64,
    ttl_ms: RwLock<BTreeMap<StateId, i64>>,
}

impl Default for Expiry {
    fn default() -> Self {
        Self {
            now_ms: AtomicI64::new(NEVER),
            ttl_ms: RwLock::default(),
        }
    }
}

impl Expiry {
    /// It is now `now_ms`, unless it was later already.
    pub(crate) fn advance(&self, now_ms: i64) {
        self.now_ms.fetch_max(now_ms, Ordering::Relaxed);
    }

    /// Milliseconds since the Unix epoch.
    pub(super) fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    /// The state's entries expire so long after they were written. Gives that in milliseconds.
    pub(crate) fn set_ttl(&self, state: StateId, ttl: Duration) -> i64 {
        let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        let mut all = self.ttl_ms.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(state, ttl_ms);
        ttl_ms
    }

    /// What has expired by now.
    pub(crate) fn so_far(&self) -> Expired {
        let all = self.ttl_ms.read().unwrap_or_else(PoisonError::into_inner);
        Expired {
            now_ms: self.now_ms(),
            ttl_ms: all.clone(),
        }
    }
}

/// Tells what has expired by one moment.
#[derive(Clone, Debug)]
pub(crate) struct Expired {
    now_ms: i64,
    ttl_ms: BTreeMap<StateId, i64>,
}

impl Expired {
    /// Whether nothing can have.
    pub(crate) fn is_none(&self) -> bool {
        self.ttl_ms.is_empty() || self.now_ms == NEVER
    }

    /// Whether a stored entry has.
    pub(crate) fn has(&self, stored: &[u8], value: &[u8]) -> bool {
        let ttl_ms = codec::state_of_value(stored).and_then(|state| self.ttl_ms.get(&state));
        let written_ms = split(value).map(|(written_ms, _)| written_ms);
        ttl_ms
            .zip(written_ms)
            .is_some_and(|(ttl_ms, written_ms)| is_over(written_ms, *ttl_ms, self.now_ms))
    }
}

/// Whether what was written then has expired.
pub(super) fn is_over(written_ms: i64, ttl_ms: i64, now_ms: i64) -> bool {
    written_ms.saturating_add(ttl_ms) <= now_ms
}

/// Appends a value as it is stored with a TTL. Stable for ever.
pub(super) fn push(out: &mut Vec<u8>, written_ms: i64, value: &[u8]) {
    out.extend_from_slice(&written_ms.to_be_bytes());
    out.extend_from_slice(value);
}

/// When it was written, and the value.
pub(super) fn split(stored: &[u8]) -> Option<(i64, &[u8])> {
    let (written_ms, value) = stored.split_first_chunk()?;
    Some((i64::from_be_bytes(*written_ms), value))
}

#[cfg(test)]
pub(crate) mod tests {
    use flott_proto::key_group::KeyGroup;

    use super::super::{StateKey, Timer};
    use super::*;

    /// An entry of a state with a TTL, as it is stored.
    pub(crate) fn stored_value(state: u16, group: KeyGroup, written_ms: i64) -> (Vec<u8>, Vec<u8>) {
        let (mut stored, mut value) = (Vec::new(), Vec::new());
        let key = StateKey {
            group,
            key: b"k",
            namespace: b"",
        };
        codec::push_value_key(&mut stored, StateId(state), key);
        push(&mut value, written_ms, b"v");
        (stored, value)
    }

    #[test]
    fn an_entry_expires_when_its_ttl_has_passed_and_no_other_does() {
        let expiry = Expiry::default();
        expiry.set_ttl(StateId(1), Duration::from_millis(10));
        assert!(expiry.so_far().is_none(), "nobody has said what time it is");
        let (stored, value) = stored_value(1, KeyGroup(3), 100);
        let (other, _) = stored_value(2, KeyGroup(3), 100);
        let timer = Timer {
            time_ms: 0,
            group: KeyGroup(3),
            key: Vec::new(),
            namespace: Vec::new(),
        };
        let mut timer_key = Vec::new();
        codec::push_timer(&mut timer_key, StateId(1), &timer);
        for (now_ms, expected) in [(100, false), (109, false), (110, true), (105, true)] {
            expiry.advance(now_ms);
            let expired = expiry.so_far();
            assert_eq!(expired.has(&stored, &value), expected, "{now_ms}");
            assert!(!expired.has(&stored, b"short"), "is none of ours");
            for never in [
                &other,
                &timer_key,
                &codec::format_key(),
                &codec::name_key("op", "n"),
            ] {
                assert!(!expired.has(never, &value), "{never:?}");
            }
        }
    }

    #[test]
    fn the_longest_ttl_never_ends() {
        let expiry = Expiry::default();
        expiry.set_ttl(StateId(1), Duration::MAX);
        expiry.advance(i64::MAX - 1);
        let (stored, value) = stored_value(1, KeyGroup(3), 5);
        assert!(!expiry.so_far().has(&stored, &value));
    }
}
