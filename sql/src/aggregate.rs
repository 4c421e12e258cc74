//! Window aggregation: `… FROM TABLE(TUMBLE(…)) GROUP BY window_start, window_end, keys…`.
//!
//! ```text
//! input → [project: time, keys, arguments] → window aggregate → [filter: HAVING] → (the caller's projection)
//! ```
//!
//! The projection in front computes keys and arguments that are expressions, and drops what no one needs before rows
//! cross the network. Behind the aggregate, every expression is rewritten over its output columns: [`crate::grouping`].

use datafusion::sql::sqlparser::ast::Expr;
use flott_proto::data_type::DataType;
use flott_proto::job_graph::{Aggregate, Field, OperatorKind, Schema, WindowAggregate};

use crate::error::{Position, SqlError};
use crate::expressions::{Clause, Scope, WINDOW_COLUMNS, column_of};
use crate::grouping::{Grouping, Inputs, Key, PlannedAggregate, refuse_window_columns};
use crate::plan::Planner;
use crate::relation::{Item, Relation, Selected, WrittenItem};
use crate::tumble::Window;

/// The parts of a SELECT over a window function.
pub(crate) struct WindowQuery<'q> {
    pub(crate) window: Window,
    pub(crate) group_by: &'q [Expr],
    pub(crate) having: Option<&'q Expr>,
    pub(crate) items: Vec<WrittenItem>,
    /// Of the word `SELECT`.
    pub(crate) position: Position,
}

pub(crate) fn plan(
    planner: &Planner<'_>,
    mut relation: Relation,
    query: WindowQuery<'_>,
) -> Result<Selected, SqlError> {
    let mut inputs = Inputs::new(&relation.schema);
    inputs.keep(&query.window.time_column);
    let keys = keys(planner, &relation, &query, &mut inputs)?;
    let mut grouping = Grouping::new(planner, &relation, &keys, inputs);
    let mut trees = Vec::new();
    for item in &query.items {
        let clause = Clause {
            name: "SELECT",
            aggregates: true,
            position: item.position,
        };
        trees.push(grouping.rewrite(&item.expression, clause, Some(&item.name))?);
    }
    let mut having = None;
    if let Some(condition) = query.having {
        let clause = Clause {
            name: "HAVING",
            aggregates: true,
            position: query.position,
        };
        having = Some(grouping.rewrite(condition, clause, None)?);
    }
    grouping.ensure_aggregate();
    let (input_columns, aggregates) = grouping.into_parts();
    relation.project("window-input", input_columns);
    aggregate_step(&mut relation, query.window, &keys, aggregates);
    if let Some(condition) = having {
        let typed = planner
            .expressions
            .plan(condition, &relation.schema, query.position)?;
        relation.filter("having", planner.expressions.condition(typed, "HAVING")?);
    }
    let items = query.items.iter().zip(trees).map(|(written, tree)| {
        Ok(Item {
            name: written.name.clone(),
            typed: planner
                .expressions
                .plan(tree, &relation.schema, written.position)?,
        })
    });
    let items = items.collect::<Result<_, SqlError>>()?;
    Ok(Selected {
        relation,
        items,
        position: query.position,
    })
}

fn keys(
    planner: &Planner<'_>,
    relation: &Relation,
    query: &WindowQuery<'_>,
    inputs: &mut Inputs<'_>,
) -> Result<Vec<Key>, SqlError> {
    let scope = Scope {
        windowed: true,
        ..relation.scope()
    };
    let clause = Clause {
        name: "GROUP BY",
        aggregates: false,
        position: query.position,
    };
    let mut keys: Vec<Key> = Vec::new();
    let mut windows = [false; WINDOW_COLUMNS.len()];
    for written in query.group_by {
        let position = Position::of(written, query.position);
        let mut tree = planner.expressions.resolve(written, &scope, clause)?;
        while let Expr::Nested(inner) = tree {
            tree = *inner;
        }
        if matches!(tree, Expr::Value(_)) {
            let remedy = "name the column or write the expression";
            let construct = "a position or constant in GROUP BY";
            return Err(SqlError::unsupported(position, construct, remedy));
        }
        let window = WINDOW_COLUMNS
            .iter()
            .position(|name| column_of(&tree) == Some(name));
        if let Some(index) = window {
            windows[index] = true;
            continue;
        }
        refuse_window_columns(&tree, position, "GROUP BY")?;
        if keys.iter().any(|key| key.tree == tree) {
            continue;
        }
        let typed = planner
            .expressions
            .plan(tree.clone(), &relation.schema, position)?;
        let column = inputs.add(typed, "key")?;
        keys.push(Key { tree, column });
    }
    if windows != [true; WINDOW_COLUMNS.len()] {
        let place = planner
            .words
            .before(Position::of(&query.group_by[0], query.position), "GROUP");
        let message = "GROUP BY over TUMBLE must name both window_start and window_end";
        return Err(SqlError::new(place, message));
    }
    Ok(keys)
}

/// Appends the aggregate itself: keys, window bounds and aggregates come out, in this order.
fn aggregate_step(
    relation: &mut Relation,
    window: Window,
    keys: &[Key],
    aggregates: Vec<PlannedAggregate>,
) {
    let mut fields: Vec<Field> = keys
        .iter()
        .map(|key| {
            let (_, field) = relation
                .schema
                .field(&key.column)
                .expect("the aggregate's input has every key");
            field.clone()
        })
        .collect();
    fields.extend(WINDOW_COLUMNS.map(|name| Field {
        name: name.to_owned(),
        data_type: DataType::Timestamp { precision: 3 },
        nullable: false,
    }));
    let (aggregates, outputs): (Vec<Aggregate>, Vec<Field>) = aggregates
        .into_iter()
        .map(|planned| (planned.aggregate, planned.field))
        .unzip();
    fields.extend(outputs);
    let [window_start, window_end] = WINDOW_COLUMNS.map(str::to_owned);
    let kind = OperatorKind::WindowAggregate(WindowAggregate {
        time_column: window.time_column,
        size_ms: window.size_ms,
        offset_ms: window.offset_ms,
        keys: keys.iter().map(|key| key.column.clone()).collect(),
        aggregates,
        window_start,
        window_end,
    });
    relation.push("window-aggregate", kind, Schema { fields });
    relation.label = "the window aggregation".to_owned();
    relation.qualifier = None;
    relation.rowtime = None;
}
