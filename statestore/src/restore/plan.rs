//! Which files make up the state of a range of key groups. Pure.

use std::collections::BTreeMap;

use flott_proto::key_group::KeyGroupRange;
use flott_proto::state_handle::{StateFile, SubtaskState};

use crate::error::Error;
use crate::rocks::is_manifest;

/// The files of one saved database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablet {
    /// The key groups whose state it holds.
    pub key_groups: KeyGroupRange,
    /// By local name.
    pub files: BTreeMap<String, StateFile>,
    /// The local name of the one file that lists the others.
    pub manifest: String,
}

/// A tablet, and the key groups to take from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub tablet: Tablet,
    pub take: KeyGroupRange,
}

/// Tablets of one backend. Each is a database, with memory, files and background work of its own, and every change of
/// parallelism cuts the key groups in other places: beyond this they are copied into one.
pub const TABLETS_MAX: usize = 8;

/// How to come by the state of a range of key groups. The parts are in order, disjoint, and make up the whole range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestorePlan {
    /// There is no state.
    Empty,
    /// Open the tablets on their files.
    Open(Vec<Part>),
    /// Copy from the tablets into a new one.
    Rebuild(Vec<Part>),
}

/// Decides how to restore `range` from what subtasks saved. Fails with [`Error::Incomplete`] where the states leave a
/// gap in the range, overlap, or hold a tablet that cannot be opened.
pub fn plan(range: KeyGroupRange, states: &[SubtaskState]) -> Result<RestorePlan, Error> {
    let mut parts = Vec::new();
    let mut any_files = false;
    for state in states {
        let mut tablets: BTreeMap<KeyGroupRange, Vec<&StateFile>> = BTreeMap::new();
        for file in state.files.values() {
            any_files = true;
            for key_groups in &file.tablets {
                tablets.entry(*key_groups).or_default().push(file);
            }
        }
        for (key_groups, files) in tablets {
            if let Some(take) = key_groups.intersection(range) {
                let tablet = tablet(key_groups, files)?;
                parts.push(Part { tablet, take });
            }
        }
    }
    if !any_files {
        return Ok(RestorePlan::Empty);
    }
    parts.sort_by_key(|part| part.take);
    let mut next = u32::from(range.first);
    for Part { take, .. } in &parts {
        let first = u32::from(take.first);
        if first != next {
            let what = if first < next { "twice" } else { "not at all" };
            let (low, high) = (first.min(next), first.max(next));
            let reason = format!("key groups from {low} to below {high} are there {what}");
            return Err(Error::Incomplete { reason });
        }
        next = u32::from(take.last) + 1;
    }
    if next != u32::from(range.last) + 1 {
        let reason = format!("key groups {next} to {} are not there", range.last);
        return Err(Error::Incomplete { reason });
    }
    if parts.len() <= TABLETS_MAX {
        Ok(RestorePlan::Open(parts))
    } else {
        Ok(RestorePlan::Rebuild(parts))
    }
}

