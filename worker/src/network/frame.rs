//! The frames on a data connection: a header of 32 bytes, little endian, and a body.
//!
//! ```text
//! kind u8 | flag u8 | 0 u16 | channel u32 | seq u64 | rows u32 | bytes u32 | body length u32 | crc32c u32
//! ```
//!
//! `seq` numbers the elements of a channel from 1; it is 0 in frames that are no element. `rows` and `bytes` are what the
//! element takes of the credit, or what is granted back. The checksum covers the header before it and the body.
//! Nothing that arrives is trusted: a length or kind that cannot be is an error, never an allocation or a panic.

use crate::Error;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 32;

/// The longest body: a batch is some thousands of rows, so this is far beyond what a sender means to send.
pub const BODY_BYTES_MAX: u32 = 256 << 20;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Body: Arrow IPC stream messages; in a channel's first also the schema.
    Data = 1,
    /// Body: i64.
    Watermark = 2,
    /// The flag says whether idle.
    Idle = 3,
    /// Body: checkpoint u64, base u64, kind u32.
    Barrier = 4,
    EndOfData = 5,
    /// From receiver to sender: rows and bytes of a channel were consumed.
    Credit = 6,
    /// From either end, before it closes in order: the attempt is over on its side.
    Goodbye = 7,
}

impl FrameKind {
    fn from_wire(kind: u8) -> Option<Self> {
        use FrameKind::{Barrier, Credit, Data, EndOfData, Goodbye, Idle, Watermark};
        [Data, Watermark, Idle, Barrier, EndOfData, Credit, Goodbye]
            .into_iter()
            .find(|known| *known as u8 == kind)
    }
}

/// What stands before a frame's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    pub kind: FrameKind,
    pub flag: bool,
    /// Position in the hello's list.
    pub channel: u32,
    pub seq: u64,
    pub rows: u32,
    pub bytes: u32,
    pub body_length: u32,
    pub crc32c: u32,
}

impl FrameHeader {
    /// A frame without a body that is no element of a channel.
    pub fn control(kind: FrameKind, channel: u32) -> Self {
        Self {
            kind,
            flag: false,
            channel,
            seq: 0,
            rows: 0,
            bytes: 0,
            body_length: 0,
            crc32c: 0,
        }
    }

    /// Appends the frame: this header, with length and checksum filled in, and the body.
    pub fn write(mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let length = u32::try_from(body.len())
            .ok()
            .filter(|&length| length <= BODY_BYTES_MAX);
        self.body_length = length.ok_or_else(|| {
            let what = format!("a batch of {} bytes is more than the {BODY_BYTES_MAX} that a frame can hold; use shorter rows", body.len());
            Error::user("data exchange", what)
        })?;
        let head = self.encode();
        self.crc32c = crc32c::crc32c_append(crc32c::crc32c(&head[..HEADER_BYTES - 4]), body);
        out.extend_from_slice(&self.encode());
        out.extend_from_slice(body);
        Ok(())
    }

    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0] = self.kind as u8;
        out[1] = u8::from(self.flag);
        out[4..8].copy_from_slice(&self.channel.to_le_bytes());
        out[8..16].copy_from_slice(&self.seq.to_le_bytes());
        out[16..20].copy_from_slice(&self.rows.to_le_bytes());
        out[20..24].copy_from_slice(&self.bytes.to_le_bytes());
        out[24..28].copy_from_slice(&self.body_length.to_le_bytes());
        out[28..32].copy_from_slice(&self.crc32c.to_le_bytes());
        out
    }

    /// Reads a header. `channels` is how many the hello named.
    pub fn decode(head: &[u8; HEADER_BYTES], channels: u32) -> Result<Self, Error> {
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let malformed = |what: String| Error::Protocol(format!("malformed frame: {what}"));
        let kind =
            FrameKind::from_wire(head[0]).ok_or_else(|| malformed(format!("kind {}", head[0])))?;
        if head[1] > 1 || head[2] != 0 || head[3] != 0 {
            return Err(malformed(format!("flags {:?}", &head[1..4])));
        }
        let header = Self {
            kind,
            flag: head[1] == 1,
            channel: word(4),
            seq: u64::from(word(8)) | u64::from(word(12)) << 32,
            rows: word(16),
            bytes: word(20),
            body_length: word(24),
            crc32c: word(28),
        };
        if header.body_length > BODY_BYTES_MAX {
            return Err(malformed(format!("a body of {} bytes", header.body_length)));
        }
        if kind != FrameKind::Goodbye && header.channel >= channels {
            return Err(malformed(format!(
                "channel {} of {channels}",
                header.channel
            )));
        }
        Ok(header)
    }

    /// Checks the body that came behind this header.
    pub fn check(&self, body: &[u8]) -> Result<(), Error> {
        let head = self.encode();
        let found = crc32c::crc32c_append(crc32c::crc32c(&head[..HEADER_BYTES - 4]), body);
        if found == self.crc32c {
            return Ok(());
        }
        Err(Error::Protocol(format!(
            "frame {} of channel {} is damaged: checksum {found:08x} instead of {:08x}",
            self.seq, self.channel, self.crc32c
        )))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The layout is what another version of a TaskManager reads.
    #[test]
    fn golden_frame() {
        let header = FrameHeader {
            flag: true,
            seq: 0x0102_0304_0506_0708,
            rows: 9,
            bytes: 10,
            ..FrameHeader::control(FrameKind::Barrier, 3)
        };
        let mut out = Vec::new();
        header.write(b"body", &mut out).unwrap();
        let head = [
            4, 1, 0, 0, 3, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1, 9, 0, 0, 0, 10, 0, 0, 0, 4, 0, 0, 0,
        ];
        assert_eq!(out[..28], head);
        assert_eq!(out[32..], *b"body");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn arbitrary_bytes_never_panic_and_damage_is_noticed(head in any::<[u8; HEADER_BYTES]>(), at in 0usize..37, bit in 0u8..8) {
            drop(FrameHeader::decode(&head, 5));
            let mut out = Vec::new();
            FrameHeader { seq: 7, ..FrameHeader::control(FrameKind::Data, 1) }.write(b"hello", &mut out).unwrap();
            out[at] ^= 1 << bit;
            let head: [u8; HEADER_BYTES] = out[..HEADER_BYTES].try_into().unwrap();
            if let Ok(header) = FrameHeader::decode(&head, 5) {
                prop_assert!(header.check(&out[HEADER_BYTES..]).is_err());
            }
        }
    }
}
