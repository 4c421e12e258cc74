//! Two runs of one query commit the same rows, each as often.

use std::collections::BTreeMap;
use std::path::Path;

use super::committed;
use crate::report::Finding;

/// Rows that are named; of others there is only the number.
const NAMED_MAX: usize = 3;

/// Rows, and how often each is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows(BTreeMap<String, u64>);

impl Rows {
    /// These lines.
    pub fn of(lines: impl IntoIterator<Item = String>) -> Self {
        let mut rows = Self::default();
        for line in lines {
            *rows.0.entry(line).or_default() += 1;
        }
        rows
    }

    /// What lies committed in `directory`.
    pub fn committed(directory: &Path) -> anyhow::Result<Self> {
        Ok(Self::of(committed::lines(directory)?))
    }

    /// How many, each as often as it is there.
    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// Rows of which there are more here than in `other`, and how many more.
    fn beyond<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (&'a str, u64)> {
        self.0.iter().filter_map(|(row, count)| {
            let more = count.saturating_sub(other.0.get(row).copied().unwrap_or(0));
            (more > 0).then_some((row.as_str(), more))
        })
    }
}

/// What must not be of that query. Unless the run under faults came to its end, rows may be missing.
pub fn check(query: &str, undisturbed: &Rows, disturbed: &Rows, has_ended: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut tell = |what: &str, rows: Vec<(&str, u64)>| {
        let count: u64 = rows.iter().map(|(_, count)| count).sum();
        if count > 0 {
            let named: Vec<_> = rows.iter().take(NAMED_MAX).map(|(row, _)| row).collect();
            found.push(Finding::in_all(format!(
                "of the query {query} {count} of {} rows {what}, first {named:?}",
                undisturbed.count()
            )));
        }
    };
    tell(
        "are there under faults and not without",
        disturbed.beyond(undisturbed).collect(),
    );
    if has_ended {
        tell(
            "are not there under faults",
            undisturbed.beyond(disturbed).collect(),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(lines: &[&str]) -> Rows {
        Rows::of(lines.iter().map(|line| (*line).to_owned()))
    }

    #[test]
    fn lost_doubled_and_changed_rows_are_found() {
        let undisturbed = rows(&["a,1", "b,2", "b,2"]);
        for (disturbed, has_ended, expected) in [
            (&["b,2", "a,1", "b,2"][..], true, &[][..]),
            (&["a,1"], false, &[]),
            (
                &["a,1", "b,2"],
                true,
                &["1 of 3 rows are not there under faults, first [\"b,2\"]"],
            ),
            (
                &["a,1", "a,1", "b,2", "b,2"],
                false,
                &["1 of 3 rows are there under faults and not without, first [\"a,1\"]"],
            ),
            (
                &["a,9", "b,2", "b,2"],
                true,
                &[
                    "1 of 3 rows are there under faults and not without, first [\"a,9\"]",
                    "1 of 3 rows are not there under faults, first [\"a,1\"]",
                ],
            ),
        ] {
            let found = check("q", &undisturbed, &rows(disturbed), has_ended);
            assert_eq!(found.len(), expected.len(), "{disturbed:?}: {found:?}");
            for (found, expected) in found.iter().zip(expected) {
                let expected = format!("of the query q {expected}");
                assert!(found.what.contains(&expected), "{disturbed:?}: {found:?}");
            }
        }
        assert_eq!(undisturbed.count(), 3);
    }

    #[test]
    fn only_what_is_committed_is_read() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("part-0"), "a\nb\n").unwrap();
        std::fs::write(directory.path().join(".part-1"), "c\n").unwrap();
        let found = Rows::committed(directory.path()).unwrap();
        assert_eq!(found, rows(&["a", "b"]));
        let nothing = Rows::committed(&directory.path().join("none")).unwrap();
        assert_eq!(nothing.count(), 0);
    }
}
