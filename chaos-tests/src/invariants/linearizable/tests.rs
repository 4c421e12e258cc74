//! The checker, checked: by hand, against a search that tries everything, and with planted faults in long histories.

use flott_chaos_basis::random::Random;
use proptest::prelude::*;

use super::*;
use crate::history::operation;

fn read(called: u64, ended: u64, found: u64) -> Operation {
    operation(called, ended, Action::Read, Outcome::Found(Value(found)))
}

fn write(called: u64, ended: u64, value: u64) -> Operation {
    operation(called, ended, Action::Write(Value(value)), Outcome::Done)
}

fn swap(called: u64, ended: u64, from: u64, to: u64) -> Operation {
    let (from, to) = (Value(from), Value(to));
    operation(called, ended, Action::Swap { from, to }, Outcome::Done)
}

/// The same, but nobody knows what became of it.
fn unknown(mut operation: Operation) -> Operation {
    operation.outcome = Outcome::Unknown("no answer".to_owned());
    operation
}

fn judge(operations: &[Operation]) -> Verdict {
    check_register(0, operations, Limits::default())
}

#[track_caller]
fn assert_good(operations: &[Operation]) {
    assert_eq!(judge(operations), Verdict::Linearizable, "{operations:#?}");
}

#[track_caller]
fn assert_bad(operations: &[Operation]) -> Violation {
    match judge(operations) {
        Verdict::Violation(violation) => violation,
        other => panic!("{other:?} for {operations:#?}"),
    }
}

#[test]
fn what_overlaps_may_be_seen_in_either_order() {
    assert_good(&[]);
    assert_good(&[read(0, 1, 0)]);
    assert_good(&[write(0, 10, 1), read(2, 4, 0), read(5, 7, 1)]);
    assert_good(&[write(0, 10, 1), write(0, 10, 2), read(11, 12, 1)]);
    assert_good(&[write(0, 10, 1), write(0, 10, 2), read(11, 12, 2)]);
    assert_good(&[
        write(0, 1, 1),
        swap(2, 9, 1, 2),
        swap(3, 8, 2, 3),
        read(9, 12, 3),
    ]);
    // An end and a call at the same moment overlap: clocks have a resolution.
    assert_good(&[write(0, 5, 1), read(5, 6, 0)]);
}

#[test]
fn nobody_sees_the_past_after_somebody_saw_the_future() {
    assert_bad(&[write(0, 10, 1), read(2, 4, 1), read(5, 7, 0)]);
    assert_bad(&[write(0, 1, 1), write(2, 3, 2), read(4, 5, 1)]);
    assert_bad(&[write(0, 1, 1), swap(2, 3, 1, 2), swap(4, 5, 1, 3)]);
    assert_bad(&[read(0, 1, 7)]);
}

#[test]
fn unknown_takes_effect_late_or_never_but_once() {
    let lost = unknown(write(0, 1, 9));
    assert_good(&[lost.clone(), write(2, 3, 1), read(4, 5, 1)]);
    assert_good(&[lost.clone(), write(2, 3, 1), read(4, 5, 9), read(6, 7, 9)]);
    assert_bad(&[lost.clone(), read(2, 3, 9), write(4, 5, 1), read(6, 7, 9)]);
    assert_bad(&[read(0, 1, 9), unknown(write(2, 3, 9))]);
    // One unknown operation may need another.
    let swapped = unknown(swap(2, 3, 9, 10));
    assert_good(&[lost, swapped.clone(), read(4, 5, 10)]);
    assert_bad(&[swapped, read(4, 5, 10)]);
    assert_good(&[unknown(read(0, 1, 5))]);
}

#[test]
fn what_failed_for_sure_has_not_happened() {
    let mut failed = write(0, 1, 9);
    failed.outcome = Outcome::Failed("not the leader".to_owned());
    assert_good(&[failed.clone(), read(2, 3, 0)]);
    assert_bad(&[failed, read(2, 3, 9)]);
}

#[test]
fn a_refused_swap_has_read_the_value_that_refused_it() {
    let mut refused = swap(2, 3, 5, 6);
    refused.outcome = Outcome::Found(Value(1));
    assert_good(&[write(0, 1, 1), refused.clone(), read(4, 5, 1)]);
    assert_bad(&[write(0, 1, 2), refused.clone()]);
    refused.outcome = Outcome::Found(Value(5));
    assert_eq!(assert_bad(&[write(0, 1, 5), refused]).operations.len(), 1);
}

