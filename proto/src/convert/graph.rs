//! The job graph, to the wire and back.

use super::Malformed;
use super::connectors::{sink_from_wire, sink_to_wire, source_from_wire, source_to_wire};
use crate::job_graph::{self as graph, OperatorKind};
use crate::wire;

impl From<&graph::JobGraph> for wire::JobGraph {
    fn from(job: &graph::JobGraph) -> Self {
        Self {
            version: graph::VERSION,
            name: job.name.clone(),
            vertices: job.vertices.iter().map(vertex_to_wire).collect(),
            edges: job.edges.iter().map(edge_to_wire).collect(),
        }
    }
}

impl TryFrom<wire::JobGraph> for graph::JobGraph {
    type Error = Malformed;

    /// Also validates the graph.
    fn try_from(job: wire::JobGraph) -> Result<Self, Malformed> {
        let job = read(job)?;
        job.validate()?;
        Ok(job)
    }
}

impl graph::JobGraph {
    /// From the wire form of an outline; fails if it is more than one.
    pub fn outline_from_wire(job: wire::JobGraph) -> Result<Self, Malformed> {
        let job = read(job)?;
        job.validate_vertices()?;
        if job != job.outline() {
            return Err(Malformed::new(
                "job graph",
                "is an outline with operators or edges",
            ));
        }
        Ok(job)
    }
}

fn read(job: wire::JobGraph) -> Result<graph::JobGraph, Malformed> {
    if job.version == 0 || job.version > graph::VERSION {
        return Err(Malformed::new(
            "job graph",
            format!(
                "version {} where this build reads 1 to {}; upgrade the cluster",
                job.version,
                graph::VERSION
            ),
        ));
    }
    Ok(graph::JobGraph {
        name: job.name,
        vertices: job
            .vertices
            .into_iter()
            .map(vertex_from_wire)
            .collect::<Result<_, _>>()?,
        edges: job
            .edges
            .into_iter()
            .map(edge_from_wire)
            .collect::<Result<_, _>>()?,
    })
}

fn vertex_to_wire(vertex: &graph::Vertex) -> wire::Vertex {
    wire::Vertex {
        uid: vertex.uid.to_string(),
        name: vertex.name.clone(),
        parallelism: vertex.parallelism,
        max_parallelism: vertex.max_parallelism,
        chain: vertex.chain.iter().map(operator_to_wire).collect(),
    }
}

fn vertex_from_wire(vertex: wire::Vertex) -> Result<graph::Vertex, Malformed> {
    Ok(graph::Vertex {
        uid: vertex.uid.parse()?,
        name: vertex.name,
        parallelism: vertex.parallelism,
        max_parallelism: vertex.max_parallelism,
        chain: vertex
            .chain
            .into_iter()
            .map(operator_from_wire)
            .collect::<Result<_, _>>()?,
    })
}

fn operator_to_wire(operator: &graph::Operator) -> wire::Operator {
    use wire::operator::Kind;
    let fields = operator.output.fields.iter().map(|field| wire::Field {
        name: field.name.clone(),
        r#type: field.data_type.to_string(),
        nullable: field.nullable,
    });
    let kind = match &operator.kind {
        OperatorKind::Source(source) => Kind::Source(source_to_wire(source)),
        OperatorKind::AssignWatermark(assign) => Kind::AssignWatermark(wire::AssignWatermark {
            column: assign.column.clone(),
            expression: assign.expression.clone(),
            idle_timeout_ms: assign.idle_timeout_ms,
        }),
        OperatorKind::Filter { predicate } => Kind::Filter(wire::Filter {
            predicate: predicate.clone(),
        }),
        OperatorKind::Project { expressions } => Kind::Project(wire::Project {
            expressions: expressions
                .iter()
                .map(|e| wire::NamedExpression {
                    name: e.name.clone(),
                    expression: e.expression.clone(),
                })
                .collect(),
        }),
        OperatorKind::WindowAggregate(window) => Kind::WindowAggregate(window_to_wire(window)),
        OperatorKind::Sink(sink) => Kind::Sink(sink_to_wire(sink)),
    };
    wire::Operator {
        uid: operator.uid.clone(),
        name: operator.name.clone(),
        output: Some(wire::Schema {
            fields: fields.collect(),
        }),
        kind: Some(kind),
    }
}

