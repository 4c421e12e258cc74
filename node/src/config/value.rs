//! The types that a setting can have, and how each is written: Flink's notations, parsed here and nowhere else.

use std::path::PathBuf;
use std::time::Duration;

/// A type that a setting can have.
pub trait ConfigValue: Sized {
    /// What a value looks like, to complete "expected …".
    const EXPECTED: &'static str;

    /// The value that `text` stands for, if it stands for one. Blanks around it do not matter.
    fn parse(text: &str) -> Option<Self>;

    /// Whether `text` stands for a value.
    fn is_valid(text: &str) -> bool {
        Self::parse(text).is_some()
    }
}

/// An amount of memory or storage in bytes. `64mb`, `1g`, `512 kb`; units are powers of 1024, as in Flink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemorySize(pub u64);

impl MemorySize {
    pub fn bytes(self) -> u64 {
        self.0
    }
}

/// A duration that Flink writes as a bare number of seconds; with a unit it is a duration like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub Duration);

/// How a failed job is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartStrategyType {
    /// A failure of a task is the end of the job.
    None,
    FixedDelay,
    ExponentialDelay,
    FailureRate,
}

/// What becomes of the savepoint that a job starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimMode {
    /// It stays the user's.
    NoClaim,
    /// It becomes the job's, which deletes it when it needs it no more.
    Claim,
}

impl std::fmt::Display for ClaimMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoClaim => "NO_CLAIM",
            Self::Claim => "CLAIM",
        })
    }
}

/// Where keyed state is while a task runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateBackendType {
    /// On disk, with a cache in memory.
    RocksDb,
    /// In memory, as long as it fits.
    HashMap,
}

impl ConfigValue for String {
    const EXPECTED: &'static str = "text";
    fn parse(text: &str) -> Option<Self> {
        Some(text.trim().to_owned())
    }
}

impl ConfigValue for PathBuf {
    const EXPECTED: &'static str = "a path";
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self::from(text))
    }
}

impl ConfigValue for bool {
    const EXPECTED: &'static str = "`true` or `false`";
    fn parse(text: &str) -> Option<Self> {
        text.trim().to_ascii_lowercase().parse().ok()
    }
}

impl ConfigValue for u16 {
    const EXPECTED: &'static str = "a number from 0 to 65535";
    fn parse(text: &str) -> Option<Self> {
        text.trim().parse().ok()
    }
}

impl ConfigValue for u32 {
    const EXPECTED: &'static str = "a whole number from 0 to 4294967295";
    fn parse(text: &str) -> Option<Self> {
        text.trim().parse().ok()
    }
}

impl ConfigValue for u64 {
    const EXPECTED: &'static str = "a whole number, not negative";
    fn parse(text: &str) -> Option<Self> {
        text.trim().parse().ok()
    }
}

/// `None` is no limit.
impl ConfigValue for Option<u32> {
    const EXPECTED: &'static str = "a whole number from 0 to 4294967295, or `infinite`";
    fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "infinite" => Some(None),
            number => number.parse().ok().map(Some),
        }
    }
}

impl ConfigValue for f64 {
    const EXPECTED: &'static str = "a number";
    fn parse(text: &str) -> Option<Self> {
        text.trim()
            .parse()
            .ok()
            .filter(|number: &Self| number.is_finite())
    }
}

/// Separated by commas (or, as in Flink, semicolons); empty members do not count.
impl ConfigValue for Vec<String> {
    const EXPECTED: &'static str = "texts separated by commas";
    fn parse(text: &str) -> Option<Self> {
        let members = text
            .split([',', ';'])
            .map(str::trim)
            .filter(|member| !member.is_empty());
        Some(members.map(str::to_owned).collect())
    }
}

impl ConfigValue for RestartStrategyType {
    const EXPECTED: &'static str = "`none`, `fixed-delay`, `exponential-delay` or `failure-rate`";
    fn parse(text: &str) -> Option<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "none" | "off" | "disable" => Some(Self::None),
            "fixed-delay" | "fixeddelay" => Some(Self::FixedDelay),
            "exponential-delay" | "exponentialdelay" => Some(Self::ExponentialDelay),
            "failure-rate" | "failurerate" => Some(Self::FailureRate),
            _ => None,
        }
    }
}

