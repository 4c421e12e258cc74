//! A cluster seems like one: calls find the leader, and outlive it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use flott_cli::client::{Client, ClientError, LEADER_HEADER};
use flott_node::{OnFailure, SystemClock, Tasks, Transport};
use flott_proto::wire;
use flott_proto::wire::job_manager_server::{JobManager, JobManagerServer};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};

type Answer = dyn Fn(u32) -> Result<(), Status> + Send + Sync;

/// A member that answers its n-th call (from 1) as the test says.
#[derive(Clone)]
struct Member {
    answer: Arc<Answer>,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Member {
    fn take<T: Default>(&self, call: &str) -> Result<Response<T>, Status> {
        let count = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(call.to_owned());
            calls.len() as u32
        };
        (self.answer)(count).map(|()| Response::new(T::default()))
    }
}

#[tonic::async_trait]
impl JobManager for Member {
    async fn cluster_status(
        &self,
        _: Request<wire::ClusterStatusRequest>,
    ) -> Result<Response<wire::ClusterStatusResponse>, Status> {
        self.take("cluster_status")
    }
    async fn init_cluster(
        &self,
        _: Request<wire::InitClusterRequest>,
    ) -> Result<Response<wire::InitClusterResponse>, Status> {
        self.take("init_cluster")
    }
    async fn submit_job(
        &self,
        request: Request<wire::SubmitJobRequest>,
    ) -> Result<Response<wire::SubmitJobResponse>, Status> {
        self.take(&request.into_inner().job_id)
    }
    async fn list_jobs(
        &self,
        _: Request<wire::ListJobsRequest>,
    ) -> Result<Response<wire::ListJobsResponse>, Status> {
        self.take("list_jobs")
    }
    async fn describe_job(
        &self,
        _: Request<wire::DescribeJobRequest>,
    ) -> Result<Response<wire::JobDetails>, Status> {
        self.take("describe_job")
    }
    async fn list_checkpoints(
        &self,
        _: Request<wire::ListCheckpointsRequest>,
    ) -> Result<Response<wire::ListCheckpointsResponse>, Status> {
        self.take("list_checkpoints")
    }
    async fn verify_checkpoints(
        &self,
        _: Request<wire::VerifyCheckpointsRequest>,
    ) -> Result<Response<wire::VerifyCheckpointsResponse>, Status> {
        self.take("verify_checkpoints")
    }
    async fn collect_orphans(
        &self,
        _: Request<wire::CollectOrphansRequest>,
    ) -> Result<Response<wire::CollectOrphansResponse>, Status> {
        self.take("collect_orphans")
    }
    async fn cancel_job(
        &self,
        _: Request<wire::CancelJobRequest>,
    ) -> Result<Response<wire::CancelJobResponse>, Status> {
        self.take("cancel_job")
    }
    async fn dismiss_job(
        &self,
        _: Request<wire::DismissJobRequest>,
    ) -> Result<Response<wire::DismissJobResponse>, Status> {
        self.take("dismiss_job")
    }
    async fn rescale_job(
        &self,
        _: Request<wire::RescaleJobRequest>,
    ) -> Result<Response<wire::RescaleJobResponse>, Status> {
        self.take("rescale_job")
    }
    async fn trigger_savepoint(
        &self,
        request: Request<wire::TriggerSavepointRequest>,
    ) -> Result<Response<wire::TriggerSavepointResponse>, Status> {
        self.take(&request.into_inner().request_id)
    }
    async fn stop_job(
        &self,
        request: Request<wire::StopJobRequest>,
    ) -> Result<Response<wire::TriggerSavepointResponse>, Status> {
        self.take(&request.into_inner().request_id)
    }
}

/// Serves a member; its address, and the calls that it gets.
async fn serve(
    tasks: &Tasks,
    answer: impl Fn(u32) -> Result<(), Status> + Send + Sync + 'static,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let calls: Arc<Mutex<Vec<String>>> = Arc::default();
    let member = Member {
        answer: Arc::new(answer),
        calls: calls.clone(),
    };
    let cancelled = tasks.cancellation().clone().cancelled_owned();
    tasks.spawn("member", OnFailure::Log, async move {
        let server = tonic::transport::Server::builder().add_service(JobManagerServer::new(member));
        tokio::select! {
            served = server.serve_with_incoming(TcpIncoming::from(listener)) => served,
            () = cancelled => Ok(()),
        }
    });
    (address, calls)
}

/// An address at which nobody listens.
async fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}

fn client(members: &[&str], patience: Duration) -> Client {
    let members = members.iter().map(|member| (*member).to_owned()).collect();
    Client::new(
        members,
        patience,
        Transport::loopback(),
        SystemClock::shared(),
    )
    .unwrap()
}

