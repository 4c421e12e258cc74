//! What stands under a key.

use bytes::Bytes;
use flott_proto::wire;
use xxhash_rust::xxh3::Xxh3;

/// The present value of a key. Revisions are those of the whole cluster's key-value spaces: each write is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub value: Bytes,
    /// The write that made the key.
    pub create_revision: u64,
    /// The last write to it.
    pub mod_revision: u64,
    /// Writes to it since it was made, beginning with 1.
    pub version: u64,
    /// The lease with which it ends; 0: none.
    pub lease: u64,
    /// After which log time it ends; 0: never.
    pub expires_at_ms: i64,
}

impl Entry {
    /// Bytes that count against a quota.
    pub fn size(&self, key: &[u8]) -> u64 {
        (key.len() + self.value.len()) as u64
    }

    /// A hash of all there is to the entry.
    pub fn digest(&self, key: &[u8]) -> u128 {
        let mut hash = Xxh3::new();
        for number in [
            key.len() as u64,
            self.create_revision,
            self.mod_revision,
            self.version,
            self.lease,
            self.expires_at_ms as u64,
        ] {
            hash.update(&number.to_le_bytes());
        }
        hash.update(key);
        hash.update(&self.value);
        hash.digest128()
    }

    /// As clients see it.
    pub fn to_wire(&self, key: &Bytes, with_value: bool) -> wire::KvEntry {
        wire::KvEntry {
            key: key.clone(),
            value: if with_value {
                self.value.clone()
            } else {
                Bytes::new()
            },
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            lease: self.lease,
            expires_at_ms: self.expires_at_ms,
        }
    }

    /// Inverse of [`Self::to_wire`].
    pub fn from_wire(entry: wire::KvEntry) -> (Bytes, Self) {
        let value = Self {
            value: entry.value,
            create_revision: entry.create_revision,
            mod_revision: entry.mod_revision,
            version: entry.version,
            lease: entry.lease,
            expires_at_ms: entry.expires_at_ms,
        };
        (entry.key, value)
    }
}
