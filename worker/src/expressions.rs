//! SQL text to compiled expressions.
//!
//! The JobGraph holds expressions as SQL text over the columns that flow in. Here DataFusion parses, types and compiles
//! them, once, when a task is built; batches are then evaluated without any planning. Identifiers are case-sensitive,
//! quoted or not, as in Flink. Strings are `Utf8`, never views: what flows between operators has exactly the types of
//! `flott_proto::data_type`.

use std::fmt;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::DFSchema;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::prelude::SessionConfig;

use crate::Error;

/// Casts that fail are errors and not NULLs: Flink's CAST, not TRY_CAST.
const STRICT: CastOptions<'static> = CastOptions {
    safe: false,
    format_options: arrow::util::display::FormatOptions::new(),
};

/// Compiles expressions; holds DataFusion's functions.
pub struct ExpressionCompiler {
    state: SessionState,
}

impl fmt::Debug for ExpressionCompiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExpressionCompiler")
    }
}

impl Default for ExpressionCompiler {
    fn default() -> Self {
        Self::new()
    }
}

impl ExpressionCompiler {
    /// A compiler with every scalar function that DataFusion has.
    pub fn new() -> Self {
        let mut config = SessionConfig::new();
        let parser = &mut config.options_mut().sql_parser;
        parser.enable_ident_normalization = false;
        parser.map_string_types_to_utf8view = false;
        Self {
            state: SessionStateBuilder::new()
                .with_config(config)
                .with_default_features()
                .build(),
        }
    }

    /// Compiles `sql` over the columns of `input`; its values are cast to `output`. Errors name `place` and the text.
    pub fn compile(
        &self,
        sql: &str,
        input: &Schema,
        output: &DataType,
        place: &str,
    ) -> Result<Expression, Error> {
        let place = format!("{place}: expression `{sql}`");
        let refused = |error: DataFusionError| Error::user(&place, error.strip_backtrace());
        let schema = DFSchema::try_from(input.clone()).map_err(refused)?;
        let logical = self
            .state
            .create_logical_expr(sql, &schema)
            .map_err(refused)?;
        let physical = self
            .state
            .create_physical_expr(logical, &schema)
            .map_err(refused)?;
        let computed = physical.data_type(input).map_err(refused)?;
        if !can_cast_types(&computed, output) {
            return Err(Error::user(
                place,
                format!("is of type {computed}, which cannot become {output}"),
            ));
        }
        Ok(Expression {
            physical,
            output: output.clone(),
            place,
        })
    }
}

/// A compiled expression. Columns in: those of the schema that it was compiled over. Out: one column.
#[derive(Clone, Debug)]
pub struct Expression {
    physical: Arc<dyn PhysicalExpr>,
    output: DataType,
    place: String,
}

impl Expression {
    /// One value for each row. Fails on a value that the expression has no result for, such as a division by zero.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, Error> {
        let values = self
            .physical
            .evaluate(batch)
            .and_then(|values| values.into_array(batch.num_rows()))
            .map_err(|error| Error::user(&self.place, error.strip_backtrace()))?;
        cast(&values, &self.output, &self.place)
    }
}

/// `values` as `output`; a value that does not fit is an error that names `place`.
pub(crate) fn cast(values: &ArrayRef, output: &DataType, place: &str) -> Result<ArrayRef, Error> {
    if values.data_type() == output {
        return Ok(Arc::clone(values));
    }
    cast_with_options(values, output, &STRICT).map_err(|error| Error::user(place, error))
}

/// A batch of these columns. A NULL in a NOT NULL column is an error that names `place`.
pub(crate) fn batch_of(
    schema: &SchemaRef,
    columns: Vec<ArrayRef>,
    rows: usize,
    place: &str,
) -> Result<RecordBatch, Error> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|error| Error::user(place, error))
}

