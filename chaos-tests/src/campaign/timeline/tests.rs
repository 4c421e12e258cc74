//! What is in the files of a run is on its page, where it was; what is not in them is said.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::lanes::{Bar, Content, Lane, groups};
use super::{FILE, Material, page, write};
use crate::campaign::fault::{Kind, Step, Whom};
use crate::campaign::judge::{Evidence, judge};
use crate::campaign::leftovers::write_down;
use crate::campaign::observe::Led;
use crate::campaign::plan::{Knobs, Plan, VERSION, Workload};
use crate::campaign::strike::{Outcome, Struck};
use crate::history::{Action, Operation, Outcome as Answer, Value};
use crate::invariants::checkpoint_log::{Listed, Seen as Checkpoint};
use crate::invariants::jobs::{Event, Seen as Job};
use crate::invariants::{bank, tenants};
use crate::report::Finding;
use crate::target::{Node, Target};

/// The faults begin five seconds after the run.
const BEGIN_MS: u64 = 5_000;

fn step(kind: Kind, at_ms: u64) -> Step {
    Step {
        at_ms,
        lasts_ms: 2_000,
        kind,
        whom: Whom::Leader,
        amount: 0,
    }
}

fn struck(step: Step, outcome: Outcome) -> Struck {
    Struck {
        step,
        outcome,
        from_ms: BEGIN_MS + step.at_ms,
        until_ms: BEGIN_MS + step.ends_ms(),
    }
}

fn plan(steps: Vec<Step>) -> Plan {
    Plan {
        version: VERSION,
        seed: 42,
        target: Target::Local,
        knobs: Knobs {
            jobmanagers: 3,
            taskmanagers: 2,
            slots: 4,
            parallelism: 2,
            records_per_second: 1_000,
            records: 0,
            store: steps.iter().any(|step| step.kind.is_of_store()),
            settings: BTreeMap::from([("heartbeat.timeout".to_owned(), "3 s".to_owned())]),
        },
        workloads: BTreeSet::from([Workload::Seq, Workload::Register]),
        steps,
    }
}

fn operation(ended_ms: u64, action: Action, outcome: Answer) -> Operation {
    Operation {
        key: 0,
        client: 1,
        member: 1,
        called_ns: ended_ms * 1_000_000 - 1_000,
        ended_ns: ended_ms * 1_000_000,
        action,
        outcome,
    }
}

fn job(ended_ms: u64, state: &str, attempt: u64) -> Event {
    Event::Listed {
        called_ms: ended_ms - 1,
        ended_ms,
        jobs: vec![Job {
            id: "a".to_owned(),
            name: "chaos-seq-2a-1".to_owned(),
            state: state.to_owned(),
            attempt,
        }],
    }
}

fn checkpoint(at_ms: u64, id: u64, status: &str) -> Listed {
    Listed {
        at_ms,
        checkpoints: vec![Checkpoint {
            id,
            kind: "CHECKPOINT".to_owned(),
            status: status.to_owned(),
            triggered_at: String::new(),
            size_bytes: 10,
        }],
    }
}

/// A run of thirty seconds in which something of each sort happened.
fn eventful() -> (Plan, Evidence) {
    let steps = [
        step(Kind::Kill, 1_000),
        step(Kind::Pause, 4_000),
        step(Kind::Transfer, 8_000),
        step(Kind::StoreOutage, 12_000),
    ];
    let killed = Outcome::installed(vec![Node::Jobmanager(2)], true);
    let mut evidence = Evidence {
        struck: vec![
            struck(steps[0], killed),
            struck(
                steps[1],
                Outcome::Skipped("nobody <leads> & \"none\" can".to_owned()),
            ),
            struck(steps[2], Outcome::Indeterminate("given up".to_owned())),
        ],
        registers_begin_ms: 2_000,
        faults_from_ms: BEGIN_MS,
        faults_until_ms: 20_000,
        length_ms: 30_000,
        broken: vec![Finding::at(19_500, "taskmanager-1 ended by itself")],
        ..Evidence::default()
    };
    evidence.history.operations = vec![
        operation(1_000, Action::Write(Value(1)), Answer::Done),
        operation(1_500, Action::Read, Answer::Found(Value(1))),
        operation(
            9_000,
            Action::Write(Value(2)),
            Answer::Unknown("no answer".to_owned()),
        ),
    ];
    let seen = &mut evidence.seen;
    seen.led = [(500, 1, 2), (6_500, 1, 0), (7_000, 2, 3)]
        .map(|(at_ms, term, leader)| Led {
            at_ms,
            term,
            leader,
        })
        .to_vec();
    seen.jobs = vec![
        Event::Submitted {
            name: "chaos-seq-2a-1".to_owned(),
            id: Some("a".to_owned()),
            ended_ms: 900,
        },
        job(1_000, "RUNNING", 1),
        job(2_000, "RUNNING", 1),
        job(6_000, "RESTARTING", 1),
        job(8_000, "RUNNING", 2),
    ];
    seen.checkpoints = vec![
        checkpoint(2_000, 1, "COMPLETED"),
        checkpoint(3_000, 2, "COMPLETED"),
        checkpoint(4_000, 3, "COMPLETED"),
        checkpoint(9_500, 4, "FAILED"),
        checkpoint(10_000, 5, "COMPLETED"),
        checkpoint(11_000, 5, "COMPLETED"),
    ];
    (plan(steps.to_vec()), evidence)
}

