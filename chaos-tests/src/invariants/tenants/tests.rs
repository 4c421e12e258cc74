//! Planted violations are found, each where it is; what is about time is none.

use std::collections::BTreeMap;

use super::figures::figures;
use super::{Amounts, Answer, Event, Tenancy, Tenant};
use crate::history::{self, Action, History, Operation, Outcome, Value};
use crate::invariants::jobs::Seen;
use crate::report::Finding;

const QUOTA: Amounts = Amounts {
    jobs: 2,
    slots: 2,
    kv_bytes: 1_000,
    checkpoint_bytes: 0,
};

fn check(tenancy: &Tenancy) -> Vec<Finding> {
    super::check(tenancy, &tenancy.registers())
}

fn doubts(tenancy: &Tenancy) -> Vec<Finding> {
    let figures = figures(&tenancy.events, &[]);
    super::doubts(tenancy, &tenancy.registers(), &figures)
}

fn operation(called: u64, action: Action, outcome: Outcome) -> Operation {
    let (called, ended) = (called * 1_000_000, (called + 1) * 1_000_000);
    Operation {
        key: 3,
        client: 1,
        ..history::operation(called, ended, action, outcome)
    }
}

fn asked(due_ms: u64, took_ms: u64, answer: Answer) -> Event {
    Event::Asked {
        due_us: due_ms * 1_000,
        ended_us: (due_ms + took_ms) * 1_000,
        answer,
    }
}

fn abused(from_ms: u64, until_ms: u64) -> Event {
    Event::Abused {
        from_ms,
        until_ms,
        done: BTreeMap::from([("put".to_owned(), 900), ("list".to_owned(), 100)]),
        refused: BTreeMap::from([("Quota".to_owned(), 50)]),
    }
}

fn beyond(answer: Answer) -> Event {
    Event::Beyond {
        what: "a third job".to_owned(),
        says: "may have 2 jobs".to_owned(),
        at_ms: 70,
        answer,
    }
}

fn used(used: Amounts) -> Event {
    Event::Used {
        tenant: Tenant::Noisy,
        at_ms: 60,
        used,
        quota: QUOTA,
    }
}

fn listed(tenant: Tenant, at_ms: u64, jobs: &[(&str, &str)]) -> Event {
    let seen = |(name, state): &(&str, &str)| Seen {
        id: format!("id-of-{name}"),
        name: (*name).to_owned(),
        state: (*state).to_owned(),
        attempt: 1,
    };
    Event::Listed {
        tenant,
        at_ms,
        jobs: jobs.iter().map(seen).collect(),
    }
}

fn refused(why: &str) -> Answer {
    Answer::Refused(why.to_owned())
}

/// What a run should look like.
fn peaceful() -> Tenancy {
    let mut events = Vec::new();
    for number in 0..200 {
        events.push(asked(number * 50, 3, Answer::Done));
    }
    events.extend([
        abused(5_000, 10_000),
        used(QUOTA),
        listed(
            Tenant::Noisy,
            61,
            &[
                ("chaos-noisy-1-1", "RUNNING"),
                ("chaos-noisy-1-2", "CREATED"),
                ("chaos-noisy-1-0", "CANCELED"),
            ],
        ),
        listed(Tenant::Steady, 62, &[("chaos-steady-1-0", "RUNNING")]),
        listed(Tenant::Steady, 63, &[("chaos-steady-1-0", "RESTARTING")]),
        beyond(refused(
            "namespace x may have 2 jobs that have not ended and has 2",
        )),
        asked(90, 5_000, Answer::Unknown("no answer in time".to_owned())),
        asked(91, 3, refused("NotLeader ")),
        asked(
            92,
            3,
            refused("Busy nobody leads beyond doubt at present; try again"),
        ),
    ]);
    let operations = vec![
        operation(1, Action::Write(Value(7)), Outcome::Done),
        operation(3, Action::Read, Outcome::Found(Value(7))),
    ];
    Tenancy {
        events,
        history: History { operations },
    }
}

#[test]
fn tenants_that_leave_each_other_alone_are_no_violation() {
    let tenancy = peaceful();
    assert_eq!(check(&tenancy), []);
    assert_eq!(doubts(&tenancy), []);
}

