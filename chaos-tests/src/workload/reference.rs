//! A query over data that is checked in, twice: once as fast as it goes, before there is any fault, and once so slowly that it
//! outlasts them. Both must commit the same rows.
//!
//! Nobody says here what is right: this finds what faults change, in filters, expressions and aggregates that
//! [`super::sequence`] has no formula for. The data are the demo's flights, in the order of landing while the event time is
//! the departure, so that windows really wait for their watermark.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::invariants::same_rows::Rows;

/// The flights of New York's airports in 2013, CC0; `deploy/demo/README.md` says more.
const FLIGHTS: &[u8] = include_bytes!("../../../deploy/demo/flights-2013.csv.zst");
/// How many they are.
const ROWS: u64 = 327_346;
/// By how much the slow run outlasts the faults, if nothing delays it further.
const OUTLAST: Duration = Duration::from_secs(10);

/// Where both runs are.
#[derive(Clone, Debug)]
pub struct Reference {
    directory: PathBuf,
}

impl Reference {
    /// Writes the data below `directory`, the directory of a run.
    pub fn prepare(directory: &Path) -> anyhow::Result<Self> {
        let reference = Self::of(directory);
        let input = reference.input();
        std::fs::create_dir_all(&reference.directory)
            .and_then(|()| std::fs::write(&input, FLIGHTS))
            .with_context(|| format!("cannot write {}", input.display()))?;
        Ok(reference)
    }

    /// What was prepared in the directory of a run.
    pub fn of(directory: &Path) -> Self {
        Self {
            directory: directory.join("reference"),
        }
    }

    fn input(&self) -> PathBuf {
        self.directory.join("flights.csv.zst")
    }

    fn undisturbed(&self) -> PathBuf {
        self.directory.join("undisturbed")
    }

    fn disturbed(&self) -> PathBuf {
        self.directory.join("disturbed")
    }

    /// What both have committed: without faults, and under them.
    pub fn rows(&self) -> anyhow::Result<[Rows; 2]> {
        Ok([
            Rows::committed(&self.undisturbed())?,
            Rows::committed(&self.disturbed())?,
        ])
    }

    /// The run without faults.
    pub fn undisturbed_sql(&self) -> String {
        self.sql(&self.undisturbed(), 0)
    }

    /// The run that lasts longer than faults of that length.
    pub fn disturbed_sql(&self, length: Duration) -> String {
        let seconds = (length + OUTLAST).as_secs().max(1);
        self.sql(&self.disturbed(), (ROWS / seconds).max(1))
    }

    fn sql(&self, output: &Path, rows_per_second: u64) -> String {
        format!(
            "CREATE TABLE flights (
  landed_at TIMESTAMP(3), departed_at TIMESTAMP(3), carrier STRING, flight BIGINT, tailnum STRING,
  origin STRING, dest STRING, distance BIGINT, dep_delay BIGINT, arr_delay BIGINT,
  WATERMARK FOR departed_at AS departed_at - INTERVAL '12' HOUR
) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'csv', 'csv.header' = 'true',
  'scan.rows-per-second' = '{rows_per_second}');
CREATE TABLE lateness (
  window_start TIMESTAMP(3), dest STRING, carrier STRING, flights BIGINT, minutes BIGINT, distance DOUBLE,
  least BIGINT, worst BIGINT
) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'csv');
INSERT INTO lateness
WITH late AS (
       SELECT departed_at, LOWER(carrier) AS carrier, dest, distance, arr_delay FROM flights WHERE arr_delay > 0
     ),
     sums AS (
       SELECT window_start, dest, carrier, COUNT(*) AS flights, SUM(arr_delay) AS minutes,
              CAST(AVG(distance) AS DOUBLE) AS distance, MIN(arr_delay) AS least, MAX(arr_delay) AS worst
       FROM TABLE(TUMBLE(TABLE late, DESCRIPTOR(departed_at), INTERVAL '3' HOUR))
       GROUP BY window_start, window_end, dest, carrier
     )
SELECT window_start, dest, carrier, flights, minutes, distance, least, worst FROM sums WHERE flights > 1;
",
            self.input().display(),
            output.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slow_run_outlasts_the_faults() {
        let directory = tempfile::tempdir().unwrap();
        let reference = Reference::prepare(directory.path()).unwrap();
        for (seconds, pace) in [(0, 32_734), (60, 4_676), (3_600, 90), (10_000_000, 1)] {
            let sql = reference.disturbed_sql(Duration::from_secs(seconds));
            assert!(sql.contains(&format!("'{pace}');")), "{seconds}: {sql}");
        }
        assert!(reference.undisturbed_sql().contains("'0');"));
        assert_eq!(std::fs::read(reference.input()).unwrap(), FLIGHTS);
    }
}
