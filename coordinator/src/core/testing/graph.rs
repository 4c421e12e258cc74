//! The graph of the jobs of tests.

use flott_proto::job_graph::{
    AssignWatermark, Edge, Field, FilesystemSource, Format, JobGraph, JsonFormat, Operator,
    OperatorKind, Partitioning, Schema, Sink, Source, Vertex,
};

/// A graph of two vertices, source and sink, joined by a hash edge.
pub(crate) fn graph(parallelism: u32) -> JobGraph {
    let schema = Schema {
        fields: vec![Field {
            name: "k".into(),
            data_type: "BIGINT".parse().unwrap(),
            nullable: false,
        }],
    };
    let format = Format::Json(JsonFormat {
        ignore_parse_errors: false,
        iso_timestamps: false,
    });
    let operator = |uid: &str, output: &Schema, kind| Operator {
        uid: uid.into(),
        name: uid.into(),
        output: output.clone(),
        kind,
    };
    let source = Source::Filesystem(FilesystemSource {
        path: "/in".into(),
        format,
        rows_per_second: 0,
    });
    let watermark = AssignWatermark {
        column: "t".into(),
        expression: "t".into(),
        idle_timeout_ms: 0,
    };
    let vertex = |uid: &str, chain| Vertex {
        uid: uid.parse().unwrap(),
        name: uid.into(),
        parallelism,
        max_parallelism: 128,
        chain,
    };
    JobGraph {
        name: "test".into(),
        vertices: vec![
            vertex(
                "source",
                vec![
                    operator("read", &schema, OperatorKind::Source(source)),
                    operator(
                        "watermark",
                        &schema,
                        OperatorKind::AssignWatermark(watermark),
                    ),
                ],
            ),
            vertex(
                "sink",
                vec![operator(
                    "write",
                    &Schema::default(),
                    OperatorKind::Sink(Sink::Blackhole),
                )],
            ),
        ],
        edges: vec![Edge {
            source: "source".parse().unwrap(),
            target: "sink".parse().unwrap(),
            partitioning: Partitioning::Hash {
                columns: vec!["k".into()],
            },
        }],
    }
}
