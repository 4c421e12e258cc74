//! How the steady tenant fares while the noisy one is at it, beside its own before and after; without the time under faults.

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Answer, Event};
use crate::report::Durations;

/// After a fault is undone, so much more is left out: elections and restarts take their time.
const SETTLE_MS: u64 = 5_000;

/// Beside each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// While the noisy tenant did nothing.
    pub rest: Pace,
    /// While it did its worst.
    pub abuse: Pace,
    /// Requests of the noisy tenant that were carried out.
    pub noise: u64,
    /// And that were not.
    pub noise_refused: u64,
}

/// How the steady tenant fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "their names say it")]
pub struct Pace {
    pub lasted_ms: u64,
    pub asked: u64,
    pub answered: u64,
    /// From when it was a request's turn, to its answer.
    pub p50_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
    /// That its job completed.
    pub checkpoints: u64,
    /// That its job was started again.
    pub restarts: u64,
}

/// The figures; `faults` are the times of faults, in milliseconds since the run began.
pub fn figures(events: &[Event], faults: &[Range<u64>]) -> Figures {
    let mut figures = Figures::default();
    let mut abused: Vec<Range<u64>> = Vec::new();
    for event in events {
        if let Event::Abused {
            from_ms,
            until_ms,
            done,
            refused,
        } = event
        {
            abused.push(*from_ms..*until_ms);
            figures.noise += done.values().sum::<u64>();
            figures.noise_refused += refused.values().sum::<u64>();
        }
    }
    let is_in = |spans: &[Range<u64>], from: u64, until: u64, after: u64| {
        spans
            .iter()
            .any(|span| from < span.end.saturating_add(after) && span.start <= until)
    };
    // What lies across a boundary counts as abused.
    let pace_of = |from: u64, until: u64| {
        (!is_in(faults, from, until, SETTLE_MS)).then(|| is_in(&abused, from, until, 0))
    };
    let mut waits = [Durations::default(), Durations::default()];
    let mut paces = [Pace::default(), Pace::default()];
    let mut progress: Option<(u64, u64, u64)> = None;
    for event in events {
        match event {
            Event::Asked {
                due_us,
                ended_us,
                answer,
            } => {
                let Some(abused) = pace_of(due_us / 1_000, ended_us / 1_000) else {
                    continue;
                };
                let pace = &mut paces[usize::from(abused)];
                pace.asked += 1;
                if *answer == Answer::Done {
                    pace.answered += 1;
                    let waited = Duration::from_micros(ended_us.saturating_sub(*due_us));
                    waits[usize::from(abused)].push(waited);
                }
            }
            Event::Progress {
                at_ms,
                checkpoint,
                attempt,
            } => {
                let before = progress.replace((*at_ms, *checkpoint, *attempt));
                let Some((since_ms, checkpoints, attempts)) = before else {
                    continue;
                };
                if let Some(abused) = pace_of(since_ms, *at_ms) {
                    let pace = &mut paces[usize::from(abused)];
                    pace.lasted_ms += at_ms.saturating_sub(since_ms);
                    pace.checkpoints += checkpoint.saturating_sub(checkpoints);
                    pace.restarts += attempt.saturating_sub(attempts);
                }
            }
            _ => {}
        }
    }
    for (pace, waits) in paces.iter_mut().zip(&waits) {
        let us = |percent| waits.percentile(percent).as_micros() as u64;
        (pace.p50_us, pace.p99_us, pace.max_us) = (us(50), us(99), us(100));
    }
    [figures.rest, figures.abuse] = paces;
    figures
}

impl Pace {
    /// In a few words.
    pub fn text(&self) -> String {
        let ms = |us: u64| us as f64 / 1e3;
        let rate = self.checkpoints as f64 * 6e4 / self.lasted_ms.max(1) as f64;
        format!(
            "{} of {} answered, p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms; {rate:.0} checkpoints/min, {} restarts",
            self.answered,
            self.asked,
            ms(self.p50_us),
            ms(self.p99_us),
            ms(self.max_us),
            self.restarts
        )
    }
}
