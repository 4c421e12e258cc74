//! One pass over an expression: names become columns, and what Flott lacks is refused with its name and place.
//!
//! A whitelist: a construct that is not named here does not pass, whatever sqlparser learns to read.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, CeilFloorKind, DataType as Written, DateTimeField, Expr, Ident,
    Interval, TimezoneInfo, TypedString, UnaryOperator, Value, VisitorMut,
};

use crate::error::{Position, SqlError, did_you_mean};
use crate::expressions::{Clause, Expressions, Scope, WINDOW_COLUMNS, column_reference};
use crate::functions::{self, Call};
use crate::rewrite::rewrite;
use crate::types;

/// Levels of an expression. The worker compiles it on the stack of a task's thread, and people read it.
const DEPTH_MAX: usize = 100;
/// Parts of an expression, with what rewriting adds: each is compiled, and evaluated for every row.
const PARTS_MAX: usize = 10_000;

pub(crate) struct Resolver<'a> {
    expressions: &'a Expressions<'a>,
    scope: &'a Scope<'a>,
    clause: Clause,
    depth: usize,
    parts: usize,
    /// The level of the aggregate that is being visited.
    aggregate: Option<usize>,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(
        expressions: &'a Expressions<'a>,
        scope: &'a Scope<'a>,
        clause: Clause,
    ) -> Self {
        Self {
            expressions,
            scope,
            clause,
            depth: 0,
            parts: 0,
            aggregate: None,
        }
    }
}

