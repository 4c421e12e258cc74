//! The object store: which objects exist, and that no name ever means two things.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flott_proto::ids::{CheckpointId, JobId, SubtaskId};
use flott_proto::paths;
use flott_proto::state_handle::SubtaskState;

/// What the files of the jobs' own checkpoints are relative to.
pub(super) const CHECKPOINTS: &str = "memory:///test";
/// Where savepoints go.
pub(super) const SAVEPOINTS: &str = "memory:///savepoints";

/// The object at `path` below `root`, which is the directory of a savepoint, or [`CHECKPOINTS`] or nothing for that.
pub(super) fn object(root: &str, path: &str) -> String {
    if root.starts_with(SAVEPOINTS) {
        format!("{root}/{path}")
    } else {
        path.to_owned()
    }
}

/// The directory of the savepoint, or else of the job, that an object belongs to.
pub(super) fn directory_of(object: &str) -> &str {
    let savepoint = object.strip_prefix(SAVEPOINTS).and_then(|rest| {
        let name = rest.strip_prefix('/')?.split('/').next()?;
        Some(&object[..=SAVEPOINTS.len() + name.len()])
    });
    savepoint.unwrap_or_else(|| paths::job_of(object).unwrap())
}

/// What a `_metadata` object says.
#[derive(Debug, PartialEq)]
pub(super) struct Metadata {
    pub(super) job: JobId,
    pub(super) checkpoint: CheckpointId,
    /// Of a savepoint: where it lies.
    pub(super) savepoint_directory: Option<String>,
    pub(super) subtasks: BTreeMap<SubtaskId, SubtaskState>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    /// A state file; no two are alike.
    File(u64),
    Metadata(Arc<Metadata>),
}

#[derive(Debug, Default)]
pub(super) struct Objects {
    /// By path: the step at which the object was written last.
    present: BTreeMap<String, u64>,
    /// Everything that was ever written.
    contents: BTreeMap<String, Content>,
    /// Something was written or deleted since the last check.
    pub(super) changed: bool,
}

impl Objects {
    /// Writes an object. Two leaders may write the same `_metadata`, but never another one under its name; a state file is
    /// written once.
    pub(super) fn put(&mut self, path: &str, content: Content, step: u64) {
        if let Some(before) = self.contents.get(path) {
            assert_eq!(*before, content, "{path} is written with other content");
        } else {
            self.contents.insert(path.to_owned(), content);
        }
        self.present.insert(path.to_owned(), step);
        self.changed = true;
    }

    /// Whether there was such an object.
    pub(super) fn delete(&mut self, path: &str) -> bool {
        self.changed = true;
        self.present.remove(path).is_some()
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.present.contains_key(path)
    }

    /// The objects below a directory.
    pub(super) fn list(&self, directory: &str) -> BTreeSet<String> {
        let prefix = format!("{directory}/");
        let below = self.present.range(prefix.clone()..);
        let below = below.take_while(|(path, _)| path.starts_with(&prefix));
        below.map(|(path, _)| path.clone()).collect()
    }

    pub(super) fn written_at(&self, path: &str) -> u64 {
        self.present[path]
    }

    /// Every `_metadata` object.
    pub(super) fn metadata(&self) -> impl Iterator<Item = (&String, &Arc<Metadata>)> {
        let paths = self.present.keys();
        paths.filter_map(|path| match &self.contents[path] {
            Content::Metadata(metadata) => Some((path, metadata)),
            Content::File(_) => None,
        })
    }

    /// State files of a job that were ever written, whether they still exist or not.
    pub(super) fn files_ever_of(&self, job_directory: &str) -> impl Iterator<Item = &String> {
        let prefix = format!("{job_directory}/shared/");
        let below = self.contents.range(prefix.clone()..).map(|(path, _)| path);
        below.take_while(move |path| path.starts_with(&prefix))
    }
}
