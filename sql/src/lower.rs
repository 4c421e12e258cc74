//! From a script to a JobGraph: the statements in order, then the line of operators cut into vertices.
//!
//! Operators stay in one vertex until rows must change their subtask: before a window aggregate (by the hash of its
//! keys), and before a sink with a parallelism of its own. Uids come from the structure of the query and the names of
//! its tables, so that the same script finds its state again.

use std::collections::{BTreeMap, BTreeSet};

use flott_proto::ids::VertexId;
use flott_proto::job_graph::{Edge, JobGraph, Operator, OperatorKind, Partitioning, Vertex};
use flott_proto::key_group::MAX_PARALLELISM_MAX;

use crate::catalog::Catalog;
use crate::error::{Position, SqlError};
use crate::explain;
use crate::expressions::Expressions;
use crate::options::Connector;
use crate::plan::Planner;
use crate::relation::{Relation, Step};
use crate::script::{self, Insert, Script, Statement, Text};
use crate::sink;
use crate::{Compiled, PlanOptions};

const PARALLELISM: &str = "parallelism.default";
const MAX_PARALLELISM: &str = "pipeline.max-parallelism";
const JOB_NAME: &str = "pipeline.name";
/// Longer names are cut: a uid is a component of paths.
const UID_LENGTH_MAX: usize = 100;

/// See [`crate::compile`].
pub(crate) fn compile(script: &str, options: &PlanOptions) -> Result<Compiled, SqlError> {
    let Script {
        statements,
        end,
        words,
    } = script::parse(script)?;
    let expressions = Expressions::new(&words);
    let mut catalog = Catalog::default();
    let mut settings = Settings::new(options);
    let mut compiled = None;
    for statement in statements {
        match statement {
            Statement::CreateTable(create) => catalog.create(&expressions, &create)?,
            Statement::DropTable { name, if_exists } => {
                let position = Position::of_span(name.span).unwrap_or(end);
                catalog.drop(&name.value, if_exists, position)?;
            }
            Statement::Set { key, .. } if compiled.is_some() => {
                let message = "a SET behind the INSERT changes nothing; move it before";
                return Err(SqlError::new(key.position, message));
            }
            Statement::Set { key, value } => settings.set(key, value)?,
            Statement::Insert(insert) | Statement::Explain(insert) if compiled.is_some() => {
                let remedy = "submit each INSERT as a job of its own";
                let construct = "a second INSERT in a script";
                return Err(SqlError::unsupported(insert.position, construct, remedy));
            }
            Statement::Insert(insert) => {
                let planner = Planner {
                    catalog: &catalog,
                    expressions: &expressions,
                    words: &words,
                };
                compiled = Some(Compiled::Job {
                    graph: graph(&planner, &settings, &insert)?,
                    configuration: settings.configuration.clone(),
                });
            }
            Statement::Explain(insert) => {
                let planner = Planner {
                    catalog: &catalog,
                    expressions: &expressions,
                    words: &words,
                };
                let graph = graph(&planner, &settings, &insert)?;
                compiled = Some(Compiled::Explain {
                    text: explain::text(&graph),
                });
            }
        }
    }
    compiled.ok_or_else(|| {
        let message = "the script has no INSERT INTO ... SELECT, so there is nothing to run";
        SqlError::new(end, message)
    })
}

/// The options of the call, and what the script's SETs have changed.
struct Settings {
    parallelism: u32,
    max_parallelism: u32,
    name: Option<String>,
    configuration: BTreeMap<String, String>,
}

impl Settings {
    fn new(options: &PlanOptions) -> Self {
        Self {
            parallelism: options.default_parallelism,
            max_parallelism: options.max_parallelism,
            name: options.job_name.clone(),
            configuration: BTreeMap::new(),
        }
    }

    fn set(&mut self, key: Text, value: Text) -> Result<(), SqlError> {
        let number = || {
            let number = value.value.trim().parse();
            number
                .ok()
                .filter(|number| (1..=MAX_PARALLELISM_MAX).contains(number))
                .ok_or_else(|| {
                    let message = format!(
                        "'{}' needs a number from 1 to {MAX_PARALLELISM_MAX}, not '{}'",
                        key.value, value.value
                    );
                    SqlError::new(value.position, message)
                })
        };
        match key.value.as_str() {
            PARALLELISM => self.parallelism = number()?,
            MAX_PARALLELISM => self.max_parallelism = number()?,
            JOB_NAME => {
                // The name travels in the graph; no process has an option for it.
                self.name.get_or_insert(value.value);
                return Ok(());
            }
            _ => {}
        }
        self.configuration.insert(key.value, value.value);
        Ok(())
    }
}

fn graph(
    planner: &Planner<'_>,
    settings: &Settings,
    insert: &Insert,
) -> Result<JobGraph, SqlError> {
    let sink = sink::table(planner.catalog, insert)?;
    let selected = planner.query(&insert.query, insert.position)?;
    let relation = sink::write(selected, sink, insert)?;
    let source = planner
        .catalog
        .get(&relation.table)
        .expect("the relation was planned from this catalog");
    let name = match &settings.name {
        Some(name) => name.clone(),
        None => format!("insert-into_{}", sink.name),
    };
    let stages = stages(relation, settings, &source.connector, &sink.connector);
    check_parallelism(&stages, settings, insert)?;
    let graph = assemble(
        name,
        stages,
        settings.max_parallelism,
        &source.name,
        &sink.name,
    );
    match graph.validate() {
        Ok(()) => Ok(graph),
        Err(malformed) => Err(SqlError::new(insert.position, malformed.to_string())),
    }
}

