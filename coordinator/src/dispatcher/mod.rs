//! The gRPC service for clients.
//!
//! - `files`: the job's files in checkpoint storage, checked and cleaned up because somebody asked for it.
//! - [`admin`]: for operators of the group; [`debug`]: what a debug bundle is told.
//! - [`submit`]: what a submission has to pass before it is replicated.
//! - [`show`]: replicated state and observation as clients see them.
//! - `namespaces`: the service for tenants. `rescale`: another parallelism. `changes`: waiting for what comes of it.
//!
//! What changes something, or has to be up to date, is for the leader; any other JobManager refuses and says where it is.

mod admin;
mod changes;
mod debug;
mod files;
mod namespaces;
mod rescale;
mod show;
mod submit;

use std::sync::Arc;
use std::time::Duration;

use flott_node::config::{Configuration, options};
use flott_node::tls::Whom;
use flott_node::{SharedClock, Transport, storage::ObjectStorage};
use flott_proto::header;
use flott_proto::ids::{JobId, Namespace};
use flott_proto::wire::{self, command::Decision, job_manager_server::JobManager};
use tokio::sync::{oneshot, watch};
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status};

pub(crate) use admin::Admin;

use self::changes::Changes;
use crate::core::{self, ClusterState, Job};
use crate::leader::{Event, Inspection, Office};
use crate::raft::{ProposeError, RaftError, RaftNode};
use crate::task_managers::{not_leader, office};

/// How long a follower waits for the leader's part of a status.
const ASK_LEADER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a question waits for a quorum, if the leader's lease is over. Beyond, the client asks again.
const CONFIRMATION_WAIT: Duration = Duration::from_secs(2);

/// Of the directory for savepoints: every barrier carries it, and no store takes longer names.
const TARGET_DIRECTORY_BYTES_MAX: usize = 4096;

#[derive(Debug)]
pub(crate) struct Dispatcher {
    pub raft: RaftNode,
    pub office: watch::Receiver<Option<Office>>,
    pub clock: SharedClock,
    /// How the leader is asked.
    pub transport: Transport,
    /// The process's configuration: defaults of the jobs that are submitted here.
    pub configuration: Configuration,
}

type Answer<T> = Result<Response<T>, Status>;

impl Dispatcher {
    fn office(&self) -> Result<Office, Status> {
        office(&self.office, &self.raft)
    }

    /// Replicates a client's decision and waits until it is applied.
    async fn decide(&self, decision: Decision) -> Result<(), Status> {
        let office = self.office()?;
        let command = wire::Command {
            now_ms: office.log_clock.now_ms(&self.clock),
            epoch: office.epoch.0,
            decision: Some(decision),
        };
        match self.raft.propose(command).await {
            Ok(applied) => match applied.response {
                core::Response::Applied | core::Response::Kv(_) => Ok(()),
                core::Response::Refused(reason) => Err(Status::invalid_argument(reason)),
            },
            Err(ProposeError::NotLeader { .. }) => Err(not_leader(&self.raft)),
            Err(error @ ProposeError::TooLarge { .. }) => {
                Err(Status::invalid_argument(error.to_string()))
            }
            Err(error @ (ProposeError::Unknown | ProposeError::Shutdown)) => {
                Err(Status::unavailable(format!(
                    "{error}; the command may have been carried out: repeat it, that is safe"
                )))
            }
        }
    }

    /// The state, if this process leads: then it holds everything that anybody was told is done.
    async fn state(&self) -> Result<Arc<ClusterState>, Status> {
        let office = self.office()?;
        let state = self.raft.state();
        self.certainly_leads(&office).await?;
        Ok(state)
    }

    /// Refuses unless this process still leads as it did in that office: then what it has seen since was not out of date.
    async fn certainly_leads(&self, office: &Office) -> Result<(), Status> {
        let leads = self.raft.certainly_leads();
        let leads = tokio::time::timeout(CONFIRMATION_WAIT, leads).await;
        let in_doubt =
            "a quorum of jobmanagers has not confirmed in time that this one leads; try again";
        match leads.map_err(|_| Status::unavailable(in_doubt))? {
            true if self.office()?.epoch == office.epoch => Ok(()),
            _ => Err(not_leader(&self.raft)),
        }
    }

