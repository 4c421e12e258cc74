//! Operator chains without a runtime: the exchange between them is a function call, time stands still until it is moved,
//! and a crash is a chain that is dropped.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use flott_node::Clock;
use flott_node::clock::ManualClock;
use flott_proto::ids::{AttemptNumber, CheckpointId, SubtaskId, TaskId};
use flott_proto::job_graph::{
    Aggregate, AggregateFunction, AssignWatermark, CsvFormat, Field, FilesystemSink,
    FilesystemSource, Format, JsonFormat, Operator, OperatorKind, Schema, Sink, Source, Vertex,
    WindowAggregate,
};
use flott_proto::key_group::KeyGroupRange;
use flott_worker::Error;
use flott_worker::operators::{ChainContext, Collector, OperatorChain, SourceStatus};

pub(crate) const MAX_PARALLELISM: u32 = 8;

/// What a chain emitted.
#[derive(Debug, Default)]
pub(crate) struct Emitted {
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) watermarks: Vec<i64>,
    pub(crate) idle: Vec<bool>,
}

impl Collector for Emitted {
    fn collect(&mut self, batch: RecordBatch) -> Result<(), Error> {
        self.batches.push(batch);
        Ok(())
    }
    fn watermark(&mut self, watermark_ms: i64) -> Result<(), Error> {
        self.watermarks.push(watermark_ms);
        Ok(())
    }
    fn idle(&mut self, idle: bool) -> Result<(), Error> {
        self.idle.push(idle);
        Ok(())
    }
}

impl Emitted {
    pub(crate) fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// All rows as text, a line each.
    pub(crate) fn text(&self) -> Vec<String> {
        let rows = |batch: &RecordBatch| {
            let options = arrow::util::display::FormatOptions::new().with_null("NULL");
            let columns: Vec<_> = batch
                .columns()
                .iter()
                .map(|column| {
                    arrow::util::display::ArrayFormatter::try_new(column, &options).unwrap()
                })
                .collect();
            let row = |row| {
                let values: Vec<String> = columns
                    .iter()
                    .map(|column| column.value(row).to_string())
                    .collect();
                values.join(" ")
            };
            (0..batch.num_rows()).map(row).collect::<Vec<_>>()
        };
        self.batches.iter().flat_map(rows).collect()
    }
}

/// `"name TYPE,name DECIMAL(6, 2) NOT NULL"`: a comma without a space divides.
pub(crate) fn schema(text: &str) -> Schema {
    let field = |text: &str| {
        let (name, data_type) = text.trim().split_once(' ').unwrap();
        let not_null = data_type.strip_suffix(" NOT NULL");
        Field {
            name: name.to_owned(),
            data_type: not_null.unwrap_or(data_type).parse().unwrap(),
            nullable: not_null.is_none(),
        }
    };
    Schema {
        fields: text
            .replace(", ", ";")
            .split(',')
            .map(|text| field(&text.replace(';', ", ")))
            .collect(),
    }
}

pub(crate) fn operator(uid: &str, output: Schema, kind: OperatorKind) -> Operator {
    Operator {
        uid: uid.to_owned(),
        name: uid.to_owned(),
        output,
        kind,
    }
}

pub(crate) fn vertex(uid: &str, parallelism: u32, chain: Vec<Operator>) -> Vertex {
    Vertex {
        uid: uid.parse().unwrap(),
        name: uid.to_owned(),
        parallelism,
        max_parallelism: MAX_PARALLELISM,
        chain,
    }
}

pub(crate) fn csv(ignore_parse_errors: bool) -> Format {
    Format::Csv(CsvFormat {
        header: true,
        delimiter: ',',
        ignore_parse_errors,
        null_literal: String::new(),
    })
}

pub(crate) fn json() -> Format {
    Format::Json(JsonFormat {
        ignore_parse_errors: false,
        iso_timestamps: false,
    })
}

pub(crate) fn file_source(path: &Path, format: Format, rows_per_second: u64) -> OperatorKind {
    OperatorKind::Source(Source::Filesystem(FilesystemSource {
        path: path.to_str().unwrap().to_owned(),
        format,
        rows_per_second,
    }))
}

