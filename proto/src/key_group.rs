//! Key → key group → subtask.
//!
//! Stable for ever: state is stored by key group, so a change of any function here loses every key. The golden
//! vectors in the tests pin them. The hash is xxh3-64 with seed 0 over the key's encoding; the encoding is the state
//! key codec's (statestore), the same for the exchange and for state.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

/// Of all key groups of a vertex: the unit in which state moves between subtasks. `0..max_parallelism`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyGroup(pub u16);

/// The highest `max_parallelism`: a key group is 16 bits in every stored key.
pub const MAX_PARALLELISM_MAX: u32 = 32_768;

/// Chosen when a job names none. A power of two, so that ranges halve evenly.
pub const MAX_PARALLELISM_DEFAULT: u32 = 128;

impl KeyGroup {
    /// The group of an encoded key.
    pub fn of_key(encoded_key: &[u8], max_parallelism: u32) -> Self {
        Self::of_hash(xxh3_64(encoded_key), max_parallelism)
    }

    /// The group of a key's xxh3-64 hash.
    pub fn of_hash(hash: u64, max_parallelism: u32) -> Self {
        assert!(
            (1..=MAX_PARALLELISM_MAX).contains(&max_parallelism),
            "max parallelism {max_parallelism}"
        );
        // The high half is as good as any part of xxh3, and leaves the low half to hash tables.
        Self(((hash >> 32) % u64::from(max_parallelism)) as u16)
    }

    /// The subtask that owns this group. Inverse of [`KeyGroupRange::of_subtask`].
    pub fn subtask(self, max_parallelism: u32, parallelism: u32) -> u32 {
        assert!(
            u32::from(self.0) < max_parallelism && (1..=max_parallelism).contains(&parallelism)
        );
        (u64::from(self.0) * u64::from(parallelism) / u64::from(max_parallelism)) as u32
    }
}

/// A run of key groups, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyGroupRange {
    pub first: u16,
    pub last: u16,
}

impl KeyGroupRange {
    /// The groups that a subtask owns: ranges of all subtasks are disjoint, in order, and cover everything.
    pub fn of_subtask(subtask: u32, max_parallelism: u32, parallelism: u32) -> Self {
        assert!(
            subtask < parallelism
                && parallelism <= max_parallelism
                && max_parallelism <= MAX_PARALLELISM_MAX
        );
        let (max, all, at) = (
            u64::from(max_parallelism),
            u64::from(parallelism),
            u64::from(subtask),
        );
        let first = (at * max).div_ceil(all);
        let end = ((at + 1) * max).div_ceil(all);
        Self {
            first: first as u16,
            last: (end - 1) as u16,
        }
    }

    /// Every group there is.
    pub fn all(max_parallelism: u32) -> Self {
        Self::of_subtask(0, max_parallelism, 1)
    }

    pub fn contains(self, group: KeyGroup) -> bool {
        (self.first..=self.last).contains(&group.0)
    }

    /// The groups in both ranges, if there are any.
    pub fn intersection(self, other: Self) -> Option<Self> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (first <= last).then_some(Self { first, last })
    }

    pub fn groups(self) -> impl Iterator<Item = KeyGroup> {
        (self.first..=self.last).map(KeyGroup)
    }
}

impl fmt::Display for KeyGroupRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Golden vectors: (key, max parallelism, group), computed with another implementation of xxh3. They hold for every
    /// release there will ever be.
    #[test]
    fn golden_vectors() {
        let golden: &[(&[u8], u32, u16)] = &[
            (b"", 128, 5),
            (b"a", 128, 54),
            (b"flott", 128, 110),
            (b"flott", 32_768, 22510),
            (&[0, 1, 2, 3, 4, 5, 6, 7], 100, 80),
        ];
        for (key, max, group) in golden {
            assert_eq!(
                KeyGroup::of_key(key, *max),
                KeyGroup(*group),
                "{key:?} of {max}"
            );
        }
    }

    proptest! {
        #[test]
        fn every_group_belongs_to_exactly_the_subtask_whose_range_contains_it(
            max in 1u32..=512, share in 0.0f64..1.0, group in any::<prop::sample::Index>()
        ) {
            let parallelism = 1 + ((max - 1) as f64 * share) as u32;
            let group = KeyGroup(group.index(max as usize) as u16);
            let owner = group.subtask(max, parallelism);
            for subtask in 0..parallelism {
                let range = KeyGroupRange::of_subtask(subtask, max, parallelism);
                prop_assert_eq!(range.contains(group), subtask == owner);
            }
        }

        #[test]
        fn ranges_are_contiguous_and_even(max in 1u32..=32_768, share in 0.0f64..1.0) {
            let parallelism = 1 + ((max - 1).min(300) as f64 * share) as u32;
            let mut next = 0u32;
            let (mut smallest, mut largest) = (u32::MAX, 0);
            for subtask in 0..parallelism {
                let range = KeyGroupRange::of_subtask(subtask, max, parallelism);
                prop_assert_eq!(u32::from(range.first), next);
                next = u32::from(range.last) + 1;
                let size = next - u32::from(range.first);
                (smallest, largest) = (smallest.min(size), largest.max(size));
            }
            prop_assert_eq!(next, max);
            prop_assert!(largest - smallest <= 1);
        }
    }
}
