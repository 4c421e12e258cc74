//! An even pace for a source: so many rows a second, in small portions.
//!
//! The pace begins when the limit is made: a restored source goes on at its pace and does not make up for the time it
//! was down. After a pause, such as a slow checkpoint or a full channel, at most [`CATCH_UP`] of rows is made up for.

use std::time::Duration;

use flott_node::SharedClock;

/// Rows are given in portions of this much time, so that the stream is smooth and the calls are few.
const PORTION: Duration = Duration::from_millis(10);

/// The longest pause whose rows follow at once; longer ones would be bursts.
const CATCH_UP: Duration = Duration::from_millis(200);

/// How many rows may be read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// At least one.
    Rows(usize),
    /// None before this monotonic time.
    NotBefore(Duration),
}

/// The pace of one subtask of a source.
#[derive(Debug)]
pub(crate) struct RateLimit {
    /// Rows per second; none for no limit.
    rate: Option<f64>,
    clock: SharedClock,
    since: Duration,
    /// Rows taken since `since`.
    taken: f64,
}

impl RateLimit {
    /// `rows_per_second` for the whole source, of which `share` (0 to 1) is this subtask's; 0 for no limit.
    pub(crate) fn new(rows_per_second: f64, share: f64, clock: SharedClock) -> Self {
        let rate = rows_per_second * share;
        Self {
            rate: (rows_per_second > 0.0 && rate > 0.0).then_some(rate),
            since: clock.monotonic(),
            clock,
            taken: 0.0,
        }
    }

    /// How many rows may be read now, at most `most`.
    pub(crate) fn allowed(&mut self, most: usize) -> Allowed {
        let Some(rate) = self.rate else {
            return Allowed::Rows(most);
        };
        let portion = (rate * PORTION.as_secs_f64())
            .floor()
            .clamp(1.0, most as f64);
        let now = self.clock.monotonic();
        let due = rate * (now.saturating_sub(self.since)).as_secs_f64() - self.taken;
        // A hair of tolerance, so that waking exactly at the promised time is enough.
        if due + 1e-6 < portion {
            let wait = (self.taken + portion) / rate;
            return Allowed::NotBefore(self.since + Duration::from_secs_f64(wait));
        }
        let catch_up = (rate * CATCH_UP.as_secs_f64()).max(portion);
        if due > catch_up {
            self.since = now;
            self.taken = -catch_up;
        }
        let due = (due.min(catch_up) + 1e-6).floor() as usize;
        Allowed::Rows(due.clamp(1, most))
    }

    /// That many rows were read.
    pub(crate) fn took(&mut self, rows: usize) {
        self.taken += rows as f64;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use flott_node::clock::ManualClock;

    use super::*;

    /// Rows read until `until` by a reader that wakes exactly when it is told to.
    fn run(limit: &mut RateLimit, clock: &ManualClock, until: Duration) -> (usize, usize) {
        let (mut rows, mut largest) = (0, 0);
        loop {
            match limit.allowed(4096) {
                Allowed::Rows(now) => {
                    limit.took(now);
                    rows += now;
                    largest = largest.max(now);
                }
                Allowed::NotBefore(time) => {
                    let now = flott_node::Clock::monotonic(clock);
                    assert!(time > now, "a wait that does not end: {time:?} at {now:?}");
                    if time > until {
                        return (rows, largest);
                    }
                    clock.advance(time - now);
                }
            }
        }
    }

    #[test]
    fn the_pace_is_even_and_exact() {
        for rate in [1.0, 3.0, 100.0, 2_500.0, 10_000.0, 1_000_000.0] {
            let clock = ManualClock::new(0);
            let mut limit = RateLimit::new(rate, 1.0, Arc::new(clock.clone()));
            let (rows, largest) = run(&mut limit, &clock, Duration::from_secs(10));
            let expected = rate * 10.0;
            assert!(
                (expected - rows as f64).abs() <= 1.0 + rate / 50.0,
                "{rate}: {rows}"
            );
            assert!(
                largest as f64 <= (rate / 50.0).max(1.0),
                "{rate}: {largest} at once"
            );
        }
    }

    #[test]
    fn a_long_pause_is_not_made_up_for() {
        let clock = ManualClock::new(0);
        let mut limit = RateLimit::new(1_000.0, 0.5, Arc::new(clock.clone()));
        run(&mut limit, &clock, Duration::from_secs(1));
        clock.advance(Duration::from_secs(60));
        let now = flott_node::Clock::monotonic(&clock);
        let (rows, _) = run(&mut limit, &clock, now + Duration::from_secs(1));
        assert!((600..=601).contains(&rows), "{rows}");
    }

    #[test]
    fn no_limit_gives_what_is_asked_for() {
        let mut limit = RateLimit::new(0.0, 1.0, Arc::new(ManualClock::new(0)));
        assert_eq!(limit.allowed(77), Allowed::Rows(77));
    }
}
