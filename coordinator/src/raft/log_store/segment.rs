//! The bytes of the log: a file is a series of frames, a frame is a series of records.
//!
//! ```text
//! segment = frame* │ whatever was there before
//! frame   = "FLLG" │ payload bytes u32 │ sequence u64 │ CRC32C u32 │ 0 u32 │ payload │ zeros up to 8 bytes
//! payload = record*            record = kind u8 │ bytes u32 │ value          (integers little endian)
//! ```
//!
//! A frame is what one sync makes durable, and nothing is written after a frame before it is synced. So whatever does not
//! read as a frame is either the end of the log, and then no frame follows, or damage.
//!
//! Files are written over, again and again. That what an earlier life of a file left behind, or what a user's value looks
//! like, never passes for a frame is the checksum's doing: it covers a random number of the directory and the segment's
//! own.

/// Bytes before a payload.
pub(super) const HEADER_BYTES: usize = 24;
const MAGIC: [u8; 4] = *b"FLLG";
/// Frames begin at multiples of it.
const ALIGNMENT: usize = 8;
/// Bytes before a record's value.
const RECORD_HEADER_BYTES: usize = 5;

/// What the checksums of a segment cover beside its frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seal {
    /// Random, of the directory.
    pub(super) salt: u64,
    pub(super) segment: u64,
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An entry: index u64, then the entry with its own checksum.
    Entry,
    Vote,
    Committed,
    /// The entries from this index (u64) on are gone.
    Truncate,
    /// The entries up to this log id are gone.
    Purged,
    Marker,
}

impl Kind {
    const ALL: [(Self, u8); 6] = [
        (Self::Entry, 1),
        (Self::Vote, 2),
        (Self::Committed, 3),
        (Self::Truncate, 4),
        (Self::Purged, 5),
        (Self::Marker, 6),
    ];

    fn code(self) -> u8 {
        let known = Self::ALL.iter().find(|(kind, _)| *kind == self);
        known.map_or(0, |(_, code)| *code)
    }

    fn of(code: u8) -> Option<Self> {
        let known = Self::ALL.iter().find(|(_, known)| *known == code);
        known.map(|(kind, _)| *kind)
    }
}

/// A frame that is being put together.
#[derive(Debug)]
pub(super) struct FrameBuilder(Vec<u8>);

impl FrameBuilder {
    pub(super) fn new() -> Self {
        Self(vec![0; HEADER_BYTES])
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == HEADER_BYTES
    }

    /// Adds a record whose value is `parts` in a row; where in the frame its value begins.
    pub(super) fn push(&mut self, kind: Kind, parts: &[&[u8]]) -> usize {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let bytes = u32::try_from(bytes).expect("a record is far smaller than 4 GiB");
        self.0.push(kind.code());
        self.0.extend_from_slice(&bytes.to_le_bytes());
        let begins = self.0.len();
        parts.iter().for_each(|part| self.0.extend_from_slice(part));
        begins
    }

    /// The frame as it is written. The builder is empty again.
    pub(super) fn seal(&mut self, seal: Seal, sequence: u64) -> &[u8] {
        let bytes = self.0.len() - HEADER_BYTES;
        let bytes = u32::try_from(bytes).expect("a frame is far smaller than 4 GiB");
        let crc = checksum(seal, sequence, &self.0[HEADER_BYTES..]);
        self.0[..4].copy_from_slice(&MAGIC);
        self.0[4..8].copy_from_slice(&bytes.to_le_bytes());
        self.0[8..16].copy_from_slice(&sequence.to_le_bytes());
        self.0[16..20].copy_from_slice(&crc.to_le_bytes());
        self.0.resize(self.0.len().next_multiple_of(ALIGNMENT), 0);
        &self.0
    }

    pub(super) fn clear(&mut self) {
        self.0.truncate(HEADER_BYTES);
    }
}

fn checksum(seal: Seal, sequence: u64, payload: &[u8]) -> u32 {
    let mut crc = 0;
    for number in [seal.salt, seal.segment, sequence, payload.len() as u64] {
        crc = crc32c::crc32c_append(crc, &number.to_le_bytes());
    }
    crc32c::crc32c_append(crc, payload)
}

/// A frame that was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) sequence: u64,
    pub(super) payload: &'a [u8],
    /// Where the next frame begins, relative to the segment.
    pub(super) next: usize,
}

/// The frame that begins at `at`, if one does.
pub(super) fn frame_at(segment: &[u8], at: usize, seal: Seal) -> Option<Frame<'_>> {
    let header = segment.get(at..at + HEADER_BYTES)?;
    if header[..4] != MAGIC {
        return None;
    }
    let word = |range: std::ops::Range<usize>| header[range].try_into().ok();
    let bytes = u32::from_le_bytes(word(4..8)?) as usize;
    let sequence = u64::from_le_bytes(header[8..16].try_into().ok()?);
    let crc = u32::from_le_bytes(word(16..20)?);
    let begins = at + HEADER_BYTES;
    let payload = segment.get(begins..begins.checked_add(bytes)?)?;
    (checksum(seal, sequence, payload) == crc).then(|| Frame {
        sequence,
        payload,
        next: (begins + bytes).next_multiple_of(ALIGNMENT),
    })
}

