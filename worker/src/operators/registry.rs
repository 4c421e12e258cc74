//! From a vertex of the JobGraph to its operators: the one place that knows them all.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use flott_proto::job_graph::{self as graph, OperatorKind, Vertex};

use super::Operator;
use super::assign_watermark::AssignWatermark;
use super::filter::Filter;
use super::project::Project;
use super::window::WindowAggregate;
use crate::Error;
use crate::connectors::Source;
use crate::connectors::blackhole::Blackhole;
use crate::connectors::filesystem::{FileSink, FileSource};
use crate::connectors::nexmark::NexmarkSource;
use crate::expressions::ExpressionCompiler;

/// The operators of a vertex with their uids, in the order of the data's flow.
pub(super) struct Built {
    pub(super) source: Option<(String, Box<dyn Source>)>,
    pub(super) operators: Vec<(String, Box<dyn Operator>)>,
}

/// Compiles every operator of `vertex`; opens nothing.
pub(super) fn build(vertex: &Vertex, input: Option<SchemaRef>) -> Result<Built, Error> {
    let compiler = ExpressionCompiler::new();
    let mut built = Built {
        source: None,
        operators: Vec::new(),
    };
    let mut flowing = input;
    let mut keyed = 0;
    for operator in &vertex.chain {
        let place = format!("operator {} ({})", operator.uid, operator.name);
        let output: SchemaRef = Arc::new(operator.output.to_arrow());
        if let OperatorKind::Source(source) = &operator.kind {
            if flowing.is_some() {
                return Err(Error::user(place, "a source cannot have an input"));
            }
            let source = build_source(source, Arc::clone(&output), &place)?;
            built.source = Some((operator.uid.clone(), source));
            flowing = Some(output);
            continue;
        }
        let input = flowing
            .take()
            .ok_or_else(|| Error::user(&place, "has no input"))?;
        let link = Link {
            compiler: &compiler,
            input: &input,
            output: &output,
            place: &place,
        };
        let operator_box: Box<dyn Operator> = match &operator.kind {
            OperatorKind::Source(_) => unreachable!("handled above"),
            OperatorKind::AssignWatermark(assign) => {
                Box::new(AssignWatermark::build(assign, &link)?)
            }
            OperatorKind::Filter { predicate } => Box::new(Filter::build(predicate, &link)?),
            OperatorKind::Project { expressions } => Box::new(Project::build(expressions, &link)?),
            OperatorKind::WindowAggregate(window) => {
                keyed += 1;
                if keyed > 1 {
                    return Err(Error::user(
                        place,
                        "a vertex can hold one operator with keyed state; put an edge before this one",
                    ));
                }
                Box::new(WindowAggregate::build(window, &link)?)
            }
            OperatorKind::Sink(graph::Sink::Filesystem(files)) => {
                Box::new(FileSink::build(files, &link)?)
            }
            OperatorKind::Sink(graph::Sink::Blackhole) => Box::new(Blackhole::default()),
        };
        built.operators.push((operator.uid.clone(), operator_box));
        flowing = match operator.kind {
            OperatorKind::Sink(_) => None,
            _ => Some(output),
        };
    }
    Ok(built)
}

fn build_source(
    source: &graph::Source,
    output: SchemaRef,
    place: &str,
) -> Result<Box<dyn Source>, Error> {
    Ok(match source {
        graph::Source::Filesystem(files) => Box::new(FileSource::build(files, output)),
        graph::Source::Nexmark(nexmark) => Box::new(NexmarkSource::build(nexmark, output, place)?),
    })
}

/// What an operator is built from, besides its own description.
pub(crate) struct Link<'a> {
    pub(crate) compiler: &'a ExpressionCompiler,
    pub(crate) input: &'a SchemaRef,
    /// As the JobGraph declares it; empty for a sink.
    pub(crate) output: &'a SchemaRef,
    /// Names the operator in errors.
    pub(crate) place: &'a str,
}

impl Link<'_> {
    /// The position of an input column.
    pub(crate) fn column(&self, name: &str) -> Result<usize, Error> {
        self.input.index_of(name).map_err(|_| {
            let known = names(self.input);
            Error::user(
                self.place,
                format!("no column {name:?} in its input; there are {known}"),
            )
        })
    }
}

/// The column names of a schema, for messages.
pub(crate) fn names(schema: &Schema) -> String {
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    names.join(", ")
}
