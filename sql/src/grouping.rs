//! Expressions on both sides of a window aggregate: what goes in, and how the SELECT list reads what comes out.
//!
//! [`Inputs`] collects the columns that the aggregate needs. [`Grouping`] walks each expression of SELECT and HAVING
//! from the outside in: a part that is a group key becomes the key's column, a call of an aggregate becomes the
//! aggregate's column, and a column that is left over is an error.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    CastKind, Expr, Function, Spanned, Value, Visit, VisitMut, Visitor, VisitorMut,
};
use flott_proto::data_type::DataType;
use flott_proto::job_graph::{Aggregate, AggregateFunction, Field, Schema};

use crate::error::{Position, SqlError};
use crate::expressions::{Clause, Scope, Typed, WINDOW_COLUMNS, column_reference};
use crate::functions::{self, Call};
use crate::plan::Planner;
use crate::relation::Relation;
use crate::types;

/// A group key: the expression over the input, and its column in the aggregate's input and output.
pub(crate) struct Key {
    pub(crate) tree: Expr,
    pub(crate) column: String,
}

/// An aggregate and its output column.
pub(crate) struct PlannedAggregate {
    /// The call over the input.
    tree: Expr,
    pub(crate) aggregate: Aggregate,
    pub(crate) field: Field,
}

/// The columns of the aggregate's input: some of the relation's, and computed ones.
pub(crate) struct Inputs<'a> {
    schema: &'a Schema,
    kept: Vec<bool>,
    computed: Vec<(Field, String)>,
}

impl<'a> Inputs<'a> {
    pub(crate) fn new(schema: &'a Schema) -> Self {
        Self {
            schema,
            kept: vec![false; schema.fields.len()],
            computed: Vec::new(),
        }
    }

    pub(crate) fn keep(&mut self, column: &str) {
        if let Some((index, _)) = self.schema.field(column) {
            self.kept[index] = true;
        }
    }

    /// The name under which an expression over the relation reaches the aggregate.
    pub(crate) fn add(&mut self, typed: Typed, kind: &str) -> Result<String, SqlError> {
        if let Some(column) = typed.column() {
            let column = column.to_owned();
            self.keep(&column);
            return Ok(column);
        }
        if let Some((field, _)) = self.computed.iter().find(|(_, text)| *text == typed.text) {
            return Ok(field.name.clone());
        }
        let Some(data_type) = typed.data_type else {
            let message = "NULL has no type here; write CAST(NULL AS type)";
            return Err(SqlError::new(typed.position, message));
        };
        let name = free_name(kind, |name| {
            self.schema.field(name).is_some()
                || self.computed.iter().any(|(field, _)| field.name == name)
        });
        let field = Field {
            name: name.clone(),
            data_type,
            nullable: typed.nullable,
        };
        self.computed.push((field, typed.text));
        Ok(name)
    }

    fn columns(self) -> Vec<(Field, String)> {
        let kept = self.schema.fields.iter().zip(self.kept);
        let mut columns: Vec<(Field, String)> = kept
            .filter(|(_, kept)| *kept)
            .map(|(field, _)| (field.clone(), column_reference(&field.name).to_string()))
            .collect();
        columns.extend(self.computed);
        columns
    }
}

/// `kind_1`, or the next number that is not taken.
fn free_name(kind: &str, taken: impl Fn(&str) -> bool) -> String {
    (1..)
        .map(|number| format!("{kind}_{number}"))
        .find(|name| !taken(name))
        .expect("numbers do not run out")
}

/// Rewrites expressions over the input into expressions over the aggregate's output, collecting the aggregates.
pub(crate) struct Grouping<'a> {
    planner: &'a Planner<'a>,
    relation: &'a Relation,
    keys: &'a [Key],
    inputs: Inputs<'a>,
    aggregates: Vec<PlannedAggregate>,
    /// The alias of the select item, if it is an aggregate and nothing else.
    wanted_name: Option<String>,
    position: Position,
}