impl VisitorMut for Resolver<'_> {
    type Break = SqlError;

    fn pre_visit_expr(&mut self, part: &mut Expr) -> ControlFlow<SqlError> {
        self.depth += 1;
        self.parts += 1;
        let position = self.expressions.place(part, self.clause.position);
        let step = if self.depth > DEPTH_MAX || self.parts > PARTS_MAX {
            let message = format!(
                "the expression is too large (at most {DEPTH_MAX} levels and {PARTS_MAX} parts); split it with subqueries, or use IN for a chain of OR"
            );
            Err(SqlError::new(position, message))
        } else {
            self.enter(part, position)
        };
        match step {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn post_visit_expr(&mut self, _part: &mut Expr) -> ControlFlow<SqlError> {
        if self.aggregate == Some(self.depth) {
            self.aggregate = None;
        }
        self.depth -= 1;
        ControlFlow::Continue(())
    }
}

impl Resolver<'_> {
    fn enter(&mut self, part: &mut Expr, position: Position) -> Result<(), SqlError> {
        let refuse =
            |construct: &str, remedy: &str| Err(SqlError::unsupported(position, construct, remedy));
        match part {
            Expr::Identifier(ident) => {
                *part = Expr::Identifier(self.column(ident)?);
                Ok(())
            }
            Expr::CompoundIdentifier(parts) => {
                *part = Expr::Identifier(self.qualified_column(parts, position)?);
                Ok(())
            }
            Expr::Function(_) => self.call(part, position),
            Expr::BinaryOp { op, .. } => {
                if has_operator(op) {
                    Ok(())
                } else {
                    refuse(&format!("the operator {op}"), "")
                }
            }
            Expr::UnaryOp { op, .. } => match op {
                UnaryOperator::Plus | UnaryOperator::Minus | UnaryOperator::Not => Ok(()),
                other => refuse(&format!("the operator {other}"), ""),
            },
            Expr::Nested(_)
            | Expr::IsFalse(_)
            | Expr::IsNotFalse(_)
            | Expr::IsTrue(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotUnknown(_)
            | Expr::IsDistinctFrom(..)
            | Expr::IsNotDistinctFrom(..)
            | Expr::InList { .. }
            | Expr::Between { .. }
            | Expr::Like { any: false, .. }
            | Expr::ILike { any: false, .. }
            | Expr::Extract { .. }
            | Expr::Position { .. }
            | Expr::Substring { .. }
            | Expr::Trim { .. }
            | Expr::Overlay { .. }
            | Expr::Case { .. } => Ok(()),
            Expr::Value(value) => match &value.value {
                Value::Number(..)
                | Value::SingleQuotedString(_)
                | Value::Boolean(_)
                | Value::Null => Ok(()),
                Value::Placeholder(name) => {
                    refuse(&format!("the parameter {name}"), "write the value itself")
                }
                other => refuse(
                    &format!("the literal {other}"),
                    "write a number, 'text', TRUE, FALSE or NULL",
                ),
            },
            Expr::Cast {
                kind,
                data_type,
                array,
                format,
                ..
            } => {
                if matches!(kind, CastKind::DoubleColon | CastKind::SafeCast)
                    || *array
                    || format.is_some()
                {
                    return refuse("this form of a cast", "write CAST(x AS type)");
                }
                let target = types::cast_target(data_type)
                    .map_err(|message| SqlError::new(position, message))?;
                *data_type = types::written(target);
                Ok(())
            }
            Expr::TypedString(literal) => typed_literal(literal, position),
            Expr::Interval(interval) => check_interval(interval, position),
            Expr::Ceil { field, .. } | Expr::Floor { field, .. } => match field {
                CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) => Ok(()),
                _ => refuse(
                    "CEIL or FLOOR to a unit",
                    "write DATE_TRUNC('hour', x) for times, ROUND(x, digits) for numbers",
                ),
            },
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => refuse(
                "a subquery in an expression",
                "only FROM may hold a subquery",
            ),
            Expr::SimilarTo { .. } | Expr::RLike { .. } => {
                refuse("SIMILAR TO or RLIKE", "write REGEXP_LIKE(x, 'pattern')")
            }
            Expr::AtTimeZone { .. } => refuse("AT TIME ZONE", "Flott's timestamps have no zone"),
            Expr::Wildcard(_) | Expr::QualifiedWildcard(..) => {
                refuse("* in an expression", "name the columns")
            }
            Expr::Prefixed { .. } => refuse("TABLE in an expression", "it belongs into TUMBLE"),
            Expr::Collate { .. } => refuse("COLLATE", ""),
            Expr::Tuple(_) | Expr::Struct { .. } | Expr::Named { .. } => {
                refuse("a row value", "Flott's columns have simple types")
            }
            Expr::Array(_) | Expr::Map(_) | Expr::Dictionary(_) => {
                refuse("an ARRAY or MAP value", "Flott's columns have simple types")
            }
            Expr::CompoundFieldAccess { .. } | Expr::JsonAccess { .. } => refuse(
                "access to a field or element",
                "Flott's columns have simple types",
            ),
            Expr::AnyOp { .. } | Expr::AllOp { .. } => refuse("ANY or ALL", "write IN (...)"),
            Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_) => refuse(
                "GROUPING SETS, CUBE or ROLLUP",
                "write an INSERT for each grouping",
            ),
            Expr::Lambda(_) => refuse("a lambda", ""),
            other => {
                let text: String = other.to_string().chars().take(40).collect();
                refuse(&format!("the expression {text}"), "")
            }
        }
    }

    fn column(&self, ident: &Ident) -> Result<Ident, SqlError> {
        let position = Position::of_span(ident.span).unwrap_or(self.clause.position);
        let name = ident.value.as_str();
        let window = WINDOW_COLUMNS.contains(&name);
        if self.scope.schema.field(name).is_some() || (window && self.scope.windowed) {
            let mut column = column_reference(name);
            column.span = ident.span;
            return Ok(column);
        }
        if window || name == "window_time" {
            let remedy = if self.clause.name == "WHERE" {
                "select on it with HAVING"
            } else {
                "window_start and window_end are, in SELECT, GROUP BY and HAVING behind FROM TABLE(TUMBLE(...))"
            };
            let message = format!("{name} is not a column here: {remedy}");
            return Err(SqlError::new(position, message));
        }
        let known: Vec<&str> = self
            .scope
            .schema
            .fields
            .iter()
            .map(|field| field.name.as_str())
            .collect();
        let near = did_you_mean(name, &known);
        let message = format!("column {name:?} not found in {}{near}", self.scope.relation);
        Err(SqlError::new(position, message))
    }

    fn qualified_column(&self, parts: &[Ident], position: Position) -> Result<Ident, SqlError> {
        let [qualifier, column] = parts else {
            return Err(SqlError::unsupported(
                position,
                "a column name of more than two parts",
                "write column or table.column",
            ));
        };
        if self.scope.qualifier == Some(qualifier.value.as_str()) {
            return self.column(column).map(|mut found| {
                found.span = qualifier.span.union(&column.span);
                found
            });
        }
        let known: Vec<&str> = self.scope.qualifier.into_iter().collect();
        let near = did_you_mean(&qualifier.value, &known);
        let message = format!(
            "{:?} is no table or alias of this FROM{near}",
            qualifier.value
        );
        Err(SqlError::new(position, message))
    }

    fn call(&mut self, part: &mut Expr, position: Position) -> Result<(), SqlError> {
        let Expr::Function(function) = part else {
            return Ok(());
        };
        match self.expressions.classify(function, position)? {
            Call::Scalar => {
                if let Some(rewritten) = rewrite(function, position)? {
                    *part = rewritten;
                }
                Ok(())
            }
            Call::Aggregate(_) => {
                let name = functions::name_of(function).to_uppercase();
                if self.aggregate.is_some() {
                    let construct = format!("the aggregate {name} inside another aggregate");
                    let remedy = "aggregate once per window";
                    return Err(SqlError::unsupported(position, &construct, remedy));
                }
                if !self.clause.aggregates {
                    let construct = format!("the aggregate {name} in {}", self.clause.name);
                    let remedy = match self.clause.name {
                        "WHERE" => "select on aggregates with HAVING",
                        "SELECT" => {
                            "aggregate in a window: FROM TABLE(TUMBLE(...)) GROUP BY window_start, window_end"
                        }
                        _ => "aggregates belong into SELECT and HAVING",
                    };
                    return Err(SqlError::unsupported(position, &construct, remedy));
                }
                self.aggregate = Some(self.depth);
                Ok(())
            }
        }
    }
}

