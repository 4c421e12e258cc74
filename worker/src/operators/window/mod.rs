//! Event-time tumbling windows: aggregates by key and window, emitted once the watermark has passed the window.
//!
//! ```text
//! batch → keys and windows of its rows → bucket of each window (cache) → aggregates, column-wise
//!                                          ▲ missing keys   │ dirty keys, at a checkpoint or under memory pressure
//!                                          └── keyed state ◀┘ with a timer for each window
//! watermark → windows that have ended, in order → cached and stored keys → one batch after another → forgotten
//! ```
//!
//! - [`assign`]: which window a time falls in, and which rows are late. Pure.
//! - [`bucket`]: the cached keys of one window. [`accumulator`]: their aggregates; [`results`]: what those come to;
//!   [`codec`]: their stored form.
//! - [`store`]: the keyed state behind the cache. [`read`]: what is stored, for people.
//!
//! A window holds the times from its start to before its end. As in Flink it fires, and its further rows are late, when
//! the watermark reaches its last millisecond: `end - 1 <= watermark`. Late rows are dropped and counted.
//!
//! What must stay true: a key of a window is in the cache, or in the keyed state, or in both with the cache newer; a
//! key group that has keys of a window stored has a timer for it; a window that has fired is in neither. The watermark is
//! in the snapshot, so that a row which was late before a restore is late after it.

mod accumulator;
mod assign;
mod bucket;
mod codec;
pub(crate) mod read;
mod results;
mod store;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMillisecondArray};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use flott_proto::ids::CheckpointId;
use flott_proto::job_graph as graph;
use flott_proto::state_schema::WindowSchema;
use flott_proto::wire::{self, StateOrigin, WindowAggregateState};
use flott_statestore::{KeyedBackend, LocalSnapshot};
use prost::Message;

use self::accumulator::AggregateSpec;
use self::assign::{Lateness, TimeColumn, Windows};
use self::bucket::Bucket;
use self::store::WindowStore;
use super::registry::Link;
use super::{Collector, Operator, OperatorContext, restore};
use crate::Error;
use crate::expressions::{batch_of, cast};
use crate::keys::{EncodedKeys, KeyDecoder, KeyEncoder};

/// Memory for cached keys of one task. Beyond it dirty keys are stored and those least touched forgotten. Beside the
/// managed memory of a slot (128 MiB by default), of which the keyed state has its own share.
const CACHE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Dirty keys of one task are stored when they take more than this, so that few are left for a checkpoint, for whose
/// synchronous part the task stands still.
const DIRTY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A key that was touched this often since the last eviction is kept.
const TOUCHES_TO_STAY: u8 = 2;

/// Rows of an emitted batch.
const FIRE_ROWS: usize = 4096;

#[derive(Debug)]
pub(super) struct WindowAggregate {
    windows: Windows,
    time: TimeColumn,
    encoder: KeyEncoder,
    decoder: KeyDecoder,
    aggregates: Vec<AggregateSpec>,
    output: SchemaRef,
    place: String,

    buckets: BTreeMap<i64, Bucket>,
    cache_bytes_max: usize,
    dirty_bytes_max: usize,
    store: Option<WindowStore>,
    lateness: Lateness,
    late_rows: u64,
    origin: StateOrigin,
    schema: WindowSchema,

    // Buffers that are used again for each batch.
    keys: EncodedKeys,
    hashes: Vec<u64>,
    routes: Routes,
    slots: Vec<u32>,
}

/// The rows of a batch by the end of their window.
#[derive(Debug, Default)]
struct Routes {
    of_end: HashMap<i64, usize>,
    rows: Vec<(i64, Vec<u32>)>,
}

impl Routes {
    fn clear(&mut self) {
        self.of_end.clear();
        self.rows.clear();
    }

    fn push(&mut self, end: i64, row: u32) {
        // Rows that follow one another are mostly of one window.
        if let Some((last, rows)) = self.rows.last_mut()
            && *last == end
        {
            return rows.push(row);
        }
        let at = *self.of_end.entry(end).or_insert_with(|| {
            self.rows.push((end, Vec::new()));
            self.rows.len() - 1
        });
        self.rows[at].1.push(row);
    }
}

