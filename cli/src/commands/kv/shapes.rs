//! What `flott kv … -o json` prints, and what a transaction's document consists of. A promise to scripts, as
//! [`crate::shapes`].
//!
//! Bytes that are text are written as text, others in base64 under another name, so that nothing is lost.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flott_proto::wire::kv_event::Change;
use flott_proto::wire::kv_gone::Cause;
use flott_proto::wire::{KvEntry, KvEvent, KvHeader, KvLease, KvRangeResult};
use serde::Serialize;

use crate::shapes::time;

/// A key.
#[derive(Debug, Serialize)]
pub(super) enum Key {
    #[serde(rename = "key")]
    Text(String),
    #[serde(rename = "key_base64")]
    Base64(String),
}

impl Key {
    pub(super) fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(STANDARD.encode(bytes)),
        }
    }
}

/// A value.
#[derive(Debug, Serialize)]
pub(super) enum Value {
    #[serde(rename = "value")]
    Text(String),
    #[serde(rename = "value_base64")]
    Base64(String),
}

impl Value {
    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(STANDARD.encode(bytes)),
        }
    }
}

/// The bytes that a document gives as text or in base64; `None` if it gives neither.
pub(super) fn bytes(
    what: &str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Option<Bytes>, String> {
    match (text, base64) {
        (Some(text), None) => Ok(Some(text.into())),
        (None, Some(base64)) => match STANDARD.decode(&base64) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) => Err(format!("{what}_base64 {base64:?}: {error}")),
        },
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(format!("{what} and {what}_base64 exclude each other")),
    }
}

/// What a member said, when, and how old it may be.
#[derive(Debug, Serialize)]
pub(super) struct Header {
    pub(super) revision: u64,
    pub(super) member: u64,
    pub(super) stale_ms: u64,
}

impl From<&KvHeader> for Header {
    fn from(header: &KvHeader) -> Self {
        Self {
            revision: header.revision,
            member: header.member,
            stale_ms: header.stale_ms,
        }
    }
}

/// A write that was acknowledged.
#[derive(Debug, Serialize)]
pub(super) struct Written {
    pub(super) outcome: &'static str,
    pub(super) revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deleted: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lease: Option<u64>,
}

impl Written {
    pub(super) fn at(revision: u64) -> Self {
        Self {
            outcome: "applied",
            revision,
            deleted: None,
            lease: None,
        }
    }
}

/// A write that was not.
#[derive(Debug, Serialize)]
pub(super) struct Unacknowledged {
    pub(super) outcome: &'static str,
    pub(super) error: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Entry {
    #[serde(flatten)]
    pub(super) key: Key,
    #[serde(flatten)]
    pub(super) value: Option<Value>,
    pub(super) revision: u64,
    pub(super) create_revision: u64,
    pub(super) version: u64,
    /// None without one.
    pub(super) lease: Option<u64>,
    /// None if no time of its own ends it.
    pub(super) expires_at: Option<String>,
}

impl Entry {
    pub(super) fn of(entry: &KvEntry, keys_only: bool) -> Self {
        Self {
            key: Key::of(&entry.key),
            value: (!keys_only).then(|| Value::of(&entry.value)),
            revision: entry.mod_revision,
            create_revision: entry.create_revision,
            version: entry.version,
            lease: (entry.lease != 0).then_some(entry.lease),
            expires_at: time(entry.expires_at_ms),
        }
    }
}

/// What `get` prints.
#[derive(Debug, Serialize)]
pub(super) struct Got {
    #[serde(flatten)]
    pub(super) entry: Entry,
    pub(super) header: Header,
}

/// What `list` prints.
#[derive(Debug, Serialize)]
pub(super) struct Listed {
    pub(super) entries: Vec<Entry>,
    /// There are more than these.
    pub(super) more: bool,
    pub(super) count: u64,
    pub(super) header: Header,
}

impl Listed {
    pub(super) fn of(result: &KvRangeResult, header: &KvHeader, keys_only: bool) -> Self {
        let entries = result.entries.iter();
        Self {
            entries: entries.map(|entry| Entry::of(entry, keys_only)).collect(),
            more: result.more,
            count: result.count,
            header: header.into(),
        }
    }
}

/// A line that `watch` prints.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(super) enum Event {
    Put(Entry),
    Deleted(Gone),
    Expired(Gone),
    LeaseEnded(Gone),
    Resync { revision: u64 },
}

