//! Deleting a savepoint that is nobody's any more: one that was given up half-way, or that was claimed and is used up.

use flott_node::storage::{self, ObjectStorage};
use flott_proto::paths;

use super::FilesError;

/// Deletes a savepoint, and its directory if nothing else is in it: what somebody put there besides stays. `_metadata` goes
/// first, so that no part of a savepoint passes for a whole one. May be repeated. Returns how many objects it deleted.
pub(crate) async fn delete(directory: &str) -> Result<usize, FilesError> {
    let storage = match ObjectStorage::open_existing(directory) {
        Ok(storage) => storage,
        Err(storage::Error::NotFound { .. }) => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let objects = storage.list("").await?;
    let mut parts: Vec<String> = objects
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| paths::is_of_savepoint(path))
        .collect();
    parts.sort_by_key(|path| path != paths::METADATA);
    for path in &parts {
        storage.delete(path).await?;
    }
    storage.remove_directory_if_empty().await?;
    Ok(parts.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_savepoint_goes_with_its_directory_and_without_what_is_not_its_own() {
        let parent = tempfile::tempdir().unwrap();
        for (foreign, gone) in [(None, true), (Some("notes/a.txt"), false)] {
            let directory = parent.path().join("savepoint");
            let storage = ObjectStorage::open(directory.to_str().unwrap()).unwrap();
            for path in [paths::METADATA, "7-1-window-0/00000000"]
                .into_iter()
                .chain(foreign)
            {
                storage.put(path, "content".into()).await.unwrap();
            }
            for expected in [2, 0] {
                let deleted = delete(directory.to_str().unwrap()).await.unwrap();
                assert_eq!(deleted, expected);
                assert_eq!(!directory.exists(), gone);
            }
            let left = foreign.map(|path| directory.join(path).exists());
            assert_ne!(left, Some(false));
        }
    }
}
