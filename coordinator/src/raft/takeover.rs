//! Puts new contents into a data directory, so that whatever crashes when leaves the old ones or the new ones.
//!
//! ```text
//! <dir>/next/            being written; worth nothing
//! <dir>/next.ready/      complete and on disk: from here on the directory has the new contents, whoever opens it
//! <dir>/before-<…>/      the contents before, for people to look at and to delete
//! ```
//!
//! Everything stays on the file system of the directory itself, which may be a volume of its own.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

const NEXT: &str = "next";
const READY: &str = "next.ready";
/// In [`READY`]: the name of the directory for what was there before.
const ASIDE: &str = "aside";
const ASIDE_PREFIX: &str = "before-";

/// What is replaced.
const PARTS: [&str; 2] = ["log", "snapshots"];

/// An empty directory for the new contents of `dir`.
pub(crate) fn begin(dir: &Path) -> io::Result<PathBuf> {
    let next = dir.join(NEXT);
    remove(&next)?;
    fs::create_dir_all(&next)?;
    Ok(next)
}

/// What was written after [`begin`] takes the place of the contents of `dir`; where these are then, if there were any.
/// `name` becomes part of that name.
pub(crate) fn commit(dir: &Path, name: &str) -> io::Result<Option<PathBuf>> {
    let next = dir.join(NEXT);
    let aside = format!("{ASIDE_PREFIX}{name}");
    fs::write(next.join(ASIDE), &aside)?;
    sync_tree(&next)?;
    fs::rename(&next, dir.join(READY))?;
    sync(dir)?;
    complete(dir)?;
    Ok(Some(dir.join(aside)).filter(|aside| aside.exists()))
}

/// Completes a [`commit`] that a crash has interrupted; whether there was one.
pub(crate) fn complete(dir: &Path) -> io::Result<bool> {
    let ready = dir.join(READY);
    if !ready.is_dir() {
        return Ok(false);
    }
    let aside = fs::read_to_string(ready.join(ASIDE))?;
    if !aside.starts_with(ASIDE_PREFIX) || aside.contains('/') {
        let what = format!(
            "{} does not name a directory beside it",
            ready.join(ASIDE).display()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    let aside = dir.join(aside);
    for part in PARTS {
        let (new, present) = (ready.join(part), dir.join(part));
        if !new.exists() {
            continue;
        }
        if present.exists() {
            fs::create_dir_all(&aside)?;
            fs::rename(&present, aside.join(part))?;
            sync(&aside)?;
            sync(dir)?;
        }
        fs::rename(&new, &present)?;
        sync(dir)?;
    }
    // In one step it is no more than a leftover.
    remove(&dir.join(NEXT))?;
    fs::rename(&ready, dir.join(NEXT))?;
    remove(&dir.join(NEXT))?;
    sync(dir)?;
    Ok(true)
}

/// Whether `dir` has data of a JobManager, or will have when it is opened.
pub(crate) fn is_in_use(dir: &Path) -> bool {
    let parts = PARTS.iter().chain([&READY]);
    parts.into_iter().any(|part| dir.join(part).exists())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn sync_tree(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            sync_tree(&entry?.path())?;
        }
    }
    sync(path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type Tree = BTreeMap<String, String>;

    fn tree(dir: &Path) -> Tree {
        let mut files = Tree::new();
        let mut pending = vec![dir.to_owned()];
        while let Some(next) = pending.pop() {
            for entry in fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    pending.push(path);
                } else {
                    let name = path.strip_prefix(dir).unwrap().display().to_string();
                    files.insert(name, fs::read_to_string(&path).unwrap());
                }
            }
        }
        files
    }

    fn write(dir: &Path, part: &str, content: &str) {
        fs::create_dir_all(dir.join(part)).unwrap();
        fs::write(dir.join(part).join("file"), content).unwrap();
    }

    fn expected(parts: &[(&str, &str)]) -> Tree {
        let one = |(part, content): &(&str, &str)| (format!("{part}/file"), (*content).to_owned());
        parts.iter().map(one).collect()
    }

    fn with_contents() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "log", "old log");
        write(dir.path(), "snapshots", "old snapshots");
        let next = begin(dir.path()).unwrap();
        write(&next, "log", "new log");
        write(&next, "snapshots", "new snapshots");
        dir
    }

    fn replaced() -> Tree {
        expected(&[
            ("log", "new log"),
            ("snapshots", "new snapshots"),
            ("before-x/log", "old log"),
            ("before-x/snapshots", "old snapshots"),
        ])
    }

    #[test]
    fn the_old_contents_are_kept_aside() {
        let dir = with_contents();
        let aside = commit(dir.path(), "x").unwrap();
        assert_eq!(aside, Some(dir.path().join("before-x")));
        assert_eq!(tree(dir.path()), replaced());
        assert!(!complete(dir.path()).unwrap());
    }

    #[test]
    fn an_empty_directory_has_nothing_to_be_kept() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_in_use(dir.path()));
        let next = begin(dir.path()).unwrap();
        write(&next, "log", "new log");
        assert!(!is_in_use(dir.path()));
        assert_eq!(commit(dir.path(), "x").unwrap(), None);
        assert_eq!(tree(dir.path()), expected(&[("log", "new log")]));
        assert!(is_in_use(dir.path()));
    }

    #[test]
    fn what_was_not_completely_written_is_forgotten() {
        let dir = with_contents();
        assert!(!complete(dir.path()).unwrap());
        assert!(tree(&begin(dir.path()).unwrap()).is_empty());
        assert_eq!(tree(&dir.path().join("log")).len(), 1);
    }

    #[test]
    fn a_crash_between_any_two_steps_is_completed_when_the_directory_is_opened() {
        // What each step moves, in order.
        let steps = [
            ("log", "before-x/log"),
            ("next.ready/log", "log"),
            ("snapshots", "before-x/snapshots"),
            ("next.ready/snapshots", "snapshots"),
            ("next.ready", "next"),
        ];
        for done in 0..=steps.len() {
            let dir = with_contents();
            fs::write(dir.path().join("next").join(ASIDE), "before-x").unwrap();
            fs::rename(dir.path().join("next"), dir.path().join("next.ready")).unwrap();
            fs::create_dir(dir.path().join("before-x")).unwrap();
            for (from, to) in &steps[..done] {
                fs::rename(dir.path().join(from), dir.path().join(to)).unwrap();
            }
            assert_eq!(complete(dir.path()).unwrap(), done < steps.len());
            begin(dir.path()).unwrap();
            assert_eq!(tree(dir.path()), replaced(), "after {done} steps");
        }
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        let dir = with_contents();
        fs::write(dir.path().join("next").join(ASIDE), "before-/../../x").unwrap();
        fs::rename(dir.path().join("next"), dir.path().join("next.ready")).unwrap();
        assert!(complete(dir.path()).is_err());
        assert_eq!(tree(&dir.path().join("log")).len(), 1);
    }
}
