//! What the bytes of an operator's state mean, and whether another operator can go on with them.
//!
//! Operators record it with their state, so that a job whose types have changed is refused before anything is stopped for
//! it, and so that a person can read the state. Names may change, and types may be widened where the bytes stay what they
//! are: keys and aggregates hold every integer alike, and every float. Aggregates may be added behind those that there
//! are: of what came before, they have seen nothing.

use crate::Malformed;
use crate::data_type::DataType;
use crate::job_graph::{
    AggregateFunction, Field, JobGraph, Operator, OperatorKind, Schema, Sink, Source, Vertex,
    WindowAggregate,
};
use crate::wire::StateKind;

/// What a window aggregation stores.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowSchema {
    /// In the order in which they are encoded.
    pub keys: Vec<Field>,
    pub size_ms: u64,
    pub offset_ms: i64,
    /// In the order in which they are stored.
    pub aggregates: Vec<AggregateSchema>,
}

/// What one aggregate of a window is computed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregateSchema {
    pub function: AggregateFunction,
    /// None for `COUNT(*)`.
    pub argument: Option<DataType>,
    /// The output column.
    pub name: String,
}

impl WindowSchema {
    /// Of an aggregation over these columns; fails if it names one that is not there.
    pub fn of(window: &WindowAggregate, input: &Schema) -> Result<Self, Malformed> {
        let column = |name: &String| {
            let found = input.field(name).map(|(_, field)| field.clone());
            found.ok_or_else(|| Malformed::new("window aggregation", format!("no column {name:?}")))
        };
        let aggregates = window.aggregates.iter().map(|aggregate| {
            let argument = aggregate.argument.as_ref().map(column).transpose()?;
            Ok(AggregateSchema {
                function: aggregate.function,
                argument: argument.map(|field| field.data_type),
                name: aggregate.output.clone(),
            })
        });
        Ok(Self {
            keys: window.keys.iter().map(column).collect::<Result<_, _>>()?,
            size_ms: window.size_ms,
            offset_ms: window.offset_ms,
            aggregates: aggregates.collect::<Result<_, Malformed>>()?,
        })
    }

    /// Why state of this schema is of no use to an aggregation of `other`; none if it is.
    pub fn obstacle(&self, other: &Self) -> Option<String> {
        let keys = |schema: &Self| {
            let types = schema.keys.iter().map(|key| key.data_type.to_string());
            types.collect::<Vec<_>>().join(", ")
        };
        let fit = |a: &Field, b: &Field| is_widening_of_key(a.data_type, b.data_type);
        let pairs = self.keys.iter().zip(&other.keys);
        if self.keys.len() != other.keys.len() || !pairs.into_iter().all(|(a, b)| fit(a, b)) {
            return Some(format!(
                "its keys are of the types ({}), those of the job ({})",
                keys(self),
                keys(other)
            ));
        }
        if (self.size_ms, self.offset_ms) != (other.size_ms, other.offset_ms) {
            return Some(format!(
                "its windows have {} ms and begin at {}, those of the job {} ms and {}",
                self.size_ms, self.offset_ms, other.size_ms, other.offset_ms
            ));
        }
        let aggregates = |schema: &Self| {
            let texts = schema.aggregates.iter().map(AggregateSchema::to_string);
            texts.collect::<Vec<_>>().join(", ")
        };
        let pairs = self.aggregates.iter().zip(&other.aggregates);
        let fit = |a: &AggregateSchema, b: &AggregateSchema| {
            a.function == b.function
                && match (a.argument, b.argument) {
                    // Only the number of values is held.
                    _ if a.function == AggregateFunction::Count => {
                        a.argument.is_some() == b.argument.is_some()
                    }
                    (Some(a), Some(b)) => is_widening_of_value(a, b),
                    (a, b) => a == b,
                }
        };
        if self.aggregates.len() > other.aggregates.len()
            || !pairs.into_iter().all(|(a, b)| fit(a, b))
        {
            return Some(format!(
                "it holds {}, the job computes {} (others may only be added, behind these)",
                aggregates(self),
                aggregates(other)
            ));
        }
        None
    }
}

impl std::fmt::Display for AggregateSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let function = format!("{:?}", self.function).to_uppercase();
        match self.argument {
            Some(argument) => write!(f, "{function}({argument})"),
            None => write!(f, "{function}(*)"),
        }
    }
}

/// How wide an integer is; none of another type.
fn integer_width(of: DataType) -> Option<u8> {
    match of {
        DataType::TinyInt => Some(1),
        DataType::SmallInt => Some(2),
        DataType::Int => Some(4),
        DataType::BigInt => Some(8),
        _ => None,
    }
}

/// Whether aggregates of `from` are held as those of `to` are, and every value of `from` is one of `to`.
fn is_widening_of_value(from: DataType, to: DataType) -> bool {
    use DataType as T;
    match (from, to) {
        (T::Float, T::Double) => true,
        (
            T::Decimal { precision, scale },
            T::Decimal {
                precision: wider,
                scale: same,
            },
        ) => wider >= precision && same == scale,
        _ => match (integer_width(from), integer_width(to)) {
            (Some(from), Some(to)) => from <= to,
            _ => from == to,
        },
    }
}

/// Whether keys of `from` are encoded as those of `to` are. Timestamps are, whatever their precision: in seconds and
/// nanoseconds.
fn is_widening_of_key(from: DataType, to: DataType) -> bool {
    match (from, to) {
        (
            DataType::Timestamp { precision },
            DataType::Timestamp {
                precision: wider, ..
            },
        ) => wider >= precision,
        _ => is_widening_of_value(from, to),
    }
}

