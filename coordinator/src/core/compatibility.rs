//! Whether a job graph can go on with the state in a checkpoint, found before anything is stopped or started for it. Pure.
//!
//! State is matched by uid: a vertex's files and the operators in it. What is there for nobody would be lost, and that has to
//! be allowed. What is there for somebody has to be in the form that he reads: the same number of key groups, the same kind
//! of operator, and for keyed state the types in [`flott_proto::state_schema`].

use std::collections::BTreeMap;
use std::fmt;

use flott_proto::Malformed;
use flott_proto::job_graph::{JobGraph, OperatorKind, Vertex};
use flott_proto::state_schema::{Placed, WindowSchema, kind_name, state_kind};
use flott_proto::wire::{self, StateKind};
use prost::Message;

/// Something that stands between a checkpoint and a job graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The state of this operator or vertex is for nobody in the job.
    NonRestored {
        uid: String,
    },
    KeyGroups {
        vertex: String,
        stored: u32,
        wanted: u32,
    },
    OtherKind {
        uid: String,
        stored: StateKind,
        wanted: &'static str,
    },
    Schema {
        uid: String,
        obstacle: String,
    },
}

impl Finding {
    /// Whether a job is refused for it, given that state may be lost.
    pub fn is_obstacle(&self, allow_non_restored: bool) -> bool {
        !(allow_non_restored && matches!(self, Self::NonRestored { .. }))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NonRestored { uid } => write!(
                f,
                "it has state of {uid}, which the job does not have there; --allow-non-restored-state starts without it"
            ),
            Self::KeyGroups {
                vertex,
                stored,
                wanted,
            } => write!(
                f,
                "it has {stored} key groups for {vertex}, the job has {wanted}; set pipeline.max-parallelism to {stored}"
            ),
            Self::OtherKind {
                uid,
                stored,
                wanted,
            } => write!(
                f,
                "its state of {uid} is that of a {}, and in the job that is a {wanted}; start without \
                 the savepoint, or with the job as it was",
                kind_name(*stored)
            ),
            Self::Schema { uid, obstacle } => write!(
                f,
                "the job cannot go on with its state of {uid}: {obstacle}; start without the savepoint, or with the \
                 types as they were"
            ),
        }
    }
}

/// All that stands between them, in the order of the checkpoint's vertices.
pub fn findings(
    metadata: &wire::CheckpointMetadata,
    graph: &JobGraph,
) -> Result<Vec<Finding>, Malformed> {
    let mut findings = Vec::new();
    for stored in &metadata.vertices {
        let Some(vertex) = vertex_of(graph, stored) else {
            findings.push(Finding::NonRestored {
                uid: stored.uid.clone(),
            });
            continue;
        };
        // Early builds did not record it.
        if stored.max_parallelism != 0 && stored.max_parallelism != vertex.max_parallelism {
            findings.push(Finding::KeyGroups {
                vertex: stored.uid.clone(),
                stored: stored.max_parallelism,
                wanted: vertex.max_parallelism,
            });
        }
        for (uid, states) in operators(stored) {
            let mut placed = graph.operators();
            let placed =
                placed.find(|placed| placed.vertex.uid == vertex.uid && placed.operator.uid == uid);
            match placed {
                None => findings.push(Finding::NonRestored {
                    uid: uid.to_owned(),
                }),
                Some(placed) => findings.extend(misfit(placed, &states)?),
            }
        }
    }
    Ok(findings)
}

/// What is restored and what begins empty, for people.
pub fn outlook(metadata: &wire::CheckpointMetadata, graph: &JobGraph) -> Vec<String> {
    let mut outlook = Vec::new();
    for vertex in &graph.vertices {
        let stored = metadata.vertices.iter();
        let mut stored = stored.filter(|stored| stored.uid == vertex.uid.as_str());
        outlook.push(match stored.next() {
            None => format!("{}: begins without state", vertex.uid),
            Some(stored) => format!(
                "{}: state of {} subtasks goes to {}",
                vertex.uid, stored.parallelism, vertex.parallelism
            ),
        });
    }
    outlook
}

fn vertex_of<'a>(graph: &'a JobGraph, stored: &wire::VertexState) -> Option<&'a Vertex> {
    let mut vertices = graph.vertices.iter();
    vertices.find(|vertex| vertex.uid.as_str() == stored.uid)
}

/// The states of each operator, by its uid.
fn operators(stored: &wire::VertexState) -> BTreeMap<&str, Vec<&[u8]>> {
    let mut operators: BTreeMap<&str, Vec<&[u8]>> = BTreeMap::new();
    for state in stored
        .subtasks
        .iter()
        .flat_map(|subtask| &subtask.operators)
    {
        let of_operator = operators.entry(&state.operator_uid).or_default();
        of_operator.push(&state.value);
    }
    operators
}