fn operator_from_wire(operator: wire::Operator) -> Result<graph::Operator, Malformed> {
    use wire::operator::Kind;
    let field = |field: wire::Field| {
        Ok::<_, Malformed>(graph::Field {
            name: field.name,
            data_type: field.r#type.parse()?,
            nullable: field.nullable,
        })
    };
    let fields = operator.output.unwrap_or_default().fields;
    let kind = match operator
        .kind
        .ok_or_else(|| Malformed::missing("operator", "a kind known to this build"))?
    {
        Kind::Source(source) => OperatorKind::Source(source_from_wire(source)?),
        Kind::AssignWatermark(assign) => OperatorKind::AssignWatermark(graph::AssignWatermark {
            column: assign.column,
            expression: assign.expression,
            idle_timeout_ms: assign.idle_timeout_ms,
        }),
        Kind::Filter(filter) => OperatorKind::Filter {
            predicate: filter.predicate,
        },
        Kind::Project(project) => OperatorKind::Project {
            expressions: project
                .expressions
                .into_iter()
                .map(|e| graph::NamedExpression {
                    name: e.name,
                    expression: e.expression,
                })
                .collect(),
        },
        Kind::WindowAggregate(window) => OperatorKind::WindowAggregate(window_from_wire(window)?),
        Kind::Sink(sink) => OperatorKind::Sink(sink_from_wire(sink)?),
    };
    Ok(graph::Operator {
        uid: operator.uid,
        name: operator.name,
        output: graph::Schema {
            fields: fields.into_iter().map(field).collect::<Result<_, _>>()?,
        },
        kind,
    })
}

fn window_to_wire(window: &graph::WindowAggregate) -> wire::WindowAggregate {
    let aggregate = |aggregate: &graph::Aggregate| wire::Aggregate {
        function: wire::aggregate::Function::from(aggregate.function).into(),
        argument: aggregate.argument.clone().unwrap_or_default(),
        output: aggregate.output.clone(),
    };
    wire::WindowAggregate {
        time_column: window.time_column.clone(),
        size_ms: window.size_ms,
        offset_ms: window.offset_ms,
        keys: window.keys.clone(),
        aggregates: window.aggregates.iter().map(aggregate).collect(),
        window_start: window.window_start.clone(),
        window_end: window.window_end.clone(),
    }
}

fn window_from_wire(window: wire::WindowAggregate) -> Result<graph::WindowAggregate, Malformed> {
    if window.size_ms == 0 || i64::try_from(window.size_ms).is_err() {
        return Err(Malformed::new(
            "window aggregate",
            format!("window size of {} ms", window.size_ms),
        ));
    }
    let aggregate = |aggregate: wire::Aggregate| {
        Ok(graph::Aggregate {
            function: aggregate.function().try_into()?,
            argument: (!aggregate.argument.is_empty()).then_some(aggregate.argument),
            output: aggregate.output,
        })
    };
    Ok(graph::WindowAggregate {
        time_column: window.time_column,
        size_ms: window.size_ms,
        offset_ms: window.offset_ms,
        keys: window.keys,
        aggregates: window
            .aggregates
            .into_iter()
            .map(aggregate)
            .collect::<Result<_, Malformed>>()?,
        window_start: window.window_start,
        window_end: window.window_end,
    })
}

impl From<graph::AggregateFunction> for wire::aggregate::Function {
    fn from(function: graph::AggregateFunction) -> Self {
        match function {
            graph::AggregateFunction::Count => Self::Count,
            graph::AggregateFunction::Sum => Self::Sum,
            graph::AggregateFunction::Min => Self::Min,
            graph::AggregateFunction::Max => Self::Max,
            graph::AggregateFunction::Avg => Self::Avg,
        }
    }
}

impl TryFrom<wire::aggregate::Function> for graph::AggregateFunction {
    type Error = Malformed;

    fn try_from(function: wire::aggregate::Function) -> Result<Self, Malformed> {
        use wire::aggregate::Function;
        Ok(match function {
            Function::Count => Self::Count,
            Function::Sum => Self::Sum,
            Function::Min => Self::Min,
            Function::Max => Self::Max,
            Function::Avg => Self::Avg,
            Function::Unspecified => return Err(Malformed::missing("aggregate", "a function")),
        })
    }
}

fn edge_to_wire(edge: &graph::Edge) -> wire::Edge {
    use wire::edge::Partitioning;
    let partitioning = match &edge.partitioning {
        graph::Partitioning::Forward => Partitioning::Forward(wire::Forward {}),
        graph::Partitioning::Hash { columns } => Partitioning::Hash(wire::Hash {
            columns: columns.clone(),
        }),
        graph::Partitioning::Rebalance => Partitioning::Rebalance(wire::Rebalance {}),
        graph::Partitioning::Broadcast => Partitioning::Broadcast(wire::Broadcast {}),
    };
    wire::Edge {
        source: edge.source.to_string(),
        target: edge.target.to_string(),
        partitioning: Some(partitioning),
    }
}

fn edge_from_wire(edge: wire::Edge) -> Result<graph::Edge, Malformed> {
    use wire::edge::Partitioning;
    let partitioning = match edge
        .partitioning
        .ok_or_else(|| Malformed::missing("edge", "a known partitioning"))?
    {
        Partitioning::Forward(wire::Forward {}) => graph::Partitioning::Forward,
        Partitioning::Hash(wire::Hash { columns }) => graph::Partitioning::Hash { columns },
        Partitioning::Rebalance(wire::Rebalance {}) => graph::Partitioning::Rebalance,
        Partitioning::Broadcast(wire::Broadcast {}) => graph::Partitioning::Broadcast,
    };
    Ok(graph::Edge {
        source: edge.source.parse()?,
        target: edge.target.parse()?,
        partitioning,
    })
}
