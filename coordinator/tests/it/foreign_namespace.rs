//! A namespace sees nothing of another, in any call that a client can make.
//!
//! A whole JobManager in this process, with a job, keys and a savepoint-like metadata object in the namespace `mine`;
//! every call is made from the namespace `yours`. The calls are counted against the `.proto` files, so that a new one
//! cannot be forgotten here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use flott_node::config::Configuration;
use flott_node::{SystemClock, Tasks};
use flott_proto::ids::JobId;
use flott_proto::wire;
use flott_proto::wire::job_manager_client::JobManagerClient;
use flott_proto::wire::key_value_client::KeyValueClient;
use flott_proto::wire::kv_failure::Reason;
use flott_proto::wire::kv_response::Outcome;
use flott_proto::wire::namespaces_client::NamespacesClient;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::raft_cluster::graph;

/// Far longer than anything takes on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

const MINE: &str = "mine";
const YOURS: &str = "yours";

/// Calls that are of no namespace: an operator's.
const OPERATORS: [&str; 7] = [
    "ClusterStatus",
    "InitCluster",
    "CreateNamespace",
    "ListNamespaces",
    "DescribeNamespace",
    "UpdateNamespace",
    "DeleteNamespace",
];

/// The names of all calls in these services.
fn calls() -> BTreeSet<&'static str> {
    let files = [
        include_str!("../../../proto/proto/flott/v1/client.proto"),
        include_str!("../../../proto/proto/flott/v1/namespace.proto"),
        include_str!("../../../proto/proto/flott/v1/kv.proto"),
    ];
    let lines = files.iter().flat_map(|file| file.lines());
    let names = lines.filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next());
    names.collect()
}

