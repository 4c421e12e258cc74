//! From the leader's DeployTasks to the specifications of tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flott_node::config::{ConfigError, Configuration, StateBackendType, options};
use flott_proto::Malformed;
use flott_proto::ids::{CheckpointId, LeaderEpoch, SubtaskId};
use flott_proto::job_graph::JobGraph;
use flott_proto::state_handle::SubtaskState;
use flott_proto::wire::{DeployTasks, TaskDeployment};
use flott_statestore::{BackendOptions, LocalFiles};

use crate::Error;
use crate::network::attempt::AttemptId;
use crate::network::topology::{self, Locations};
use crate::operators::OperatorChain;
use crate::task::run::StatePlan;

use super::local_dirs::LocalDirs;

/// A checked DeployTasks.
#[derive(Debug)]
pub(crate) struct Deployment {
    pub id: AttemptId,
    pub graph: Arc<JobGraph>,
    pub locations: Locations,
    pub tasks: BTreeMap<SubtaskId, TaskDeployment>,
    /// Of each task that ends in a sink; 0 for no limit.
    pub sink_rows_per_second: u32,
    /// execution.checkpointing.dir of the job; may be empty.
    checkpoint_dir: String,
    backend: StateBackendType,
}

impl Deployment {
    /// Checks everything that does not need the disk.
    pub(crate) fn read(deploy: DeployTasks, epoch: LeaderEpoch) -> Result<Self, Error> {
        let invalid = |error: ConfigError| Error::Configuration(error.to_string());
        let configuration = Configuration::from_map(&deploy.configuration);
        let configuration = configuration.map_err(invalid)?;
        let checkpoint_dir = configuration.get(&options::CHECKPOINT_DIR);
        let checkpoint_dir = checkpoint_dir.map_err(invalid)?;
        let backend = configuration
            .get(&options::STATE_BACKEND)
            .map_err(invalid)?;
        let sink_rows_per_second = configuration.get(&options::SINK_ROWS_PER_SECOND);
        let sink_rows_per_second = sink_rows_per_second.map_err(invalid)?;
        let graph = deploy
            .graph
            .ok_or_else(|| Malformed::new("deployment", "lacks the job graph"))?;
        let graph = Arc::new(JobGraph::try_from(graph)?);
        let mut tasks = BTreeMap::new();
        for task in deploy.tasks {
            let id = SubtaskId {
                vertex: task.vertex.parse()?,
                subtask: task.subtask,
            };
            if graph
                .vertex(&id.vertex)
                .is_none_or(|vertex| id.subtask >= vertex.parallelism)
            {
                return Err(Malformed::new(
                    "deployment",
                    format!("of {id}, which the job graph does not have"),
                )
                .into());
            }
            tasks.insert(id, task);
        }
        Ok(Self {
            id: AttemptId {
                cluster: deploy.cluster_id.parse()?,
                job: deploy.job_id.parse()?,
                attempt: flott_proto::ids::AttemptNumber(deploy.attempt),
                epoch,
            },
            locations: topology::locations(&graph, deploy.locations)?,
            graph,
            tasks,
            sink_rows_per_second,
            checkpoint_dir,
            backend,
        })
    }

    /// The tasks to run here.
    pub(crate) fn task_ids(&self) -> BTreeSet<SubtaskId> {
        self.tasks.keys().cloned().collect()
    }

    /// Where a task's state comes from and goes to. `slot_memory_bytes` is shared by the keyed tasks in a slot; `local` is
    /// what is kept here of the job's state.
    pub(crate) fn state_plan(
        &self,
        subtask: &SubtaskId,
        dirs: &LocalDirs,
        slot_memory_bytes: u64,
        local: Option<&LocalFiles>,
    ) -> Result<StatePlan, Error> {
        let deployment = &self.tasks[subtask];
        let keyed = self
            .graph
            .vertices
            .iter()
            .filter(|vertex| OperatorChain::needs_keyed_state(vertex))
            .count();
        let restore = deployment
            .restore
            .iter()
            .cloned()
            .map(SubtaskState::try_from);
        Ok(StatePlan {
            restore: restore.collect::<Result<_, _>>()?,
            restored_checkpoint: CheckpointId(deployment.restore_checkpoint_id),
            is_base: deployment.restore_is_base,
            storage_root: self.checkpoint_dir.clone(),
            restore_root: deployment.restore_root.clone(),
            writer: deployment.writer.clone(),
            local: local.cloned(),
            dir: dirs.task(&self.id.job, self.id.attempt, subtask),
            options: BackendOptions {
                memory_bytes: slot_memory_bytes / keyed.max(1) as u64,
                backend: self.backend,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use flott_decoders::{Seeds, told};
    use flott_proto::job_graph::{
        Field, FilesystemSource, Format, JsonFormat, Operator, OperatorKind, Schema, Sink, Source,
        Vertex,
    };
    use flott_proto::wire;
    use prost::Message;

    use super::*;

    #[test]
    fn any_bytes_are_a_deployment_or_refused() {
        let schema = Schema {
            fields: vec![Field {
                name: "k".into(),
                data_type: "BIGINT".parse().unwrap(),
                nullable: false,
            }],
        };
        let source = Source::Filesystem(FilesystemSource {
            path: "/in".into(),
            format: Format::Json(JsonFormat {
                ignore_parse_errors: false,
                iso_timestamps: false,
            }),
            rows_per_second: 0,
        });
        let operator = |uid: &str, output, kind| Operator {
            uid: uid.into(),
            name: uid.into(),
            output,
            kind,
        };
        let chain = vec![
            operator("read", schema, OperatorKind::Source(source)),
            operator(
                "write",
                Schema::default(),
                OperatorKind::Sink(Sink::Blackhole),
            ),
        ];
        let graph = JobGraph {
            name: "j".into(),
            vertices: vec![Vertex {
                uid: "v".parse().unwrap(),
                name: "v".into(),
                parallelism: 2,
                max_parallelism: 128,
                chain,
            }],
            edges: Vec::new(),
        };
        let location = |subtask| wire::TaskLocation {
            vertex: "v".into(),
            subtask,
            task_manager_id: "tm-1".into(),
            data_address: "a:1".into(),
        };
        let deploy = DeployTasks {
            job_id: "0123456789abcdef0123456789abcdef".into(),
            namespace: "default".into(),
            attempt: 1,
            graph: Some((&graph).into()),
            configuration: [("state.backend.type".to_owned(), "hashmap".to_owned())].into(),
            tasks: vec![TaskDeployment {
                vertex: "v".into(),
                writer: "w".into(),
                ..Default::default()
            }],
            locations: vec![location(0), location(1)],
            cluster_id: "c".into(),
        };
        Deployment::read(deploy.clone(), LeaderEpoch(1)).unwrap();
        let seeds = Seeds::of([deploy.encode_to_vec()]);
        flott_decoders::check!(seeds).for_each(|bytes: &[u8]| {
            let Ok(deploy) = told(DeployTasks::decode(bytes)) else {
                return;
            };
            match told(Deployment::read(deploy, LeaderEpoch(1))) {
                Ok(deployment) => assert!(deployment.tasks.len() <= deployment.locations.len()),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        });
    }
}
