//! The answer to `EXPLAIN`: a drawing of the vertices for the eye, the JobGraph as YAML for the rest.

use std::fmt::Write;

use flott_proto::job_graph::{JobGraph, Partitioning};

/// The whole answer.
pub(crate) fn text(graph: &JobGraph) -> String {
    format!(
        "== Vertices ==\n{}\n== JobGraph ==\n{}",
        drawing(graph),
        graph.to_yaml()
    )
}

/// A line per vertex, with how rows come in above it.
fn drawing(graph: &JobGraph) -> String {
    let mut lines = String::new();
    for vertex in graph.in_topological_order() {
        for (_, edge) in graph.inputs(&vertex.uid) {
            let partitioning = match &edge.partitioning {
                Partitioning::Forward => "forward".to_owned(),
                Partitioning::Hash { columns } => format!("hash({})", columns.join(", ")),
                Partitioning::Rebalance => "rebalance".to_owned(),
                Partitioning::Broadcast => "broadcast".to_owned(),
            };
            push(
                &mut lines,
                &format!("   |  {partitioning} from {}", edge.source),
            );
            push(&mut lines, "   v");
        }
        push(
            &mut lines,
            &format!("{} x {}: {}", vertex.uid, vertex.parallelism, vertex.name),
        );
    }
    lines
}

fn push(lines: &mut String, line: &str) {
    writeln!(lines, "{line}").expect("writing to a String does not fail");
}
