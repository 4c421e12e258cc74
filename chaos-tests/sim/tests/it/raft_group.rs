//! Groups of JobManagers under faults.

use std::process::Command;

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

/// Other seeds with each commit: a run of the tests can be repeated, and the next change looks elsewhere.
fn of_this_commit() -> u64 {
    let output = Command::new("git").args(["rev-parse", "HEAD"]).output();
    let commit = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let number = u64::from_str_radix(commit.unwrap_or_default().get(..8).unwrap_or("0"), 16);
    1_000_000 + number.unwrap_or(0) % 1_000_000_000
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
fn a_seed_of_this_commit_loses_nothing_and_works_again() {
    is_clean(of_this_commit());
}

#[test]
fn another_seed_of_this_commit_loses_nothing_and_works_again() {
    is_clean(of_this_commit() + 1);
}
