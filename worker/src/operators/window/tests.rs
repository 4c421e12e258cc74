//! The window operator on its own, against a plain computation.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, AsArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array,
    Int64Array, StringArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float64Type, Int64Type, Schema, TimeUnit,
    TimestampMillisecondType,
};
use flott_node::clock::ManualClock;
use flott_proto::ids::{AttemptNumber, SubtaskId, TaskId};
use flott_proto::job_graph::{Aggregate, AggregateFunction};
use flott_proto::key_group::KeyGroupRange;
use flott_statestore::BackendOptions;
use proptest::prelude::*;

use super::*;
use crate::expressions::ExpressionCompiler;
use crate::operators::ChainContext;

const MAX_PARALLELISM: u32 = 8;
const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

#[derive(Debug, Default)]
struct Emitted {
    batches: Vec<RecordBatch>,
    watermarks: Vec<i64>,
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
}

fn context(restored: Vec<BTreeMap<String, Bytes>>) -> ChainContext {
    ChainContext {
        task: TaskId {
            job: "0123456789abcdef0123456789abcdef".parse().unwrap(),
            attempt: AttemptNumber(1),
            subtask: SubtaskId {
                vertex: "window".parse().unwrap(),
                subtask: 0,
            },
        },
        parallelism: 1,
        max_parallelism: MAX_PARALLELISM,
        key_groups: KeyGroupRange::all(MAX_PARALLELISM),
        restored,
        clock: Arc::new(ManualClock::new(0)),
        restored_checkpoint: CheckpointId::NONE,
    }
}

fn backend(dir: &std::path::Path) -> KeyedBackend {
    let options = BackendOptions::rocksdb(8 << 20);
    let groups = KeyGroupRange::all(MAX_PARALLELISM);
    KeyedBackend::create(dir, MAX_PARALLELISM, groups, options).unwrap()
}

fn open(operator: &mut WindowAggregate, ctx: &ChainContext, backend: KeyedBackend) {
    let mut backend = Some(backend);
    operator
        .open(&mut OperatorContext {
            chain: ctx,
            uid: "agg",
            backend: &mut backend,
        })
        .unwrap();
}

fn aggregate(function: AggregateFunction, argument: Option<&str>) -> Aggregate {
    Aggregate {
        function,
        argument: argument.map(str::to_owned),
        output: format!("{function:?}-{}", argument.unwrap_or("*")),
    }
}

/// A window operator over `input`, with these keys and aggregates and the types of what they give.
fn window(
    input: &Schema,
    keys: &[&str],
    aggregates: &[(Aggregate, DataType)],
) -> Result<WindowAggregate, Error> {
    let key = |name: &&str| input.field_with_name(name).unwrap().clone();
    let mut output: Vec<Field> = keys.iter().map(key).collect();
    output.push(Field::new("window_start", TIMESTAMP, false));
    output.push(Field::new("window_end", TIMESTAMP, false));
    let result = |(aggregate, data_type): &(Aggregate, DataType)| {
        Field::new(&aggregate.output, data_type.clone(), true)
    };
    output.extend(aggregates.iter().map(result));
    let link = Link {
        compiler: &ExpressionCompiler::new(),
        input: &Arc::new(input.clone()),
        output: &Arc::new(Schema::new(output)),
        place: "operator agg",
    };
    let description = graph::WindowAggregate {
        time_column: "at".into(),
        size_ms: 10,
        offset_ms: 0,
        keys: keys.iter().map(ToString::to_string).collect(),
        aggregates: aggregates
            .iter()
            .map(|(aggregate, _)| aggregate.clone())
            .collect(),
        window_start: "window_start".into(),
        window_end: "window_end".into(),
    };
    WindowAggregate::build(&description, &link)
}

fn rows_schema() -> Schema {
    Schema::new(vec![
        Field::new("at", TIMESTAMP, false),
        Field::new("key", DataType::Utf8, true),
        Field::new("value", DataType::Int64, true),
    ])
}

type Row = (i64, Option<String>, Option<i64>);

fn batch(rows: &[Row]) -> RecordBatch {
    RecordBatch::try_new(
        Arc::new(rows_schema()),
        vec![
            Arc::new(
                rows.iter()
                    .map(|row| Some(row.0))
                    .collect::<TimestampMillisecondArray>(),
            ),
            Arc::new(
                rows.iter()
                    .map(|row| row.1.clone())
                    .collect::<StringArray>(),
            ),
            Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>()),
        ],
    )
    .unwrap()
}

/// Window end and key to count, sum, greatest value and longest text of the key.
type Results = BTreeMap<(i64, Option<String>), (i64, Option<i64>, Option<i64>, Option<String>)>;

