//! The filesystem source of one subtask: its splits one after another, at the pace that the table asks for.
//!
//! Split number i belongs to subtask i modulo the parallelism. The state holds the subtask's splits with the position
//! behind the last record that was given, so that reading goes on there, at whatever parallelism.

use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use flott_node::SharedClock;
use flott_proto::job_graph::{FilesystemSource, Format};
use flott_proto::wire::{self, FileSourceState, FileSplitState, StateOrigin};
use prost::Message;
use tracing::{info, warn};

use super::csv::CsvRecords;
use super::json::JsonRecords;
use super::local_path;
use super::rows::{RowsBuilder, Unfit};
use super::split;
use crate::Error;
use crate::connectors::rate_limit::{Allowed, RateLimit};
use crate::connectors::{BATCH_ROWS, Polled, Source};
use crate::operators::{OperatorContext, restore};

/// Skipped rows that are named in the log one by one; the others are only counted.
const SKIPPED_LOGGED_MAX: u64 = 10;

#[derive(Debug)]
pub(crate) struct FileSource {
    table: FilesystemSource,
    schema: SchemaRef,
    place: String,
    splits: Vec<FileSplitState>,
    split_count: u32,
    /// Reads the first split that is not finished.
    open: Option<Records>,
    limit: Option<RateLimit>,
    skipped: u64,
    origin: StateOrigin,
}

impl FileSource {
    pub(crate) fn build(table: &FilesystemSource, schema: SchemaRef) -> Self {
        Self {
            table: table.clone(),
            schema,
            place: format!("table source {}", table.path),
            splits: Vec::new(),
            split_count: 0,
            open: None,
            limit: None,
            skipped: 0,
            origin: StateOrigin::default(),
        }
    }

    fn is_own(&self, split: &FileSplitState) -> bool {
        split.index % self.origin.parallelism == self.origin.subtask
    }

    /// Reads up to `most` records of the open split. Says whether it has ended.
    fn read(&mut self, at: usize, most: usize) -> Result<(Polled, usize), Error> {
        let split = &mut self.splits[at];
        let path = PathBuf::from(&split.path);
        let records = match &mut self.open {
            Some(records) => records,
            closed => {
                let position = (split.byte_offset, split.line);
                info!(path = %split.path, offset = split.byte_offset, "opened split");
                let format = &self.table.format;
                closed.insert(Records::open(
                    &path,
                    format,
                    &self.schema,
                    position,
                    &self.place,
                )?)
            }
        };
        let ignore_parse_errors = match &self.table.format {
            Format::Csv(csv) => csv.ignore_parse_errors,
            Format::Json(json) => json.ignore_parse_errors,
        };
        let mut rows = RowsBuilder::new(&self.schema, most);
        while rows.rows() < most {
            let Some(read) = records.read(&mut rows, &path, &self.place)? else {
                split.finished = true;
                break;
            };
            if let Err(unfit) = read {
                let row = format!("{}:{}", split.path, records.line());
                if !ignore_parse_errors {
                    return Err(Error::user(row, unfit));
                }
                rows.refuse_row();
                self.skipped += 1;
                if self.skipped <= SKIPPED_LOGGED_MAX {
                    warn!(row, unfit, "skipped row");
                }
            }
        }
        (split.byte_offset, split.line) = records.position();
        if split.finished {
            self.open = None;
        }
        let read = rows.rows();
        Ok((Polled::Batch(rows.finish(&self.place)?), read))
    }
}

impl Source for FileSource {
    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<(), Error> {
        self.origin = restore::origin::<FileSourceState>(ctx);
        let states = restore::states_of::<FileSourceState>(ctx)?;
        if let Some(state) = states.first() {
            self.split_count = state.split_count;
            let splits = states.into_iter().flat_map(|state| state.splits);
            self.splits = splits.filter(|split| self.is_own(split)).collect();
            self.splits.sort_by_key(|split| split.index);
        } else {
            let splits = split::find(&local_path(&self.table.path, &self.place)?, &self.place)?;
            self.split_count = splits.len() as u32;
            self.splits = splits
                .into_iter()
                .filter(|split| self.is_own(split))
                .collect();
        }
        if self.split_count == 0 {
            warn!(
                path = self.table.path,
                "the directory holds no files to read"
            );
        }
        // The subtasks that have splits share the pace.
        let sharing = self.split_count.min(self.origin.parallelism).max(1);
        self.limit = Some(RateLimit::new(
            self.table.rows_per_second as f64,
            1.0 / f64::from(sharing),
            SharedClock::clone(&ctx.chain.clock),
        ));
        Ok(())
    }

    fn poll(&mut self) -> Result<Polled, Error> {
        let Some(at) = self.splits.iter().position(|split| !split.finished) else {
            return Ok(Polled::End);
        };
        let limit = self.limit.as_mut().expect("opened before use");
        let most = match limit.allowed(BATCH_ROWS) {
            Allowed::Rows(rows) => rows,
            Allowed::NotBefore(time) => return Ok(Polled::NotBefore(time)),
        };
        let (polled, read) = self.read(at, most)?;
        if let Some(limit) = &mut self.limit {
            limit.took(read);
        }
        Ok(polled)
    }

    fn snapshot(&mut self) -> Result<Bytes, Error> {
        let state = FileSourceState {
            origin: Some(self.origin),
            split_count: self.split_count,
            splits: self.splits.clone(),
        };
        Ok(state.encode_to_vec().into())
    }

    fn add_counters(&self, counters: &mut wire::TaskCounters) {
        counters.parse_errors_skipped += self.skipped;
    }
}

/// The records of an open split, in the table's format.
#[derive(Debug)]
enum Records {
    Csv(Box<CsvRecords>),
    Json(JsonRecords),
}

impl Records {
    fn open(
        path: &Path,
        format: &Format,
        schema: &SchemaRef,
        position: (u64, u64),
        place: &str,
    ) -> Result<Self, Error> {
        Ok(match format {
            Format::Csv(csv) => Self::Csv(Box::new(CsvRecords::open(
                path, csv, schema, position, place,
            )?)),
            Format::Json(_) => Self::Json(JsonRecords::open(path, schema, position, place)?),
        })
    }

    fn read(
        &mut self,
        rows: &mut RowsBuilder,
        path: &Path,
        place: &str,
    ) -> Result<Option<Result<(), Unfit>>, Error> {
        match self {
            Self::Csv(records) => records.read(rows, path, place),
            Self::Json(records) => records.read(rows, path, place),
        }
    }

    fn line(&self) -> u64 {
        match self {
            Self::Csv(records) => records.line(),
            Self::Json(records) => records.line(),
        }
    }

    fn position(&self) -> (u64, u64) {
        match self {
            Self::Csv(records) => records.position(),
            Self::Json(records) => records.position(),
        }
    }
}
