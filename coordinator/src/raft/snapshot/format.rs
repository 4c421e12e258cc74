//! The snapshot file: a stream of checked frames.
//!
//! ```text
//! file   = "FLOTTSNP" │ version u32 │ frame(meta) │ frame(records)* │ frame(footer)
//! frame  = kind u8 │ length u32 │ CRC32C of kind, length and payload u32 │ payload       (integers little endian)
//! meta   = RaftSnapshotMeta     records = zstd(RaftSnapshotRecords)     footer = RaftSnapshotFooter
//! ```
//!
//! The footer has the SHA-256 of everything before it and nothing follows it, so any change to the file is noticed:
//! a damaged frame by its CRC at once, a lost, doubled or moved frame by the hash and by the order of keys.

use std::io::{self, Read, Write};

use flott_proto::wire;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::core::Record;

const MAGIC: &[u8; 8] = b"FLOTTSNP";
const VERSION: u32 = 1;

const META: u8 = 1;
const RECORDS: u8 = 2;
const FOOTER: u8 = 3;

/// Bytes of records that go into one frame, before compression, unless a single record is larger.
const FRAME_BYTES: usize = 256 << 10;

/// What a reader accepts, so that damaged lengths cannot exhaust memory.
const FRAME_BYTES_MAX: usize = 256 << 20;

/// zstd's default: a snapshot is written in the background, but not for long.
const COMPRESSION_LEVEL: i32 = 3;

/// A file is not a snapshot, or no longer the one that was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("snapshot is corrupt: {0}")]
    Corrupt(String),
    #[error("snapshot has format {0}, this binary reads {VERSION}")]
    Unsupported(u32),
    #[error("cannot read snapshot")]
    Io(#[from] io::Error),
}

fn corrupt(what: impl Into<String>) -> SnapshotError {
    SnapshotError::Corrupt(what.into())
}

/// Writes one snapshot.
#[derive(Debug)]
pub(crate) struct SnapshotWriter<W: Write> {
    out: W,
    hash: Sha256,
    pending: wire::RaftSnapshotRecords,
    pending_bytes: usize,
    records: u64,
}

impl<W: Write> SnapshotWriter<W> {
    pub(crate) fn new(out: W, meta: &wire::RaftSnapshotMeta) -> io::Result<Self> {
        let pending = wire::RaftSnapshotRecords::default();
        let mut writer = Self {
            out,
            hash: Sha256::new(),
            pending,
            pending_bytes: 0,
            records: 0,
        };
        writer.write(MAGIC)?;
        writer.write(&VERSION.to_le_bytes())?;
        writer.frame(META, &meta.encode_to_vec())?;
        Ok(writer)
    }

    /// Adds the next record; keys must ascend.
    pub(crate) fn push(&mut self, record: Record) -> io::Result<()> {
        self.pending_bytes += record.key.len() + record.value.len();
        self.records += 1;
        let record = wire::RaftSnapshotRecord {
            key: record.key,
            value: record.value.into(),
        };
        if let Some(previous) = self.pending.records.last() {
            assert!(
                previous.key < record.key,
                "the records of a snapshot must ascend"
            );
        }
        self.pending.records.push(record);
        if self.pending_bytes >= FRAME_BYTES {
            self.flush_records()
        } else {
            Ok(())
        }
    }

    /// Writes the rest. The caller makes it durable.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.flush_records()?;
        let sha256 = self.hash.clone().finalize().to_vec();
        let footer = wire::RaftSnapshotFooter {
            records: self.records,
            sha256: sha256.into(),
        };
        self.frame(FOOTER, &footer.encode_to_vec())?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn flush_records(&mut self) -> io::Result<()> {
        if self.pending.records.is_empty() {
            return Ok(());
        }
        let records = std::mem::take(&mut self.pending).encode_to_vec();
        self.pending_bytes = 0;
        self.frame(RECORDS, &zstd::bulk::compress(&records, COMPRESSION_LEVEL)?)
    }

    fn frame(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len())
            .ok()
            .filter(|length| *length as usize <= FRAME_BYTES_MAX);
        let length = length.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "snapshot record too large")
        })?;
        self.write(&[kind])?;
        self.write(&length.to_le_bytes())?;
        self.write(&checksum(kind, length, payload).to_le_bytes())?;
        self.write(payload)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.out.write_all(bytes)
    }
}

fn checksum(kind: u8, length: u32, payload: &[u8]) -> u32 {
    let header = crc32c::crc32c_append(crc32c::crc32c(&[kind]), &length.to_le_bytes());
    crc32c::crc32c_append(header, payload)
}

/// Reads one snapshot, checking everything. What [`Self::next_records`] returned is to be trusted only once it
/// returned `None`: only then the whole is known to be intact.
#[derive(Debug)]
pub(crate) struct SnapshotReader<R: Read> {
    input: R,
    hash: Sha256,
    records: u64,
    last_key: Option<String>,
    ended: bool,
}

