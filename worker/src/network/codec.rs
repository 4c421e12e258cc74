//! Elements of one channel to frames and back.
//!
//! A batch is the Arrow IPC stream format, cut into one piece a frame: the schema comes with the first batch only, and
//! both ends keep it. So the two ends of a channel live and die together.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use flott_proto::ids::CheckpointId;
use flott_proto::wire::CheckpointKind;

use super::frame::{FrameHeader, FrameKind};
use super::{Barrier, Cost, Element};
use crate::Error;

/// Of a barrier without the directory of a savepoint.
const BARRIER_BYTES: usize = 20;

/// The sending end of a channel.
#[derive(Default)]
pub struct ChannelEncoder {
    seq: u64,
    stream: Option<(SchemaRef, StreamWriter<Vec<u8>>)>,
}

impl fmt::Debug for ChannelEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelEncoder")
            .field("seq", &self.seq)
            .finish_non_exhaustive()
    }
}

impl ChannelEncoder {
    /// Appends the frame of the channel's next element.
    pub fn encode(
        &mut self,
        channel: u32,
        element: &Element,
        cost: Cost,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.seq += 1;
        let header = |kind| FrameHeader {
            seq: self.seq,
            ..FrameHeader::control(kind, channel)
        };
        match element {
            Element::Data(batch) => {
                let header = FrameHeader {
                    rows: saturated(cost.rows),
                    bytes: saturated(cost.bytes),
                    ..header(FrameKind::Data)
                };
                let body = self.encode_batch(batch)?;
                header.write(&body, out)?;
                self.give_buffer_back(body);
                Ok(())
            }
            Element::Watermark(time) => {
                header(FrameKind::Watermark).write(&time.to_le_bytes(), out)
            }
            Element::Idle(idle) => FrameHeader {
                flag: *idle,
                ..header(FrameKind::Idle)
            }
            .write(&[], out),
            Element::Barrier(barrier) => {
                let directory = barrier.savepoint_directory.as_deref().unwrap_or_default();
                let mut body = Vec::with_capacity(BARRIER_BYTES + directory.len());
                body.extend(barrier.checkpoint.0.to_le_bytes());
                body.extend(barrier.base.0.to_le_bytes());
                body.extend((barrier.kind as i32).to_le_bytes());
                body.extend(directory.as_bytes());
                header(FrameKind::Barrier).write(&body, out)
            }
            Element::EndOfData => header(FrameKind::EndOfData).write(&[], out),
        }
    }

    fn encode_batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, Error> {
        let failed = Error::arrow("cannot encode a batch for the network");
        let schema = batch.schema_ref();
        if self.stream.is_none() {
            let writer = match StreamWriter::try_new(Vec::new(), schema) {
                Ok(writer) => writer,
                Err(error) => return Err(failed(error)),
            };
            self.stream = Some((SchemaRef::clone(schema), writer));
        }
        let (first, writer) = self.stream.as_mut().expect("made above");
        if !SchemaRef::ptr_eq(first, schema) && first != schema {
            let what = format!("a channel's schema changed from {first} to {schema}");
            return Err(Error::Protocol(what));
        }
        writer.write(batch).map_err(failed)?;
        Ok(std::mem::take(writer.get_mut()))
    }

    /// The next batch is written into the same memory.
    fn give_buffer_back(&mut self, mut body: Vec<u8>) {
        if let Some((_, writer)) = &mut self.stream {
            body.clear();
            *writer.get_mut() = body;
        }
    }
}

