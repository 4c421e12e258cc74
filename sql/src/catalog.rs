//! The tables that a script has declared, checked: columns, event time, connector.

use std::collections::BTreeMap;

use flott_proto::data_type::DataType;
use flott_proto::job_graph::{Field, Schema};

use crate::ddl::CreateTable;
use crate::error::{Position, SqlError, did_you_mean};
use crate::expressions::{Clause, Expressions, Scope};
use crate::options::{self, Connector};

#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) schema: Schema,
    pub(crate) watermark: Option<Watermark>,
    pub(crate) connector: Connector,
}

#[derive(Clone, Debug)]
pub(crate) struct Watermark {
    pub(crate) column: String,
    /// Text over the table's columns.
    pub(crate) expression: String,
}

#[derive(Debug, Default)]
pub(crate) struct Catalog(BTreeMap<String, Table>);

impl Catalog {
    pub(crate) fn get(&self, name: &str) -> Option<&Table> {
        self.0.get(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Checks and adds a table. With `IF NOT EXISTS` a known name keeps its first meaning.
    pub(crate) fn create(
        &mut self,
        expressions: &Expressions<'_>,
        create: &CreateTable,
    ) -> Result<(), SqlError> {
        let name = &create.name.value;
        let table = table(expressions, create)?;
        if !self.0.contains_key(name) {
            self.0.insert(name.clone(), table);
        } else if !create.if_not_exists {
            let message = format!(
                "table {name} exists already; rename this one, DROP TABLE the first, or write IF NOT EXISTS"
            );
            return Err(SqlError::new(create.position, message));
        }
        Ok(())
    }

    pub(crate) fn drop(
        &mut self,
        name: &str,
        if_exists: bool,
        position: Position,
    ) -> Result<(), SqlError> {
        if self.0.remove(name).is_none() && !if_exists {
            let known: Vec<&str> = self.names().collect();
            let near = did_you_mean(name, &known);
            let message = format!("table {name:?} not found{near}");
            return Err(SqlError::new(position, message));
        }
        Ok(())
    }
}

fn table(expressions: &Expressions<'_>, create: &CreateTable) -> Result<Table, SqlError> {
    let name = create.name.value.clone();
    if create.columns.is_empty() {
        let message = format!("table {name} has no columns");
        return Err(SqlError::new(create.position, message));
    }
    let fields = create.columns.iter().map(|column| Field {
        name: column.name.clone(),
        data_type: column.data_type,
        nullable: column.nullable,
    });
    let schema = Schema {
        fields: fields.collect(),
    };
    let watermark = watermark(expressions, create, &schema)?;
    let connector = options::connector(create)?;
    Ok(Table {
        name,
        schema,
        watermark,
        connector,
    })
}

fn watermark(
    expressions: &Expressions<'_>,
    create: &CreateTable,
    schema: &Schema,
) -> Result<Option<Watermark>, SqlError> {
    let Some(watermark) = &create.watermark else {
        return Ok(None);
    };
    let column = &watermark.column.value;
    let Some((_, field)) = schema.field(column) else {
        let known: Vec<&str> = schema
            .fields
            .iter()
            .map(|field| field.name.as_str())
            .collect();
        let near = did_you_mean(column, &known);
        let message = format!(
            "column {column:?} not found in table {}{near}",
            create.name.value
        );
        return Err(SqlError::new(watermark.position, message));
    };
    if !matches!(field.data_type, DataType::Timestamp { precision: 0 | 3 }) {
        let message = format!(
            "the event-time column {column:?} is {}; a watermark needs TIMESTAMP(3) or TIMESTAMP(0)",
            field.data_type
        );
        return Err(SqlError::new(watermark.position, message));
    }
    let label = format!("table {}", create.name.value);
    let scope = Scope {
        schema,
        relation: &label,
        qualifier: None,
        windowed: false,
    };
    let clause = Clause {
        name: "WATERMARK",
        aggregates: false,
        position: watermark.position,
    };
    let typed = expressions.compile(&watermark.expression, &scope, clause)?;
    if !matches!(typed.data_type, Some(DataType::Timestamp { .. })) {
        let found = typed.data_type.map_or("NULL".to_owned(), |t| t.to_string());
        let message = format!(
            "the watermark is {found}, it needs a TIMESTAMP such as {column} - INTERVAL '5' SECOND"
        );
        return Err(SqlError::new(typed.position, message));
    }
    Ok(Some(Watermark {
        column: column.clone(),
        expression: typed.text,
    }))
}