    /// What the leader sees, and of tasks those of `job`. Also proves that this process still leads, for an up-to-date
    /// read.
    async fn inspect(&self, job: Option<JobId>) -> Result<Inspection, Status> {
        let office = self.office()?;
        let (answer, inspection) = oneshot::channel();
        let gone = || not_leader(&self.raft);
        office
            .mailbox
            .send(Event::Inspect { job, answer })
            .await
            .map_err(|_| gone())?;
        let inspection = inspection.await.map_err(|_| gone())?;
        self.certainly_leads(&office).await?;
        Ok(inspection)
    }

    /// The job of that id in that namespace, as of now.
    async fn job(&self, namespace: &str, id: &str) -> Result<Arc<Job>, Status> {
        let state = self.state().await?;
        let namespace = known_namespace(&state, namespace)?;
        let id: JobId = id.parse()?;
        let job = state.job_in(&namespace, &id).cloned();
        job.ok_or_else(|| {
            Status::not_found(format!("there is no job {id} in namespace {namespace}"))
        })
    }

    /// The leader's answer, if it gives one in time.
    async fn ask_leader(&self, address: &str) -> Option<wire::ClusterStatusResponse> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
        let asked = async {
            let channel = endpoint
                .connect_timeout(ASK_LEADER_TIMEOUT)
                .connect_with_connector(self.transport.connector(Whom::Member))
                .await
                .ok()?;
            let mut request = Request::new(wire::ClusterStatusRequest {});
            // Another cluster may have taken the leader's address meanwhile: its answer is none.
            let own = self.raft.cluster_id()?.as_str().parse().ok()?;
            request.metadata_mut().insert(header::CLUSTER_ID, own);
            let mut client = wire::job_manager_client::JobManagerClient::new(channel);
            Some(client.cluster_status(request).await.ok()?.into_inner())
        };
        // A leader that asks back believes in another one: its answer would be no better than ours.
        tokio::time::timeout(ASK_LEADER_TIMEOUT, asked).await.ok()?
    }

    /// Asks for a savepoint and waits for it, and for the job's end if it is to stop.
    async fn savepoint(
        &self,
        mut request: wire::RequestSavepoint,
    ) -> Answer<wire::TriggerSavepointResponse> {
        let job = self.job(&request.namespace, &request.job_id).await?;
        if request.target_directory.is_empty() {
            let configured = Configuration::from_map(&*job.configuration)
                .and_then(|job| job.get(&options::SAVEPOINT_DIR));
            request.target_directory =
                configured.map_err(|error| Status::internal(error.to_string()))?;
        }
        if request.target_directory.is_empty() {
            return Err(Status::invalid_argument(
                "name a target directory, or set execution.checkpointing.savepoint-dir",
            ));
        }
        if request.target_directory.len() > TARGET_DIRECTORY_BYTES_MAX {
            return Err(Status::invalid_argument(format!(
                "the name of the target directory has more than {TARGET_DIRECTORY_BYTES_MAX} bytes"
            )));
        }
        // In the form that means the same in every process.
        let target = ObjectStorage::open(&request.target_directory)
            .map_err(|error| Status::invalid_argument(crate::leader::chain(&error)))?;
        request.target_directory = target.root().to_owned();
        if request.request_id.is_empty() {
            request.request_id = uuid::Uuid::new_v4().to_string();
        }
        let (request_id, stop) = (request.request_id.clone(), request.stop);
        self.decide(Decision::RequestSavepoint(request)).await?;
        let mut changes = Changes::from_now(self.raft.applied(), &self.office);
        loop {
            let state = self.raft.state();
            let present = state
                .jobs
                .get(&job.id)
                .ok_or_else(|| Status::not_found("the job is gone"))?;
            let result = present
                .savepoint_results
                .iter()
                .find(|result| result.request_id == request_id);
            match result.map(|result| &result.outcome) {
                Some(Err(failure)) => {
                    return Err(Status::aborted(format!("the savepoint failed: {failure}")));
                }
                Some(Ok(path)) if !stop || present.status.is_terminal() => {
                    return Ok(Response::new(wire::TriggerSavepointResponse {
                        path: path.clone(),
                    }));
                }
                _ => {}
            }
            self.office()?;
            let changed = changes.next().await;
            changed.map_err(|_| not_leader(&self.raft))?;
        }
    }
}

