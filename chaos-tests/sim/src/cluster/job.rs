//! What is run: consecutive numbers, dealt to keys, go over a hash exchange into windows in keyed state, and through an
//! exactly-once sink into files.
//!
//! ```text
//! record i (i = 0, 1, …): number FIRST + i, event time i ms after 1970, key (FIRST + i) modulo KEYS
//! committed, for each window and each key: how many numbers, the least, the greatest, their sum
//! ```
//!
//! The numbers are the ids of persons of the Nexmark source, one of which is among 50 events.

use std::collections::BTreeMap;
use std::path::Path;

use flott_node::config::Configuration;
use flott_proto::wire;
use flott_proto::wire::operator::Kind;
use flott_proto::wire::sink::Connector;
use flott_sql::{Compiled, PlanOptions};

use super::plan::Plan;

/// The number of the first record.
pub const FIRST: u64 = 1_000;
/// Keys that the numbers are dealt to.
pub const KEYS: u64 = 32;
/// Records of one window: one a millisecond.
pub const WINDOW: u64 = 1_000;
/// Of the source's events, one in so many is a record.
const EVENTS_PER_RECORD: u64 = 50;

/// What is submitted.
#[derive(Clone, Debug)]
pub struct Job {
    graph: wire::JobGraph,
    configuration: BTreeMap<String, String>,
}

impl Job {
    /// The job that commits to `output`. Fails if it does not compile.
    pub fn of(plan: &Plan, output: &Path) -> Result<Self, String> {
        let script = format!(
            "CREATE TABLE numbers (id BIGINT, date_time TIMESTAMP(3),
  WATERMARK FOR date_time AS date_time - INTERVAL '2' SECOND
) WITH ('connector' = 'nexmark', 'nexmark.table-type' = 'person', 'nexmark.base-time' = '0',
  'nexmark.interval-us' = '{}', 'nexmark.events' = '{}', 'nexmark.events-per-second' = '{}');
CREATE TABLE sequences (
  window_start TIMESTAMP(3), k BIGINT, records BIGINT, least BIGINT, greatest BIGINT, total BIGINT
) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'csv');
INSERT INTO sequences
SELECT window_start, MOD(id, {KEYS}) AS k, COUNT(*) AS records, MIN(id) AS least, MAX(id) AS greatest, SUM(id) AS total
FROM TABLE(TUMBLE(TABLE numbers, DESCRIPTOR(date_time), INTERVAL '{}' SECOND))
GROUP BY window_start, window_end, MOD(id, {KEYS});
",
            1_000 / EVENTS_PER_RECORD,
            plan.records * EVENTS_PER_RECORD,
            plan.records_per_second * EVENTS_PER_RECORD,
            output.display(),
            WINDOW / 1_000,
        );
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
