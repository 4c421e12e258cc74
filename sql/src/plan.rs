//! Queries: a `SELECT` becomes a line of operators over one source.
//!
//! The syntax tree is walked by hand, so that each construct that Flott lacks is refused where it stands. Its FROM is
//! read in [`crate::from`], its GROUP BY in [`crate::aggregate`].

use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, Ident, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr,
    WildcardAdditionalOptions,
};

use crate::aggregate;
use crate::catalog::Catalog;
use crate::error::{Position, SqlError};
use crate::expressions::{Clause, Expressions, WINDOW_COLUMNS};
use crate::from::single_name;
use crate::relation::{Item, Relation, Selected, WrittenItem};
use crate::script::Words;

/// Levels of subqueries and of WITH queries that use each other.
const QUERY_DEPTH_MAX: usize = 20;

/// The WITH queries that are visible, in order: each sees those before it.
pub(crate) type Ctes<'q> = [(&'q Ident, &'q Query)];

pub(crate) struct Planner<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) expressions: &'a Expressions<'a>,
    pub(crate) words: &'a Words,
}

impl Planner<'_> {
    /// Plans the query of an INSERT that stands at `position`.
    pub(crate) fn query(&self, query: &Query, position: Position) -> Result<Selected, SqlError> {
        self.nested_query(query, &[], position, 0)
    }

    pub(crate) fn nested_query(
        &self,
        query: &Query,
        outer: &Ctes<'_>,
        fallback: Position,
        depth: usize,
    ) -> Result<Selected, SqlError> {
        let position = Position::of(query.body.as_ref(), fallback);
        if depth > QUERY_DEPTH_MAX {
            let message = format!("queries are nested more than {QUERY_DEPTH_MAX} deep");
            return Err(SqlError::new(position, message));
        }
        self.refuse_query_clauses(query, position)?;
        let mut ctes = outer.to_vec();
        if let Some(with) = &query.with {
            let position = Position::of_token(&with.with_token, position);
            if with.recursive {
                return Err(SqlError::unsupported(position, "WITH RECURSIVE", ""));
            }
            for cte in &with.cte_tables {
                self.alias_name(Some(&cte.alias))?;
                ctes.push((&cte.alias.name, &cte.query));
            }
        }
        match query.body.as_ref() {
            SetExpr::Select(select) => self.select(select, &ctes, position, depth),
            SetExpr::Query(inner) => self.nested_query(inner, &ctes, position, depth + 1),
            SetExpr::SetOperation { op, right, .. } => {
                let behind = Position::of(right.as_ref(), position);
                let place = self.words.before(behind, &op.to_string());
                let remedy = "write an INSERT for each part";
                Err(SqlError::unsupported(place, &op.to_string(), remedy))
            }
            SetExpr::Values(_) => {
                let place = self.words.before(position, "VALUES");
                Err(SqlError::unsupported(
                    place,
                    "VALUES",
                    "insert from a table: INSERT INTO t SELECT ...",
                ))
            }
            other => {
                let text: String = other.to_string().chars().take(40).collect();
                Err(SqlError::unsupported(position, &text, "write SELECT"))
            }
        }
    }

    fn refuse_query_clauses(&self, query: &Query, position: Position) -> Result<(), SqlError> {
        let unordered = "a stream has no end to sort or cut at";
        if let Some(order_by) = &query.order_by {
            let place = self.words.before(Position::of(order_by, position), "ORDER");
            return Err(SqlError::unsupported(place, "ORDER BY", unordered));
        }
        if let Some(limit) = &query.limit_clause {
            let value = Position::of(limit, position);
            let keywords = ["LIMIT", "OFFSET"].map(|keyword| self.words.before(value, keyword));
            let place = keywords.into_iter().filter(|place| *place < value).max();
            let place = place.unwrap_or(value);
            return Err(SqlError::unsupported(place, "LIMIT or OFFSET", unordered));
        }
        if query.fetch.is_some() {
            let place = self.words.after(position, "FETCH");
            return Err(SqlError::unsupported(place, "FETCH", unordered));
        }
        if !query.locks.is_empty()
            || query.for_clause.is_some()
            || query.settings.is_some()
            || query.format_clause.is_some()
            || !query.pipe_operators.is_empty()
        {
            return Err(SqlError::unsupported(
                position,
                "a clause behind this query",
                "",
            ));
        }
        Ok(())
    }

    fn select(
        &self,
        select: &Select,
        ctes: &Ctes<'_>,
        fallback: Position,
        depth: usize,
    ) -> Result<Selected, SqlError> {
        let position = Position::of_token(&select.select_token, fallback);
        self.refuse_select_clauses(select, position)?;
        let mut relation = self.from(select, ctes, position, depth)?;
        if let Some(condition) = &select.selection {
            let clause = Clause {
                name: "WHERE",
                aggregates: false,
                position,
            };
            let typed = self
                .expressions
                .compile(condition, &relation.scope(), clause)?;
            relation.filter("filter", self.expressions.condition(typed, "WHERE")?);
        }
        let group_by = match &select.group_by {
            GroupByExpr::All(_) => {
                let place = self.words.after(position, "GROUP");
                return Err(SqlError::unsupported(
                    place,
                    "GROUP BY ALL",
                    "name the columns",
                ));
            }
            GroupByExpr::Expressions(_, modifiers) if !modifiers.is_empty() => {
                let place = self.words.after(position, "GROUP");
                return Err(SqlError::unsupported(
                    place,
                    "WITH ROLLUP, CUBE or TOTALS",
                    "",
                ));
            }
            GroupByExpr::Expressions(expressions, _) => expressions,
        };
        let written = self.written_items(select, &relation, position)?;
        let having = select.having.as_ref();
        match (relation.window.take(), group_by.is_empty()) {
            (Some(window), false) => {
                let query = aggregate::WindowQuery {
                    window,
                    group_by,
                    having,
                    items: written,
                    position,
                };
                aggregate::plan(self, relation, query)
            }
            (Some(window), true) => {
                let remedy = "aggregate with GROUP BY window_start, window_end";
                let construct = "TUMBLE without a GROUP BY";
                Err(SqlError::unsupported(window.position, construct, remedy))
            }
            (None, false) => {
                let place = Position::of(&group_by[0], position);
                let place = self.words.before(place, "GROUP");
                let remedy = "its result would never be final, use FROM TABLE(TUMBLE(...)) and GROUP BY window_start, window_end";
                Err(SqlError::unsupported(
                    place,
                    "GROUP BY without a window",
                    remedy,
                ))
            }
            (None, true) => {
                if let Some(having) = having {
                    let place = Position::of(having, position);
                    let place = self.words.before(place, "HAVING");
                    let remedy = "write WHERE";
                    return Err(SqlError::unsupported(
                        place,
                        "HAVING without GROUP BY",
                        remedy,
                    ));
                }
                let items = self.plain_items(written, &relation)?;
                Ok(Selected {
                    relation,
                    items,
                    position,
                })
            }
        }
    }

    fn plain_items(
        &self,
        written: Vec<WrittenItem>,
        relation: &Relation,
    ) -> Result<Vec<Item>, SqlError> {
        let compile = |item: WrittenItem| {
            let clause = Clause {
                name: "SELECT",
                aggregates: false,
                position: item.position,
            };
            let typed = self
                .expressions
                .compile(&item.expression, &relation.scope(), clause)?;
            Ok(Item {
                name: item.name,
                typed,
            })
        };
        written.into_iter().map(compile).collect()
    }

    fn refuse_select_clauses(&self, select: &Select, position: Position) -> Result<(), SqlError> {
        let refuse = |keyword: &str, construct: &str, remedy: &str| {
            let place = self.words.after(position, keyword);
            Err(SqlError::unsupported(place, construct, remedy))
        };
        if select.distinct.is_some() {
            let remedy = "group by the columns in a window: GROUP BY window_start, window_end, ...";
            return refuse("DISTINCT", "SELECT DISTINCT", remedy);
        }
        if !select.named_window.is_empty() {
            return refuse("WINDOW", "the WINDOW clause", "");
        }
        if select.qualify.is_some() {
            return refuse("QUALIFY", "QUALIFY", "");
        }
        if !select.lateral_views.is_empty() {
            return refuse("LATERAL", "LATERAL VIEW", "");
        }
        if select.into.is_some() {
            return refuse(
                "INTO",
                "SELECT INTO",
                "write INSERT INTO <table> SELECT ...",
            );
        }
        if select.top.is_some()
            || select.exclude.is_some()
            || select.prewhere.is_some()
            || !select.connect_by.is_empty()
            || !select.cluster_by.is_empty()
            || !select.distribute_by.is_empty()
            || !select.sort_by.is_empty()
            || select.value_table_mode.is_some()
            || select.select_modifiers.is_some()
        {
            return refuse("", "a clause of this SELECT", "it is not Flink's");
        }
        Ok(())
    }

    // ---- the SELECT list ----

    fn written_items(
        &self,
        select: &Select,
        relation: &Relation,
        fallback: Position,
    ) -> Result<Vec<WrittenItem>, SqlError> {
        let mut items = Vec::new();
        for item in &select.projection {
            let position = Position::of(item, fallback);
            match item {
                SelectItem::UnnamedExpr(expression) => items.push(WrittenItem {
                    name: implicit_name(expression, items.len()),
                    expression: expression.clone(),
                    position,
                }),
                SelectItem::ExprWithAlias { expr, alias } => items.push(WrittenItem {
                    name: alias.value.clone(),
                    expression: expr.clone(),
                    position,
                }),
                SelectItem::Wildcard(options) => {
                    self.wildcard(options, relation, position, &mut items)?;
                }
                SelectItem::QualifiedWildcard(
                    SelectItemQualifiedWildcardKind::ObjectName(name),
                    options,
                ) => {
                    let name = single_name(name, position)?;
                    if relation.qualifier.as_deref() != Some(name.value.as_str()) {
                        let message = format!("{:?} is no table or alias of this FROM", name.value);
                        return Err(SqlError::new(position, message));
                    }
                    self.wildcard(options, relation, position, &mut items)?;
                }
                SelectItem::QualifiedWildcard(..) | SelectItem::ExprWithAliases { .. } => {
                    let construct = format!("the select item {item}");
                    return Err(SqlError::unsupported(position, &construct, ""));
                }
            }
        }
        Ok(items)
    }

    fn wildcard(
        &self,
        options: &WildcardAdditionalOptions,
        relation: &Relation,
        position: Position,
        items: &mut Vec<WrittenItem>,
    ) -> Result<(), SqlError> {
        let plain = WildcardAdditionalOptions {
            wildcard_token: options.wildcard_token.clone(),
            ..WildcardAdditionalOptions::default()
        };
        if *options != plain {
            let remedy = "name the columns";
            return Err(SqlError::unsupported(
                position,
                "a * with exceptions",
                remedy,
            ));
        }
        let mut names: Vec<&str> = relation
            .schema
            .fields
            .iter()
            .map(|f| f.name.as_str())
            .collect();
        if relation.window.is_some() {
            names.extend(WINDOW_COLUMNS);
        }
        for name in names {
            let span = options.wildcard_token.0.span;
            items.push(WrittenItem {
                name: name.to_owned(),
                expression: Expr::Identifier(Ident::with_quote_and_span('"', span, name)),
                position,
            });
        }
        Ok(())
    }
}

/// What Flink calls a column that has no name.
fn implicit_name(expression: &Expr, index: usize) -> String {
    match expression {
        Expr::Identifier(ident) => ident.value.clone(),
        Expr::CompoundIdentifier(parts) if !parts.is_empty() => {
            parts[parts.len() - 1].value.clone()
        }
        Expr::Nested(inner) => implicit_name(inner, index),
        _ => format!("EXPR${index}"),
    }
}
