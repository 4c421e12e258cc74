//! What crosses a boundary here: the text of a script, and the bytes of a JobGraph.

use flott_decoders::{Seeds, told};
use flott_proto::job_graph::JobGraph;
use flott_proto::wire;
use flott_sql::Compiled;
use prost::Message;

use crate::compiler::run;
use crate::golden::whole_scripts;
use crate::round_trip::check_graph;

/// The golden scripts, without those for one query each.
fn scripts() -> impl Iterator<Item = String> {
    whole_scripts().into_iter().map(|(_, script)| script)
}

fn graphs() -> impl Iterator<Item = JobGraph> {
    scripts().filter_map(|script| match run(&script) {
        Ok(Compiled::Job { graph, .. }) => Some(graph),
        _ => None,
    })
}

#[test]
fn any_text_is_a_job_or_refused_with_a_position_in_it() {
    let words = [
        "SELECT ",
        "INSERT INTO ",
        "CREATE TABLE ",
        " WITH (",
        "EXPLAIN ",
        "SET '",
        "CASE WHEN ",
        " END",
        "CAST(",
        "TRY_CAST(",
        " AS ",
        "INTERVAL '1' HOUR",
        "TUMBLE(TABLE t, DESCRIPTOR(a), ",
        "GROUP BY ",
        "COUNT(*)",
        "DECIMAL(38, 38)",
        "TIMESTAMP(9)",
        "'\\u{0}'",
        "9223372036854775808",
        "1e400",
        " NOT ",
        " IS NULL",
        " BETWEEN ",
        " IN (",
        " LIKE '%",
        "(",
        ")",
        "--",
        "/*",
        ";",
        "\u{feff}",
        "ß",
        "\0",
        "`",
        "\"",
        "'",
        "- ",
        "::",
        "x'",
        "U&'",
    ];
    flott_decoders::check!(Seeds::of(scripts()).words(words).inputs(300)).for_each(
        |bytes: &[u8]| {
            let script = String::from_utf8_lossy(bytes);
            match told(run(&script)) {
                Ok(Compiled::Job { graph, .. }) => {
                    check_graph(&graph);
                }
                Ok(Compiled::Explain { text }) => assert!(!text.is_empty()),
                Err(error) => {
                    // A defect of the compiler's is a message, too.
                    assert!(!error.message().contains("please report"), "{error}");
                    let lines = script.lines().count().max(1) as u64;
                    let position = error.position();
                    assert!((1..=lines + 1).contains(&position.line), "{error}");
                    assert!(position.column >= 1, "{error}");
                }
            }
        },
    );
}

#[test]
fn any_bytes_are_a_job_graph_or_refused() {
    let seeds = graphs().map(|graph| wire::JobGraph::from(&graph).encode_to_vec());
    flott_decoders::check!(Seeds::of(seeds).inputs(1000)).for_each(|bytes: &[u8]| {
        let Ok(read) = told(wire::JobGraph::decode(bytes)) else {
            return;
        };
        let Ok(graph) = told(JobGraph::try_from(read)) else {
            return;
        };
        graph.validate().unwrap();
        let again = wire::JobGraph::from(&graph);
        assert_eq!(JobGraph::try_from(again), Ok(graph.clone()));
        let outline = wire::JobGraph::from(&graph.outline());
        JobGraph::outline_from_wire(outline).unwrap();
        assert_eq!(graph.in_topological_order().len(), graph.vertices.len());
        assert!(!flott_sql::explain(&graph).is_empty());
        for placed in graph.operators() {
            drop(format!("{placed:?}"));
        }
    });
}
