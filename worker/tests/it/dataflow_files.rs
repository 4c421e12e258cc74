//! The filesystem source by itself: columns, malformed rows, positions and pace.

use std::fs;

use flott_node::Clock;
use flott_node::clock::ManualClock;
use flott_proto::ids::CheckpointId;
use flott_proto::job_graph::{Format, Vertex};
use flott_worker::Error;
use flott_worker::operators::SourceStatus;
use proptest::prelude::*;

use crate::dataflow_harness::*;

/// All rows of one file with that name and text.
fn read(name: &str, text: &str, columns: &str, format: Format) -> Result<Emitted, Error> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(name), text).unwrap();
    let clock = ManualClock::new(0);
    let vertex = source_of(&dir.path().join(name), columns, format, 0);
    drain(&mut opened(&vertex, (0, 1), Vec::new(), &clock), &clock)
}

#[test]
fn csv_columns_are_found_by_name_and_read_as_their_type() {
    let text = "\u{feff}at,name,n,day,price,ok,f\r\n\
        2013-01-01T05:00:00,\"a,\"\"b\"\"\",-7,2013-01-31,12.345,TRUE,1e3\r\n\
        2013-01-01 05:00:00.5, x ,,,,,\r\n";
    let columns =
        "n BIGINT,name STRING,at TIMESTAMP(3),day DATE,price DECIMAL(6, 2),ok BOOLEAN,f DOUBLE";
    let rows = read("a.csv", text, columns, csv(false)).unwrap().text();
    assert_eq!(
        rows,
        [
            "-7 a,\"b\" 2013-01-01T05:00:00 2013-01-31 12.35 true 1000.0",
            "NULL  x  2013-01-01T05:00:00.500 NULL NULL NULL NULL",
        ]
    );
}

#[test]
fn json_members_are_found_by_name_and_read_as_their_type() {
    let text = r#"{"n": 7, "at": "2013-01-01 05:00:00", "more": {"x": [1]}, "name": "\u00e4"}

        {"name": 3, "n": "12"}
        {"at": null}"#;
    let columns = "n INT,name STRING,at TIMESTAMP(0)";
    let rows = read("a.json", text, columns, json()).unwrap().text();
    assert_eq!(
        rows,
        ["7 ä 2013-01-01T05:00:00", "12 3 NULL", "NULL NULL NULL"]
    );
}

#[test]
fn a_malformed_row_is_named_by_file_line_column_and_value() {
    for (name, text, format, needles) in [
        (
            "a.csv",
            "n,s\n1,x\nseven,y\n",
            csv(false),
            ["a.csv:3", "column \"n\"", "\"seven\"", "BIGINT"],
        ),
        (
            "a.csv",
            "n,s\r\n1,\"x\ny\"\r\n99999999999999999999,y\r\n",
            csv(false),
            ["a.csv:4", "column \"n\"", "9999", "BIGINT"],
        ),
        (
            "a.csv",
            "n,s\r\n\r\n1,x\r\n\r\nseven,y",
            csv(false),
            ["a.csv:5", "column \"n\"", "\"seven\"", "BIGINT"],
        ),
        (
            "a.csv",
            "n,s\n\n1,x\n\nseven,y\n",
            csv(false),
            ["a.csv:5", "column \"n\"", "\"seven\"", "BIGINT"],
        ),
        (
            "a.csv",
            "n,s\n1,x\n1\n",
            csv(false),
            ["a.csv:3", "1 fields", "2 are", "expected"],
        ),
        (
            "a.csv",
            "n,s\n,x\n",
            csv(false),
            ["a.csv:2", "column \"n\"", "NOT NULL", ""],
        ),
        (
            "a.csv",
            "n,t\n1,x\n",
            csv(false),
            ["a.csv:1", "no column \"s\"", "it has n, t", ""],
        ),
        (
            "a.json",
            "{\"n\":1}\n{\"n\":1.5}\n",
            json(),
            ["a.json:2", "column \"n\"", "1.5", "BIGINT"],
        ),
        (
            "a.json",
            "\n{\"n\":[1]}\n",
            json(),
            ["a.json:2", "column \"n\"", "array", "BIGINT"],
        ),
        (
            "a.json",
            "{\"n\":1}\n{\"n\":1\n",
            json(),
            ["a.json:2", "not a JSON object", "character", ""],
        ),
        (
            "a.json",
            "7\n",
            json(),
            ["a.json:1", "not a JSON object", "expected an object", ""],
        ),
        (
            "a.json",
            "{\"n\":1,\"n\":2}\n",
            json(),
            ["a.json:1", "column \"n\"", "two values", ""],
        ),
        (
            "a.json",
            "{\"s\":\"x\"}\n",
            json(),
            ["a.json:1", "column \"n\"", "NOT NULL", ""],
        ),
    ] {
        let error = read(name, text, "n BIGINT NOT NULL,s STRING", format).unwrap_err();
        assert!(!error.retryable(), "{error}");
        for needle in needles {
            assert!(
                error.to_string().contains(needle),
                "{text:?}: {error} lacks {needle:?}"
            );
        }
    }
}

