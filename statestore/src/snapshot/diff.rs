//! What to upload for a snapshot, and what changes against its base. Pure.

use std::collections::{BTreeMap, BTreeSet};

use flott_proto::state_handle::StateFile;

use crate::rocks::is_immutable;

/// Uploaded files by the name that they have in the local database.
pub type FilesByName = BTreeMap<String, StateFile>;

/// How a snapshot's files relate to its base. Every live file is in exactly one of `upload`, `reuse` and `kept`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Local names that have to be uploaded under fresh paths; then they are added.
    pub upload: Vec<String>,
    /// Not in the base, but uploaded before (for a checkpoint that was aborted or that is no longer the base): added
    /// without an upload.
    pub reuse: Vec<StateFile>,
    /// In the base and still live: neither added nor dropped.
    pub kept: Vec<StateFile>,
    /// Paths of the base that are no longer live.
    pub dropped: Vec<String>,
}

/// Compares the `live` files (local name, size in bytes) with the `base` and with what this writer has uploaded before.
///
/// A table's name stands for its content within one database, since RocksDB numbers files without ever reusing a number
/// and keeps the numbers of the files it was opened on; the size is compared as well. The manifest keeps its name while
/// it changes, so it is uploaded every time. What the base has is taken from the base, even if it was uploaded again:
/// its path is the one that the coordinator knows.
pub fn diff(live: &[(String, u64)], base: &FilesByName, uploaded: &FilesByName) -> Diff {
    let mut diff = Diff::default();
    let same = |files: &FilesByName, name: &str, size: u64| {
        files
            .get(name)
            .filter(|file| is_immutable(name) && file.size == size)
            .cloned()
    };
    for (name, size) in live {
        if let Some(file) = same(base, name, *size) {
            diff.kept.push(file);
        } else if let Some(file) = same(uploaded, name, *size) {
            diff.reuse.push(file);
        } else {
            diff.upload.push(name.clone());
        }
    }
    let kept: BTreeSet<&str> = diff.kept.iter().map(|file| file.path.as_str()).collect();
    diff.dropped = base
        .values()
        .map(|file| &file.path)
        .filter(|path| !kept.contains(path.as_str()))
        .cloned()
        .collect();
    diff
}

#[cfg(test)]
mod tests {
    use flott_proto::key_group::KeyGroupRange;
    use proptest::collection::btree_map;
    use proptest::prelude::*;

    use super::*;

    fn file(path: String, name: &str, size: u64) -> StateFile {
        let key_groups = KeyGroupRange {
            first: 0,
            last: 127,
        };
        StateFile {
            path,
            local_name: name.to_owned(),
            size,
            crc32c: 0,
            key_groups,
        }
    }

    fn name() -> impl Strategy<Value = String> {
        prop_oneof![4 => (1u8..12).prop_map(|n| format!("{n:06}.sst")), 1 => (1u8..3).prop_map(|n| format!("MANIFEST-{n:06}"))]
    }

    fn files(prefix: &'static str) -> impl Strategy<Value = FilesByName> {
        btree_map(name(), 1u64..3, 0..10).prop_map(move |sizes| {
            let file = |(name, size): (String, u64)| {
                (name.clone(), file(format!("{prefix}/{name}"), &name, size))
            };
            sizes.into_iter().map(file).collect()
        })
    }

    proptest! {
        #[test]
        fn base_without_dropped_with_added_is_exactly_what_is_live(
            live in btree_map(name(), 1u64..3, 0..10), base in files("base"), uploaded in files("other")
        ) {
            let live: Vec<(String, u64)> = live.into_iter().collect();
            let diff = diff(&live, &base, &uploaded);
            let mut result: BTreeMap<String, StateFile> = base.values().map(|f| (f.path.clone(), f.clone())).collect();
            for path in &diff.dropped {
                prop_assert!(result.remove(path).is_some(), "drops {path}, which the base does not hold");
            }
            let size = |name: &str| live.iter().find(|(live, _)| live == name).map(|(_, size)| *size);
            let fresh = diff.upload.iter().map(|name| file(format!("fresh/{name}"), name, size(name).unwrap()));
            for added in diff.reuse.iter().cloned().chain(fresh) {
                prop_assert!(result.insert(added.path.clone(), added).is_none(), "adds what the base holds");
            }
            let mut names: Vec<(String, u64)> = result.values().map(|f| (f.local_name.clone(), f.size)).collect();
            names.sort();
            prop_assert_eq!(names, live);
        }

        #[test]
        fn only_what_was_never_uploaded_is_uploaded(
            live in btree_map(name(), 1u64..3, 0..10), base in files("base"), uploaded in files("other")
        ) {
            let live: Vec<(String, u64)> = live.into_iter().collect();
            for name in diff(&live, &base, &uploaded).upload {
                let size = live.iter().find(|(live, _)| *live == name).map(|(_, size)| *size).unwrap();
                let known = |files: &FilesByName| files.get(&name).is_some_and(|file| file.size == size);
                prop_assert!(name.starts_with("MANIFEST") || !(known(&base) || known(&uploaded)));
            }
        }
    }

    #[test]
    fn the_manifest_is_uploaded_even_if_nothing_changed() {
        let live = [
            ("000007.sst".to_owned(), 10),
            ("MANIFEST-000005".to_owned(), 3),
        ];
        let base: FilesByName = live
            .iter()
            .map(|(n, s)| (n.clone(), file(format!("w/{n}"), n, *s)))
            .collect();
        let diff = diff(&live, &base, &base);
        assert_eq!(diff.upload, ["MANIFEST-000005"]);
        assert_eq!(diff.dropped, ["w/MANIFEST-000005"]);
        assert_eq!(diff.kept.len(), 1);
    }
}