#[test]
fn planted_violations_are_found_where_they_are() {
    let above = |change: fn(&mut Amounts)| {
        let mut amounts = QUOTA;
        change(&mut amounts);
        used(amounts)
    };
    let three = [
        ("chaos-noisy-1-1", "RUNNING"),
        ("chaos-noisy-1-2", "CREATED"),
        ("chaos-noisy-1-3", "CANCELING"),
    ];
    for (planted, at_ms, text) in [
        (
            vec![asked(
                80,
                2,
                refused(
                    "Quota the namespace would have 9 bytes of keys and values, its quota is 5",
                ),
            )],
            82,
            "refused for another's sake",
        ),
        (
            vec![asked(
                80,
                2,
                refused("Busy too many writes are waiting; try again, more slowly"),
            )],
            82,
            "too many writes",
        ),
        (
            vec![asked(80, 2, refused("NoNamespace there is no"))],
            82,
            "NoNamespace",
        ),
        (
            vec![Event::Foreign {
                tenant: Tenant::Noisy,
                at_ms: 55,
                what: "the value 17 at shared/0003".to_owned(),
            }],
            55,
            "the noisy tenant saw the value 17",
        ),
        (
            vec![beyond(Answer::Done)],
            70,
            "a third job was not refused",
        ),
        (
            vec![above(|used| used.kv_bytes += 1)],
            60,
            "uses 1001 kv_bytes, and may use 1000",
        ),
        (vec![above(|used| used.jobs += 1)], 60, "uses 3 jobs"),
        (
            vec![listed(Tenant::Noisy, 65, &three)],
            65,
            "has 3 jobs that have not ended",
        ),
        (
            vec![listed(
                Tenant::Noisy,
                65,
                &[("chaos-steady-1-0", "RUNNING")],
            )],
            65,
            "the noisy tenant's list has job chaos-steady-1-0",
        ),
        (vec![listed(Tenant::Steady, 66, &[])], 66, "is gone"),
        (
            vec![listed(
                Tenant::Steady,
                66,
                &[("chaos-steady-1-0", "CANCELED")],
            )],
            66,
            "is CANCELED, and nobody asked for it",
        ),
    ] {
        let mut tenancy = peaceful();
        tenancy.events.extend(planted);
        let violations = check(&tenancy);
        assert!(
            violations.len() == 1 && violations[0].what.contains(text),
            "{text}: {violations:?}"
        );
        assert_eq!(violations[0].at_ms, Some(at_ms), "{violations:?}");
    }
}

#[test]
fn a_key_that_another_tenant_deleted_or_changed_is_found() {
    for (found, text) in [
        (Value::ABSENT, "found nothing"),
        // What is no number was not written by the steady tenant.
        (Value(u64::MAX), "found 18446744073709551615"),
    ] {
        let mut tenancy = peaceful();
        let read = operation(9, Action::Read, Outcome::Found(found));
        tenancy.history.operations.push(read);
        let violations = check(&tenancy);
        assert!(
            violations.len() == 1 && violations[0].what.contains(text),
            "{violations:?}"
        );
        assert!(violations[0].what.starts_with("of the steady tenant"));
        assert_eq!(violations[0].at_ms, Some(10));
    }
}

#[test]
fn whose_a_value_or_a_job_is_follows_from_it() {
    for (tenant, other, value, job) in [
        (Tenant::Steady, Tenant::Noisy, "1000007", "chaos-steady-7-0"),
        (
            Tenant::Noisy,
            Tenant::Steady,
            "noisy 1000007",
            "chaos-noisy-7-1",
        ),
    ] {
        assert!(tenant.wrote(value.as_bytes()) && !other.wrote(value.as_bytes()));
        assert!(tenant.submitted(job) && !other.submitted(job));
    }
    assert!(
        Tenant::ALL
            .iter()
            .all(|tenant| !tenant.wrote(b"") && !tenant.wrote(b"x"))
    );
}

#[test]
fn too_little_noise_answers_or_refusals_are_doubts() {
    let doubt = |tenancy: &Tenancy, text: &str| {
        let found = doubts(tenancy);
        assert!(
            found.iter().any(|doubt| doubt.what.contains(text)),
            "{found:?}"
        );
    };
    let nothing = Tenancy::default();
    doubt(
        &nothing,
        "only 0 requests of the steady tenant were answered at rest",
    );
    doubt(&nothing, "only 0 requests of the noisy tenant");
    doubt(&nothing, "never asked for anything beyond");
    let mut unclear = peaceful();
    unclear
        .events
        .retain(|event| !matches!(event, Event::Beyond { .. }));
    unclear.events.push(beyond(refused("computer says no")));
    doubt(
        &unclear,
        "never refused in clear words; what was said: computer says no",
    );
}

#[test]
fn waits_count_where_they_were_and_not_under_faults() {
    let mut events = vec![abused(10_000, 20_000)];
    for (due_ms, took_ms) in [
        (1_000, 2),
        (2_000, 4),
        // Begun at rest, ended under abuse.
        (9_990, 20),
        (12_000, 30),
        (13_000, 70),
        // Under a fault, and shortly after it.
        (30_000, 900),
        (36_000, 900),
        (37_500, 6),
    ] {
        events.push(asked(due_ms, took_ms, Answer::Done));
    }
    events.push(asked(
        14_000,
        5_000,
        Answer::Unknown("no answer".to_owned()),
    ));
    events.extend([(1_000, 10, 1), (9_000, 18, 1), (21_000, 24, 2)].map(
        |(at_ms, checkpoint, attempt)| Event::Progress {
            at_ms,
            checkpoint,
            attempt,
        },
    ));
    let struck = 29_000..32_000;
    let figures = figures(&events, std::slice::from_ref(&struck));
    let (rest, abuse) = (figures.rest, figures.abuse);
    assert_eq!((rest.asked, rest.answered, rest.max_us), (3, 3, 6_000));
    assert_eq!((abuse.asked, abuse.answered), (4, 3));
    assert_eq!((abuse.p50_us, abuse.max_us), (30_000, 70_000));
    assert_eq!(
        (rest.checkpoints, rest.lasted_ms, rest.restarts),
        (8, 8_000, 0)
    );
    assert_eq!(
        (abuse.checkpoints, abuse.lasted_ms, abuse.restarts),
        (6, 12_000, 1)
    );
    assert_eq!((figures.noise, figures.noise_refused), (1_000, 50));
}