#[test]
fn rows_that_do_not_fit_are_skipped_and_counted_where_the_table_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.csv");
    fs::write(&path, "n,s\n1,a\nx,b\n3,c\n4\n,e\n6,f\n").unwrap();
    let clock = ManualClock::new(0);
    let vertex = source_of(&path, "s STRING,n BIGINT NOT NULL", csv(true), 0);
    let mut chain = opened(&vertex, (0, 1), Vec::new(), &clock);
    assert_eq!(
        drain(&mut chain, &clock).unwrap().text(),
        ["a 1", "c 3", "f 6"]
    );
    let counters = chain.counters();
    assert_eq!((counters.parse_errors_skipped, counters.records_in), (3, 3));
}

#[test]
fn missing_files_and_foreign_paths_are_errors_of_the_job() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(0);
    for (path, needle) in [
        (dir.path().join("nope.csv"), "nope.csv"),
        ("s3://bucket/x".into(), "local paths"),
    ] {
        let vertex = source_of(&path, "n BIGINT", csv(false), 0);
        let error = build(&vertex, None, (0, 1), Vec::new(), &clock)
            .unwrap()
            .open(None)
            .unwrap_err();
        assert!(
            !error.retryable() && error.to_string().contains(needle),
            "{error}"
        );
    }
    let empty = source_of(dir.path(), "n BIGINT", csv(false), 0);
    let rows = drain(&mut opened(&empty, (0, 1), Vec::new(), &clock), &clock)
        .unwrap()
        .rows();
    assert_eq!(rows, 0);
}

#[test]
fn a_file_that_appears_after_the_start_is_not_read_and_shifts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("b.csv", "n\n1\n"),
        ("d.csv", "n\n2\n"),
        (".hidden.csv", "n\n8\n"),
        ("_tmp.csv", "n\n9\n"),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let clock = ManualClock::new(0);
    let mut vertex = source_of(dir.path(), "n BIGINT", csv(false), 0);
    vertex.parallelism = 2;
    let mut states = Vec::new();
    for subtask in 0..2 {
        let mut chain = opened(&vertex, (subtask, 1), Vec::new(), &clock);
        states.push(chain.snapshot(CheckpointId(1)).unwrap().0);
    }
    fs::write(dir.path().join("a.csv"), "n\n7\n").unwrap();
    for (subtask, expected) in [(0, "1"), (1, "2")] {
        let restored = vec![states[subtask as usize].clone()];
        let mut chain = opened(&vertex, (subtask, 2), restored, &clock);
        assert_eq!(drain(&mut chain, &clock).unwrap().text(), [expected]);
    }
}

