//! A number of requests in flight, each place with one after the other, and how long each took.
//!
//! All places run in one task: what is measured on a small machine shall be the system, not the waking of threads.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use flott_node::Clock;
use futures::future::join_all;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Latencies are told apart up to this; longer ones count as this long.
const LATENCY_MAX: Duration = Duration::from_secs(60);
/// Three significant digits: within 0.1 %.
const DIGITS: u8 = 3;
/// Before a place that failed tries again: a system that is down shall not be flooded.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);
/// Different failures that are told apart.
const FAILURES_MAX: usize = 16;

/// One place in flight: a connection that it may share, and a key of its own.
pub trait Place {
    /// Writes the value; returns when it is durable at a majority. Which member answered, or what went wrong.
    fn write(&mut self, value: Bytes) -> impl Future<Output = Result<u64, String>>;

    /// Reads the newest value. An absent one is a failure: then something else than reading would be measured.
    fn read(&mut self) -> impl Future<Output = Result<u64, String>>;
}

/// What each place does, over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    Write,
    Read,
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Load {
    pub operation: Operation,
    pub value: Bytes,
    /// Runs before it is measured.
    pub warmup: Duration,
    pub measured: Duration,
}

impl Load {
    /// A load with values of `bytes` bytes, which compress badly: the same for every system.
    pub fn new(operation: Operation, bytes: usize, warmup: Duration, measured: Duration) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        let value = std::iter::repeat_with(next).take(bytes).collect();
        Self {
            operation,
            value,
            warmup,
            measured,
        }
    }
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// In microseconds.
    pub latencies: Histogram<u64>,
    /// How many succeeded, by the member that answered.
    pub members: BTreeMap<u64, u64>,
    pub failures: BTreeMap<String, u64>,
}

impl Measured {
    fn new() -> Self {
        let bounds = Histogram::new_with_bounds(1, LATENCY_MAX.as_micros() as u64, DIGITS);
        Self {
            latencies: bounds.expect("constant bounds that are valid"),
            members: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }

    fn add(&mut self, latency: Duration, answered: Result<u64, String>) {
        match answered {
            Ok(member) => {
                self.latencies
                    .saturating_record((latency.as_micros() as u64).max(1));
                *self.members.entry(member).or_default() += 1;
            }
            Err(failure) => {
                let known = self.failures.contains_key(&failure);
                let room = known || self.failures.len() < FAILURES_MAX;
                let name = if room { failure } else { "others".to_owned() };
                *self.failures.entry(name).or_default() += 1;
            }
        }
    }
}

/// Runs a load on all places, until each has had its last answer.
pub async fn run<P: Place>(places: &mut [P], load: &Load, clock: &dyn Clock) -> Measured {
    let begin = clock.monotonic() + load.warmup;
    let window = begin..begin + load.measured;
    let measured = RefCell::new(Measured::new());
    let places = places
        .iter_mut()
        .map(|place| occupy(place, load, &window, &measured, clock));
    // Without this, tokio would make the places yield to each other in the middle of a round.
    tokio::task::unconstrained(join_all(places)).await;
    measured.into_inner()
}

async fn occupy<P: Place>(
    place: &mut P,
    load: &Load,
    window: &Range<Duration>,
    measured: &RefCell<Measured>,
    clock: &dyn Clock,
) {
    let mut sent = clock.monotonic();
    while sent < window.end {
        let answered = match load.operation {
            Operation::Write => place.write(load.value.clone()).await,
            Operation::Read => place.read().await,
        };
        let now = clock.monotonic();
        let failed = answered.is_err();
        if window.contains(&now) {
            measured
                .borrow_mut()
                .add(now.saturating_sub(sent), answered);
        }
        sent = now;
        if failed {
            clock.sleep(PAUSE_AFTER_FAILURE).await;
            sent = clock.monotonic();
        }
    }
}

#[cfg(test)]
mod tests {
    use flott_node::SystemClock;
    use flott_node::clock::ManualClock;

    use super::*;

    /// Takes a millisecond of a clock that it moves itself.
    struct Fake {
        clock: ManualClock,
        calls: u64,
        fails: bool,
    }

    impl Place for Fake {
        async fn write(&mut self, value: Bytes) -> Result<u64, String> {
            assert_eq!(value.len(), 256);
            self.calls += 1;
            self.clock.advance(Duration::from_millis(1));
            if self.fails {
                Err(format!("failure {}", self.calls))
            } else {
                Ok(self.calls % 2)
            }
        }

        async fn read(&mut self) -> Result<u64, String> {
            self.write(vec![0; 256].into()).await
        }
    }

    fn load(operation: Operation) -> Load {
        Load::new(
            operation,
            256,
            Duration::from_millis(5),
            Duration::from_millis(10),
        )
    }

    #[tokio::test]
    async fn only_what_is_answered_in_the_window_counts() {
        let clock = ManualClock::new(0);
        let mut places = [Fake {
            clock: clock.clone(),
            calls: 0,
            fails: false,
        }];
        let measured = run(&mut places, &load(Operation::Write), &clock).await;
        assert_eq!(places[0].calls, 15, "5 in the warm-up, 10 in the window");
        // The answers at 5 ms to 14 ms; that at 15 ms is after its end.
        assert_eq!(measured.latencies.len(), 10);
        assert_eq!(measured.members, BTreeMap::from([(0, 5), (1, 5)]));
        assert_eq!(measured.latencies.max(), 1000);
    }

    #[tokio::test]
    async fn failures_are_counted_apart_and_their_kinds_are_bounded() {
        let mut measured = Measured::new();
        for number in 0..100 {
            measured.add(Duration::ZERO, Err(format!("failure {number}")));
        }
        measured.add(Duration::from_secs(600), Ok(1));
        assert_eq!(measured.failures.len(), FAILURES_MAX + 1);
        assert_eq!(measured.failures["others"], 100 - FAILURES_MAX as u64);
        assert_eq!(measured.latencies.len(), 1, "a very long one is not lost");
    }

    #[tokio::test]
    async fn a_system_that_fails_is_not_flooded() {
        let clock = ManualClock::new(0);
        let mut places = [Fake {
            clock,
            calls: 0,
            fails: true,
        }];
        let system = SystemClock::shared();
        let load = Load {
            measured: Duration::from_millis(50),
            ..load(Operation::Read)
        };
        let measured = run(&mut places, &load, &*system).await;
        assert!(places[0].calls <= 6, "a pause after each");
        assert_eq!(measured.latencies.len(), 0);
    }
}
