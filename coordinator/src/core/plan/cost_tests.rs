//! What a plan costs while all is well: it is asked after every event, so with a thousand jobs this is what the leader
//! spends its time on.
//!
//! Ignored by default, since it measures: `cargo nextest run --release -p flott-coordinator --run-ignored only -E
//! 'test(cost)' --no-capture`.

use flott_node::SystemClock;

use crate::core::namespace::Quota;
use crate::core::testing::World;
use crate::core::{Response, plan};

const NAMESPACES: usize = 50;
const TASK_MANAGERS: u32 = 20;
const ROUNDS: u32 = 50;

/// `jobs` healthy jobs of four tasks each, all running, with a checkpoint, none due.
fn healthy(jobs: usize) -> World {
    let mut world = World::new(0);
    world.checks = false;
    world.slots = (jobs as u32 * 2).div_ceil(TASK_MANAGERS);
    for _ in 0..TASK_MANAGERS {
        world.add_task_manager();
    }
    for n in 0..jobs {
        let namespace = format!("team-{}", n % NAMESPACES);
        world.create_namespace(&namespace, Quota::default());
        let settings = [("execution.checkpointing.interval", "1 h")];
        let (_, response) = world.try_submit(&namespace, 2, &settings);
        assert_eq!(response, Response::Applied);
    }
    for _ in 0..5 {
        world.step(10, usize::MAX);
    }
    // One checkpoint each.
    world.step(3_600_000, usize::MAX);
    for _ in 0..5 {
        world.step(10, usize::MAX);
    }
    let done = |world: &World| {
        let mut jobs = world.state.jobs.values();
        jobs.all(|job| job.is_running() && job.checkpoints.completed_count == 1)
    };
    assert!(done(&world));
    world.state.check();
    world
}

#[test]
#[ignore = "measures"]
fn cost_of_a_plan_for_healthy_jobs() {
    let clock = SystemClock::shared();
    for jobs in [10, 100, 1000, 4000] {
        let mut world = healthy(jobs);
        let begun = clock.monotonic();
        for _ in 0..ROUNDS {
            world.observed.on_state(&world.state, world.now);
        }
        let looked = clock.monotonic();
        for _ in 0..ROUNDS {
            let plan = plan(&world.state, &world.observed, &world.settings, world.now);
            assert_eq!(plan, super::Plan::default(), "nothing is to be done");
        }
        let planned = clock.monotonic();
        let micros = |from: std::time::Duration, to: std::time::Duration| {
            (to - from).as_secs_f64() * 1e6 / f64::from(ROUNDS)
        };
        let (state, plan) = (micros(begun, looked), micros(looked, planned));
        println!(
            "{jobs} jobs in {NAMESPACES} namespaces: on_state {state:.0} µs, plan {plan:.0} µs, together {:.2} µs a job",
            (state + plan) / jobs as f64
        );
    }
}
