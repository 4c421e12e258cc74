//! How every test here compiles, and what the scripts have in common.

use flott_proto::job_graph::JobGraph;
use flott_sql::{Compiled, PlanOptions, SqlError, compile};

/// Tables for scripts that are about the query. One line, so that the query begins in line 2.
pub(crate) const PRELUDE: &str = concat!(
    "CREATE TABLE flights (landed_at TIMESTAMP(3), departed_at TIMESTAMP(3), carrier STRING NOT NULL, flight BIGINT, ",
    "tailnum STRING, origin STRING, dest STRING, distance INT, dep_delay BIGINT, price DECIMAL(10, 2), speed FLOAT, ",
    "cancelled BOOLEAN, raw BYTES, day DATE, ",
    "WATERMARK FOR departed_at AS departed_at - INTERVAL '12' HOUR) ",
    "WITH ('connector' = 'filesystem', 'path' = '/data/flights.csv', 'format' = 'csv'); ",
    "CREATE TABLE unordered (id BIGINT, at TIMESTAMP(3), window_start STRING) ",
    "WITH ('connector' = 'filesystem', 'path' = '/data/unordered', 'format' = 'json'); ",
    "CREATE TABLE counts (name STRING, number BIGINT) ",
    "WITH ('connector' = 'filesystem', 'path' = '/data/counts', 'format' = 'json'); ",
    "CREATE TABLE small (number INT NOT NULL) WITH ('connector' = 'blackhole'); ",
);

pub(crate) fn options() -> PlanOptions {
    PlanOptions {
        default_parallelism: 4,
        max_parallelism: 128,
        job_name: None,
    }
}

pub(crate) fn run(script: &str) -> Result<Compiled, SqlError> {
    compile(script, &options())
}

pub(crate) fn graph(script: &str) -> JobGraph {
    match run(script) {
        Ok(Compiled::Job { graph, .. }) => graph,
        other => panic!("no job but {other:?}: {script}"),
    }
}
