//! Civil dates and times of day as numbers since 1970, and their text. Proleptic Gregorian, years 0000 to 9999, no
//! time zone, no leap seconds.
//!
//! The conversion between days and civil dates follows Howard Hinnant, "chrono-compatible low-level date algorithms":
//! years begin in March, so that the leap day is a year's last.

/// A moment without time zone: seconds since 1970-01-01T00:00:00, and the nanoseconds above them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    pub seconds: i64,
    /// Below 1,000,000,000.
    pub nanos: u32,
}

const SECONDS_PER_DAY: i64 = 86_400;
const DAYS_PER_ERA: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const DAYS_TO_EPOCH: i64 = 719_468;

/// Days since 1970-01-01 of a civil date, `None` if there is no such date.
pub fn days_of(year: i64, month: u32, day: u32) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        _ => return None,
    };
    if !(1..=days_in_month).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * DAYS_PER_ERA + day_of_era - DAYS_TO_EPOCH)
}

/// Year, month and day of a number of days since 1970-01-01.
pub fn date_of(days: i64) -> (i64, u32, u32) {
    let days = days + DAYS_TO_EPOCH;
    let era = days.div_euclid(DAYS_PER_ERA);
    let day_of_era = days.rem_euclid(DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u32;
    let month = ((month_from_march + 2) % 12 + 1) as u32;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// `2013-01-31` as days since 1970-01-01.
pub fn parse_date(text: &[u8]) -> Option<i32> {
    let (year, month, day) = match text {
        [y @ .., b'-', m1, m2, b'-', d1, d2] if y.len() == 4 => {
            (number(y)?, number(&[*m1, *m2])?, number(&[*d1, *d2])?)
        }
        _ => return None,
    };
    days_of(i64::from(year), month, day).and_then(|days| i32::try_from(days).ok())
}

/// `2013-01-31T05:00:00.123`: `T` or a space between date and time, seconds and fraction optional. Digits of the
/// fraction beyond the ninth are dropped.
pub fn parse_moment(text: &[u8]) -> Option<Moment> {
    let (date, rest) = text.split_at_checked(10)?;
    let (separator, time) = rest.split_first()?;
    if !matches!(separator, b'T' | b't' | b' ') {
        return None;
    }
    let days = i64::from(parse_date(date)?);
    let (hour, minute, rest) = match time {
        [h1, h2, b':', m1, m2, rest @ ..] => (number(&[*h1, *h2])?, number(&[*m1, *m2])?, rest),
        _ => return None,
    };
    let (second, fraction) = match rest {
        [] => (0, &[][..]),
        [b':', s1, s2] => (number(&[*s1, *s2])?, &[][..]),
        [b':', s1, s2, b'.', fraction @ ..] if !fraction.is_empty() => {
            (number(&[*s1, *s2])?, fraction)
        }
        _ => return None,
    };
    if hour > 23 || minute > 59 || second > 59 || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = &fraction[..fraction.len().min(9)];
    let nanos = digits
        .iter()
        .fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0'))
        * 10u32.pow(9 - digits.len() as u32);
    let of_day = i64::from(hour * 3600 + minute * 60 + second);
    Some(Moment {
        seconds: days * SECONDS_PER_DAY + of_day,
        nanos,
    })
}

/// Appends `2013-01-31`.
pub fn write_date(days: i64, out: &mut Vec<u8>) {
    let (year, month, day) = date_of(days);
    if (0..=9999).contains(&year) {
        write_digits(year as u32, 4, out);
    } else {
        out.extend_from_slice(year.to_string().as_bytes());
    }
    out.push(b'-');
    write_digits(month, 2, out);
    out.push(b'-');
    write_digits(day, 2, out);
}

/// Appends `2013-01-31 05:00:00`, with that separator, and a fraction without trailing zeros if it is not zero.
pub fn write_moment(moment: Moment, separator: u8, out: &mut Vec<u8>) {
    write_date(moment.seconds.div_euclid(SECONDS_PER_DAY), out);
    let of_day = moment.seconds.rem_euclid(SECONDS_PER_DAY) as u32;
    out.push(separator);
    write_digits(of_day / 3600, 2, out);
    out.push(b':');
    write_digits(of_day / 60 % 60, 2, out);
    out.push(b':');
    write_digits(of_day % 60, 2, out);
    if moment.nanos != 0 {
        out.push(b'.');
        let (mut fraction, mut digits) = (moment.nanos, 9);
        while fraction % 10 == 0 {
            fraction /= 10;
            digits -= 1;
        }
        write_digits(fraction, digits, out);
    }
}

fn write_digits(number: u32, digits: u32, out: &mut Vec<u8>) {
    for place in (0..digits).rev() {
        out.push(b'0' + (number / 10u32.pow(place) % 10) as u8);
    }
}

/// A number of a few ASCII digits.
fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |number, digit| {
        let digit = digit.wrapping_sub(b'0');
        (digit <= 9).then(|| number * 10 + u32::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(moment: Moment) -> String {
        let mut out = Vec::new();
        write_moment(moment, b' ', &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn known_moments() {
        for (written, seconds, nanos) in [
            ("1970-01-01 00:00:00", 0, 0),
            ("2013-01-01 05:00:00", 1_357_016_400, 0),
            ("2000-02-29 23:59:59.5", 951_868_799, 500_000_000),
            ("1969-12-31 23:59:59.000000001", -1, 1),
            ("0000-01-01 00:00:00", -62_167_219_200, 0),
            ("9999-12-31 00:00:00", 253_402_214_400, 0),
        ] {
            let moment = Moment { seconds, nanos };
            assert_eq!(parse_moment(written.as_bytes()), Some(moment), "{written}");
            assert_eq!(text(moment), written);
        }
        let without_seconds = parse_moment(b"2013-01-01T05:00");
        assert_eq!(without_seconds.map(|m| m.seconds), Some(1_357_016_400));
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for bad in [
            "",
            "2013-01-01",
            "2013-02-29 00:00:00",
            "2013-13-01 00:00:00",
            "2013-00-10 00:00:00",
            "2013-01-01 24:00:00",
            "2013-01-01 00:60:00",
            "2013-01-01 00:00:60",
            "2013-01-01 00:00:00.",
            "2013-01-01 00:00:00Z",
            "2013-01-01_00:00:00",
            "13-01-01 00:00:00",
            "2013-1-01 00:00:00",
            "2013-01-01 0x:00:00",
            "2013-01-01 00:00:00.1x",
        ] {
            assert_eq!(parse_moment(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn text_and_numbers_round_trip(seconds in -62_167_219_200i64..253_402_300_800, nanos in 0u32..1_000_000_000) {
            let moment = Moment { seconds, nanos };
            prop_assert_eq!(parse_moment(text(moment).as_bytes()), Some(moment));
        }

        #[test]
        fn days_and_dates_are_inverse(days in -719_528i64..2_932_896) {
            let (year, month, day) = date_of(days);
            prop_assert_eq!(days_of(year, month, day), Some(days));
            let (next_year, next_month, next_day) = date_of(days + 1);
            prop_assert!((next_year, next_month, next_day) > (year, month, day));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse_moment(&text);
            let _ = parse_date(&text);
        }
    }
}
