//! Medians over rounds, and the ratios to Flott. Pure, apart from [`until`].

use std::collections::BTreeMap;
use std::time::Duration;

use flott_cli::bench::figures::{Figures, Report};
use flott_cli::bench::load::Operation;
use flott_node::SharedClock;
use serde::Serialize;

/// Between two tries of [`until`].
const PAUSE: Duration = Duration::from_millis(100);

/// Tries until it succeeds, at most for `limit`; then the last failure.
pub async fn until(
    limit: Duration,
    clock: &SharedClock,
    mut attempt: impl AsyncFnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let end = clock.monotonic() + limit;
    loop {
        match attempt().await {
            Ok(()) => return Ok(()),
            Err(error) if clock.monotonic() >= end => return Err(error),
            Err(_) => clock.sleep(PAUSE).await,
        }
    }
}

/// What was measured alike: the operation, its bytes, and how many were in flight.
type Row = (Operation, u64, u64);

/// A system's median of each figure in one row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Median {
    pub rounds: usize,
    pub ops_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    /// Failures of all rounds together: with any, the row proves nothing.
    pub errors: u64,
}

/// A row of the comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    pub operation: Operation,
    pub value_bytes: u64,
    pub in_flight: u64,
    pub systems: BTreeMap<String, Median>,
    /// Flott's operations a second over the other system's.
    pub ratios: BTreeMap<String, f64>,
}

/// Resident memory of one process at the end, MiB.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Memory {
    pub system: String,
    pub nodes_mib: Vec<u64>,
}

/// The whole comparison, as JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    pub rows: Vec<Compared>,
    pub memory: Vec<Memory>,
}

/// The name under which Flott reports.
const OURS: &str = "flott";

/// Puts the reports of all rounds together.
pub fn compare(reports: &[Report]) -> Vec<Compared> {
    let mut rows: BTreeMap<Row, BTreeMap<String, Vec<&Figures>>> = BTreeMap::new();
    for report in reports {
        for figures in &report.figures {
            let row = (figures.operation, figures.value_bytes, figures.in_flight);
            let systems = rows.entry(row).or_default();
            systems
                .entry(report.system.clone())
                .or_default()
                .push(figures);
        }
    }
    rows.into_iter()
        .map(|((operation, value_bytes, in_flight), systems)| {
            let systems: BTreeMap<_, _> = systems
                .into_iter()
                .map(|(system, rounds)| (system, median_of(&rounds)))
                .collect();
            Compared {
                operation,
                value_bytes,
                in_flight,
                ratios: ratios(&systems),
                systems,
            }
        })
        .collect()
}

fn ratios(systems: &BTreeMap<String, Median>) -> BTreeMap<String, f64> {
    let Some(ours) = systems.get(OURS) else {
        return BTreeMap::new();
    };
    let others = systems
        .iter()
        .filter(|(system, other)| *system != OURS && other.ops_per_second > 0.0);
    let ratio = |(system, other): (&String, &Median)| {
        let ratio = ours.ops_per_second / other.ops_per_second;
        (system.clone(), (ratio * 100.0).round() / 100.0)
    };
    others.map(ratio).collect()
}

fn median_of(rounds: &[&Figures]) -> Median {
    let median =
        |figure: fn(&Figures) -> f64| median(rounds.iter().map(|round| figure(round)).collect());
    Median {
        rounds: rounds.len(),
        ops_per_second: median(|round| round.ops_per_second),
        p50_ms: median(|round| round.p50_ms),
        p99_ms: median(|round| round.p99_ms),
        p999_ms: median(|round| round.p999_ms),
        errors: rounds.iter().map(|round| round.failed()).sum(),
    }
}

/// Of an even number, the mean of the middle two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        even if even % 2 == 0 => (values[middle - 1] + values[middle]) / 2.0,
        _ => values[middle],
    }
}

impl Comparison {
    /// For people: a line for each row, Flott first, with the ratios at its end.
    pub fn table(&self) -> String {
        let mut others: Vec<&String> = self
            .rows
            .iter()
            .flat_map(|row| row.systems.keys())
            .collect();
        others.retain(|system| *system != OURS);
        others.sort();
        others.dedup();
        let systems: Vec<&str> = std::iter::once(OURS)
            .chain(others.iter().map(|other| other.as_str()))
            .collect();
        let mut lines = vec![header(&systems)];
        lines.extend(self.rows.iter().map(|row| line(row, &systems)));
        let mut text = aligned(&lines);
        text.push_str("\nEach cell: operations/s, p50 ms, p99 ms; medians over the rounds.\n");
        for memory in &self.memory {
            let nodes: Vec<_> = memory.nodes_mib.iter().map(u64::to_string).collect();
            text.push_str(&format!(
                "resident memory a node, MiB: {} {}\n",
                memory.system,
                nodes.join(", ")
            ));
        }
        text
    }
}