fn results(emitted: &Emitted) -> Results {
    let mut results = Results::new();
    for batch in &emitted.batches {
        let [key, text] = [0, 6].map(|at| batch.column(at).as_string::<i32>());
        let end = batch.column(2).as_primitive::<TimestampMillisecondType>();
        let numbers = [3, 4, 5].map(|at| batch.column(at).as_primitive::<Int64Type>());
        let text_of =
            |array: &StringArray, row| array.is_valid(row).then(|| array.value(row).to_owned());
        for row in 0..batch.num_rows() {
            let [count, sum, max] =
                numbers.map(|array| array.is_valid(row).then(|| array.value(row)));
            let of = (end.value(row), text_of(key, row));
            let values = (count.unwrap(), sum, max, text_of(text, row));
            assert!(results.insert(of, values).is_none(), "a window fired twice");
        }
    }
    results
}

fn counting_window() -> WindowAggregate {
    use AggregateFunction as F;
    window(
        &rows_schema(),
        &["key"],
        &[
            (aggregate(F::Count, None), DataType::Int64),
            (aggregate(F::Sum, Some("value")), DataType::Int64),
            (aggregate(F::Max, Some("value")), DataType::Int64),
            (aggregate(F::Min, Some("key")), DataType::Utf8),
        ],
    )
    .unwrap()
}

fn rows() -> impl Strategy<Value = Vec<Vec<Row>>> {
    let key = prop::option::of("[a-e]{0,1}");
    let row = (0i64..60, key, prop::option::of(-5i64..5));
    prop::collection::vec(prop::collection::vec(row, 1..12), 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However small the cache: what is evicted, stored, loaded and fired adds up.
    #[test]
    fn results_are_those_of_a_plain_computation_whatever_the_cache_holds(
        batches in rows(), cache_bytes_max in prop_oneof![Just(0usize), 100usize..1500, Just(usize::MAX)],
        dirty_bytes_max in prop_oneof![Just(0usize), 100usize..1500, Just(usize::MAX)],
        snapshots in prop::collection::vec(any::<bool>(), 14), delay in 0i64..30
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut operator = counting_window();
        operator.cache_bytes_max = cache_bytes_max;
        operator.dirty_bytes_max = dirty_bytes_max;
        open(&mut operator, &context(Vec::new()), backend(dir.path()));
        let (mut emitted, mut expected, mut watermark, mut late) = (Emitted::default(), Results::new(), i64::MIN, 0);
        for (at, rows) in batches.iter().enumerate() {
            operator.process(batch(rows), &mut emitted).unwrap();
            for (time, key, value) in rows {
                let end = (time / 10 + 1) * 10;
                if end - 1 <= watermark {
                    late += 1;
                    continue;
                }
                let entry = expected.entry((end, key.clone())).or_insert((0, None, None, key.clone()));
                entry.0 += 1;
                entry.1 = value.map(|value| entry.1.unwrap_or(0) + value).or(entry.1);
                entry.2 = entry.2.max(*value);
            }
            if snapshots[at] {
                operator.snapshot(CheckpointId(at as u64 + 1)).unwrap();
            }
            watermark = watermark.max(rows.iter().map(|row| row.0).max().unwrap() - delay);
            operator.on_watermark(watermark, &mut emitted).unwrap();
        }
        operator.on_watermark(i64::MAX, &mut emitted).unwrap();
        prop_assert_eq!(results(&emitted), expected);
        prop_assert_eq!(operator.late_rows, late);
        prop_assert!(operator.buckets.is_empty());
        prop_assert_eq!(operator.store().earliest_end(), None);
        let ends = emitted.batches.iter().map(|batch| batch.column(2).as_primitive::<TimestampMillisecondType>().value(0));
        prop_assert!(ends.is_sorted(), "windows fire in the order of their ends");
    }
}

#[test]
fn a_row_that_was_late_before_a_restore_is_late_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut operator = counting_window();
    open(
        &mut operator,
        &context(Vec::new()),
        backend(&dir.path().join("1")),
    );
    let mut emitted = Emitted::default();
    operator
        .process(
            batch(&[(5, None, Some(1)), (25, None, Some(1))]),
            &mut emitted,
        )
        .unwrap();
    operator.on_watermark(9, &mut emitted).unwrap();
    assert_eq!(emitted.batches.len(), 1);
    let state = operator.snapshot(CheckpointId(1)).unwrap().unwrap();

    let mut restored = counting_window();
    let ctx = context(vec![BTreeMap::from([("agg".to_owned(), state)])]);
    open(&mut restored, &ctx, backend(&dir.path().join("2")));
    let mut emitted = Emitted::default();
    restored
        .process(
            batch(&[(6, None, Some(1)), (10, None, Some(1))]),
            &mut emitted,
        )
        .unwrap();
    assert_eq!(restored.late_rows, 1);
    restored.on_watermark(3, &mut emitted).unwrap();
    assert!(
        emitted.watermarks.is_empty(),
        "a watermark does not go back"
    );
    restored.on_watermark(19, &mut emitted).unwrap();
    assert_eq!(results(&emitted).len(), 1);
}

