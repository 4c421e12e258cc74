//! Which window a time falls in, and which rows are late. Pure.

use std::borrow::Cow;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow::record_batch::RecordBatch;
use flott_proto::job_graph as graph;
use flott_proto::key_group::{KeyGroup, KeyGroupRange};
use flott_proto::wire::{KeyGroupWatermark, WindowAggregateState};

use crate::Error;
use crate::operators::registry::Link;
use crate::time::WATERMARK_NONE;

/// Tumbling windows of one size: `[start, end)` where `start - offset` is a multiple of the size. Milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    size_ms: i64,
    offset_ms: i64,
}

impl Windows {
    pub(super) fn new(window: &graph::WindowAggregate, place: &str) -> Result<Self, Error> {
        match i64::try_from(window.size_ms) {
            Ok(size_ms) if size_ms > 0 => Ok(Self {
                size_ms,
                offset_ms: window.offset_ms,
            }),
            _ => Err(Error::user(
                place,
                format!("a window of {} ms", window.size_ms),
            )),
        }
    }

    pub(super) fn size_ms(&self) -> i64 {
        self.size_ms
    }

    /// The end of the window that `time_ms` falls in; `None` where no 64 bits hold it or its start.
    pub(super) fn end_of(&self, time_ms: i64) -> Option<i64> {
        let into = time_ms
            .checked_sub(self.offset_ms)?
            .rem_euclid(self.size_ms);
        time_ms.checked_sub(into)?.checked_add(self.size_ms)
    }
}

/// The event-time column.
#[derive(Clone, Debug)]
pub(super) struct TimeColumn {
    column: usize,
    unit: TimeUnit,
    place: String,
}

impl TimeColumn {
    pub(super) fn build(name: &str, link: &Link<'_>) -> Result<Self, Error> {
        let column = link.column(name)?;
        match link.input.field(column).data_type() {
            DataType::Timestamp(unit, None) => Ok(Self {
                column,
                unit: *unit,
                place: format!("{}, time column {name}", link.place),
            }),
            other => Err(Error::user(
                link.place,
                format!("the time column {name:?} is {other}, not a TIMESTAMP"),
            )),
        }
    }

    /// The times of a batch, rounded down to milliseconds. A NULL is an error.
    pub(super) fn milliseconds<'a>(&self, batch: &'a RecordBatch) -> Result<Cow<'a, [i64]>, Error> {
        let column = batch.column(self.column);
        if column.null_count() > 0 {
            return Err(Error::user(
                &self.place,
                format!(
                    "is NULL in {} rows; filter them out or give them a time",
                    column.null_count()
                ),
            ));
        }
        let down =
            |values: &[i64], per_ms: i64| values.iter().map(|v| v.div_euclid(per_ms)).collect();
        Ok(match self.unit {
            TimeUnit::Millisecond => {
                Cow::Borrowed(&column.as_primitive::<TimestampMillisecondType>().values()[..])
            }
            TimeUnit::Second => {
                let values = column.as_primitive::<TimestampSecondType>().values();
                Cow::Owned(values.iter().map(|v| v.saturating_mul(1000)).collect())
            }
            TimeUnit::Microsecond => Cow::Owned(down(
                column.as_primitive::<TimestampMicrosecondType>().values(),
                1_000,
            )),
            TimeUnit::Nanosecond => Cow::Owned(down(
                column.as_primitive::<TimestampNanosecondType>().values(),
                1_000_000,
            )),
        })
    }
}

/// How far the watermark has come, by key group where a restore at another parallelism brought together key groups of
/// subtasks that were not equally far.
#[derive(Clone, Debug)]
pub(super) struct Lateness {
    watermark_ms: i64,
    /// Key groups for which it had come further; dropped as the watermark passes them.
    ahead: Vec<(KeyGroupRange, i64)>,
}

impl Default for Lateness {
    fn default() -> Self {
        Self {
            watermark_ms: WATERMARK_NONE,
            ahead: Vec::new(),
        }
    }
}

