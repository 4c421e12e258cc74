//! Talking to a cluster of JobManagers as if it were one.
//!
//! Any member may be asked. One that does not lead names the leader in the header `flott-leader-address`, and the call
//! goes there; while nobody leads, or members are down, all of them are tried in turn until the patience is used up. So
//! a leader's death is a short delay to a caller, not an error. That needs calls that may be repeated: a submission
//! carries a job id of the caller's choice, and all others are idempotent by nature.
//!
//! What must stay true:
//! - Every attempt has a deadline, so a member that hangs costs a bounded time.
//! - Once a cluster has answered, no other one is believed or has anything carried out ([`crate::known_cluster`]).
//!
//! [`jobs`], [`namespaces`]: the calls of tenants. [`admin`]: those of operators.

mod admin;
mod jobs;
mod namespaces;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flott_node::tls::{PlainTextRefused, Whom, plain_text_refused};
use flott_node::{SharedClock, Transport};
use flott_proto::ids::ClusterId;
use flott_proto::wire;
use flott_proto::wire::job_manager_client::JobManagerClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use crate::known_cluster::{KnownCluster, Stranger, Strangers};

/// The header in which a member that does not lead names the one that does.
pub const LEADER_HEADER: &str = "flott-leader-address";

/// A connection on a healthy network stands within milliseconds; a member that needs longer is skipped for now.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// One attempt of a call that a healthy leader answers from memory, or with one commit.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two rounds over all members: short at first, since an election takes a fraction of a second.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// How often in a row one member may send us to another before we pause: two members that point at each other.
const REDIRECTS_MAX: u32 = 3;
/// Largest answer: a job with a graph of thousands of subtasks.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Why a call failed for good.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{address:?} is not an address of the form host:port")]
    Address { address: String },
    #[error(transparent)]
    PlainText(#[from] PlainTextRefused),
    /// Nobody answered, or nobody led, until the patience was used up.
    #[error("no leading JobManager answered within {} s ({last})", patience.as_secs_f64())]
    Unavailable { patience: Duration, last: String },
    /// The leader answered, and refused.
    #[error("{message}")]
    Refused { code: Code, message: String },
}

impl ClientError {
    /// Whether trying later can help.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// A connection to all members of a cluster. Clones share the connections and what is known about the leader.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    members: Vec<String>,
    /// How long a call looks for a leader that answers.
    patience: Duration,
    transport: Transport,
    clock: SharedClock,
    /// The cluster of these members, once one of them has answered.
    cluster: KnownCluster,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    channels: BTreeMap<String, Channel>,
    leader: Option<String>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("members", &self.shared.members)
            .finish_non_exhaustive()
    }
}

/// The generated client of a service.
trait Stub {
    fn over(channel: Channel) -> Self;
}

impl Stub for JobManagerClient<Channel> {
    fn over(channel: Channel) -> Self {
        Self::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

/// What an unsuccessful answer means for the next step.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Ask the leader that it names, or everyone again.
    NotLeader(Option<String>),
    /// This member did not answer; another may.
    TryNext,
    /// The answer.
    Refused,
}

fn classify(status: &Status) -> Verdict {
    if plain_text_refused(status).is_some() {
        return Verdict::Refused;
    }
    let leader = status
        .metadata()
        .get(LEADER_HEADER)
        .and_then(|header| header.to_str().ok());
    match status.code() {
        Code::FailedPrecondition => Verdict::NotLeader(
            leader
                .filter(|address| !address.is_empty())
                .map(str::to_owned),
        ),
        Code::Unavailable | Code::DeadlineExceeded => Verdict::TryNext,
        // A connection that broke in the middle of a call has one of these codes, and an error of the transport behind it.
        Code::Cancelled | Code::Unknown | Code::Internal if status.source().is_some() => {
            Verdict::TryNext
        }
        _ => Verdict::Refused,
    }
}

impl Client {
    /// A client of these members (`host:port` each), which does not connect before the first call. `patience` is how long
    /// a call goes on looking for a leader.
    pub fn new(
        members: Vec<String>,
        patience: Duration,
        transport: Transport,
        clock: SharedClock,
    ) -> Result<Self, ClientError> {
        if members.is_empty() {
            return Err(ClientError::Address {
                address: String::new(),
            });
        }
        for member in &members {
            check_address(member)?;
            transport.check_address(member)?;
        }
        Ok(Self {
            shared: Arc::new(Shared {
                members,
                patience,
                transport,
                clock,
                cluster: KnownCluster::default(),
                known: Mutex::default(),
            }),
        })
    }