fn material(plan: Plan, evidence: &Evidence) -> Material {
    let (_, report) = judge(&plan, evidence);
    Material {
        plan,
        report,
        struck: evidence.struck.clone(),
        led: evidence.seen.led.clone(),
        jobs: evidence.seen.jobs.clone(),
        checkpoints: evidence.seen.checkpoints.clone(),
        operations: evidence.history.operations.clone(),
        tenants: evidence.tenancy.events.clone(),
        bank: evidence.bank.clone(),
    }
}

fn lanes(material: &Material) -> Vec<Lane> {
    let groups = groups(material).into_iter();
    groups.flat_map(|group| group.lanes).collect()
}

fn lane<'a>(lanes: &'a [Lane], begins: &str) -> &'a Lane {
    let mut found = lanes.iter().filter(|lane| lane.name.starts_with(begins));
    let lane = found
        .next()
        .unwrap_or_else(|| panic!("there is no lane {begins}"));
    assert!(found.next().is_none(), "several lanes {begins}");
    lane
}

fn bars<'a>(lanes: &'a [Lane], begins: &str) -> Vec<&'a Bar> {
    match &lane(lanes, begins).content {
        Content::Rows(rows) => rows.iter().flatten().collect(),
        Content::Strip(_) => panic!("{begins} is a strip"),
    }
}

