//! Queries over data that anybody can make again, each twice: once as fast as it goes, before there is any fault, and once so
//! slowly that it outlasts them. Both must commit the same rows.
//!
//! Nobody says here what is right: this finds what faults change, in filters, expressions and aggregates that
//! [`super::sequence`] has no formula for.
//!
//! ```text
//! reference/flights.csv.zst                                                 what one of them reads
//! reference/<query>/undisturbed.sql, undisturbed/, disturbed.sql, disturbed/   of each: what is run, what it commits
//! ```
//!
//! - [`queries`]: which there are.

pub mod queries;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use self::queries::{Query, Reading};
use crate::invariants::same_rows::Rows;

/// The flights of New York's airports in 2013, CC0; `deploy/demo/README.md` says more.
const FLIGHTS: &[u8] = include_bytes!("../../../../deploy/demo/flights-2013.csv.zst");
/// By how much the slow run outlasts the faults, if nothing delays it further.
const OUTLAST: Duration = Duration::from_secs(10);

/// One of the two runs of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Without faults.
    Undisturbed,
    /// It lasts longer than faults of that length.
    Disturbed(Duration),
}

impl Pass {
    /// In the names of jobs and files.
    pub fn word(self) -> &'static str {
        match self {
            Self::Undisturbed => "undisturbed",
            Self::Disturbed(_) => "disturbed",
        }
    }

    /// How long it takes to read its input; none: as long as it takes.
    fn lasts(self) -> Option<Duration> {
        match self {
            Self::Undisturbed => None,
            Self::Disturbed(length) => Some(length + OUTLAST),
        }
    }
}

/// Where both runs of each query are.
#[derive(Clone, Debug)]
pub struct Reference {
    directory: PathBuf,
    seed: u64,
}

impl Reference {
    /// Writes the data below `directory`, the directory of a run of that seed, and makes room for the output of these queries.
    pub fn prepare(directory: &Path, seed: u64, queries: &[Query]) -> anyhow::Result<Self> {
        let directory = within(directory);
        let reference = Self { directory, seed };
        for query in queries {
            let place = reference.directory.join(query.name());
            std::fs::create_dir_all(&place)
                .with_context(|| format!("cannot make {}", place.display()))?;
        }
        let input = reference.input();
        std::fs::write(&input, FLIGHTS)
            .with_context(|| format!("cannot write {}", input.display()))?;
        Ok(reference)
    }

    fn input(&self) -> PathBuf {
        self.directory.join("flights.csv.zst")
    }

    /// Where the script of a run of the query is written.
    pub fn script(&self, query: Query, pass: Pass) -> PathBuf {
        let name = format!("{}.sql", pass.word());
        self.directory.join(query.name()).join(name)
    }

    /// What is run.
    pub fn sql(&self, query: Query, pass: Pass) -> String {
        query.sql(&Reading {
            flights: &self.input(),
            seed: self.seed,
            output: &self.directory.join(query.name()).join(pass.word()),
            lasts: pass.lasts(),
        })
    }
}

/// What both runs of each query have committed in the directory of a run: without faults, and under them.
pub fn rows(directory: &Path) -> anyhow::Result<BTreeMap<Query, [Rows; 2]>> {
    let directory = within(directory);
    let mut rows = BTreeMap::new();
    for query in Query::ALL {
        let place = directory.join(query.name());
        if place.is_dir() {
            rows.insert(query, both(&place)?);
        }
    }
    // As it was when there was no other query.
    if directory.join(Pass::Undisturbed.word()).is_dir() {
        rows.insert(Query::Flights, both(&directory)?);
    }
    Ok(rows)
}

fn both(place: &Path) -> anyhow::Result<[Rows; 2]> {
    Ok([
        Rows::committed(&place.join("undisturbed"))?,
        Rows::committed(&place.join("disturbed"))?,
    ])
}

/// Below the directory of a run.
fn within(directory: &Path) -> PathBuf {
    directory.join("reference")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slow_run_outlasts_the_faults() {
        let directory = tempfile::tempdir().unwrap();
        let reference = Reference::prepare(directory.path(), 7, &Query::ALL).unwrap();
        assert_eq!(std::fs::read(reference.input()).unwrap(), FLIGHTS);
        for (seconds, flights, events) in [
            (0, 32_734, 20_000),
            (60, 4_676, 2_857),
            (3_600, 90, 55),
            (10_000_000, 1, 1),
        ] {
            let pass = Pass::Disturbed(Duration::from_secs(seconds));
            for query in Query::ALL {
                let sql = reference.sql(query, pass);
                let pace = match query {
                    Query::Flights => format!("'scan.rows-per-second' = '{flights}'"),
                    _ => format!("'nexmark.events-per-second' = '{events}'"),
                };
                assert!(sql.contains(&pace), "{query} {seconds}: {sql}");
            }
        }
        for query in Query::ALL {
            let sql = reference.sql(query, Pass::Undisturbed);
            assert!(sql.contains("per-second' = '0'"), "{sql}");
        }
    }

    #[test]
    fn the_runs_of_a_query_differ_in_output_and_pace_alone() {
        let directory = tempfile::tempdir().unwrap();
        let reference = Reference::prepare(directory.path(), 7, &Query::ALL).unwrap();
        let disturbed = Pass::Disturbed(Duration::from_secs(60));
        for query in Query::ALL {
            let [fast, slow] =
                [Pass::Undisturbed, disturbed].map(|pass| reference.sql(query, pass));
            let differ = |(a, b): &(&str, &str)| a != b;
            let differing = fast.lines().zip(slow.lines()).filter(differ).count();
            assert_eq!(fast.lines().count(), slow.lines().count());
            assert_eq!(differing, 2, "{fast}{slow}");
            assert!(slow.contains("/disturbed', 'format'"), "{slow}");
            assert!(fast.contains("/undisturbed', 'format'"), "{fast}");
        }
    }

    #[test]
    fn rows_are_found_by_query_and_as_they_lay_when_there_was_one() {
        let directory = tempfile::tempdir().unwrap();
        let write = |place: &str, text: &str| {
            let place = directory.path().join("reference").join(place);
            std::fs::create_dir_all(&place).unwrap();
            std::fs::write(place.join("part-0"), text).unwrap();
        };
        assert!(rows(directory.path()).unwrap().is_empty());
        Reference::prepare(directory.path(), 7, &[Query::NexmarkQ14]).unwrap();
        write("nexmark-q14/disturbed", "a\nb\n");
        let counts = |query| {
            let rows = rows(directory.path()).unwrap();
            rows.get(&query)
                .map(|both| both.each_ref().map(Rows::count))
        };
        assert_eq!(counts(Query::NexmarkQ14), Some([0, 2]));
        assert_eq!(counts(Query::Flights), None);
        write("undisturbed", "a\n");
        assert_eq!(counts(Query::Flights), Some([1, 0]));
    }
}
