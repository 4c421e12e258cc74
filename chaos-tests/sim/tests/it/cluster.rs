//! Whole clusters with jobs, under faults: fixed seeds, and the same seed twice.

use crate::verdict_of;

fn is_clean(seed: u64) {
    let verdict = verdict_of(seed, None, true);
    assert!(
        verdict.is_clean(),
        "seed {seed}; again with: sim --cluster --seed {seed} --narrate --log info: {:?}",
        verdict.violation
    );
    assert!(verdict.counts["rows verified"] > 0, "{verdict:?}");
}

#[test]
fn a_first_cluster_loses_nothing_and_repeats_nothing() {
    is_clean(1);
}

#[test]
fn a_second_cluster_loses_nothing_and_repeats_nothing() {
    is_clean(2);
}

#[test]
fn a_third_cluster_loses_nothing_and_repeats_nothing() {
    is_clean(3);
}

#[test]
fn the_same_cluster_does_the_same_twice() {
    let (once, again) = (verdict_of(4, None, true), verdict_of(4, None, true));
    assert!(once.events > 1000, "something happened: {once:?}");
    assert_eq!(
        (once.trace, once.events, once.counts),
        (again.trace, again.events, again.counts)
    );
}

#[test]
fn a_job_that_begins_from_too_old_a_checkpoint_is_noticed() {
    let caught = (1..=10).any(|seed| {
        let verdict = verdict_of(seed, Some("OldestCheckpointRestored"), true);
        !verdict.is_clean()
    });
    assert!(caught);
}
