//! The JobGraph IR: what a job computes, independent of where it runs.
//!
//! A graph is vertices and edges. A vertex is a chain of operators that run together in one task, in `parallelism`
//! subtasks. Expressions are SQL text over the columns that flow in, so that a stored graph survives upgrades and a
//! person can read it: [`JobGraph::to_yaml`]. A graph that came from outside passes [`JobGraph::validate`] first.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::Malformed;
use crate::data_type::DataType;
use crate::ids::VertexId;
use crate::key_group::MAX_PARALLELISM_MAX;

/// The version of the IR that this build writes, and the highest that it reads.
pub const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct JobGraph {
    pub name: String,
    pub vertices: Vec<Vertex>,
    pub edges: Vec<Edge>,
}

/// A chain of operators that run in one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Vertex {
    /// State is matched by it across resubmissions.
    pub uid: VertexId,
    pub name: String,
    pub parallelism: u32,
    pub max_parallelism: u32,
    /// In the order of the data's flow.
    pub chain: Vec<Operator>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Operator {
    /// Unique in the job; state is matched by it.
    pub uid: String,
    pub name: String,
    /// The columns this operator emits; none for a sink.
    pub output: Schema,
    pub kind: OperatorKind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperatorKind {
    Source(Source),
    AssignWatermark(AssignWatermark),
    Filter { predicate: String },
    Project { expressions: Vec<NamedExpression> },
    WindowAggregate(WindowAggregate),
    Sink(Sink),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Schema {
    pub fields: Vec<Field>,
}

impl Schema {
    /// The position and the field of that name.
    pub fn field(&self, name: &str) -> Option<(usize, &Field)> {
        self.fields
            .iter()
            .enumerate()
            .find(|(_, field)| field.name == name)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Field {
    pub name: String,
    #[serde(rename = "type")]
    pub data_type: DataType,
    pub nullable: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    Filesystem(FilesystemSource),
    Nexmark(NexmarkSource),
}

/// Reads files; a split is a file. `.zst` and `.gz` are decompressed by their name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FilesystemSource {
    /// A file, or a directory whose files (not beginning with `.` or `_`) are the splits.
    pub path: String,
    pub format: Format,
    /// 0: as fast as possible. Otherwise the rate of the whole source, over all its subtasks.
    pub rows_per_second: u64,
}

/// The Nexmark generator: deterministic by seed, seekable by event number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NexmarkSource {
    pub table: NexmarkTable,
    pub seed: u64,
    /// Events of all tables together over all subtasks; 0: without end.
    pub events: u64,
    /// 0: as fast as possible.
    pub events_per_second: u64,
    pub base_time_ms: i64,
    /// Event time between two events, microseconds.
    pub interval_us: u64,
    /// Distinct auctions that bids are drawn from; 0: Nexmark's own moving window.
    pub active_auctions: u64,
    /// Distinct bidders that bids are drawn from; 0: Nexmark's own moving window.
    pub active_people: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NexmarkTable {
    Bid,
    Auction,
    Person,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    Csv(CsvFormat),
    Json(JsonFormat),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CsvFormat {
    pub header: bool,
    /// One ASCII character.
    pub delimiter: char,
    pub ignore_parse_errors: bool,
    /// The text that means NULL; an empty field of a type other than STRING always is.
    pub null_literal: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct JsonFormat {
    pub ignore_parse_errors: bool,
    /// `2013-01-01T05:00:00` rather than Flink's `2013-01-01 05:00:00`.
    pub iso_timestamps: bool,
}

/// Emits a watermark from the greatest value of an expression seen so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AssignWatermark {
    /// The event-time column.
    pub column: String,
    /// A timestamp expression, e.g. `departed_at - INTERVAL '12' HOUR`.
    pub expression: String,
    /// 0: an input is never idle.
    pub idle_timeout_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NamedExpression {
    pub name: String,
    pub expression: String,
}

/// Event-time tumbling window aggregation.
///
/// Emits keys, window start, window end, aggregates, in this order, once a window's end is passed by the watermark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WindowAggregate {
    pub time_column: String,
    pub size_ms: u64,
    pub offset_ms: i64,
    /// Input columns; the edge into this vertex hashes by the same.
    pub keys: Vec<String>,
    pub aggregates: Vec<Aggregate>,
    /// Names of the output columns.
    pub window_start: String,
    pub window_end: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Aggregate {
    pub function: AggregateFunction,
    /// An input column; none for `COUNT(*)`.
    pub argument: Option<String>,
    pub output: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
pub enum AggregateFunction {
    Count,
    Sum,
    Min,
    Max,
    Avg,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sink {
    /// Exactly once: what is not yet committed lies in files whose names begin with `.`.
    Filesystem(FilesystemSink),
    /// Counts rows and drops them.
    Blackhole,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FilesystemSink {
    /// A directory; made if it is missing.
    pub path: String,
    pub format: Format,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Edge {
    pub source: VertexId,
    pub target: VertexId,
    pub partitioning: Partitioning,
}

/// Which subtask of the target a row goes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Partitioning {
    /// Subtask i to subtask i; both sides have the same parallelism.
    Forward,
    /// By the key group of these columns; all rows of a key meet in one subtask.
    Hash { columns: Vec<String> },
    /// Round robin.
    Rebalance,
    /// To every subtask.
    Broadcast,
}

impl JobGraph {
    /// The graph as YAML, for people.
    pub fn to_yaml(&self) -> String {
        serde_saphyr::to_string(self)
            .unwrap_or_else(|error| format!("# not representable as YAML: {error}\n"))
    }

    pub fn vertex(&self, uid: &VertexId) -> Option<&Vertex> {
        self.vertices.iter().find(|vertex| vertex.uid == *uid)
    }

    pub fn inputs<'a>(&'a self, vertex: &'a VertexId) -> impl Iterator<Item = (usize, &'a Edge)> {
        self.edges
            .iter()
            .enumerate()
            .filter(move |(_, edge)| edge.target == *vertex)
    }

    pub fn outputs<'a>(&'a self, vertex: &'a VertexId) -> impl Iterator<Item = (usize, &'a Edge)> {
        self.edges
            .iter()
            .enumerate()
            .filter(move |(_, edge)| edge.source == *vertex)
    }

    /// Slots that the job needs: one slot holds a subtask of each vertex.
    pub fn slots_needed(&self) -> u32 {
        self.vertices
            .iter()
            .map(|vertex| vertex.parallelism)
            .max()
            .unwrap_or(0)
    }

    /// The same with `to` subtasks of each vertex that has `from`. Fails where a vertex does not allow it.
    pub fn rescaled(&self, from: u32, to: u32) -> Result<Self, Malformed> {
        let mut graph = self.clone();
        for vertex in &mut graph.vertices {
            if vertex.parallelism != from {
                continue;
            }
            if !(1..=vertex.max_parallelism).contains(&to) {
                let what = format!(
                    "cannot run at parallelism {to}: vertex {} ({}) allows 1 to {}, as pipeline.max-parallelism was when \
                     the job was first submitted",
                    vertex.uid, vertex.name, vertex.max_parallelism
                );
                return Err(Malformed::new("job graph", what));
            }
            vertex.parallelism = to;
        }
        Ok(graph)
    }

    /// Gives each vertex the parallelism that it has in `decided`, which is an outline of this graph.
    pub fn take_parallelism(&mut self, decided: &Self) {
        for vertex in &mut self.vertices {
            if let Some(decided) = decided.vertex(&vertex.uid) {
                vertex.parallelism = decided.parallelism;
            }
        }
    }

    /// Checks everything that a run relies on; the error names the place.
    pub fn validate(&self) -> Result<(), Malformed> {
        let malformed = |what: String| Err(Malformed::new("job graph", what));
        let vertices = self.validate_vertices()?;
        let mut operators = BTreeSet::new();
        for vertex in &self.vertices {
            if vertex.chain.is_empty() {
                return malformed(format!("vertex {} has no operator", vertex.uid));
            }
            for operator in &vertex.chain {
                if !operators.insert(&operator.uid) {
                    return malformed(format!("has two operators with the uid {}", operator.uid));
                }
            }
        }
        for edge in &self.edges {
            let (Some(source), Some(target)) =
                (vertices.get(&edge.source), vertices.get(&edge.target))
            else {
                return malformed(format!(
                    "edge {} -> {} has an end that is no vertex",
                    edge.source, edge.target
                ));
            };
            if edge.partitioning == Partitioning::Forward
                && source.parallelism != target.parallelism
            {
                return malformed(format!(
                    "forward edge {} -> {} joins the parallelisms {} and {}",
                    edge.source, edge.target, source.parallelism, target.parallelism
                ));
            }
            if let Partitioning::Hash { columns } = &edge.partitioning {
                let schema = &source.chain[source.chain.len() - 1].output;
                if let Some(missing) = columns.iter().find(|column| schema.field(column).is_none())
                {
                    return malformed(format!(
                        "edge {} -> {}: no column {missing}",
                        edge.source, edge.target
                    ));
                }
            }
        }
        for vertex in &self.vertices {
            let is_source = matches!(vertex.chain[0].kind, OperatorKind::Source(_));
            let has_input = self.inputs(&vertex.uid).next().is_some();
            if is_source == has_input {
                return malformed(format!(
                    "vertex {} needs a source or an input, and not both",
                    vertex.uid
                ));
            }
            if vertex.chain[1..]
                .iter()
                .any(|operator| matches!(operator.kind, OperatorKind::Source(_)))
            {
                return malformed(format!(
                    "vertex {} has a source behind another operator",
                    vertex.uid
                ));
            }
        }
        if self.in_topological_order().len() != self.vertices.len() {
            return malformed("has a cycle".into());
        }
        Ok(())
    }

    /// The graph without its operators and edges: who needs to name, count and place subtasks needs no more.
    pub fn outline(&self) -> Self {
        let vertices = self.vertices.iter().map(|vertex| Vertex {
            uid: vertex.uid.clone(),
            name: vertex.name.clone(),
            parallelism: vertex.parallelism,
            max_parallelism: vertex.max_parallelism,
            chain: Vec::new(),
        });
        Self {
            name: self.name.clone(),
            vertices: vertices.collect(),
            edges: Vec::new(),
        }
    }

    /// Checks what is true of an outline too; the vertices by uid.
    pub(crate) fn validate_vertices(&self) -> Result<BTreeMap<&VertexId, &Vertex>, Malformed> {
        let malformed = |what: String| Err(Malformed::new("job graph", what));
        if self.vertices.is_empty() {
            return malformed("has no vertex".into());
        }
        let mut vertices = BTreeMap::new();
        for vertex in &self.vertices {
            if vertices.insert(&vertex.uid, vertex).is_some() {
                return malformed(format!("has two vertices with the uid {}", vertex.uid));
            }
            if !(1..=MAX_PARALLELISM_MAX).contains(&vertex.max_parallelism)
                || !(1..=vertex.max_parallelism).contains(&vertex.parallelism)
            {
                return malformed(format!(
                    "vertex {}: needs 1 <= parallelism ({}) <= max parallelism ({}) <= {MAX_PARALLELISM_MAX}",
                    vertex.uid, vertex.parallelism, vertex.max_parallelism
                ));
            }
        }
        Ok(vertices)
    }

    /// The vertices, each after all of its inputs. Shorter than `vertices` if there is a cycle.
    pub fn in_topological_order(&self) -> Vec<&Vertex> {
        let mut missing: BTreeMap<&VertexId, usize> = self
            .vertices
            .iter()
            .map(|v| (&v.uid, self.inputs(&v.uid).count()))
            .collect();
        let mut order = Vec::new();
        while let Some(vertex) = self
            .vertices
            .iter()
            .find(|vertex| missing.get(&vertex.uid) == Some(&0))
        {
            missing.remove(&vertex.uid);
            for (_, edge) in self.outputs(&vertex.uid) {
                if let Some(count) = missing.get_mut(&edge.target) {
                    *count -= 1;
                }
            }
            order.push(vertex);
        }
        order
    }
}