fn tablet(key_groups: KeyGroupRange, files: Vec<&StateFile>) -> Result<Tablet, Error> {
    let incomplete = |what: String| Error::Incomplete {
        reason: format!("the tablet of key groups {key_groups} has {what}"),
    };
    let mut manifests = files.iter().filter(|file| is_manifest(&file.local_name));
    let manifest = match (manifests.next(), manifests.next()) {
        (Some(manifest), None) => manifest.local_name.clone(),
        (None, _) => return Err(incomplete("no manifest".to_owned())),
        (Some(_), Some(_)) => return Err(incomplete("two manifests".to_owned())),
    };
    let mut by_name = BTreeMap::new();
    for file in files {
        if let Some(twice) = by_name.insert(file.local_name.clone(), file.clone()) {
            return Err(incomplete(format!("two files {}", twice.local_name)));
        }
    }
    Ok(Tablet {
        key_groups,
        files: by_name,
        manifest,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(writer: &str, name: &str, key_groups: KeyGroupRange) -> (String, StateFile) {
        let path = format!("{writer}/{name}");
        let local_name = name.to_owned();
        (
            path.clone(),
            StateFile {
                path,
                local_name,
                size: 1,
                crc32c: 0,
                tablets: vec![key_groups],
            },
        )
    }

    fn state(key_groups: KeyGroupRange) -> SubtaskState {
        let writer = format!("w-{key_groups}");
        let files = ["MANIFEST-000005", "000007.sst"].map(|name| file(&writer, name, key_groups));
        SubtaskState {
            files: files.into(),
            ..SubtaskState::default()
        }
    }

    fn range(first: u16, last: u16) -> KeyGroupRange {
        KeyGroupRange { first, last }
    }

    proptest! {
        #[test]
        fn rescaling_takes_every_key_group_exactly_once(
            max in 1u32..200, from in 0.0f64..1.0, to in 0.0f64..1.0
        ) {
            let parallelism = |share: f64| 1 + (f64::from(max - 1) * share) as u32;
            let (from, to) = (parallelism(from), parallelism(to));
            let ranges = |parallelism| (0..parallelism).map(move |n| KeyGroupRange::of_subtask(n, max, parallelism));
            let states: Vec<_> = ranges(from).map(state).collect();
            let mut taken = Vec::new();
            for mine in ranges(to) {
                let plan = plan(mine, &states).unwrap();
                let rebuilt = matches!(plan, RestorePlan::Rebuild(_));
                let (RestorePlan::Open(parts) | RestorePlan::Rebuild(parts)) = plan else {
                    return Err(TestCaseError::fail("there is state"));
                };
                prop_assert_eq!(rebuilt, parts.len() > TABLETS_MAX);
                for Part { tablet, take } in parts {
                    prop_assert_eq!(tablet.key_groups.intersection(take), Some(take));
                    prop_assert!(from != to || tablet.key_groups == mine);
                    taken.extend(take.groups());
                }
            }
            prop_assert_eq!(taken, KeyGroupRange::all(max).groups().collect::<Vec<_>>());
        }

        #[test]
        fn a_missing_state_is_never_silent(parallelism in 2u32..10, lost in any::<prop::sample::Index>()) {
            let mut states: Vec<_> = (0..parallelism).map(|n| state(KeyGroupRange::of_subtask(n, 128, parallelism))).collect();
            states.remove(lost.index(states.len()));
            let plan = plan(KeyGroupRange::all(128), &states);
            prop_assert!(matches!(plan, Err(Error::Incomplete { .. })), "{:?}", plan);
        }
    }

    #[test]
    fn states_without_files_start_empty() {
        assert_eq!(plan(range(0, 9), &[]).unwrap(), RestorePlan::Empty);
        assert_eq!(
            plan(
                range(0, 9),
                &[SubtaskState::default(), SubtaskState::default()]
            )
            .unwrap(),
            RestorePlan::Empty
        );
    }

    #[test]
    fn what_cannot_be_opened_is_refused() {
        let whole = range(0, 9);
        let refused =
            |states: &[SubtaskState]| matches!(plan(whole, states), Err(Error::Incomplete { .. }));
        assert!(refused(&[state(whole), state(range(5, 9))]), "overlap");
        assert!(refused(&[state(whole), state(whole)]), "twice");
        let mut bare = state(whole);
        bare.files.retain(|_, file| !is_manifest(&file.local_name));
        assert!(refused(&[bare]), "no manifest");
        let mut double = state(whole);
        double
            .files
            .extend([file("other", "MANIFEST-000009", whole)]);
        assert!(refused(&[double]), "two manifests");
        let mut double = state(whole);
        double.files.extend([file("other", "000007.sst", whole)]);
        assert!(refused(&[double]), "two files of one name");
    }

    #[test]
    fn several_tablets_of_one_subtask_are_taken_together() {
        let mut both = state(range(0, 4));
        both.files.extend(state(range(5, 9)).files);
        let RestorePlan::Open(parts) = plan(range(0, 9), &[both]).unwrap() else {
            panic!("tablets to open");
        };
        assert_eq!(
            parts.iter().map(|part| part.take).collect::<Vec<_>>(),
            [range(0, 4), range(5, 9)]
        );
    }
}
