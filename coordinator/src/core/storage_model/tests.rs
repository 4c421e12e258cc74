//! No needed file is ever deleted and no orphan stays; and the model finds the bugs that are planted.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Model, Mutant};

const SEEDS: u64 = 100;
/// Of each seed, before everything comes to its end.
const STEPS: u64 = 2_500;

/// What has to come about often enough for the test to mean something.
const WANTED: [&str; 24] = [
    "abort",
    "attempt",
    "checkpoint",
    "claim",
    "deletion",
    "deletion by a deposed leader",
    "discard",
    "forgotten job",
    "ghost",
    "job starts from another's checkpoint",
    "late ack",
    "leader change",
    "lost answer",
    "metadata by a deposed leader",
    "orphan deleted",
    "refused decision",
    "repeated deletion",
    "rescaled restore",
    "restore",
    "restored channel state",
    "savepoint",
    "savepoint deletion",
    "start from a checkpoint refused",
    "sweep",
];

#[test]
fn no_file_that_is_needed_is_ever_deleted_and_no_orphan_stays() {
    let mut steps = 0;
    let mut counts = BTreeMap::<&str, u64>::new();
    for seed in 0..SEEDS {
        let mut model = Model::new(seed, Mutant::None);
        model.run(STEPS);
        steps += model.steps;
        for (what, count) in &model.counts {
            *counts.entry(what).or_default() += count;
        }
    }
    println!("{steps} steps: {counts:#?}");
    assert!(steps >= 100_000, "{steps}");
    for what in WANTED {
        let count = counts.get(what).copied().unwrap_or_default();
        assert!(count >= 10, "{what}: {count}");
    }
}

#[test]
fn every_planted_bug_is_found() {
    for mutant in [
        Mutant::DeletesBeforeRetirement,
        Mutant::AcceptsForeignFiles,
        Mutant::DeposedLeaderDeletes,
    ] {
        let (steps, what) = found(mutant).unwrap_or_else(|| panic!("{mutant:?} is not found"));
        println!("{mutant:?} is found after {steps} steps: {what}");
        assert!(what.contains("needs"), "{mutant:?}: {what}");
    }
}

/// The steps that the bug takes to show itself, and how it does.
fn found(mutant: Mutant) -> Option<(u64, String)> {
    let mut steps = 0;
    for seed in 0..SEEDS {
        let mut model = Model::new(seed, mutant);
        let run = catch_unwind(AssertUnwindSafe(|| model.run(STEPS)));
        steps += model.steps;
        if let Err(panic) = run {
            return Some((steps, *panic.downcast::<String>().unwrap()));
        }
    }
    None
}

#[test]
fn a_seed_means_the_same_run() {
    let run = || {
        let mut model = Model::new(7, Mutant::None);
        model.run(STEPS);
        (model.steps, model.shown.clone(), model.state.clone())
    };
    assert_eq!(run(), run());
}
