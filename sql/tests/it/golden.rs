//! Golden files: what a script becomes, for a person to read and approve.
//!
//! `golden/*.sql` is one script each, beside it `.yaml` (a job), `.txt` (an EXPLAIN) or `.err` (a refusal).
//! `golden/refused/*.sql` holds queries separated by lines of dashes, each behind the common tables; the `.err` beside
//! it has the refusals in order. A difference fails the test and leaves the truth in a file `*.actual` beside; to
//! approve it, rename that file.

use std::fs;
use std::path::{Path, PathBuf};

use flott_sql::{Compiled, SqlError};

use crate::compiler::{PRELUDE, run};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The scripts of a directory, with their paths.
pub(crate) fn scripts(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| (path.clone(), fs::read_to_string(&path).unwrap()))
        .collect()
}

/// Every whole script of the golden files.
pub(crate) fn whole_scripts() -> Vec<(PathBuf, String)> {
    scripts(&directory())
}

fn outcome(result: Result<Compiled, SqlError>) -> (&'static str, String) {
    match result {
        Ok(Compiled::Job {
            graph,
            configuration,
        }) => {
            let mut text = graph.to_yaml();
            for (key, value) in configuration {
                text.push_str(&format!("# SET '{key}' = '{value}'\n"));
            }
            ("yaml", text)
        }
        Ok(Compiled::Explain { text }) => ("txt", text),
        Err(error) => ("err", format!("{error}\n")),
    }
}

fn compare(script: &Path, extension: &str, actual: &str, failures: &mut Vec<String>) {
    let expected = script.with_extension(extension);
    let beside = script.with_extension(format!("{extension}.actual"));
    if fs::read_to_string(&expected).is_ok_and(|text| text == actual) {
        let _ = fs::remove_file(beside);
    } else {
        fs::write(&beside, actual).unwrap();
        failures.push(format!(
            "{} differs from {}",
            beside.display(),
            expected.display()
        ));
    }
}

#[test]
fn scripts_become_what_their_golden_files_say() {
    let mut failures = Vec::new();
    for (path, script) in whole_scripts() {
        let (extension, actual) = outcome(run(&script));
        compare(&path, extension, &actual, &mut failures);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn refusals_name_their_place_and_the_remedy() {
    let mut failures = Vec::new();
    let mut count = 0;
    for (path, text) in scripts(&directory().join("refused")) {
        let mut actual = String::new();
        for query in text.split("\n----\n") {
            let query = query.trim_end();
            count += 1;
            let (_, outcome) = outcome(run(&format!("{PRELUDE}\n{query}")));
            actual.push_str(&format!("{query}\n=> {outcome}----\n"));
        }
        compare(&path, "err", &actual, &mut failures);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(count > 80, "only {count} refusals");
}