#[test]
fn every_function_over_every_type_it_takes() {
    use AggregateFunction as F;
    let decimal = DataType::Decimal128(6, 2);
    let input = Schema::new(vec![
        Field::new("at", TIMESTAMP, false),
        Field::new("int", DataType::Int32, true),
        Field::new("double", DataType::Float64, true),
        Field::new("decimal", decimal.clone(), true),
        Field::new("day", DataType::Date32, true),
        Field::new("flag", DataType::Boolean, true),
        Field::new("text", DataType::Utf8, true),
    ]);
    let wide = DataType::Decimal128(38, 2);
    let aggregates = [
        (aggregate(F::Count, Some("int")), DataType::Int64),
        (aggregate(F::Sum, Some("int")), DataType::Int64),
        (aggregate(F::Avg, Some("int")), DataType::Float64),
        (aggregate(F::Sum, Some("double")), DataType::Float64),
        (aggregate(F::Max, Some("double")), DataType::Float64),
        (aggregate(F::Sum, Some("decimal")), wide),
        (
            aggregate(F::Avg, Some("decimal")),
            DataType::Decimal128(38, 4),
        ),
        (aggregate(F::Min, Some("day")), DataType::Date32),
        (aggregate(F::Max, Some("flag")), DataType::Boolean),
        (aggregate(F::Max, Some("text")), DataType::Utf8),
    ];
    let dir = tempfile::tempdir().unwrap();
    let mut operator = window(&input, &[], &aggregates).unwrap();
    operator.cache_bytes_max = 0; // Everything goes through its stored form.
    open(&mut operator, &context(Vec::new()), backend(dir.path()));
    let rows = RecordBatch::try_new(
        Arc::new(input),
        vec![
            Arc::new(TimestampMillisecondArray::from(vec![0, 1, 2])),
            Arc::new(Int32Array::from(vec![Some(1), None, Some(2)])),
            Arc::new(Float64Array::from(vec![Some(0.5), Some(-2.0), None])),
            Arc::new(
                Decimal128Array::from(vec![Some(100), Some(101), Some(101)])
                    .with_precision_and_scale(6, 2)
                    .unwrap(),
            ),
            Arc::new(Date32Array::from(vec![Some(9), Some(7), None])),
            Arc::new(BooleanArray::from(vec![Some(false), Some(true), None])),
            Arc::new(StringArray::from(vec![Some("a"), None, Some("ä")])),
        ],
    );
    let rows = rows.unwrap();
    let mut emitted = Emitted::default();
    for row in 0..3 {
        operator.process(rows.slice(row, 1), &mut emitted).unwrap();
    }
    operator.on_watermark(9, &mut emitted).unwrap();
    let [results] = &emitted.batches[..] else {
        panic!("one batch of one row: {:?}", emitted.batches);
    };
    let column = |at: usize| results.column(at + 2);
    assert_eq!(column(0).as_primitive::<Int64Type>().value(0), 2);
    assert_eq!(column(1).as_primitive::<Int64Type>().value(0), 3);
    assert_eq!(column(2).as_primitive::<Float64Type>().value(0), 1.5);
    assert_eq!(column(3).as_primitive::<Float64Type>().value(0), -1.5);
    assert_eq!(column(4).as_primitive::<Float64Type>().value(0), 0.5);
    assert_eq!(column(5).as_primitive::<Decimal128Type>().value(0), 302);
    assert_eq!(column(6).as_primitive::<Decimal128Type>().value(0), 10_067);
    assert_eq!(column(7).as_primitive::<Date32Type>().value(0), 7);
    assert!(column(8).as_boolean().value(0));
    assert_eq!(column(9).as_string::<i32>().value(0), "ä");
}

#[test]
fn a_sum_beyond_bigint_is_an_error_that_names_the_column() {
    let dir = tempfile::tempdir().unwrap();
    let mut operator = counting_window();
    open(&mut operator, &context(Vec::new()), backend(dir.path()));
    let rows = [(0, None, Some(i64::MAX)), (0, None, Some(1))];
    let error = operator
        .process(batch(&rows), &mut Emitted::default())
        .unwrap_err();
    assert!(
        !error.retryable() && error.to_string().contains("Sum-value"),
        "{error}"
    );
}

#[test]
fn functions_that_do_not_fit_their_argument_are_refused() {
    use AggregateFunction as F;
    for (bad, needle) in [
        (aggregate(F::Sum, Some("key")), "Sum takes numbers"),
        (aggregate(F::Avg, Some("at")), "Avg takes numbers"),
        (aggregate(F::Max, None), "without an argument"),
        (aggregate(F::Max, Some("nope")), "no column \"nope\""),
    ] {
        let error = window(&rows_schema(), &["key"], &[(bad, DataType::Int64)]).unwrap_err();
        assert!(error.to_string().contains(needle), "{error}");
    }
}

/// Checkpoints hold these bytes.
#[test]
fn stored_form_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut operator = counting_window();
    open(&mut operator, &context(Vec::new()), backend(dir.path()));
    let rows = [
        (0, Some("k".to_owned()), Some(-3)),
        (0, Some("k".to_owned()), None),
    ];
    operator
        .process(batch(&rows), &mut Emitted::default())
        .unwrap();
    let mut stored = Vec::new();
    operator.buckets[&10].encode(0, &mut stored);
    // Version; two rows; one value, -3, twice; two texts, the least of one byte, "k".
    assert_eq!(stored, [1, 4, 2, 5, 2, 5, 4, 2, b'k']);
}