    /// Has the client speak with this cluster only, instead of the first one that answers. Without effect once one has.
    pub fn speak_only_with(&self, cluster: ClusterId) {
        self.shared.cluster.learn(cluster);
    }

    /// The state of the cluster: as its leader sees it, or else as any member that answers.
    pub async fn status(&self) -> Result<wire::ClusterStatusResponse, ClientError> {
        let request = wire::ClusterStatusRequest {};
        let any = self
            .call(
                ATTEMPT_TIMEOUT,
                request,
                |mut jm: JobManagerClient<Channel>, request| async move {
                    jm.cluster_status(request).await
                },
            )
            .await?;
        if any.leader == any.answered_by || any.leader_address.is_empty() {
            return Ok(any);
        }
        let leader = self.status_of(&any.leader_address).await;
        Ok(leader.unwrap_or(any))
    }

    /// What the member at `address` says, without a second try. It may belong to no cluster yet.
    pub async fn status_of(
        &self,
        address: &str,
    ) -> Result<wire::ClusterStatusResponse, ClientError> {
        // Names no cluster, or a member that belongs to none would not say so.
        let request = Request::new(wire::ClusterStatusRequest {});
        let asked = self.ask(
            address,
            CONNECT_TIMEOUT * 2,
            request,
            &|mut jm: JobManagerClient<Channel>, request| async move {
                jm.cluster_status(request).await
            },
        );
        let answered = self.believe(asked.await);
        answered.map_err(|status| match classify(&status) {
            Verdict::Refused => refused(&status),
            Verdict::NotLeader(_) | Verdict::TryNext => ClientError::Unavailable {
                patience: CONNECT_TIMEOUT * 2,
                last: Strangers::default().note(
                    address,
                    Stranger::behind(&status),
                    describe(address, &status),
                ),
            },
        })
    }

    /// Makes a cluster of pristine JobManagers; its id. No leader is involved: what the member says is final.
    pub async fn init(&self, addresses: Vec<String>) -> Result<String, ClientError> {
        let request = wire::InitClusterRequest { addresses };
        let made = |mut jm: JobManagerClient<Channel>, request| async move {
            jm.init_cluster(request)
                .await
                .map_err(|status| match status.code() {
                    Code::FailedPrecondition => Status::already_exists(status.message()),
                    _ => status,
                })
        };
        Ok(self
            .call(ATTEMPT_TIMEOUT * 2, request, made)
            .await?
            .cluster_id)
    }

