//! How a window's aggregates are stored. Stable for ever: checkpoints hold these bytes.
//!
//! A value begins with [`VERSION`]; then each aggregate, in the order of the job as it was when the value was written: how
//! many values it has, and if any, what it holds. A job may have got more aggregates since, behind those. A number is zigzag LEB128, a float 8 bytes little endian, text its length and its bytes.

/// The first byte of every stored value.
pub(super) const VERSION: u8 = 1;

/// The key of a window in the keyed state: its end. Sorts as the windows do.
pub(super) fn window_key(end_ms: i64) -> [u8; 8] {
    (end_ms as u64 ^ (1 << 63)).to_be_bytes()
}

/// The end of the window that has this key; none if no window has it.
pub(super) fn end_of_key(key: &[u8]) -> Option<i64> {
    let flipped = u64::from_be_bytes(key.try_into().ok()?);
    Some((flipped ^ (1 << 63)) as i64)
}

/// Appends a number, in few bytes if it is near zero.
pub(super) fn write_number(value: i128, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 127)) as u128;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Takes a number off the front of `stored`.
pub(super) fn read_number(stored: &mut &[u8]) -> Option<i128> {
    let mut zigzag = 0u128;
    for shift in (0..128).step_by(7) {
        let (&byte, rest) = stored.split_first()?;
        *stored = rest;
        zigzag |= u128::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((zigzag >> 1) as i128 ^ -((zigzag & 1) as i128));
        }
    }
    None
}

/// Appends text or bytes.
pub(super) fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_number(bytes.len() as i128, out);
    out.extend_from_slice(bytes);
}

/// Takes text or bytes off the front of `stored`.
pub(super) fn read_bytes<'s>(stored: &mut &'s [u8]) -> Option<&'s [u8]> {
    let length = usize::try_from(read_number(stored)?).ok()?;
    let (bytes, rest) = stored.split_at_checked(length)?;
    *stored = rest;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_numbers() {
        for (value, expected) in [
            (0, vec![0]),
            (-1, vec![1]),
            (1, vec![2]),
            (64, vec![0x80, 1]),
        ] {
            let mut out = Vec::new();
            write_number(value, &mut out);
            assert_eq!(out, expected, "{value}");
        }
        assert_eq!(window_key(5), [0x80, 0, 0, 0, 0, 0, 0, 5]);
        assert_eq!(end_of_key(&window_key(-7)), Some(-7));
        assert_eq!(end_of_key(b"short"), None);
    }

    proptest! {
        #[test]
        fn numbers_round_trip(value in prop_oneof![any::<i128>(), -300i128..300, Just(i128::MIN)]) {
            let mut out = Vec::new();
            write_number(value, &mut out);
            let mut stored = &out[..];
            prop_assert_eq!(read_number(&mut stored), Some(value));
            prop_assert!(stored.is_empty());
        }

        #[test]
        fn damaged_bytes_are_not_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
            let _ = read_number(&mut &bytes[..]);
            let _ = read_bytes(&mut &bytes[..]);
        }
    }
}
