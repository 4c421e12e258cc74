//! A member of the key-value service that answers as the test says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use flott_cli::kv::{Session, SessionOptions};
use flott_node::{OnFailure, SystemClock, Tasks};
use flott_proto::wire;
use flott_proto::wire::key_value_server::{KeyValue, KeyValueServer};
use flott_proto::wire::kv_failure::Reason;
use flott_proto::wire::kv_response::Outcome;
use flott_proto::wire::{
    KvFailure, KvHeader, KvRequest, KvRequests, KvResponse, KvResponses, KvWatchRequest,
    KvWatchResponse,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// What a member does with a request.
pub(crate) enum Reaction {
    Answer(Outcome),
    /// Answers the request before, that it was silent about.
    AnswerHeldThen(Outcome, Outcome),
    /// Says nothing about it.
    Silence,
    /// Breaks the connection.
    Break,
}

/// What a member does with a watch: what it says, and whether it then ends the stream.
pub(crate) type Told = (Vec<Result<KvWatchResponse, Status>>, bool);

type React = dyn Fn(&KvRequest) -> Reaction + Send + Sync;
type Tell = dyn Fn(&KvWatchRequest) -> Told + Send + Sync;

/// A member that the test plays. Clones are the same member.
#[derive(Clone)]
pub(crate) struct Member {
    react: Arc<React>,
    tell: Arc<Tell>,
    /// The messages that came, each a batch of requests.
    pub(crate) batches: Arc<Mutex<Vec<Vec<KvRequest>>>>,
    pub(crate) watches: Arc<Mutex<Vec<KvWatchRequest>>>,
}

/// The answer that a member that does not lead gives.
pub(crate) fn not_leader(leader: &str) -> Reaction {
    Reaction::Answer(failure(Reason::NotLeader, leader))
}

pub(crate) fn failure(reason: Reason, leader: &str) -> Outcome {
    Outcome::Failure(KvFailure {
        reason: reason.into(),
        message: format!("{reason:?}"),
        leader_address: leader.to_owned(),
    })
}

pub(crate) fn done() -> Reaction {
    Reaction::Answer(Outcome::Put(wire::KvPutResult {}))
}

impl Member {
    pub(crate) fn new(react: impl Fn(&KvRequest) -> Reaction + Send + Sync + 'static) -> Self {
        Self {
            react: Arc::new(react),
            tell: Arc::new(|_| (Vec::new(), false)),
            batches: Arc::default(),
            watches: Arc::default(),
        }
    }

    pub(crate) fn telling(
        self,
        tell: impl Fn(&KvWatchRequest) -> Told + Send + Sync + 'static,
    ) -> Self {
        Self {
            tell: Arc::new(tell),
            ..self
        }
    }

    /// Listens; its address.
    pub(crate) async fn serve(&self, tasks: &Tasks) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let member = self.clone();
        let cancelled = tasks.cancellation().clone().cancelled_owned();
        tasks.spawn("member", OnFailure::Log, async move {
            let server =
                tonic::transport::Server::builder().add_service(KeyValueServer::new(member));
            tokio::select! {
                served = server.serve_with_incoming(TcpIncoming::from(listener)) => served,
                () = cancelled => Ok(()),
            }
        });
        address
    }

    /// All requests that came, in order.
    pub(crate) fn requests(&self) -> Vec<KvRequest> {
        self.batches.lock().unwrap().concat()
    }

    /// One message's answers; none: the connection breaks.
    fn answer(&self, requests: &[KvRequest], held: &mut Vec<u64>) -> Option<Vec<KvResponse>> {
        let mut responses = Vec::new();
        let response = |sequence, outcome| KvResponse {
            sequence,
            header: Some(KvHeader {
                revision: 7,
                member: 1,
                stale_ms: 0,
            }),
            outcome: Some(outcome),
        };
        for request in requests {
            match (self.react)(request) {
                Reaction::Answer(outcome) => responses.push(response(request.sequence, outcome)),
                Reaction::AnswerHeldThen(before, outcome) => {
                    responses.push(response(request.sequence, outcome));
                    let held = held.drain(..);
                    responses.extend(held.map(|sequence| response(sequence, before.clone())));
                }
                Reaction::Silence => held.push(request.sequence),
                Reaction::Break => return None,
            }
        }
        Some(responses)
    }
}

#[tonic::async_trait]
impl KeyValue for Member {
    async fn call(&self, _: Request<KvRequest>) -> Result<Response<KvResponse>, Status> {
        Err(Status::unimplemented("only streams are played"))
    }

    type PipelineStream = BoxStream<'static, Result<KvResponses, Status>>;

    async fn pipeline(
        &self,
        request: Request<Streaming<KvRequests>>,
    ) -> Result<Response<Self::PipelineStream>, Status> {
        let member = self.clone();
        let mut held = Vec::new();
        let answers = request.into_inner().map(move |batch| {
            let requests = batch?.requests;
            member.batches.lock().unwrap().push(requests.clone());
            match member.answer(&requests, &mut held) {
                Some(responses) => Ok(KvResponses { responses }),
                None => Err(Status::unavailable("the member dies")),
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    type WatchStream = BoxStream<'static, Result<KvWatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<KvWatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let (told, ends) = (self.tell)(&request);
        self.watches.lock().unwrap().push(request);
        let told = futures::stream::iter(told);
        Ok(Response::new(if ends {
            told.boxed()
        } else {
            told.chain(futures::stream::pending()).boxed()
        }))
    }
}

/// A session with these members whose calls end within `patience`.
pub(crate) fn session(tasks: &Tasks, members: &[&str], patience: Duration) -> Session {
    let members = members.iter().map(|&member| member.to_owned()).collect();
    let options = SessionOptions {
        patience,
        // A busy machine is no dead member.
        connect_timeout: Duration::from_secs(20),
        ping_timeout: Duration::from_secs(20),
        ..SessionOptions::default()
    };
    Session::new(members, options, SystemClock::shared(), tasks).unwrap()
}

/// An address at which nobody listens.
pub(crate) async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}
