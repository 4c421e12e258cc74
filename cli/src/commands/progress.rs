//! How far a job is, in one line. Pure: from what the leader says to what a person reads.

use flott_proto::wire;
use flott_proto::wire::operator;

use super::resolve::has_ended;

/// A look at a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) state: String,
    attempt: u32,
    restarts: u32,
    completed_checkpoints: u64,
    failed_checkpoints: u64,
    /// Rows that the sources have read in this attempt.
    rows_in: u64,
    /// Rows that have reached the sinks in this attempt.
    rows_out: u64,
    /// Why the job waits, if it does.
    pub(super) status: String,
    pub(super) last_failure: String,
}

impl Progress {
    pub(super) fn new(details: &wire::JobDetails) -> Self {
        let summary = details.summary.clone().unwrap_or_default();
        let graph = details.graph.iter().flat_map(|graph| &graph.vertices);
        let (mut sources, mut sinks) = (Vec::new(), Vec::new());
        for vertex in graph {
            let is = |wanted: fn(&operator::Kind) -> bool| {
                vertex
                    .chain
                    .iter()
                    .filter_map(|operator| operator.kind.as_ref())
                    .any(wanted)
            };
            if is(|kind| matches!(kind, operator::Kind::Source(_))) {
                sources.push(vertex.uid.as_str());
            }
            if is(|kind| matches!(kind, operator::Kind::Sink(_))) {
                sinks.push(vertex.uid.as_str());
            }
        }
        let rows = |vertices: &[&str], of: fn(&wire::TaskCounters) -> u64| {
            let tasks = details
                .vertices
                .iter()
                .filter(|vertex| vertices.contains(&vertex.id.as_str()));
            tasks
                .flat_map(|vertex| &vertex.tasks)
                .filter_map(|task| task.counters.as_ref())
                .map(of)
                .sum()
        };
        Self {
            state: summary.state,
            attempt: summary.attempt,
            restarts: summary.restarts,
            completed_checkpoints: details.completed_checkpoints,
            failed_checkpoints: details.failed_checkpoints,
            rows_in: rows(&sources, |counters| {
                counters.records_in.max(counters.records_out)
            }),
            rows_out: rows(&sinks, |counters| {
                counters.records_out.max(counters.records_in)
            }),
            status: details.status_text.clone(),
            last_failure: details.last_failure.clone(),
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        has_ended(&self.state)
    }

    /// Whether `later` is news even to someone who does not look all the time.
    pub(super) fn is_news(&self, later: &Self) -> bool {
        self.state != later.state || self.attempt != later.attempt || self.status != later.status
    }

    /// One line, without a line break.
    pub(super) fn line(&self) -> String {
        let mut line = format!("{:<9} attempt {}", self.state, self.attempt);
        if self.restarts > 0 {
            line.push_str(&format!(" ({} restarts)", self.restarts));
        }
        line.push_str(&format!("  checkpoints {}", self.completed_checkpoints));
        if self.failed_checkpoints > 0 {
            line.push_str(&format!(" ({} failed)", self.failed_checkpoints));
        }
        line.push_str(&format!(
            "  rows in {}, out {}",
            thousands(self.rows_in),
            thousands(self.rows_out)
        ));
        if !self.status.is_empty() {
            line.push_str(&format!("  {}", self.status.replace('\n', " ")));
        }
        line
    }
}

/// `1234567` as `1,234,567`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vertex(uid: &str, kinds: Vec<operator::Kind>) -> wire::Vertex {
        let operator = |kind| wire::Operator {
            kind: Some(kind),
            ..wire::Operator::default()
        };
        wire::Vertex {
            uid: uid.to_owned(),
            chain: kinds.into_iter().map(operator).collect(),
            ..wire::Vertex::default()
        }
    }

    fn details() -> wire::JobDetails {
        let source = operator::Kind::Source(wire::Source::default());
        let sink = operator::Kind::Sink(wire::Sink::default());
        let window = operator::Kind::WindowAggregate(wire::WindowAggregate::default());
        let task = |records_in, records_out| wire::TaskDetails {
            counters: Some(wire::TaskCounters {
                records_in,
                records_out,
                ..wire::TaskCounters::default()
            }),
            ..wire::TaskDetails::default()
        };
        let tasks = |id: &str, tasks| wire::VertexDetails {
            id: id.to_owned(),
            tasks,
            ..wire::VertexDetails::default()
        };
        wire::JobDetails {
            summary: Some(wire::JobSummary {
                state: "RUNNING".to_owned(),
                attempt: 1,
                ..wire::JobSummary::default()
            }),
            graph: Some(wire::JobGraph {
                vertices: vec![vertex("s", vec![source]), vertex("w", vec![window, sink])],
                ..wire::JobGraph::default()
            }),
            vertices: vec![
                tasks("s", vec![task(0, 1_200_000), task(0, 34_567)]),
                tasks("w", vec![task(900, 12)]),
            ],
            completed_checkpoints: 3,
            ..wire::JobDetails::default()
        }
    }

    #[test]
    fn the_line_tells_state_checkpoints_and_rows() {
        let progress = Progress::new(&details());
        assert_eq!(
            progress.line(),
            "RUNNING   attempt 1  checkpoints 3  rows in 1,234,567, out 900"
        );
        assert!(!progress.has_ended());
    }

    #[test]
    fn troubles_are_told() {
        let mut details = details();
        details.failed_checkpoints = 2;
        details.status_text = "waits for 2 slots".to_owned();
        let line = Progress::new(&details).line();
        assert!(
            line.contains("(2 failed)") && line.ends_with("waits for 2 slots"),
            "{line}"
        );
    }

    #[test]
    fn rows_alone_are_no_news_but_a_state_is() {
        let before = Progress::new(&details());
        let mut later = details();
        later.completed_checkpoints = 9;
        assert!(!before.is_news(&Progress::new(&later)));
        later.summary.as_mut().unwrap().state = "RESTARTING".to_owned();
        assert!(before.is_news(&Progress::new(&later)));
    }

    #[test]
    fn a_job_that_nobody_described_has_no_rows() {
        assert_eq!(Progress::new(&wire::JobDetails::default()).rows_in, 0);
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(1000), "1,000");
    }
}
