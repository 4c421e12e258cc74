//! The demo's judge: what the job should have committed, computed without any of Flott's own machinery, and a row by row
//! comparison with what it did commit.
//!
//! Must stay true: nothing here calls the worker or the SQL front end. It reads the same file, groups it in one ordered
//! map, and knows the output only as JSON lines in files whose names do not begin with a dot.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::{Map, Value};

const HOUR_MS: i64 = 3_600_000;

/// What identifies one row of the result.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// Milliseconds since the epoch.
    window_start: i64,
    origin: Option<String>,
    carrier: Option<String>,
}

/// The rest of a row of the result. SUM and MAX are NULL where every input was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Totals {
    departures: i64,
    delay_minutes: Option<i64>,
    worst: Option<i64>,
}

/// The result that the job must commit.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    rows: BTreeMap<Key, Totals>,
    /// Rows of the input.
    pub(crate) input_rows: u64,
}

/// The outcome of comparing; all counts are rows of the result but for those that say input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Comparison {
    pub(crate) input_rows: u64,
    pub(crate) expected_rows: u64,
    pub(crate) committed_rows: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    /// Committed with another value than computed, or not to be there at all.
    pub(crate) wrong: u64,
    /// Input rows missing from the committed counts, and counted more than once.
    pub(crate) input_rows_lost: u64,
    pub(crate) input_rows_duplicated: u64,
    /// The first few differences in words.
    pub(crate) differences: Vec<String>,
}

/// How many differences are worth telling.
const DIFFERENCES_MAX: usize = 5;

impl Comparison {
    /// Whether the committed result is exactly the expected one.
    pub(crate) fn is_exact(&self) -> bool {
        self.expected_rows > 0
            && self.committed_rows == self.expected_rows
            && [
                self.lost,
                self.duplicated,
                self.wrong,
                self.input_rows_lost,
                self.input_rows_duplicated,
            ] == [0; 5]
    }

    fn tell(&mut self, difference: impl FnOnce() -> String) {
        if self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(difference());
        }
    }
}

impl Expected {
    /// Computes the result from the flights in `path`, which may be compressed (`.zst`, `.gz`).
    pub(crate) fn from_file(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let reader: Box<dyn Read> = match path.extension().and_then(|extension| extension.to_str())
        {
            Some("zst") => Box::new(zstd::Decoder::new(file)?),
            Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(file)),
            _ => Box::new(file),
        };
        Self::from_csv(reader).with_context(|| format!("in {}", path.display()))
    }

    fn from_csv(reader: impl Read) -> anyhow::Result<Self> {
        let mut reader = csv::Reader::from_reader(reader);
        let header = reader.headers()?.clone();
        let column = |name: &str| {
            header
                .iter()
                .position(|field| field == name)
                .with_context(|| format!("no column {name}"))
        };
        let (departed_at, origin) = (column("departed_at")?, column("origin")?);
        let (carrier, dep_delay) = (column("carrier")?, column("dep_delay")?);

        let mut expected = Self::default();
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record)? {
            let line = record.position().map_or(0, csv::Position::line);
            let text = |column: usize| {
                record
                    .get(column)
                    .with_context(|| format!("line {line} is too short"))
            };
            let departed_at =
                parse_timestamp(text(departed_at)?).with_context(|| format!("line {line}"))?;
            let delay = match text(dep_delay)? {
                "" => None,
                number => Some(
                    number
                        .parse::<i64>()
                        .with_context(|| format!("dep_delay in line {line}"))?,
                ),
            };
            let key = Key {
                window_start: departed_at - departed_at.rem_euclid(HOUR_MS),
                origin: Some(text(origin)?.to_owned()),
                carrier: Some(text(carrier)?.to_owned()),
            };
            expected.rows.entry(key).or_default().add(delay);
            expected.input_rows += 1;
        }
        Ok(expected)
    }

    /// Compares with everything committed under `directory`.
    pub(crate) fn compare_with(&self, directory: &Path) -> anyhow::Result<Comparison> {
        let mut committed = Vec::new();
        for path in committed_files(directory)? {
            let file =
                File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
            for (number, line) in BufReader::new(file).lines().enumerate() {
                let row = parse_row(&line?)
                    .with_context(|| format!("{}:{}", path.display(), number + 1))?;
                committed.push(row);
            }
        }
        Ok(self.compare(committed))
    }

    fn compare(&self, committed: Vec<(Key, i64, Totals)>) -> Comparison {
        let mut outcome = Comparison {
            input_rows: self.input_rows,
            expected_rows: self.rows.len() as u64,
            committed_rows: committed.len() as u64,
            ..Comparison::default()
        };
        let mut by_key: BTreeMap<Key, Vec<(i64, Totals)>> = BTreeMap::new();
        for (key, window_end, totals) in committed {
            by_key.entry(key).or_default().push((window_end, totals));
        }
        for (key, expected) in &self.rows {
            let found = by_key.remove(key).unwrap_or_default();
            let counted: i64 = found.iter().map(|(_, totals)| totals.departures).sum();
            outcome.input_rows_lost += (expected.departures - counted).max(0).unsigned_abs();
            outcome.input_rows_duplicated += (counted - expected.departures).max(0).unsigned_abs();
            let Some(first) = found.first() else {
                outcome.lost += 1;
                outcome.tell(|| format!("lost: {key:?} {expected:?}"));
                continue;
            };
            if found.len() > 1 {
                outcome.duplicated += found.len() as u64 - 1;
                outcome.tell(|| format!("{} times: {key:?} {found:?}", found.len()));
            }
            if *first != (key.window_start + HOUR_MS, expected.clone()) {
                outcome.wrong += 1;
                outcome.tell(|| format!("wrong: {key:?} is {first:?}, expected {expected:?}"));
            }
        }
        for (key, found) in by_key {
            outcome.wrong += found.len() as u64;
            let counted: i64 = found.iter().map(|(_, totals)| totals.departures).sum();
            outcome.input_rows_duplicated += counted.max(0).unsigned_abs();
            outcome.tell(|| format!("not expected: {key:?} {found:?}"));
        }
        outcome
    }
}