fn header(systems: &[&str]) -> Vec<String> {
    let mut header: Vec<String> = ["", "BYTES", "IN FLIGHT"].map(str::to_owned).to_vec();
    header.extend(systems.iter().map(|system| (*system).to_owned()));
    header.extend(systems[1..].iter().map(|system| format!("{OURS}/{system}")));
    header
}

fn line(row: &Compared, systems: &[&str]) -> Vec<String> {
    let operation = match row.operation {
        Operation::Write => "write",
        Operation::Read => "read",
    };
    let mut line = vec![
        operation.to_owned(),
        row.value_bytes.to_string(),
        row.in_flight.to_string(),
    ];
    line.extend(systems.iter().map(|system| match row.systems.get(*system) {
        Some(median) => cell(median),
        None => "-".to_owned(),
    }));
    line.extend(
        systems[1..]
            .iter()
            .map(|system| match row.ratios.get(*system) {
                Some(ratio) => format!("{ratio:.2}"),
                None => "-".to_owned(),
            }),
    );
    line
}

fn cell(median: &Median) -> String {
    let failed = if median.errors > 0 {
        format!(" ({} failed!)", median.errors)
    } else {
        String::new()
    };
    format!(
        "{:.0} / {:.2} / {:.2}{failed}",
        median.ops_per_second, median.p50_ms, median.p99_ms
    )
}

fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use flott_node::SystemClock;

    use super::*;

    fn report(system: &str, ops: f64, errors: u64) -> Report {
        let figures = Figures {
            operation: Operation::Write,
            value_bytes: 256,
            in_flight: 64,
            sessions: 1,
            seconds: 1.0,
            operations: ops as u64,
            ops_per_second: ops,
            p50_ms: 1000.0 / ops,
            p99_ms: 2.0,
            p999_ms: 3.0,
            max_ms: 4.0,
            errors: (errors > 0)
                .then(|| ("lost".to_owned(), errors))
                .into_iter()
                .collect(),
            members: BTreeMap::new(),
        };
        Report {
            system: system.to_owned(),
            figures: vec![figures],
        }
    }

    #[test]
    fn ratios_are_those_of_the_medians() {
        let reports = [
            report("flott", 30.0, 0),
            report("etcd", 10.0, 0),
            report("flott", 50.0, 0),
            report("etcd", 1000.0, 2),
            report("flott", 40.0, 0),
            report("etcd", 16.0, 0),
        ];
        let rows = compare(&reports);
        assert_eq!(rows.len(), 1);
        let row = &rows[0];
        assert_eq!(
            (
                row.systems["flott"].ops_per_second,
                row.systems["flott"].rounds
            ),
            (40.0, 3)
        );
        assert_eq!(
            (
                row.systems["etcd"].ops_per_second,
                row.systems["etcd"].errors
            ),
            (16.0, 2)
        );
        assert_eq!(row.ratios, BTreeMap::from([("etcd".to_owned(), 2.5)]));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn a_system_that_was_not_measured_is_a_dash_and_failures_are_seen() {
        let mut rows = compare(&[report("flott", 30.0, 0), report("zookeeper", 10.0, 1)]);
        rows.extend(compare(&[report("flott", 30.0, 0)]));
        let memory = vec![Memory {
            system: "flott".to_owned(),
            nodes_mib: vec![99, 101],
        }];
        let table = Comparison { rows, memory }.table();
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[0].contains("flott/zookeeper"), "{table}");
        assert!(
            lines[1].ends_with("3.00") && lines[1].contains("(1 failed!)"),
            "{table}"
        );
        assert!(
            lines[2].ends_with("-  -") || lines[2].trim_end().ends_with('-'),
            "{table}"
        );
        assert!(table.contains("MiB: flott 99, 101"), "{table}");
    }

    #[tokio::test]
    async fn what_does_not_succeed_in_time_fails_with_the_last_reason() {
        let clock = SystemClock::shared();
        let mut tries = 0;
        let tried = until(Duration::from_secs(60), &clock, async || {
            tries += 1;
            anyhow::ensure!(tries == 3);
            Ok(())
        });
        tried.await.unwrap();
        let failed = until(Duration::ZERO, &clock, async || anyhow::bail!("down")).await;
        assert_eq!(failed.unwrap_err().to_string(), "down");
    }
}
