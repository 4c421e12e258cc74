//! A corpus that is gathered while inputs are tried: those of which something became that has become of none before
//! ([`crate::outcome`]).
//!
//! It is replayed by every ordinary test and checked in, so it stays small: a few files, of a few bytes each.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::random::Random;

/// Files of a target's corpus.
const FILES_MAX: usize = 40;
/// Of all of them. There are some thirty targets, and together they stay below a megabyte.
const BYTES_MAX: usize = 24 << 10;
/// Of one input: else a few would take the room of all.
const INPUT_BYTES_MAX: usize = 4 << 10;

/// The corpus of a target, while it grows.
#[derive(Debug)]
pub(crate) struct Gathering {
    directory: PathBuf,
    known: BTreeSet<String>,
    files: usize,
    bytes: usize,
    /// How many were added.
    pub(crate) added: usize,
}

impl Gathering {
    /// Goes on with what is in the directory.
    pub(crate) fn begin(directory: &Path) -> Self {
        let there = files(directory);
        Self {
            directory: directory.to_owned(),
            known: BTreeSet::new(),
            files: there.len(),
            bytes: there.iter().map(Vec::len).sum(),
            added: 0,
        }
    }

    /// That became of an input which is tried each time anyway.
    pub(crate) fn know(&mut self, outcome: String) {
        self.known.insert(outcome);
    }

    /// Whether that has become of no input yet, and there is room for one.
    pub(crate) fn wants(&self, outcome: &str) -> bool {
        self.files < FILES_MAX && !self.known.contains(outcome)
    }

    /// Keeps the input, made as small as it could be, if that is small enough; whether it did.
    pub(crate) fn keep(&mut self, input: &[u8], outcome: String) -> bool {
        self.know(outcome);
        let fits = input.len() <= INPUT_BYTES_MAX
            && self.files < FILES_MAX
            && self.bytes + input.len() <= BYTES_MAX;
        if fits {
            save(&self.directory, [input]);
            self.files += 1;
            self.bytes += input.len();
            self.added += 1;
        }
        fits
    }
}

/// What is in a directory, in the order of the names.
pub(crate) fn files(directory: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let read = |path: &PathBuf| fs::read(path).expect("an input can be read");
    paths.iter().map(read).collect()
}

/// Writes each input to a file that is named by its content; where the last one is.
pub(crate) fn save(
    directory: &Path,
    inputs: impl IntoIterator<Item = impl AsRef<[u8]>>,
) -> PathBuf {
    fs::create_dir_all(directory).expect("inputs can be saved");
    let mut path = directory.to_owned();
    for input in inputs {
        let input = input.as_ref();
        let name = Random::named(&String::from_utf8_lossy(input)).next();
        path = directory.join(format!("{name:016x}"));
        fs::write(&path, input).expect("inputs can be saved");
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_kept_once_for_each_outcome_and_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("corpus");
        let mut gathering = Gathering::begin(&directory);
        gathering.know("decoded".to_owned());
        assert!(!gathering.wants("decoded"));
        assert!(gathering.wants("too short") && gathering.keep(b"a", "too short".to_owned()));
        assert!(!gathering.wants("too short"));
        assert_eq!(files(&directory), [b"a"]);
        let again = Gathering::begin(&directory);
        assert_eq!((again.files, again.bytes, again.added), (1, 1, 0));
    }

    #[test]
    fn a_corpus_stays_small() {
        let directory = tempfile::tempdir().unwrap();
        let mut gathering = Gathering::begin(&directory.path().join("many"));
        assert!(!gathering.keep(&[0; INPUT_BYTES_MAX + 1], "large".to_owned()));
        for number in 0..2 * FILES_MAX {
            gathering.keep(format!("{number}").as_bytes(), format!("{number}"));
        }
        assert_eq!(gathering.added, FILES_MAX);
        assert!(!gathering.wants("another"));

        let mut gathering = Gathering::begin(&directory.path().join("large"));
        for number in 0..FILES_MAX {
            let input = vec![number as u8; INPUT_BYTES_MAX];
            gathering.keep(&input, format!("{number}"));
        }
        assert_eq!(gathering.bytes, BYTES_MAX);
    }
}
