//! Whether the machine had time for us. Elections take 200 to 400 ms: where processes wait longer than that for a processor,
//! nobody can lead for long, and what does not happen in time says nothing about the system.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flott_node::SharedClock;
use tokio_util::sync::CancellationToken;

/// Between two beats.
const BEAT: Duration = Duration::from_millis(100);
/// A beat that is later than this is one that the processes under test could not use either.
const LATE: Duration = Duration::from_millis(150);

/// Counts beats that came late.
#[derive(Debug, Default)]
pub struct Pulse {
    beats: AtomicU64,
    late: AtomicU64,
}

impl Pulse {
    /// Beats until `stop`.
    pub async fn feel(self: Arc<Self>, clock: SharedClock, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let due = clock.monotonic() + BEAT;
            clock.sleep(BEAT).await;
            self.beat(clock.monotonic().saturating_sub(due));
        }
    }

    fn beat(&self, late_by: Duration) {
        // One that is very late has swallowed others.
        let missed = (late_by.as_millis() / BEAT.as_millis()) as u64;
        let is_late = late_by > LATE;
        self.beats.fetch_add(1 + missed, Ordering::Relaxed);
        self.late
            .fetch_add(if is_late { 1 + missed } else { 0 }, Ordering::Relaxed);
    }

    /// Of a hundred.
    pub fn late_percent(&self) -> u64 {
        let beats = self.beats.load(Ordering::Relaxed).max(1);
        self.late.load(Ordering::Relaxed) * 100 / beats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_beats_count_for_those_that_they_swallowed() {
        let pulse = Pulse::default();
        (0..8).for_each(|_| pulse.beat(Duration::from_millis(3)));
        assert_eq!(pulse.late_percent(), 0);
        pulse.beat(Duration::from_millis(1_100));
        assert_eq!(pulse.late_percent(), 60);
    }
}