/// One JobManager that leads a cluster of itself.
struct Server {
    channel: Channel,
    process: Tasks,
    running: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(directory: &Path) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let address = format!("127.0.0.1:{port}");
        let settings = BTreeMap::from([
            ("jobmanager.rpc.port".to_owned(), port.to_string()),
            (
                "high-availability.raft.dir".to_owned(),
                directory.join("raft").display().to_string(),
            ),
            (
                "execution.checkpointing.dir".to_owned(),
                directory.join("checkpoints").display().to_string(),
            ),
        ]);
        let configuration = Configuration::from_map(&settings).unwrap();
        let process = Tasks::new(CancellationToken::new());
        let run = flott_coordinator::run(configuration, process.clone());
        #[expect(clippy::disallowed_methods, reason = "the test is the process")]
        let running = tokio::spawn(async move { run.await.unwrap() });
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let server = Self {
            channel: endpoint.connect_lazy(),
            process,
            running,
        };
        server
            .until("the cluster is made", async |server| {
                let addresses = vec![address.clone()];
                let request = wire::InitClusterRequest { addresses };
                server.jobs().init_cluster(request).await
            })
            .await;
        for name in [MINE, YOURS] {
            server
                .until("there is a leader", async |server| {
                    let request = wire::CreateNamespaceRequest {
                        name: name.to_owned(),
                        quota: None,
                    };
                    let mut client = NamespacesClient::new(server.channel.clone());
                    client.create_namespace(request).await
                })
                .await;
        }
        server
    }

    fn jobs(&self) -> JobManagerClient<Channel> {
        JobManagerClient::new(self.channel.clone())
    }

    fn keys(&self) -> KeyValueClient<Channel> {
        KeyValueClient::new(self.channel.clone())
    }

    async fn until<T>(
        &self,
        what: &str,
        call: impl AsyncFn(&Self) -> Result<tonic::Response<T>, Status>,
    ) -> T {
        let clock = SystemClock::shared();
        let end = clock.monotonic() + PATIENCE;
        loop {
            match call(self).await {
                Ok(answer) => return answer.into_inner(),
                Err(status) if clock.monotonic() >= end => panic!("{what}: {status}"),
                Err(_) => clock.sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn stop(self) {
        self.process.cancellation().cancel();
        self.running.await.unwrap();
    }
}

fn submission(namespace: &str, job: &JobId) -> wire::SubmitJobRequest {
    wire::SubmitJobRequest {
        namespace: namespace.into(),
        job_id: job.to_string(),
        graph: Some((&graph()).into()),
        ..Default::default()
    }
}

fn request(operation: wire::kv_request::Operation) -> wire::KvRequest {
    wire::KvRequest {
        namespace: YOURS.into(),
        operation: Some(operation),
        ..Default::default()
    }
}

fn key(key: &str) -> Option<wire::KvKeys> {
    Some(wire::KvKeys {
        start: key.as_bytes().to_vec().into(),
        end: Vec::new().into(),
    })
}

fn all_keys() -> wire::kv_request::Operation {
    wire::kv_request::Operation::Range(wire::KvRange {
        keys: Some(wire::KvKeys {
            start: vec![0].into(),
            end: vec![0].into(),
        }),
        ..Default::default()
    })
}

fn put(key: &str) -> wire::kv_request::Operation {
    let put = wire::KvPut {
        key: key.as_bytes().to_vec().into(),
        value: b"secret".to_vec().into(),
        ..Default::default()
    };
    wire::kv_request::Operation::Write(wire::KvWrite {
        kind: Some(wire::kv_write::Kind::Put(put)),
    })
}

fn code<T: std::fmt::Debug>(answer: Result<T, Status>) -> Code {
    answer.unwrap_err().code()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_shows_or_changes_anything_of_another_namespace() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path()).await;
    let mut jobs = server.jobs();
    let job = JobId::generate();
    let submitted = jobs.submit_job(submission(MINE, &job)).await.unwrap();
    assert_eq!(submitted.into_inner().job_id, job.as_str());

    let mut asked: BTreeSet<&str> = OPERATORS.into_iter().collect();
    let (namespace, job_id) = (YOURS.to_owned(), job.to_string());
    let mut ask = |call, code: Code, expected: Code| {
        assert_eq!(code, expected, "{call}");
        asked.insert(call);
    };
    let listed = jobs
        .list_jobs(wire::ListJobsRequest {
            namespace: namespace.clone(),
        })
        .await
        .unwrap();
    assert!(listed.into_inner().jobs.is_empty());
    ask("ListJobs", Code::Ok, Code::Ok);
    let request_of_job = wire::DescribeJobRequest {
        namespace: namespace.clone(),
        job_id: job_id.clone(),
    };
    ask(
        "DescribeJob",
        code(jobs.describe_job(request_of_job).await),
        Code::NotFound,
    );
    let list = wire::ListCheckpointsRequest {
        namespace: namespace.clone(),
        job_id: job_id.clone(),
    };
    ask(
        "ListCheckpoints",
        code(jobs.list_checkpoints(list).await),
        Code::NotFound,
    );
    let verify = wire::VerifyCheckpointsRequest {
        namespace: namespace.clone(),
        job_id: job_id.clone(),
        contents: true,
    };
    ask(
        "VerifyCheckpoints",
        code(jobs.verify_checkpoints(verify).await),
        Code::NotFound,
    );
    let collect = wire::CollectOrphansRequest {
        namespace: namespace.clone(),
        job_id: job_id.clone(),
        delete: true,
    };
    ask(
        "CollectOrphans",
        code(jobs.collect_orphans(collect).await),
        Code::NotFound,
    );
    let cancel = wire::CancelJobRequest {
        namespace: namespace.clone(),
        job_id: job_id.clone(),
    };
    ask(
        "CancelJob",
        code(jobs.cancel_job(cancel).await),
        Code::NotFound,
    );
    let dismiss = wire::DismissJobRequest {
        namespace: namespace.clone(),
        job_id: job_id.clone(),
    };
    ask(
        "DismissJob",
        code(jobs.dismiss_job(dismiss).await),
        Code::NotFound,
    );
    let rescale = wire::RescaleJobRequest {
        namespace: namespace.clone(),
        job_id: job_id.clone(),
        parallelism: 2,
    };
    ask(
        "RescaleJob",
        code(jobs.rescale_job(rescale).await),
        Code::NotFound,
    );
    let savepoint = wire::TriggerSavepointRequest {
        namespace: namespace.clone(),
        job_id: job_id.clone(),
        target_directory: directory.path().join("stolen").display().to_string(),
        request_id: "r".into(),
    };
    ask(
        "TriggerSavepoint",
        code(jobs.trigger_savepoint(savepoint).await),
        Code::NotFound,
    );
    let stop = wire::StopJobRequest {
        namespace: namespace.clone(),
        job_id: job_id.clone(),
        target_directory: directory.path().join("stolen").display().to_string(),
        request_id: "r".into(),
        drain: false,
    };
    ask("StopJob", code(jobs.stop_job(stop).await), Code::NotFound);
    assert!(!directory.path().join("stolen").exists());
    // The same id with the same graph, which in its own namespace is a repetition.
    let stolen = jobs.submit_job(submission(YOURS, &job)).await;
    ask("SubmitJob", code(stolen), Code::InvalidArgument);

    let mut keys = server.keys();
    let mine = wire::KvRequest {
        namespace: MINE.into(),
        ..request(put("k"))
    };
    let written = keys.call(mine).await.unwrap().into_inner().outcome;
    assert!(matches!(written, Some(Outcome::Put(_))), "{written:?}");
    let seen = keys
        .call(request(all_keys()))
        .await
        .unwrap()
        .into_inner()
        .outcome;
    let Some(Outcome::Range(seen)) = seen else {
        panic!("{seen:?}")
    };
    assert_eq!((seen.count, seen.entries.len()), (0, 0));
    let delete = wire::kv_request::Operation::Write(wire::KvWrite {
        kind: Some(wire::kv_write::Kind::Delete(wire::KvDelete {
            keys: key("k"),
        })),
    });
    let deleted = keys
        .call(request(delete))
        .await
        .unwrap()
        .into_inner()
        .outcome;
    assert!(
        matches!(&deleted, Some(Outcome::Delete(result)) if result.deleted == 0),
        "{deleted:?}"
    );
    let nowhere = wire::KvRequest {
        namespace: "nowhere".into(),
        ..request(put("k"))
    };
    let refused = keys.call(nowhere).await.unwrap().into_inner().outcome;
    assert!(
        matches!(&refused, Some(Outcome::Failure(failure)) if failure.reason() == Reason::NoNamespace),
        "{refused:?}"
    );
    ask("Call", Code::Ok, Code::Ok);
    let requests = wire::KvRequests {
        requests: vec![request(all_keys())],
    };
    let mut answers = keys
        .pipeline(tokio_stream::iter([requests]).chain(tokio_stream::pending()))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    for response in answer.responses {
        let Some(Outcome::Range(seen)) = response.outcome else {
            panic!("{response:?}")
        };
        assert_eq!(seen.count, 0);
    }
    ask("Pipeline", Code::Ok, Code::Ok);
    let watch = wire::KvWatchRequest {
        namespace: YOURS.into(),
        keys: key("k"),
        start_revision: 1,
    };
    let mut told = keys.watch(watch).await.unwrap().into_inner();
    let mine = wire::KvRequest {
        namespace: MINE.into(),
        ..request(put("k"))
    };
    keys.call(mine).await.unwrap();
    let yours = keys.call(request(put("k"))).await.unwrap().into_inner();
    let revision = yours.header.unwrap().revision;
    let mut events = Vec::new();
    while events.is_empty() {
        let next = told.message().await.unwrap().unwrap();
        assert!(!next.resync);
        events.extend(next.events);
    }
    let Some(wire::kv_event::Change::Put(entry)) = &events[0].change else {
        panic!("{events:?}")
    };
    assert_eq!(entry.mod_revision, revision, "its own change only");
    ask("Watch", Code::Ok, Code::Ok);
    drop(told);

    assert_eq!(
        asked,
        calls(),
        "every call of a client is tried here with a foreign namespace"
    );
    // And all that left the job as it was.
    let request_of_job = wire::DescribeJobRequest {
        namespace: MINE.into(),
        job_id,
    };
    let details = jobs.describe_job(request_of_job).await.unwrap();
    let details = details.into_inner();
    assert_eq!(details.summary.unwrap().state, "CREATED");
    let events: Vec<_> = details.events.iter().map(|e| e.event.as_str()).collect();
    assert_eq!(events, ["CREATED"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_that_is_not_there_is_refused_with_the_remedy_and_deleting_asks_for_the_name() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path()).await;
    let mut jobs = server.jobs();
    let remedy = |status: Status| {
        assert!(
            status.message().contains("flott namespace create nowhere"),
            "{status}"
        );
        status.code()
    };
    let list = wire::ListJobsRequest {
        namespace: "nowhere".into(),
    };
    let status = jobs.list_jobs(list).await.unwrap_err();
    assert_eq!(remedy(status), Code::NotFound);
    let status = jobs
        .submit_job(submission("nowhere", &JobId::generate()))
        .await
        .unwrap_err();
    assert_eq!(remedy(status), Code::NotFound);

    let mut namespaces = NamespacesClient::new(server.channel.clone());
    let delete = |confirmation: &str| wire::DeleteNamespaceRequest {
        name: YOURS.into(),
        confirmation: confirmation.into(),
    };
    let status = namespaces.delete_namespace(delete("yes")).await;
    assert_eq!(code(status), Code::InvalidArgument);
    let job = JobId::generate();
    jobs.submit_job(submission(YOURS, &job)).await.unwrap();
    namespaces.delete_namespace(delete(YOURS)).await.unwrap();
    let describe = wire::DescribeNamespaceRequest { name: YOURS.into() };
    let gone = server
        .until("it is gone", async |server| {
            let mut client = NamespacesClient::new(server.channel.clone());
            match client.describe_namespace(describe.clone()).await {
                Err(status) if status.code() == Code::NotFound => Ok(tonic::Response::new(true)),
                Err(status) => Err(status),
                Ok(info) => {
                    assert_eq!(info.into_inner().state, "DELETING");
                    Err(Status::unavailable("it is still there"))
                }
            }
        })
        .await;
    assert!(gone);
    let listed = namespaces
        .list_namespaces(wire::ListNamespacesRequest {})
        .await
        .unwrap();
    let names: Vec<_> = listed
        .into_inner()
        .namespaces
        .into_iter()
        .map(|info| info.name)
        .collect();
    assert_eq!(names, ["default", MINE]);
    server.stop().await;
}