fn not_leader(leader: &str) -> Status {
    let mut status = Status::failed_precondition("this JobManager does not lead");
    status
        .metadata_mut()
        .insert(LEADER_HEADER, leader.parse().unwrap());
    status
}

#[tokio::test]
async fn a_call_goes_where_the_header_says_and_the_next_goes_there_at_once() {
    let tasks = Tasks::default();
    let (leader, led) = serve(&tasks, |_| Ok(())).await;
    let hint = leader.clone();
    let (follower, followed) = serve(&tasks, move |_| Err(not_leader(&hint))).await;
    let client = client(&[&follower], Duration::from_secs(10));
    client.list("default").await.unwrap();
    client.list("default").await.unwrap();
    assert_eq!(led.lock().unwrap().len(), 2);
    assert_eq!(
        followed.lock().unwrap().len(),
        1,
        "the leader is remembered"
    );
}

#[tokio::test]
async fn members_that_are_down_are_passed_over() {
    let tasks = Tasks::default();
    let (leader, _) = serve(&tasks, |_| Ok(())).await;
    let client = client(
        &[&nobody().await, &nobody().await, &leader],
        Duration::from_secs(10),
    );
    client.describe("default", "j").await.unwrap();
}

#[tokio::test]
async fn a_leader_that_dies_in_office_is_replaced() {
    let tasks = Tasks::default();
    let dead = nobody().await;
    let (leader, _) = serve(&tasks, |_| Ok(())).await;
    // The follower still believes in the dead one at first.
    let (believed, after) = (dead.clone(), leader.clone());
    let follower = move |count| Err(not_leader(if count < 3 { &believed } else { &after }));
    let (follower, _) = serve(&tasks, follower).await;
    let client = client(&[&dead, &follower], Duration::from_secs(10));
    client.cancel("default", "j").await.unwrap();
}

#[tokio::test]
async fn an_election_is_waited_for_and_a_submission_keeps_its_id() {
    let tasks = Tasks::default();
    let electing = |count| {
        if count < 4 {
            Err(Status::failed_precondition("nobody leads"))
        } else {
            Ok(())
        }
    };
    let (member, calls) = serve(&tasks, electing).await;
    let client = client(&[&member], Duration::from_secs(10));
    let request = wire::SubmitJobRequest {
        job_id: "a1".to_owned(),
        ..wire::SubmitJobRequest::default()
    };
    client.submit(request).await.unwrap();
    assert_eq!(*calls.lock().unwrap(), ["a1", "a1", "a1", "a1"]);
}

#[tokio::test]
async fn a_savepoint_that_is_asked_for_twice_is_one_savepoint() {
    let tasks = Tasks::default();
    let (member, calls) = serve(&tasks, |count| {
        if count == 1 {
            Err(Status::unavailable("handing over"))
        } else {
            Ok(())
        }
    })
    .await;
    client(&[&member], Duration::from_secs(10))
        .savepoint("default", "j", "")
        .await
        .unwrap();
    let calls = calls.lock().unwrap();
    assert_eq!(calls.len(), 2);
    assert!(!calls[0].is_empty() && calls[0] == calls[1]);
}

#[tokio::test]
async fn a_refusal_is_final_and_keeps_its_words() {
    let tasks = Tasks::default();
    let (member, calls) = serve(&tasks, |_| Err(Status::not_found("there is no job j"))).await;
    let error = client(&[&member], Duration::from_secs(10))
        .describe("default", "j")
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        ClientError::Refused {
            code: Code::NotFound,
            ..
        }
    ));
    assert_eq!(error.to_string(), "there is no job j");
    assert_eq!(calls.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_cluster_that_exists_cannot_be_made_again_and_says_so_at_once() {
    let tasks = Tasks::default();
    let (member, calls) = serve(&tasks, |_| {
        Err(Status::failed_precondition("belongs to cluster c1"))
    })
    .await;
    let error = client(&[&member], Duration::from_secs(10))
        .init(vec![member.clone()])
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "belongs to cluster c1");
    assert_eq!(calls.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn patience_ends_with_the_last_reason() {
    let tasks = Tasks::default();
    let (member, _) = serve(&tasks, |_| Err(Status::failed_precondition("nobody leads"))).await;
    let clock = SystemClock::shared();
    let begun = clock.monotonic();
    let error = client(&[&member], Duration::from_millis(200))
        .list("default")
        .await
        .unwrap_err();
    assert!(
        error.is_unavailable() && error.to_string().contains("nobody leads"),
        "{error}"
    );
    assert!(clock.monotonic() - begun >= Duration::from_millis(200));
}