/// Costs travel as u32; a batch beyond that does not fit into a frame either.
fn saturated(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The receiving end of a channel.
#[derive(Debug)]
pub struct ChannelDecoder {
    seq: u64,
    stream: StreamDecoder,
}

impl Default for ChannelDecoder {
    fn default() -> Self {
        Self {
            seq: 0,
            stream: StreamDecoder::new(),
        }
    }
}

impl ChannelDecoder {
    /// The element of a frame whose checksum was right, and what it takes of the credit. A gap in the numbers, or a
    /// body that is not what its header says, is an error.
    pub fn decode(
        &mut self,
        header: &FrameHeader,
        body: Vec<u8>,
    ) -> Result<(Element, Cost), Error> {
        let malformed = |what: &str| {
            Error::Protocol(format!(
                "malformed frame {} of channel {}: {what}",
                header.seq, header.channel
            ))
        };
        if header.seq != self.seq + 1 {
            return Err(malformed(&format!("expected number {}", self.seq + 1)));
        }
        self.seq += 1;
        if header.kind == FrameKind::Data {
            let cost = Cost {
                rows: header.rows.into(),
                bytes: header.bytes.into(),
            };
            let batch = self
                .decode_batch(body)
                .map_err(|error| malformed(&error.to_string()))?;
            let batch = batch.ok_or_else(|| malformed("not exactly one batch"))?;
            if batch.num_rows() as u64 != cost.rows || cost.rows == 0 {
                return Err(malformed(&format!(
                    "{} rows instead of {}",
                    batch.num_rows(),
                    cost.rows
                )));
            }
            return Ok((Element::Data(batch), cost));
        }
        let number = |at: usize| {
            let bytes = body.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u64::from_le_bytes)
        };
        let element = match (header.kind, body.len()) {
            (FrameKind::Watermark, 8) => number(0).map(|time| Element::Watermark(time as i64)),
            (FrameKind::Idle, 0) => Some(Element::Idle(header.flag)),
            (FrameKind::EndOfData, 0) => Some(Element::EndOfData),
            (FrameKind::Barrier, BARRIER_BYTES..) => barrier(&body).map(Element::Barrier),
            _ => None,
        };
        let element = element
            .ok_or_else(|| malformed(&format!("{:?} with {} bytes", header.kind, body.len())))?;
        Ok((element, Cost::default()))
    }

    fn decode_batch(&mut self, body: Vec<u8>) -> Result<Option<RecordBatch>, ArrowError> {
        let mut buffer = Buffer::from_vec(body);
        // Arrow's reader panics upon messages that contradict themselves. Such a one fails its channel, as others do.
        let decoded = catch_unwind(AssertUnwindSafe(|| self.stream.decode(&mut buffer)));
        let contradiction = || ArrowError::IpcError("it contradicts itself".to_owned());
        let batch = decoded.unwrap_or_else(|_| Err(contradiction()))?;
        Ok(batch.filter(|_| buffer.is_empty()))
    }
}

