//! What a query yields, into the columns of a sink: by position, without loss.

use flott_proto::data_type::DataType;
use flott_proto::job_graph::{Field, OperatorKind, Schema};

use crate::catalog::{Catalog, Table};
use crate::error::{Position, SqlError, did_you_mean};
use crate::relation::{Item, Relation, Selected};
use crate::script::Insert;
use crate::types;

/// The table that an INSERT writes to.
pub(crate) fn table<'c>(catalog: &'c Catalog, insert: &Insert) -> Result<&'c Table, SqlError> {
    let name = &insert.table.value;
    let position = Position::of_span(insert.table.span).unwrap_or(insert.position);
    let Some(table) = catalog.get(name) else {
        let known: Vec<&str> = catalog.names().collect();
        let near = did_you_mean(name, &known);
        return Err(SqlError::new(
            position,
            format!("table {name:?} not found{near}"),
        ));
    };
    if table.connector.sink().is_none() {
        let message = format!(
            "table {name} is a {}, which can only be read",
            table.connector.name()
        );
        return Err(SqlError::new(position, message));
    }
    Ok(table)
}

/// Appends the last projection and the sink.
pub(crate) fn write(
    selected: Selected,
    sink: &Table,
    insert: &Insert,
) -> Result<Relation, SqlError> {
    let Selected {
        mut relation,
        items,
        position,
    } = selected;
    if relation.table == sink.name {
        let position = Position::of_span(insert.table.span).unwrap_or(insert.position);
        let message = format!(
            "table {} is read and written by the same job; declare a second table with another path",
            sink.name
        );
        return Err(SqlError::new(position, message));
    }
    let targets = targets(sink, insert)?;
    if targets.len() != items.len() {
        let names: Vec<&str> = targets
            .iter()
            .map(|index| sink.schema.fields[*index].name.as_str())
            .collect();
        let place = items
            .get(targets.len())
            .map_or(position, |item| item.typed.position);
        let message = format!(
            "the number of columns is {} in the query and {} in table {}: {}",
            items.len(),
            targets.len(),
            sink.name,
            names.join(", ")
        );
        return Err(SqlError::new(place, message));
    }
    let mut columns: Vec<Option<(Field, String)>> = vec![None; sink.schema.fields.len()];
    for (number, (item, target)) in items.iter().zip(&targets).enumerate() {
        columns[*target] = Some(column(
            number + 1,
            item,
            &sink.schema.fields[*target],
            sink,
        )?);
    }
    let columns = columns.into_iter().zip(&sink.schema.fields);
    let columns = columns.map(|(column, field)| match column {
        Some(column) => Ok(column),
        None if field.nullable => Ok((field.clone(), null_of(field.data_type))),
        None => {
            let message = format!(
                "column {:?} of table {} is NOT NULL and gets no value; add it to the list of columns",
                field.name, sink.name
            );
            Err(SqlError::new(insert.position, message))
        }
    });
    let columns = columns.collect::<Result<Vec<_>, SqlError>>()?;
    relation.project("select", columns);
    let kind = sink
        .connector
        .sink()
        .map(OperatorKind::Sink)
        .expect("the sink was checked before the query was planned");
    relation.push(&format!("sink-{}", sink.name), kind, Schema::default());
    Ok(relation)
}

/// The sink's columns that the query's columns go to, in the query's order.
fn targets(sink: &Table, insert: &Insert) -> Result<Vec<usize>, SqlError> {
    if insert.columns.is_empty() {
        return Ok((0..sink.schema.fields.len()).collect());
    }
    let mut targets = Vec::new();
    for column in &insert.columns {
        let position = Position::of_span(column.span).unwrap_or(insert.position);
        let Some((index, _)) = sink.schema.field(&column.value) else {
            let known: Vec<&str> = sink.schema.fields.iter().map(|f| f.name.as_str()).collect();
            let near = did_you_mean(&column.value, &known);
            let message = format!(
                "column {:?} not found in table {}{near}",
                column.value, sink.name
            );
            return Err(SqlError::new(position, message));
        };
        if targets.contains(&index) {
            let message = format!("column {:?} is named twice", column.value);
            return Err(SqlError::new(position, message));
        }
        targets.push(index);
    }
    Ok(targets)
}

/// The sink's column with the text that computes it, if the value fits.
fn column(
    number: usize,
    item: &Item,
    target: &Field,
    sink: &Table,
) -> Result<(Field, String), SqlError> {
    let typed = &item.typed;
    let to = target.data_type;
    let from = typed
        .data_type
        .map_or("NULL".to_owned(), |data_type| data_type.to_string());
    if typed.nullable && !target.nullable {
        let message = format!(
            "column {number} of the query, {:?}, may be NULL, and column {:?} of table {} is NOT NULL; use COALESCE({}, ...), or declare the column without NOT NULL",
            item.name, target.name, sink.name, typed.text
        );
        return Err(SqlError::new(typed.position, message));
    }
    let fits = typed
        .data_type
        .is_none_or(|from| types::is_assignable(from, to))
        || types::literal_fits(&typed.tree, to);
    if !fits {
        let message = format!(
            "column {number} of the query, {:?}, is {from}, and column {:?} of table {} is {to}; write CAST({} AS {to})",
            item.name, target.name, sink.name, typed.text
        );
        return Err(SqlError::new(typed.position, message));
    }
    let field = Field {
        name: target.name.clone(),
        data_type: to,
        nullable: typed.nullable,
    };
    let text = match typed.data_type {
        Some(_) => typed.text.clone(),
        None => null_of(to),
    };
    Ok((field, text))
}

fn null_of(data_type: DataType) -> String {
    format!("CAST(NULL AS {})", types::written(data_type))
}
