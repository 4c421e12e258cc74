//! What a submission has to pass before it is replicated: a valid graph, known settings, a readable restore point that
//! fits the graph, and a size that the log takes.

use std::collections::{BTreeMap, BTreeSet};

use flott_node::config::Configuration;
use flott_node::storage::ObjectStorage;
use flott_proto::ids::{ClusterId, JobId, Namespace};
use flott_proto::job_graph::JobGraph;
use flott_proto::wire;
use prost::Message;
use tonic::Status;

use crate::checkpoint_files::{self, LargeGraph};
use crate::core::settings::JobSettings;
use crate::leader::chain;

/// A replicated value is at most so large.
const SUBMISSION_BYTES_MAX: usize = 256 * 1024;

/// Settings of the cluster that a job takes over where it has none of its own.
const INHERITED: [&str; 5] = [
    "execution.",
    "restart-strategy",
    "pipeline.",
    "state.",
    "parallelism.",
];

/// What a submission leads to.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) submit: wire::SubmitJob,
    /// Its graph, if that is too large for the log: to be written before the command is proposed.
    pub(super) large_graph: Option<LargeGraph>,
}

/// The command that a submission leads to; the refusal says what is wrong with it.
pub(super) async fn prepare(
    request: wire::SubmitJobRequest,
    configuration: &Configuration,
    cluster: Option<&ClusterId>,
) -> Result<Prepared, Status> {
    request.job_id.parse::<JobId>()?;
    let namespace = request.namespace.parse::<Namespace>()?;
    let graph = request
        .graph
        .ok_or_else(|| Status::invalid_argument("the submission has no job graph"))?;
    let graph = JobGraph::try_from(graph)?;
    let (configuration, checkpoint_dir) = settings(request.configuration, configuration)?;
    let restore = match request.restore_path.as_str() {
        "" => None,
        path => {
            let mut metadata = restore(path, &graph, request.allow_non_restored_state).await?;
            let ours = cluster.is_some_and(|cluster| cluster.as_str() == metadata.cluster_id);
            if ours && metadata.namespace != request.namespace {
                return Err(Status::permission_denied(format!(
                    "{path} belongs to another namespace; start the job in the one that it was taken in"
                )));
            }
            if !ours {
                // Only this cluster's jobs can be asked whether they keep it.
                metadata.job_id.clear();
            }
            Some(metadata)
        }
    };
    let mut submit = wire::SubmitJob {
        namespace: request.namespace,
        job_id: request.job_id,
        graph: Some((&graph).into()),
        graph_object: None,
        configuration,
        restore_root: restore
            .as_ref()
            .map(|metadata| metadata.root.clone())
            .unwrap_or_default(),
        restore,
    };
    let mut large_graph = None;
    if submit.encoded_len() > SUBMISSION_BYTES_MAX
        && let Some(cluster) = cluster
    {
        let large = LargeGraph::of(&graph, &checkpoint_dir, cluster, &namespace)
            .map_err(|error| Status::invalid_argument(chain(&error)))?;
        submit.graph = Some((&graph.outline()).into());
        submit.graph_object = Some(large.object.to_wire());
        large_graph = Some(large);
    }
    let size = submit.encoded_len();
    if size > SUBMISSION_BYTES_MAX {
        return Err(Status::invalid_argument(format!(
            "the submission has {size} bytes besides the operators of its graph, more than the \
             {SUBMISSION_BYTES_MAX} that the log takes"
        )));
    }
    Ok(Prepared {
        submit,
        large_graph,
    })
}

/// The job's own settings over those of the cluster, checked; and where its checkpoints go.
fn settings(
    job: BTreeMap<String, String>,
    cluster: &Configuration,
) -> Result<(BTreeMap<String, String>, String), Status> {
    let inherited = |key: &String| INHERITED.iter().any(|prefix| key.starts_with(prefix));
    let cluster: BTreeMap<String, String> = cluster
        .to_map()
        .into_iter()
        .filter(|(key, _)| inherited(key))
        .collect();
    let refused = |error: flott_node::config::ConfigError| Status::invalid_argument(chain(&error));
    let job = Configuration::from_map(&job).map_err(refused)?;
    let merged = Configuration::from_map(&cluster)
        .map_err(refused)?
        .merge(job);
    merged.validate().map_err(refused)?;
    let settings = JobSettings::read(&merged).map_err(refused)?;
    if settings.checkpoint_dir.is_empty() {
        return Err(Status::invalid_argument(
            "execution.checkpointing.dir is not set; set it for the cluster or with -D for the job",
        ));
    }
    Ok((merged.to_map(), settings.checkpoint_dir))
}

/// The metadata of a savepoint or checkpoint, if the graph can start from it.
async fn restore(
    path: &str,
    graph: &JobGraph,
    allow_lost: bool,
) -> Result<wire::CheckpointMetadata, Status> {
    let metadata = checkpoint_files::read_metadata(path)
        .await
        .map_err(|error| {
            Status::invalid_argument(format!("cannot restore from {path}: {}", chain(&error)))
        })?;
    ObjectStorage::open(&metadata.root).map_err(|error| Status::invalid_argument(chain(&error)))?;
    let known: BTreeSet<&str> = graph
        .vertices
        .iter()
        .flat_map(|vertex| vertex.chain.iter().map(|operator| operator.uid.as_str()))
        .collect();
    for vertex in &metadata.vertices {
        let in_graph = graph.vertices.iter().find(|v| v.uid.as_str() == vertex.uid);
        let operators = vertex
            .subtasks
            .iter()
            .flat_map(|subtask| &subtask.operators);
        let lost = operators
            .map(|state| state.operator_uid.as_str())
            .find(|uid| !known.contains(uid));
        let lost = lost.or(in_graph.is_none().then_some(vertex.uid.as_str()));
        if let Some(lost) = lost.filter(|_| !allow_lost) {
            return Err(Status::invalid_argument(format!(
                "{path} has state of {lost}, which the job does not have; \
                 --allow-non-restored-state starts without it"
            )));
        }
        if let Some(in_graph) = in_graph
            .filter(|v| vertex.max_parallelism != 0 && v.max_parallelism != vertex.max_parallelism)
        {
            return Err(Status::invalid_argument(format!(
                "{path} has {} key groups for {}, the job has {}; set pipeline.max-parallelism to {}",
                vertex.max_parallelism,
                vertex.uid,
                in_graph.max_parallelism,
                vertex.max_parallelism
            )));
        }
    }
    Ok(metadata)
}