impl<R: Read> SnapshotReader<R> {
    /// Reads the beginning.
    pub(crate) fn new(input: R) -> Result<(Self, wire::RaftSnapshotMeta), SnapshotError> {
        let mut reader = Self {
            input,
            hash: Sha256::new(),
            records: 0,
            last_key: None,
            ended: false,
        };
        if reader.read(MAGIC.len())? != MAGIC {
            return Err(corrupt("it does not begin like a snapshot"));
        }
        let version = u32::from_le_bytes(reader.read_array()?);
        if version != VERSION {
            return Err(SnapshotError::Unsupported(version));
        }
        let (kind, payload, _) = reader.frame()?;
        if kind != META {
            return Err(corrupt("its first frame is not its description"));
        }
        let meta = wire::RaftSnapshotMeta::decode(&payload[..])
            .map_err(|error| corrupt(error.to_string()))?;
        Ok((reader, meta))
    }

    /// The next records in order, or `None` after the last ones, when all checks have passed.
    pub(crate) fn next_records(&mut self) -> Result<Option<Vec<Record>>, SnapshotError> {
        if self.ended {
            return Ok(None);
        }
        let (kind, payload, hash_before) = self.frame()?;
        match kind {
            RECORDS => self.decode_records(&payload).map(Some),
            FOOTER => {
                self.check_footer(&payload, hash_before)?;
                self.ended = true;
                Ok(None)
            }
            other => Err(corrupt(format!("frame of unknown kind {other}"))),
        }
    }

    /// All remaining records, when all checks have passed.
    pub(crate) fn into_records(mut self) -> Result<Vec<Record>, SnapshotError> {
        let mut all = Vec::new();
        while let Some(records) = self.next_records()? {
            all.extend(records);
        }
        Ok(all)
    }

    fn decode_records(&mut self, payload: &[u8]) -> Result<Vec<Record>, SnapshotError> {
        let mut bytes = Vec::new();
        let decoder = zstd::stream::read::Decoder::new(payload)?;
        let limit = FRAME_BYTES_MAX as u64;
        decoder
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(|error| corrupt(error.to_string()))?;
        let decoded = wire::RaftSnapshotRecords::decode(&bytes[..])
            .map_err(|error| corrupt(error.to_string()))?;
        let mut records = Vec::with_capacity(decoded.records.len());
        for record in decoded.records {
            if self
                .last_key
                .as_ref()
                .is_some_and(|last| *last >= record.key)
            {
                return Err(corrupt(format!("record {:?} is out of order", record.key)));
            }
            self.last_key = Some(record.key.clone());
            self.records += 1;
            records.push(Record {
                key: record.key,
                value: record.value.into(),
            });
        }
        Ok(records)
    }

    fn check_footer(&mut self, payload: &[u8], hash_before: Sha256) -> Result<(), SnapshotError> {
        let footer = wire::RaftSnapshotFooter::decode(payload)
            .map_err(|error| corrupt(error.to_string()))?;
        if footer.records != self.records {
            return Err(corrupt(format!(
                "{} of {} records",
                self.records, footer.records
            )));
        }
        if footer.sha256[..] != hash_before.finalize()[..] {
            return Err(corrupt("hash mismatch"));
        }
        if self.input.read(&mut [0])? != 0 {
            return Err(corrupt("something follows its end"));
        }
        Ok(())
    }

    /// Kind and payload of the next frame, and the hash of everything before it.
    fn frame(&mut self) -> Result<(u8, Vec<u8>, Sha256), SnapshotError> {
        let hash_before = self.hash.clone();
        let [kind] = self.read_array()?;
        let length = u32::from_le_bytes(self.read_array()?);
        let expected = u32::from_le_bytes(self.read_array()?);
        if length as usize > FRAME_BYTES_MAX {
            return Err(corrupt(format!("frame of {length} bytes")));
        }
        let payload = self.read(length as usize)?;
        if checksum(kind, length, &payload) != expected {
            return Err(corrupt("checksum mismatch"));
        }
        Ok((kind, payload, hash_before))
    }

    fn read_array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(truncated)?;
        self.hash.update(bytes);
        Ok(bytes)
    }

    fn read(&mut self, length: usize) -> Result<Vec<u8>, SnapshotError> {
        let mut bytes = Vec::new();
        // Grows with what is really there, whatever the length claims.
        (&mut self.input)
            .take(length as u64)
            .read_to_end(&mut bytes)?;
        if bytes.len() != length {
            return Err(corrupt("it ends too early"));
        }
        self.hash.update(&bytes);
        Ok(bytes)
    }
}

