//! Groups of JobManagers under faults.
//!
//! Fixed seeds, as long as openraft's assertions can fail in builds that have them: see "Open" in the README of `chaos-tests`.

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
