//! Sources, sinks and formats of a job graph, to the wire and back.

use super::Malformed;
use crate::job_graph as graph;
use crate::wire;

pub(super) fn source_to_wire(source: &graph::Source) -> wire::Source {
    use wire::source::Connector;
    let connector = match source {
        graph::Source::Filesystem(files) => Connector::Filesystem(wire::FilesystemSource {
            path: files.path.clone(),
            format: Some(format_to_wire(&files.format)),
            rows_per_second: files.rows_per_second,
        }),
        graph::Source::Nexmark(nexmark) => Connector::Nexmark(wire::NexmarkSource {
            table: match nexmark.table {
                graph::NexmarkTable::Bid => wire::nexmark_source::Table::Bid,
                graph::NexmarkTable::Auction => wire::nexmark_source::Table::Auction,
                graph::NexmarkTable::Person => wire::nexmark_source::Table::Person,
            }
            .into(),
            seed: nexmark.seed,
            events: nexmark.events,
            events_per_second: nexmark.events_per_second,
            base_time_ms: nexmark.base_time_ms,
            interval_us: nexmark.interval_us,
            active_auctions: nexmark.active_auctions,
            active_people: nexmark.active_people,
        }),
    };
    wire::Source {
        connector: Some(connector),
    }
}

pub(super) fn source_from_wire(source: wire::Source) -> Result<graph::Source, Malformed> {
    use wire::source::Connector;
    Ok(
        match source
            .connector
            .ok_or_else(|| Malformed::missing("source", "a connector known to this build"))?
        {
            Connector::Filesystem(files) => graph::Source::Filesystem(graph::FilesystemSource {
                path: files.path,
                format: format_from_wire(files.format)?,
                rows_per_second: files.rows_per_second,
            }),
            Connector::Nexmark(nexmark) => graph::Source::Nexmark(graph::NexmarkSource {
                table: match nexmark.table() {
                    wire::nexmark_source::Table::Bid => graph::NexmarkTable::Bid,
                    wire::nexmark_source::Table::Auction => graph::NexmarkTable::Auction,
                    wire::nexmark_source::Table::Person => graph::NexmarkTable::Person,
                    wire::nexmark_source::Table::Unspecified => {
                        return Err(Malformed::missing("nexmark source", "a table"));
                    }
                },
                seed: nexmark.seed,
                events: nexmark.events,
                events_per_second: nexmark.events_per_second,
                base_time_ms: nexmark.base_time_ms,
                interval_us: nexmark.interval_us,
                active_auctions: nexmark.active_auctions,
                active_people: nexmark.active_people,
            }),
        },
    )
}

fn format_to_wire(format: &graph::Format) -> wire::Format {
    use wire::format::Kind;
    let kind = match format {
        graph::Format::Csv(csv) => Kind::Csv(wire::CsvFormat {
            header: csv.header,
            delimiter: csv.delimiter.to_string(),
            ignore_parse_errors: csv.ignore_parse_errors,
            null_literal: csv.null_literal.clone(),
        }),
        graph::Format::Json(json) => Kind::Json(wire::JsonFormat {
            ignore_parse_errors: json.ignore_parse_errors,
            iso_timestamps: json.iso_timestamps,
        }),
    };
    wire::Format { kind: Some(kind) }
}

fn format_from_wire(format: Option<wire::Format>) -> Result<graph::Format, Malformed> {
    use wire::format::Kind;
    let kind = format.and_then(|format| format.kind);
    Ok(
        match kind.ok_or_else(|| Malformed::missing("format", "a kind known to this build"))? {
            Kind::Csv(csv) => {
                let mut characters = csv.delimiter.chars();
                let delimiter = match (characters.next(), characters.next()) {
                    (Some(c), None) if c.is_ascii() => c,
                    _ => {
                        return Err(Malformed::new(
                            "CSV format",
                            format!("delimiter {:?}", csv.delimiter),
                        ));
                    }
                };
                graph::Format::Csv(graph::CsvFormat {
                    header: csv.header,
                    delimiter,
                    ignore_parse_errors: csv.ignore_parse_errors,
                    null_literal: csv.null_literal,
                })
            }
            Kind::Json(json) => graph::Format::Json(graph::JsonFormat {
                ignore_parse_errors: json.ignore_parse_errors,
                iso_timestamps: json.iso_timestamps,
            }),
        },
    )
}

pub(super) fn sink_to_wire(sink: &graph::Sink) -> wire::Sink {
    use wire::sink::Connector;
    let connector = match sink {
        graph::Sink::Filesystem(files) => Connector::Filesystem(wire::FilesystemSink {
            path: files.path.clone(),
            format: Some(format_to_wire(&files.format)),
        }),
        graph::Sink::Blackhole => Connector::Blackhole(wire::BlackholeSink {}),
    };
    wire::Sink {
        connector: Some(connector),
    }
}

pub(super) fn sink_from_wire(sink: wire::Sink) -> Result<graph::Sink, Malformed> {
    use wire::sink::Connector;
    Ok(
        match sink
            .connector
            .ok_or_else(|| Malformed::missing("sink", "a connector known to this build"))?
        {
            Connector::Filesystem(files) => graph::Sink::Filesystem(graph::FilesystemSink {
                path: files.path,
                format: format_from_wire(files.format)?,
            }),
            Connector::Blackhole(wire::BlackholeSink {}) => graph::Sink::Blackhole,
        },
    )
}
