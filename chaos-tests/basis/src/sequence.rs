//! A job whose right result follows from a formula, however many records it reads: consecutive numbers, dealt to keys, go
//! over a hash exchange into windows in keyed state, and through an exactly-once sink into files.
//!
//! ```text
//! record k (k = 0, 1, …): number FIRST + k, event time k ms after 1970, key (FIRST + k) modulo the number of keys
//! committed, for each window of a second and each key: how many numbers, the least, the greatest, their sum
//! ```
//!
//! The numbers are the ids of persons of the Nexmark source, one of which is among 50 events. So every row of the output
//! speaks of records that are known in advance, and who reads committed files alone can tell each loss, each duplicate and
//! each swap of places.

use std::fmt;
use std::path::Path;

/// The number of the first record.
pub const FIRST: u64 = 1_000;
/// Records of one window: one a millisecond.
pub const WINDOW: u64 = 1_000;
/// Of the source's events, one in so many is a record.
const EVENTS_PER_RECORD: u64 = 50;

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// That the numbers are dealt to.
    pub keys: u64,
    /// Records in all; 0: without end.
    pub records: u64,
    /// 0: as fast as possible.
    pub records_per_second: u64,
    /// Seconds by which a record may be behind an earlier one. After a change of parallelism the source's lanes, which were
    /// at different places, are read side by side.
    pub disorder_s: u64,
}

impl Sequence {
    /// The job that commits to the directory `output`.
    pub fn sql(self, output: &Path) -> String {
        let keys = self.keys;
        format!(
            "CREATE TABLE numbers (id BIGINT, date_time TIMESTAMP(3),
  WATERMARK FOR date_time AS date_time - INTERVAL '{}' SECOND
) WITH ('connector' = 'nexmark', 'nexmark.table-type' = 'person', 'nexmark.base-time' = '0',
  'nexmark.interval-us' = '{}', 'nexmark.events' = '{}', 'nexmark.events-per-second' = '{}');
CREATE TABLE sequences (
  window_start TIMESTAMP(3), k BIGINT, records BIGINT, least BIGINT, greatest BIGINT, total BIGINT
) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'csv');
INSERT INTO sequences
SELECT window_start, MOD(id, {keys}) AS k, COUNT(*) AS records, MIN(id) AS least, MAX(id) AS greatest, SUM(id) AS total
FROM TABLE(TUMBLE(TABLE numbers, DESCRIPTOR(date_time), INTERVAL '{}' SECOND))
GROUP BY window_start, window_end, MOD(id, {keys});
",
            self.disorder_s,
            1_000 / EVENTS_PER_RECORD,
            self.records * EVENTS_PER_RECORD,
            self.records_per_second * EVENTS_PER_RECORD,
            output.display(),
            WINDOW / 1_000,
        )
    }
}

/// A row of the output: of a window and a key, what is known of their records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as the names say")]
pub struct Row {
    pub window: u64,
    pub key: u64,
    pub records: u64,
    pub least: u64,
    pub greatest: u64,
    pub total: u64,
}

impl Row {
    /// What `window` of `key`, one of `keys`, holds of the records before `end`; none for nothing.
    pub fn expected(keys: u64, window: u64, key: u64, end: u64) -> Option<Self> {
        let first = window.checked_mul(WINDOW)?;
        let end = end.min(first.checked_add(WINDOW)?);
        let begin = FIRST + first;
        let least = begin + (key + keys - begin % keys) % keys;
        let limit = FIRST + end;
        if least >= limit {
            return None;
        }
        let records = (limit - 1 - least) / keys + 1;
        let greatest = least + (records - 1) * keys;
        Some(Self {
            window,
            key,
            records,
            least,
            greatest,
            total: records * (least + greatest) / 2,
        })
    }

