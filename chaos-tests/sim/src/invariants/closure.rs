//! What is retained is there: every file of every retained checkpoint and savepoint, at every moment, with its size. And at
//! the end, when what nobody needs was collected, nothing else is.

use std::collections::BTreeSet;

use flott_coordinator::core::job::Start;
use flott_coordinator::core::{ClusterState, Job};

use crate::object_store::Store;

/// The root of checkpoints within the store.
const CHECKPOINTS: &str = "checkpoints";

/// The name within the store of a path below such a root.
fn name(root: &str, path: &str) -> String {
    let root = root.trim_start_matches("sim:").trim_matches('/');
    format!("{root}/{path}")
}

/// What a job may have to read or keep, with sizes where they are known.
fn needed(job: &Job) -> Vec<(String, Option<u64>)> {
    let store = &job.checkpoints;
    let root = &job.settings.checkpoint_dir;
    let mut needed = Vec::new();
    for checkpoint in store.retained.iter().chain(&store.savepoints) {
        let of = checkpoint.root(root);
        let files = checkpoint.subtasks.values();
        let files = files.flat_map(|state| state.files.values());
        needed.extend(files.map(|file| (name(of, &file.path), Some(file.size))));
        let metadata = match &checkpoint.metadata_object {
            Some(object) => name(root, object),
            None => name(&checkpoint.external_path, "_metadata"),
        };
        needed.push((metadata, None));
    }
    if !job.status.is_terminal() {
        for start in job.starts() {
            if let Start::Submitted(point) = start {
                let files = point.subtasks.values();
                let files = files.flat_map(|state| state.files.values());
                needed.extend(files.map(|file| (name(&point.root, &file.path), Some(file.size))));
            }
        }
    }
    needed
}

/// Whether all is there that a job needs.
pub fn check(job: &Job, store: &Store) -> Result<(), String> {
    for (path, size) in needed(job) {
        match (store.size(&path), size) {
            (None, _) => {
                return Err(format!(
                    "closure: {} needs {path}, which is not there",
                    job.id
                ));
            }
            (Some(there), Some(size)) if there != size => {
                return Err(format!(
                    "closure: {path} has {there} bytes instead of {size}"
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether nothing is left that nobody needs, once orphans were collected. Savepoints are the users'.
pub fn check_quiet(state: &ClusterState, store: &Store) -> Result<(), String> {
    let jobs = state.jobs.values();
    let needed = jobs.flat_map(|job| needed(job)).map(|(path, _)| path);
    let needed: BTreeSet<String> = needed.collect();
    let objects = store.objects().into_keys();
    let mut checkpoints = objects.filter(|path| path.starts_with(CHECKPOINTS));
    match checkpoints.find(|path| !needed.contains(path)) {
        Some(orphan) => Err(format!("closure: {orphan} is there, and nobody needs it")),
        None => Ok(()),
    }
}
