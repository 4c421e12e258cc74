//! From a SQL script to a job: parse, check and type it, and lower it to the JobGraph IR.
//!
//! ```text
//! script text --script, ddl--> statements --plan--> relation (a line of operators) --lower--> JobGraph
//! ```
//!
//! - `dialect`, `script`: sqlparser behind Flink's dialect, statement by statement. `ddl` reads `CREATE TABLE` itself,
//!   because `WATERMARK FOR` is Flink's own; `options` and `nexmark` check it against the connector; `catalog` keeps it.
//! - `plan`, `from`, `tumble`, `aggregate`, `grouping`: the query's syntax tree, walked by hand so that every refusal
//!   knows its position, into a `relation`. `sink` fits its columns into the table that is written to.
//! - `expressions`, with `resolve`, `rewrite`, `functions` and `comparisons`: each expression becomes text that the
//!   worker compiles again. DataFusion types **that text**, so what is checked here is what runs there.
//! - `lower`: the line of operators cut into vertices; `explain` draws the result.
//!
//! Nothing here reads a file, a clock or the network, and no script makes it panic.

mod aggregate;
mod catalog;
mod comparisons;
mod ddl;
mod dialect;
mod error;
mod explain;
mod expressions;
mod from;
mod functions;
mod grouping;
mod lower;
mod nexmark;
mod options;
mod plan;
mod relation;
mod resolve;
mod rewrite;
mod script;
mod sink;
mod tumble;
mod types;

use std::collections::BTreeMap;

use flott_proto::job_graph::JobGraph;

pub use error::{Position, SqlError};

/// What a script does not say itself. A `SET` in the script wins over these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanOptions {
    /// Parallelism of every vertex that does not name one; `SET 'parallelism.default'` overrides it.
    pub default_parallelism: u32,
    /// Key groups of every vertex; `SET 'pipeline.max-parallelism'` overrides it.
    pub max_parallelism: u32,
    /// Else `SET 'pipeline.name'`, else `insert-into_<sink>`.
    pub job_name: Option<String>,
}

/// What became of a script.
#[derive(Clone, Debug, PartialEq)]
pub enum Compiled {
    /// A job to submit.
    Job {
        /// Valid by [`JobGraph::validate`].
        graph: JobGraph,
        /// The `SET 'k' = 'v'` statements, the last of each key. What is read here (parallelism) stands in it too.
        configuration: BTreeMap<String, String>,
    },
    /// The answer to `EXPLAIN`: a drawing of the vertices, then the JobGraph as YAML.
    Explain { text: String },
}

/// The compiler's own stack: an expression of the permitted size needs a part of it in a debug build.
const STACK_BYTES: usize = 64 << 20;

/// Compiles a script with exactly one `INSERT INTO … SELECT` or `EXPLAIN INSERT INTO … SELECT`.
///
/// Works on a thread of its own, so that neither the caller's stack size nor a defect of a library that it calls
/// decides what a script can do to the caller.
///
/// # Errors
///
/// A script that is malformed, or asks for what Flott does not run; the error names the place and the remedy.
pub fn compile(script: &str, options: &PlanOptions) -> Result<Compiled, SqlError> {
    std::thread::scope(|scope| {
        let compiler = std::thread::Builder::new()
            .name("sql-compiler".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || lower::compile(script, options));
        match compiler {
            Ok(thread) => thread.join().unwrap_or_else(|_| {
                let message = "the SQL compiler failed on this script; please report it, and try a simpler form";
                Err(SqlError::new(Position::START, message))
            }),
            Err(error) => {
                let message = format!("no thread for the SQL compiler: {error}");
                Err(SqlError::new(Position::START, message))
            }
        }
    })
}

/// What `EXPLAIN` answers about a graph: a drawing of the vertices, then the JobGraph as YAML.
pub fn explain(graph: &JobGraph) -> String {
    explain::text(graph)
}
