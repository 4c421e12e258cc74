//! What expressions compute, evaluated as the worker does: the text in the graph, over a batch of rows.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Int32Array,
    Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::util::display::array_value_to_string;
use datafusion::common::DFSchema;
use datafusion::prelude::SessionContext;
use flott_proto::job_graph::{JobGraph, OperatorKind};

use crate::compiler::{PRELUDE, graph};

/// 2013-01-01T05:17:30.500, and 2013-01-01.
const DEPARTED_MS: i64 = 1_357_017_450_500;
const DAY: i32 = 15_706;

/// Two flights; everything nullable of the second is NULL.
fn flights(schema: &flott_proto::job_graph::Schema) -> RecordBatch {
    let columns: Vec<ArrayRef> = schema
        .fields
        .iter()
        .map(|field| -> ArrayRef {
            match field.name.as_str() {
                "landed_at" => Arc::new(TimestampMillisecondArray::from(vec![
                    Some(DEPARTED_MS + 3_600_000),
                    None,
                ])),
                "departed_at" => Arc::new(TimestampMillisecondArray::from(vec![
                    Some(DEPARTED_MS),
                    None,
                ])),
                "carrier" => Arc::new(StringArray::from(vec!["UA", "B6"])),
                "tailnum" => Arc::new(StringArray::from(vec![Some(" N14228 "), None])),
                "origin" => Arc::new(StringArray::from(vec![Some("EWR"), None])),
                "dest" => Arc::new(StringArray::from(vec![Some("IAH"), None])),
                "flight" => Arc::new(Int64Array::from(vec![Some(1545), None])),
                "distance" => Arc::new(Int32Array::from(vec![Some(1400), None])),
                "dep_delay" => Arc::new(Int64Array::from(vec![Some(-2), None])),
                "price" => Arc::new(
                    Decimal128Array::from(vec![Some(12_345), None])
                        .with_precision_and_scale(10, 2)
                        .unwrap(),
                ),
                "speed" => Arc::new(Float32Array::from(vec![Some(1.5), None])),
                "cancelled" => Arc::new(BooleanArray::from(vec![Some(false), None])),
                "raw" => Arc::new(BinaryArray::from(vec![Some(b"ab".as_slice()), None])),
                "day" => Arc::new(Date32Array::from(vec![Some(DAY), None])),
                other => panic!("no values for {other}"),
            }
        })
        .collect();
    RecordBatch::try_new(Arc::new(schema.to_arrow()), columns).unwrap()
}

/// The last projection's first column over the two flights.
fn evaluate(graph: &JobGraph) -> [String; 2] {
    let chain = &graph.vertices[0].chain;
    let (index, text) = chain
        .iter()
        .enumerate()
        .find_map(|(index, operator)| match &operator.kind {
            OperatorKind::Project { expressions } => {
                Some((index, expressions[0].expression.clone()))
            }
            _ => None,
        })
        .unwrap();
    let input = &chain[index - 1].output;
    let batch = flights(input);
    let schema = DFSchema::try_from(batch.schema()).unwrap();
    let context = SessionContext::new();
    let logical = context.parse_sql_expr(&text, &schema).unwrap();
    let physical = context.create_physical_expr(logical, &schema).unwrap();
    let declared = chain[index].output.fields[0].data_type.to_arrow();
    let values = physical.evaluate(&batch).unwrap().into_array(2).unwrap();
    let values = arrow::compute::cast(&values, &declared).unwrap();
    [0, 1].map(|row| {
        if values.is_null(row) {
            "NULL".to_owned()
        } else {
            array_value_to_string(&values, row).unwrap()
        }
    })
}

