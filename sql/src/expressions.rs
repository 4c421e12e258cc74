//! Expressions: names resolved, constructs checked, types found.
//!
//! What leaves this file is **text** over the columns of one schema. It is the syntax tree printed with resolved and
//! quoted names; DataFusion then parses, types and compiles that text exactly as the worker does later. So the worker
//! cannot understand it otherwise, and an error in it is found here, with its position in the script.

use std::ops::ControlFlow;

use arrow::datatypes::{DataType as ArrowType, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::{DFSchema, DataFusionError};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::ExprSchemable;
use datafusion::prelude::SessionConfig;
use datafusion::sql::sqlparser::ast::{
    CastKind, Expr, ExprWithAlias, Function, Ident, Visit, VisitMut, Visitor,
};
use datafusion::sql::sqlparser::keywords::ALL_KEYWORDS;
use flott_proto::data_type::DataType;
use flott_proto::job_graph::Schema;

use crate::comparisons;
use crate::error::{Position, SqlError};
use crate::functions::{self, Call};
use crate::resolve::Resolver;
use crate::script::Words;

/// The columns of a window, beside those of its input.
pub(crate) const WINDOW_COLUMNS: [&str; 2] = ["window_start", "window_end"];

/// The columns that an expression may name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) schema: &'a Schema,
    /// For messages, e.g. `table flights`.
    pub(crate) relation: &'a str,
    /// What may stand before a column's name and a dot.
    pub(crate) qualifier: Option<&'a str>,
    /// Whether [`WINDOW_COLUMNS`] are columns as well.
    pub(crate) windowed: bool,
}

/// The clause that an expression stands in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clause {
    pub(crate) name: &'static str,
    pub(crate) aggregates: bool,
    pub(crate) position: Position,
}

/// An expression that the worker will understand, over the columns of one schema.
#[derive(Clone, Debug)]
pub(crate) struct Typed {
    /// With resolved names.
    pub(crate) tree: Expr,
    pub(crate) text: String,
    /// None for the literal `NULL`, which has the type of wherever it is stored.
    pub(crate) data_type: Option<DataType>,
    pub(crate) nullable: bool,
    pub(crate) position: Position,
}

impl Typed {
    /// The column's name, if the expression is a column and nothing else.
    pub(crate) fn column(&self) -> Option<&str> {
        column_of(&self.tree)
    }
}

/// The column's name, if a resolved expression is a column and nothing else.
pub(crate) fn column_of(tree: &Expr) -> Option<&str> {
    match tree {
        Expr::Identifier(ident) => Some(&ident.value),
        Expr::Nested(inner) => column_of(inner),
        _ => None,
    }
}

/// A column's name as it stands in text: quoted unless every reader takes it as it is.
pub(crate) fn column_reference(name: &str) -> Ident {
    let mut characters = name.chars();
    let plain = characters
        .next()
        .is_some_and(|first| first.is_ascii_lowercase() || first == '_')
        && characters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && ALL_KEYWORDS
            .binary_search(&name.to_uppercase().as_str())
            .is_err();
    if plain {
        Ident::new(name)
    } else {
        Ident::with_quote('"', name)
    }
}

/// DataFusion as the worker sets it up: names keep their case, strings are not views.
fn session() -> SessionState {
    let mut config = SessionConfig::new();
    let parser = &mut config.options_mut().sql_parser;
    parser.enable_ident_normalization = false;
    parser.map_string_types_to_utf8view = false;
    SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .build()
}

/// Compiles expressions; knows DataFusion's functions.
pub(crate) struct Expressions<'a> {
    state: SessionState,
    words: &'a Words,
}

impl<'a> Expressions<'a> {
    pub(crate) fn new(words: &'a Words) -> Self {
        Self {
            state: session(),
            words,
        }
    }

    /// Resolves, checks and types an expression without aggregates.
    pub(crate) fn compile(
        &self,
        expression: &Expr,
        scope: &Scope<'_>,
        clause: Clause,
    ) -> Result<Typed, SqlError> {
        let tree = self.resolve(expression, scope, clause)?;
        self.plan(tree, scope.schema, clause.position)
    }

