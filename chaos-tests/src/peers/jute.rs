//! ZooKeeper's wire format, as far as the load needs it. Pure.
//!
//! Everything is big-endian; texts and byte arrays begin with their length in four bytes (−1: none). Each message, in both
//! directions, begins with its length in four bytes. A client first says who it is ([`connect`]), and then sends requests,
//! each with a number and a kind, which a session answers in order.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The longest message that a server accepts by default, and sends: its `jute.maxbuffer`.
pub const MESSAGE_BYTES_MAX: usize = 0xf_ffff;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Kind {
    Create = 1,
    GetData = 4,
    SetData = 5,
    Sync = 9,
    Close = -11,
}

/// An error of the server that the load expects: the node is there already.
pub const NODE_EXISTS: i32 = -110;

/// All that an open node allows to anybody.
const PERMISSION_ALL: i32 = 0x1f;

/// The header of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// That of the request.
    pub number: i32,
    /// 0: done.
    pub error: i32,
}

/// A message that is not as the format says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of ZooKeeper that is cut short or malformed")]
pub struct Malformed;

/// The first message of a session that is to end after `timeout_ms` without a sign of life.
pub fn connect(timeout_ms: i32) -> Bytes {
    framed(|out| {
        out.put_i32(0); // the version of the protocol
        out.put_i64(0); // the newest change that the client has seen
        out.put_i32(timeout_ms);
        out.put_i64(0); // a new session
        put_bytes(out, &[0; 16]); // its password
    })
}

/// The answer to [`connect`]: the timeout that holds. 0: the server does not want the session.
pub fn connected(mut message: Bytes) -> Result<i32, Malformed> {
    message.try_get_i32().map_err(|_| Malformed)?;
    message.try_get_i32().map_err(|_| Malformed)
}

/// Makes a node that lasts, open to everybody.
pub fn create(number: i32, path: &str, data: &[u8]) -> Bytes {
    request(number, Kind::Create, |out| {
        put_bytes(out, path.as_bytes());
        put_bytes(out, data);
        out.put_i32(1); // entries of the access list
        out.put_i32(PERMISSION_ALL);
        put_bytes(out, b"world");
        put_bytes(out, b"anyone");
        out.put_i32(0); // neither ephemeral nor sequential
    })
}

/// Sets a node's data, whatever its version.
pub fn set_data(number: i32, path: &str, data: &[u8]) -> Bytes {
    request(number, Kind::SetData, |out| {
        put_bytes(out, path.as_bytes());
        put_bytes(out, data);
        out.put_i32(-1);
    })
}

/// Reads a node's data, without a watch.
pub fn get_data(number: i32, path: &str) -> Bytes {
    request(number, Kind::GetData, |out| {
        put_bytes(out, path.as_bytes());
        out.put_u8(0);
    })
}

/// Lets what follows in this session see all that the leader had decided.
pub fn sync(number: i32, path: &str) -> Bytes {
    request(number, Kind::Sync, |out| put_bytes(out, path.as_bytes()))
}

/// Ends the session.
pub fn close(number: i32) -> Bytes {
    request(number, Kind::Close, |_| {})
}

/// The header of an answer, and what follows it.
pub fn reply(mut message: Bytes) -> Result<(Reply, Bytes), Malformed> {
    let number = message.try_get_i32().map_err(|_| Malformed)?;
    let _change = message.try_get_i64().map_err(|_| Malformed)?;
    let error = message.try_get_i32().map_err(|_| Malformed)?;
    Ok((Reply { number, error }, message))
}

/// The data in the answer to [`get_data`].
pub fn data(mut body: Bytes) -> Result<Bytes, Malformed> {
    take_bytes(&mut body)
}

/// The next whole message of a stream, without its length; `None`: more has to be read.
pub fn next_message(stream: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
    let Some(length) = stream.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| Malformed)?;
    if length > MESSAGE_BYTES_MAX {
        return Err(Malformed);
    }
    if stream.len() < 4 + length {
        return Ok(None);
    }
    stream.advance(4);
    Ok(Some(stream.split_to(length).freeze()))
}

fn request(number: i32, kind: Kind, body: impl FnOnce(&mut BytesMut)) -> Bytes {
    framed(|out| {
        out.put_i32(number);
        out.put_i32(kind as i32);
        body(out);
    })
}

fn framed(message: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i32(0);
    message(&mut out);
    let length = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    out.freeze()
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(bytes.len() as u32);
    out.put_slice(bytes);
}

