//! The Nexmark source: bids, auctions and persons of an auction site, made up.
//!
//! The benchmark is by Tucker, Tufte, Papadimos and Maier, "NEXMark: A Benchmark for Queries over Data Streams"; its
//! proportions are kept: of 50 events 1 is a person, 3 are auctions and 46 bids. What an event holds depends only on
//! the seed and its number ([`generator`]), so any row can be made at any time by anyone.
//!
//! The rows of the table are dealt to as many lanes as the vertex has key groups, row k to lane k modulo their number,
//! and lane l belongs to subtask l modulo the parallelism. The state is the next row of each lane: so the source goes
//! on at any parallelism, without a row lost or given twice.

mod generator;

use arrow::array::{ArrayRef, Int64Builder, StringBuilder, TimestampMillisecondBuilder};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use flott_node::SharedClock;
use flott_proto::job_graph as graph;
use flott_proto::wire::{NexmarkLane, NexmarkSourceState, StateOrigin};
use prost::Message;
use std::sync::Arc;

use self::generator::{Column, Event, Site};
use super::rate_limit::{Allowed, RateLimit};
use super::{BATCH_ROWS, Polled, Source};
use crate::Error;
use crate::expressions::{batch_of, cast};
use crate::operators::{OperatorContext, restore};

#[derive(Debug)]
pub(crate) struct NexmarkSource {
    table: graph::NexmarkSource,
    site: Site,
    columns: Vec<Column>,
    schema: SchemaRef,
    place: String,
    lane_count: u32,
    /// Those of this subtask, in order.
    lanes: Vec<NexmarkLane>,
    limit: Option<RateLimit>,
    origin: StateOrigin,
}

impl NexmarkSource {
    /// A table may declare some of the columns, in any order.
    pub(crate) fn build(
        table: &graph::NexmarkSource,
        schema: SchemaRef,
        place: &str,
    ) -> Result<Self, Error> {
        let known = generator::columns(table.table);
        let mut columns = Vec::new();
        for field in schema.fields() {
            let column = known.iter().find(|column| column.name == field.name());
            let column = column.ok_or_else(|| {
                let names: Vec<&str> = known.iter().map(|column| column.name).collect();
                Error::user(
                    place,
                    format!(
                        "a nexmark table of {:?}s has no column {:?}; it has {}",
                        table.table,
                        field.name(),
                        names.join(", ")
                    ),
                )
            })?;
            if !column.has_type(field.data_type()) {
                return Err(Error::user(
                    place,
                    format!(
                        "column {:?} of nexmark is {}, not {}",
                        field.name(),
                        column.sql_type(),
                        field.data_type()
                    ),
                ));
            }
            columns.push(*column);
        }
        Ok(Self {
            table: table.clone(),
            site: Site {
                seed: table.seed,
                base_time_ms: table.base_time_ms,
                interval_us: table.interval_us,
                active_auctions: table.active_auctions,
                active_people: table.active_people,
            },
            columns,
            schema,
            place: place.to_owned(),
            lane_count: 0,
            lanes: Vec::new(),
            limit: None,
            origin: StateOrigin::default(),
        })
    }

    /// The event of a row, unless it is beyond the last.
    fn event(&self, row: u64) -> Option<u64> {
        let event = generator::event_of_row(self.table.table, row);
        (self.table.events == 0 || event < self.table.events).then_some(event)
    }

    /// The next rows of this subtask's lanes, at most `most`: one of each lane in turn, so rising but for lanes that
    /// were ahead at a restore.
    fn next_events(&mut self, most: usize) -> Vec<u64> {
        let mut events = Vec::with_capacity(most);
        let count = u64::from(self.lane_count);
        while events.len() < most {
            let turns = self.lanes.iter().map(|lane| lane.next_row);
            let turns = turns.filter(|row| self.event(*row).is_some());
            let Some(turn) = turns.map(|row| row / count).min() else {
                break;
            };
            for at in 0..self.lanes.len() {
                let row = self.lanes[at].next_row;
                if events.len() == most || row / count != turn {
                    continue;
                }
                if let Some(event) = self.event(row) {
                    events.push(event);
                    self.lanes[at].next_row += count;
                }
            }
        }
        events
    }

