//! Values as text: numbers, decimals, base64. Dates and times are in `time::calendar`.

use crate::time::calendar::Moment;

/// A whole number.
pub(super) fn parse_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    // Downwards, because the least number has no positive counterpart.
    let negated = digits.iter().try_fold(0i64, |number, digit| {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_sub(i64::from(digit))
    })?;
    if negative {
        Some(negated)
    } else {
        negated.checked_neg()
    }
}

/// A number with a fraction or an exponent.
pub(super) fn parse_float(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `true` or `false` in any case.
pub(super) fn parse_boolean(text: &[u8]) -> Option<bool> {
    if text.eq_ignore_ascii_case(b"true") {
        Some(true)
    } else if text.eq_ignore_ascii_case(b"false") {
        Some(false)
    } else {
        None
    }
}

/// The unscaled value of a decimal. Digits beyond the scale round half away from zero, as in Flink.
pub(super) fn parse_decimal(text: &[u8], precision: u8, scale: u8) -> Option<i128> {
    let (negative, rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let point = rest
        .iter()
        .position(|byte| *byte == b'.')
        .unwrap_or(rest.len());
    let (whole, fraction) = (&rest[..point], rest.get(point + 1..).unwrap_or_default());
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    if !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return None;
    }
    let scale = usize::from(scale);
    let zeros = std::iter::repeat_n(&b'0', scale.saturating_sub(fraction.len()));
    let kept = &fraction[..fraction.len().min(scale)];
    let mut value = whole
        .iter()
        .chain(kept)
        .chain(zeros)
        .try_fold(0i128, |value, digit| {
            value.checked_mul(10)?.checked_add(i128::from(digit - b'0'))
        })?;
    if fraction.get(scale).is_some_and(|digit| *digit >= b'5') {
        value += 1;
    }
    let fits = value < 10i128.pow(precision.into());
    fits.then_some(if negative { -value } else { value })
}

/// Appends a decimal's text.
pub(super) fn write_decimal(unscaled: i128, scale: i8, out: &mut Vec<u8>) {
    let scale = usize::try_from(scale).unwrap_or(0);
    if unscaled < 0 {
        out.push(b'-');
    }
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    out.extend_from_slice(whole.as_bytes());
    if scale > 0 {
        out.push(b'.');
        out.extend_from_slice(fraction.as_bytes());
    }
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends bytes as base64 with padding.
pub(super) fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.chunks(3) {
        let at = |place: usize| u32::from(chunk.get(place).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            if place <= chunk.len() {
                out.push(BASE64[(bits >> (18 - 6 * place)) as usize & 63]);
            } else {
                out.push(b'=');
            }
        }
    }
}

/// The bytes of base64 with padding.
pub(super) fn parse_base64(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = text
        .strip_suffix(b"==")
        .or_else(|| text.strip_suffix(b"="))
        .unwrap_or(text);
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for chunk in digits.chunks(4) {
        let mut bits = 0u32;
        for place in 0..4 {
            let digit = match chunk.get(place) {
                Some(digit) => BASE64.iter().position(|known| known == digit)?,
                None => 0,
            };
            bits = bits << 6 | digit as u32;
        }
        let triple = bits.to_be_bytes();
        bytes.extend_from_slice(&triple[1..chunk.len()]);
    }
    Some(bytes)
}

/// A moment in units of which there are that many in a second; `None` if it is out of range.
pub(super) fn moment_in_units(moment: Moment, per_second: i64) -> Option<i64> {
    let fraction = i64::from(moment.nanos) / (1_000_000_000 / per_second);
    moment
        .seconds
        .checked_mul(per_second)?
        .checked_add(fraction)
}

/// The inverse of [`moment_in_units`].
pub(crate) fn moment_of_units(value: i64, per_second: i64) -> Moment {
    let fraction = value.rem_euclid(per_second) * (1_000_000_000 / per_second);
    Moment {
        seconds: value.div_euclid(per_second),
        nanos: fraction as u32,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers_at_the_edges() {
        assert_eq!(parse_integer(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_integer(b"+9223372036854775807"), Some(i64::MAX));
        for bad in [
            "9223372036854775808",
            "",
            "-",
            "1.0",
            "1e3",
            "0x1",
            "--1",
            "1 ",
        ] {
            assert_eq!(parse_integer(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn decimals_round_half_away_from_zero_and_keep_their_precision() {
        for (text, expected) in [
            ("1.5", Some(150)),
            ("-1.005", Some(-101)),
            (".5", Some(50)),
            ("999.994", Some(99_999)),
            ("999.995", None),
            ("1000", None),
            (".", None),
            ("1.2.3", None),
            ("", None),
        ] {
            assert_eq!(parse_decimal(text.as_bytes(), 5, 2), expected, "{text:?}");
        }
        let mut out = Vec::new();
        write_decimal(-5, 2, &mut out);
        assert_eq!(out, b"-0.05");
    }

    proptest! {
        #[test]
        fn decimals_round_trip(value in -99_999_999i128..=99_999_999, scale in 0u8..=8) {
            let mut out = Vec::new();
            write_decimal(value, scale as i8, &mut out);
            prop_assert_eq!(parse_decimal(&out, 8, scale), Some(value));
        }

        #[test]
        fn base64_round_trips(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut out = Vec::new();
            write_base64(&bytes, &mut out);
            prop_assert_eq!(parse_base64(&out), Some(bytes));
        }

        #[test]
        fn no_base64_makes_the_parser_panic(text in "[A-D=+*]{0,9}") {
            let _ = parse_base64(text.as_bytes());
        }

        #[test]
        fn integers_round_trip(value in any::<i64>()) {
            prop_assert_eq!(parse_integer(value.to_string().as_bytes()), Some(value));
        }
    }
}
