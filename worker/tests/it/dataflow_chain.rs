//! Operators in a chain: filter, project, watermarks and idleness.

use std::fs;
use std::time::Duration;

use arrow::array::RecordBatch;
use flott_node::clock::ManualClock;
use flott_proto::ids::CheckpointId;
use flott_proto::job_graph::{NamedExpression, OperatorKind, Schema, Sink};

use crate::dataflow_harness::*;

#[test]
fn filter_and_project_compute_and_null_is_not_true() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.csv");
    fs::write(&path, "n,s\n1,a\n,b\n3,c\n").unwrap();
    let named = |name: &str, expression: &str| NamedExpression {
        name: name.into(),
        expression: expression.into(),
    };
    let mut vertex = source_of(&path, "n BIGINT,s STRING", csv(false), 0);
    vertex.chain.push(operator(
        "filter",
        schema("n BIGINT,s STRING"),
        OperatorKind::Filter {
            predicate: "n > 0".into(),
        },
    ));
    let expressions = vec![named("double", "n * 2"), named("upper", "upper(s)")];
    vertex.chain.push(operator(
        "project",
        schema("double INT NOT NULL,upper STRING"),
        OperatorKind::Project { expressions },
    ));
    vertex.chain.push(operator(
        "sink",
        Schema::default(),
        OperatorKind::Sink(Sink::Blackhole),
    ));
    let clock = ManualClock::new(0);
    let mut chain = opened(&vertex, (0, 1), Vec::new(), &clock);
    drain(&mut chain, &clock).unwrap();
    assert_eq!(
        (chain.counters().records_in, chain.counters().records_out),
        (3, 2)
    );
    vertex.chain.pop();
    assert_eq!(
        drain(&mut opened(&vertex, (0, 1), Vec::new(), &clock), &clock)
            .unwrap()
            .text(),
        ["2 A", "6 C"]
    );
}

#[test]
fn watermarks_rise_with_the_rows_and_are_said_again_after_a_restore() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.csv");
    fs::write(
        &path,
        "at\n1970-01-01T00:00:05\n1970-01-01T00:00:03\n1970-01-01T00:00:09\n",
    )
    .unwrap();
    let columns = "at TIMESTAMP(3) NOT NULL";
    let mut vertex = source_of(&path, columns, csv(false), 100);
    vertex
        .chain
        .push(watermark("at", "'2' SECOND", schema(columns)));
    let clock = ManualClock::new(0);
    let mut chain = opened(&vertex, (0, 1), Vec::new(), &clock);
    let emitted = drain(&mut chain, &clock).unwrap();
    assert_eq!(emitted.watermarks, [3000, 7000]);
    let state = chain.snapshot(CheckpointId(1)).unwrap().0;
    let mut chain = opened(&vertex, (0, 2), vec![state.clone()], &clock);
    let mut emitted = Emitted::default();
    chain.on_tick(&mut emitted).unwrap();
    assert_eq!(emitted.watermarks, [7000]);
    assert_eq!(chain.snapshot(CheckpointId(2)).unwrap().0, state);
}

#[test]
fn a_row_without_event_time_is_an_error_that_names_the_column() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.csv");
    fs::write(&path, "at,n\n,1\n").unwrap();
    let columns = "at TIMESTAMP(3),n BIGINT";
    let mut vertex = source_of(&path, columns, csv(false), 0);
    vertex
        .chain
        .push(watermark("at", "'2' SECOND", schema(columns)));
    let clock = ManualClock::new(0);
    let error = drain(&mut opened(&vertex, (0, 1), Vec::new(), &clock), &clock).unwrap_err();
    assert!(
        !error.retryable() && error.to_string().contains("\"at\" is NULL"),
        "{error}"
    );
}

#[test]
fn an_input_without_rows_for_long_is_idle_until_there_are_some() {
    let columns = "at TIMESTAMP(3) NOT NULL";
    let mut assign = watermark("at", "'2' SECOND", schema(columns));
    if let OperatorKind::AssignWatermark(assign) = &mut assign.kind {
        assign.idle_timeout_ms = 1000;
    }
    let vertex = vertex("assign", 1, vec![assign]);
    let clock = ManualClock::new(0);
    let mut chain = build(&vertex, Some(&schema(columns)), (0, 1), Vec::new(), &clock).unwrap();
    chain.open(None).unwrap();
    let mut emitted = Emitted::default();
    for _ in 0..3 {
        chain.on_tick(&mut emitted).unwrap();
        clock.advance(Duration::from_millis(500));
    }
    assert_eq!(emitted.idle, [true]);
    let at = arrow::array::TimestampMillisecondArray::from(vec![5000]);
    let batch = RecordBatch::try_new(
        schema(columns).to_arrow().into(),
        vec![std::sync::Arc::new(at)],
    );
    chain.process(batch.unwrap(), &mut emitted).unwrap();
    assert_eq!(
        (emitted.idle, emitted.watermarks),
        (vec![true, false], vec![3000])
    );
}
