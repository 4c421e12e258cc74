//! Which channels a task has, from the job graph and where its subtasks run. Pure.

use std::collections::BTreeMap;

use flott_proto::ids::{SubtaskId, TaskManagerId};
use flott_proto::job_graph::{JobGraph, Partitioning};
use flott_proto::{Malformed, wire};

use super::ChannelId;

/// Where a subtask runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    pub task_manager: TaskManagerId,
    /// host:port of its data listener.
    pub address: String,
}

/// Where every subtask of an attempt runs.
pub type Locations = BTreeMap<SubtaskId, Location>;

/// The locations of a deployment; every subtask of every vertex must be among them.
pub fn locations(
    graph: &JobGraph,
    entries: Vec<wire::TaskLocation>,
) -> Result<Locations, Malformed> {
    let mut locations = Locations::new();
    for entry in entries {
        let subtask = SubtaskId {
            vertex: entry.vertex.parse()?,
            subtask: entry.subtask,
        };
        let location = Location {
            task_manager: entry.task_manager_id.parse()?,
            address: entry.data_address,
        };
        locations.insert(subtask, location);
    }
    for vertex in &graph.vertices {
        for subtask in 0..vertex.parallelism {
            let id = SubtaskId {
                vertex: vertex.uid.clone(),
                subtask,
            };
            if !locations.contains_key(&id) {
                return Err(Malformed::new(
                    "deployment",
                    format!("lacks the location of {id}"),
                ));
            }
        }
    }
    Ok(locations)
}

/// The channels into a subtask with the sending subtask of each: by edge, then by source.
pub fn inputs(graph: &JobGraph, task: &SubtaskId) -> Vec<(ChannelId, SubtaskId)> {
    let mut channels = Vec::new();
    for (edge_index, edge) in graph.inputs(&task.vertex) {
        let sources = match &edge.partitioning {
            Partitioning::Forward => task.subtask..task.subtask + 1,
            _ => {
                0..graph
                    .vertex(&edge.source)
                    .map_or(0, |vertex| vertex.parallelism)
            }
        };
        for source in sources {
            let id = ChannelId {
                edge: edge_index as u32,
                source,
                target: task.subtask,
            };
            let sender = SubtaskId {
                vertex: edge.source.clone(),
                subtask: source,
            };
            channels.push((id, sender));
        }
    }
    channels
}

/// The channels out of a subtask along one edge with the receiving subtask of each, by target.
pub fn outputs(
    graph: &JobGraph,
    task: &SubtaskId,
    edge_index: usize,
) -> Vec<(ChannelId, SubtaskId)> {
    let edge = &graph.edges[edge_index];
    let targets = match &edge.partitioning {
        Partitioning::Forward => task.subtask..task.subtask + 1,
        _ => {
            0..graph
                .vertex(&edge.target)
                .map_or(0, |vertex| vertex.parallelism)
        }
    };
    let channel = |target| {
        let id = ChannelId {
            edge: edge_index as u32,
            source: task.subtask,
            target,
        };
        let receiver = SubtaskId {
            vertex: edge.target.clone(),
            subtask: target,
        };
        (id, receiver)
    };
    targets.map(channel).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use flott_proto::job_graph::{Edge, Operator, OperatorKind, Schema, Sink, Vertex};

    use super::*;

    fn graph() -> JobGraph {
        let vertex = |uid: &str, parallelism| Vertex {
            uid: uid.parse().unwrap(),
            name: uid.into(),
            parallelism,
            max_parallelism: 8,
            chain: vec![Operator {
                uid: format!("{uid}-1"),
                name: uid.into(),
                output: Schema::default(),
                kind: OperatorKind::Sink(Sink::Blackhole),
            }],
        };
        let edge = |source: &str, target: &str, partitioning| Edge {
            source: source.parse().unwrap(),
            target: target.parse().unwrap(),
            partitioning,
        };
        JobGraph {
            name: "test".into(),
            vertices: vec![vertex("a", 2), vertex("b", 3), vertex("c", 3)],
            edges: vec![
                edge("a", "b", Partitioning::Rebalance),
                edge("b", "c", Partitioning::Forward),
                edge("a", "c", Partitioning::Broadcast),
            ],
        }
    }

    #[test]
    fn both_ends_of_every_channel_know_it() {
        let graph = graph();
        let (mut sent, mut received) = (BTreeSet::new(), BTreeSet::new());
        for vertex in &graph.vertices {
            for subtask in 0..vertex.parallelism {
                let task = SubtaskId {
                    vertex: vertex.uid.clone(),
                    subtask,
                };
                received.extend(inputs(&graph, &task).into_iter().map(|(id, _)| id));
                for (edge, _) in graph.outputs(&vertex.uid) {
                    sent.extend(outputs(&graph, &task, edge).into_iter().map(|(id, _)| id));
                }
            }
        }
        assert_eq!(sent, received);
        assert_eq!(sent.len(), 2 * 3 + 3 + 2 * 3);
    }

    #[test]
    fn a_deployment_must_say_where_everything_runs() {
        let at = |vertex: &str, subtask| wire::TaskLocation {
            vertex: vertex.into(),
            subtask,
            task_manager_id: "tm".into(),
            data_address: "x:1".into(),
        };
        let mut all: Vec<_> = [("a", 2), ("b", 3), ("c", 3)]
            .into_iter()
            .flat_map(|(vertex, count)| (0..count).map(move |subtask| at(vertex, subtask)))
            .collect();
        assert_eq!(locations(&graph(), all.clone()).unwrap().len(), 8);
        all.pop();
        assert!(
            locations(&graph(), all)
                .unwrap_err()
                .to_string()
                .contains("c/2")
        );
    }
}