impl ConfigValue for StateBackendType {
    const EXPECTED: &'static str = "`rocksdb` or `hashmap`";
    fn parse(text: &str) -> Option<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "rocksdb" => Some(Self::RocksDb),
            "hashmap" => Some(Self::HashMap),
            _ => None,
        }
    }
}

impl ConfigValue for ClaimMode {
    const EXPECTED: &'static str = "`NO_CLAIM` or `CLAIM` (Flink's LEGACY is not supported)";
    fn parse(text: &str) -> Option<Self> {
        match text.trim().to_ascii_uppercase().as_str() {
            "NO_CLAIM" => Some(Self::NoClaim),
            "CLAIM" => Some(Self::Claim),
            _ => None,
        }
    }
}

impl ConfigValue for Duration {
    const EXPECTED: &'static str = "a duration such as `10 s`, `500ms`, `1 min` or `PT10S`";
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        match text.strip_prefix(['P', 'p']) {
            Some(iso) => iso_duration(iso),
            None => {
                let (number, unit) = split_unit(text)?;
                let nanos_per_unit = nanos_per_unit(&unit)?;
                Self::from_nanos_checked(number.checked_mul(nanos_per_unit)?)
            }
        }
    }
}

impl ConfigValue for Seconds {
    const EXPECTED: &'static str = "a number of seconds, or a duration such as `1 h`";
    fn parse(text: &str) -> Option<Self> {
        let seconds = text.trim().parse().ok().map(Duration::from_secs);
        seconds.or_else(|| Duration::parse(text)).map(Self)
    }
}

/// What the standard library lacks at the width that a multiplication of text can reach.
trait FromNanos: Sized {
    fn from_nanos_checked(nanos: u128) -> Option<Self>;
}

impl FromNanos for Duration {
    fn from_nanos_checked(nanos: u128) -> Option<Self> {
        let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
        Some(Self::new(seconds, (nanos % 1_000_000_000) as u32))
    }
}

/// `10 s` is 10 and `s`. The unit is in lower case.
fn split_unit(text: &str) -> Option<(u128, String)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    // At most 20 digits: every u64, and no multiplication by a unit overflows the u128.
    let number = text
        .get(..end)
        .filter(|digits| (1..=20).contains(&digits.len()))?;
    Some((
        number.parse().ok()?,
        text[end..].trim().to_ascii_lowercase(),
    ))
}

/// Flink's unit names; without a unit a number is milliseconds.
fn nanos_per_unit(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" | "nano" | "nanos" | "nanosecond" | "nanoseconds" => 1,
        "us" | "µs" | "micro" | "micros" | "microsecond" | "microseconds" => 1_000,
        "" | "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => 1_000_000,
        "s" | "sec" | "secs" | "second" | "seconds" => 1_000_000_000,
        "m" | "min" | "mins" | "minute" | "minutes" => 60_000_000_000,
        "h" | "hour" | "hours" => 3_600_000_000_000,
        "d" | "day" | "days" => 86_400_000_000_000,
        _ => return None,
    })
}

/// ISO 8601 after its `P`: days, then `T` and hours, minutes, seconds, in this order. Months and years have no length.
fn iso_duration(text: &str) -> Option<Duration> {
    let upper = text.to_ascii_uppercase();
    let (date, time) = upper
        .split_once('T')
        .map_or((upper.as_str(), None), |(date, time)| (date, Some(time)));
    if (date.is_empty() && time.is_none()) || time == Some("") {
        return None;
    }
    let mut total = iso_fields(date, &[('D', 86_400)])?;
    if let Some(time) = time {
        total = total.checked_add(iso_fields(time, &[('H', 3_600), ('M', 60), ('S', 1)])?)?;
    }
    Some(total)
}

fn iso_fields(mut text: &str, units: &[(char, u64)]) -> Option<Duration> {
    let mut total = Duration::ZERO;
    for &(unit, seconds) in units {
        let Some((number, rest)) = text.split_once(unit) else {
            continue;
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
            return None;
        }
        // Only seconds have a fraction, and a point is followed by one.
        if number.contains('.') && (unit != 'S' || fraction.is_empty()) {
            return None;
        }
        let whole = whole.parse::<u64>().ok()?.checked_mul(seconds)?;
        let nanos = format!("{fraction:0<9}").parse::<u32>().ok()?;
        total = total.checked_add(Duration::new(whole, nanos))?;
        text = rest;
    }
    text.is_empty().then_some(total)
}

