//! Emits a watermark: the greatest value so far of a timestamp expression over the rows, in whole milliseconds.
//!
//! It is emitted after the batch whose rows raised it, so that no row of that batch is late by its own fault. The
//! watermark is in the snapshot: a restored task says it again before anything else, so that what waited for it does
//! not wait for the next row.

use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::compute::max;
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use flott_node::SharedClock;
use flott_proto::ids::CheckpointId;
use flott_proto::job_graph as graph;
use flott_proto::wire::{AssignWatermarkState, StateOrigin};
use prost::Message;

use super::registry::Link;
use super::{Collector, Operator, OperatorContext, restore};
use crate::Error;
use crate::expressions::{Expression, with_schema};
use crate::time::{WATERMARK_END, WATERMARK_NONE};

/// The type in which watermarks are computed: event time in milliseconds.
const MILLISECONDS: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

#[derive(Debug)]
pub(super) struct AssignWatermark {
    column: usize,
    expression: Expression,
    output: SchemaRef,
    place: String,
    watermark_ms: i64,
    /// The restored watermark is yet to be emitted.
    restored: bool,
    idleness: Option<Idleness>,
    origin: StateOrigin,
}

/// When an input counts as idle: no rows for some time.
#[derive(Debug)]
struct Idleness {
    timeout: Duration,
    clock: Option<SharedClock>,
    last_rows: Duration,
    idle: bool,
}

impl AssignWatermark {
    pub(super) fn build(assign: &graph::AssignWatermark, link: &Link<'_>) -> Result<Self, Error> {
        let idleness = (assign.idle_timeout_ms > 0).then(|| Idleness {
            timeout: Duration::from_millis(assign.idle_timeout_ms),
            clock: None,
            last_rows: Duration::ZERO,
            idle: false,
        });
        Ok(Self {
            column: link.column(&assign.column)?,
            expression: link.compiler.compile(
                &assign.expression,
                link.input,
                &MILLISECONDS,
                link.place,
            )?,
            output: SchemaRef::clone(link.output),
            place: link.place.to_owned(),
            watermark_ms: WATERMARK_NONE,
            restored: false,
            idleness,
            origin: StateOrigin::default(),
        })
    }

    fn emit_restored(&mut self, out: &mut dyn Collector) -> Result<(), Error> {
        if std::mem::take(&mut self.restored) {
            out.watermark(self.watermark_ms)?;
        }
        Ok(())
    }

    /// Tells those after this operator when its idleness changes.
    fn set_idle(&mut self, rows: bool, out: &mut dyn Collector) -> Result<(), Error> {
        let Some(idleness) = &mut self.idleness else {
            return Ok(());
        };
        let clock = idleness.clock.as_ref();
        let now = clock.expect("opened before use").monotonic();
        if rows {
            idleness.last_rows = now;
        }
        let idle = now.saturating_sub(idleness.last_rows) >= idleness.timeout;
        if idle != idleness.idle {
            idleness.idle = idle;
            out.idle(idle)?;
        }
        Ok(())
    }
}

impl Operator for AssignWatermark {
    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<(), Error> {
        self.origin = restore::origin::<AssignWatermarkState>(ctx);
        let states = restore::partial_states_of::<AssignWatermarkState>(ctx)?;
        // Of several inputs that are now one, none may be ahead of its rows.
        if let Some(watermark) = states.iter().map(|state| state.watermark_ms).min() {
            self.watermark_ms = watermark;
            self.restored = watermark > WATERMARK_NONE;
        }
        if let Some(idleness) = &mut self.idleness {
            idleness.last_rows = ctx.chain.clock.monotonic();
            idleness.clock = Some(SharedClock::clone(&ctx.chain.clock));
        }
        Ok(())
    }

    fn process(&mut self, batch: RecordBatch, out: &mut dyn Collector) -> Result<(), Error> {
        self.emit_restored(out)?;
        self.set_idle(true, out)?;
        let event_time = batch.column(self.column);
        if event_time.null_count() > 0 {
            let schema = batch.schema_ref();
            return Err(Error::user(
                &self.place,
                format!(
                    "the event-time column {:?} is NULL in {} of {} rows; filter them out or give them a time",
                    schema.field(self.column).name(),
                    event_time.null_count(),
                    batch.num_rows()
                ),
            ));
        }
        let values = self.expression.evaluate(&batch)?;
        let highest = max(values.as_primitive::<TimestampMillisecondType>());
        out.collect(with_schema(batch, &self.output, &self.place)?)?;
        match highest {
            Some(highest) if highest > self.watermark_ms => {
                // The last watermark of all is the end of data's.
                self.watermark_ms = highest.min(WATERMARK_END - 1);
                out.watermark(self.watermark_ms)
            }
            _ => Ok(()),
        }
    }

    /// Watermarks of the input are replaced by this operator's own, but for the last.
    fn on_watermark(&mut self, watermark_ms: i64, out: &mut dyn Collector) -> Result<(), Error> {
        if watermark_ms == WATERMARK_END {
            self.restored = false;
            return out.watermark(WATERMARK_END);
        }
        Ok(())
    }

    /// Idleness of the input is found here by the clock, where the job asks for it, and not taken over.
    fn on_idle(&mut self, idle: bool, out: &mut dyn Collector) -> Result<(), Error> {
        match self.idleness {
            Some(_) => Ok(()),
            None => out.idle(idle),
        }
    }

    fn on_tick(&mut self, out: &mut dyn Collector) -> Result<(), Error> {
        self.emit_restored(out)?;
        self.set_idle(false, out)
    }

    fn snapshot(&mut self, _checkpoint: CheckpointId) -> Result<Option<Bytes>, Error> {
        let state = AssignWatermarkState {
            origin: Some(self.origin),
            watermark_ms: self.watermark_ms,
        };
        Ok(Some(state.encode_to_vec().into()))
    }
}
