//! The `WITH` options of a table, into the typed IR of its connector.
//!
//! An unknown key is an error with the nearest known one, and a key of another format too: an option that does nothing
//! is a misunderstanding that shows itself only in production.

use std::collections::{BTreeMap, BTreeSet};

use flott_proto::job_graph::{
    CsvFormat, FilesystemSink, FilesystemSource, Format, JsonFormat, NexmarkSource, NexmarkTable,
    Sink, Source,
};

use crate::ddl::{CreateTable, TableOption};
use crate::error::{Position, SqlError, did_you_mean, nearest};
use crate::nexmark;

/// Event time of nexmark's first event unless the table says otherwise: 2015-07-15T00:00:00Z, the benchmark's own.
const NEXMARK_BASE_TIME_MS: i64 = 1_436_918_400_000;
const NEXMARK_INTERVAL_US: u64 = 1_000;

/// What a table is connected to, and how.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    pub(crate) kind: ConnectorKind,
    /// `scan.parallelism` and where it stands.
    pub(crate) scan_parallelism: Option<(u32, Position)>,
    /// `sink.parallelism` and where it stands.
    pub(crate) sink_parallelism: Option<(u32, Position)>,
    pub(crate) idle_timeout_ms: u64,
}

#[derive(Clone, Debug)]
pub(crate) enum ConnectorKind {
    Filesystem {
        path: String,
        format: Format,
        rows_per_second: u64,
    },
    Nexmark(NexmarkSource),
    Blackhole,
}

impl Connector {
    /// The connector's name.
    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            ConnectorKind::Filesystem { .. } => "filesystem",
            ConnectorKind::Nexmark(_) => "nexmark",
            ConnectorKind::Blackhole => "blackhole",
        }
    }

    /// To read from; none if it can only be written to.
    pub(crate) fn source(&self) -> Option<Source> {
        match &self.kind {
            ConnectorKind::Filesystem {
                path,
                format,
                rows_per_second,
            } => Some(Source::Filesystem(FilesystemSource {
                path: path.clone(),
                format: format.clone(),
                rows_per_second: *rows_per_second,
            })),
            ConnectorKind::Nexmark(source) => Some(Source::Nexmark(source.clone())),
            ConnectorKind::Blackhole => None,
        }
    }

    /// To write to; none if it can only be read from.
    pub(crate) fn sink(&self) -> Option<Sink> {
        match &self.kind {
            ConnectorKind::Filesystem { path, format, .. } => {
                Some(Sink::Filesystem(FilesystemSink {
                    path: path.clone(),
                    format: format.clone(),
                }))
            }
            ConnectorKind::Nexmark(_) => None,
            ConnectorKind::Blackhole => Some(Sink::Blackhole),
        }
    }
}

/// Reads and checks all options of a table.
pub(crate) fn connector(table: &CreateTable) -> Result<Connector, SqlError> {
    let mut options = Options::new(table);
    let (connector, position) = options.required("connector", "")?;
    let (kind, scans, sinks) = match connector.as_str() {
        "filesystem" => (filesystem(&mut options)?, true, true),
        "nexmark" => (nexmark_source(&mut options, table)?, true, false),
        "blackhole" => (ConnectorKind::Blackhole, false, true),
        _ => {
            let near = did_you_mean(&connector, &["filesystem", "nexmark", "blackhole"]);
            let message = format!("unknown connector '{connector}'{near}");
            return Err(SqlError::new(position, message));
        }
    };
    let mut scan_parallelism = None;
    let mut idle_timeout_ms = 0;
    if scans {
        scan_parallelism = options.parallelism("scan.parallelism")?;
        idle_timeout_ms = options.duration_ms("scan.watermark.idle-timeout")?;
    }
    let mut sink_parallelism = None;
    if sinks {
        sink_parallelism = options.parallelism("sink.parallelism")?;
    }
    options.refuse_unknown(&connector)?;
    Ok(Connector {
        kind,
        scan_parallelism,
        sink_parallelism,
        idle_timeout_ms,
    })
}

