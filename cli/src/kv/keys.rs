//! Which keys a request means.

use bytes::Bytes;
use flott_proto::wire::KvKeys;

/// The `end` of a range that goes to the last key.
const TO_THE_LAST: &[u8] = &[0];

/// Exactly this key.
pub fn one(key: impl Into<Bytes>) -> KvKeys {
    KvKeys {
        start: key.into(),
        end: Bytes::new(),
    }
}

/// All keys that begin with `prefix`; with an empty one, all keys.
pub fn prefix(prefix: impl Into<Bytes>) -> KvKeys {
    let start = prefix.into();
    let mut end = start.to_vec();
    while end.last() == Some(&u8::MAX) {
        end.pop();
    }
    let end = match end.last_mut() {
        Some(last) => {
            *last += 1;
            Bytes::from(end)
        }
        None => Bytes::from_static(TO_THE_LAST),
    };
    KvKeys { start, end }
}

/// What is left of a range behind `key`.
pub fn behind(keys: &KvKeys, key: &[u8]) -> KvKeys {
    KvKeys {
        start: [key, &[0]].concat().into(),
        end: keys.end.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_key_that_does_not_begin_with_it() {
        let cases: [(&[u8], &[u8]); 5] = [
            (b"a/", b"a0"),
            (b"", b"\0"),
            (b"a\xff", b"b"),
            (b"\xff\xff", b"\0"),
            (b"a\xfe", b"a\xff"),
        ];
        for (start, end) in cases {
            let keys = prefix(start.to_vec());
            assert_eq!((&keys.start[..], &keys.end[..]), (start, end));
        }
    }

    #[test]
    fn the_rest_of_a_range_begins_right_behind_the_key() {
        let rest = behind(&prefix("a/"), b"a/1");
        assert_eq!(
            (&rest.start[..], &rest.end[..]),
            (&b"a/1\0"[..], &b"a0"[..])
        );
    }
}