fn take_bytes(from: &mut Bytes) -> Result<Bytes, Malformed> {
    match from.try_get_i32().map_err(|_| Malformed)? {
        -1 => Ok(Bytes::new()),
        length => {
            let length = usize::try_from(length).map_err(|_| Malformed)?;
            if length > from.len() {
                return Err(Malformed);
            }
            Ok(from.split_to(length))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a request apart as a server would.
    fn server_reads(message: Bytes) -> (i32, i32, Bytes) {
        let mut stream = BytesMut::from(&message[..]);
        let mut body = next_message(&mut stream).unwrap().unwrap();
        assert!(stream.is_empty(), "the length is that of the message");
        (body.get_i32(), body.get_i32(), body)
    }

    #[test]
    fn what_is_written_is_what_a_server_reads() {
        let (number, kind, mut body) = server_reads(set_data(7, "/a", b"value"));
        assert_eq!((number, kind), (7, 5));
        assert_eq!(take_bytes(&mut body).unwrap(), "/a");
        assert_eq!(take_bytes(&mut body).unwrap(), "value");
        assert_eq!((body.get_i32(), body.len()), (-1, 0));

        let (number, kind, mut body) = server_reads(create(1, "/a", b""));
        assert_eq!((number, kind), (1, 1));
        assert_eq!(take_bytes(&mut body).unwrap(), "/a");
        assert_eq!(take_bytes(&mut body).unwrap(), "");
        assert_eq!((body.get_i32(), body.get_i32()), (1, 31));
        assert_eq!(take_bytes(&mut body).unwrap(), "world");
        assert_eq!(take_bytes(&mut body).unwrap(), "anyone");
        assert_eq!((body.get_i32(), body.len()), (0, 0));

        let (_, kind, mut body) = server_reads(get_data(2, "/a"));
        assert_eq!(
            (kind, take_bytes(&mut body).unwrap(), body),
            (4, "/a".into(), "\0".into())
        );
        let (_, kind, mut body) = server_reads(sync(3, "/a"));
        assert_eq!(
            (kind, take_bytes(&mut body).unwrap(), body.len()),
            (9, "/a".into(), 0)
        );
        let (_, kind, body) = server_reads(close(4));
        assert_eq!((kind, body.len()), (-11, 0));
    }

    /// The bytes of a session's beginning, written by hand from the protocol's description.
    #[test]
    fn a_session_begins_with_these_bytes() {
        let mut expected = vec![0, 0, 0, 44];
        expected.extend([0; 4 + 8]);
        expected.extend(10_000_i32.to_be_bytes());
        expected.extend([0; 8]);
        expected.extend([0, 0, 0, 16]);
        expected.extend([0; 16]);
        assert_eq!(connect(10_000), expected);
        let answer = [
            &[0; 4][..],
            &4000_i32.to_be_bytes(),
            &[0; 8],
            &[0, 0, 0, 16],
            &[1; 16],
        ]
        .concat();
        assert_eq!(connected(answer.into()), Ok(4000));
    }

    #[test]
    fn an_answer_gives_its_number_its_error_and_its_data() {
        let mut message = BytesMut::new();
        message.put_i32(7);
        message.put_i64(99);
        message.put_i32(0);
        put_bytes(&mut message, b"value");
        message.put_slice(&[0; 68]); // what the node is
        let (head, body) = reply(message.freeze()).unwrap();
        assert_eq!(
            head,
            Reply {
                number: 7,
                error: 0
            }
        );
        assert_eq!(data(body).unwrap(), "value");
        assert_eq!(data((-1_i32).to_be_bytes().to_vec().into()).unwrap(), "");
    }

    #[test]
    fn a_stream_is_cut_into_messages_wherever_it_was_torn() {
        let whole = [sync(1, "/a"), set_data(2, "/b", b"x")].concat();
        for torn in 0..whole.len() {
            let mut stream = BytesMut::new();
            let mut messages = Vec::new();
            for part in [&whole[..torn], &whole[torn..]] {
                stream.extend_from_slice(part);
                while let Some(message) = next_message(&mut stream).unwrap() {
                    messages.push(message);
                }
            }
            assert_eq!(messages.len(), 2, "torn at {torn}");
            assert_eq!(messages[1], set_data(2, "/b", b"x")[4..]);
        }
    }

    #[test]
    fn nonsense_is_an_error_and_no_panic() {
        assert_eq!(
            next_message(&mut BytesMut::from(&[0xff; 8][..])),
            Err(Malformed)
        );
        assert_eq!(
            next_message(&mut BytesMut::from(&[0x7f; 8][..])),
            Err(Malformed)
        );
        assert_eq!(reply(Bytes::from_static(&[0; 15])), Err(Malformed));
        assert_eq!(connected(Bytes::from_static(&[0; 7])), Err(Malformed));
        assert_eq!(data(Bytes::from_static(&[0, 0, 0, 9, 1])), Err(Malformed));
        assert_eq!(data(Bytes::from_static(&[0x80, 0, 0, 0])), Err(Malformed));
    }
}
