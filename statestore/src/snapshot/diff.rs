//! What to upload for a snapshot, and what changes against its base. Pure.

use std::collections::BTreeMap;

use flott_proto::key_group::KeyGroupRange;
use flott_proto::state_handle::StateFile;

use crate::rocks::is_immutable;

/// Which file it is among all local files of one backend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileKey {
    /// Of its tablet.
    pub key_groups: KeyGroupRange,
    /// In its tablet's database.
    pub local_name: String,
}

/// Uploaded files by what they are on local disk. An uploaded file that two tablets have in common is there twice.
pub type FilesByKey = BTreeMap<FileKey, StateFile>;

/// How a snapshot's files relate to what is in object storage. Every file is in exactly one of both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Have to be uploaded under fresh paths.
    pub upload: Vec<FileKey>,
    /// Are there: in the base, or uploaded before (for a checkpoint that was aborted or that is no longer the base).
    pub there: FilesByKey,
}

/// The file in storage that is the local file of this key and size in bytes, be it in the `base` or one that this writer
/// has uploaded before.
///
/// A table's name stands for its content within one database, since RocksDB numbers files without ever reusing a number
/// and keeps the numbers of the files it was opened on; the size is compared as well. The manifest keeps its name while
/// it changes, so it is uploaded every time. What the base has is taken from the base, even if it was uploaded again:
/// its path is the one that the coordinator knows.
pub fn stored<'a>(
    key: &FileKey,
    size: u64,
    base: &'a FilesByKey,
    uploaded: &'a FilesByKey,
) -> Option<&'a StateFile> {
    let same = |files: &'a FilesByKey| files.get(key).filter(|file| file.size == size);
    let stored = same(base).or_else(|| same(uploaded));
    stored.filter(|_| is_immutable(&key.local_name))
}

/// Compares a snapshot's files (with their size in bytes) with what is [`stored`].
pub fn diff(
    files: impl IntoIterator<Item = (FileKey, u64)>,
    base: &FilesByKey,
    uploaded: &FilesByKey,
) -> Diff {
    let mut diff = Diff::default();
    for (key, size) in files {
        match stored(&key, size, base, uploaded).cloned() {
            Some(file) => {
                diff.there.insert(key, file);
            }
            None => diff.upload.push(key),
        }
    }
    diff
}

/// A snapshot as a change against its base: the files that it adds, and the paths of the base that it drops. A file of
/// the base that belongs to other tablets now is dropped and added.
pub fn change(base: &FilesByKey, now: &FilesByKey) -> (Vec<StateFile>, Vec<String>) {
    let (mut before, mut after) = (by_path(base), by_path(now));
    before.retain(|path, file| {
        let same = after.get(path).is_some_and(|now| now == file);
        if same {
            after.remove(path);
        }
        !same
    });
    (after.into_values().collect(), before.into_keys().collect())
}

/// Each file once, with all its tablets.
fn by_path(files: &FilesByKey) -> BTreeMap<String, StateFile> {
    let mut by_path: BTreeMap<String, StateFile> = BTreeMap::new();
    // In order of tablet, since that is what keys are sorted by.
    for (key, file) in files {
        let merged = by_path
            .entry(file.path.clone())
            .or_insert_with(|| StateFile {
                tablets: Vec::new(),
                ..file.clone()
            });
        merged.tablets.push(key.key_groups);
    }
    by_path
}

#[cfg(test)]
mod tests {
    use proptest::collection::btree_map;
    use proptest::prelude::*;

    use super::*;

    const ONE: KeyGroupRange = KeyGroupRange { first: 0, last: 4 };
    const OTHER: KeyGroupRange = KeyGroupRange { first: 5, last: 9 };

    fn file(path: String, name: &str, size: u64) -> StateFile {
        StateFile {
            path,
            local_name: name.to_owned(),
            size,
            crc32c: 0,
            tablets: vec![ONE],
        }
    }

    fn key(local_name: &str) -> FileKey {
        FileKey {
            key_groups: ONE,
            local_name: local_name.to_owned(),
        }
    }

    fn name() -> impl Strategy<Value = String> {
        prop_oneof![4 => (1u8..12).prop_map(|n| format!("{n:06}.sst")), 1 => (1u8..3).prop_map(|n| format!("MANIFEST-{n:06}"))]
    }

