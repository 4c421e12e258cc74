//! The part of a snapshot for which its task need not stand still: what was sealed is flushed, and linked.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::LinkedTablet;
use crate::error::Error;
use crate::keyed::tablets::Tablets;
use crate::rocks::Batch;

/// Done once, by whoever comes first: the upload, or the task when it cannot wait any longer. The other waits.
#[derive(Debug)]
pub(crate) struct Linking {
    work: Mutex<Work>,
    is_over: AtomicBool,
}

#[derive(Debug)]
struct Work {
    /// `None` once it was begun or given up.
    tablets: Option<Arc<Tablets>>,
    dir: PathBuf,
    /// Belongs to the snapshot, and is not in the tablets yet.
    unwritten: Batch,
    /// Until somebody takes it.
    ended: Option<Result<Vec<LinkedTablet>, Error>>,
}

impl Linking {
    /// Of all files that the tablets have once `unwritten` is written and they are flushed, into directories below `dir`.
    /// Nothing else may be written to them before it is over.
    pub(crate) fn new(tablets: Arc<Tablets>, dir: PathBuf, unwritten: Batch) -> Self {
        Self {
            work: Mutex::new(Work {
                tablets: Some(tablets),
                dir,
                unwritten,
                ended: None,
            }),
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

    /// What the tablets still lack, after it was given up or has failed. The caller writes it to them.
    pub(crate) fn unwritten(&self) -> Batch {
        std::mem::take(&mut self.work().unwritten)
    }

    /// The tablets' files, which are for the first who asks. Blocks on the disk.
    pub(super) fn files(&self) -> Result<Vec<LinkedTablet>, Error> {
        let given_up = || {
            Err(Error::Backend {
                action: "link a snapshot",
                source: "it was given up".into(),
            })
        };
        self.ended().ended.take().unwrap_or_else(given_up)
    }

    /// If it has not begun, it need not be done.
    pub(super) fn give_up(&self) {
        self.work().tablets = None;
        self.is_over.store(true, Ordering::Release);
    }

    fn ended(&self) -> MutexGuard<'_, Work> {
        let mut work = self.work();
        if let Some(tablets) = work.tablets.take() {
            let linked = work.link(&tablets);
            work.ended = Some(linked);
            self.is_over.store(true, Ordering::Release);
        }
        work
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work {
    fn link(&mut self, tablets: &Tablets) -> Result<Vec<LinkedTablet>, Error> {
        if self.unwritten.len() > 0 {
            tablets.write(&self.unwritten)?;
            self.unwritten.clear();
            tablets.begin_flush()?;
        }
        tablets.link_into(&self.dir)
    }
}