    /// What a line of a committed file says: `1970-01-01 00:00:08,42,3,9002,9962,151712`.
    pub fn parse(line: &str) -> Option<Self> {
        let mut columns = line.split(',');
        let start: jiff::civil::DateTime = columns.next()?.parse().ok()?;
        let since = start.duration_since(jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0));
        let ms = u64::try_from(since.as_millis()).ok()?;
        let mut number = || columns.next()?.parse::<u64>().ok();
        let row = Self {
            window: ms / WINDOW,
            key: number()?,
            records: number()?,
            least: number()?,
            greatest: number()?,
            total: number()?,
        };
        (ms.is_multiple_of(WINDOW) && columns.next().is_none()).then_some(row)
    }
}

/// As a line of a committed file.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = i64::try_from(self.window * WINDOW).map_err(|_| fmt::Error)?;
        let start = jiff::Timestamp::from_millisecond(ms).map_err(|_| fmt::Error)?;
        write!(
            f,
            "{},{},{},{},{},{}",
            start.strftime("%Y-%m-%d %H:%M:%S"),
            self.key,
            self.records,
            self.least,
            self.greatest,
            self.total
        )
    }
}

/// Where a file stands among those that were committed, `part-<job>-<vertex>-<subtask>-<number>-<attempt>.csv`: by job,
/// attempt and number. Jobs that go on from others have higher ids. What is named otherwise comes last.
pub fn order(name: &str) -> (String, u64, u64) {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let job = stem
        .strip_prefix("part-")
        .and_then(|rest| rest.split('-').next())
        .map_or_else(|| char::MAX.to_string(), str::to_owned);
    let mut parts = stem
        .rsplit('-')
        .map(|part| part.parse().unwrap_or(u64::MAX));
    let attempt = parts.next().unwrap_or(u64::MAX);
    (job, attempt, parts.next().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_formula_counts_every_record_once() {
        for (keys, end) in [(256_u64, 12_345_u64), (32, 1_500), (1, 10)] {
            let rows = (0..end.div_ceil(WINDOW)).flat_map(|window| {
                (0..keys).filter_map(move |key| Row::expected(keys, window, key, end))
            });
            let mut numbers = BTreeSet::new();
            for row in rows {
                let own: Vec<u64> = (row.least..=row.greatest).step_by(keys as usize).collect();
                assert_eq!(
                    (own.len() as u64, own.iter().sum::<u64>()),
                    (row.records, row.total)
                );
                let of_row = |number: &u64| {
                    number % keys == row.key && (number - FIRST) / WINDOW == row.window
                };
                assert!(own.iter().all(of_row), "{row:?}");
                numbers.extend(own);
            }
            assert_eq!(numbers, (FIRST..FIRST + end).collect());
        }
    }

    #[test]
    fn a_row_is_read_as_it_was_written_and_nothing_else_is_one() {
        let line = "1970-01-01 00:00:08,42,3,9002,9962,151712";
        let row = Row::parse(line).unwrap();
        assert_eq!((row.window, row.key, row.total), (8, 42, 151_712));
        assert_eq!(row.to_string(), line);
        let later = Row::expected(256, 100_000, 7, u64::MAX).unwrap();
        assert_eq!(
            Row::parse(&later.to_string()),
            Some(later),
            "another day: {later}"
        );
        for garbage in [
            "",
            "rubbish",
            "1970-01-01 00:00:08.5,42,3,9002,9962,151712",
            "1970-01-01 00:00:08,42,3,9002,9962",
            "1970-01-01 00:00:08,42,3,9002,9962,151712,1",
            "1970-01-01 00:00:08,-42,3,9002,9962,151712",
        ] {
            assert_eq!(Row::parse(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn files_are_in_order_of_job_attempt_and_number() {
        let names = [
            "part-0a-v-0-10-1.csv",
            "part-0a-v-1-2-2.csv",
            "part-0a-a-vertex-0-10-2.csv",
            "part-0b-v-0-1-1.csv",
            "notes.csv",
        ];
        assert!(names.is_sorted_by_key(|name| order(name)));
    }
}
