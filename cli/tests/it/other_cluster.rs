//! Two clusters, each of one whole JobManager in this process: whoever has spoken to one never takes the other for it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use flott_cli::client::Client;
use flott_cli::known_cluster::KnownCluster;
use flott_cli::kv::{Outcome, Session, SessionOptions, Watched, keys};
use flott_node::config::Configuration;
use flott_node::{SystemClock, Tasks, Transport};
use flott_proto::header;
use flott_proto::ids::ClusterId;
use flott_proto::wire;
use flott_proto::wire::job_manager_client::JobManagerClient;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

/// Far longer than anything takes on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of a call whose failure is wanted: long enough to ask every address several times.
const SHORT: Duration = Duration::from_secs(5);

/// One JobManager, which may be a cluster of itself.
struct JobManager {
    address: String,
    process: Tasks,
    running: tokio::task::JoinHandle<()>,
}

impl JobManager {
    fn start(directory: &Path, port: u16) -> Self {
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
        Self {
            address: format!("127.0.0.1:{port}"),
            process,
            running,
        }
    }

    /// Makes it a cluster.
    async fn found(&self) -> ClusterId {
        let addresses = vec![self.address.clone()];
        let made = client(&[self], PATIENCE).init(addresses).await.unwrap();
        made.parse().unwrap()
    }

    async fn stop(self) {
        self.process.cancellation().cancel();
        self.running.await.unwrap();
    }

    fn jobs(&self) -> JobManagerClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        JobManagerClient::new(endpoint.connect_lazy())
    }

    /// Its status, asked with that id in the header.
    async fn status(
        &self,
        named: Option<&str>,
    ) -> Result<Response<wire::ClusterStatusResponse>, Status> {
        let request = naming(wire::ClusterStatusRequest {}, named);
        self.jobs().cluster_status(request).await
    }
}

