//! What a submission has to pass before it is replicated: a valid graph, known settings, a readable restore point that
//! fits the graph, and a size that the log takes.

use std::collections::BTreeMap;

use flott_node::config::{ClaimMode, ConfigError, Configuration, options};
use flott_node::storage::ObjectStorage;
use flott_proto::ids::{ClusterId, JobId, Namespace};
use flott_proto::job_graph::JobGraph;
use flott_proto::wire;
use prost::Message;
use tonic::Status;

use crate::checkpoint_files::{self, Found, LargeGraph};
use crate::core::compatibility::{self, Finding};
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
    pub(super) outlook: Outlook,
}

/// What a start from a savepoint would lead to.
#[derive(Debug, Default)]
pub(super) struct Outlook {
    /// Why it is refused.
    pub(super) refusals: Vec<String>,
    /// What becomes of the state.
    pub(super) notes: Vec<String>,
}

impl Outlook {
    fn of(restore: &Restore, request: &wire::SubmitJobRequest, graph: &JobGraph) -> Self {
        let mut outlook = Self {
            refusals: Vec::new(),
            notes: compatibility::outlook(&restore.found.metadata, graph),
        };
        for finding in &restore.findings {
            if finding.is_obstacle(request.allow_non_restored_state) {
                let refusal = format!("{}: {finding}", request.restore_path);
                outlook.refusals.push(refusal);
            } else {
                outlook.notes.push(finding.to_string());
            }
        }
        outlook
    }
}

/// The command that a submission leads to; the refusal says what is wrong with it. What is wrong with the state that it
/// starts from is in the outlook, all of it.
pub(super) async fn prepare(
    request: wire::SubmitJobRequest,
    configuration: &Configuration,
    cluster: Option<&ClusterId>,
) -> Result<Prepared, Status> {
    request.job_id.parse::<JobId>()?;
    let namespace = request.namespace.parse::<Namespace>()?;
    let graph = request.graph.clone();
    let graph = graph.ok_or_else(|| Status::invalid_argument("the submission has no job graph"))?;
    let graph = JobGraph::try_from(graph)?;
    let restore = restore(&request, &graph, cluster).await?;
    let merged = merged(&request.configuration, configuration)?;
    let settings = JobSettings::read(&merged).map_err(refused)?;
    if settings.checkpoint_dir.is_empty() {
        return Err(Status::invalid_argument(
            "execution.checkpointing.dir is not set; set it for the cluster or with -D for the job",
        ));
    }
    let mode = merged.get(&options::CLAIM_MODE).map_err(refused)?;
    let (claimed, outlook) = match &restore {
        Some(restore) => (
            claimed(restore, mode)?,
            Outlook::of(restore, &request, &graph),
        ),
        None => (None, Outlook::default()),
    };
    let mut submit = wire::SubmitJob {
        namespace: request.namespace,
        job_id: request.job_id,
        graph: Some((&graph).into()),
        graph_object: None,
        configuration: merged.to_map(),
        restore_root: restore
            .as_ref()
            .map(|restore| restore.found.metadata.root.clone())
            .unwrap_or_default(),
        restore: restore.map(|restore| restore.found.metadata),
        claimed_directory: claimed.unwrap_or_default(),
    };
    let mut large_graph = None;
    if submit.encoded_len() > SUBMISSION_BYTES_MAX
        && let Some(cluster) = cluster
    {
        let large = LargeGraph::of(&graph, &settings.checkpoint_dir, cluster, &namespace)
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
        outlook,
    })
}

/// The job's own settings over those of the cluster, checked.
fn merged(
    job: &BTreeMap<String, String>,
    cluster: &Configuration,
) -> Result<Configuration, Status> {
    let inherited = |key: &String| INHERITED.iter().any(|prefix| key.starts_with(prefix));
    let cluster: BTreeMap<String, String> = cluster
        .to_map()
        .into_iter()
        .filter(|(key, _)| inherited(key))
        .collect();
    let job = Configuration::from_map(job).map_err(refused)?;
    let merged = Configuration::from_map(&cluster)
        .map_err(refused)?
        .merge(job);
    merged.validate().map_err(refused)?;
    Ok(merged)
}

