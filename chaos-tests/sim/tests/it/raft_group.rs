//! Groups of JobManagers under faults.
//!
//! Fixed seeds: a change is judged by what it changed. New seeds are looked at by `make sim`.

use crate::verdict;

fn is_clean(seed: u64) {
    let verdict = verdict(seed, None);
    assert!(
        verdict.is_clean(),
        "seed {seed}; again with: sim --seed {seed} --narrate --log info: {:?}",
        verdict.violation
    );
    assert!(verdict.counts["acknowledged writes"] > 0, "{verdict:?}");
}

#[test]
fn a_first_seed_loses_nothing_and_works_again() {
    is_clean(1);
}

#[test]
fn a_second_seed_loses_nothing_and_works_again() {
    is_clean(2);
}

#[test]
fn a_third_seed_loses_nothing_and_works_again() {
    is_clean(3);
}

#[test]
fn a_fourth_seed_loses_nothing_and_works_again() {
    is_clean(4);
}

/// The log's bytes asked for more to be dropped than its entries did afterwards, which openraft asserts never happens.
#[test]
fn what_is_to_be_dropped_of_the_log_never_goes_back() {
    is_clean(128_709_854);
}