/// The barrier in the body of a frame, if there is one.
fn barrier(body: &[u8]) -> Option<Barrier> {
    let (checkpoint, rest) = body.split_first_chunk()?;
    let (base, rest) = rest.split_first_chunk()?;
    let (kind, directory) = rest.split_first_chunk()?;
    let directory = std::str::from_utf8(directory).ok()?;
    Some(Barrier {
        checkpoint: CheckpointId(u64::from_le_bytes(*checkpoint)),
        base: CheckpointId(u64::from_le_bytes(*base)),
        kind: CheckpointKind::try_from(i32::from_le_bytes(*kind)).ok()?,
        savepoint_directory: (!directory.is_empty()).then(|| directory.into()),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use flott_decoders::{Seeds, kind, told};
    use proptest::prelude::*;

    use super::super::frame::HEADER_BYTES;
    use super::*;

    fn batch(keys: &[i64]) -> RecordBatch {
        let names: StringArray = keys
            .iter()
            .map(|key| (key % 3 != 0).then(|| format!("n{key}")))
            .collect();
        let columns: [(&str, ArrayRef); 2] = [
            ("key", Arc::new(Int64Array::from(keys.to_vec()))),
            ("name", Arc::new(names)),
        ];
        let columns = columns.map(|(name, column)| (name, column, true));
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    }

    fn frames(mut bytes: &[u8]) -> Vec<(FrameHeader, Vec<u8>)> {
        let mut frames = Vec::new();
        while let Some((head, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() {
            let header = FrameHeader::decode(head, 8).unwrap();
            let (body, rest) = rest.split_at(header.body_length as usize);
            header.check(body).unwrap();
            frames.push((header, body.to_vec()));
            bytes = rest;
        }
        frames
    }

    fn element() -> impl Strategy<Value = Element> {
        let barrier = Barrier {
            checkpoint: CheckpointId(9),
            base: CheckpointId(8),
            kind: CheckpointKind::Savepoint,
            savepoint_directory: Some("s3://bucket/savepoint-9".into()),
        };
        let checkpoint = Barrier {
            kind: CheckpointKind::Checkpoint,
            savepoint_directory: None,
            ..barrier.clone()
        };
        prop_oneof![
            prop::collection::vec(0i64..100, 1..20).prop_map(|keys| Element::Data(batch(&keys))),
            prop::collection::vec(0i64..100, 5..20)
                .prop_map(|keys| Element::Data(batch(&keys).slice(2, 3))),
            any::<i64>().prop_map(Element::Watermark),
            any::<bool>().prop_map(Element::Idle),
            Just(Element::Barrier(barrier)),
            Just(Element::Barrier(checkpoint)),
            Just(Element::EndOfData),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn what_was_sent_arrives_in_order(elements in prop::collection::vec(element(), 1..12)) {
            let (mut encoder, mut decoder) = (ChannelEncoder::default(), ChannelDecoder::default());
            let mut wire = Vec::new();
            for element in &elements {
                encoder.encode(4, element, element.cost(), &mut wire).unwrap();
            }
            let mut arrived = Vec::new();
            for (header, body) in frames(&wire) {
                let (element, cost) = decoder.decode(&header, body).unwrap();
                prop_assert_eq!(cost.rows, element.cost().rows);
                arrived.push(element);
            }
            prop_assert_eq!(arrived, elements);
        }

        #[test]
        fn a_body_of_any_bytes_is_an_error_and_never_a_panic(body in prop::collection::vec(any::<u8>(), 0..200), kind in 1u8..6) {
            let mut head = [0; HEADER_BYTES];
            (head[0], head[8], head[16]) = (kind, 1, 1);
            let header = FrameHeader::decode(&head, 8).unwrap();
            drop(ChannelDecoder::default().decode(&header, body));
        }
    }

    /// Arrow's reader trusts the types, counts and offsets that a message names.
    #[test]
    fn a_batch_that_contradicts_itself_is_an_error() {
        let mut wire = Vec::new();
        let element = Element::Data(batch(&[1, 2, 3]));
        ChannelEncoder::default()
            .encode(0, &element, element.cost(), &mut wire)
            .unwrap();
        let (header, body) = frames(&wire).remove(0);
        let mut refused = 0;
        for at in 0..body.len() {
            for byte in [0, 1, 0x7F, 0x80, 0xFF] {
                let mut body = body.clone();
                body[at] = byte;
                refused += u32::from(ChannelDecoder::default().decode(&header, body).is_err());
            }
        }
        assert!(refused > 100, "{refused}");
    }

    /// As a whole connection sends them, and where the checksum of each is right whatever it says.
    #[test]
    fn any_bytes_are_elements_or_refused() {
        let mut encoder = ChannelEncoder::default();
        let mut wire = Vec::new();
        let barrier = Barrier {
            checkpoint: CheckpointId(9),
            base: CheckpointId(8),
            kind: CheckpointKind::Savepoint,
            savepoint_directory: Some("s3://bucket/savepoint-9".into()),
        };
        let mut seeds = Vec::new();
        for element in [
            Element::Data(batch(&[1, 2, 3])),
            Element::Data(batch(&[3, 4])),
            Element::Watermark(7),
            Element::Idle(true),
            Element::Barrier(barrier),
            Element::EndOfData,
        ] {
            encoder
                .encode(0, &element, element.cost(), &mut wire)
                .unwrap();
            seeds.push(wire.clone());
        }
        flott_decoders::check!(Seeds::of(seeds)).for_each(|mut bytes: &[u8]| {
            let mut decoder = ChannelDecoder::default();
            while let Some((head, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() {
                let Ok(header) = told(FrameHeader::decode(head, 8)) else {
                    return;
                };
                kind(header.kind);
                let length = (header.body_length as usize).min(rest.len());
                let (body, rest) = rest.split_at(length);
                let mut sealed = Vec::new();
                header.write(body, &mut sealed).unwrap();
                let head = sealed.first_chunk().unwrap();
                let header = FrameHeader::decode(head, 8).unwrap();
                header.check(body).unwrap();
                match told(decoder.decode(&header, body.to_vec())) {
                    Ok((Element::Data(batch), cost)) => {
                        assert_eq!(batch.num_rows() as u64, cost.rows);
                        // Whatever it holds can be looked at.
                        drop(format!("{batch:?}"));
                    }
                    Ok(_) => {}
                    Err(error) => {
                        assert!(error.to_string().contains("malformed frame"), "{error}");
                        return;
                    }
                }
                bytes = rest;
            }
        });
    }

    #[test]
    fn a_gap_fails_the_channel() {
        let mut encoder = ChannelEncoder::default();
        let mut wire = Vec::new();
        for time in 0..3 {
            encoder
                .encode(0, &Element::Watermark(time), Cost::default(), &mut wire)
                .unwrap();
        }
        let frames = frames(&wire);
        let mut decoder = ChannelDecoder::default();
        decoder.decode(&frames[0].0, frames[0].1.clone()).unwrap();
        let error = decoder
            .decode(&frames[2].0, frames[2].1.clone())
            .unwrap_err();
        assert!(error.to_string().contains("expected number 2"), "{error}");
    }

    #[test]
    fn the_schema_crosses_once() {
        let mut encoder = ChannelEncoder::default();
        let mut sizes = Vec::new();
        for _ in 0..2 {
            let mut wire = Vec::new();
            let element = Element::Data(batch(&[1, 2]));
            encoder
                .encode(0, &element, element.cost(), &mut wire)
                .unwrap();
            sizes.push(wire.len());
        }
        assert!(sizes[1] < sizes[0], "{sizes:?}");
    }
}