pub(crate) fn file_sink(path: &Path, format: Format) -> Operator {
    let sink = FilesystemSink {
        path: path.to_str().unwrap().to_owned(),
        format,
    };
    operator(
        "sink",
        Schema::default(),
        OperatorKind::Sink(Sink::Filesystem(sink)),
    )
}

pub(crate) fn watermark(column: &str, delay: &str, output: Schema) -> Operator {
    let assign = AssignWatermark {
        column: column.to_owned(),
        expression: format!("{column} - INTERVAL {delay}"),
        idle_timeout_ms: 0,
    };
    operator("watermark", output, OperatorKind::AssignWatermark(assign))
}

pub(crate) fn aggregate(function: AggregateFunction, argument: &str, output: &str) -> Aggregate {
    Aggregate {
        function,
        argument: (!argument.is_empty()).then(|| argument.to_owned()),
        output: output.to_owned(),
    }
}

pub(crate) fn window(
    keys: &[&str],
    size: Duration,
    aggregates: Vec<Aggregate>,
    output: Schema,
) -> Operator {
    let window = WindowAggregate {
        time_column: "at".into(),
        size_ms: size.as_millis() as u64,
        offset_ms: 0,
        keys: keys.iter().map(ToString::to_string).collect(),
        aggregates,
        window_start: "window_start".into(),
        window_end: "window_end".into(),
    };
    operator("window", output, OperatorKind::WindowAggregate(window))
}

/// A vertex that reads files.
pub(crate) fn source_of(
    path: &Path,
    columns: &str,
    format: Format,
    rows_per_second: u64,
) -> Vertex {
    let source = file_source(path, format, rows_per_second);
    vertex(
        "source",
        1,
        vec![operator("source", schema(columns), source)],
    )
}

/// Operator state of one subtask.
pub(crate) type States = BTreeMap<String, Bytes>;

/// The chain of a subtask, built but not opened.
pub(crate) fn build(
    vertex: &Vertex,
    input: Option<&Schema>,
    (subtask, attempt): (u32, u32),
    restored: Vec<States>,
    clock: &ManualClock,
) -> Result<OperatorChain, Error> {
    let task = TaskId {
        job: "0123456789abcdef0123456789abcdef".parse().unwrap(),
        attempt: AttemptNumber(attempt),
        subtask: SubtaskId {
            vertex: vertex.uid.clone(),
            subtask,
        },
    };
    let ctx = ChainContext {
        task,
        parallelism: vertex.parallelism,
        max_parallelism: vertex.max_parallelism,
        key_groups: KeyGroupRange::of_subtask(subtask, vertex.max_parallelism, vertex.parallelism),
        restored,
        clock: Arc::new(clock.clone()),
        restored_checkpoint: CheckpointId::NONE,
    };
    OperatorChain::build(vertex, input.map(|schema| Arc::new(schema.to_arrow())), ctx)
}

/// A chain without keyed state, open.
pub(crate) fn opened(
    vertex: &Vertex,
    place: (u32, u32),
    restored: Vec<States>,
    clock: &ManualClock,
) -> OperatorChain {
    let mut chain = build(vertex, None, place, restored, clock).unwrap();
    chain.open(None).unwrap();
    chain
}

/// Polls a source once; time moves on where its pace asks for it.
pub(crate) fn poll(
    chain: &mut OperatorChain,
    clock: &ManualClock,
    out: &mut dyn Collector,
) -> Result<SourceStatus, Error> {
    let status = chain.poll_source(out)?;
    if let SourceStatus::NotBefore(time) = status {
        clock.advance(time - clock.monotonic());
    }
    Ok(status)
}

/// Polls a source to its end.
pub(crate) fn drain(chain: &mut OperatorChain, clock: &ManualClock) -> Result<Emitted, Error> {
    let mut emitted = Emitted::default();
    while poll(chain, clock, &mut emitted)? != SourceStatus::EndOfData {}
    Ok(emitted)
}

/// The lines of all visible files of a directory, and the names of its hidden ones.
pub(crate) fn visible_lines(dir: &Path) -> (Vec<String>, Vec<String>) {
    let (mut lines, mut hidden) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with('.') {
            hidden.push(name);
        } else {
            let text = fs::read_to_string(dir.join(name)).unwrap();
            lines.extend(text.lines().map(str::to_owned));
        }
    }
    lines.sort();
    (lines, hidden)
}