fn refused(error: ConfigError) -> Status {
    Status::invalid_argument(chain(&error))
}

/// What a job is to start from.
struct Restore {
    found: Found,
    findings: Vec<Finding>,
}

/// Reads the savepoint or retained checkpoint, and finds what stands between it and the graph.
async fn restore(
    request: &wire::SubmitJobRequest,
    graph: &JobGraph,
    cluster: Option<&ClusterId>,
) -> Result<Option<Restore>, Status> {
    let path = request.restore_path.as_str();
    if path.is_empty() {
        return Ok(None);
    }
    let unreadable =
        |what: String| Status::invalid_argument(format!("cannot restore from {path}: {what}"));
    let found = checkpoint_files::read_metadata(path).await;
    let mut found = found.map_err(|error| unreadable(chain(&error)))?;
    let ours = cluster.is_some_and(|cluster| cluster.as_str() == found.metadata.cluster_id);
    if ours && found.metadata.namespace != request.namespace {
        return Err(Status::permission_denied(format!(
            "{path} belongs to another namespace; start the job in the one that it was taken in"
        )));
    }
    if !ours {
        // Only this cluster's jobs can be asked whether they keep it.
        found.metadata.job_id.clear();
    }
    ObjectStorage::open(&found.metadata.root)
        .map_err(|error| Status::invalid_argument(chain(&error)))?;
    let findings = compatibility::findings(&found.metadata, graph);
    let findings = findings.map_err(|malformed| unreadable(malformed.to_string()))?;
    Ok(Some(Restore { found, findings }))
}

/// The directory that the job takes over, if it is to.
fn claimed(restore: &Restore, mode: ClaimMode) -> Result<Option<String>, Status> {
    match mode {
        ClaimMode::NoClaim => Ok(None),
        ClaimMode::Claim if restore.found.is_self_contained() => {
            Ok(Some(restore.found.directory.clone()))
        }
        ClaimMode::Claim => Err(Status::invalid_argument(format!(
            "{} cannot be claimed: it shares files with other checkpoints of its job; start with NO_CLAIM, and `flott \
             forget` that job when this one has a checkpoint of its own",
            restore.found.directory
        ))),
    }
}

#[cfg(test)]
mod tests {
    use flott_decoders::{Seeds, kind, told};
    use flott_proto::wire::command::Decision;

    use super::*;
    use crate::core::testing::{World, graph};
    use crate::core::{Response, plan};

    #[test]
    fn any_bytes_are_a_submission_that_can_be_planned_or_refused() {
        let settings = [("execution.checkpointing.dir", "/checkpoints")];
        let cluster = Configuration::from_map(settings).unwrap();
        let job_settings = [
            ("execution.checkpointing.interval", "1 s"),
            ("restart-strategy.type", "exponential-delay"),
        ];
        let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let request = wire::SubmitJobRequest {
            job_id: "0123456789abcdef0123456789abcdef".into(),
            namespace: "default".into(),
            graph: Some((&graph(2)).into()),
            configuration: job_settings.into_iter().map(own).collect(),
            ..Default::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let read = |mut request: wire::SubmitJobRequest| {
            // Where it would be looked for is for other tests.
            request.restore_path.clear();
            runtime.block_on(prepare(request, &cluster, None))
        };
        read(request.clone()).unwrap();
        let world = World::new(2);
        let seeds = Seeds::of([request.encode_to_vec()]).inputs(1500);
        flott_decoders::check!(seeds).for_each(|bytes: &[u8]| {
            let Ok(request) = told(wire::SubmitJobRequest::decode(bytes)) else {
                return;
            };
            let prepared = match told(read(request)) {
                Ok(prepared) => prepared,
                Err(refusal) => return assert!(!refusal.message().is_empty()),
            };
            let mut state = world.state.clone();
            let command = wire::Command {
                now_ms: world.now.wall_ms,
                epoch: state.epoch.0,
                decision: Some(Decision::SubmitJob(prepared.submit)),
            };
            let response = kind(state.apply(world.commands.len() as u64 + 1, &command));
            state.check();
            if response == Response::Applied {
                plan(&state, &world.observed, &world.settings, world.now);
            }
        });
    }
}