impl WindowAggregate {
    /// The output is keys, window start, window end, aggregates; types as the JobGraph declares them.
    pub(super) fn build(window: &graph::WindowAggregate, link: &Link<'_>) -> Result<Self, Error> {
        let fields = link.output.fields();
        let (keys, aggregates) = (window.keys.len(), window.aggregates.len());
        if fields.len() != keys + 2 + aggregates {
            return Err(Error::user(
                link.place,
                format!(
                    "declares {} columns for {keys} keys, window start and end, and {aggregates} aggregates",
                    fields.len()
                ),
            ));
        }
        let columns: Vec<usize> = window
            .keys
            .iter()
            .map(|key| link.column(key))
            .collect::<Result<_, _>>()?;
        let types = columns
            .iter()
            .map(|column| link.input.field(*column).data_type().clone());
        let specs = window.aggregates.iter().zip(&fields[keys + 2..]);
        let spec = |(aggregate, field): (&graph::Aggregate, &arrow::datatypes::FieldRef)| {
            AggregateSpec::build(aggregate, field.data_type(), link)
        };
        let schema = graph::Schema::from_arrow(link.input)
            .and_then(|input| WindowSchema::of(window, &input));
        Ok(Self {
            windows: Windows::new(window, link.place)?,
            time: TimeColumn::build(&window.time_column, link)?,
            decoder: KeyDecoder::new(types.collect()),
            encoder: KeyEncoder::new(link.input, columns)?,
            aggregates: specs.map(spec).collect::<Result<_, _>>()?,
            output: SchemaRef::clone(link.output),
            place: link.place.to_owned(),
            buckets: BTreeMap::new(),
            cache_bytes_max: CACHE_BYTES_MAX,
            dirty_bytes_max: DIRTY_BYTES_MAX,
            store: None,
            lateness: Lateness::default(),
            late_rows: 0,
            origin: StateOrigin::default(),
            schema: schema.map_err(|error| Error::user(link.place, error))?,
            keys: EncodedKeys::default(),
            hashes: Vec::new(),
            routes: Routes::default(),
            slots: Vec::new(),
        })
    }

    fn store(&mut self) -> &mut WindowStore {
        self.store.as_mut().expect("opened before use")
    }

    /// Sorts the rows of a batch by window, and drops the late ones.
    fn route(&mut self, batch: &RecordBatch, max_parallelism: u32) -> Result<(), Error> {
        let times = self.time.milliseconds(batch)?;
        self.routes.clear();
        for (row, &time) in times.iter().enumerate() {
            let end = self.windows.end_of(time).ok_or_else(|| {
                Error::user(&self.place, format!("the time {time} ms is out of range"))
            })?;
            if self
                .lateness
                .is_late(end, self.hashes[row], max_parallelism)
            {
                self.late_rows += 1;
            } else {
                self.routes.push(end, row as u32);
            }
        }
        Ok(())
    }

    /// Aggregates the rows of one window.
    fn aggregate(
        &mut self,
        end: i64,
        rows: &[u32],
        columns: &[Option<ArrayRef>],
    ) -> Result<(), Error> {
        let store = self.store.as_mut().expect("opened before use");
        let bucket = self
            .buckets
            .entry(end)
            .or_insert_with(|| Bucket::new(&self.aggregates, !store.may_hold(end)));
        let known = bucket.len();
        self.slots.clear();
        for &row in rows {
            let key = self.keys.key(row as usize);
            self.slots
                .push(bucket.touch(self.hashes[row as usize], key));
        }
        if !bucket.complete && bucket.len() > known {
            store.load(end, bucket, known..bucket.len())?;
        }
        bucket.update(&self.aggregates, columns, rows, &self.slots)
    }

    /// Stores, and forgets, if the cache has grown beyond its bounds.
    fn relieve_memory(&mut self) -> Result<(), Error> {
        let bytes =
            |buckets: &BTreeMap<i64, Bucket>| buckets.values().map(Bucket::bytes).sum::<usize>();
        let is_large = bytes(&self.buckets) > self.cache_bytes_max;
        let dirty: usize = self.buckets.values().map(Bucket::dirty_bytes).sum();
        if is_large || dirty > self.dirty_bytes_max {
            self.flush()?;
        }
        if !is_large {
            return Ok(());
        }
        for bucket in self.buckets.values_mut() {
            bucket.evict(TOUCHES_TO_STAY);
        }
        // Keys that are all hot would have to be sorted out again with every batch: begin anew.
        if bytes(&self.buckets) > self.cache_bytes_max / 2 {
            self.buckets.clear();
        }
        self.buckets.retain(|_, bucket| bucket.len() > 0);
        Ok(())
    }

    /// Stores every dirty key.
    fn flush(&mut self) -> Result<(), Error> {
        let store = self.store.as_mut().expect("opened before use");
        for (end, bucket) in &mut self.buckets {
            store.save(*end, bucket)?;
        }
        store.flush()
    }

    /// Emits and forgets the window that ends then.
    fn fire(&mut self, end: i64, out: &mut dyn Collector) -> Result<(), Error> {
        let cached = self.buckets.remove(&end);
        let aggregates = self.aggregates.clone();
        let empty = || Bucket::new(&aggregates, true);
        loop {
            let store = self.store();
            let (stored, more) = store.take_due(end, cached.as_ref(), empty(), FIRE_ROWS)?;
            self.emit(end, &stored, out)?;
            if !more {
                break;
            }
        }
        if let Some(cached) = cached {
            self.emit(end, &cached, out)?;
        }
        self.store().fired(end);
        Ok(())
    }

