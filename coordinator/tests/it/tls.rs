//! Whole JobManagers in this process, over TLS: a group works, everybody may do what his certificate is for, and the CA
//! can be replaced under a running group.

use std::path::{Path, PathBuf};
use std::time::Duration;

use flott_node::config::Configuration;
use flott_node::tls::authority::{Authority, Validity};
use flott_node::tls::{Files, Role, Whom};
use flott_node::{SystemClock, Tasks, Transport};
use flott_proto::wire;
use flott_proto::wire::job_manager_client::JobManagerClient;
use flott_proto::wire::namespaces_client::NamespacesClient;
use flott_proto::wire::raft_service_client::RaftServiceClient;
use flott_proto::wire::task_manager_gateway_client::TaskManagerGatewayClient;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// Far longer than anything takes on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

const HOST: &str = "127.0.0.1";

fn validity() -> Validity {
    let now_ms = SystemClock::shared().now_ms();
    Validity { now_ms, days: 1 }
}

/// A directory with a CA for the cluster `test`.
struct Ca {
    directory: TempDir,
    authority: Authority,
}

impl Ca {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::create(directory.path(), "test", validity()).unwrap();
        Self {
            directory,
            authority,
        }
    }

    fn files(&self, role: Role, name: &str) -> Files {
        let hosts = [HOST.to_owned()];
        let issued = self.authority.issue(role, name, &hosts, validity());
        issued.unwrap().files
    }

    fn transport(&self, role: Role, name: &str) -> Transport {
        Transport::tls(self.files(role, name)).unwrap()
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind((HOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn settings(directory: &Path, port: u16, files: &Files) -> Vec<(String, String)> {
    let path = |path: &PathBuf| path.display().to_string();
    [
        ("jobmanager.rpc.port", port.to_string()),
        (
            "high-availability.raft.dir",
            path(&directory.join(format!("raft-{port}"))),
        ),
        // Two busy cores, debug builds.
        (
            "high-availability.raft.election-timeout-min",
            "800 ms".to_owned(),
        ),
        (
            "high-availability.raft.election-timeout-max",
            "1600 ms".to_owned(),
        ),
        ("security.ssl.internal.enabled", "true".to_owned()),
        ("security.ssl.internal.ca", path(&files.ca)),
        ("security.ssl.internal.cert", path(&files.certificate)),
        ("security.ssl.internal.key", path(&files.key)),
        ("security.ssl.internal.reload-interval", "50 ms".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec()
}

/// A JobManager that runs.
struct JobManager {
    address: String,
    files: Files,
    settings: Vec<(String, String)>,
    process: Tasks,
    running: tokio::task::JoinHandle<Result<(), flott_coordinator::Error>>,
}

impl JobManager {
    /// With a certificate of the CA for its address, in files of its own.
    fn start(ca: &Ca) -> Self {
        let port = free_port();
        let address = format!("{HOST}:{port}");
        let mut files = ca.files(Role::JobManager, &address);
        let own = ca.directory.path().join(format!("trusted-by-{port}.pem"));
        std::fs::copy(&files.ca, &own).unwrap();
        files.ca = own;
        let settings = settings(ca.directory.path(), port, &files);
        let (process, running) = run(&settings);
        Self {
            address,
            files,
            settings,
            process,
            running,
        }
    }

    async fn restart(&mut self) {
        self.process.cancellation().cancel();
        (&mut self.running).await.unwrap().unwrap();
        (self.process, self.running) = run(&self.settings);
    }

    async fn stop(self) {
        self.process.cancellation().cancel();
        self.running.await.unwrap().unwrap();
    }
}

type Running = tokio::task::JoinHandle<Result<(), flott_coordinator::Error>>;

fn run(settings: &[(String, String)]) -> (Tasks, Running) {
    let configuration = Configuration::from_map(settings.iter().cloned()).unwrap();
    let process = Tasks::new(CancellationToken::new());
    let run = flott_coordinator::run(configuration, process.clone());
    #[expect(clippy::disallowed_methods, reason = "the test is the process")]
    let running = tokio::spawn(run);
    (process, running)
}

/// Why a JobManager with these settings does not start.
async fn failure(settings: &[(String, String)]) -> String {
    let (_process, running) = run(settings);
    let ended = tokio::time::timeout(PATIENCE, running).await.unwrap();
    let error = ended.unwrap().unwrap_err();
    let source = std::error::Error::source(&error).map(ToString::to_string);
    format!("{error}: {}", source.unwrap_or_default())
}

/// A new connection with each use.
fn channel(transport: &Transport, address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect_with_connector_lazy(transport.connector(Whom::JobManager))
}

async fn status(
    transport: &Transport,
    address: &str,
) -> Result<wire::ClusterStatusResponse, Status> {
    let mut client = JobManagerClient::new(channel(transport, address));
    let answer = client.cluster_status(wire::ClusterStatusRequest {}).await;
    answer.map(tonic::Response::into_inner)
}

/// Asks again and again until it succeeds.
async fn until<T>(what: &str, call: impl AsyncFn() -> Result<T, String>) -> T {
    let clock = SystemClock::shared();
    let end = clock.monotonic() + PATIENCE;
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(last) if clock.monotonic() >= end => panic!("{what}: {last}"),
            Err(_) => clock.sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Forms a cluster of them, and waits for a leader in office.
async fn form(client: &Transport, members: &[JobManager]) {
    let addresses: Vec<String> = members
        .iter()
        .map(|member| member.address.clone())
        .collect();
    until("the cluster is made", async || {
        let mut jobs = JobManagerClient::new(channel(client, &addresses[0]));
        let addresses = addresses.clone();
        let request = wire::InitClusterRequest { addresses };
        jobs.init_cluster(request)
            .await
            .map_err(|status| status.to_string())
    })
    .await;
    leader(client, members).await;
}

/// The leader's address and its epoch, once all agree.
async fn leader(client: &Transport, members: &[JobManager]) -> (String, u64) {
    until("all agree on a leader", async || {
        let mut seen = Vec::new();
        for member in members {
            let status = status(client, &member.address).await;
            let status = status.map_err(|status| status.to_string())?;
            seen.push((status.leader_address, status.epoch));
        }
        let agreed = seen.windows(2).all(|two| two[0] == two[1]);
        match seen.pop() {
            Some((leader, epoch)) if agreed && !leader.is_empty() && epoch > 0 => {
                Ok((leader, epoch))
            }
            last => Err(format!("{seen:?} {last:?}")),
        }
    })
    .await
}

/// Commits something through any member, which names the leader if it does not lead.
async fn commit(client: &Transport, members: &[JobManager], name: &str) {
    until("it is committed", async || {
        let (leader, _) = leader(client, members).await;
        let request = wire::CreateNamespaceRequest {
            name: name.to_owned(),
            quota: None,
        };
        let mut namespaces = NamespacesClient::new(channel(client, &leader));
        let created = namespaces.create_namespace(request).await;
        created.map_err(|status| status.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_over_tls_elects_and_commits_and_its_ca_is_replaced_while_it_runs() {
    let (old, new) = (Ca::new(), Ca::new());
    let old_client = old.transport(Role::Client, "ada");
    let new_files = new.files(Role::Client, "ada");
    let mut members: Vec<_> = (0..3).map(|_| JobManager::start(&old)).collect();
    form(&old_client, &members).await;
    commit(&old_client, &members, "before").await;
    let before = leader(&old_client, &members).await;

    // All trust both.
    let pems = [old.authority.certificate(), new.authority.certificate()]
        .map(|path| std::fs::read_to_string(path).unwrap());
    let bundle = new.directory.path().join("both.pem");
    std::fs::write(&bundle, pems.concat()).unwrap();
    for member in &members {
        std::fs::copy(&bundle, &member.files.ca).unwrap();
    }
    let between = Transport::tls(Files {
        ca: bundle,
        ..new_files.clone()
    })
    .unwrap();
    for member in &members {
        until("the new CA is trusted", async || {
            let answer = status(&between, &member.address).await;
            answer.map_err(|status| status.to_string())
        })
        .await;
    }

    // All have certificates of the new one. The key comes first: for a moment the two do not fit.
    for member in &members {
        let renewed = new.files(Role::JobManager, &member.address);
        std::fs::copy(&renewed.key, &member.files.key).unwrap();
        std::fs::copy(&renewed.certificate, &member.files.certificate).unwrap();
    }
    let new_client = Transport::tls(new_files).unwrap();
    for member in &members {
        until("the new certificate is shown", async || {
            let answer = status(&new_client, &member.address).await;
            answer.map_err(|status| status.to_string())
        })
        .await;
    }

    // Nobody trusts the old one any more.
    for member in &members {
        std::fs::copy(new.authority.certificate(), &member.files.ca).unwrap();
    }
    let half = Transport::tls(Files {
        ca: between_ca(&new),
        ..old.files(Role::Client, "eve")
    })
    .unwrap();
    for member in &members {
        until("the old CA is not trusted", async || {
            match status(&half, &member.address).await {
                Ok(_) => Err("answered".to_owned()),
                Err(_) => Ok(()),
            }
        })
        .await;
    }

    // Nobody has noticed; and who starts again now is let in by the others.
    assert_eq!(leader(&new_client, &members).await, before);
    let follower = members
        .iter()
        .position(|member| member.address != before.0)
        .unwrap();
    members[follower].restart().await;
    commit(&new_client, &members, "after").await;
    for member in members {
        member.stop().await;
    }
}

/// The two CAs in one file, as it was written above.
fn between_ca(new: &Ca) -> PathBuf {
    new.directory.path().join("both.pem")
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, reason: &str) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    let text = format!("{status:?}");
    assert!(text.contains(reason), "{reason}: {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_good_only_for_what_it_is_for() {
    let ca = Ca::new();
    let member = JobManager::start(&ca);
    let address = member.address.clone();
    let client = ca.transport(Role::Client, "ada");
    form(&client, std::slice::from_ref(&member)).await;
    let task_manager = ca.transport(Role::TaskManager, "tm");
    let other = ca.transport(Role::JobManager, "127.0.0.1:1");

    // Clients' calls.
    refused(
        status(&task_manager, &address).await,
        "flott://test/taskmanager/tm",
    );
    let known = status(&client, &address).await.unwrap();
    status(&other, &address).await.unwrap();

    // TaskManagers' calls.
    let watch = |transport: &Transport| {
        let mut gateway = TaskManagerGatewayClient::new(channel(transport, &address));
        async move {
            gateway
                .watch_leader(wire::WatchLeaderRequest::default())
                .await
        }
    };
    watch(&task_manager).await.unwrap();
    refused(watch(&client).await, "needs that of a taskmanager");
    refused(watch(&other).await, "needs that of a taskmanager");

    // Members' calls.
    let introduce = |transport: &Transport| {
        let mut raft = RaftServiceClient::new(channel(transport, &address));
        async move { raft.introduce(wire::RaftIntroduceRequest {}).await }
    };
    refused(introduce(&client).await, "needs that of a jobmanager");
    refused(introduce(&task_manager).await, "needs that of a jobmanager");
    let introduced = introduce(&other).await.unwrap().into_inner();

    // A JobManager that says that it is another one.
    let identity = wire::RaftIdentity {
        cluster_id: known.cluster_id,
        from_node: introduced.node,
        from_incarnation: introduced.incarnation.clone(),
        to_node: introduced.node,
        to_incarnation: introduced.incarnation,
    };
    let read_index = |transport: &Transport| {
        let mut raft = RaftServiceClient::new(channel(transport, &address));
        let identity = Some(identity.clone());
        async move {
            raft.read_index(wire::RaftReadIndexRequest { identity })
                .await
        }
    };
    refused(
        read_index(&other).await,
        "the request says that it is from node",
    );
    let itself = Transport::tls(member.files.clone()).unwrap();
    let index = read_index(&itself).await.unwrap().into_inner().index;
    assert!(index > 0);

    // Nobody at all.
    let plain = status(&Transport::loopback(), &address).await.unwrap_err();
    let text = format!("{plain:?}");
    // The reason, or, where that comes before the request is on its way, only the end.
    let told = text.contains("INADEQUATE_SECURITY") || text.contains("connection closed");
    assert!(told, "{text}");
    let stranger = Ca::new();
    let trusting = Files {
        ca: ca.authority.certificate(),
        ..stranger.files(Role::Client, "eve")
    };
    // What a stranger would use does not fit together, so this is what it looks like from our side alone.
    assert!(Transport::tls(trusting).is_err());
    let strange = stranger.transport(Role::Client, "mallory");
    let text = format!("{:?}", status(&strange, &address).await.unwrap_err());
    assert!(text.contains("not issued by a CA in"), "{text}");
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jobmanager_that_the_others_would_refuse_does_not_start() {
    let ca = Ca::new();
    let port = free_port();
    let other = ca.files(Role::JobManager, "127.0.0.1:1");
    let text = failure(&settings(ca.directory.path(), port, &other)).await;
    assert!(
        text.contains("is neither") && text.contains("flott certs issue"),
        "{text}"
    );

    let task_manager = ca.files(Role::TaskManager, "tm");
    let text = failure(&settings(ca.directory.path(), port, &task_manager)).await;
    assert!(text.contains("this process is a jobmanager"), "{text}");

    let plain = [
        ("jobmanager.rpc.address", "0.0.0.0".to_owned()),
        ("jobmanager.rpc.port", port.to_string()),
        (
            "high-availability.raft.dir",
            ca.directory.path().join("plain").display().to_string(),
        ),
    ]
    .map(|(key, value)| (key.to_owned(), value));
    let text = failure(&plain).await;
    assert!(
        text.contains("`jobmanager.rpc.address`") && text.contains("--insecure"),
        "{text}"
    );
}