/// A vertex to be.
struct Stage {
    /// How rows come in; none for the source.
    partitioning: Option<Partitioning>,
    parallelism: u32,
    /// Where the script gives this parallelism, if it does so at a table.
    parallelism_position: Option<Position>,
    steps: Vec<Step>,
}

fn stages(
    relation: Relation,
    settings: &Settings,
    source: &Connector,
    sink: &Connector,
) -> Vec<Stage> {
    let (parallelism, parallelism_position) = match source.scan_parallelism {
        Some((parallelism, position)) => (parallelism, Some(position)),
        None => (settings.parallelism, None),
    };
    let mut done = Vec::new();
    let mut stage = Stage {
        partitioning: None,
        parallelism,
        parallelism_position,
        steps: Vec::new(),
    };
    for step in relation.steps {
        let next = match &step.kind {
            OperatorKind::WindowAggregate(aggregate) => Some(if aggregate.keys.is_empty() {
                // Without keys there is one row per window, which one subtask must see whole.
                (Partitioning::Rebalance, 1, None)
            } else {
                let columns = aggregate.keys.clone();
                (Partitioning::Hash { columns }, settings.parallelism, None)
            }),
            OperatorKind::Sink(_) => sink
                .sink_parallelism
                .filter(|(parallelism, _)| *parallelism != stage.parallelism)
                .map(|(parallelism, position)| {
                    (Partitioning::Rebalance, parallelism, Some(position))
                }),
            _ => None,
        };
        if let Some((partitioning, parallelism, parallelism_position)) = next {
            done.push(stage);
            stage = Stage {
                partitioning: Some(partitioning),
                parallelism,
                parallelism_position,
                steps: Vec::new(),
            };
        }
        stage.steps.push(step);
    }
    done.push(stage);
    done
}

fn check_parallelism(
    stages: &[Stage],
    settings: &Settings,
    insert: &Insert,
) -> Result<(), SqlError> {
    let max = settings.max_parallelism;
    for stage in stages {
        if !(1..=max).contains(&stage.parallelism) || max > MAX_PARALLELISM_MAX {
            let position = stage.parallelism_position.unwrap_or(insert.position);
            let message = format!(
                "a parallelism of {} needs 1 <= parallelism <= {MAX_PARALLELISM} ({max}) <= {MAX_PARALLELISM_MAX}",
                stage.parallelism
            );
            return Err(SqlError::new(position, message));
        }
    }
    Ok(())
}

fn assemble(
    name: String,
    stages: Vec<Stage>,
    max_parallelism: u32,
    source: &str,
    sink: &str,
) -> JobGraph {
    let mut uids = BTreeSet::new();
    let mut number = 0;
    let mut vertices: Vec<Vertex> = Vec::new();
    let mut edges = Vec::new();
    for stage in stages {
        let mut chain = Vec::new();
        for step in stage.steps {
            number += 1;
            chain.push(Operator {
                uid: free_uid(&step.uid, &mut uids),
                name: operator_name(&step.kind, number, source, sink),
                output: step.output,
                kind: step.kind,
            });
        }
        let names: Vec<&str> = chain
            .iter()
            .map(|operator| operator.name.as_str())
            .collect();
        let uid: VertexId = chain[0]
            .uid
            .parse()
            .expect("a free uid has the characters and length of a vertex uid");
        if let (Some(partitioning), Some(before)) = (stage.partitioning, vertices.last()) {
            edges.push(Edge {
                source: before.uid.clone(),
                target: uid.clone(),
                partitioning,
            });
        }
        vertices.push(Vertex {
            uid,
            name: names.join(" -> "),
            parallelism: stage.parallelism,
            max_parallelism,
            chain,
        });
    }
    JobGraph {
        name,
        vertices,
        edges,
    }
}

/// As Flink prints them.
fn operator_name(kind: &OperatorKind, number: usize, source: &str, sink: &str) -> String {
    match kind {
        OperatorKind::Source(_) => format!("Source: {source}[{number}]"),
        OperatorKind::AssignWatermark(_) => format!("WatermarkAssigner[{number}]"),
        OperatorKind::Filter { .. } | OperatorKind::Project { .. } => format!("Calc[{number}]"),
        OperatorKind::WindowAggregate(_) => format!("WindowAggregate[{number}]"),
        OperatorKind::Sink(_) => format!("Sink: {sink}[{number}]"),
    }
}

/// The wanted uid with only the characters that a uid may have, and a number if it is taken.
fn free_uid(wanted: &str, taken: &mut BTreeSet<String>) -> String {
    let allowed = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '-'
        }
    };
    let base: String = wanted.chars().take(UID_LENGTH_MAX).map(allowed).collect();
    let mut uid = base.clone();
    let mut number = 1;
    while !taken.insert(uid.clone()) {
        number += 1;
        uid = format!("{base}-{number}");
    }
    uid
}