    fn batch(&self, events: &[u64]) -> Result<RecordBatch, Error> {
        let events = || {
            events.iter().map(|&number| Event {
                site: &self.site,
                number,
            })
        };
        let mut arrays = Vec::with_capacity(self.columns.len());
        for (column, field) in self.columns.iter().zip(self.schema.fields()) {
            let rows = events().len();
            let array: ArrayRef = match column.values {
                generator::Values::Number(value) => {
                    let mut builder = Int64Builder::with_capacity(rows);
                    events().for_each(|event| builder.append_value(value(&event)));
                    Arc::new(builder.finish())
                }
                generator::Values::Time(value) => {
                    let mut builder = TimestampMillisecondBuilder::with_capacity(rows);
                    events().for_each(|event| builder.append_value(value(&event)));
                    Arc::new(builder.finish())
                }
                generator::Values::Text(write) => {
                    let mut builder = StringBuilder::with_capacity(rows, rows * 24);
                    let mut text = String::new();
                    for event in events() {
                        text.clear();
                        write(&event, &mut text);
                        builder.append_value(&text);
                    }
                    Arc::new(builder.finish())
                }
            };
            arrays.push(cast(&array, field.data_type(), &self.place)?);
        }
        batch_of(&self.schema, arrays, events().len(), &self.place)
    }
}

impl Column {
    fn has_type(&self, data_type: &DataType) -> bool {
        match self.values {
            generator::Values::Number(_) => *data_type == DataType::Int64,
            generator::Values::Time(_) => matches!(data_type, DataType::Timestamp(_, None)),
            generator::Values::Text(_) => *data_type == DataType::Utf8,
        }
    }

    fn sql_type(&self) -> &'static str {
        match self.values {
            generator::Values::Number(_) => "BIGINT",
            generator::Values::Time(_) => "TIMESTAMP(3)",
            generator::Values::Text(_) => "STRING",
        }
    }
}

impl Source for NexmarkSource {
    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<(), Error> {
        self.origin = restore::origin::<NexmarkSourceState>(ctx);
        let states = restore::states_of::<NexmarkSourceState>(ctx)?;
        let lanes: Vec<NexmarkLane> = match states.first() {
            Some(state) => {
                self.lane_count = state.lanes;
                states.into_iter().flat_map(|state| state.lane).collect()
            }
            None => {
                self.lane_count = ctx.chain.max_parallelism;
                let fresh = |lane| NexmarkLane {
                    lane,
                    next_row: lane.into(),
                };
                (0..self.lane_count).map(fresh).collect()
            }
        };
        let StateOrigin {
            subtask,
            parallelism,
            ..
        } = self.origin;
        self.lanes = lanes
            .into_iter()
            .filter(|lane| lane.lane % parallelism == subtask)
            .collect();
        self.lanes.sort_by_key(|lane| lane.lane);
        let of_50 = generator::rows_of_50(self.table.table) as f64;
        let own = self.lanes.len() as f64 / f64::from(self.lane_count.max(1));
        self.limit = Some(RateLimit::new(
            self.table.events_per_second as f64,
            of_50 / 50.0 * own,
            SharedClock::clone(&ctx.chain.clock),
        ));
        Ok(())
    }

    fn poll(&mut self) -> Result<Polled, Error> {
        let limit = self.limit.as_mut().expect("opened before use");
        let most = match limit.allowed(BATCH_ROWS) {
            Allowed::Rows(rows) => rows,
            // The end is the end at once, not when the next row would be due.
            Allowed::NotBefore(time)
                if self
                    .lanes
                    .iter()
                    .any(|lane| self.event(lane.next_row).is_some()) =>
            {
                return Ok(Polled::NotBefore(time));
            }
            Allowed::NotBefore(_) => return Ok(Polled::End),
        };
        let events = self.next_events(most);
        if events.is_empty() {
            return Ok(Polled::End);
        }
        if let Some(limit) = &mut self.limit {
            limit.took(events.len());
        }
        self.batch(&events).map(Polled::Batch)
    }

    fn snapshot(&mut self) -> Result<Bytes, Error> {
        let state = NexmarkSourceState {
            origin: Some(self.origin),
            lanes: self.lane_count,
            lane: self.lanes.clone(),
        };
        Ok(state.encode_to_vec().into())
    }
}