impl<'a> Grouping<'a> {
    pub(crate) fn new(
        planner: &'a Planner<'a>,
        relation: &'a Relation,
        keys: &'a [Key],
        inputs: Inputs<'a>,
    ) -> Self {
        Self {
            planner,
            relation,
            keys,
            inputs,
            aggregates: Vec::new(),
            wanted_name: None,
            position: Position::START,
        }
    }

    /// The columns of the aggregate's input with their text, and the aggregates.
    pub(crate) fn into_parts(self) -> (Vec<(Field, String)>, Vec<PlannedAggregate>) {
        (self.inputs.columns(), self.aggregates)
    }

    /// The expression over the aggregate's output. `name` is that of its select item.
    pub(crate) fn rewrite(
        &mut self,
        written: &Expr,
        clause: Clause,
        name: Option<&str>,
    ) -> Result<Expr, SqlError> {
        let scope = Scope {
            windowed: true,
            ..self.relation.scope()
        };
        let mut tree = self.planner.expressions.resolve(written, &scope, clause)?;
        let bare = matches!(tree, Expr::Function(_));
        self.wanted_name = name
            .filter(|name| bare && !name.contains('$'))
            .map(str::to_owned);
        self.position = clause.position;
        match VisitMut::visit(&mut tree, self) {
            ControlFlow::Continue(()) => Ok(tree),
            ControlFlow::Break(error) => Err(error),
        }
    }

    /// The output column of an aggregate call.
    fn aggregate(
        &mut self,
        function: AggregateFunction,
        call: &Function,
        position: Position,
    ) -> Result<String, SqlError> {
        let tree = Expr::Function(call.clone());
        if let Some(known) = self.aggregates.iter().find(|known| known.tree == tree) {
            return Ok(known.field.name.clone());
        }
        let name = functions::name_of(call);
        let argument = functions::arguments(call).first().copied();
        let typed = match argument {
            Some(argument) if !(function == AggregateFunction::Count && is_constant(argument)) => {
                refuse_window_columns(argument, position, &name.to_uppercase())?;
                let schema = &self.relation.schema;
                let expressions = self.planner.expressions;
                let typed = expressions.plan(argument.clone(), schema, position)?;
                let decimal = matches!(typed.data_type, Some(DataType::Decimal { .. }));
                if function == AggregateFunction::Avg && decimal {
                    // The mean of decimals would be rounded to their scale before it became DOUBLE.
                    Some(expressions.plan(as_double(typed.tree), schema, position)?)
                } else {
                    Some(typed)
                }
            }
            _ => None,
        };
        let (data_type, nullable) = match &typed {
            None => (DataType::BigInt, false),
            Some(typed) => (
                result_type(function, typed, &name)?,
                function != AggregateFunction::Count && typed.nullable,
            ),
        };
        let argument = typed
            .map(|typed| self.inputs.add(typed, "argument"))
            .transpose()?;
        let output = self.output_name(&name);
        self.aggregates.push(PlannedAggregate {
            tree,
            aggregate: Aggregate {
                function,
                argument,
                output: output.clone(),
            },
            field: Field {
                name: output.clone(),
                data_type,
                nullable,
            },
        });
        Ok(output)
    }

    /// Adds `COUNT(*)` if nothing is aggregated, so that every window has a value to keep.
    pub(crate) fn ensure_aggregate(&mut self) {
        if !self.aggregates.is_empty() {
            return;
        }
        let name = self.output_name("count");
        self.aggregates.push(PlannedAggregate {
            tree: Expr::Value(Value::Null.with_empty_span()),
            aggregate: Aggregate {
                function: AggregateFunction::Count,
                argument: None,
                output: name.clone(),
            },
            field: Field {
                name,
                data_type: DataType::BigInt,
                nullable: false,
            },
        });
    }

    fn output_name(&mut self, function: &str) -> String {
        let taken = |name: &str| {
            WINDOW_COLUMNS.contains(&name)
                || self.keys.iter().any(|key| key.column == name)
                || self.aggregates.iter().any(|known| known.field.name == name)
        };
        match self.wanted_name.take() {
            Some(wanted) if !taken(&wanted) => wanted,
            _ => free_name(function, taken),
        }
    }