#[tonic::async_trait]
impl JobManager for Dispatcher {
    async fn cluster_status(
        &self,
        _: Request<wire::ClusterStatusRequest>,
    ) -> Answer<wire::ClusterStatusResponse> {
        let leader = self.raft.leadership().borrow().leader.clone();
        if let Some((_, address)) = leader.filter(|(id, _)| *id != self.raft.node_id())
            && let Some(status) = self.ask_leader(&address).await
        {
            return Ok(Response::new(status));
        }
        let members = self.raft.members().await;
        let inspection = self.inspect(None).await.ok();
        Ok(Response::new(show::cluster(
            &self.raft,
            members,
            inspection.as_ref(),
        )))
    }

    async fn init_cluster(
        &self,
        request: Request<wire::InitClusterRequest>,
    ) -> Answer<wire::InitClusterResponse> {
        let addresses = request.into_inner().addresses;
        if addresses.is_empty() {
            return Err(Status::invalid_argument(
                "name the addresses of all first members",
            ));
        }
        match self.raft.initialize(addresses).await {
            Ok(cluster_id) => Ok(Response::new(wire::InitClusterResponse {
                cluster_id: cluster_id.to_string(),
            })),
            Err(error) => Err(refusal(&error)),
        }
    }

    async fn submit_job(
        &self,
        request: Request<wire::SubmitJobRequest>,
    ) -> Answer<wire::SubmitJobResponse> {
        let mut request = request.into_inner();
        let (job_id, is_dry_run) = (request.job_id.clone(), request.dry_run);
        let state = self.state().await?;
        let namespace = known_namespace(&state, &request.namespace)?;
        if self.raft.disk_is_low() {
            return Err(Status::resource_exhausted(
                "the disk of the leading jobmanager is nearly full and no new jobs are taken; free some room, or hand over \
                 to another jobmanager with `flott cluster transfer-leader`",
            ));
        }
        // Before anything is read for a submission that cannot be accepted.
        state
            .active_namespace(&namespace)
            .map_err(|refused| Status::invalid_argument(refused.to_string()))?;
        // A repetition starts nothing, and what the job was started from may be gone by now.
        if state.job_in(&namespace, &job_id.parse()?).is_some() {
            request.restore_path.clear();
        }
        let cluster = self.raft.cluster_id();
        let prepared = submit::prepare(request, &self.configuration, cluster.as_ref()).await?;
        let submit::Outlook {
            mut refusals,
            notes,
        } = prepared.outlook;
        if is_dry_run {
            refusals.extend(self.state().await?.would_refuse(&prepared.submit));
            return Ok(Response::new(wire::SubmitJobResponse {
                job_id,
                refusals,
                notes,
            }));
        }
        if !refusals.is_empty() {
            return Err(Status::invalid_argument(refusals.join("; ")));
        }
        let unavailable = |error| Status::unavailable(crate::leader::chain(&error));
        if let Some(graph) = &prepared.large_graph {
            if self
                .state()
                .await?
                .is_graph_retired(&namespace, &graph.object)
            {
                return Err(Status::unavailable(
                    "an object with the same job graph is being deleted; submit again in a moment",
                ));
            }
            graph.write().await.map_err(unavailable)?;
        }
        self.decide(Decision::SubmitJob(prepared.submit)).await?;
        if let Some(graph) = &prepared.large_graph {
            // Between writing and applying, the end of the last job with this graph may have deleted it. From here on
            // it stays.
            graph.ensure().await.map_err(unavailable)?;
        }
        Ok(Response::new(wire::SubmitJobResponse {
            job_id,
            ..Default::default()
        }))
    }

    async fn list_jobs(
        &self,
        request: Request<wire::ListJobsRequest>,
    ) -> Answer<wire::ListJobsResponse> {
        let state = self.state().await?;
        let namespace = known_namespace(&state, &request.into_inner().namespace)?;
        let jobs = state
            .jobs_in(&namespace)
            .map(|job| show::summary(job))
            .collect();
        Ok(Response::new(wire::ListJobsResponse { jobs }))
    }