/// Begin, end and look of a bar.
type Span = (u64, u64, &'static str);

fn spans(lanes: &[Lane], begins: &str) -> Vec<Span> {
    let bars = bars(lanes, begins).into_iter();
    bars.map(|bar| (bar.from_ms, bar.until_ms, bar.look))
        .collect()
}

#[test]
fn what_happened_is_in_its_lane_at_its_time() {
    let (plan, evidence) = eventful();
    let lanes = lanes(&material(plan, &evidence));
    let expected: [(&str, &[Span]); 12] = [
        (
            "phases",
            &[
                (0, 5_000, "phase"),
                (5_000, 20_000, "phase struck"),
                (20_000, 30_000, "phase"),
            ],
        ),
        (
            "leader",
            &[
                (500, 6_500, "lead-2"),
                (6_500, 7_000, "nobody"),
                (7_000, 30_000, "lead-3"),
            ],
        ),
        ("jobmanager-1", &[]),
        ("jobmanager-2", &[(6_000, 8_000, "process")]),
        ("taskmanager-2", &[]),
        // Planned below, and what became of it on top.
        (
            "kill (1)",
            &[(6_000, 8_000, "planned"), (6_000, 8_000, "process")],
        ),
        ("pause (0 of 1)", &[(9_000, 11_000, "planned skipped")]),
        (
            "transfer (0 of 1)",
            &[
                (13_000, 15_000, "planned"),
                (13_000, 15_000, "indeterminate"),
            ],
        ),
        ("store-outage (0 of 1)", &[(17_000, 19_000, "planned")]),
        (
            "sequence job (attempt 2)",
            &[
                (1_000, 6_000, "running"),
                (6_000, 8_000, "waiting"),
                (8_000, 30_000, "running"),
            ],
        ),
        (
            "checkpoints (4 completed, longest gap 6.0 s)",
            &[
                (2_000, 2_000, "complete"),
                (3_000, 3_000, "complete"),
                (4_000, 4_000, "complete"),
                (9_500, 9_500, "declined"),
                (10_000, 10_000, "complete"),
                (4_000, 10_000, "gap"),
            ],
        ),
        ("what was found", &[]),
    ];
    for (name, expected) in expected {
        match name {
            "what was found" => {
                let found = spans(&lanes, name);
                let at = |ms: u64, look: &str| found.contains(&(ms, ms, look));
                assert!(at(19_500, "violation"), "{found:?}");
                // That a kind was never installed shows where it was tried first.
                assert!(at(9_000, "doubt"), "{found:?}");
            }
            _ => assert_eq!(spans(&lanes, name), expected, "{name}"),
        }
    }
    // The history has a clock of its own, which began two seconds later.
    let Content::Strip(writes) = &lane(&lanes, "writes (2, 1 unknown)").content else {
        panic!("writes are counted");
    };
    assert_eq!(writes.every_ms, 1_000);
    assert_eq!(
        (writes.columns[3], writes.columns[11]),
        ([1, 0, 0], [0, 1, 0])
    );
    assert!(!lanes.iter().any(|lane| lane.name.starts_with("swaps")));
}

#[test]
fn a_page_says_everything_in_words_and_needs_nothing_from_elsewhere() {
    let (plan, evidence) = eventful();
    let page = page::page(&material(plan, &evidence));
    for (what, text) in [
        ("the seed", "chaos run, seed 42"),
        ("the verdict", "<span class=\"verdict violated\">violated"),
        (
            "a violation and its moment",
            "at 19.5 s: taskmanager-1 ended by itself",
        ),
        (
            "a doubt without a moment",
            "in the run as a whole: no records",
        ),
        (
            "a mark of it",
            "title=\"19.5 s: taskmanager-1 ended by itself\">1</div>",
        ),
        (
            "whom a fault struck",
            "kill the leader: 6.0 s to 8.0 s. jobmanager-2, who led",
        ),
        (
            "when it was planned",
            "kill the leader: planned 6.0 s to 8.0 s.",
        ),
        (
            "why one was skipped, escaped",
            "SKIPPED, nobody &lt;leads&gt; &amp; &quot;none&quot; can",
        ),
        ("why one is indeterminate", "INDETERMINATE, given up"),
        (
            "one that never ended",
            "it had not ended when the run broke off",
        ),
        ("who led", "member 3 led in term 2, 7.0 s to 30.0 s"),
        ("an attempt", "attempt 2 was RUNNING from 8.0 s on"),
        ("a gap", "no checkpoint for 6.0 s, 4.0 s to 10.0 s"),
        ("a setting", "heartbeat.timeout: 3 s"),
        (
            "the counts of a strip",
            "data-counts=\"0,0,0 0,0,0 0,0,0 1,0,0 ",
        ),
    ] {
        assert!(page.contains(text), "{what}: {text} is not in\n{page}");
    }
    for foreign in [
        "<leads>", "http:", "https:", " src=", "url(", "@import", "<link",
    ] {
        assert!(!page.contains(foreign), "{foreign} is in the page");
    }
}

#[test]
fn every_kind_of_fault_and_every_struck_member_has_a_lane() {
    let steps: Vec<Step> = (0..)
        .zip(Kind::all())
        .map(|(number, kind)| step(kind, number * 3_000))
        .collect();
    let nodes = vec![Node::Jobmanager(4), Node::Taskmanager(1)];
    let installed = Outcome::installed(nodes, false);
    let evidence = Evidence {
        struck: steps
            .iter()
            .map(|step| struck(*step, installed.clone()))
            .collect(),
        faults_from_ms: BEGIN_MS,
        length_ms: 90_000,
        ..Evidence::default()
    };
    let lanes = lanes(&material(plan(steps), &evidence));
    for kind in Kind::all() {
        assert_eq!(bars(&lanes, &format!("{kind} (1)")).len(), 2, "{kind}");
    }
    // One that came later, in the place of another, too.
    for node in ["jobmanager-3", "jobmanager-4", "taskmanager-1"] {
        let expected = if node == "jobmanager-3" {
            0
        } else {
            Kind::all().count()
        };
        assert_eq!(bars(&lanes, node).len(), expected, "{node}");
    }
}

#[test]
fn faults_of_one_kind_at_the_same_time_lie_below_each_other() {
    let steps = [1_000, 2_000, 3_500].map(|at_ms| step(Kind::Pause, at_ms));
    let lanes = lanes(&material(plan(steps.to_vec()), &Evidence::default()));
    let Content::Rows(rows) = &lane(&lanes, "pause").content else {
        panic!("faults are bars");
    };
    let begins: Vec<Vec<u64>> = rows
        .iter()
        .map(|row| row.iter().map(|bar| bar.from_ms).collect())
        .collect();
    assert_eq!(begins, [vec![1_000, 3_500], vec![2_000]]);
}

#[test]
fn transfers_are_counted_by_what_became_of_them() {
    let moved = |ended_ms: u64, fate| bank::Event::Moved {
        from: 0,
        to: 1,
        amount: 1,
        called_ns: 0,
        ended_ns: ended_ms * 1_000_000,
        fate,
    };
    let evidence = Evidence {
        length_ms: 3_000,
        bank: vec![
            moved(500, bank::Fate::Done),
            moved(1_200, bank::Fate::NotDone),
            moved(1_300, bank::Fate::NotDone),
            moved(2_900, bank::Fate::Unknown),
        ],
        ..Evidence::default()
    };
    let lanes = lanes(&material(plan(Vec::new()), &evidence));
    let Content::Strip(strip) = &lane(&lanes, "transfers (4, 2 not done, 1 unknown)").content
    else {
        panic!("counts are a strip");
    };
    assert_eq!(strip.columns, [[1, 0, 0], [0, 2, 0], [0, 0, 1]]);
}

#[test]
fn abuse_and_how_long_the_other_tenant_waited_have_their_lanes() {
    let mut evidence = Evidence {
        length_ms: 10_000,
        ..Evidence::default()
    };
    let asked = |due_us, answer| tenants::Event::Asked {
        due_us,
        ended_us: due_us + 7_500,
        answer,
    };
    evidence.tenancy.events = vec![
        asked(1_000_000, tenants::Answer::Done),
        asked(2_000_000, tenants::Answer::Refused("Quota".to_owned())),
        tenants::Event::Abused {
            from_ms: 3_000,
            until_ms: 9_000,
            done: BTreeMap::from([("put".to_owned(), 12)]),
            refused: BTreeMap::from([("Quota".to_owned(), 5)]),
        },
    ];
    let material = material(plan(Vec::new()), &evidence);
    let lanes = lanes(&material);
    assert_eq!(spans(&lanes, "abuse"), [(3_000, 9_000, "abuse")]);
    lane(&lanes, "steady tenant (2, 1 refused)");
    lane(&lanes, "steady tenant's longest wait (at most 8 ms)");
    assert!(page::page(&material).contains("Carried out: 12 put. Not: 5 Quota"));
}

#[test]
fn a_run_in_which_nothing_happened_has_a_page() {
    let page = page::page(&material(plan(Vec::new()), &Evidence::default()));
    assert!(page.contains("class=\"verdict unknown\"") && page.contains("jobmanager-1"));
}

#[test]
fn a_long_run_has_no_more_columns_than_a_screen_has_points() {
    let mut evidence = Evidence {
        length_ms: 3 * 3_600_000,
        ..Evidence::default()
    };
    let done = |second: u64| operation(second * 1_000, Action::Write(Value(second)), Answer::Done);
    evidence.history.operations = (1..10_800).map(done).collect();
    let lanes = lanes(&material(plan(Vec::new()), &evidence));
    let Content::Strip(strip) = &lane(&lanes, "writes (10799)").content else {
        panic!("writes are counted");
    };
    assert_eq!((strip.every_ms, strip.columns.len()), (11_000, 982));
    let counted: u64 = strip.columns.iter().flatten().sum();
    assert_eq!(counted, 10_799);
}

fn leave(directory: &Path) {
    let (plan, evidence) = eventful();
    let (_, report) = judge(&plan, &evidence);
    write_down(directory, &evidence).unwrap();
    for (name, json) in [
        ("plan.json", serde_json::to_vec(&plan).unwrap()),
        ("report.json", serde_json::to_vec(&report).unwrap()),
    ] {
        std::fs::write(directory.join(name), json).unwrap();
    }
}

#[test]
fn the_page_is_made_again_from_the_files_alone() {
    let directory = tempfile::tempdir().unwrap();
    leave(directory.path());
    let path = write(directory.path()).unwrap();
    assert_eq!(path, directory.path().join(FILE));
    let (plan, evidence) = eventful();
    let page = page::page(&material(plan, &evidence));
    assert_eq!(std::fs::read_to_string(path).unwrap(), page);
}

#[test]
fn what_cannot_be_read_is_refused_by_its_file_and_line() {
    for (name, text, expected) in [
        ("faults.jsonl", "{}\n", "line 1 of"),
        ("history.jsonl", "not JSON", "line 1 is no operation"),
        (
            "leaders.jsonl",
            "{\"at_ms\":1,\"term\":1,\"leader\":1}\n[]\n",
            "line 2 of",
        ),
        ("jobs.jsonl", "\n", "line 1 of"),
        ("checkpoints.jsonl", "7\n", "line 1 of"),
        ("plan.json", "{", "cannot be used"),
        ("report.json", "{}", "cannot be used"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        leave(directory.path());
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        let error = format!("{:#}", write(directory.path()).unwrap_err());
        assert!(error.contains(expected) && error.contains(name), "{error}");
        std::fs::remove_file(&path).unwrap();
        let error = format!("{:#}", write(directory.path()).unwrap_err());
        assert!(
            error.contains("cannot read") && error.contains(name),
            "{error}"
        );
    }
}