/// Whose state an operator keeps; none if it keeps none.
pub fn state_kind(operator: &OperatorKind) -> Option<StateKind> {
    match operator {
        OperatorKind::Source(Source::Filesystem(_)) => Some(StateKind::FileSource),
        OperatorKind::Source(Source::Nexmark(_)) => Some(StateKind::NexmarkSource),
        OperatorKind::AssignWatermark(_) => Some(StateKind::AssignWatermark),
        OperatorKind::WindowAggregate(_) => Some(StateKind::WindowAggregate),
        OperatorKind::Sink(Sink::Filesystem(_)) => Some(StateKind::FileSink),
        OperatorKind::Sink(Sink::Blackhole)
        | OperatorKind::Filter { .. }
        | OperatorKind::Project { .. } => None,
    }
}

/// What a person calls it.
pub fn kind_name(kind: StateKind) -> &'static str {
    match kind {
        StateKind::Unspecified => "unknown",
        StateKind::FileSource => "file source",
        StateKind::NexmarkSource => "nexmark source",
        StateKind::AssignWatermark => "watermark",
        StateKind::WindowAggregate => "window aggregation",
        StateKind::FileSink => "file sink",
    }
}

/// An operator of a graph in its place.
#[derive(Clone, Copy, Debug)]
pub struct Placed<'a> {
    pub vertex: &'a Vertex,
    pub operator: &'a Operator,
    /// The columns that it reads; none for a source.
    pub input: Option<&'a Schema>,
}

impl JobGraph {
    /// Every operator with what flows into it.
    pub fn operators(&self) -> impl Iterator<Item = Placed<'_>> {
        self.vertices.iter().flat_map(|vertex| {
            let (_, edge) = self.inputs(&vertex.uid).next().unzip();
            let source = edge.and_then(|edge| self.vertex(&edge.source));
            let mut input = source
                .and_then(|source| source.chain.last())
                .map(|last| &last.output);
            vertex.chain.iter().map(move |operator| {
                let placed = Placed {
                    vertex,
                    operator,
                    input,
                };
                input = Some(&operator.output);
                placed
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    fn schema(keys: &[&str], aggregates: &[(AggregateFunction, &str)]) -> WindowSchema {
        let field = |of: &&str| Field {
            name: (*of).to_owned(),
            data_type: of.parse().unwrap(),
            nullable: false,
        };
        let aggregate = |(function, of): &(AggregateFunction, &str)| AggregateSchema {
            function: *function,
            argument: (!of.is_empty()).then(|| of.parse().unwrap()),
            name: "a".to_owned(),
        };
        WindowSchema {
            keys: keys.iter().map(field).collect(),
            size_ms: 1000,
            offset_ms: 0,
            aggregates: aggregates.iter().map(aggregate).collect(),
        }
    }

    #[test]
    fn types_may_be_widened_where_the_bytes_stay_and_nothing_else_may_change() {
        use AggregateFunction as F;
        type Shape<'a> = (&'a [&'a str], &'a [(F, &'a str)]);
        let table: [(Shape<'_>, Shape<'_>, bool); 17] = [
            ((&["INT"], &[]), (&["INT"], &[]), true),
            ((&["INT"], &[]), (&["BIGINT"], &[]), true),
            ((&["BIGINT"], &[]), (&["INT"], &[]), false),
            ((&["INT"], &[]), (&["STRING"], &[]), false),
            ((&["INT"], &[]), (&["INT", "INT"], &[]), false),
            ((&["TIMESTAMP(3)"], &[]), (&["TIMESTAMP(6)"], &[]), true),
            ((&["DECIMAL(9, 2)"], &[]), (&["DECIMAL(12, 2)"], &[]), true),
            ((&["DECIMAL(9, 2)"], &[]), (&["DECIMAL(12, 3)"], &[]), false),
            (
                (&[], &[(F::Sum, "INT")]),
                (&[], &[(F::Sum, "BIGINT")]),
                true,
            ),
            ((&[], &[(F::Sum, "INT")]), (&[], &[(F::Max, "INT")]), false),
            (
                (&[], &[(F::Sum, "INT")]),
                (&[], &[(F::Sum, "DOUBLE")]),
                false,
            ),
            (
                (&[], &[(F::Count, "INT")]),
                (&[], &[(F::Count, "STRING")]),
                true,
            ),
            ((&[], &[(F::Count, "")]), (&[], &[(F::Count, "INT")]), false),
            (
                (&[], &[(F::Max, "TIMESTAMP(3)")]),
                (&[], &[(F::Max, "TIMESTAMP(6)")]),
                false,
            ),
            (
                (&[], &[(F::Sum, "INT")]),
                (&[], &[(F::Sum, "INT"), (F::Max, "INT")]),
                true,
            ),
            (
                (&[], &[(F::Sum, "INT")]),
                (&[], &[(F::Max, "INT"), (F::Sum, "INT")]),
                false,
            ),
            (
                (&[], &[(F::Sum, "INT"), (F::Max, "INT")]),
                (&[], &[(F::Sum, "INT")]),
                false,
            ),
        ];
        for (from, to, fits) in table {
            let (from, to) = (schema(from.0, from.1), schema(to.0, to.1));
            assert_eq!(from.obstacle(&to), from.obstacle(&to).filter(|_| !fits));
            assert_eq!(from.obstacle(&to).is_none(), fits, "{from:?} to {to:?}");
            let wire = wire::WindowSchema::from(&from);
            assert_eq!(WindowSchema::try_from(wire).unwrap(), from);
        }
        let mut longer = schema(&["INT"], &[]);
        longer.size_ms = 2000;
        let obstacle = schema(&["INT"], &[]).obstacle(&longer).unwrap();
        assert!(obstacle.contains("1000 ms") && obstacle.contains("2000 ms"));
    }
}
