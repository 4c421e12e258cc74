//! What a FROM or a SELECT yields: a line of operators, and the columns that come out of it.
//!
//! Joins do not exist yet, hence a relation is a line and not a tree. It keeps track of its event-time column, which
//! survives being passed on by its name, and nothing else.

use datafusion::sql::sqlparser::ast::Expr;
use flott_proto::job_graph::{Field, NamedExpression, OperatorKind, Schema};

use crate::error::Position;
use crate::expressions::{Scope, Typed, column_reference};
use crate::tumble::Window;

/// An operator to be, not yet in a vertex.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Made unique when the graph is built.
    pub(crate) uid: String,
    pub(crate) kind: OperatorKind,
    pub(crate) output: Schema,
}

/// What a FROM yields.
#[derive(Clone, Debug)]
pub(crate) struct Relation {
    /// The table that everything comes from.
    pub(crate) table: String,
    pub(crate) steps: Vec<Step>,
    pub(crate) schema: Schema,
    /// For messages, e.g. `table flights`.
    pub(crate) label: String,
    pub(crate) qualifier: Option<String>,
    /// The event-time column, if it has one.
    pub(crate) rowtime: Option<String>,
    /// Of a window function in FROM that no GROUP BY has used yet.
    pub(crate) window: Option<Window>,
}

impl Relation {
    pub(crate) fn scope(&self) -> Scope<'_> {
        Scope {
            schema: &self.schema,
            relation: &self.label,
            qualifier: self.qualifier.as_deref(),
            windowed: false,
        }
    }

    /// Appends an operator that emits these columns.
    pub(crate) fn push(&mut self, uid: &str, kind: OperatorKind, output: Schema) {
        self.schema = output.clone();
        self.steps.push(Step {
            uid: uid.to_owned(),
            kind,
            output,
        });
    }

    pub(crate) fn filter(&mut self, uid: &str, condition: Typed) {
        let predicate = condition.text;
        self.push(uid, OperatorKind::Filter { predicate }, self.schema.clone());
    }

    /// Appends a projection, unless it would change nothing but nullability.
    pub(crate) fn project(&mut self, uid: &str, columns: Vec<(Field, String)>) {
        let identity = columns.len() == self.schema.fields.len()
            && columns
                .iter()
                .zip(&self.schema.fields)
                .all(|((field, text), input)| {
                    field.name == input.name
                        && field.data_type == input.data_type
                        && *text == column_reference(&input.name).to_string()
                });
        if identity {
            return;
        }
        let (fields, expressions) = columns
            .into_iter()
            .map(|(field, expression)| {
                let name = field.name.clone();
                (field, NamedExpression { name, expression })
            })
            .unzip();
        self.push(
            uid,
            OperatorKind::Project { expressions },
            Schema { fields },
        );
    }
}

/// One entry of a SELECT list, typed over the relation that it selects from.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) typed: Typed,
}

/// One entry of a SELECT list as it was written, `*` replaced by the columns.
#[derive(Clone, Debug)]
pub(crate) struct WrittenItem {
    pub(crate) name: String,
    pub(crate) expression: Expr,
    pub(crate) position: Position,
}

/// A SELECT without its last projection, which depends on where the rows go.
#[derive(Clone, Debug)]
pub(crate) struct Selected {
    pub(crate) relation: Relation,
    pub(crate) items: Vec<Item>,
    /// Of the word `SELECT`.
    pub(crate) position: Position,
}