    /// A condition: [`Self::compile`], and it must be BOOLEAN.
    pub(crate) fn condition(&self, typed: Typed, clause: &str) -> Result<Typed, SqlError> {
        match typed.data_type {
            Some(DataType::Boolean) | None => Ok(typed),
            Some(other) => {
                let message = format!("{clause} needs a BOOLEAN condition, this is {other}");
                Err(SqlError::new(typed.position, message))
            }
        }
    }

    /// The tree with every column resolved, Flink's ways rewritten, and nothing in it that Flott lacks.
    pub(crate) fn resolve(
        &self,
        expression: &Expr,
        scope: &Scope<'_>,
        clause: Clause,
    ) -> Result<Expr, SqlError> {
        let mut tree = expression.clone();
        match VisitMut::visit(&mut tree, &mut Resolver::new(self, scope, clause)) {
            ControlFlow::Continue(()) => Ok(tree),
            ControlFlow::Break(error) => Err(error),
        }
    }

    /// Where an expression begins. For what begins with a word that sqlparser drops, that word.
    pub(crate) fn place(&self, tree: &Expr, fallback: Position) -> Position {
        let mut leftmost = tree;
        let keyword = loop {
            leftmost = match leftmost {
                Expr::BinaryOp { left, .. } => left,
                Expr::IsNull(inner)
                | Expr::IsNotNull(inner)
                | Expr::Between { expr: inner, .. }
                | Expr::InList { expr: inner, .. }
                | Expr::Like { expr: inner, .. } => inner,
                Expr::Cast { kind, .. } => {
                    break match kind {
                        CastKind::Cast => "CAST",
                        CastKind::TryCast => "TRY_CAST",
                        CastKind::SafeCast | CastKind::DoubleColon => "",
                    };
                }
                Expr::Interval(_) => break "INTERVAL",
                Expr::Exists { .. } => break "EXISTS",
                Expr::Extract { .. } => break "EXTRACT",
                Expr::Ceil { .. } => break "CEIL",
                Expr::Floor { .. } => break "FLOOR",
                Expr::Position { .. } => break "POSITION",
                Expr::Trim { .. } => break "TRIM",
                Expr::Overlay { .. } => break "OVERLAY",
                Expr::Array(_) => break "ARRAY",
                _ => break "",
            }
        };
        self.words.before(Position::of(leftmost, fallback), keyword)
    }

    /// Which kind of call this is.
    pub(crate) fn classify(
        &self,
        function: &Function,
        position: Position,
    ) -> Result<Call, SqlError> {
        functions::classify(&self.state, self.words, function, position)
    }

    /// Types a resolved tree over the columns of a schema.
    pub(crate) fn plan(
        &self,
        tree: Expr,
        schema: &Schema,
        fallback: Position,
    ) -> Result<Typed, SqlError> {
        let position = self.place(&tree, fallback);
        let text = tree.to_string();
        let arrow: SchemaRef = schema.to_arrow().into();
        let (arrow_type, nullable) = match self.type_of(&tree, &text, &arrow) {
            Ok(found) => found,
            Err(error) => return Err(self.blame(&tree, &arrow, position, &error)),
        };
        let data_type = match arrow_type {
            ArrowType::Null => None,
            ref other => Some(DataType::from_arrow(other).map_err(|_| {
                let message = format!(
                    "the expression has the type {}, which a column cannot have; CAST it",
                    flink_types(&other.to_string())
                );
                SqlError::new(position, message)
            })?),
        };
        Ok(Typed {
            tree,
            text,
            data_type,
            nullable,
            position,
        })
    }

