//! Golden vectors of the key encoding, which hold for every release there will ever be; and its properties.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Int8Array, Int16Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use flott_decoders::{Seeds, told};
use proptest::prelude::*;

use super::*;

fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
    let field = |(at, array): (usize, &ArrayRef)| {
        Field::new(format!("c{at}"), array.data_type().clone(), true)
    };
    let fields: Vec<Field> = columns.iter().enumerate().map(field).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn encode(batch: &RecordBatch) -> EncodedKeys {
    let columns = (0..batch.num_columns()).collect();
    let mut keys = EncodedKeys::default();
    KeyEncoder::new(batch.schema_ref(), columns)
        .unwrap()
        .encode(batch, &mut keys);
    keys
}

fn hex(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn golden(array: ArrayRef, expected: &[&str]) {
    let batch = batch(vec![array]);
    let keys = encode(&batch);
    let encoded: Vec<String> = keys.iter().map(hex).collect();
    assert_eq!(encoded, expected, "{:?}", batch.column(0).data_type());
    let decoder = KeyDecoder::new(vec![batch.column(0).data_type().clone()]);
    let decoded = decoder.decode(keys.iter()).unwrap();
    assert_eq!(&decoded[0], batch.column(0));
}

#[test]
fn golden_vectors() {
    let one = "028101";
    let minus_one = "027f";
    golden(
        Arc::new(BooleanArray::from(vec![None, Some(false), Some(true)])),
        &["00", "0100", "0101"],
    );
    golden(Arc::new(Int8Array::from(vec![1, -1])), &[one, minus_one]);
    golden(Arc::new(Int16Array::from(vec![1, -1])), &[one, minus_one]);
    golden(Arc::new(Int32Array::from(vec![1, -1])), &[one, minus_one]);
    golden(
        Arc::new(Int64Array::from(vec![
            Some(1),
            Some(-1),
            None,
            Some(0),
            Some(256),
            Some(-256),
            Some(-257),
            Some(i64::MIN),
            Some(i64::MAX),
        ])),
        &[
            one,
            minus_one,
            "00",
            "0280",
            "02820100",
            "027e00",
            "027dfeff",
            "02778000000000000000",
            "02887fffffffffffffff",
        ],
    );
    golden(
        Arc::new(Float64Array::from(vec![1.5, -1.5, 0.0])),
        &[
            "03bff8000000000000",
            "034007ffffffffffff",
            "038000000000000000",
        ],
    );
    golden(
        Arc::new(Float32Array::from(vec![1.5])),
        &["03bff8000000000000"],
    );
    golden(
        Arc::new(
            Decimal128Array::from(vec![Some(12_345), None])
                .with_precision_and_scale(10, 2)
                .unwrap(),
        ),
        &["0402823039", "00"],
    );
    golden(
        Arc::new(StringArray::from(vec![
            Some(""),
            Some("JFK"),
            Some("ä"),
            None,
        ])),
        &["0500", "05034a464b", "0502c3a4", "00"],
    );
    golden(
        Arc::new(BinaryArray::from(vec![&[0u8, 255][..], &[][..]])),
        &["060200ff", "0600"],
    );
    golden(
        Arc::new(Date32Array::from(vec![0, 15_706])),
        &["0780", "07823d5a"],
    );
    let second = "08810180";
    golden(Arc::new(TimestampSecondArray::from(vec![1])), &[second]);
    golden(
        Arc::new(TimestampMillisecondArray::from(vec![1_000, -1])),
        &[second, "087f843b8b87c0"],
    );
    golden(
        Arc::new(TimestampMicrosecondArray::from(vec![1_000_000])),
        &[second],
    );
    golden(
        Arc::new(TimestampNanosecondArray::from(vec![1_000_000_001])),
        &["0881018101"],
    );
}

#[test]
fn key_groups_of_keys_stay_where_they_are() {
    let batch = batch(vec![
        Arc::new(StringArray::from(vec!["JFK", "LGA", "EWR"])),
        Arc::new(StringArray::from(vec!["B6", "DL", "UA"])),
    ]);
    let groups: Vec<u16> = encode(&batch).groups(128).map(|group| group.0).collect();
    assert_eq!(groups, GROUPS);
}
const GROUPS: [u16; 3] = [43, 121, 6];

#[test]
fn numbers_sort_as_their_bytes_do() {
    let mut numbers = vec![
        i64::MIN,
        -65_537,
        -65_536,
        -257,
        -256,
        -255,
        -2,
        -1,
        0,
        1,
        255,
        256,
    ];
    numbers.extend([65_535, 65_536, 1 << 40, i64::MAX]);
    let keys = encode(&batch(vec![Arc::new(Int64Array::from(numbers))]));
    assert!(keys.iter().is_sorted());
}

#[test]
fn zeros_and_nans_are_each_one_key() {
    let keys = encode(&batch(vec![Arc::new(Float64Array::from(vec![
        0.0,
        -0.0,
        f64::NAN,
        -f64::NAN,
    ]))]));
    assert_eq!(keys.key(0), keys.key(1));
    assert_eq!(keys.key(2), keys.key(3));
}

#[test]
fn long_strings_have_long_lengths() {
    let long = "x".repeat(20_000);
    let array: ArrayRef = Arc::new(StringArray::from(vec![long.as_str(), &long[..128]]));
    let keys = encode(&batch(vec![Arc::clone(&array)]));
    let decoded = KeyDecoder::new(vec![DataType::Utf8]).decode(keys.iter());
    assert_eq!(decoded.unwrap(), vec![array]);
}

#[test]
fn a_type_that_cannot_be_a_key_is_refused() {
    let list = DataType::new_list(DataType::Int64, true);
    let schema = Schema::new(vec![Field::new("tags", list, true)]);
    let error = KeyEncoder::new(&schema, vec![0]).unwrap_err();
    assert!(error.to_string().contains("tags"), "{error}");
}

#[test]
fn bytes_that_are_no_key_are_refused() {
    let decoder = KeyDecoder::new(vec![DataType::Int64, DataType::Utf8]);
    for bad in ["", "00", "0000ff", "0100", "02", "0005", "000505", "000580"] {
        let bytes: Vec<u8> = (0..bad.len() / 2)
            .map(|at| u8::from_str_radix(&bad[at * 2..at * 2 + 2], 16).unwrap())
            .collect();
        assert!(decoder.decode([&bytes[..]].into_iter()).is_err(), "{bad}");
    }
}

type Row = (Option<i64>, Option<String>, Option<bool>);

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (
        prop::option::of(-3i64..3),
        prop::option::of("[a-c]{0,2}"),
        prop::option::of(any::<bool>()),
    );
    prop::collection::vec(row, 1..60)
}

