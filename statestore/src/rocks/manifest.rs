//! The manifest of a database: a log of edits, each of which says what tables came and went. Read to follow what merges
//! do, and written to give a checkpoint another set of tables than the database has (see `lineage`).
//!
//! The log comes in blocks, its records in fragments that do not cross them: checksum, length, kind, bytes. A record is an
//! edit: fields behind their tags, numbers as varints. A field that is not known here is an error unless it says itself
//! that it may be passed over; what describes a table is taken over byte by byte.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Of the log.
const BLOCK_BYTES: usize = 32 << 10;

/// Checksum (4), length (2) and kind (1) of a fragment.
const HEADER_BYTES: usize = 7;

/// Kinds of fragments.
const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// Tags of fields. Those from [`IGNORABLE`] on have their length in front.
const COMPARATOR: u64 = 1;
const LOG_NUMBER: u64 = 2;
const NEXT_FILE_NUMBER: u64 = 3;
const LAST_SEQUENCE: u64 = 4;
const COMPACT_CURSOR: u64 = 5;
const DELETED_FILE: u64 = 6;
const PREVIOUS_LOG_NUMBER: u64 = 9;
const MIN_LOG_NUMBER_TO_KEEP: u64 = 10;
const NEW_FILE: u64 = 103;
const MAX_COLUMN_FAMILY: u64 = 203;
const IGNORABLE: u64 = 1 << 13;

/// Behind the last of a table's own fields.
const TABLE_ENDS: u64 = 1;

/// A table, as the manifest describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) size: u64,
    /// The whole field of the edit that added it.
    field: Arc<[u8]>,
}

/// Tables by their numbers.
pub(super) type Tables = BTreeMap<u64, Table>;

/// What one edit says of tables.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) deleted: Vec<u64>,
    pub(super) added: Tables,
}

/// What a manifest says beside its tables: the newest of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    comparator: Vec<u8>,
    log_number: u64,
    next_file_number: u64,
    last_sequence: u64,
}

/// The name of a table's file.
pub(super) fn table_name(number: u64) -> String {
    format!("{number:06}.sst")
}

/// The records in `log`, which begins at `offset` of a manifest, between two records, and ends likewise.
pub(super) fn records(log: &[u8], offset: u64) -> Result<Vec<Vec<u8>>, String> {
    let (mut at, mut records, mut unfinished) = (0, Vec::new(), None::<Vec<u8>>);
    loop {
        let place = offset + at as u64;
        let left_in_block = BLOCK_BYTES - (place % BLOCK_BYTES as u64) as usize;
        if left_in_block < HEADER_BYTES {
            at += left_in_block;
            continue;
        }
        let Some(rest) = log.get(at..).filter(|rest| !rest.is_empty()) else {
            break;
        };
        let torn = || format!("its record at {place} is torn");
        let (header, rest) = rest.split_at_checked(HEADER_BYTES).ok_or_else(torn)?;
        let checksum = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
        let kind = header[6];
        let payload = rest.get(..length).ok_or_else(torn)?;
        if masked(crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload)) != checksum {
            return Err(format!("its record at {place} does not fit its checksum"));
        }
        match (kind, unfinished.take()) {
            (FULL, None) => records.push(payload.to_vec()),
            (FIRST, None) => unfinished = Some(payload.to_vec()),
            (MIDDLE, Some(begun)) => unfinished = Some([&begun, payload].concat()),
            (LAST, Some(begun)) => records.push([&begun, payload].concat()),
            _ => {
                return Err(format!(
                    "its record at {place} has an unexpected kind, {kind}"
                ));
            }
        }
        at += HEADER_BYTES + length;
    }
    match unfinished {
        None => Ok(records),
        Some(_) => Err("its last record is torn".to_owned()),
    }
}

/// A log of one record.
fn log_of(mut record: &[u8]) -> Vec<u8> {
    let (mut log, mut is_first) = (Vec::new(), true);
    loop {
        let left_in_block = BLOCK_BYTES - log.len() % BLOCK_BYTES;
        if left_in_block < HEADER_BYTES {
            log.resize(log.len() + left_in_block, 0);
            continue;
        }
        let (payload, rest) = record.split_at(record.len().min(left_in_block - HEADER_BYTES));
        record = rest;
        let kind = match (is_first, record.is_empty()) {
            (true, true) => FULL,
            (true, false) => FIRST,
            (false, false) => MIDDLE,
            (false, true) => LAST,
        };
        let checksum = masked(crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload));
        log.extend(checksum.to_le_bytes());
        log.extend((payload.len() as u16).to_le_bytes());
        log.push(kind);
        log.extend(payload);
        is_first = false;
        if record.is_empty() {
            return log;
        }
    }
}