    /// Asks until somebody answers for good, or the patience is used up. An attempt that was accepted may take
    /// `attempt_timeout` even if that is longer than the patience.
    async fn call<S, Q, A, F, R>(
        &self,
        attempt_timeout: Duration,
        request: Q,
        invoke: F,
    ) -> Result<A, ClientError>
    where
        S: Stub,
        Q: Clone,
        F: Fn(S, Request<Q>) -> R,
        R: Future<Output = Result<Response<A>, Status>>,
    {
        let shared = &*self.shared;
        let started = shared.clock.monotonic();
        let elapsed = || shared.clock.monotonic().saturating_sub(started);
        let mut pause = PAUSE_MIN;
        let mut strangers = Strangers::default();
        let mut last = "none was asked".to_owned();
        loop {
            for member in self.order() {
                let mut target = Some(member);
                for _ in 0..=REDIRECTS_MAX {
                    let Some(address) = target.take() else { break };
                    let status = match self
                        .attempt(&address, attempt_timeout, request.clone(), &invoke)
                        .await
                    {
                        Ok(answer) => {
                            self.known().leader = Some(address);
                            return Ok(answer);
                        }
                        Err(status) => status,
                    };
                    last = strangers.note(
                        &address,
                        Stranger::behind(&status),
                        describe(&address, &status),
                    );
                    match classify(&status) {
                        Verdict::Refused => {
                            // The caller goes by it, so what it hears next has to be from the same cluster.
                            shared.cluster.learn_from(status.metadata());
                            return Err(refused(&status));
                        }
                        Verdict::NotLeader(leader) => {
                            target = leader.filter(|leader| {
                                *leader != address && check_address(leader).is_ok()
                            });
                            self.known().leader.clone_from(&target);
                        }
                        Verdict::TryNext => {}
                    }
                }
                if elapsed() >= shared.patience {
                    return Err(ClientError::Unavailable {
                        patience: shared.patience,
                        last,
                    });
                }
            }
            shared
                .clock
                .sleep(pause.min(shared.patience.saturating_sub(elapsed())))
                .await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// One call to one member of the cluster. Every failure is a status, also that of connecting, and that another cluster
    /// is there.
    async fn attempt<S, Q, A, F, R>(
        &self,
        address: &str,
        timeout: Duration,
        request: Q,
        invoke: &F,
    ) -> Result<A, Status>
    where
        S: Stub,
        F: Fn(S, Request<Q>) -> R,
        R: Future<Output = Result<Response<A>, Status>>,
    {
        let mut request = Request::new(request);
        self.shared.cluster.name_in(request.metadata_mut());
        self.believe(self.ask(address, timeout, request, invoke).await)
    }

    /// The answer, unless it is from another cluster. The first one that is no refusal decides which cluster is the client's.
    fn believe<A>(&self, answered: Result<Response<A>, Status>) -> Result<A, Status> {
        let cluster = &self.shared.cluster;
        match answered {
            Ok(answer) => {
                cluster.learn_from(answer.metadata());
                cluster.check(answer.metadata())?;
                Ok(answer.into_inner())
            }
            Err(status) => {
                cluster.check(status.metadata())?;
                Err(status)
            }
        }
    }

    /// One call to whoever is at the address.
    async fn ask<S, Q, A, F, R>(
        &self,
        address: &str,
        timeout: Duration,
        mut request: Request<Q>,
        invoke: &F,
    ) -> Result<Response<A>, Status>
    where
        S: Stub,
        F: Fn(S, Request<Q>) -> R,
        R: Future<Output = Result<Response<A>, Status>>,
    {
        let channel = self.channel(address)?;
        request.set_timeout(timeout);
        match tokio::time::timeout(timeout, invoke(S::over(channel), request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::deadline_exceeded(format!(
                "no answer within {} s",
                timeout.as_secs_f64()
            ))),
        }
    }

    /// All members, the presumed leader first.
    fn order(&self) -> Vec<String> {
        let leader = self.known().leader.clone();
        let others = self
            .shared
            .members
            .iter()
            .filter(|member| Some(*member) != leader.as_ref())
            .cloned();
        leader.clone().into_iter().chain(others).collect()
    }

    fn channel(&self, address: &str) -> Result<Channel, Status> {
        let mut known = self.known();
        if let Some(channel) = known.channels.get(address) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| Status::unavailable(format!("{address}: {error}")))?;
        let channel = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .connect_with_connector_lazy(self.shared.transport.connector(Whom::JobManager));
        known.channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.shared
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_address(address: &str) -> Result<(), ClientError> {
    if is_address(address) {
        return Ok(());
    }
    Err(ClientError::Address {
        address: address.to_owned(),
    })
}

/// Whether it has the form `host:port`.
pub(crate) fn is_address(address: &str) -> bool {
    let parts = address
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty() && !host.contains(['/', '@', ' ']));
    matches!(parts.map(|(_, port)| port.parse::<u16>()), Some(Ok(port)) if port > 0)
}

fn refused(status: &Status) -> ClientError {
    if let Some(refused) = plain_text_refused(status) {
        return refused.clone().into();
    }
    ClientError::Refused {
        code: status.code(),
        message: innermost(status),
    }
}

/// The member and the innermost cause: `127.0.0.1:6123: connection refused`.
fn describe(address: &str, status: &Status) -> String {
    let cause = innermost(status);
    if cause.starts_with(address) {
        return cause;
    }
    format!("{address}: {cause}")
}

/// What the member said, or why it could not.
fn innermost(status: &Status) -> String {
    let mut innermost = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        innermost = error.to_string();
        cause = error.source();
    }
    innermost
}

#[cfg(test)]
mod tests {
    use flott_node::SystemClock;