fn has_operator(operator: &BinaryOperator) -> bool {
    matches!(
        operator,
        BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Modulo
            | BinaryOperator::StringConcat
            | BinaryOperator::Gt
            | BinaryOperator::Lt
            | BinaryOperator::GtEq
            | BinaryOperator::LtEq
            | BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::And
            | BinaryOperator::Or
    )
}

/// `DATE '…'` and `TIMESTAMP '…'`; the latter gets the precision its digits ask for, at least milliseconds.
///
/// Without one DataFusion takes nanoseconds, which end in the year 2262.
fn typed_literal(literal: &mut TypedString, position: Position) -> Result<(), SqlError> {
    let Value::SingleQuotedString(text) = &literal.value.value else {
        let message = "a DATE or TIMESTAMP literal is written as TIMESTAMP '2013-01-01 05:00:00'";
        return Err(SqlError::new(position, message));
    };
    literal.uses_odbc_syntax = false;
    match &literal.data_type {
        Written::Date => Ok(()),
        Written::Timestamp(None, TimezoneInfo::None) => {
            let fraction = text.rsplit_once('.').map_or(0, |(_, digits)| digits.len());
            let precision = match fraction {
                0..=3 => 3,
                4..=6 => 6,
                _ => 9,
            };
            literal.data_type = Written::Timestamp(Some(precision), TimezoneInfo::None);
            Ok(())
        }
        other => Err(SqlError::unsupported(
            position,
            &format!("a literal of the type {other}"),
            "write CAST('...' AS type)",
        )),
    }
}

/// `INTERVAL '5' MINUTE`: a quoted number and one unit.
fn check_interval(interval: &Interval, position: Position) -> Result<(), SqlError> {
    let quoted = matches!(interval.value.as_ref(), Expr::Value(value)
        if matches!(value.value, Value::SingleQuotedString(_)));
    if !quoted || interval.leading_field.is_none() {
        let message = "an interval is written as a quoted number and a unit: INTERVAL '5' MINUTE";
        return Err(SqlError::new(position, message));
    }
    if interval.last_field.is_some()
        || interval.leading_precision.is_some()
        || interval.fractional_seconds_precision.is_some()
    {
        return Err(SqlError::unsupported(
            position,
            "an interval of several units or with a precision",
            "add intervals of one unit: INTERVAL '1' DAY + INTERVAL '2' HOUR",
        ));
    }
    Ok(())
}