/// Where a frame begins after `at`, if any does.
pub(super) fn find_frame(segment: &[u8], at: usize, seal: Seal) -> Option<usize> {
    let begin = at.next_multiple_of(ALIGNMENT).min(segment.len());
    let steps = segment[begin..].chunks_exact(ALIGNMENT).enumerate();
    let mut candidates = steps
        .filter(|(_, step)| step[..4] == MAGIC)
        .map(|(number, _)| begin + number * ALIGNMENT);
    candidates.find(|at| frame_at(segment, *at, seal).is_some())
}

/// The records of a payload, each with where its value begins there.
pub(super) fn records(
    payload: &[u8],
) -> impl Iterator<Item = Result<(Kind, usize, &[u8]), String>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == payload.len() {
            return None;
        }
        let record = record_at(payload, at);
        at = match &record {
            Ok((_, begins, value)) => begins + value.len(),
            Err(_) => payload.len(),
        };
        Some(record)
    })
}

fn record_at(payload: &[u8], at: usize) -> Result<(Kind, usize, &[u8]), String> {
    let cut = || "a record is cut short".to_owned();
    let header = payload.get(at..at + RECORD_HEADER_BYTES).ok_or_else(cut)?;
    let kind = Kind::of(header[0])
        .ok_or_else(|| format!("a record has the unknown kind {}", header[0]))?;
    let bytes = u32::from_le_bytes(header[1..].try_into().map_err(|_| cut())?) as usize;
    let begins = at + RECORD_HEADER_BYTES;
    let value = payload.get(begins..begins + bytes).ok_or_else(cut)?;
    Ok((kind, begins, value))
}

#[cfg(test)]
mod tests {
    use flott_decoders::{Seeds, kind, told};
    use proptest::prelude::*;

    use super::*;

    const SEAL: Seal = Seal {
        salt: 42,
        segment: 7,
    };

    fn frame(values: &[Vec<u8>], seal: Seal, sequence: u64) -> Vec<u8> {
        let mut builder = FrameBuilder::new();
        for value in values {
            builder.push(Kind::Entry, &[value]);
        }
        builder.seal(seal, sequence).to_vec()
    }

    fn values(frame: Frame<'_>) -> Vec<Vec<u8>> {
        records(frame.payload)
            .map(|record| record.unwrap().2.to_vec())
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn frames_are_read_as_they_were_written(
            first in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..10),
            second in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..10),
        ) {
            let bytes = [frame(&first, SEAL, 1), frame(&second, SEAL, 2)].concat();
            let one = frame_at(&bytes, 0, SEAL).unwrap();
            let two = frame_at(&bytes, one.next, SEAL).unwrap();
            prop_assert_eq!((one.sequence, values(one)), (1, first));
            prop_assert_eq!((two.sequence, values(two)), (2, second));
            prop_assert_eq!(two.next, bytes.len());
        }

        #[test]
        fn a_flipped_bit_in_a_frame_is_noticed(
            value in proptest::collection::vec(any::<u8>(), 1..100),
            at in any::<prop::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let mut bytes = frame(std::slice::from_ref(&value), SEAL, 1);
            let written = HEADER_BYTES + RECORD_HEADER_BYTES + value.len();
            let at = at.index(written);
            // The four bytes after the checksum mean nothing.
            prop_assume!(!(20..24).contains(&at));
            bytes[at] ^= 1 << bit;
            prop_assert!(frame_at(&bytes, 0, SEAL).is_none());
        }
    }

    #[test]
    fn any_bytes_are_frames_and_records_or_nothing() {
        let one = frame(&[b"value".to_vec(), vec![]], SEAL, 1);
        let two = frame(&[vec![7; 300]], SEAL, 2);
        let seeds = [[&one[..], &two].concat(), one, two];
        flott_decoders::check!(Seeds::of(seeds)).for_each(|bytes: &[u8]| {
            // As they are.
            let mut at = 0;
            while let Some(frame) = frame_at(bytes, at, SEAL) {
                assert!(kind(frame.next > at));
                assert!(records(frame.payload).all(|record| record.is_ok()));
                at = frame.next;
            }
            assert_ne!(find_frame(bytes, at, SEAL), Some(at));
            // Where the checksum is right whatever they say.
            let mut builder = FrameBuilder::new();
            builder.0.extend_from_slice(bytes);
            let sealed = builder.seal(SEAL, 1);
            let frame = frame_at(sealed, 0, SEAL).unwrap();
            assert_eq!(frame.payload, bytes);
            let mut end = 0;
            for record in records(frame.payload) {
                match told(record) {
                    Ok((_, begins, value)) => {
                        assert_eq!(begins, end + RECORD_HEADER_BYTES);
                        end = begins + value.len();
                    }
                    Err(error) => assert!(error.starts_with("a record"), "{error}"),
                }
            }
        });
    }

    #[test]
    fn a_frame_of_another_segment_or_directory_is_none() {
        let bytes = frame(&[b"value".to_vec()], SEAL, 1);
        for other in [Seal { segment: 8, ..SEAL }, Seal { salt: 43, ..SEAL }] {
            assert!(frame_at(&bytes, 0, other).is_none());
            assert_eq!(find_frame(&bytes, 0, other), None);
        }
    }

    #[test]
    fn a_frame_behind_damage_is_found() {
        let bytes = [vec![0xee; 64], frame(&[b"value".to_vec()], SEAL, 9)].concat();
        assert_eq!(find_frame(&bytes, 0, SEAL), Some(64));
        assert_eq!(find_frame(&bytes, 72, SEAL), None);
    }
}