#[derive(Debug, Serialize)]
pub(super) struct Gone {
    pub(super) revision: u64,
    #[serde(flatten)]
    pub(super) key: Key,
}

impl Event {
    /// None for a kind of change that a newer member knows.
    pub(super) fn of(event: &KvEvent) -> Option<Self> {
        match event.change.as_ref()? {
            Change::Put(entry) => Some(Self::Put(Entry::of(entry, false))),
            Change::Gone(gone) => {
                let line = Gone {
                    revision: gone.revision,
                    key: Key::of(&gone.key),
                };
                Some(match gone.cause() {
                    Cause::Deleted => Self::Deleted(line),
                    Cause::Expired => Self::Expired(line),
                    Cause::LeaseEnded => Self::LeaseEnded(line),
                })
            }
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Leases {
    pub(super) leases: Vec<Lease>,
}

#[derive(Debug, Serialize)]
pub(super) struct Lease {
    pub(super) id: u64,
    pub(super) ttl_ms: u64,
    pub(super) expires_at: Option<String>,
    pub(super) keys: Vec<Key>,
}

impl From<&KvLease> for Lease {
    fn from(lease: &KvLease) -> Self {
        Self {
            id: lease.lease,
            ttl_ms: lease.ttl_ms,
            expires_at: time(lease.expires_at_ms),
            keys: lease.keys.iter().map(|key| Key::of(key)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use flott_proto::wire::KvGone;
    use serde_json::{json, to_value};

    use super::*;

    #[test]
    fn an_entry_has_the_promised_shape_and_loses_no_bytes() {
        let entry = KvEntry {
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(b"v"),
            create_revision: 1,
            mod_revision: 3,
            version: 2,
            lease: 0,
            expires_at_ms: 1_000,
        };
        let shape = json!({
            "key": "k", "value": "v", "revision": 3, "create_revision": 1, "version": 2, "lease": null,
            "expires_at": "1970-01-01T00:00:01.000Z",
        });
        assert_eq!(to_value(Entry::of(&entry, false)).unwrap(), shape);
        let binary = KvEntry {
            key: Bytes::from_static(b"\xff"),
            value: Bytes::from_static(b"\x80\x00"),
            ..entry
        };
        let shape = to_value(Entry::of(&binary, false)).unwrap();
        assert_eq!(
            (&shape["key_base64"], &shape["value_base64"]),
            (&json!("/w=="), &json!("gAA="))
        );
        let shape = to_value(Entry::of(&binary, true)).unwrap();
        assert_eq!(
            (shape.get("value"), shape.get("value_base64")),
            (None, None)
        );
        let read = bytes("value", None, Some("gAA=".to_owned()))
            .unwrap()
            .unwrap();
        assert_eq!(read, binary.value);
    }

    #[test]
    fn changes_have_the_promised_shapes() {
        let gone = |cause: Cause| KvEvent {
            change: Some(Change::Gone(KvGone {
                key: Bytes::from_static(b"k"),
                revision: 4,
                cause: cause.into(),
            })),
        };
        for (cause, name) in [
            (Cause::Deleted, "deleted"),
            (Cause::Expired, "expired"),
            (Cause::LeaseEnded, "lease-ended"),
        ] {
            let line = to_value(Event::of(&gone(cause)).unwrap()).unwrap();
            assert_eq!(line, json!({"event": name, "revision": 4, "key": "k"}));
        }
        let put = KvEvent {
            change: Some(Change::Put(KvEntry::default())),
        };
        assert_eq!(to_value(Event::of(&put).unwrap()).unwrap()["event"], "put");
        assert_eq!(
            to_value(Event::Resync { revision: 9 }).unwrap(),
            json!({"event": "resync", "revision": 9})
        );
    }
}
