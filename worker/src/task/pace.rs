//! A task with a sink may be told to take no more than so many rows a second. It then takes its next input later, and takes
//! part in checkpoints all the time.

use std::time::Duration;

use flott_node::SharedClock;
use flott_proto::job_graph::{OperatorKind, Vertex};

/// When a task may take its next rows.
#[derive(Debug)]
pub(super) struct Pace {
    /// None: at any time.
    rows_per_second: Option<f64>,
    not_before: Duration,
}

impl Pace {
    /// For a task of that vertex; only one that ends in a sink has a limit, and 0 is none.
    pub(super) fn of(vertex: &Vertex, rows_per_second: u32) -> Self {
        let last = vertex.chain.last().map(|operator| &operator.kind);
        let has_limit = rows_per_second > 0 && matches!(last, Some(OperatorKind::Sink(_)));
        Self {
            rows_per_second: has_limit.then_some(f64::from(rows_per_second)),
            not_before: Duration::ZERO,
        }
    }

    /// How long the task is to take no input.
    pub(super) fn wait(&self, clock: &SharedClock) -> Option<Duration> {
        self.rows_per_second?;
        let left = self.not_before.saturating_sub(clock.monotonic());
        (!left.is_zero()).then_some(left)
    }

    /// The task took that many.
    pub(super) fn on_rows(&mut self, rows: usize, clock: &SharedClock) {
        if let Some(rate) = self.rows_per_second {
            self.not_before = clock.monotonic() + Duration::from_secs_f64(rows as f64 / rate);
        }
    }
}