fn naming<T>(request: T, named: Option<&str>) -> Request<T> {
    let mut request = Request::new(request);
    if let Some(named) = named {
        let metadata = request.metadata_mut();
        metadata.insert(header::CLUSTER_ID, named.parse().unwrap());
    }
    request
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn addresses(members: &[&JobManager]) -> Vec<String> {
    members.iter().map(|one| one.address.clone()).collect()
}

fn client(members: &[&JobManager], patience: Duration) -> Client {
    let (members, clock) = (addresses(members), SystemClock::shared());
    Client::new(members, patience, Transport::loopback(), clock).unwrap()
}

fn session(
    members: &[&JobManager],
    patience: Duration,
    cluster: KnownCluster,
    tasks: &Tasks,
) -> Session {
    let options = SessionOptions {
        patience,
        cluster,
        ..SessionOptions::default()
    };
    Session::new(addresses(members), options, SystemClock::shared(), tasks).unwrap()
}

/// Calls again until it succeeds: a cluster that was started needs a moment to have a leader.
async fn until<T, E: std::fmt::Display>(what: &str, call: impl AsyncFn() -> Result<T, E>) -> T {
    let clock = SystemClock::shared();
    let end = clock.monotonic() + PATIENCE;
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(error) if clock.monotonic() >= end => panic!("{what}: {error}"),
            Err(_) => clock.sleep(Duration::from_millis(20)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_at_a_known_address_is_not_believed_and_nothing_is_lost() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (port, tasks) = (free_port(), Tasks::default());
    let jobmanager = JobManager::start(ours.path(), port);
    let our_id = jobmanager.found().await;
    let our_client = client(&[&jobmanager], SHORT);
    let our_session = session(&[&jobmanager], SHORT, KnownCluster::default(), &tasks);
    let our_space = our_session.space("default");
    let quota = wire::NamespaceQuota::default;
    let make = async |name| our_client.create_namespace(name, quota()).await;
    until("a namespace", async || make("before").await).await;
    until("a key", async || our_space.put("key", "ours").await).await;
    jobmanager.stop().await;

    // Another cluster takes the port.
    let jobmanager = JobManager::start(theirs.path(), port);
    let their_id = jobmanager.found().await;
    assert_ne!(our_id, their_id);
    // Clients that name no cluster are served.
    let their_client = client(&[&jobmanager], SHORT);
    let their_session = session(&[&jobmanager], SHORT, KnownCluster::default(), &tasks);
    let their_space = their_session.space("default");
    let status = until("a status", async || their_client.status().await).await;
    assert_eq!(status.cluster_id, their_id.as_str());
    until("an answer", async || their_space.get("key").await).await;

    let words = format!(
        "at {} is cluster {their_id}, not {our_id}",
        jobmanager.address
    );
    let (status, list, made, read, written) = tokio::join!(
        our_client.status(),
        our_client.list("default"),
        make("after"),
        our_space.get("key"),
        our_space.put("key", "more"),
    );
    for refused in [
        status.map(drop).unwrap_err(),
        list.map(drop).unwrap_err(),
        made.unwrap_err(),
    ] {
        assert!(refused.is_unavailable(), "{refused}");
        assert!(refused.to_string().contains(&words), "{refused}");
    }
    for refused in [read.map(drop).unwrap_err(), written.map(drop).unwrap_err()] {
        assert_eq!(refused.outcome(), Outcome::NotApplied, "{refused}");
        assert!(refused.to_string().contains(&words), "{refused}");
    }
    // Nothing of it was carried out there.
    assert_eq!(their_space.get("key").await.unwrap().value, None);
    let names = their_client.namespaces().await.unwrap();
    let names: Vec<_> = names.into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["default"]);
    jobmanager.stop().await;

    // Ours comes back, and the same clients go on.
    let jobmanager = JobManager::start(ours.path(), port);
    let value = until("our key", async || our_space.get("key").await).await;
    assert_eq!(value.value.unwrap().value, "ours");
    until("a namespace", async || make("after").await).await;
    let status = until("our status", async || our_client.status().await).await;
    assert_eq!(status.cluster_id, our_id.as_str());
    jobmanager.stop().await;
    tasks.cancellation().cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_passes_over_another_cluster_and_finds_its_own() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tasks = Tasks::default();
    let our_jobmanager = JobManager::start(ours.path(), free_port());
    let their_jobmanager = JobManager::start(theirs.path(), free_port());
    let (our_id, _) = (our_jobmanager.found().await, their_jobmanager.found().await);
    let both = [&their_jobmanager, &our_jobmanager];

    let our_client = client(&both, PATIENCE);
    our_client.speak_only_with(our_id.clone());
    assert_eq!(
        our_client.status().await.unwrap().cluster_id,
        our_id.as_str()
    );
    our_client.list("default").await.unwrap();

    let known = KnownCluster::from(Some(our_id));
    let our_space = session(&both, PATIENCE, known, &tasks).space("default");
    our_space.put("key", "ours").await.unwrap();
    let mut watch = our_space.watch(keys::one("key"), Some(1)).await.unwrap();
    let events = loop {
        match watch.next().await.unwrap() {
            Watched::Changes { events, .. } if events.is_empty() => {}
            Watched::Changes { events, .. } => break events,
            Watched::Resync => panic!("nothing was left out yet"),
        }
    };
    assert_eq!(events.len(), 1);

    let nobody = KnownCluster::default();
    let their_space = session(&[&their_jobmanager], PATIENCE, nobody, &tasks).space("default");
    assert_eq!(their_space.get("key").await.unwrap().value, None);
    our_jobmanager.stop().await;
    their_jobmanager.stop().await;
    tasks.cancellation().cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jobmanager_answers_for_its_own_cluster_only_and_signs_what_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let jobmanager = JobManager::start(directory.path(), free_port());

    // Before it belongs to a cluster.
    let answer = until("an answer", async || jobmanager.status(None).await).await;
    assert!(answer.get_ref().pristine);
    assert!(answer.metadata().get(header::CLUSTER_ID).is_none());
    let refused = jobmanager.status(Some("other")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    for part in ["for cluster other", "no cluster yet"] {
        assert!(refused.message().contains(part), "{refused}");
    }
    let addresses = vec![jobmanager.address.clone()];
    let init = naming(wire::InitClusterRequest { addresses }, Some("other"));
    let refused = jobmanager.jobs().init_cluster(init).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let answer = jobmanager.status(None).await.unwrap();
    assert!(answer.get_ref().pristine, "the refused request made none");

    let own = jobmanager.found().await;
    for named in [None, Some(own.as_str())] {
        let answer = jobmanager.status(named).await.unwrap();
        let signed = answer.metadata().get(header::CLUSTER_ID).unwrap();
        assert_eq!(signed, own.as_str());
    }
    let refused = jobmanager.status(Some("other")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let signed = refused.metadata().get(header::CLUSTER_ID).unwrap();
    assert_eq!(signed, own.as_str());
    for part in ["for cluster other", &format!("of cluster {own}")] {
        assert!(refused.message().contains(part), "{refused}");
    }
    let refused = jobmanager.status(Some("no id")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    jobmanager.stop().await;
}