fn batch_of(rows: &[Row]) -> RecordBatch {
    batch(vec![
        Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
        Arc::new(
            rows.iter()
                .map(|row| row.1.clone())
                .collect::<StringArray>(),
        ),
        Arc::new(rows.iter().map(|row| row.2).collect::<BooleanArray>()),
    ])
}

proptest! {
    #[test]
    fn keys_are_equal_exactly_when_their_bytes_are_and_none_is_a_prefix(rows in rows()) {
        let batch = batch_of(&rows);
        let keys = encode(&batch);
        for (a, key_a) in keys.iter().enumerate() {
            for (b, key_b) in keys.iter().enumerate() {
                prop_assert_eq!(rows[a] == rows[b], key_a == key_b);
                prop_assert!(key_a == key_b || !key_a.starts_with(key_b));
            }
        }
        let types = vec![DataType::Int64, DataType::Utf8, DataType::Boolean];
        let decoded = KeyDecoder::new(types).decode(keys.iter()).unwrap();
        prop_assert_eq!(&decoded[..], batch.columns());
    }

    #[test]
    fn a_partition_keeps_every_row_once_with_its_key_group_and_in_order(
        rows in rows(), parallelism in 1u32..9, sliced in any::<bool>()
    ) {
        let mut batch = batch_of(&rows);
        if sliced {
            batch = batch.slice(rows.len() / 3, rows.len() - rows.len() / 3);
        }
        let parts = partition(&batch, &[1, 0], 16, parallelism).unwrap();
        prop_assert_eq!(parts.len(), parallelism as usize);
        let mut keys = EncodedKeys::default();
        let encoder = KeyEncoder::new(batch.schema_ref(), vec![1, 0]).unwrap();
        encoder.encode(&batch, &mut keys);
        let owner: Vec<u32> = keys.groups(16).map(|group| group.subtask(16, parallelism)).collect();
        for (target, part) in parts.into_iter().enumerate() {
            let own: Vec<u32> = (0..batch.num_rows() as u32)
                .filter(|row| owner[*row as usize] as usize == target)
                .collect();
            prop_assert_eq!(part.is_none(), own.is_empty());
            if let Some(part) = part {
                let own = arrow::array::UInt32Array::from(own);
                let expected = arrow::compute::take_record_batch(&batch, &own).unwrap();
                prop_assert_eq!(part, expected);
            }
        }
    }
}

#[test]
fn any_bytes_are_a_key_or_refused() {
    let types = [
        DataType::Boolean,
        DataType::Int64,
        DataType::Date32,
        DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, None),
        DataType::Float64,
        DataType::Decimal128(10, 2),
        DataType::Utf8,
        DataType::Binary,
    ];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(vec![Some(true), None])),
        Arc::new(Int64Array::from(vec![i64::MIN, -7])),
        Arc::new(Date32Array::from(vec![19_000, -1])),
        Arc::new(TimestampNanosecondArray::from(vec![-1, i64::MAX])),
        Arc::new(Float64Array::from(vec![-0.0, f64::NAN])),
        Arc::new(
            Decimal128Array::from(vec![12_345, -1])
                .with_precision_and_scale(10, 2)
                .unwrap(),
        ),
        Arc::new(StringArray::from(vec!["a\0b", ""])),
        Arc::new(BinaryArray::from(vec![&b"x"[..], b"\x00\xff"])),
    ];
    let all = encode(&batch(columns.clone()));
    let each = columns
        .iter()
        .map(|column| encode(&batch(vec![Arc::clone(column)])));
    let keys: Vec<EncodedKeys> = each.chain([all]).collect();
    let seeds = Seeds::of(keys.iter().flat_map(EncodedKeys::iter));
    flott_decoders::check!(seeds).for_each(|key: &[u8]| {
        let of_one = types.iter().map(|one| vec![one.clone()]);
        for types in of_one.chain([types.to_vec()]) {
            if let Ok(columns) = told(KeyDecoder::new(types).decode([key].into_iter())) {
                assert!(columns.iter().all(|column| column.len() == 1));
                drop(encode(&batch(columns)));
            }
        }
    });
}