    fn files(prefix: &'static str) -> impl Strategy<Value = FilesByKey> {
        btree_map(name(), 1u64..3, 0..10).prop_map(move |sizes| {
            let file = |(name, size): (String, u64)| {
                (key(&name), file(format!("{prefix}/{name}"), &name, size))
            };
            sizes.into_iter().map(file).collect()
        })
    }

    proptest! {
        #[test]
        fn base_without_dropped_with_added_is_exactly_what_is_live(
            live in btree_map(name(), 1u64..3, 0..10), base in files("base"), uploaded in files("other")
        ) {
            let live: Vec<(FileKey, u64)> = live.iter().map(|(name, size)| (key(name), *size)).collect();
            let diff = diff(live.clone(), &base, &uploaded);
            let size = |key: &FileKey| live.iter().find(|(live, _)| live == key).map(|(_, size)| *size);
            let mut now = diff.there;
            for key in diff.upload {
                let fresh = file(format!("fresh/{}", key.local_name), &key.local_name, size(&key).unwrap());
                prop_assert!(now.insert(key, fresh).is_none());
            }
            let sizes: Vec<(FileKey, u64)> = now.iter().map(|(key, file)| (key.clone(), file.size)).collect();
            prop_assert_eq!(sizes, live);
            let (added, dropped) = change(&base, &now);
            let mut result = by_path(&base);
            for path in dropped {
                prop_assert!(result.remove(&path).is_some(), "drops {path}, which the base does not hold");
            }
            for added in added {
                prop_assert!(result.insert(added.path.clone(), added).is_none(), "adds what the base holds");
            }
            prop_assert_eq!(result, by_path(&now));
        }

        #[test]
        fn only_what_was_never_uploaded_is_uploaded(
            live in btree_map(name(), 1u64..3, 0..10), base in files("base"), uploaded in files("other")
        ) {
            let live: Vec<(FileKey, u64)> = live.iter().map(|(name, size)| (key(name), *size)).collect();
            for key in diff(live.clone(), &base, &uploaded).upload {
                let size = live.iter().find(|(live, _)| *live == key).map(|(_, size)| *size).unwrap();
                let known = |files: &FilesByKey| files.get(&key).is_some_and(|file| file.size == size);
                prop_assert!(key.local_name.starts_with("MANIFEST") || !(known(&base) || known(&uploaded)));
            }
        }
    }

    #[test]
    fn the_manifest_is_uploaded_even_if_nothing_changed() {
        let live = [(key("000007.sst"), 10), (key("MANIFEST-000005"), 3)];
        let base: FilesByKey = live
            .iter()
            .map(|(key, size)| {
                let name = &key.local_name;
                (key.clone(), file(format!("w/{name}"), name, *size))
            })
            .collect();
        let diff = diff(live, &base, &base);
        assert_eq!(diff.upload, [key("MANIFEST-000005")]);
        assert_eq!(diff.there.len(), 1);
        assert_eq!(change(&base, &diff.there).1, ["w/MANIFEST-000005"]);
    }

    #[test]
    fn a_file_of_two_tablets_is_one_object_until_the_last_of_them_drops_it() {
        let shared = file("w/1".into(), "1.sst", 10);
        let of = |key_groups| FileKey {
            key_groups,
            local_name: "1.sst".into(),
        };
        let both: FilesByKey = [ONE, OTHER]
            .map(|tablet| (of(tablet), shared.clone()))
            .into();
        let one: FilesByKey = [(of(OTHER), shared.clone())].into();
        let with = |tablets: &[KeyGroupRange]| StateFile {
            tablets: tablets.to_vec(),
            ..shared.clone()
        };
        let nothing = FilesByKey::new();
        assert_eq!(change(&nothing, &both), (vec![with(&[ONE, OTHER])], vec![]));
        assert_eq!(change(&both, &both), (vec![], vec![]));
        assert_eq!(
            change(&both, &one),
            (vec![with(&[OTHER])], vec!["w/1".into()])
        );
        assert_eq!(change(&one, &nothing), (vec![], vec!["w/1".into()]));
    }
}
