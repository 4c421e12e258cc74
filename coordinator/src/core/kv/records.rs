//! Spaces as records of a snapshot, and back. A block of entries is small, so that no record is large.
//!
//! ```text
//! kv/<namespace>,            KvSpaceRecord: everything but the entries; sorts before them
//! kv/<namespace>,<number>    KvBlock: entries in order
//! ```

use std::sync::Arc;

use flott_proto::ids::Namespace;
use flott_proto::{Malformed, wire};
use imbl::OrdMap;
use prost::Message;

use super::requests::Requests;
use super::{Entry, KvSpace, Lease};
use crate::core::Record;

/// Of the keys of all records of spaces.
pub const PREFIX: &str = "kv/";

/// Sorts before everything that a namespace's name may have, so that the records of `a` come before those of `a-b`, as
/// the namespaces do.
const SEPARATOR: char = ',';

type Spaces = OrdMap<Namespace, Arc<KvSpace>>;

/// The records of all spaces, in ascending order of key.
pub fn of_all(spaces: &Spaces) -> impl Iterator<Item = Record> + '_ {
    spaces.iter().flat_map(|(namespace, space)| {
        let header = Record {
            key: format!("{PREFIX}{namespace}{SEPARATOR}"),
            value: space.header().encode_to_vec(),
        };
        let blocks = space
            .blocks()
            .enumerate()
            .map(move |(number, block)| Record {
                key: format!("{PREFIX}{namespace}{SEPARATOR}{number:012}"),
                value: block.encode_to_vec(),
            });
        std::iter::once(header).chain(blocks)
    })
}

/// Takes a record back; they come in the order of [`of_all`].
pub fn take(spaces: &mut Spaces, key: &str, value: &[u8]) -> Result<(), Malformed> {
    let malformed = |what: String| Malformed::new("snapshot record", format!("{key}: {what}"));
    let (namespace, number) = key[PREFIX.len()..]
        .split_once(SEPARATOR)
        .ok_or_else(|| malformed("names no namespace".to_owned()))?;
    let namespace: Namespace = namespace.parse()?;
    let broken = |error: prost::DecodeError| malformed(error.to_string());
    if number.is_empty() {
        let header = wire::KvSpaceRecord::decode(value).map_err(broken)?;
        spaces.insert(namespace, Arc::new(KvSpace::from_header(header)));
        return Ok(());
    }
    let block = wire::KvBlock::decode(value).map_err(broken)?;
    let space = spaces.get_mut(&namespace).map(Arc::make_mut);
    let space = space.ok_or_else(|| malformed("comes before its space".to_owned()))?;
    if space.add_block(block) {
        Ok(())
    } else {
        Err(malformed("names a lease that is not there".to_owned()))
    }
}

/// Bytes of keys and values of a block, unless a single entry is larger.
const BLOCK_BYTES: usize = 64 << 10;

impl KvSpace {
    /// Everything but the entries.
    pub fn header(&self) -> wire::KvSpaceRecord {
        let mut leases = self.leases().leases;
        // Entries name their leases; the other direction follows.
        leases.iter_mut().for_each(|lease| lease.keys.clear());
        wire::KvSpaceRecord {
            leases,
            answered: self.requests.to_wire().collect(),
            next_serial: self.requests.next_serial(),
        }
    }

    /// The entries in order.
    pub fn blocks(&self) -> impl Iterator<Item = wire::KvBlock> + '_ {
        let mut entries = self.entries.iter().peekable();
        std::iter::from_fn(move || {
            entries.peek()?;
            let mut block = wire::KvBlock::default();
            let mut bytes = 0;
            while bytes < BLOCK_BYTES
                && let Some((key, entry)) = entries.next()
            {
                bytes += key.len() + entry.value.len();
                block.entries.push(entry.to_wire(key, true));
            }
            Some(block)
        })
    }

    /// A space with that header, to which blocks are to be added.
    pub fn from_header(header: wire::KvSpaceRecord) -> Self {
        let mut space = Self {
            requests: Requests::starting_at(header.next_serial),
            ..Self::default()
        };
        for lease in header.leases {
            let value = Lease {
                ttl_ms: lease.ttl_ms,
                deadline_ms: lease.expires_at_ms,
                keys: Default::default(),
            };
            space
                .lease_deadlines
                .insert((value.deadline_ms, lease.lease));
            space.leases.insert(lease.lease, Arc::new(value));
        }
        for answered in header.answered {
            space.requests.restore(answered);
        }
        space
    }

    /// Adds a block; false if an entry names a lease that the header lacks.
    #[must_use]
    pub fn add_block(&mut self, block: wire::KvBlock) -> bool {
        for entry in block.entries {
            let (key, entry) = Entry::from_wire(entry);
            if entry.lease != 0 && !self.leases.contains_key(&entry.lease) {
                return false;
            }
            self.insert(key, Arc::new(entry));
        }
        true
    }
}
