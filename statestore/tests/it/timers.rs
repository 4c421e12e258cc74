//! Timers: order, and what is due.

use flott_proto::key_group::{KeyGroup, KeyGroupRange};
use flott_statestore::{KeyedBackend, StateBatch, Timer};

use crate::fixture::{MAX_PARALLELISM, OPTIONS, at};

fn timer(time_ms: i64, group: u16, key: &str) -> Timer {
    Timer {
        time_ms,
        group: KeyGroup(group),
        key: key.into(),
        namespace: b"w".to_vec(),
    }
}

#[test]
fn timers_come_in_order_of_time_group_and_key_and_stay_until_deleted() {
    let local = tempfile::tempdir().unwrap();
    let all = KeyGroupRange::all(MAX_PARALLELISM);
    let mut backend =
        KeyedBackend::create(&local.path().join("new"), MAX_PARALLELISM, all, OPTIONS).unwrap();
    let state = backend.state("op", "timers").unwrap();
    let other = backend.state("op", "others").unwrap();
    assert_eq!(backend.earliest_timer(state), None);
    let ordered = [
        timer(i64::MIN, 9, "min"),
        timer(-5, 3, "b"),
        timer(0, 0, "z"),
        timer(0, 2, "a"),
        timer(0, 2, "b"),
        timer(7, 1, "a"),
        timer(i64::MAX, 0, "max"),
    ];
    let mut batch = StateBatch::new();
    for timer in ordered.iter().rev().chain(&ordered) {
        batch.put_timer(state, timer);
    }
    batch.put_timer(other, timer(-100, 0, "x"));
    // Values of the same state under the same key groups are no timers.
    batch.put(state, at(b"value", b""), b"v");
    backend.write(batch).unwrap();
    assert_eq!(backend.earliest_timer(state), Some(i64::MIN));
    assert_eq!(backend.due_timers(state, i64::MAX, 100).unwrap(), ordered);
    assert_eq!(backend.due_timers(state, 0, 100).unwrap(), ordered[..5]);
    for limit in 0..8 {
        assert_eq!(
            backend.due_timers(state, 6, limit).unwrap(),
            ordered[..limit.min(5)]
        );
    }
    for (done, timer) in ordered.iter().enumerate() {
        let mut batch = StateBatch::new();
        batch.delete_timer(state, timer);
        backend.write(batch).unwrap();
        assert_eq!(
            backend.earliest_timer(state),
            ordered.get(done + 1).map(|timer| timer.time_ms)
        );
    }
    assert_eq!(backend.due_timers(state, i64::MAX, 100).unwrap(), []);
    assert_eq!(backend.earliest_timer(other), Some(-100));
}

#[test]
#[should_panic(expected = "written to the owner of")]
fn state_of_a_foreign_key_group_is_never_written() {
    let local = tempfile::tempdir().unwrap();
    let half = KeyGroupRange::of_subtask(0, MAX_PARALLELISM, 2);
    let mut backend = KeyedBackend::create(local.path(), MAX_PARALLELISM, half, OPTIONS).unwrap();
    let state = backend.state("op", "timers").unwrap();
    let mut batch = StateBatch::new();
    batch.put_timer(state, timer(0, 15, "foreign"));
    let _ = backend.write(batch);
}
