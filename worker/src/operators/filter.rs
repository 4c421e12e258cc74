//! Keeps the rows for which a predicate is true; NULL is not true.

use arrow::array::{Array, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::registry::Link;
use super::{Collector, Operator};
use crate::Error;
use crate::expressions::{Expression, with_schema};

#[derive(Debug)]
pub(super) struct Filter {
    predicate: Expression,
    output: SchemaRef,
    place: String,
}

impl Filter {
    pub(super) fn build(predicate: &str, link: &Link<'_>) -> Result<Self, Error> {
        Ok(Self {
            predicate: link.compiler.compile(
                predicate,
                link.input,
                &DataType::Boolean,
                link.place,
            )?,
            output: SchemaRef::clone(link.output),
            place: link.place.to_owned(),
        })
    }
}

impl Operator for Filter {
    fn process(&mut self, batch: RecordBatch, out: &mut dyn Collector) -> Result<(), Error> {
        let kept = self.predicate.evaluate(&batch)?;
        let kept: &BooleanArray = kept
            .as_any()
            .downcast_ref()
            .expect("a predicate is compiled to a boolean column");
        let passed = if kept.null_count() == 0 && kept.true_count() == batch.num_rows() {
            batch
        } else {
            filter_record_batch(&batch, kept).map_err(Error::arrow(&self.place))?
        };
        out.collect(with_schema(passed, &self.output, &self.place)?)
    }
}
