//! The content of an object with channel state: a `flott.v1.ChannelState`, whose elements are framed as they are on a data
//! connection. What is read was written by somebody else, perhaps badly: whatever it is, it is an error and no panic.

use flott_proto::Malformed;
use flott_proto::ids::SubtaskId;
use flott_proto::wire;
use prost::Message;

use super::{ChannelContent, ChannelState};
use crate::Error;
use crate::network::Element;
use crate::network::codec::{ChannelDecoder, ChannelEncoder};
use crate::network::frame::{FrameHeader, HEADER_BYTES};

/// The subtask whose channel state an object is, and how many of it there were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub subtask: SubtaskId,
    pub parallelism: u32,
}

/// The bytes of the object.
pub fn encode(owner: &Owner, state: &ChannelState) -> Result<Vec<u8>, Error> {
    let contents = |contents: &[ChannelContent]| {
        let stored = contents
            .iter()
            .filter(|content| !content.elements.is_empty());
        stored.map(content_to_wire).collect::<Result<_, _>>()
    };
    let wire = wire::ChannelState {
        vertex: owner.subtask.vertex.to_string(),
        subtask: owner.subtask.subtask,
        parallelism: owner.parallelism,
        input: contents(&state.input)?,
        output: contents(&state.output)?,
    };
    Ok(wire.encode_to_vec())
}

/// What [`encode`] was given, but for contents without elements.
pub fn decode(bytes: &[u8]) -> Result<(Owner, ChannelState), Error> {
    let malformed = |what: String| Error::from(Malformed::new("channel state", what));
    let wire = wire::ChannelState::decode(bytes).map_err(|error| malformed(error.to_string()))?;
    let contents = |contents: Vec<wire::ChannelContent>| {
        let contents = contents.into_iter().map(content_from_wire);
        contents.collect::<Result<Vec<_>, Error>>()
    };
    let owner = Owner {
        subtask: SubtaskId {
            vertex: wire.vertex.parse()?,
            subtask: wire.subtask,
        },
        parallelism: wire.parallelism,
    };
    if owner.subtask.subtask >= owner.parallelism {
        return Err(malformed(format!(
            "of {}, of which there are {}",
            owner.subtask, owner.parallelism
        )));
    }
    let state = ChannelState {
        input: contents(wire.input)?,
        output: contents(wire.output)?,
    };
    Ok((owner, state))
}

fn content_to_wire(content: &ChannelContent) -> Result<wire::ChannelContent, Error> {
    let mut encoder = ChannelEncoder::default();
    let mut frames = Vec::new();
    for element in &content.elements {
        assert!(
            element.is_stored(),
            "{element:?} is said again after a restore"
        );
        encoder.encode(0, element, element.cost(), &mut frames)?;
    }
    Ok(wire::ChannelContent {
        peer_vertex: content.peer.to_string(),
        peer_subtask: content.peer_subtask,
        peer_parallelism: content.peer_parallelism,
        frames: frames.into(),
    })
}

fn content_from_wire(wire: wire::ChannelContent) -> Result<ChannelContent, Error> {
    Ok(ChannelContent {
        peer: wire.peer_vertex.parse()?,
        peer_subtask: wire.peer_subtask,
        peer_parallelism: wire.peer_parallelism,
        elements: elements(&wire.frames)?,
    })
}

