//! Exactly once: what a reader of the output may see is the expected result, each row once.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, ensure};
use serde::Deserialize;

/// One row of the hourly sums. Times are `YYYY-MM-DD HH:MM:SS`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[expect(missing_docs, reason = "the columns of the job")]
pub struct ResultRow {
    pub window_start: String,
    pub window_end: String,
    pub origin: Option<String>,
    pub carrier: Option<String>,
    pub departures: i64,
    pub delay_minutes: Option<i64>,
    pub worst: Option<i64>,
}

/// Rows and how often each is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results(BTreeMap<ResultRow, i64>);

impl Results {
    /// The rows of `rows`, counted.
    pub fn of(rows: impl IntoIterator<Item = ResultRow>) -> Self {
        let mut results = Self::default();
        for row in rows {
            *results.0.entry(row).or_default() += 1;
        }
        results
    }

    /// What lies committed in `directory`: JSON lines in files whose names do not begin with a dot.
    pub fn committed(directory: &Path) -> anyhow::Result<Self> {
        let mut rows = Vec::new();
        for line in lines(directory)? {
            let mut row: ResultRow = serde_json::from_str(&line)
                .with_context(|| format!("in {}: {line}", directory.display()))?;
            row.window_start = plain_time(&row.window_start);
            row.window_end = plain_time(&row.window_end);
            rows.push(row);
        }
        Ok(Self::of(rows))
    }

    /// Checks that these, the committed rows, are `expected`, each once.
    pub fn check_exactly(&self, expected: &Self) -> anyhow::Result<()> {
        self.check_part_of(expected)?;
        let lost: Vec<_> = expected
            .0
            .keys()
            .filter(|row| !self.0.contains_key(row))
            .collect();
        ensure!(
            lost.is_empty(),
            "{} of {} rows are lost, first {:?}",
            lost.len(),
            expected.len(),
            lost.first()
        );
        Ok(())
    }

    /// Checks that these are the rows of `expected`, all of them, some perhaps several times: what a job commits that went
    /// back behind a damaged checkpoint.
    pub fn check_at_least_once(&self, expected: &Self) -> anyhow::Result<()> {
        let once = Self::of(self.0.keys().cloned());
        once.check_exactly(expected)
    }

    /// Checks that these, committed so far, are among `expected`, none twice and none with another value.
    pub fn check_part_of(&self, expected: &Self) -> anyhow::Result<()> {
        for (row, count) in &self.0 {
            ensure!(
                expected.0.contains_key(row),
                "a row that nobody expects: {row:?}"
            );
            ensure!(*count == 1, "{count} times: {row:?}");
        }
        Ok(())
    }

    /// How many different rows.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sum of the column `departures`: input rows.
    pub fn departures(&self) -> i64 {
        self.0
            .iter()
            .map(|(row, count)| row.departures * count)
            .sum()
    }
}

/// The lines of all files in `directory` whose names do not begin with a dot; none if it is not there yet.
pub fn lines(directory: &Path) -> anyhow::Result<Vec<String>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot list {}", directory.display()));
        }
    };
    let mut lines = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") || entry.file_type()?.is_dir() {
            continue;
        }
        let text = std::fs::read_to_string(entry.path())?;
        ensure!(
            text.is_empty() || text.ends_with('\n'),
            "{} ends within a line",
            entry.path().display()
        );
        lines.extend(text.lines().map(str::to_owned));
    }
    Ok(lines)
}

/// `2013-01-01T05:00:00.000` as `2013-01-01 05:00:00`.
fn plain_time(text: &str) -> String {
    let text = text.replace('T', " ");
    text.strip_suffix(".000").unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::flights::Flights;

    fn expected_rows() -> Vec<ResultRow> {
        Flights::new(50).expected().0.into_keys().collect()
    }

    #[test]
    fn lost_doubled_and_changed_rows_are_found() {
        let expected = Results::of(expected_rows());
        expected.check_exactly(&expected).unwrap();

        let lost = Results::of(expected_rows().into_iter().skip(1));
        lost.check_part_of(&expected).unwrap();
        assert!(
            lost.check_exactly(&expected)
                .unwrap_err()
                .to_string()
                .contains("1 of")
        );

        let doubled = Results::of(
            expected_rows()
                .into_iter()
                .chain(expected_rows().into_iter().take(1)),
        );
        assert!(
            doubled
                .check_part_of(&expected)
                .unwrap_err()
                .to_string()
                .contains("2 times")
        );
        doubled.check_at_least_once(&expected).unwrap();
        lost.check_at_least_once(&expected).unwrap_err();

        let mut changed = expected_rows();
        changed[0].departures += 1;
        assert!(
            Results::of(changed)
                .check_exactly(&expected)
                .unwrap_err()
                .to_string()
                .contains("nobody expects")
        );
    }

    #[test]
    fn only_files_that_are_not_hidden_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let line = r#"{"window_start":"2013-01-01T05:00:00","window_end":"2013-01-01 06:00:00.000","origin":"JFK","departures":2}"#;
        std::fs::write(directory.path().join("part-0"), format!("{line}\n")).unwrap();
        std::fs::write(directory.path().join(".part-1"), format!("{line}\n")).unwrap();
        let results = Results::committed(directory.path()).unwrap();
        assert_eq!((results.len(), results.departures()), (1, 2));
        std::fs::write(directory.path().join("part-2"), line).unwrap();
        assert!(Results::committed(directory.path()).is_err(), "a torn line");
    }
}