/// Why an operator cannot read what was stored under its uid, if so.
fn misfit(placed: Placed<'_>, states: &[&[u8]]) -> Result<Option<Finding>, Malformed> {
    let unreadable = |error: prost::DecodeError| {
        let uid = &placed.operator.uid;
        Malformed::new("operator state", format!("of {uid}: {error}"))
    };
    let uid = placed.operator.uid.clone();
    let wanted = state_kind(&placed.operator.kind);
    for state in states {
        let head = wire::OperatorStateHead::decode(*state).map_err(unreadable)?;
        let stored = head.origin.unwrap_or_default().kind();
        if stored != StateKind::Unspecified && Some(stored) != wanted {
            let wanted = wanted.map_or("operator without state", kind_name);
            return Ok(Some(Finding::OtherKind {
                uid,
                stored,
                wanted,
            }));
        }
        let (OperatorKind::WindowAggregate(window), Some(input)) =
            (&placed.operator.kind, placed.input)
        else {
            continue;
        };
        let state = wire::WindowAggregateState::decode(*state).map_err(unreadable)?;
        let Some(schema) = state.schema else {
            continue;
        };
        let schema = WindowSchema::try_from(schema)?;
        if let Some(obstacle) = schema.obstacle(&WindowSchema::of(window, input)?) {
            return Ok(Some(Finding::Schema { uid, obstacle }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use flott_proto::job_graph::{Aggregate, AggregateFunction, Operator, WindowAggregate};

    use super::*;
    use crate::core::testing::graph;

    /// The graph of tests whose second vertex sums `k` by `k` in windows of a second.
    fn windowed() -> JobGraph {
        let mut graph = graph(2);
        let sum = Aggregate {
            function: AggregateFunction::Sum,
            argument: Some("k".into()),
            output: "sum".into(),
        };
        let window = WindowAggregate {
            time_column: "k".into(),
            size_ms: 1000,
            offset_ms: 0,
            keys: vec!["k".into()],
            aggregates: vec![sum],
            window_start: "start".into(),
            window_end: "end".into(),
        };
        let operator = Operator {
            uid: "window".into(),
            name: "window".into(),
            output: graph.vertices[0].chain[0].output.clone(),
            kind: OperatorKind::WindowAggregate(window),
        };
        graph.vertices[1].chain.insert(0, operator);
        graph
    }

    fn window(graph: &mut JobGraph) -> &mut WindowAggregate {
        match &mut graph.vertices[1].chain[0].kind {
            OperatorKind::WindowAggregate(window) => window,
            other => panic!("{other:?}"),
        }
    }

    /// What a savepoint of a job with that graph holds.
    fn savepoint(graph: &JobGraph) -> wire::CheckpointMetadata {
        let mut metadata = wire::CheckpointMetadata::default();
        for vertex in &graph.vertices {
            let placed = graph.operators();
            let placed = placed.filter(|placed| placed.vertex.uid == vertex.uid);
            let operators = placed.filter_map(|placed| {
                let kind = state_kind(&placed.operator.kind)?;
                let schema = match &placed.operator.kind {
                    OperatorKind::WindowAggregate(window) => {
                        let schema = WindowSchema::of(window, placed.input?).unwrap();
                        Some((&schema).into())
                    }
                    _ => None,
                };
                let origin = wire::StateOrigin {
                    kind: kind.into(),
                    ..Default::default()
                };
                // Of the others only the head matters, which is alike.
                let state = wire::WindowAggregateState {
                    origin: Some(origin),
                    schema,
                    ..Default::default()
                };
                Some(wire::OperatorState {
                    operator_uid: placed.operator.uid.clone(),
                    value: state.encode_to_vec().into(),
                })
            });
            metadata.vertices.push(wire::VertexState {
                uid: vertex.uid.to_string(),
                parallelism: vertex.parallelism,
                max_parallelism: vertex.max_parallelism,
                subtasks: vec![wire::SubtaskState {
                    operators: operators.collect(),
                    ..Default::default()
                }],
            });
        }
        metadata
    }

    #[test]
    fn a_job_goes_on_with_its_own_state_at_another_parallelism() {
        let mut graph = windowed();
        let savepoint = savepoint(&graph);
        for vertex in &mut graph.vertices {
            vertex.parallelism = 7;
        }
        assert_eq!(findings(&savepoint, &graph), Ok(vec![]));
        let outlook = outlook(&savepoint, &graph);
        assert!(
            outlook[1].contains("of 2 subtasks goes to 7"),
            "{outlook:?}"
        );
    }

    #[test]
    fn everything_that_would_be_refused_is_found_at_once() {
        let savepoint = savepoint(&windowed());
        let mut graph = windowed();
        graph.vertices[0].max_parallelism = 64;
        graph.vertices[0].chain[1].uid = "renamed".into();
        window(&mut graph).aggregates[0].function = AggregateFunction::Max;
        let found = findings(&savepoint, &graph).unwrap();
        let [key_groups, lost, schema] = &found[..] else {
            panic!("{found:?}")
        };
        assert!(
            key_groups
                .to_string()
                .contains("pipeline.max-parallelism to 128")
        );
        assert!(lost.to_string().contains("watermark") && !lost.is_obstacle(true));
        let text = schema.to_string();
        assert!(
            text.contains("SUM(BIGINT)") && text.contains("MAX(BIGINT)"),
            "{text}"
        );
        assert!(found.iter().all(|finding| finding.is_obstacle(false)));
        assert!(schema.is_obstacle(true) && key_groups.is_obstacle(true));
    }

    #[test]
    fn an_operator_that_has_become_another_or_has_moved_is_found() {
        let savepoint = savepoint(&windowed());
        let mut graph = windowed();
        let moved = graph.vertices[0].chain.remove(1);
        graph.vertices[1].chain.insert(1, moved);
        graph.vertices[1].chain[0].kind = OperatorKind::Filter {
            predicate: "true".into(),
        };
        let found = findings(&savepoint, &graph).unwrap();
        let [
            Finding::NonRestored { uid },
            Finding::OtherKind { wanted, .. },
        ] = &found[..]
        else {
            panic!("{found:?}")
        };
        assert_eq!(
            (uid.as_str(), *wanted),
            ("watermark", "operator without state")
        );
    }
}
