//! Flight-like rows: out of order by up to an hour and a half, some delays NULL, three airports and seven airlines; and
//! the hourly sums that a job over them must commit.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use jiff::civil::{DateTime, date};
use jiff::{SignedDuration, Unit};

use crate::invariants::committed::{ResultRow, Results};

const ORIGINS: [&str; 3] = ["EWR", "JFK", "LGA"];
const CARRIERS: [&str; 7] = ["9E", "AA", "B6", "DL", "EV", "UA", "WN"];
/// Distance between two rows in event time, before they are put out of order.
const STEP_SECONDS: i64 = 60;
/// Below the two hours of the job's watermark, so that no row is late.
const DISORDER_SECONDS_MAX: u64 = 90 * 60;

/// A made-up input of a given length.
#[derive(Clone, Copy, Debug)]
pub struct Flights {
    rows: u64,
}

/// COUNT(*), SUM and MAX of the delay.
type Sums = (i64, Option<i64>, Option<i64>);

struct Flight {
    departed_at: DateTime,
    origin: &'static str,
    carrier: &'static str,
    dep_delay: Option<i64>,
}

impl Flights {
    /// An input of `rows` rows: the same each time.
    pub fn new(rows: u64) -> Self {
        Self { rows }
    }

    fn flights(self) -> impl Iterator<Item = Flight> {
        (0..self.rows).map(|number| {
            // Any mixing will do: consecutive rows must differ in every column.
            let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16;
            let seconds = number as i64 * STEP_SECONDS + (mixed % DISORDER_SECONDS_MAX) as i64;
            Flight {
                departed_at: date(2013, 1, 1).at(5, 0, 0, 0) + SignedDuration::from_secs(seconds),
                origin: ORIGINS[(mixed >> 8) as usize % ORIGINS.len()],
                carrier: CARRIERS[(mixed >> 16) as usize % CARRIERS.len()],
                dep_delay: (number % 11 != 0).then_some((mixed >> 24) as i64 % 200 - 20),
            }
        })
    }

    /// Writes the rows as CSV with a header line.
    pub fn write_csv(self, path: &Path) -> std::io::Result<()> {
        let mut text = String::from("departed_at,carrier,flight,origin,dep_delay\n");
        for (number, flight) in self.flights().enumerate() {
            let delay = flight
                .dep_delay
                .map_or(String::new(), |delay| delay.to_string());
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{},{},{number},{},{delay}",
                flight.departed_at, flight.carrier, flight.origin
            );
        }
        std::fs::write(path, text)
    }

    /// The result that the job of [`sql`] must commit.
    pub fn expected(self) -> Results {
        let mut groups: BTreeMap<(DateTime, &str, &str), Sums> = BTreeMap::new();
        for flight in self.flights() {
            let window = flight
                .departed_at
                .date()
                .at(flight.departed_at.hour(), 0, 0, 0);
            let (count, sum, worst) = groups
                .entry((window, flight.origin, flight.carrier))
                .or_default();
            *count += 1;
            if let Some(delay) = flight.dep_delay {
                *sum = Some(sum.unwrap_or(0) + delay);
                *worst = (*worst).max(Some(delay));
            }
        }
        let rows = groups.into_iter().map(
            |((window, origin, carrier), (departures, delay_minutes, worst))| ResultRow {
                window_start: text(window),
                window_end: text(window + SignedDuration::from_hours(1)),
                origin: Some(origin.to_owned()),
                carrier: Some(carrier.to_owned()),
                departures,
                delay_minutes,
                worst,
            },
        );
        Results::of(rows)
    }
}

/// The job over `input` (a file or directory) that commits to `output`; `rows_per_second` 0 is as fast as possible.
pub fn sql(input: &Path, output: &Path, rows_per_second: u64) -> String {
    let pace = if rows_per_second == 0 {
        String::new()
    } else {
        format!(", 'scan.rows-per-second' = '{rows_per_second}'")
    };
    format!(
        "CREATE TABLE flights (
  departed_at TIMESTAMP(3), carrier STRING, flight BIGINT, origin STRING, dep_delay BIGINT,
  WATERMARK FOR departed_at AS departed_at - INTERVAL '2' HOUR
) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'csv', 'csv.header' = 'true'{pace});
CREATE TABLE delays (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), origin STRING, carrier STRING,
  departures BIGINT, delay_minutes BIGINT, worst BIGINT
) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
INSERT INTO delays
SELECT window_start, window_end, origin, carrier, COUNT(*) AS departures, SUM(dep_delay) AS delay_minutes, MAX(dep_delay) AS worst
FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR))
GROUP BY window_start, window_end, origin, carrier;
",
        input.display(),
        output.display()
    )
}

fn text(time: DateTime) -> String {
    let seconds = time.round(Unit::Second).unwrap_or(time);
    seconds.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_counted_once_and_the_columns_vary() {
        let expected = Flights::new(5_000).expected();
        assert_eq!(expected.departures(), 5_000);
        let most = (5_000 * STEP_SECONDS / 3_600 + 3) as usize * ORIGINS.len() * CARRIERS.len();
        assert!(
            expected.len() > most / 2 && expected.len() <= most,
            "{} of {most}",
            expected.len()
        );
    }

    #[test]
    fn no_row_is_further_behind_than_the_watermark_allows() {
        let mut newest = DateTime::MIN;
        for flight in Flights::new(5_000).flights() {
            assert!(flight.departed_at + SignedDuration::from_hours(2) > newest);
            newest = newest.max(flight.departed_at);
        }
    }
}