#[test]
fn the_search_gives_up_at_its_limits_and_says_so() {
    let limits = Limits {
        steps: 3,
        ..Limits::default()
    };
    let operations: Vec<_> = (1..20)
        .map(|value| write(value, value + 100, value))
        .collect();
    assert_eq!(check_register(0, &operations, limits), Verdict::Undecided);
    let limits = Limits {
        bytes: 200,
        ..Limits::default()
    };
    assert_eq!(check_register(0, &operations, limits), Verdict::Undecided);
}

/// Whether some order explains the answers, found by trying all.
fn brute_force(known: &[Known], unknown: &[Unknown], value: Value) -> bool {
    if known.is_empty() {
        return true;
    }
    let after = |effect: Effect| match effect {
        Effect::Read(found) => (found == value).then_some(value),
        Effect::Write(written) => Some(written),
        Effect::Swap { from, to } => (from == value).then_some(to),
    };
    let first_end = known.iter().map(|op| op.ended).min().unwrap_or(u64::MAX);
    for (index, next) in known.iter().enumerate() {
        if next.called <= first_end
            && let Some(value) = after(next.effect)
        {
            let mut rest = known.to_vec();
            rest.remove(index);
            if brute_force(&rest, unknown, value) {
                return true;
            }
        }
    }
    for (index, next) in unknown.iter().enumerate() {
        if next.called <= first_end
            && let Some(value) = after(next.effect)
        {
            let mut rest = unknown.to_vec();
            rest.remove(index);
            if brute_force(known, &rest, value) {
                return true;
            }
        }
    }
    false
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let value = || (0_u64..4).prop_map(Value);
    let action = prop_oneof![
        3 => Just(Action::Read),
        2 => value().prop_map(Action::Write),
        2 => (value(), value()).prop_map(|(from, to)| Action::Swap { from, to }),
    ];
    (0_u64..14, 0_u64..6, action, value(), 0_u8..10).prop_map(
        |(called, lasted, action, found, chance)| {
            let outcome = match (action, chance) {
                (_, 0) => Outcome::Failed(String::new()),
                (_, 1..=3) => Outcome::Unknown(String::new()),
                (Action::Read, _) => Outcome::Found(found),
                (Action::Swap { from, .. }, 4..=6) if from != found => Outcome::Found(found),
                _ => Outcome::Done,
            };
            operation(called, called + lasted, action, outcome)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn it_agrees_with_trying_every_order(operations in prop::collection::vec(any_operation(), 0..8)) {
        let register = register(operations.iter());
        let explained = brute_force(&register.known, &register.unknown, Value::ABSENT);
        let verdict = judge(&operations);
        prop_assert_eq!(verdict == Verdict::Linearizable, explained, "{:?}", verdict);
        if let Verdict::Violation(violation) = verdict {
            // The window is bad by itself, whatever the register held, or is all that there is.
            let window = super::register(violation.operations.iter());
            let explained_from = |value| brute_force(&window.known, &window.unknown, Value(value));
            prop_assert!(!explained_from(0), "{}", violation);
            if violation.operations.len() < operations.len() / 2 {
                prop_assert!(!(1..5).any(explained_from) || needs_the_beginning(&violation), "{}", violation);
            }
        }
    }
}

/// Whether the window is bad only because the register held nothing at first.
fn needs_the_beginning(violation: &Violation) -> bool {
    let window = register(violation.operations.iter());
    search::search(&window, None, &mut Limits::default().begin()) == Found::Order
}

/// What a perfect register would answer to `clients` clients: `count` operations, a tenth of them of unknown outcome.
fn perfect_history(seed: u64, clients: usize, count: usize) -> Vec<Operation> {
    let mut random = Random::new(seed);
    let mut free_at = vec![0_u64; clients];
    // Unknown operations that may take effect yet.
    let mut late: Vec<(u64, Action)> = Vec::new();
    let mut planned: Vec<(u64, Operation)> = Vec::new();
    for number in 0..count {
        let client = random.below(clients as u64) as usize;
        let called = free_at[client] + random.below(1_000);
        let ended = called + 100 + random.below(3_000);
        free_at[client] = ended;
        let action = match random.below(10) {
            0..5 => Action::Read,
            5..8 => Action::Write(Value(number as u64 + 1)),
            _ => Action::Swap {
                from: Value::ABSENT,
                to: Value(number as u64 + 1),
            },
        };
        let mut operation = operation(called, ended, action, Outcome::Done);
        operation.client = client as u32;
        let takes_effect = called + random.below(ended - called);
        planned.push((takes_effect, operation));
    }
    planned.sort_by_key(|(takes_effect, _)| *takes_effect);
    let mut value = Value::ABSENT;
    let mut operations = Vec::new();
    for (now, mut operation) in planned {
        late.retain(|(at, action)| {
            if *at <= now {
                match action {
                    Action::Write(written) => value = *written,
                    Action::Swap { from, to } if *from == value => value = *to,
                    _ => {}
                }
            }
            *at > now
        });
        if let Action::Swap { from, .. } = &mut operation.action {
            // Half of the swaps expect what is there.
            *from = if random.percent(50) {
                value
            } else {
                Value(u64::MAX)
            };
        }
        if operation.action != Action::Read && random.percent(10) {
            operation.outcome = Outcome::Unknown("no answer".to_owned());
            if random.percent(50) {
                late.push((now + random.below(20_000), operation.action));
            }
        } else {
            operation.outcome = match operation.action {
                Action::Read => Outcome::Found(value),
                Action::Write(written) => {
                    value = written;
                    Outcome::Done
                }
                Action::Swap { from, to } if from == value => {
                    value = to;
                    Outcome::Done
                }
                Action::Swap { .. } => Outcome::Found(value),
            };
        }
        operations.push(operation);
    }
    operations.sort_by_key(|operation| operation.called_ns);
    operations
}

#[test]
fn long_histories_with_many_clients_and_unknown_outcomes_are_decided() {
    for key in 0..10 {
        assert_good(&perfect_history(key, 15, 2_000));
    }
}

/// The read in the middle of a long history, and where it is.
fn a_read_in_the_middle(operations: &[Operation]) -> usize {
    let middle = operations.len() / 2;
    let later = operations[middle..]
        .iter()
        .position(|operation| operation.action == Action::Read);
    middle + later.expect("half of the operations are reads")
}

#[test]
fn it_finds_a_planted_stale_read() {
    for seed in 0..3 {
        let mut operations = perfect_history(seed, 12, 2_000);
        let planted = a_read_in_the_middle(&operations);
        // What was true long ago.
        let old = operations[planted - 300..].iter().find_map(|operation| {
            match (operation.action, &operation.outcome) {
                (Action::Write(value), Outcome::Done) => Some(value),
                _ => None,
            }
        });
        operations[planted].outcome = Outcome::Found(old.expect("there are many writes"));
        let violation = assert_bad(&operations);
        assert!(violation.operations.len() < 60, "{violation}");
        assert!(
            violation.operations.contains(&operations[planted]),
            "{violation}"
        );
    }
}

#[test]
fn it_finds_a_lost_acknowledged_write() {
    for seed in 0..3 {
        let mut operations = perfect_history(seed, 12, 2_000);
        let end = operations.iter().map(|operation| operation.ended_ns).max();
        let end = end.expect("it is long");
        operations.push(write(end + 10, end + 20, 77_001));
        operations.push(write(end + 30, end + 40, 77_002));
        // Both were acknowledged; the second is gone, as after a leader that had not replicated it.
        operations.push(read(end + 50, end + 60, 77_001));
        let violation = assert_bad(&operations);
        assert_eq!(violation.operations.len(), 2, "{violation}");
        assert_eq!(violation.culprit, 1, "{violation}");
        // Had nobody been promised anything, it would be fine.
        let second = operations.len() - 2;
        operations[second] = unknown(operations[second].clone());
        assert_good(&operations);
    }
}

#[test]
fn it_finds_a_swap_that_was_carried_out_twice() {
    let twice = swap(10, 11, 1, 2);
    let violation = assert_bad(&[
        write(0, 1, 1),
        twice.clone(),
        write(12, 13, 1),
        read(14, 15, 2),
    ]);
    assert_eq!(violation.operations[violation.culprit], read(14, 15, 2));
    // Carried out twice, told to have failed: the repeated request met its own effect.
    let mut told = twice;
    told.outcome = Outcome::Found(Value(2));
    assert_bad(&[write(0, 1, 1), told, read(14, 15, 2)]);
}

#[test]
fn a_violation_is_printed_with_the_operations_that_matter() {
    let mut operations = perfect_history(3, 5, 300);
    let end = operations.iter().map(|operation| operation.ended_ns).max();
    let end = end.expect("it is long");
    operations.push(write(end + 10, end + 20, 77_001));
    operations.push(write(end + 30, end + 40, 77_002));
    operations.push(read(end + 50, end + 60, 77_001));
    let text = assert_bad(&operations).to_string();
    assert!(
        text.contains("write 77002: done") && text.contains("read: found 77001   <-"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 3, "{text}");
}
