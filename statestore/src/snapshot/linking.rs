//! The part of a snapshot for which its task need not stand still: what was sealed is flushed, and linked.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::SnapshotFile;
use crate::error::Error;
use crate::keyed::tablets::Tablets;

/// Done once, by whoever comes first: the upload, or the task when it cannot wait any longer. The other waits.
#[derive(Debug)]
pub(crate) struct Linking {
    step: Mutex<Step>,
    is_over: AtomicBool,
}

#[derive(Debug)]
enum Step {
    Waits {
        tablets: Arc<Tablets>,
        dir: PathBuf,
    },
    Ended(Result<Vec<SnapshotFile>, Error>),
    /// The result was taken, or nobody wants it.
    Over,
}

impl Linking {
    /// Of all files that the tablets have once they are flushed, into directories below `dir`. Nothing may be written to
    /// them before it is over.
    pub(crate) fn new(tablets: Arc<Tablets>, dir: PathBuf) -> Self {
        Self {
            step: Mutex::new(Step::Waits { tablets, dir }),
            is_over: AtomicBool::new(false),
        }
    }

    /// Whether the tablets may be written to again.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Sees to it that it is over. Blocks on the disk.
    pub(crate) fn run(&self) {
        drop(self.ended());
    }

    /// The files, which are for the first who asks. Blocks on the disk.
    pub(super) fn files(&self) -> Result<Vec<SnapshotFile>, Error> {
        match std::mem::replace(&mut *self.ended(), Step::Over) {
            Step::Ended(files) => files,
            Step::Waits { .. } | Step::Over => Err(Error::Backend {
                action: "link a snapshot",
                source: "it was given up".into(),
            }),
        }
    }

    /// If it has not begun, it need not be done.
    pub(super) fn give_up(&self) {
        *self.step() = Step::Over;
        self.is_over.store(true, Ordering::Release);
    }

    fn ended(&self) -> MutexGuard<'_, Step> {
        let mut step = self.step();
        if let Step::Waits { tablets, dir } = &*step {
            let linked = tablets.link_into(dir);
            *step = Step::Ended(linked);
            self.is_over.store(true, Ordering::Release);
        }
        step
    }

    fn step(&self) -> MutexGuard<'_, Step> {
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