#[test]
fn expressions_compute_what_flink_computes() {
    for (expression, data_type, expected) in [
        ("1 + 2 * 3", "BIGINT", ["7", "7"]),
        ("(1 + 2) * 3", "BIGINT", ["9", "9"]),
        ("flight - 5 - 40", "BIGINT", ["1500", "NULL"]),
        ("- dep_delay", "BIGINT", ["2", "NULL"]),
        ("MOD(flight, 100 + 23)", "BIGINT", ["69", "NULL"]),
        ("MOD(flight + 1, 2) = 0", "BOOLEAN", ["true", "NULL"]),
        ("COALESCE(dep_delay, flight, 7)", "BIGINT", ["-2", "7"]),
        ("IFNULL(origin, 'none')", "STRING", ["EWR", "none"]),
        ("NVL2(origin, 1, 0)", "INT", ["1", "0"]),
        ("NULLIF(origin, 'EWR')", "STRING", ["NULL", "NULL"]),
        (
            "CASE WHEN dep_delay > 0 THEN 'late' WHEN dep_delay <= 0 THEN 'in time' END",
            "STRING",
            ["in time", "NULL"],
        ),
        (
            "CASE carrier WHEN 'UA' THEN 'United' ELSE carrier END",
            "STRING",
            ["United", "B6"],
        ),
        (
            "CAST(distance AS DOUBLE) / 3",
            "DOUBLE",
            ["466.6666666666667", "NULL"],
        ),
        ("CAST('12' AS INT)", "INT", ["12", "12"]),
        ("CAST(price AS STRING)", "STRING", ["123.45", "NULL"]),
        ("TRY_CAST(carrier AS INT)", "INT", ["NULL", "NULL"]),
        ("carrier || '-' || origin", "STRING", ["UA-EWR", "NULL"]),
        ("UPPER(TRIM(tailnum))", "STRING", ["N14228", "NULL"]),
        ("SUBSTRING(tailnum FROM 2 FOR 3)", "STRING", ["N14", "NULL"]),
        ("SUBSTRING(carrier, 1, 1)", "STRING", ["U", "B"]),
        ("CHAR_LENGTH(origin)", "BIGINT", ["3", "NULL"]),
        ("POSITION('W' IN origin)", "BIGINT", ["2", "NULL"]),
        ("origin LIKE 'E%'", "BOOLEAN", ["true", "NULL"]),
        ("origin NOT IN ('JFK', 'LGA')", "BOOLEAN", ["true", "NULL"]),
        ("dep_delay BETWEEN -5 AND 5", "BOOLEAN", ["true", "NULL"]),
        (
            "dep_delay IS NULL OR NOT cancelled",
            "BOOLEAN",
            ["true", "true"],
        ),
        ("origin IS DISTINCT FROM dest", "BOOLEAN", ["true", "false"]),
        ("EXTRACT(HOUR FROM departed_at)", "BIGINT", ["5", "NULL"]),
        (
            "DATE_FORMAT(departed_at, 'yyyy-MM-dd''T''HH')",
            "STRING",
            ["2013-01-01T05", "NULL"],
        ),
        (
            "DATE_TRUNC('hour', departed_at)",
            "TIMESTAMP(3)",
            ["2013-01-01T05:00:00", "NULL"],
        ),
        (
            "departed_at + INTERVAL '1' DAY - INTERVAL '30' SECOND",
            "TIMESTAMP(3)",
            ["2013-01-02T05:17:00.500", "NULL"],
        ),
        (
            "departed_at < TIMESTAMP '2013-01-01 05:17:30.501'",
            "BOOLEAN",
            ["true", "NULL"],
        ),
        (
            "departed_at >= TIMESTAMP '2999-01-01 00:00:00'",
            "BOOLEAN",
            ["false", "NULL"],
        ),
        ("day = DATE '2013-01-01'", "BOOLEAN", ["true", "NULL"]),
        ("day", "TIMESTAMP(3)", ["2013-01-01T00:00:00", "NULL"]),
        ("ROUND(CAST(price AS DOUBLE))", "DOUBLE", ["123.0", "NULL"]),
        ("CEIL(speed)", "FLOAT", ["2.0", "NULL"]),
        ("price * 2", "DECIMAL(38, 2)", ["246.90", "NULL"]),
        ("distance", "BIGINT", ["1400", "NULL"]),
        ("NULL", "DATE", ["NULL", "NULL"]),
        ("1.5", "DECIMAL(3, 1)", ["1.5", "1.5"]),
        ("REGEXP_LIKE(origin, '^E.R$')", "BOOLEAN", ["true", "NULL"]),
    ] {
        let script = format!(
            "{PRELUDE} CREATE TABLE result (value {data_type}) WITH ('connector' = 'blackhole');
             INSERT INTO result SELECT {expression} FROM flights"
        );
        assert_eq!(
            evaluate(&graph(&script)),
            expected.map(str::to_owned),
            "{expression}"
        );
    }
}