    /// Does what the worker does with the text, up to the evaluation of no rows.
    fn type_of(
        &self,
        tree: &Expr,
        text: &str,
        arrow: &SchemaRef,
    ) -> Result<(ArrowType, bool), DataFusionError> {
        let dialect = self.state.config().options().sql_parser.dialect;
        let read_again = self.state.sql_to_expr(text, &dialect)?;
        if read_again != *tree {
            return Err(DataFusionError::Plan(format!(
                "{text} would be read as {read_again}; put parentheses round its parts"
            )));
        }
        let schema = DFSchema::try_from(SchemaRef::clone(arrow))?;
        let unaliased = ExprWithAlias {
            expr: read_again,
            alias: None,
        };
        let logical = self
            .state
            .create_logical_expr_from_sql_expr(unaliased, &schema)?;
        comparisons::check(&logical, &schema)?;
        let nullable = logical.nullable(&schema).unwrap_or(true);
        let physical = self.state.create_physical_expr(logical, &schema)?;
        // Finds constants that cannot be computed, and functions that only DataFusion's optimizer can run.
        physical.evaluate(&RecordBatch::new_empty(SchemaRef::clone(arrow)))?;
        Ok((physical.data_type(arrow)?, nullable))
    }

    /// The error at the innermost part of the tree that fails on its own.
    fn blame(
        &self,
        tree: &Expr,
        arrow: &SchemaRef,
        position: Position,
        error: &DataFusionError,
    ) -> SqlError {
        let mut innermost = Innermost {
            expressions: self,
            arrow,
            position,
        };
        match Visit::visit(tree, &mut innermost) {
            ControlFlow::Break((place, inner)) => SqlError::new(place, describe(&inner)),
            ControlFlow::Continue(()) => SqlError::new(position, describe(error)),
        }
    }
}

/// Stops at the first part, innermost first, that cannot be typed by itself.
struct Innermost<'a> {
    expressions: &'a Expressions<'a>,
    arrow: &'a SchemaRef,
    position: Position,
}

impl Visitor for Innermost<'_> {
    type Break = (Position, DataFusionError);

    fn post_visit_expr(&mut self, part: &Expr) -> ControlFlow<Self::Break> {
        match self
            .expressions
            .type_of(part, &part.to_string(), self.arrow)
        {
            Ok(_) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break((self.expressions.place(part, self.position), error)),
        }
    }
}

/// DataFusion's message, without its categories, in the types of the script.
fn describe(error: &DataFusionError) -> String {
    let message = error.find_root().message().to_string();
    let message = message.lines().next().unwrap_or_default();
    let message = message
        .split(" No function matches")
        .next()
        .unwrap_or(message);
    let text = flink_types(message);
    let mut characters = text.chars();
    // A name such as "BIGINT" keeps its case; a sentence does not.
    let text = match (characters.next(), characters.next()) {
        (Some(first), Some(second)) if second.is_lowercase() || second == ' ' => {
            format!("{}{}", first.to_lowercase(), &text[first.len_utf8()..])
        }
        _ => text,
    };
    text.trim_end_matches(['.', ' ']).to_owned()
}

/// Arrow's type names in a message as Flink writes them.
pub(crate) fn flink_types(message: &str) -> String {
    const NAMES: [(&str, &str); 20] = [
        ("Timestamp(s)", "TIMESTAMP(0)"),
        ("Timestamp(ms)", "TIMESTAMP(3)"),
        ("Timestamp(µs)", "TIMESTAMP(6)"),
        ("Timestamp(ns)", "TIMESTAMP(9)"),
        ("Interval(MonthDayNano)", "INTERVAL"),
        ("LargeUtf8", "STRING"),
        ("Utf8View", "STRING"),
        ("Utf8", "STRING"),
        ("Decimal128", "DECIMAL"),
        ("UInt64", "BIGINT"),
        ("UInt32", "BIGINT"),
        ("UInt8", "SMALLINT"),
        ("Int64", "BIGINT"),
        ("Int32", "INT"),
        ("Int16", "SMALLINT"),
        ("Int8", "TINYINT"),
        ("Float64", "DOUBLE"),
        ("Float32", "FLOAT"),
        ("Boolean", "BOOLEAN"),
        ("Date32", "DATE"),
    ];
    NAMES
        .iter()
        .fold(message.to_owned(), |text, (arrow, flink)| {
            text.replace(arrow, flink)
        })
}