impl ConfigValue for MemorySize {
    const EXPECTED: &'static str = "a size such as `256mb`, `1g` or `4096` (bytes)";
    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split_unit(text.trim())?;
        let shift = match unit.as_str() {
            "" | "b" | "bytes" => 0,
            "k" | "kb" | "kib" | "kibibytes" => 10,
            "m" | "mb" | "mib" | "mebibytes" => 20,
            "g" | "gb" | "gib" | "gibibytes" => 30,
            "t" | "tb" | "tib" | "tebibytes" => 40,
            _ => return None,
        };
        u64::try_from(number.checked_mul(1 << shift)?)
            .ok()
            .map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_every_notation_of_flink() {
        let cases = [
            ("10 s", 10_000),
            ("500ms", 500),
            ("1 min", 60_000),
            ("250", 250),
            ("0", 0),
            ("2 h", 7_200_000),
            ("1 d", 86_400_000),
            (" 3 SECONDS ", 3_000),
            ("PT10S", 10_000),
            ("PT1M30S", 90_000),
            ("P1DT2H", 93_600_000),
            ("pt0.5s", 500),
        ];
        for (text, millis) in cases {
            assert_eq!(
                Duration::parse(text),
                Some(Duration::from_millis(millis)),
                "{text:?}"
            );
        }
        assert_eq!(Duration::parse("7 us"), Some(Duration::from_micros(7)));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "s",
            "-1 s",
            "1.5 s",
            "10 parsecs",
            "1 s 2",
            "P",
            "PT",
            "PT1S2M",
            "P1M",
            "PT0.5M",
            "PT1.S",
            "PT.5S",
        ] {
            assert_eq!(Duration::parse(text), None, "{text:?}");
        }
        assert_eq!(
            Duration::parse(&"9".repeat(20)).map(|d| d.as_secs()),
            Some(99_999_999_999_999_999)
        );
        assert_eq!(
            Duration::parse(&format!("{} d", "9".repeat(20))),
            None,
            "overflow"
        );
        assert_eq!(Duration::parse(&"9".repeat(21)), None, "overflow");
    }

    #[test]
    fn what_flink_counts_in_seconds_is_read_as_seconds() {
        for (text, seconds) in [("3600", 3600), ("1 h", 3600), ("PT5M", 300), (" 7 ", 7)] {
            let read = Seconds::parse(text);
            assert_eq!(
                read,
                Some(Seconds(Duration::from_secs(seconds))),
                "{text:?}"
            );
        }
        assert_eq!(Seconds::parse("-1"), None);
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        let cases = [
            ("0", 0),
            ("4096", 4096),
            ("1k", 1 << 10),
            ("256mb", 256 << 20),
            ("1 g", 1 << 30),
            ("2 TB", 2 << 40),
        ];
        for (text, bytes) in cases {
            assert_eq!(MemorySize::parse(text), Some(MemorySize(bytes)), "{text:?}");
        }
        for text in ["", "mb", "1.5g", "-1", "1 x", "99999999999999999999t"] {
            assert_eq!(MemorySize::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn lists_and_enums_are_read_leniently() {
        assert_eq!(
            Vec::parse("a:1, b:2;;c:3,"),
            Some(vec!["a:1".to_owned(), "b:2".to_owned(), "c:3".to_owned()])
        );
        assert_eq!(Vec::<String>::parse(""), Some(vec![]));
        assert_eq!(
            RestartStrategyType::parse("Fixed-Delay"),
            Some(RestartStrategyType::FixedDelay)
        );
        assert_eq!(RestartStrategyType::parse("sometimes"), None);
        assert_eq!(Option::<u32>::parse("infinite"), Some(None));
        assert_eq!(Option::<u32>::parse("3"), Some(Some(3)));
        assert_eq!(bool::parse("TRUE"), Some(true));
        assert_eq!(f64::parse("NaN"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC{0,24}") {
            let _ = (Duration::parse(&text), MemorySize::parse(&text), Vec::<String>::parse(&text));
        }
    }
}