fn elements(mut frames: &[u8]) -> Result<Vec<Element>, Error> {
    let malformed = |what: &str| Error::from(Malformed::new("channel state", what));
    let mut decoder = ChannelDecoder::default();
    let mut elements = Vec::new();
    while !frames.is_empty() {
        let cut = || malformed("ends within a frame");
        let (head, rest) = frames.split_first_chunk::<HEADER_BYTES>().ok_or_else(cut)?;
        let header = FrameHeader::decode(head, 1)?;
        let length = header.body_length as usize;
        let (body, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
        header.check(body)?;
        let (element, _) = decoder.decode(&header, body.to_vec())?;
        if !element.is_stored() {
            return Err(malformed("has an element that is no row and no watermark"));
        }
        elements.push(element);
        frames = rest;
    }
    Ok(elements)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::record_batch::RecordBatch;
    use flott_decoders::Seeds;
    use proptest::prelude::*;

    use super::*;

    fn owner() -> Owner {
        Owner {
            subtask: SubtaskId {
                vertex: "v".parse().unwrap(),
                subtask: 1,
            },
            parallelism: 2,
        }
    }

    fn content(elements: Vec<Element>) -> ChannelContent {
        ChannelContent {
            peer: "u".parse().unwrap(),
            peer_subtask: 3,
            peer_parallelism: 4,
            elements,
        }
    }

    fn rows(keys: &[i64]) -> Element {
        let column: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
        Element::Data(RecordBatch::try_from_iter([("key", column)]).unwrap())
    }

    fn state(keys: &[i64]) -> ChannelState {
        ChannelState {
            input: vec![content(vec![rows(keys), Element::Watermark(7), rows(&[1])])],
            output: vec![
                content(vec![Element::Watermark(-7)]),
                content(vec![rows(keys)]),
            ],
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_was_stored_is_read_and_damage_is_an_error(
            keys in prop::collection::vec(any::<i64>(), 1..50), at in any::<prop::sample::Index>(), bit in 0u8..8
        ) {
            let state = state(&keys);
            let mut bytes = encode(&owner(), &state).unwrap();
            prop_assert_eq!(decode(&bytes).unwrap(), (owner(), state.clone()));
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            // The object's checksum finds it all; here it must not panic, and rows must not differ.
            if let Ok((_, read)) = decode(&bytes) {
                for (read, written) in read.input.iter().zip(&state.input) {
                    prop_assert!(read.elements.is_empty() || read.elements == written.elements);
                }
            }
            drop(decode(&bytes[..at]));
        }
    }

    /// The same object, with the checksums of its frames right whatever they say.
    fn sealed(bytes: &[u8]) -> Option<Vec<u8>> {
        let mut wire = wire::ChannelState::decode(bytes).ok()?;
        for content in wire.input.iter_mut().chain(&mut wire.output) {
            let mut frames = &content.frames[..];
            let mut sealed = Vec::new();
            while let Some((head, rest)) = frames.split_first_chunk::<HEADER_BYTES>() {
                let header = FrameHeader::decode(head, 1).ok()?;
                let (body, rest) = rest.split_at_checked(header.body_length as usize)?;
                header.write(body, &mut sealed).ok()?;
                frames = rest;
            }
            content.frames = sealed.into();
        }
        Some(wire.encode_to_vec())
    }

    #[test]
    fn any_bytes_are_channel_state_or_refused() {
        let empty = encode(&owner(), &ChannelState::default()).unwrap();
        let seeds = Seeds::of([encode(&owner(), &state(&[1, 2, 3])).unwrap(), empty]);
        flott_decoders::check!(seeds).for_each(|bytes: &[u8]| {
            for bytes in [Some(bytes.to_vec()), sealed(bytes)].into_iter().flatten() {
                match flott_decoders::told(decode(&bytes)) {
                    Ok((owner, state)) => {
                        assert!(!encode(&owner, &state).unwrap().is_empty());
                        assert!(state.is_empty() || state.cost().rows < u64::MAX);
                    }
                    Err(error) => assert!(!error.to_string().is_empty()),
                }
            }
        });
    }

    #[test]
    fn only_rows_and_watermarks_are_accepted() {
        let mut frames = Vec::new();
        let element = Element::EndOfData;
        ChannelEncoder::default()
            .encode(0, &element, element.cost(), &mut frames)
            .unwrap();
        assert!(elements(&frames).is_err());
        assert!(elements(&frames[..5]).is_err());
    }
}