    fn enter(&mut self, part: &mut Expr) -> Result<(), SqlError> {
        let position = Position::of(part, self.position);
        if let Some(key) = self.keys.iter().find(|key| key.tree == *part) {
            *part = column_in_place_of(part, &key.column);
            return Ok(());
        }
        match part {
            Expr::Identifier(ident) if !WINDOW_COLUMNS.contains(&ident.value.as_str()) => {
                let message = format!(
                    "column {:?} is neither in GROUP BY nor inside an aggregate; add it to GROUP BY, or take MAX of it",
                    ident.value
                );
                Err(SqlError::new(position, message))
            }
            Expr::Function(call) => {
                if let Call::Aggregate(function) =
                    self.planner.expressions.classify(call, position)?
                {
                    let column = self.aggregate(function, call, position)?;
                    *part = column_in_place_of(part, &column);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl VisitorMut for Grouping<'_> {
    type Break = SqlError;

    fn pre_visit_expr(&mut self, part: &mut Expr) -> ControlFlow<SqlError> {
        match self.enter(part) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

fn as_double(tree: Expr) -> Expr {
    Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(tree),
        data_type: types::written(DataType::Double),
        array: false,
        format: None,
    }
}

/// The column, where the expression that it stands for was written.
fn column_in_place_of(part: &Expr, name: &str) -> Expr {
    let mut column = column_reference(name);
    column.span = part.span();
    Expr::Identifier(column)
}

/// `COUNT(1)` counts rows.
fn is_constant(argument: &Expr) -> bool {
    matches!(argument, Expr::Value(value) if value.value != Value::Null)
}

/// Flink's result types, except that AVG is always DOUBLE.
fn result_type(
    function: AggregateFunction,
    typed: &Typed,
    name: &str,
) -> Result<DataType, SqlError> {
    use DataType::{BigInt, Decimal, Double, Float, Int, SmallInt, TinyInt};
    let wrong = |needs: &str, found: &str| {
        let message = format!(
            "{} needs {needs}, {} is {found}; CAST it",
            name.to_uppercase(),
            typed.text
        );
        Err(SqlError::new(typed.position, message))
    };
    let Some(argument) = typed.data_type else {
        return wrong("a typed value", "NULL");
    };
    let number = matches!(
        argument,
        TinyInt | SmallInt | Int | BigInt | Float | Double | Decimal { .. }
    );
    match function {
        AggregateFunction::Count => Ok(BigInt),
        AggregateFunction::Sum | AggregateFunction::Avg if !number => {
            wrong("a number", &argument.to_string())
        }
        AggregateFunction::Avg => Ok(Double),
        AggregateFunction::Sum => Ok(match argument {
            Float | Double => Double,
            Decimal { scale, .. } => Decimal {
                precision: 38,
                scale,
            },
            _ => BigInt,
        }),
        AggregateFunction::Min | AggregateFunction::Max => Ok(argument),
    }
}

/// The window's bounds are made by the aggregate and do not exist in its input.
pub(crate) fn refuse_window_columns(
    tree: &Expr,
    position: Position,
    place: &str,
) -> Result<(), SqlError> {
    struct Find;
    impl Visitor for Find {
        type Break = (String, Option<Position>);
        fn pre_visit_expr(&mut self, part: &Expr) -> ControlFlow<Self::Break> {
            match part {
                Expr::Identifier(ident) if WINDOW_COLUMNS.contains(&ident.value.as_str()) => {
                    ControlFlow::Break((ident.value.clone(), Position::of_span(ident.span)))
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    match Visit::visit(tree, &mut Find) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break((name, found)) => Err(SqlError::unsupported(
            found.unwrap_or(position),
            &format!("an expression of {name} in {place}"),
            "compute it in the SELECT list",
        )),
    }
}