    async fn describe_job(
        &self,
        request: Request<wire::DescribeJobRequest>,
    ) -> Answer<wire::JobDetails> {
        let request = request.into_inner();
        let job = self.job(&request.namespace, &request.job_id).await?;
        let inspection = self.inspect(Some(job.id.clone())).await?;
        // What is seen now may be of a later attempt than what was decided before.
        let job = self.job(&request.namespace, &request.job_id).await?;
        Ok(Response::new(show::job(&job, &inspection)))
    }

    async fn list_checkpoints(
        &self,
        request: Request<wire::ListCheckpointsRequest>,
    ) -> Answer<wire::ListCheckpointsResponse> {
        let request = request.into_inner();
        let job = self.job(&request.namespace, &request.job_id).await?;
        Ok(Response::new(wire::ListCheckpointsResponse {
            checkpoints: show::checkpoints(&job, self.clock.now_ms()),
        }))
    }

    async fn verify_checkpoints(
        &self,
        request: Request<wire::VerifyCheckpointsRequest>,
    ) -> Answer<wire::VerifyCheckpointsResponse> {
        self.verify(request.into_inner()).await
    }

    async fn collect_orphans(
        &self,
        request: Request<wire::CollectOrphansRequest>,
    ) -> Answer<wire::CollectOrphansResponse> {
        self.collect(request.into_inner()).await
    }

    async fn cancel_job(
        &self,
        request: Request<wire::CancelJobRequest>,
    ) -> Answer<wire::CancelJobResponse> {
        let request = request.into_inner();
        self.job(&request.namespace, &request.job_id).await?;
        self.decide(Decision::CancelJob(wire::CancelJob {
            namespace: request.namespace,
            job_id: request.job_id,
        }))
        .await?;
        Ok(Response::new(wire::CancelJobResponse {}))
    }

    async fn dismiss_job(
        &self,
        request: Request<wire::DismissJobRequest>,
    ) -> Answer<wire::DismissJobResponse> {
        let request = request.into_inner();
        self.job(&request.namespace, &request.job_id).await?;
        self.decide(Decision::DismissJob(wire::DismissJob {
            namespace: request.namespace,
            job_id: request.job_id,
        }))
        .await?;
        Ok(Response::new(wire::DismissJobResponse {}))
    }

    async fn rescale_job(
        &self,
        request: Request<wire::RescaleJobRequest>,
    ) -> Answer<wire::RescaleJobResponse> {
        self.rescale(request.into_inner()).await
    }

    async fn trigger_savepoint(
        &self,
        request: Request<wire::TriggerSavepointRequest>,
    ) -> Answer<wire::TriggerSavepointResponse> {
        let wire::TriggerSavepointRequest {
            namespace,
            job_id,
            target_directory,
            request_id,
        } = request.into_inner();
        let (stop, drain) = (false, false);
        self.office()?;
        self.savepoint(wire::RequestSavepoint {
            namespace,
            job_id,
            request_id,
            target_directory,
            stop,
            drain,
        })
        .await
    }

    async fn stop_job(
        &self,
        request: Request<wire::StopJobRequest>,
    ) -> Answer<wire::TriggerSavepointResponse> {
        let wire::StopJobRequest {
            namespace,
            job_id,
            target_directory,
            drain,
            request_id,
        } = request.into_inner();
        if drain {
            return Err(Status::unimplemented(
                "draining is not supported yet; stop without --drain",
            ));
        }
        self.office()?;
        self.savepoint(wire::RequestSavepoint {
            namespace,
            job_id,
            request_id,
            target_directory,
            stop: true,
            drain,
        })
        .await
    }
}

/// The namespace of that name, if there is one. What is asked of a namespace that is not there is refused with the
/// remedy, rather than answered as if it were empty.
fn known_namespace(state: &ClusterState, name: &str) -> Result<Namespace, Status> {
    let namespace: Namespace = name.parse()?;
    match state.known_namespace(&namespace) {
        Ok(_) => Ok(namespace),
        Err(refused) => Err(Status::not_found(refused.to_string())),
    }
}

fn refusal(error: &RaftError) -> Status {
    Status::failed_precondition(crate::leader::chain(error))
}