impl Totals {
    fn add(&mut self, delay: Option<i64>) {
        self.departures += 1;
        let Some(delay) = delay else { return };
        self.delay_minutes = Some(self.delay_minutes.unwrap_or(0) + delay);
        self.worst = Some(self.worst.map_or(delay, |worst| worst.max(delay)));
    }
}

/// Every file under `directory` that a reader may see: no component below it begins with a dot.
fn committed_files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        let entries = std::fs::read_dir(&directory).with_context(|| {
            format!(
                "cannot list the job's output directory {}",
                directory.display()
            )
        })?;
        for entry in entries {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Milliseconds since the epoch of `2013-01-01T05:00:00` or `2013-01-01 05:00:00.000`.
fn parse_timestamp(text: &str) -> anyhow::Result<i64> {
    let civil: DateTime = text
        .parse()
        .with_context(|| format!("{text:?} is not a timestamp"))?;
    Ok(civil.to_zoned(TimeZone::UTC)?.timestamp().as_millisecond())
}

/// Key, window end and values of one committed line. A missing field is NULL, as in Flink's JSON.
fn parse_row(line: &str) -> anyhow::Result<(Key, i64, Totals)> {
    let fields: Map<String, Value> = serde_json::from_str(line)?;
    let text = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => bail!("{name} is {other}, not text"),
    };
    let number = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_i64()
            .map(Some)
            .with_context(|| format!("{name} is {value}, not a whole number")),
    };
    let time =
        |name: &str| parse_timestamp(&text(name)?.with_context(|| format!("{name} is missing"))?);
    let key = Key {
        window_start: time("window_start")?,
        origin: text("origin")?,
        carrier: text("carrier")?,
    };
    let totals = Totals {
        departures: number("departures")?.context("departures is missing")?,
        delay_minutes: number("delay_minutes")?,
        worst: number("worst")?,
    };
    Ok((key, time("window_end")?, totals))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLIGHTS: &str = "\
landed_at,departed_at,carrier,flight,tailnum,origin,dest,distance,dep_delay,arr_delay
2013-01-01T07:03:00,2013-01-01T05:59:00,B6,1806,N708JB,JFK,BOS,187,4,-4
2013-01-01T07:10:00,2013-01-01T05:00:00,B6,1807,,JFK,IAD,229,,-14
2013-01-01T07:29:00,2013-01-01T06:00:00,B6,1808,N273WN,JFK,BWI,185,-1,-19
2013-01-01T07:29:00,2013-01-01T06:29:00,WN,1809,N273WN,LGA,BWI,185,,-19
";
    const RESULT: [&str; 3] = [
        r#"{"window_start":"2013-01-01 05:00:00","window_end":"2013-01-01 06:00:00.000","origin":"JFK","carrier":"B6","departures":2,"delay_minutes":4,"worst":4}"#,
        r#"{"window_start":"2013-01-01T06:00:00","window_end":"2013-01-01T07:00:00","origin":"JFK","carrier":"B6","departures":1,"delay_minutes":-1,"worst":-1}"#,
        r#"{"window_start":"2013-01-01T06:00:00","window_end":"2013-01-01T07:00:00","origin":"LGA","carrier":"WN","departures":1,"delay_minutes":null}"#,
    ];

    fn compare(lines: &[&str]) -> Comparison {
        let expected = Expected::from_csv(FLIGHTS.as_bytes()).unwrap();
        assert_eq!(expected.input_rows, 4);
        expected.compare(lines.iter().map(|line| parse_row(line).unwrap()).collect())
    }

    #[test]
    fn the_right_result_in_any_order_is_exact() {
        let outcome = compare(&[RESULT[2], RESULT[0], RESULT[1]]);
        assert!(outcome.is_exact(), "{outcome:?}");
    }

    #[test]
    fn a_missing_row_is_lost_with_its_input() {
        let outcome = compare(&RESULT[1..]);
        assert_eq!((outcome.lost, outcome.input_rows_lost), (1, 2));
        assert!(!outcome.is_exact());
    }

    #[test]
    fn a_row_committed_twice_is_duplicated() {
        let outcome = compare(&[RESULT[0], RESULT[1], RESULT[2], RESULT[0]]);
        assert_eq!(
            (
                outcome.duplicated,
                outcome.input_rows_duplicated,
                outcome.wrong
            ),
            (1, 2, 0)
        );
        assert!(!outcome.is_exact());
    }

    #[test]
    fn an_input_row_counted_twice_is_wrong_and_an_input_duplicate() {
        let counted_twice = RESULT[1].replace("\"departures\":1", "\"departures\":2");
        let outcome = compare(&[RESULT[0], &counted_twice, RESULT[2]]);
        assert_eq!(
            (
                outcome.wrong,
                outcome.input_rows_duplicated,
                outcome.duplicated
            ),
            (1, 1, 0)
        );
        assert!(!outcome.is_exact());
    }

    #[test]
    fn null_and_zero_differ() {
        let zero = RESULT[2].replace("null", "0");
        assert_eq!(compare(&[RESULT[0], RESULT[1], &zero]).wrong, 1);
    }

    #[test]
    fn rows_nobody_expects_and_wrong_window_ends_are_wrong() {
        let stranger = RESULT[2].replace("LGA", "SFO");
        assert_eq!(
            compare(&[RESULT[0], RESULT[1], RESULT[2], &stranger]).wrong,
            1
        );
        let long = RESULT[2].replace("07:00:00", "08:00:00");
        assert_eq!(compare(&[RESULT[0], RESULT[1], &long]).wrong, 1);
    }

    #[test]
    fn nothing_at_all_is_not_exact() {
        assert!(!Comparison::default().is_exact());
    }

    #[test]
    fn pending_files_are_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, lines: &[&str]| {
            std::fs::write(directory.path().join(name), lines.join("\n")).unwrap()
        };
        std::fs::create_dir(directory.path().join(".staging")).unwrap();
        std::fs::create_dir(directory.path().join("part")).unwrap();
        write("a.json", &RESULT[..2]);
        write("part/b.json", &RESULT[2..]);
        write(".pending.json", &RESULT);
        write(".staging/c.json", &RESULT);
        let expected = Expected::from_csv(FLIGHTS.as_bytes()).unwrap();
        let outcome = expected.compare_with(directory.path()).unwrap();
        assert!(outcome.is_exact(), "{outcome:?}");
    }
}
