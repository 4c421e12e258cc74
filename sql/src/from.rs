//! FROM: a table, a subquery, a WITH query, or `TABLE(TUMBLE(…))` of one of them.

use datafusion::sql::sqlparser::ast::{Ident, ObjectName, Select, TableAlias, TableFactor};
use flott_proto::job_graph::{AssignWatermark, Field, OperatorKind, Schema};

use crate::catalog::Table;
use crate::error::{Position, SqlError, did_you_mean};
use crate::plan::{Ctes, Planner};
use crate::relation::{Relation, Selected};
use crate::tumble;

impl Planner<'_> {
    pub(crate) fn from(
        &self,
        select: &Select,
        ctes: &Ctes<'_>,
        position: Position,
        depth: usize,
    ) -> Result<Relation, SqlError> {
        let [first, others @ ..] = select.from.as_slice() else {
            let message = "a SELECT needs FROM with a table to read";
            return Err(SqlError::new(position, message));
        };
        let first_place = Position::of(&first.relation, position);
        if let Some(other) = others.first() {
            let place = Position::of(&other.relation, first_place);
            let remedy = "a job reads one table";
            return Err(SqlError::unsupported(
                place,
                "a join (several tables in FROM)",
                remedy,
            ));
        }
        if let Some(join) = first.joins.first() {
            let behind = Position::of(&join.relation, first_place);
            let place = self.words.before(behind, "JOIN");
            return Err(SqlError::unsupported(
                place,
                "JOIN",
                "a job reads one table",
            ));
        }
        self.table_factor(&first.relation, ctes, first_place, depth)
    }

    fn table_factor(
        &self,
        factor: &TableFactor,
        ctes: &Ctes<'_>,
        position: Position,
        depth: usize,
    ) -> Result<Relation, SqlError> {
        match factor {
            TableFactor::Table {
                name,
                alias,
                args: None,
                version: None,
                sample: None,
                with_ordinality: false,
                ..
            } => {
                let alias = self.alias_name(alias.as_ref())?;
                self.named(single_name(name, position)?, alias, ctes, position, depth)
            }
            TableFactor::Table {
                version: Some(_), ..
            } => Err(SqlError::unsupported(
                self.words.after(position, "FOR"),
                "FOR SYSTEM_TIME AS OF",
                "",
            )),
            TableFactor::Table { args: Some(_), .. } | TableFactor::Function { .. } => {
                Err(SqlError::unsupported(
                    position,
                    "a table function without TABLE(...)",
                    "write FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(column), INTERVAL '1' HOUR))",
                ))
            }
            TableFactor::Derived {
                lateral: false,
                subquery,
                alias,
                sample: None,
            } => {
                let alias = self.alias_name(alias.as_ref())?;
                let selected = self.nested_query(subquery, ctes, position, depth + 1)?;
                let label = match alias {
                    Some(name) => format!("the subquery {name}"),
                    None => "the subquery".to_owned(),
                };
                self.subquery(selected, label, alias)
            }
            TableFactor::TableFunction { expr, alias } => {
                let alias = self.alias_name(alias.as_ref())?;
                let call = tumble::parse(expr, position)?;
                let name = call.table.value.as_str();
                let place = Position::of_span(call.table.span).unwrap_or(position);
                let mut relation = self.named(call.table, Some(name), ctes, place, depth)?;
                relation.window = Some(tumble::check(&call, &relation)?);
                relation.qualifier = alias.map(str::to_owned);
                Ok(relation)
            }
            TableFactor::NestedJoin { .. } => Err(SqlError::unsupported(
                position,
                "JOIN",
                "a job reads one table",
            )),
            TableFactor::MatchRecognize { .. } => {
                let place = self.words.after(position, "MATCH_RECOGNIZE");
                Err(SqlError::unsupported(place, "MATCH_RECOGNIZE", ""))
            }
            TableFactor::Table {
                sample: Some(_), ..
            } => Err(SqlError::unsupported(
                self.words.after(position, "TABLESAMPLE"),
                "TABLESAMPLE",
                "filter with RANDOM() < fraction",
            )),
            other => {
                let text: String = other.to_string().chars().take(40).collect();
                let remedy = "FROM takes a table, a subquery, or TABLE(TUMBLE(...))";
                Err(SqlError::unsupported(position, &text, remedy))
            }
        }
    }

    /// The alias, which may not rename columns.
    pub(crate) fn alias_name<'t>(
        &self,
        alias: Option<&'t TableAlias>,
    ) -> Result<Option<&'t str>, SqlError> {
        let Some(alias) = alias else {
            return Ok(None);
        };
        if let Some(column) = alias.columns.first() {
            let place = Position::of_span(column.name.span).unwrap_or(Position::START);
            let remedy = "name the columns in the SELECT list with AS";
            let construct = "a list of column names behind a table's alias";
            return Err(SqlError::unsupported(place, construct, remedy));
        }
        Ok(Some(&alias.name.value))
    }

    /// A WITH query or a table.
    fn named(
        &self,
        name: &Ident,
        alias: Option<&str>,
        ctes: &Ctes<'_>,
        position: Position,
        depth: usize,
    ) -> Result<Relation, SqlError> {
        let qualifier = alias.unwrap_or(&name.value);
        if let Some(index) = ctes.iter().rposition(|(cte, _)| cte.value == name.value) {
            let query = ctes[index].1;
            let selected = self.nested_query(query, &ctes[..index], position, depth + 1)?;
            let label = format!("the WITH query {}", name.value);
            return self.subquery(selected, label, Some(qualifier));
        }
        let Some(table) = self.catalog.get(&name.value) else {
            let mut known: Vec<&str> = self.catalog.names().collect();
            known.extend(ctes.iter().map(|(cte, _)| cte.value.as_str()));
            let near = did_you_mean(&name.value, &known);
            let message = format!("table {:?} not found{near}", name.value);
            return Err(SqlError::new(position, message));
        };
        self.source(table, qualifier, position)
    }

    fn source(
        &self,
        table: &Table,
        qualifier: &str,
        position: Position,
    ) -> Result<Relation, SqlError> {
        let Some(source) = table.connector.source() else {
            let message = format!(
                "table {} is a {}, which can only be written to",
                table.name,
                table.connector.name()
            );
            return Err(SqlError::new(position, message));
        };
        let mut relation = Relation {
            table: table.name.clone(),
            steps: Vec::new(),
            schema: Schema::default(),
            label: format!("table {}", table.name),
            qualifier: Some(qualifier.to_owned()),
            rowtime: None,
            window: None,
        };
        relation.push(
            &format!("source-{}", table.name),
            OperatorKind::Source(source),
            table.schema.clone(),
        );
        if let Some(watermark) = &table.watermark {
            relation.rowtime = Some(watermark.column.clone());
            relation.push(
                &format!("watermark-{}", table.name),
                OperatorKind::AssignWatermark(AssignWatermark {
                    column: watermark.column.clone(),
                    expression: watermark.expression.clone(),
                    idle_timeout_ms: table.connector.idle_timeout_ms,
                }),
                table.schema.clone(),
            );
        }
        Ok(relation)
    }

    /// A SELECT as the input of another: its list becomes a projection.
    fn subquery(
        &self,
        selected: Selected,
        label: String,
        qualifier: Option<&str>,
    ) -> Result<Relation, SqlError> {
        let Selected {
            mut relation,
            items,
            ..
        } = selected;
        let mut columns: Vec<(Field, String)> = Vec::new();
        let mut rowtime = None;
        for item in items {
            if columns.iter().any(|(field, _)| field.name == item.name) {
                let message = format!(
                    "{label} has two columns {:?}; rename one with AS",
                    item.name
                );
                return Err(SqlError::new(item.typed.position, message));
            }
            let Some(data_type) = item.typed.data_type else {
                let message = "NULL has no type here; write CAST(NULL AS type)";
                return Err(SqlError::new(item.typed.position, message));
            };
            if relation.rowtime.is_some() && item.typed.column() == relation.rowtime.as_deref() {
                rowtime = Some(item.name.clone());
            }
            let field = Field {
                name: item.name,
                data_type,
                nullable: item.typed.nullable,
            };
            columns.push((field, item.typed.text));
        }
        relation.project("project", columns);
        relation.label = label;
        relation.qualifier = qualifier.map(str::to_owned);
        relation.rowtime = rowtime;
        Ok(relation)
    }
}

/// A name without a catalog or database.
pub(crate) fn single_name(name: &ObjectName, position: Position) -> Result<&Ident, SqlError> {
    match name.0.as_slice() {
        [part] => part.as_ident(),
        _ => None,
    }
    .ok_or_else(|| {
        SqlError::unsupported(
            position,
            "a catalog or database before a table's name",
            "there is one catalog per script, write the table's name alone",
        )
    })
}
