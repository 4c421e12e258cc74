//! What came of a load, as a table and as JSON. The JSON is a promise to scripts: fields may be added, never renamed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::load::{Load, Measured, Operation};
use crate::output::format_table;

/// All measurements of one system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub system: String,
    pub figures: Vec<Figures>,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    pub operation: Operation,
    pub value_bytes: u64,
    pub in_flight: u64,
    /// Connections that shared the load.
    pub sessions: u64,
    pub seconds: f64,
    /// That succeeded.
    pub operations: u64,
    pub ops_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
    /// How many failed, by what was said.
    pub errors: BTreeMap<String, u64>,
    /// How many succeeded, by the member that answered.
    pub members: BTreeMap<u64, u64>,
}

impl Figures {
    /// The figures of a load that was run on `in_flight` places over `sessions` connections.
    pub fn new(load: &Load, in_flight: u64, sessions: u64, measured: Measured) -> Self {
        let quantile = |q| millis(measured.latencies.value_at_quantile(q));
        let operations = measured.latencies.len();
        let seconds = load.measured.as_secs_f64();
        let per_second = if seconds > 0.0 {
            operations as f64 / seconds
        } else {
            0.0
        };
        Self {
            operation: load.operation,
            value_bytes: load.value.len() as u64,
            in_flight,
            sessions,
            seconds,
            operations,
            ops_per_second: (per_second * 10.0).round() / 10.0,
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            max_ms: millis(measured.latencies.max()),
            errors: measured.failures,
            members: measured.members,
        }
    }

    /// How many failed.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    fn row(&self) -> Vec<String> {
        let members = self.members.iter();
        let members = members
            .map(|(member, _)| member.to_string())
            .collect::<Vec<_>>();
        vec![
            match self.operation {
                Operation::Write => "write".to_owned(),
                Operation::Read => "read".to_owned(),
            },
            self.value_bytes.to_string(),
            self.in_flight.to_string(),
            self.sessions.to_string(),
            format!("{:.0}", self.ops_per_second),
            format!("{:.2}", self.p50_ms),
            format!("{:.2}", self.p99_ms),
            format!("{:.2}", self.p999_ms),
            format!("{:.1}", self.max_ms),
            self.failed().to_string(),
            members.join(","),
        ]
    }
}

fn millis(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64() * 1000.0
}

impl Report {
    /// For people.
    pub fn table(&self) -> String {
        let header = [
            "OPERATION",
            "BYTES",
            "IN FLIGHT",
            "SESSIONS",
            "OPS/S",
            "P50 MS",
            "P99 MS",
            "P99.9 MS",
            "MAX MS",
            "ERRORS",
            "ANSWERED BY",
        ];
        format_table(&header, self.figures.iter().map(Figures::row).collect())
    }

    /// For programs.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self)
            .unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
    }

    /// What went wrong, a line each.
    pub fn failures(&self) -> Vec<String> {
        let line = |figures: &Figures| {
            let place = format!(
                "{:?} {} B, {} in flight",
                figures.operation, figures.value_bytes, figures.in_flight
            );
            let errors = figures.errors.clone().into_iter();
            errors
                .map(move |(error, count)| format!("{place}: {count} × {error}"))
                .collect::<Vec<_>>()
        };
        self.figures.iter().flat_map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;

    use super::*;

    fn figures() -> Figures {
        let mut latencies = Histogram::new_with_bounds(1, 60_000_000, 3).unwrap();
        (1..=1000).for_each(|micros| latencies.record(micros * 10).unwrap());
        let measured = Measured {
            latencies,
            members: BTreeMap::from([(2, 1000)]),
            failures: BTreeMap::from([("refused".to_owned(), 3)]),
        };
        let second = Duration::from_secs(2);
        let load = Load::new(Operation::Write, 256, Duration::ZERO, second);
        Figures::new(&load, 16, 1, measured)
    }

    #[test]
    fn quantiles_are_those_of_the_latencies() {
        let figures = figures();
        assert_eq!(
            (figures.operations, figures.ops_per_second, figures.failed()),
            (1000, 500.0, 3)
        );
        let near =
            |is: f64, wanted: f64| assert!((is / wanted - 1.0).abs() < 0.002, "{is} for {wanted}");
        near(figures.p50_ms, 5.0);
        near(figures.p99_ms, 9.9);
        near(figures.p999_ms, 9.99);
        near(figures.max_ms, 10.0);
    }

    #[test]
    fn json_is_read_back_and_the_table_has_a_line_for_each() {
        let report = Report {
            system: "flott".to_owned(),
            figures: vec![figures(), figures()],
        };
        assert_eq!(
            serde_json::from_str::<Report>(&report.json()).unwrap(),
            report
        );
        let table = report.table();
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        let words: Vec<_> = lines[1].split_whitespace().collect();
        assert_eq!(words[..5], ["write", "256", "16", "1", "500"]);
        assert_eq!(words[9..], ["3", "2"]);
        assert_eq!(
            report.failures()[0],
            "Write 256 B, 16 in flight: 3 × refused"
        );
    }

    #[test]
    fn nothing_measured_is_no_division_by_zero() {
        let load = Load::new(Operation::Read, 1, Duration::ZERO, Duration::ZERO);
        let measured = Measured {
            latencies: Histogram::new_with_bounds(1, 1000, 3).unwrap(),
            members: BTreeMap::new(),
            failures: BTreeMap::new(),
        };
        let figures = Figures::new(&load, 1, 1, measured);
        assert_eq!((figures.ops_per_second, figures.p50_ms), (0.0, 0.0));
    }
}
