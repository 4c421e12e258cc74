//! Where the timers of one state begin, by key group: an index in memory over what the database holds.
//!
//! It makes "is anything due?" free, and finds the groups that are. Pure; the backend feeds it.

use std::collections::{BTreeMap, BTreeSet};

use flott_proto::key_group::KeyGroup;

/// The earliest timer of every group that has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TimerHeads {
    by_group: BTreeMap<KeyGroup, i64>,
    by_time: BTreeSet<(i64, KeyGroup)>,
}

impl TimerHeads {
    /// The earliest time of all, in milliseconds.
    pub(crate) fn earliest(&self) -> Option<i64> {
        self.by_time.first().map(|(time, _)| *time)
    }

    /// The earliest time in a group.
    pub(crate) fn of(&self, group: KeyGroup) -> Option<i64> {
        self.by_group.get(&group).copied()
    }

    /// A group's earliest time is now this.
    pub(crate) fn set(&mut self, group: KeyGroup, time_ms: Option<i64>) {
        let old = match time_ms {
            Some(time) => self.by_group.insert(group, time),
            None => self.by_group.remove(&group),
        };
        if let Some(old) = old {
            self.by_time.remove(&(old, group));
        }
        if let Some(time) = time_ms {
            self.by_time.insert((time, group));
        }
    }

    /// A timer was put.
    pub(crate) fn on_put(&mut self, group: KeyGroup, time_ms: i64) {
        if self.of(group).is_none_or(|head| time_ms < head) {
            self.set(group, Some(time_ms));
        }
    }

    /// Groups with a timer at `until_ms` or before, those with the earliest first.
    pub(crate) fn due(&self, until_ms: i64) -> impl Iterator<Item = (i64, KeyGroup)> {
        self.by_time
            .iter()
            .copied()
            .take_while(move |(time, _)| *time <= until_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn heads_follow_a_plain_map(steps in prop::collection::vec((0u16..5, prop::option::of(-5i64..5), any::<bool>()), 0..40)) {
            let (mut heads, mut model) = (TimerHeads::default(), BTreeMap::new());
            for (group, time, put) in steps {
                let group = KeyGroup(group);
                match time {
                    Some(time) if put => {
                        heads.on_put(group, time);
                        let head = model.entry(group).or_insert(time);
                        *head = time.min(*head);
                    }
                    Some(time) => {
                        heads.set(group, Some(time));
                        model.insert(group, time);
                    }
                    None => {
                        heads.set(group, None);
                        model.remove(&group);
                    }
                }
                prop_assert_eq!(heads.earliest(), model.values().min().copied());
                let mut due: Vec<_> = model.iter().map(|(g, t)| (*t, *g)).filter(|(t, _)| *t <= 0).collect();
                due.sort_unstable();
                prop_assert_eq!(heads.due(0).collect::<Vec<_>>(), due);
            }
        }
    }
}