    use super::*;

    #[test]
    fn a_refusal_is_told_from_a_member_that_cannot_answer() {
        let mut redirect = Status::failed_precondition("not the leader");
        redirect
            .metadata_mut()
            .insert(LEADER_HEADER, "h2:6123".parse().unwrap());
        let broken = Status::from_error(Box::new(std::io::Error::other("connection reset")));
        let cases = [
            (redirect, Verdict::NotLeader(Some("h2:6123".to_owned()))),
            (
                Status::failed_precondition("nobody leads"),
                Verdict::NotLeader(None),
            ),
            (Status::unavailable("electing"), Verdict::TryNext),
            (Status::deadline_exceeded("hangs"), Verdict::TryNext),
            (broken, Verdict::TryNext),
            (Status::internal("bug"), Verdict::Refused),
            (Status::not_found("no such job"), Verdict::Refused),
            (Status::invalid_argument("no slots"), Verdict::Refused),
            (Status::aborted("the group would stop"), Verdict::Refused),
        ];
        for (status, verdict) in cases {
            assert_eq!(classify(&status), verdict, "{status:?}");
        }
    }

    #[test]
    fn addresses_without_host_or_port_are_refused() {
        for good in ["127.0.0.1:6123", "jm-0.flott:80", "[::1]:6123"] {
            assert!(check_address(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "host",
            ":1",
            "host:",
            "host:0",
            "host:70000",
            "http://host:1",
            "a b:1",
        ] {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn plain_text_does_not_leave_this_machine_unless_that_is_said() {
        let client = |address: &str, transport| {
            let (patience, clock) = (Duration::from_millis(50), SystemClock::shared());
            Client::new(vec![address.to_owned()], patience, transport, clock)
        };
        // An address that is for documentation only: nobody is there.
        let other = "192.0.2.1:6123";
        let refused = client(other, Transport::loopback()).unwrap_err();
        assert!(matches!(refused, ClientError::PlainText(_)), "{refused}");
        assert!(refused.to_string().contains("--insecure"), "{refused}");
        assert!(client(other, Transport::insecure()).is_ok());
        let here = client("localhost:1", Transport::loopback()).unwrap();
        assert!(here.status().await.unwrap_err().is_unavailable());
    }

    #[tokio::test]
    async fn a_cluster_that_is_down_is_reported_with_the_reason() {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = format!("127.0.0.1:{port}");
        let client = Client::new(
            vec![address.clone()],
            Duration::from_millis(50),
            Transport::loopback(),
            SystemClock::shared(),
        )
        .unwrap();
        let error = client.status().await.unwrap_err();
        assert!(error.is_unavailable());
        let text = error.to_string();
        assert!(
            text.contains(&address) && text.contains("refused"),
            "{text}"
        );
    }
}
