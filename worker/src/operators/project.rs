//! Computes new columns from the input's, one expression a column.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use flott_proto::job_graph::NamedExpression;

use super::registry::Link;
use super::{Collector, Operator};
use crate::Error;
use crate::expressions::{Expression, batch_of};

#[derive(Debug)]
pub(super) struct Project {
    expressions: Vec<Expression>,
    output: SchemaRef,
    place: String,
}

impl Project {
    pub(super) fn build(expressions: &[NamedExpression], link: &Link<'_>) -> Result<Self, Error> {
        let fields = link.output.fields();
        if expressions.len() != fields.len() {
            return Err(Error::user(
                link.place,
                format!(
                    "has {} expressions for {} output columns",
                    expressions.len(),
                    fields.len()
                ),
            ));
        }
        let compile = |(named, field): (&NamedExpression, &arrow::datatypes::FieldRef)| {
            link.compiler.compile(
                &named.expression,
                link.input,
                field.data_type(),
                &format!("{}, column {}", link.place, field.name()),
            )
        };
        Ok(Self {
            expressions: expressions
                .iter()
                .zip(fields)
                .map(compile)
                .collect::<Result<_, _>>()?,
            output: SchemaRef::clone(link.output),
            place: link.place.to_owned(),
        })
    }
}

impl Operator for Project {
    fn process(&mut self, batch: RecordBatch, out: &mut dyn Collector) -> Result<(), Error> {
        let columns = self
            .expressions
            .iter()
            .map(|expression| expression.evaluate(&batch))
            .collect::<Result<Vec<_>, _>>()?;
        out.collect(batch_of(
            &self.output,
            columns,
            batch.num_rows(),
            &self.place,
        )?)
    }
}