#[test]
fn an_incomplete_set_of_states_is_refused_at_another_parallelism() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.csv"), "n\n1\n").unwrap();
    let clock = ManualClock::new(0);
    let mut vertex = source_of(dir.path(), "n BIGINT", csv(false), 0);
    vertex.parallelism = 2;
    let state = opened(&vertex, (1, 1), Vec::new(), &clock)
        .snapshot(CheckpointId(1))
        .unwrap()
        .0;
    vertex.parallelism = 1;
    let error = build(&vertex, None, (0, 2), vec![state], &clock)
        .unwrap()
        .open(None)
        .unwrap_err();
    assert!(error.to_string().contains("not all of them"), "{error}");
}

/// Reads on from a snapshot after every portion, and gives what all the portions hold together.
fn read_in_portions(vertex: &Vertex, clock: &ManualClock) -> Vec<String> {
    let (mut rows, mut restored, mut attempt) = (Vec::new(), Vec::new(), 0);
    loop {
        attempt += 1;
        let mut chain = opened(vertex, (0, attempt), restored, clock);
        let mut emitted = Emitted::default();
        let status = loop {
            let status = poll(&mut chain, clock, &mut emitted).unwrap();
            if status == SourceStatus::EndOfData || status == SourceStatus::Emitted {
                break status;
            }
        };
        rows.extend(emitted.text());
        if status == SourceStatus::EndOfData {
            return rows;
        }
        restored = vec![chain.snapshot(CheckpointId(attempt.into())).unwrap().0];
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn reading_goes_on_exactly_where_a_snapshot_was_taken(
        values in prop::collection::vec("[a-z \\n\",ä]{0,6}", 0..12), compression in 0..3, as_json in any::<bool>(),
        end in prop::sample::select(vec!["\n", "\r\n"]), last in any::<bool>(), header in any::<bool>()
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut text = String::new();
        if header && !as_json {
            text.push_str(&format!("s,n{end}"));
        }
        for (at, value) in values.iter().enumerate() {
            if as_json {
                text.push_str(&format!("{{\"s\":{value:?},\"n\":{at}}}"));
            } else {
                text.push_str(&format!("\"{}\",{at}", value.replace('"', "\"\"")));
            }
            if last || at + 1 < values.len() {
                text.push_str(end);
            }
        }
        let (name, bytes) = match compression {
            0 => ("a", text.into_bytes()),
            1 => ("a.zst", zstd::encode_all(text.as_bytes(), 1).unwrap()),
            _ => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
                ("a.gz", encoder.finish().unwrap())
            }
        };
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let format = match csv(false) {
            _ if as_json => json(),
            Format::Csv(csv) => Format::Csv(flott_proto::job_graph::CsvFormat { header, ..csv }),
            other => other,
        };
        let clock = ManualClock::new(0);
        let expected: Vec<String> = values.iter().enumerate().map(|(at, value)| format!("{value} {at}")).collect();
        let vertex = source_of(&path, "s STRING,n BIGINT", format, 100);
        prop_assert_eq!(read_in_portions(&vertex, &clock), expected);
    }
}

#[test]
fn the_subtasks_that_have_files_share_the_pace() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("a.csv"),
        format!("n\n{}", "1\n".repeat(1000)),
    )
    .unwrap();
    fs::write(
        dir.path().join("b.csv"),
        format!("n\n{}", "1\n".repeat(1000)),
    )
    .unwrap();
    let mut vertex = source_of(dir.path(), "n BIGINT", csv(false), 1000);
    vertex.parallelism = 4;
    for (subtask, seconds) in [(0, 2.0), (1, 2.0), (2, 0.0)] {
        let clock = ManualClock::new(0);
        drain(
            &mut opened(&vertex, (subtask, 1), Vec::new(), &clock),
            &clock,
        )
        .unwrap();
        let took = clock.monotonic().as_secs_f64();
        assert!((took - seconds).abs() < 0.05, "{subtask}: {took}");
    }
}
