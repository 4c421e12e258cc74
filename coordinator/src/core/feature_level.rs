//! Feature levels: what the entries of the log mean, so that members of different versions agree on it.
//!
//! The state holds the level; `apply` switches on it and never on the binary's version. It is raised by an explicit
//! entry, one step at a time, after every member has confirmed that it supports the new level. A member that does not
//! support the state's level halts, wherever it meets it: at its start, in the log, in a snapshot. It never skips.

use std::fmt;

use flott_proto::wire;

use super::apply::Refused;
use super::state::{ClusterState, FEATURE_LEVEL};

/// The level of a group before any entry. Never changes: a log is applied from its beginning.
pub const FEATURE_LEVEL_FIRST: u32 = 1;

/// The levels that a binary can carry out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureLevels {
    pub min: u32,
    pub max: u32,
}

impl FeatureLevels {
    /// This build's.
    pub const BUILD: Self = Self {
        min: FEATURE_LEVEL_FIRST,
        max: FEATURE_LEVEL,
    };

    pub fn supports(self, level: u32) -> bool {
        (self.min..=self.max).contains(&level)
    }
}

impl fmt::Display for FeatureLevels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max {
            write!(f, "feature level {}", self.min)
        } else {
            write!(f, "feature levels {} to {}", self.min, self.max)
        }
    }
}

/// One step up. The members' consent was asked for before the entry was proposed.
pub(super) fn raise(
    state: &mut ClusterState,
    raise: &wire::RaiseFeatureLevel,
) -> Result<(), Refused> {
    let present = state.feature_level;
    if raise.level != present + 1 {
        return Err(Refused::new(format!(
            "the group is at feature level {present}; the next is {}, not {}",
            present + 1,
            raise.level
        )));
    }
    state.feature_level = raise.level;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_rises_by_one_and_never_falls() {
        let mut state = ClusterState::default();
        assert_eq!(state.feature_level, FEATURE_LEVEL_FIRST);
        for (level, after) in [(0, 1), (1, 1), (3, 1), (2, 2), (2, 2), (1, 2), (3, 3)] {
            let raised = raise(&mut state, &wire::RaiseFeatureLevel { level });
            assert_eq!(state.feature_level, after, "to {level}: {raised:?}");
        }
    }

    #[test]
    fn a_build_supports_a_range() {
        let levels = FeatureLevels { min: 2, max: 3 };
        let supported: Vec<u32> = (0..6).filter(|level| levels.supports(*level)).collect();
        assert_eq!(supported, [2, 3]);
        assert!(FeatureLevels::BUILD.supports(FEATURE_LEVEL_FIRST));
        assert_eq!(levels.to_string(), "feature levels 2 to 3");
    }
}
