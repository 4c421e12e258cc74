//! The protocol holds in every order of events within the bounds, and each planted mistake is found.

use std::collections::BTreeSet;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::properties::{
    self, ADOPTED, ENDED, EXACTLY_ONCE, FILES_EXIST, FINISHED_WHOLE, IDS_DECIDED, IDS_RISE, OFFICE,
    ONCE, STALE_DELETE,
};
use crate::{Bounds, Defect, Protocol};

/// So many states are searched at once.
const THREADS: usize = 2;

const fn bounds(leaders: usize, attempts: u8, checkpoints: u8, answers_lost: u8) -> Bounds {
    Bounds {
        leaders,
        attempts,
        checkpoints,
        answers_lost,
    }
}

/// Together they let everything happen that must happen sometimes.
const SMALL: [Bounds; 3] = [bounds(2, 2, 2, 0), bounds(2, 1, 2, 1), bounds(3, 1, 2, 0)];
const LARGE: [Bounds; 2] = [bounds(2, 2, 3, 0), bounds(2, 2, 2, 1)];

/// Searches everything within all of these bounds.
fn search(all: &[Bounds]) {
    let mut seen = BTreeSet::new();
    for bounds in all {
        let protocol = Protocol {
            bounds: *bounds,
            defect: None,
        };
        let checker = protocol.checker().threads(THREADS).spawn_bfs().join();
        assert!(checker.is_done());
        let (states, depth) = (checker.unique_state_count(), checker.max_depth());
        println!("{bounds:?}: {states} states, at most {depth} steps");
        for (property, path) in checker.discoveries() {
            let sometimes =
                checker.model().property(property).expectation == Expectation::Sometimes;
            assert!(sometimes, "{property} does not hold:\n{path}");
            seen.insert(property);
        }
    }
    for property in properties::sometimes() {
        assert!(seen.contains(property.name), "never: {}", property.name);
    }
}

#[test]
fn the_protocol_holds_in_every_order_of_events() {
    search(&SMALL);
}

/// `make models`.
#[test]
#[ignore = "minutes and gigabytes of memory"]
fn the_protocol_holds_in_every_order_of_more_events() {
    search(&LARGE);
}

/// By which property each mistake is found: it is violated, or in the case of [`ADOPTED`] it does not happen any more.
const TABLE: [(Defect, &str, Bounds); 14] = [
    (Defect::NoEpochCheck, OFFICE, bounds(2, 1, 1, 0)),
    (Defect::CommitBeforeApplied, ONCE, bounds(1, 2, 2, 0)),
    (Defect::DeleteBeforeRetired, FILES_EXIST, bounds(1, 1, 2, 0)),
    (
        Defect::DeposedLeaderDeletes,
        STALE_DELETE,
        bounds(2, 1, 1, 0),
    ),
    (Defect::OpenWriterCollected, FILES_EXIST, bounds(1, 1, 2, 0)),
    (Defect::TerminalJobRevived, ENDED, bounds(1, 2, 1, 1)),
    (Defect::AckOfOlderAttempt, EXACTLY_ONCE, bounds(1, 2, 2, 0)),
    (Defect::AckOfOlderCheckpoint, ONCE, bounds(1, 2, 3, 0)),
    (
        Defect::PendingSurvivesAttempt,
        EXACTLY_ONCE,
        bounds(1, 3, 2, 0),
    ),
    (Defect::IdReused, IDS_RISE, bounds(1, 1, 2, 0)),
    (
        Defect::TriggerBeforeApplied,
        IDS_DECIDED,
        bounds(1, 1, 1, 0),
    ),
    (
        Defect::EndBeforeCommitted,
        FINISHED_WHOLE,
        bounds(1, 1, 1, 0),
    ),
    (
        Defect::RestoreWithoutCommit,
        EXACTLY_ONCE,
        bounds(1, 2, 2, 0),
    ),
    (Defect::AckNotHeld, ADOPTED, bounds(2, 1, 2, 0)),
];

#[test]
fn each_mistake_is_found() {
    for (defect, property, bounds) in TABLE {
        let protocol = Protocol {
            bounds,
            defect: Some(defect),
        };
        let until = HasDiscoveries::AnyOf(BTreeSet::from([property]));
        let checker = protocol.checker().threads(THREADS).finish_when(until);
        let checker = checker.spawn_bfs().join();
        let comes_about = checker.discovery(property).is_some();
        let states = checker.unique_state_count();
        println!("{defect:?}: {property}: {comes_about} after {states} states");
        // The others are violations, this is what must happen.
        assert_eq!(comes_about, property != ADOPTED, "{defect:?}, {property}");
    }
}