impl Lateness {
    pub(super) fn restored(
        states: &[WindowAggregateState],
        own: KeyGroupRange,
        max_parallelism: u32,
    ) -> Self {
        let mut reached = Vec::new();
        for state in states {
            let origin = state.origin.unwrap_or_default();
            let valid =
                origin.subtask < origin.parallelism && origin.parallelism <= max_parallelism;
            if !valid {
                continue;
            }
            let range =
                KeyGroupRange::of_subtask(origin.subtask, max_parallelism, origin.parallelism);
            reached.extend(
                range
                    .intersection(own)
                    .map(|range| (range, state.watermark_ms)),
            );
            for ahead in &state.ahead {
                let range = KeyGroupRange {
                    first: ahead.first_key_group as u16,
                    last: ahead.last_key_group as u16,
                };
                reached.extend(
                    range
                        .intersection(own)
                        .map(|range| (range, ahead.watermark_ms)),
                );
            }
        }
        let watermark_ms = reached.iter().map(|(_, watermark)| *watermark).min();
        let watermark_ms = watermark_ms.unwrap_or(WATERMARK_NONE);
        reached.retain(|(_, watermark)| *watermark > watermark_ms);
        Self {
            watermark_ms,
            ahead: reached,
        }
    }

    pub(super) fn watermark_ms(&self) -> i64 {
        self.watermark_ms
    }

    pub(super) fn ahead(&self) -> Vec<KeyGroupWatermark> {
        let wire = |(range, watermark_ms): &(KeyGroupRange, i64)| KeyGroupWatermark {
            first_key_group: range.first.into(),
            last_key_group: range.last.into(),
            watermark_ms: *watermark_ms,
        };
        self.ahead.iter().map(wire).collect()
    }

    /// Whether this is a rise.
    pub(super) fn rise(&mut self, watermark_ms: i64) -> bool {
        if watermark_ms <= self.watermark_ms {
            return false;
        }
        self.watermark_ms = watermark_ms;
        self.ahead.retain(|(_, ahead)| *ahead > watermark_ms);
        true
    }

    /// Whether a window has ended for a key, given by its hash.
    pub(super) fn is_late(&self, end_ms: i64, hash: u64, max_parallelism: u32) -> bool {
        if end_ms - 1 <= self.watermark_ms {
            return true;
        }
        if self.ahead.is_empty() {
            return false;
        }
        let group = KeyGroup::of_hash(hash, max_parallelism);
        let passed =
            |(range, ahead): &(KeyGroupRange, i64)| range.contains(group) && end_ms - 1 <= *ahead;
        self.ahead.iter().any(passed)
    }
}

#[cfg(test)]
mod tests {
    use flott_proto::wire::StateOrigin;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_time_is_in_its_window(time in any::<i64>(), size_ms in 1i64..10_000_000, offset_ms in -100_000i64..100_000) {
            let windows = Windows { size_ms, offset_ms };
            match windows.end_of(time) {
                Some(end) => {
                    prop_assert!(time < end && time >= end - size_ms);
                    prop_assert_eq!((i128::from(end) - i128::from(offset_ms)) % i128::from(size_ms), 0);
                }
                None => prop_assert!(time.unsigned_abs() > i64::MAX as u64 - 20_000_000),
            }
        }
    }

    fn state(subtask: u32, parallelism: u32, watermark_ms: i64) -> WindowAggregateState {
        WindowAggregateState {
            origin: Some(StateOrigin {
                subtask,
                parallelism,
                ..Default::default()
            }),
            watermark_ms,
            first_stored_end_ms: 1,
            last_stored_end_ms: 0,
            ahead: Vec::new(),
            schema: None,
        }
    }

    #[test]
    fn what_was_late_in_a_key_group_stays_late_after_a_restore_at_lower_parallelism() {
        let own = KeyGroupRange::all(4);
        let mut late = Lateness::restored(&[state(0, 2, 100), state(1, 2, 300)], own, 4);
        assert_eq!(late.watermark_ms(), 100);
        // A hash whose high half is the group, see KeyGroup::of_hash.
        let hash = |group: u64| group << 32;
        assert!(late.is_late(101, hash(0), 4) && !late.is_late(102, hash(1), 4));
        assert!(late.is_late(301, hash(2), 4) && !late.is_late(302, hash(3), 4));
        // The next snapshot carries it on, also to yet another parallelism.
        let next = WindowAggregateState {
            ahead: late.ahead(),
            ..state(0, 1, 100)
        };
        let again = Lateness::restored(&[next], KeyGroupRange::of_subtask(1, 4, 2), 4);
        assert!(again.is_late(301, hash(2), 4));
        assert!(!late.rise(100) && late.rise(300));
        assert!(late.ahead().is_empty());
    }
}
