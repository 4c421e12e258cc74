//! Until when a certificate is valid: the one thing in it that rustls checks and does not tell. Pure.
//!
//! ```text
//! Certificate  SEQUENCE { TBSCertificate SEQUENCE { [0] version, INTEGER serial, SEQUENCE algorithm, SEQUENCE issuer,
//!                                                   SEQUENCE validity { time notBefore, time notAfter }, … } … }
//! ```
//!
//! Only for showing and warning: whether a certificate *is* valid, rustls decides.

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const EXPLICIT_0: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Seconds since the epoch at which the certificate expires; None if the bytes are no certificate.
pub(super) fn not_after(certificate: &[u8]) -> Option<i64> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (mut rest, _) = element(certificate, SEQUENCE)?;
    if let Some((_, after)) = element(rest, EXPLICIT_0) {
        rest = after;
    }
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        (_, rest) = element(rest, tag)?;
    }
    let (validity, _) = element(rest, SEQUENCE)?;
    let (_, after) = any(validity)?;
    let (tag, time, _) = {
        let (time, rest) = any(after)?;
        (*after.first()?, time, rest)
    };
    seconds(tag, time)
}

/// The contents of the first element and what follows it, if it has that tag.
fn element(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    any(input).filter(|_| input.first() == Some(&tag))
}

fn any(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = input.get(1..)?.split_first()?;
    let (length, rest) = match usize::from(first) {
        short @ ..0x80 => (short, rest),
        long => {
            // More bytes of length than these would be more than memory.
            let count = Some(long - 0x80).filter(|count| (1..=4).contains(count))?;
            let (bytes, rest) = rest.split_at_checked(count)?;
            let length = bytes
                .iter()
                .fold(0, |length, byte| length << 8 | usize::from(*byte));
            (length, rest)
        }
    };
    rest.split_at_checked(length)
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`, the only forms that RFC 5280 allows.
fn seconds(tag: u8, time: &[u8]) -> Option<i64> {
    let digits = time.strip_suffix(b"Z")?;
    let mut fields = [0i64; 7];
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let two = |pair: &[u8]| i64::from(pair[0] - b'0') * 10 + i64::from(pair[1] - b'0');
    let years = match (tag, digits.len()) {
        (UTC_TIME, 12) => 1,
        (GENERALIZED_TIME, 14) => 2,
        _ => return None,
    };
    for (field, pair) in fields.iter_mut().zip(digits.chunks_exact(2)) {
        *field = two(pair);
    }
    let year = match years {
        1 if fields[0] < 50 => 2000 + fields[0],
        1 => 1900 + fields[0],
        _ => fields[0] * 100 + fields[1],
    };
    let [month, day, hour, minute, second] =
        <[i64; 5]>::try_from(&fields[years..years + 5]).ok()?;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days since 1970-01-01, counting years from 1 March so that the leap day is the last of a year.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_time_are_read() {
        for (tag, text, expected) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "000229000000Z", Some(951_782_400)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000)),
            (GENERALIZED_TIME, "21000301000000Z", Some(4_107_542_400)),
            (GENERALIZED_TIME, "700101000000Z", None),
            (UTC_TIME, "700101000000", None),
            (UTC_TIME, "701301000000Z", None),
            (UTC_TIME, "7001010000x0Z", None),
            (INTEGER, "700101000000Z", None),
        ] {
            assert_eq!(seconds(tag, text.as_bytes()), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let _ = not_after(&bytes);
            let mut nested = vec![SEQUENCE, bytes.len() as u8, SEQUENCE];
            nested.extend(&bytes);
            let _ = not_after(&nested);
        }
    }
}