/// The same rows under a schema with other names or nullability.
pub(crate) fn with_schema(
    batch: RecordBatch,
    schema: &SchemaRef,
    place: &str,
) -> Result<RecordBatch, Error> {
    if batch.schema_ref() == schema {
        return Ok(batch);
    }
    let rows = batch.num_rows();
    batch_of(schema, batch.columns().to_vec(), rows, place)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, BooleanArray, Int64Array, StringArray};
    use arrow::datatypes::{Field, Int64Type, TimeUnit, TimestampMillisecondType};

    use super::*;

    fn batch() -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("delay", DataType::Int64, true),
            Field::new("Origin", DataType::Utf8, false),
            Field::new(
                "at",
                DataType::Timestamp(TimeUnit::Millisecond, None),
                false,
            ),
        ]);
        RecordBatch::try_new(
            Arc::new(schema),
            vec![
                Arc::new(Int64Array::from(vec![Some(3), None, Some(-1)])),
                Arc::new(StringArray::from(vec!["JFK", "LGA", "EWR"])),
                Arc::new(arrow::array::TimestampMillisecondArray::from(vec![
                    43_200_000, 0, 50,
                ])),
            ],
        )
        .unwrap()
    }

    fn evaluate(sql: &str, output: DataType) -> Result<ArrayRef, Error> {
        let compiler = ExpressionCompiler::new();
        let batch = batch();
        compiler
            .compile(sql, batch.schema_ref(), &output, "operator p")?
            .evaluate(&batch)
    }

    #[test]
    fn columns_keep_their_case_quoted_or_not() {
        for sql in ["Origin", "\"Origin\""] {
            let values = evaluate(sql, DataType::Utf8).unwrap();
            assert_eq!(values.as_string::<i32>().value(1), "LGA");
        }
        assert!(evaluate("origin", DataType::Utf8).is_err());
    }

    #[test]
    fn functions_case_and_casts_are_available() {
        let upper = evaluate("lower(substr(Origin, 1, 2))", DataType::Utf8).unwrap();
        assert_eq!(upper.as_string::<i32>().value(0), "jf");
        let case = evaluate(
            "CASE WHEN delay IS NULL THEN 0 WHEN delay > 0 THEN delay * 2 ELSE -1 END",
            DataType::Int64,
        );
        let case = case.unwrap();
        assert_eq!(case.as_primitive::<Int64Type>().values(), &[6, 0, -1]);
        let text = evaluate("CAST(delay AS STRING)", DataType::Utf8).unwrap();
        assert_eq!(text.as_string::<i32>().value(2), "-1");
        assert!(text.is_null(1));
    }

    #[test]
    fn an_interval_moves_a_timestamp() {
        let moved = evaluate(
            "at - INTERVAL '12' HOUR",
            DataType::Timestamp(TimeUnit::Millisecond, None),
        );
        let moved = moved.unwrap();
        let moved = moved.as_primitive::<TimestampMillisecondType>();
        assert_eq!(moved.values(), &[0, -43_200_000, 50 - 43_200_000]);
    }

    #[test]
    fn a_predicate_is_three_valued() {
        let kept = evaluate("delay > 0", DataType::Boolean).unwrap();
        let expected = BooleanArray::from(vec![Some(true), None, Some(false)]);
        assert_eq!(kept.as_boolean(), &expected);
    }

    #[test]
    fn errors_name_the_expression() {
        for (sql, output) in [
            ("nope + 1", DataType::Int64),
            ("delay +", DataType::Int64),
            ("delay delay2 delay3", DataType::Int64),
            ("no_such_function(delay)", DataType::Int64),
            ("sum(delay)", DataType::Int64),
            ("delay / 0", DataType::Int64),
            ("CAST(Origin AS BIGINT)", DataType::Int64),
            ("(SELECT 1)", DataType::Int64),
        ] {
            let error = evaluate(sql, output).unwrap_err();
            assert!(!error.retryable(), "{sql}: {error}");
            assert!(error.to_string().contains(sql), "{sql}: {error}");
            assert!(error.to_string().contains("operator p"), "{sql}: {error}");
        }
    }
}
