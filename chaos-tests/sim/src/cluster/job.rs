//! The job of [`flott_chaos_basis::sequence`], compiled, as it is submitted.

use std::collections::BTreeMap;
use std::path::Path;

use flott_chaos_basis::sequence::Sequence;
use flott_node::config::Configuration;
use flott_proto::wire;
use flott_proto::wire::operator::Kind;
use flott_proto::wire::sink::Connector;
use flott_sql::{Compiled, PlanOptions};

use super::plan::Plan;

/// Keys that the numbers are dealt to.
pub const KEYS: u64 = 32;
/// By so much the lanes of a source that goes on with another parallelism may be apart.
const DISORDER_S: u64 = 2;

/// What is submitted.
#[derive(Clone, Debug)]
pub struct Job {
    graph: wire::JobGraph,
    configuration: BTreeMap<String, String>,
}

impl Job {
    /// The job that commits to `output`. Fails if it does not compile.
    pub fn of(plan: &Plan, output: &Path) -> Result<Self, String> {
        let sequence = Sequence {
            keys: KEYS,
            records: plan.records,
            records_per_second: plan.records_per_second,
            disorder_s: DISORDER_S,
        };
        let script = sequence.sql(output);
        let options = PlanOptions {
            default_parallelism: plan.parallelism,
            max_parallelism: 16,
            job_name: None,
        };
        let compiled = flott_sql::compile(&script, &options).map_err(|error| error.to_string())?;
        let Compiled::Job {
            graph,
            configuration,
        } = compiled
        else {
            return Err("the script is no job".to_owned());
        };
        let own = Configuration::from_map(&configuration).map_err(|error| error.to_string())?;
        Ok(Self {
            graph: (&graph).into(),
            configuration: plan.job().merge(own).to_map(),
        })
    }

    /// The same, which commits to a directory of that name within its own.
    pub fn writing_to(&self, name: &str) -> Self {
        let mut job = self.clone();
        let operators = job.graph.vertices.iter_mut();
        for operator in operators.flat_map(|vertex| &mut vertex.chain) {
            if let Some(Kind::Sink(sink)) = &mut operator.kind
                && let Some(Connector::Filesystem(table)) = &mut sink.connector
            {
                table.path = format!("{}/{name}", table.path);
            }
        }
        job
    }

    /// Its submission under that id, from that savepoint unless there is none.
    pub fn submission(&self, id: &str, savepoint: &str) -> wire::SubmitJobRequest {
        wire::SubmitJobRequest {
            namespace: "default".to_owned(),
            job_id: id.to_owned(),
            graph: Some(self.graph.clone()),
            configuration: self.configuration.clone(),
            restore_path: savepoint.to_owned(),
            allow_non_restored_state: false,
            dry_run: false,
        }
    }
}

/// The id of the job of that number.
pub fn id(number: u32) -> String {
    format!("{number:032x}")
}
