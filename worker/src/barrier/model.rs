//! A small job of real gates, outputs, aligners and channel state, without threads and without operators: sources number
//! their rows, everybody passes them on, sinks keep them. A schedule says who does what and when: barriers are aligned or
//! overtake, tasks hear of a checkpoint late or never, checkpoints are given up. Then every checkpoint that completed is
//! restored, at any parallelism, and each row must arrive exactly once.

mod job;

use std::collections::BTreeMap;
use std::time::Duration;

use flott_proto::ids::CheckpointId;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

use self::job::{Job, Saved, Task};
use super::barrier;
use crate::channel_state::format;
use crate::network::{gate, target};

/// Of a batch, all with the same number: so many that two fit into a channel.
const BATCH_ROWS: usize = 15_000;
/// Batches of each source.
const BATCHES: i64 = 10;
const SOURCES: u32 = 2;
/// After this long a task need not align.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A task, chosen by number, does its next step.
    Step(usize),
    /// The leader begins a checkpoint; the sources hear of it.
    Begin,
    /// A task hears of the present checkpoint.
    Hear(usize),
    /// Time passes, a second each.
    Pass(u8),
    /// The leader gives the present checkpoint up, and the tasks with these bits hear of it before the next begins.
    Abort(u16),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        24 => any::<prop::sample::Index>().prop_map(|at| Event::Step(at.index(1000))),
        2 => Just(Event::Begin),
        6 => any::<prop::sample::Index>().prop_map(|at| Event::Hear(at.index(1000))),
        2 => (0u8..12).prop_map(Event::Pass),
        1 => any::<u16>().prop_map(Event::Abort),
    ];
    prop::collection::vec(event, 0..400)
}

/// Carries the events out; checkpoints are numbered from above `last` on.
fn drive(job: &mut Job, events: &[Event], last: u64) {
    let (mut checkpoint, mut pending) = (CheckpointId(last), false);
    let trigger = |task: &mut Task, checkpoint: CheckpointId, now| {
        let barrier = barrier(checkpoint.0);
        if checkpoint > task.taken {
            task.overtaking.on_trigger(barrier, Some(TIMEOUT), now);
        }
    };
    let tasks = job.tasks.len();
    for event in events {
        match *event {
            Event::Step(at) => drop(job.step(at % tasks)),
            Event::Begin if !pending => {
                checkpoint = checkpoint.next();
                pending = true;
                for task in job.tasks.iter_mut().filter(|task| task.aligner.is_none()) {
                    trigger(task, checkpoint, job.now);
                }
            }
            Event::Hear(at) if pending => trigger(&mut job.tasks[at % tasks], checkpoint, job.now),
            Event::Pass(seconds) => job.now += Duration::from_secs(seconds.into()),
            Event::Abort(bits) if pending => {
                pending = false;
                for (at, task) in job.tasks.iter_mut().enumerate() {
                    if bits & (1 << at) != 0 {
                        task.on_aborted(checkpoint);
                    }
                }
            }
            _ => {}
        }
        let taken = job.snapshots.get(&checkpoint).map_or(0, BTreeMap::len);
        pending &= taken < tasks;
    }
    if !pending {
        // Sooner or later everybody hears what became of it.
        job.tasks
            .iter_mut()
            .for_each(|task| task.on_aborted(checkpoint));
    }
}

/// One run, one that begins from its last checkpoint at another parallelism, and restores of all that they complete. How many
/// checkpoints stored anything.
fn run(
    (middle, sink): (u32, u32),
    events: &[Event],
    then: (u32, u32),
) -> Result<usize, TestCaseError> {
    let numbers = 0..BATCHES * i64::from(SOURCES);
    let expected: BTreeMap<i64, usize> = numbers.map(|number| (number, BATCH_ROWS)).collect();
    let (first, second) = events.split_at(events.len() / 2);
    let mut job = Job::start(middle, sink, None);
    drive(&mut job, first, 0);
    let mut jobs = Vec::new();
    if let Some(last) = job.complete().last() {
        let mut next = Job::start(then.0, then.1, Some(last));
        drive(&mut next, second, 1000);
        jobs.push(next);
    }
    jobs.push(job);
    let mut unaligned = 0;
    for mut job in jobs {
        prop_assert_eq!(&job.run_to_the_end(), &expected, "without a failure");
        for snapshot in job.complete() {
            let stored = |saved: &Saved| !format::decode(&saved.channels).unwrap().1.is_empty();
            unaligned += usize::from(snapshot.values().any(stored));
            for (middle, sink) in [(middle, sink), then] {
                let mut restored = Job::start(middle, sink, Some(snapshot));
                let rows = restored.run_to_the_end();
                prop_assert_eq!(&rows, &expected, "restored at {} and {}", middle, sink);
            }
        }
    }
    Ok(unaligned)
}

fn scenario() -> impl Strategy<Value = (u32, u32, Vec<Event>, (u32, u32))> {
    (1u32..4, 1u32..3, events(), (1u32..5, 1u32..4))
}

#[test]
fn every_row_of_every_checkpoint_arrives_exactly_once_however_barriers_come() {
    let unaligned = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig {
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::with_cases(64)
    });
    let outcome = runner.run(&scenario(), |(middle, sink, events, then)| {
        unaligned.set(unaligned.get() + run((middle, sink), &events, then)?);
        Ok(())
    });
    outcome.unwrap();
    assert!(
        unaligned.get() > 10,
        "{} checkpoints stored anything",
        unaligned.get()
    );
}

#[test]
fn barriers_that_overtake_without_storing_are_found() {
    type Planted = &'static std::thread::LocalKey<std::cell::Cell<bool>>;
    let planted: [Planted; 2] = [
        &target::FORGETS_WHAT_IS_OVERTAKEN,
        &gate::FORGETS_WHAT_IS_OVERTAKEN,
    ];
    for bug in planted {
        bug.set(true);
        let config = ProptestConfig {
            max_shrink_iters: 0,
            failure_persistence: None,
            ..ProptestConfig::with_cases(100)
        };
        let mut runner = TestRunner::new(config);
        let outcome = runner.run(&scenario(), |(middle, sink, events, then)| {
            run((middle, sink), &events, then).map(drop)
        });
        bug.set(false);
        assert!(matches!(outcome, Err(TestError::Fail(..))), "{outcome:?}");
    }
}
