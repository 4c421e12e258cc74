//! The page of a process of ours, by which its clock and its disk are changed while it runs: what the harness has of
//! [`flott_chaos_basis::control`]. And where the library is that obeys it.
//!
//! Written as a file: the process has the same page mapped.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use flott_chaos_basis::control::{self, Lever};

use crate::cluster::beside;

/// The file that is built beside this program.
const LIBRARY: &str = "libflott_chaos_preload.so";

/// The library, or why there is none and what to do.
pub type Library = Result<PathBuf, String>;

/// The library at `given`, or beside this program.
pub fn library(given: Option<&Path>) -> Library {
    let path = match given {
        Some(path) => path.to_owned(),
        None => beside(LIBRARY).map_err(|error| format!("{error:#}"))?,
    };
    let path = path.canonicalize().map_err(|error| {
        format!(
            "the library for clocks and disks, {}: {error}; build it with `cargo build -p flott-chaos-preload`, with \
             --release for a release build, or name it by --preload",
            path.display()
        )
    })?;
    let separates = |byte: &u8| matches!(byte, b':' | b' ');
    match path.as_os_str().as_bytes().iter().any(separates) {
        true => Err(format!(
            "{} cannot be preloaded: its path has a space or a colon; name another by --preload",
            path.display()
        )),
        false => Ok(path),
    }
}

/// The page of one process, and of those that are started in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    path: PathBuf,
}

impl Control {
    /// A page at `path` that says nothing, about the disk that `prefix`, which exists, is on.
    pub fn create(path: &Path, prefix: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("cannot make the control page {}", path.display());
        let prefix = prefix.canonicalize().with_context(cannot)?;
        let bytes = control::fresh(prefix.as_os_str().as_bytes())
            .context("the path of the directory is too long")
            .with_context(cannot)?;
        fs::write(path, bytes).with_context(cannot)?;
        let path = path.canonicalize().with_context(cannot)?;
        Ok(Self { path })
    }

    /// The one that was made there.
    pub fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    #[expect(missing_docs, reason = "where the file is")]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What a process has to have in its environment to obey this page.
    pub fn environment<'a>(&'a self, library: &'a Path) -> [(&'a OsStr, &'a OsStr); 2] {
        let variable = OsStr::from_bytes(control::VARIABLE.to_bytes());
        [
            (OsStr::new("LD_PRELOAD"), library.as_os_str()),
            (variable, self.path.as_os_str()),
        ]
    }

    /// The process that obeyed it last.
    pub fn process(&self) -> anyhow::Result<i32> {
        let bytes = self.read::<4>(control::AT_PROCESS)?;
        Ok(i32::from_ne_bytes(bytes))
    }

    /// How often the lever has done something to a process.
    pub fn times(&self, lever: Lever) -> anyhow::Result<u64> {
        Ok(u64::from_ne_bytes(self.read(lever.at_times())?))
    }

    /// Whether the lever is on, or was when its time ended.
    pub fn is_on(&self, lever: Lever) -> anyhow::Result<bool> {
        Ok(self.read::<1>(lever.at_on())? != [0])
    }

    /// The lever, which is off, is on from now until `until_ms`, milliseconds since 1970, and does something `left` times
    /// at most.
    pub fn press(&self, lever: Lever, until_ms: i64, amount: u64, left: u64) -> anyhow::Result<()> {
        let until_ms = u64::try_from(until_ms).unwrap_or(0);
        self.write(
            lever.at_measures(),
            &control::measures(until_ms, amount, left),
        )?;
        self.write(lever.at_on(), &[1])
    }

    /// The lever is off.
    pub fn release(&self, lever: Lever) -> anyhow::Result<()> {
        self.write(lever.at_on(), &[0])
    }

    /// All levers are off.
    pub fn release_all(&self) -> anyhow::Result<()> {
        Lever::ALL
            .into_iter()
            .try_for_each(|lever| self.release(lever))
    }

    fn read<const N: usize>(&self, at: usize) -> anyhow::Result<[u8; N]> {
        let mut bytes = [0; N];
        let mut read = || File::open(&self.path)?.read_exact_at(&mut bytes, at as u64);
        self.done(read(), "read")?;
        Ok(bytes)
    }

    fn write(&self, at: usize, bytes: &[u8]) -> anyhow::Result<()> {
        let write = || {
            let file = OpenOptions::new().write(true).open(&self.path)?;
            file.write_all_at(bytes, at as u64)
        };
        self.done(write(), "write")
    }

    fn done(&self, result: io::Result<()>, what: &str) -> anyhow::Result<()> {
        result.with_context(|| format!("cannot {what} the control page {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lever_is_on_until_it_is_released_and_no_other_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("page");
        let page = Control::create(&path, directory.path()).unwrap();
        assert_eq!(page.process().unwrap(), 0);
        page.press(Lever::Slow, 1_000, 20, control::ALWAYS).unwrap();
        for lever in Lever::ALL {
            assert_eq!(page.is_on(lever).unwrap(), lever == Lever::Slow);
            assert_eq!(page.times(lever).unwrap(), 0);
        }
        page.press(Lever::Clock, 1_000, 20, control::ALWAYS)
            .unwrap();
        page.release(Lever::Slow).unwrap();
        assert!(Control::at(&path).is_on(Lever::Clock).unwrap());
        page.release_all().unwrap();
        assert!(!Lever::ALL.iter().any(|lever| page.is_on(*lever).unwrap()));
        assert_eq!(fs::metadata(&path).unwrap().len(), control::BYTES as u64);
    }

    #[test]
    fn a_library_that_is_not_there_is_named_with_the_remedy() {
        let why = library(Some(Path::new("/nowhere/lib.so"))).unwrap_err();
        for words in ["/nowhere/lib.so", "cargo build", "--preload"] {
            assert!(why.contains(words), "{why}");
        }
        let directory = tempfile::tempdir().unwrap();
        let spaced = directory.path().join("a b.so");
        fs::write(&spaced, "").unwrap();
        assert!(library(Some(&spaced)).unwrap_err().contains("space"));
    }
}
