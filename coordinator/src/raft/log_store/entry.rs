//! An entry as it is stored: its index, a checksum of its own, and the protobuf.
//!
//! The checksum of its own is for reading one entry out of the middle of a file.

use bytes::Bytes;
use flott_proto::wire;
use prost::Message;

use super::super::codec;
use super::super::types::{Entry, LogId};

/// Bytes of the index before a stored entry.
const INDEX_BYTES: usize = 8;

/// The entry with its checksum before it.
pub(super) fn encode(entry: &Entry) -> Vec<u8> {
    let wire = codec::entry_to_wire(entry);
    let mut framed = Vec::with_capacity(4 + wire.encoded_len());
    framed.extend_from_slice(&[0; 4]);
    wire.encode(&mut framed).expect("a vector takes everything");
    let crc = crc32c::crc32c(&framed[4..]);
    framed[..4].copy_from_slice(&crc.to_le_bytes());
    framed
}

fn checked(framed: &[u8]) -> Result<&[u8], String> {
    let (checksum, value) = framed
        .split_at_checked(4)
        .ok_or("shorter than its checksum")?;
    if checksum == crc32c::crc32c(value).to_le_bytes() {
        Ok(value)
    } else {
        Err("checksum mismatch".to_owned())
    }
}

/// The index of a stored entry, and the entry.
pub(super) fn split_index(stored: &[u8]) -> Result<(u64, &[u8]), String> {
    let (index, framed) = stored
        .split_first_chunk::<INDEX_BYTES>()
        .ok_or("an entry without an index")?;
    Ok((u64::from_le_bytes(*index), framed))
}

fn to_wire(index: u64, framed: &[u8]) -> Result<wire::RaftEntry, String> {
    let decoded = checked(framed).and_then(|value| {
        wire::RaftEntry::decode(Bytes::copy_from_slice(value)).map_err(|error| error.to_string())
    });
    let entry = decoded.map_err(|what| format!("entry {index}: {what}"))?;
    match &entry.log_id {
        Some(id) if id.index == index => Ok(entry),
        Some(id) => Err(format!("entry {index} says that it is {}", id.index)),
        None => Err(format!("entry {index} lacks its id")),
    }
}

/// Checks the entry that is stored under `index`; its id.
pub(super) fn log_id(index: u64, framed: &[u8]) -> Result<LogId, String> {
    let entry = to_wire(index, framed)?;
    let id = entry.log_id.as_ref().map(codec::log_id_from_wire);
    id.ok_or_else(|| format!("entry {index} lacks its id"))
}

/// The entry that is stored under `index`.
pub(super) fn decode(index: u64, framed: &[u8]) -> Result<Entry, String> {
    let entry = codec::entry_from_wire(to_wire(index, framed)?);
    entry.map_err(|error| format!("entry {index}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use flott_decoders::{Seeds, kind, told};
    use openraft::EntryPayload;

    use super::*;
    use crate::raft::types::{Membership, Peer, Proposal};

    fn entries() -> [Entry; 3] {
        let command = wire::Command {
            now_ms: 5,
            epoch: 7,
            decision: Some(wire::command::Decision::KvExpire(wire::KvExpire {})),
        };
        let peer = Peer {
            address: "host:6123".to_owned(),
            incarnation: "life".to_owned(),
        };
        let voters = vec![BTreeSet::from([1])];
        let membership = Membership::new(voters, BTreeMap::from([(1, peer)])).unwrap();
        [
            EntryPayload::Blank,
            EntryPayload::Normal(Proposal::new(command)),
            EntryPayload::Membership(membership),
        ]
        .map(|payload| Entry {
            log_id: LogId::new_term_index(3, 9),
            payload,
        })
    }

    /// Of an entry whose checksum is right whatever it says, and of bytes as they are.
    #[test]
    fn any_bytes_are_an_entry_or_refused_by_its_index() {
        let seeds = entries().map(|entry| encode(&entry)[4..].to_vec());
        flott_decoders::check!(Seeds::of(seeds)).for_each(|value: &[u8]| {
            let framed = [&crc32c::crc32c(value).to_le_bytes()[..], value].concat();
            match told(decode(9, &framed)) {
                Ok(entry) => {
                    kind(&entry.payload);
                    assert_eq!(log_id(9, &framed), Ok(entry.log_id));
                    let again = encode(&entry);
                    let read = decode(9, &again).unwrap();
                    assert_eq!(encode(&read), again);
                }
                Err(error) => assert!(error.starts_with("entry 9"), "{error}"),
            }
            let damaged = decode(9, value).expect_err("no checksum");
            assert!(damaged.starts_with("entry 9"), "{damaged}");
            if let Ok((index, framed)) = split_index(value) {
                drop(decode(index, framed));
            }
        });
    }
}