/// Checksums of what may hold checksums are stored in another form.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Reads one edit, and what it says of the counters.
pub(super) fn decode(record: &[u8], counters: &mut Counters) -> Result<Edit, String> {
    let mut edit = Edit::default();
    let mut fields = Fields { left: record };
    while !fields.left.is_empty() {
        let begun = fields.left;
        match fields.number()? {
            COMPARATOR => counters.comparator = fields.bytes()?.to_vec(),
            LOG_NUMBER => counters.log_number = fields.number()?,
            NEXT_FILE_NUMBER => counters.next_file_number = fields.number()?,
            LAST_SEQUENCE => counters.last_sequence = fields.number()?,
            PREVIOUS_LOG_NUMBER | MIN_LOG_NUMBER_TO_KEEP | MAX_COLUMN_FAMILY => {
                fields.number()?;
            }
            COMPACT_CURSOR => {
                fields.number()?;
                fields.bytes()?;
            }
            DELETED_FILE => {
                let _level = fields.number()?;
                edit.deleted.push(fields.number()?);
            }
            NEW_FILE => {
                let (number, size) = fields.table()?;
                let field = begun[..begun.len() - fields.left.len()].into();
                edit.added.insert(number, Table { size, field });
            }
            ignorable if ignorable & IGNORABLE != 0 => {
                fields.bytes()?;
            }
            unknown => return Err(format!("it has a field of unknown kind {unknown}")),
        }
    }
    Ok(edit)
}

/// A manifest of `tables`.
pub(super) fn encode(tables: &Tables, counters: &Counters) -> Vec<u8> {
    let mut record = Vec::new();
    put_number(&mut record, COMPARATOR);
    put_number(&mut record, counters.comparator.len() as u64);
    record.extend(&counters.comparator);
    let numbers = [
        (LOG_NUMBER, counters.log_number),
        (NEXT_FILE_NUMBER, counters.next_file_number),
        (LAST_SEQUENCE, counters.last_sequence),
    ];
    for (tag, number) in numbers {
        put_number(&mut record, tag);
        put_number(&mut record, number);
    }
    for table in tables.values() {
        record.extend(&*table.field);
    }
    log_of(&record)
}

fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 1 << 7 {
        bytes.push(number as u8 | 1 << 7);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// What of an edit was not read yet.
struct Fields<'a> {
    left: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let taken = self.left.split_at_checked(length);
        let (taken, left) = taken.ok_or("an edit of it ends within a field")?;
        self.left = left;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, String> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("it has a number without an end".to_owned())
    }

    fn bytes(&mut self) -> Result<&'a [u8], String> {
        let length = self.number()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// The number and the size of a table; what else is said of it is passed over.
    fn table(&mut self) -> Result<(u64, u64), String> {
        let (_level, number, size) = (self.number()?, self.number()?, self.number()?);
        let (_smallest, _largest) = (self.bytes()?, self.bytes()?);
        let (_first, _last) = (self.number()?, self.number()?);
        while self.number()? != TABLE_ENDS {
            self.bytes()?;
        }
        Ok((number, size))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// A table of that number and size at level 0.
    pub(crate) fn table(number: u64, size: u64) -> Table {
        let mut field = Vec::new();
        for part in [NEW_FILE, 0, number, size] {
            put_number(&mut field, part);
        }
        field.extend(b"\x03key\x03kez");
        field.extend([7, 9, 13, 1, 5, TABLE_ENDS as u8]);
        let field = field.into();
        Table { size, field }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(sizes in vec(any::<u64>(), 0..3000), next_file_number: u64, last_sequence: u64) {
            let tables: Tables = sizes.iter().enumerate().map(|(number, size)| (number as u64, table(number as u64, *size))).collect();
            let counters = Counters { comparator: b"bytewise".to_vec(), log_number: 3, next_file_number, last_sequence };
            let records = records(&encode(&tables, &counters), 0).unwrap();
            let mut read = Counters::default();
            let edit = decode(&records[0], &mut read).unwrap();
            prop_assert_eq!((records.len(), edit.deleted, edit.added, read), (1, vec![], tables, counters));
        }

        #[test]
        fn what_is_damaged_is_no_panic(bytes in vec(any::<u8>(), 0..200), offset in 0u64..100_000) {
            let _ = records(&bytes, offset);
            let _ = decode(&bytes, &mut Counters::default());
        }

        #[test]
        fn damage_is_noticed(at: prop::sample::Index, bit in 0u8..8) {
            let tables = Tables::from([(5, table(5, 100))]);
            let mut log = encode(&tables, &Counters::default());
            let at = at.index(log.len());
            log[at] ^= 1 << bit;
            prop_assert!(records(&log, 0).is_err());
        }
    }

    #[test]
    fn a_log_is_read_on_from_where_it_ended() {
        let record = vec![1; BLOCK_BYTES];
        let log = [log_of(b"edit"), log_of(b"another")].concat();
        let begun = log_of(b"edit").len();
        assert_eq!(records(&log, 0).unwrap(), [&b"edit"[..], b"another"]);
        assert_eq!(records(&log[begun..], begun as u64).unwrap(), [b"another"]);
        assert_eq!(records(&log_of(&record), 0).unwrap(), [record]);
        assert!(records(&log[..begun + 3], 0).is_err(), "torn");
    }

    #[test]
    fn fields_that_may_be_passed_over_are() {
        let mut edit = Vec::new();
        for part in [IGNORABLE + 5, 2, 0, 0, DELETED_FILE, 6, 77] {
            put_number(&mut edit, part);
        }
        let read = decode(&edit, &mut Counters::default()).unwrap();
        assert_eq!(read.deleted, [77]);
        assert!(decode(&[99], &mut Counters::default()).is_err(), "unknown");
        assert!(decode(&[100 | 1 << 7, 1], &mut Counters::default()).is_err());
    }
}