fn truncated(error: io::Error) -> SnapshotError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        corrupt("it ends too early")
    } else {
        SnapshotError::Io(error)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use flott_decoders::{Seeds, told};
    use proptest::prelude::*;

    use super::*;

    fn encode(records: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
        let meta = wire::RaftSnapshotMeta {
            cluster_id: "c".to_owned(),
            ..Default::default()
        };
        let mut writer = SnapshotWriter::new(Vec::new(), &meta).unwrap();
        for (key, value) in records {
            writer
                .push(Record {
                    key: key.clone(),
                    value: value.clone(),
                })
                .unwrap();
        }
        writer.finish().unwrap()
    }

    fn decode(bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, SnapshotError> {
        let (reader, meta) = SnapshotReader::new(bytes)?;
        let records = reader.into_records()?;
        if meta.cluster_id != "c" {
            return Err(corrupt("cluster"));
        }
        Ok(records
            .into_iter()
            .map(|record| (record.key, record.value))
            .collect())
    }

    fn contents() -> impl Strategy<Value = BTreeMap<String, Vec<u8>>> {
        proptest::collection::btree_map(
            "[a-z/0-9]{0,12}",
            proptest::collection::vec(any::<u8>(), 0..200),
            0..40,
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn records_survive_the_file(records in contents()) {
            prop_assert_eq!(decode(&encode(&records)).unwrap(), records);
        }

        #[test]
        fn a_flipped_bit_anywhere_is_noticed(records in contents(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let mut bytes = encode(&records);
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn a_file_that_is_cut_or_goes_on_is_refused(records in contents(), at in any::<prop::sample::Index>()) {
            let mut bytes = encode(&records);
            prop_assert!(decode(&bytes[..at.index(bytes.len())]).is_err());
            bytes.push(0);
            prop_assert!(decode(&bytes).is_err());
        }
    }

    /// A file whose checksums are right whatever is in its frames.
    fn sealed(meta: &[u8], records: &[u8]) -> Vec<u8> {
        let mut writer = SnapshotWriter {
            out: Vec::new(),
            hash: Sha256::new(),
            pending: wire::RaftSnapshotRecords::default(),
            pending_bytes: 0,
            records: wire::RaftSnapshotRecords::decode(records)
                .map_or(0, |records| records.records.len() as u64),
        };
        writer.write(MAGIC).unwrap();
        writer.write(&VERSION.to_le_bytes()).unwrap();
        writer.frame(META, meta).unwrap();
        let compressed = zstd::bulk::compress(records, COMPRESSION_LEVEL).unwrap();
        writer.frame(RECORDS, &compressed).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn any_bytes_are_a_snapshot_or_refused() {
        let records: BTreeMap<_, _> = (0..20).map(|n| (format!("{n:03}"), vec![n; 9])).collect();
        let empty = encode(&BTreeMap::new());
        let seeds = Seeds::of([encode(&records), empty]);
        flott_decoders::check!(seeds).for_each(|bytes: &[u8]| {
            if let Ok(read) = told(decode(bytes)) {
                assert_eq!(decode(&encode(&read)).unwrap(), read);
            }
        });
    }

    #[test]
    fn any_content_of_frames_is_a_snapshot_or_refused() {
        let record = |key: &str| wire::RaftSnapshotRecord {
            key: key.to_owned(),
            value: vec![1, 2, 3].into(),
        };
        let records = wire::RaftSnapshotRecords {
            records: vec![record("a"), record("b")],
        };
        let meta = wire::RaftSnapshotMeta {
            cluster_id: "c".to_owned(),
            membership: Some(wire::RaftMembership {
                voters: vec![wire::RaftVoterSet { nodes: vec![1] }],
                nodes: [(1, wire::RaftNodeInfo::default())].into(),
            }),
            ..Default::default()
        };
        let seeds = Seeds::of([records.encode_to_vec(), meta.encode_to_vec()]);
        flott_decoders::check!(seeds).for_each(|bytes: &[u8]| {
            if let Ok((reader, _)) = told(SnapshotReader::new(&sealed(&[], bytes)[..]))
                && let Ok(read) = told(reader.into_records())
            {
                assert!(read.is_sorted_by(|a, b| a.key < b.key));
            }
            if let Ok((_, meta)) = told(SnapshotReader::new(&sealed(bytes, &[])[..])) {
                drop(told(crate::raft::codec::snapshot_meta_from_wire(meta)));
            }
        });
    }

    #[test]
    fn large_states_span_many_frames() {
        let value = |n: usize| (0..5000).map(|byte| (byte * n) as u8).collect::<Vec<u8>>();
        let records = (0..400).map(|n| (format!("{n:06}"), value(n))).collect();
        assert_eq!(decode(&encode(&records)).unwrap(), records);
    }

    #[test]
    fn frames_in_another_order_are_refused() {
        // Two files with one records frame each; the second file's frame is put into the first.
        let one = encode(&BTreeMap::from([("a".to_owned(), vec![1])]));
        let two = encode(&BTreeMap::from([("b".to_owned(), vec![1])]));
        assert_eq!(one.len(), two.len());
        let footer = one.len() - (9 + 2 + 2 + 32);
        let spliced = [&two[..footer], &one[footer..]].concat();
        assert!(
            matches!(decode(&spliced), Err(SnapshotError::Corrupt(what)) if what == "hash mismatch")
        );
    }
}