fn filesystem(options: &mut Options<'_>) -> Result<ConnectorKind, SqlError> {
    let (path, position) = options.required("path", "filesystem")?;
    let path = path.strip_prefix("file://").unwrap_or(&path).to_owned();
    if path.is_empty() {
        return Err(SqlError::new(
            position,
            "the path is empty; name a file or directory",
        ));
    }
    if path.contains("://") {
        let remedy = "the filesystem connector reads and writes local paths and file://";
        return Err(SqlError::unsupported(
            position,
            &format!("the path '{path}'"),
            remedy,
        ));
    }
    let (format, position) = options.required("format", "filesystem")?;
    let format = match format.as_str() {
        "csv" => Format::Csv(CsvFormat {
            header: options.boolean("csv.header")?,
            delimiter: options.delimiter("csv.field-delimiter")?,
            ignore_parse_errors: options.boolean("csv.ignore-parse-errors")?,
            null_literal: options
                .text("csv.null-literal")
                .map(|(text, _)| text)
                .unwrap_or_default(),
        }),
        "json" => Format::Json(JsonFormat {
            ignore_parse_errors: options.boolean("json.ignore-parse-errors")?,
            iso_timestamps: match options.text("json.timestamp-format.standard") {
                None => false,
                Some((standard, position)) => match standard.as_str() {
                    "SQL" => false,
                    "ISO-8601" => true,
                    _ => {
                        return Err(SqlError::new(
                            position,
                            format!(
                                "'json.timestamp-format.standard' is SQL or ISO-8601, not '{standard}'"
                            ),
                        ));
                    }
                },
            },
        }),
        _ => {
            let near = did_you_mean(&format, &["csv", "json"]);
            let message = format!("unknown format '{format}'{near}");
            return Err(SqlError::new(position, message));
        }
    };
    Ok(ConnectorKind::Filesystem {
        path,
        format,
        rows_per_second: options.number("scan.rows-per-second", 0)?,
    })
}

fn nexmark_source(
    options: &mut Options<'_>,
    declared: &CreateTable,
) -> Result<ConnectorKind, SqlError> {
    let (table_type, position) = options.required("nexmark.table-type", "nexmark")?;
    let table = match table_type.as_str() {
        "bid" => NexmarkTable::Bid,
        "auction" => NexmarkTable::Auction,
        "person" => NexmarkTable::Person,
        _ => {
            let near = did_you_mean(&table_type, &["bid", "auction", "person"]);
            let message = format!("unknown 'nexmark.table-type' '{table_type}'{near}");
            return Err(SqlError::new(position, message));
        }
    };
    let known = nexmark::columns(table);
    for column in &declared.columns {
        let found = known.iter().find(|(name, _)| *name == column.name);
        let Some((_, data_type)) = found else {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            let near = did_you_mean(&column.name, &names);
            let message = format!(
                "nexmark's {table_type} table has no column {:?}{near}",
                column.name
            );
            return Err(SqlError::new(column.position, message));
        };
        if *data_type != column.data_type {
            let message = format!(
                "column {:?} of nexmark's {table_type} table is {data_type}, not {}",
                column.name, column.data_type
            );
            return Err(SqlError::new(column.position, message));
        }
    }
    Ok(ConnectorKind::Nexmark(NexmarkSource {
        table,
        seed: options.number("nexmark.seed", 0)?,
        events: options.number("nexmark.events", 0)?,
        events_per_second: options.number("nexmark.events-per-second", 0)?,
        base_time_ms: options.signed("nexmark.base-time", NEXMARK_BASE_TIME_MS)?,
        interval_us: options.number("nexmark.interval-us", NEXMARK_INTERVAL_US)?,
        active_auctions: options.number("nexmark.active-auctions", 0)?,
        active_people: options.number("nexmark.active-people", 0)?,
    }))
}

/// The options of one table. Remembers which keys were asked for: the others are unknown.
struct Options<'a> {
    table: &'a CreateTable,
    given: BTreeMap<&'a str, &'a TableOption>,
    known: BTreeSet<&'static str>,
}

impl<'a> Options<'a> {
    fn new(table: &'a CreateTable) -> Self {
        let given = table
            .options
            .iter()
            .map(|option| (option.key.value.as_str(), option))
            .collect();
        Self {
            table,
            given,
            known: BTreeSet::new(),
        }
    }

    /// The value and where it stands.
    fn text(&mut self, key: &'static str) -> Option<(String, Position)> {
        self.known.insert(key);
        let option = self.given.get(key)?;
        Some((option.value.value.clone(), option.value.position))
    }

