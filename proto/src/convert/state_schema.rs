//! Schemas of operator state, to the wire and back.

use super::Malformed;
use crate::job_graph::Field;
use crate::state_schema::{AggregateSchema, WindowSchema};
use crate::wire;

impl From<&WindowSchema> for wire::WindowSchema {
    fn from(schema: &WindowSchema) -> Self {
        let field = |field: &Field| wire::Field {
            name: field.name.clone(),
            r#type: field.data_type.to_string(),
            nullable: field.nullable,
        };
        let aggregate = |aggregate: &AggregateSchema| wire::AggregateSchema {
            function: wire::aggregate::Function::from(aggregate.function).into(),
            argument: aggregate
                .argument
                .map(|of| of.to_string())
                .unwrap_or_default(),
            name: aggregate.name.clone(),
        };
        Self {
            keys: schema.keys.iter().map(field).collect(),
            size_ms: schema.size_ms,
            offset_ms: schema.offset_ms,
            aggregates: schema.aggregates.iter().map(aggregate).collect(),
        }
    }
}

impl TryFrom<wire::WindowSchema> for WindowSchema {
    type Error = Malformed;

    fn try_from(schema: wire::WindowSchema) -> Result<Self, Malformed> {
        let field = |field: wire::Field| {
            Ok(Field {
                data_type: field.r#type.parse()?,
                name: field.name,
                nullable: field.nullable,
            })
        };
        let aggregate = |aggregate: wire::AggregateSchema| {
            let argument = Some(aggregate.argument.as_str()).filter(|of| !of.is_empty());
            Ok(AggregateSchema {
                function: aggregate.function().try_into()?,
                argument: argument.map(str::parse).transpose()?,
                name: aggregate.name,
            })
        };
        Ok(Self {
            keys: schema
                .keys
                .into_iter()
                .map(field)
                .collect::<Result<_, Malformed>>()?,
            size_ms: schema.size_ms,
            offset_ms: schema.offset_ms,
            aggregates: schema
                .aggregates
                .into_iter()
                .map(aggregate)
                .collect::<Result<_, Malformed>>()?,
        })
    }
}
