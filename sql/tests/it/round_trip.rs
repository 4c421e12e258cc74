//! Every expression of every golden job means to the worker what it means here.
//!
//! The worker parses the text with DataFusion over the operator's input columns and casts the result to the declared
//! type. This does the same, from the graph alone.

use std::sync::Arc;

use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType as ArrowType, Schema as ArrowSchema};
use datafusion::common::DFSchema;
use datafusion::prelude::SessionContext;
use flott_proto::data_type::DataType;
use flott_proto::job_graph::{AggregateFunction, JobGraph, OperatorKind, Partitioning, Schema};
use flott_sql::Compiled;

use crate::compiler::run;
use crate::golden::whole_scripts;

fn check_expression(context: &SessionContext, text: &str, input: &Schema, declared: DataType) {
    let arrow: Arc<ArrowSchema> = Arc::new(input.to_arrow());
    let schema = DFSchema::try_from(Arc::clone(&arrow)).unwrap();
    let logical = context
        .parse_sql_expr(text, &schema)
        .unwrap_or_else(|error| panic!("{text}: {error}"));
    let physical = context
        .create_physical_expr(logical, &schema)
        .unwrap_or_else(|error| panic!("{text}: {error}"));
    let found = physical.data_type(&arrow).unwrap();
    let declared = declared.to_arrow();
    let castable = found == ArrowType::Null || can_cast_types(&found, &declared);
    assert!(castable, "{text} is {found}, declared {declared}");
}

/// Checks all operators of a graph; the number of expressions.
pub(crate) fn check_graph(graph: &JobGraph) -> usize {
    let context = SessionContext::new();
    graph.validate().unwrap();
    let mut count = 0;
    for vertex in graph.in_topological_order() {
        let mut input = graph.inputs(&vertex.uid).next().map(|(_, edge)| {
            &graph
                .vertex(&edge.source)
                .unwrap()
                .chain
                .last()
                .unwrap()
                .output
        });
        for operator in &vertex.chain {
            let schema = input.cloned().unwrap_or_default();
            match &operator.kind {
                OperatorKind::Source(_) => {}
                OperatorKind::AssignWatermark(watermark) => {
                    let (_, column) = schema.field(&watermark.column).unwrap();
                    check_expression(&context, &watermark.expression, &schema, column.data_type);
                    assert_eq!(operator.output, schema);
                    count += 1;
                }
                OperatorKind::Filter { predicate } => {
                    check_expression(&context, predicate, &schema, DataType::Boolean);
                    assert_eq!(operator.output, schema);
                    count += 1;
                }
                OperatorKind::Project { expressions } => {
                    assert_eq!(expressions.len(), operator.output.fields.len());
                    for (named, field) in expressions.iter().zip(&operator.output.fields) {
                        assert_eq!(named.name, field.name);
                        check_expression(&context, &named.expression, &schema, field.data_type);
                        count += 1;
                    }
                }
                OperatorKind::WindowAggregate(aggregate) => {
                    let mut names = aggregate.keys.clone();
                    names.push(aggregate.window_start.clone());
                    names.push(aggregate.window_end.clone());
                    names.extend(aggregate.aggregates.iter().map(|a| a.output.clone()));
                    let output: Vec<&str> = operator
                        .output
                        .fields
                        .iter()
                        .map(|f| f.name.as_str())
                        .collect();
                    assert_eq!(output, names);
                    assert!(schema.field(&aggregate.time_column).is_some());
                    for key in &aggregate.keys {
                        assert!(schema.field(key).is_some(), "no key {key}");
                    }
                    for planned in &aggregate.aggregates {
                        match &planned.argument {
                            Some(column) => assert!(schema.field(column).is_some(), "{column}"),
                            None => assert_eq!(planned.function, AggregateFunction::Count),
                        }
                    }
                    let (_, edge) = graph.inputs(&vertex.uid).next().unwrap();
                    match &edge.partitioning {
                        Partitioning::Hash { columns } => assert_eq!(*columns, aggregate.keys),
                        other => {
                            assert!(aggregate.keys.is_empty(), "{other:?}");
                            assert_eq!(vertex.parallelism, 1);
                        }
                    }
                }
                OperatorKind::Sink(_) => assert!(operator.output.fields.is_empty()),
            }
            input = Some(&operator.output);
        }
    }
    count
}

#[test]
fn every_expression_of_every_job_compiles_in_the_worker() {
    let mut count = 0;
    for (path, script) in whole_scripts() {
        if let Ok(Compiled::Job { graph, .. }) = run(&script) {
            assert!(!path.with_extension("err").exists(), "{}", path.display());
            count += check_graph(&graph);
        }
    }
    assert!(count > 100, "only {count} expressions");
}