    fn required(
        &mut self,
        key: &'static str,
        connector: &str,
    ) -> Result<(String, Position), SqlError> {
        self.text(key).ok_or_else(|| {
            let by = if connector.is_empty() {
                String::new()
            } else {
                format!(", which the {connector} connector needs")
            };
            let remedy = match nearest(key, self.given.keys().copied()) {
                Some(near) => format!("; is '{near}' misspelt?"),
                None => "; add it".to_owned(),
            };
            let message = format!(
                "table {} lacks the option '{key}'{by}{remedy}",
                self.table.name.value
            );
            SqlError::new(self.table.position, message)
        })
    }

    fn boolean(&mut self, key: &'static str) -> Result<bool, SqlError> {
        match self.text(key) {
            None => Ok(false),
            Some((text, position)) => match text.to_lowercase().as_str() {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(SqlError::new(
                    position,
                    format!("'{key}' is true or false, not '{text}'"),
                )),
            },
        }
    }

    fn number(&mut self, key: &'static str, default: u64) -> Result<u64, SqlError> {
        self.parsed(key, default, "a whole number that is not negative")
    }

    fn signed(&mut self, key: &'static str, default: i64) -> Result<i64, SqlError> {
        self.parsed(key, default, "a whole number")
    }

    fn parsed<T: std::str::FromStr>(
        &mut self,
        key: &'static str,
        default: T,
        what: &str,
    ) -> Result<T, SqlError> {
        match self.text(key) {
            None => Ok(default),
            Some((text, position)) => text.trim().parse().map_err(|_| {
                SqlError::new(position, format!("'{key}' needs {what}, not '{text}'"))
            }),
        }
    }

    fn parallelism(&mut self, key: &'static str) -> Result<Option<(u32, Position)>, SqlError> {
        match self.text(key) {
            None => Ok(None),
            Some((text, position)) => match text.trim().parse() {
                Ok(parallelism) if parallelism > 0 => Ok(Some((parallelism, position))),
                _ => Err(SqlError::new(
                    position,
                    format!("'{key}' needs a number of subtasks, at least 1, not '{text}'"),
                )),
            },
        }
    }

    /// One ASCII character; `\t` may be written as its two characters.
    fn delimiter(&mut self, key: &'static str) -> Result<char, SqlError> {
        let Some((text, position)) = self.text(key) else {
            return Ok(',');
        };
        let text = if text == "\\t" { "\t" } else { &text };
        let mut characters = text.chars();
        match (characters.next(), characters.next()) {
            (Some(delimiter), None)
                if delimiter.is_ascii() && !matches!(delimiter, '"' | '\n' | '\r') =>
            {
                Ok(delimiter)
            }
            _ => Err(SqlError::new(
                position,
                format!(
                    "'{key}' needs one ASCII character other than a quote or line break, not '{text}'"
                ),
            )),
        }
    }

    /// Flink's durations, e.g. `500 ms`, `5 s`, `1min`; a bare number is milliseconds. 0 if it is not given.
    fn duration_ms(&mut self, key: &'static str) -> Result<u64, SqlError> {
        let Some((text, position)) = self.text(key) else {
            return Ok(0);
        };
        let trimmed = text.trim();
        let digits = trimmed
            .find(|character: char| !character.is_ascii_digit())
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let factor = match unit.trim() {
            "" | "ms" | "millisecond" | "milliseconds" => Some(1),
            "s" | "sec" | "second" | "seconds" => Some(1_000),
            "m" | "min" | "minute" | "minutes" => Some(60_000),
            "h" | "hour" | "hours" => Some(3_600_000),
            "d" | "day" | "days" => Some(86_400_000),
            _ => None,
        };
        let number: Option<u64> = number.parse().ok();
        number
            .zip(factor)
            .and_then(|(number, factor)| number.checked_mul(factor))
            .ok_or_else(|| {
                let message = format!("'{key}' needs a duration such as '5 s', not '{text}'");
                SqlError::new(position, message)
            })
    }

    fn refuse_unknown(&self, connector: &str) -> Result<(), SqlError> {
        let unknown = self
            .table
            .options
            .iter()
            .find(|option| !self.known.contains(option.key.value.as_str()));
        let Some(option) = unknown else {
            return Ok(());
        };
        let key = &option.key.value;
        let known: Vec<&str> = self.known.iter().copied().collect();
        let remedy = did_you_mean(key, &known);
        let message = format!("unknown option '{key}' of the {connector} connector{remedy}");
        Err(SqlError::new(option.key.position, message))
    }
}