    fn emit(&self, end: i64, bucket: &Bucket, out: &mut dyn Collector) -> Result<(), Error> {
        let mut begin = 0;
        while begin < bucket.len() {
            let slots = begin..bucket.len().min(begin + FIRE_ROWS);
            begin = slots.end;
            out.collect(self.results(end, bucket, slots)?)?;
        }
        Ok(())
    }

    fn results(
        &self,
        end: i64,
        bucket: &Bucket,
        slots: Range<usize>,
    ) -> Result<RecordBatch, Error> {
        let rows = slots.len();
        let mut columns = self
            .decoder
            .decode(slots.clone().map(|slot| bucket.key(slot)))?;
        for time in [end - self.windows.size_ms(), end] {
            columns.push(Arc::new(TimestampMillisecondArray::from_value(time, rows)));
        }
        columns.extend(bucket.results(&self.aggregates, slots)?);
        let fields = self.output.fields().iter();
        let columns = columns
            .iter()
            .zip(fields)
            .map(|(column, field)| cast(column, field.data_type(), &self.place))
            .collect::<Result<_, _>>()?;
        batch_of(&self.output, columns, rows, &self.place)
    }
}

impl Operator for WindowAggregate {
    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<(), Error> {
        self.origin = restore::origin::<WindowAggregateState>(ctx);
        let backend = ctx.backend.take().ok_or_else(|| {
            Error::Fatal(format!("{}: was opened without keyed state", self.place))
        })?;
        let states = restore::partial_states_of::<WindowAggregateState>(ctx)?;
        for recorded in states.iter().filter_map(|state| state.schema.clone()) {
            let obstacle = match WindowSchema::try_from(recorded) {
                Ok(recorded) => recorded.obstacle(&self.schema),
                Err(error) => Some(error.to_string()),
            };
            if let Some(obstacle) = obstacle {
                let what = format!("cannot go on with the restored state: {obstacle}");
                return Err(Error::user(&self.place, what));
            }
        }
        self.lateness =
            Lateness::restored(&states, ctx.chain.key_groups, ctx.chain.max_parallelism);
        self.store = Some(WindowStore::open(backend, ctx, &states, &self.place)?);
        Ok(())
    }

    fn process(&mut self, batch: RecordBatch, _out: &mut dyn Collector) -> Result<(), Error> {
        self.encoder.encode(&batch, &mut self.keys);
        self.hashes.clear();
        self.hashes.extend(self.keys.hashes());
        let max_parallelism = self.store().max_parallelism();
        self.route(&batch, max_parallelism)?;
        let columns = self
            .aggregates
            .iter()
            .map(|aggregate| aggregate.values(&batch))
            .collect::<Result<Vec<_>, _>>()?;
        let mut routes = std::mem::take(&mut self.routes);
        for (end, rows) in &routes.rows {
            self.aggregate(*end, rows, &columns)?;
        }
        routes.clear();
        self.routes = routes;
        self.relieve_memory()
    }

    fn on_watermark(&mut self, watermark_ms: i64, out: &mut dyn Collector) -> Result<(), Error> {
        if !self.lateness.rise(watermark_ms) {
            return Ok(());
        }
        loop {
            let cached = self.buckets.keys().next().copied();
            let stored = self.store().earliest_end();
            let Some(end) = cached.into_iter().chain(stored).min() else {
                break;
            };
            if end - 1 > watermark_ms {
                break;
            }
            self.fire(end, out)?;
        }
        out.watermark(watermark_ms)
    }

    fn snapshot(&mut self, _checkpoint: CheckpointId) -> Result<Option<Bytes>, Error> {
        self.flush()?;
        let (first_stored_end_ms, last_stored_end_ms) = self.store().bounds();
        let state = WindowAggregateState {
            origin: Some(self.origin),
            watermark_ms: self.lateness.watermark_ms(),
            first_stored_end_ms,
            last_stored_end_ms,
            ahead: self.lateness.ahead(),
            schema: Some((&self.schema).into()),
        };
        Ok(Some(state.encode_to_vec().into()))
    }

    fn keyed_snapshot(&mut self, checkpoint: CheckpointId) -> Result<Option<LocalSnapshot>, Error> {
        self.store().snapshot(checkpoint).map(Some)
    }

    fn backend(&mut self) -> Option<&mut KeyedBackend> {
        self.store.as_mut().map(WindowStore::backend)
    }

    fn add_counters(&self, counters: &mut wire::TaskCounters) {
        counters.late_records_dropped += self.late_rows;
    }
}
