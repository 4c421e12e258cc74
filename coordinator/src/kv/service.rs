//! The gRPC service: takes requests apart into reads and writes and brings the answers together again.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flott_node::{OnFailure, SharedClock, Tasks};
use flott_proto::ids::{Namespace, NodeId};
use flott_proto::wire::{
    self, key_value_server::KeyValue, kv_failure::Reason, kv_request::Operation,
    kv_response::Outcome,
};
use futures::{Stream, StreamExt, stream};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::failure;
use super::proposer::{Answer, Proposer};
use super::reads::Reads;
use super::watches::{Next, Watches};
use crate::core::ClusterState;
use crate::core::kv::limits::{check_range, check_write};
use crate::raft::RaftNode;

/// Requests of one stream that are not answered yet. The client waits with more.
const STREAM_REQUESTS_MAX: usize = 8192;
/// Batches of changes that wait for one watcher's connection; it takes the rest at its own pace.
const WATCH_BATCHES_MAX: usize = 4;
/// How often a watcher of a quiet range is told how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// A watcher of a member that has heard nothing for longer is sent elsewhere.
const WATCH_STALE_MS_MAX: u64 = 5_000;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves [`KeyValue`]. Clones are the same service.
#[derive(Clone, Debug)]
pub(crate) struct KeyValueService {
    pub(crate) raft: RaftNode,
    pub(crate) proposer: Proposer,
    pub(crate) reads: Reads,
    pub(crate) watches: Arc<Watches>,
    pub(crate) clock: SharedClock,
    pub(crate) tasks: Tasks,
}

/// A read that has been checked.
#[derive(Clone)]
struct Read {
    sequence: u64,
    namespace: Namespace,
    what: What,
}

#[derive(Clone)]
enum What {
    Range(wire::KvRange),
    Leases,
}

impl Read {
    fn is_stale(&self) -> bool {
        matches!(&self.what, What::Range(range) if range.stale)
    }

    /// Whether it may have to look at many entries.
    fn is_scan(&self) -> bool {
        match &self.what {
            What::Range(range) => range.keys.as_ref().is_some_and(|keys| !keys.end.is_empty()),
            What::Leases => true,
        }
    }

    fn answer(&self, state: &ClusterState) -> wire::KvResponse {
        if let Err(refused) = state.known_namespace(&self.namespace) {
            return wire::KvResponse {
                sequence: self.sequence,
                ..failure(Reason::NoNamespace, refused.to_string())
            };
        }
        let space = state.kv.get(&self.namespace).map(|space| &**space);
        let outcome = match &self.what {
            What::Range(range) => {
                Outcome::Range(space.map(|space| space.range(range)).unwrap_or_default())
            }
            What::Leases => Outcome::Leases(space.map(|space| space.leases()).unwrap_or_default()),
        };
        wire::KvResponse {
            sequence: self.sequence,
            header: Some(wire::KvHeader {
                revision: state.revision,
                ..Default::default()
            }),
            outcome: Some(outcome),
        }
    }
}

fn has_scan(reads: &[Read]) -> bool {
    reads.iter().any(Read::is_scan)
}

fn answer(state: &ClusterState, reads: &[Read]) -> Vec<wire::KvResponse> {
    reads.iter().map(|read| read.answer(state)).collect()
}

/// The same answer to all of them.
fn refuse(refusal: &wire::KvResponse, reads: &[Read]) -> Vec<wire::KvResponse> {
    let refuse = |read: &Read| wire::KvResponse {
        sequence: read.sequence,
        ..refusal.clone()
    };
    reads.iter().map(refuse).collect()
}

/// Answers where nothing waits for the thread: heartbeats share those of Raft with this service.
async fn scan(state: ClusterState, reads: &[Read]) -> Vec<wire::KvResponse> {
    let scans = reads.to_vec();
    let scanned = flott_node::spawn_blocking(move || answer(&state, &scans)).await;
    scanned.unwrap_or_else(|error| {
        let what = format!("the range could not be read: {error}");
        refuse(&failure(Reason::Busy, what), reads)
    })
}

/// A message's requests, sorted. What is malformed is answered already.
#[derive(Default)]
struct Sorted {
    writes: Vec<(u64, wire::KvProposal)>,
    reads: Vec<Read>,
    stale: Vec<Read>,
    answered: Vec<wire::KvResponse>,
}

impl Sorted {
    fn of(requests: Vec<wire::KvRequest>) -> Self {
        let mut sorted = Self::default();
        for request in requests {
            let sequence = request.sequence;
            if let Err(what) = sorted.add(request) {
                sorted.answered.push(wire::KvResponse {
                    sequence,
                    ..failure(Reason::Invalid, what)
                });
            }
        }
        sorted
    }

    fn add(&mut self, request: wire::KvRequest) -> Result<(), String> {
        let wire::KvRequest {
            sequence,
            namespace,
            request_id,
            operation,
        } = request;
        let read = match operation.ok_or("the request does not say what to do")? {
            Operation::Write(write) => {
                check_write(&write, &request_id)?;
                let proposal = wire::KvProposal {
                    namespace,
                    request_id,
                    write: Some(write),
                };
                self.writes.push((sequence, proposal));
                return Ok(());
            }
            Operation::Range(range) => {
                check_range(&range)?;
                What::Range(range)
            }
            Operation::ListLeases(_) => What::Leases,
        };
        let read = Read {
            sequence,
            namespace: namespace
                .parse()
                .map_err(|error: flott_proto::Malformed| error.to_string())?,
            what: read,
        };
        if read.is_stale() {
            self.stale.push(read);
        } else {
            self.reads.push(read);
        }
        Ok(())
    }
}

impl KeyValueService {
    fn sign(&self, mut response: wire::KvResponse, stale_ms: u64) -> wire::KvResponse {
        sign(&mut response, self.raft.node_id());
        response.header.get_or_insert_default().stale_ms = stale_ms;
        response
    }

    async fn read(&self, reads: Vec<Read>) -> Vec<wire::KvResponse> {
        let answers = if has_scan(&reads) {
            match self.reads.linearizable(ClusterState::clone).await {
                Ok(state) => Ok(scan(state, &reads).await),
                Err(refusal) => Err(refusal),
            }
        } else {
            self.reads.linearizable(|state| answer(state, &reads)).await
        };
        let answers = answers.unwrap_or_else(|refusal| refuse(&refusal, &reads));
        answers
            .into_iter()
            .map(|answer| self.sign(answer, 0))
            .collect()
    }

    async fn read_stale(&self, reads: Vec<Read>) -> Vec<wire::KvResponse> {
        // Asked first: by the time it is answered the state can only have become newer.
        let stale_ms = self.reads.stale_ms();
        let state = self.raft.state();
        let answers = if has_scan(&reads) {
            scan((*state).clone(), &reads).await
        } else {
            answer(&state, &reads)
        };
        answers
            .into_iter()
            .map(|answer| self.sign(answer, stale_ms))
            .collect()
    }

    /// Deals with the requests of one message of a stream.
    async fn deal_with(&self, requests: wire::KvRequests, out: &Arc<Outgoing>) {
        let sorted = Sorted::of(requests.requests);
        if !sorted.writes.is_empty() {
            let writes = sorted.writes.into_iter().map(|(sequence, proposal)| {
                let out = Arc::clone(out);
                let answer: Answer = Box::new(move |mut response| {
                    response.sequence = sequence;
                    sign(&mut response, out.member);
                    out.add([response]);
                });
                (proposal, answer)
            });
            self.proposer.submit(writes);
        }
        if !sorted.answered.is_empty() {
            out.add(
                sorted
                    .answered
                    .into_iter()
                    .map(|answer| self.sign(answer, 0)),
            );
        }
        if !sorted.stale.is_empty() {
            out.add(self.read_stale(sorted.stale).await);
        }
        if !sorted.reads.is_empty() {
            out.add(self.read(sorted.reads).await);
        }
    }
}

/// Says who answers.
fn sign(response: &mut wire::KvResponse, member: NodeId) {
    response.header.get_or_insert_default().member = member.0;
}

/// Answers on their way to one client: whatever there is goes in one message.
struct Outgoing {
    /// Who answers.
    member: NodeId,
    answers: Mutex<Vec<wire::KvResponse>>,
    news: Notify,
    /// One permit a request that may still come.
    room: Semaphore,
}

impl Outgoing {
    fn add(&self, answers: impl IntoIterator<Item = wire::KvResponse>) {
        let mut waiting = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.extend(answers);
        drop(waiting);
        self.news.notify_one();
    }

    /// All answers there are, as soon as there are any.
    async fn next(&self) -> wire::KvResponses {
        loop {
            let responses = {
                let mut waiting = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut *waiting)
            };
            if !responses.is_empty() {
                self.room.add_permits(responses.len());
                return wire::KvResponses { responses };
            }
            self.news.notified().await;
        }
    }
}

#[tonic::async_trait]
impl KeyValue for KeyValueService {
    type PipelineStream = Answers<wire::KvResponses>;
    type WatchStream = Answers<wire::KvWatchResponse>;

    async fn call(
        &self,
        request: Request<wire::KvRequest>,
    ) -> Result<Response<wire::KvResponse>, Status> {
        let request = request.into_inner();
        let sequence = request.sequence;
        let mut sorted = Sorted::of(vec![request]);
        let response = if let Some((_, proposal)) = sorted.writes.pop() {
            let (answer, answered) = oneshot::channel();
            let answer: Answer = Box::new(move |response| {
                // The caller may have given up.
                let _ = answer.send(response);
            });
            self.proposer.submit([(proposal, answer)]);
            let answered = answered.await;
            let answered = answered
                .unwrap_or_else(|_| failure(Reason::Unknown, "this JobManager is shutting down"));
            self.sign(answered, 0)
        } else if let Some(read) = sorted.reads.pop() {
            self.read(vec![read]).await.remove(0)
        } else if !sorted.stale.is_empty() {
            self.read_stale(sorted.stale).await.remove(0)
        } else {
            self.sign(sorted.answered.remove(0), 0)
        };
        Ok(Response::new(wire::KvResponse {
            sequence,
            ..response
        }))
    }

    async fn pipeline(
        &self,
        request: Request<Streaming<wire::KvRequests>>,
    ) -> Result<Response<Self::PipelineStream>, Status> {
        let out = Arc::new(Outgoing {
            member: self.raft.node_id(),
            answers: Mutex::default(),
            news: Notify::new(),
            room: Semaphore::new(STREAM_REQUESTS_MAX),
        });
        let (service, incoming) = (self.clone(), request.into_inner());
        let taking = stream::unfold(
            (service, incoming, Arc::clone(&out)),
            |(service, mut incoming, out)| async move {
                // The client has gone, or never was one of ours.
                let requests = incoming.message().await.ok()??;
                let count = requests.requests.len().min(STREAM_REQUESTS_MAX);
                let room = out
                    .room
                    .acquire_many(u32::try_from(count).unwrap_or(u32::MAX))
                    .await;
                room.ok()?.forget();
                service.deal_with(requests, &out).await;
                Some(((), (service, incoming, out)))
            },
        );
        let answering = stream::unfold(out, |out| async move {
            let responses = out.next().await;
            Some((Some(Ok(responses)), out))
        });
        // Both directions in one task: what is taken is dealt with while the answers before it are sent.
        let ended = stream::once(async { None });
        let taking = taking
            .filter_map(|()| std::future::ready(None))
            .chain(ended);
        let both = stream::select(taking, answering)
            .take_while(|next| std::future::ready(next.is_some()))
            .filter_map(std::future::ready);
        Ok(Response::new(Box::pin(both)))
    }

    async fn watch(
        &self,
        request: Request<wire::KvWatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let namespace: Namespace = request.namespace.parse()?;
        let keys = request.keys.unwrap_or_default();
        let range = wire::KvRange {
            keys: Some(keys.clone()),
            ..Default::default()
        };
        check_range(&range).map_err(Status::invalid_argument)?;
        if let Err(refused) = self.raft.state().known_namespace(&namespace) {
            return Err(Status::not_found(refused.to_string()));
        }
        let mut revision = self.watches.revision();
        let from = match request.start_revision {
            0 => *revision.borrow_and_update() + 1,
            from => from,
        };
        let (answers, receiver) = mpsc::channel(WATCH_BATCHES_MAX);
        let (watches, clock) = (Arc::clone(&self.watches), self.clock.clone());
        let cancelled = self.tasks.cancellation().clone();
        let reads = self.reads.clone();
        self.tasks.spawn("watch keys", OnFailure::Log, async move {
            let follow = follow(
                &watches, &clock, &namespace, &keys, from, revision, &answers,
            );
            let lost_touch = async {
                loop {
                    clock.sleep(PROGRESS_INTERVAL).await;
                    if reads.stale_ms() > WATCH_STALE_MS_MAX {
                        let what = "this member has lost touch with the group; watch at another";
                        // Whoever does not take its answers is told when the stream ends.
                        let _ = answers.try_send(Err(Status::unavailable(what)));
                        return;
                    }
                }
            };
            tokio::select! { biased;
                () = cancelled.cancelled() => {}
                () = answers.closed() => {}
                () = follow => {}
                () = lost_touch => {}
            }
            Ok::<_, String>(())
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Tells a watcher all that happens from revision `from` on, until it has to resync or is gone.
async fn follow(
    watches: &Watches,
    clock: &SharedClock,
    namespace: &Namespace,
    keys: &wire::KvKeys,
    mut from: u64,
    mut revision: tokio::sync::watch::Receiver<u64>,
    answers: &mpsc::Sender<Result<wire::KvWatchResponse, Status>>,
) {
    let mut progress = clock.sleep(Duration::ZERO);
    loop {
        let newest = *revision.borrow_and_update();
        let response = match watches.since(namespace, keys, from) {
            Next::Resync(revision) => wire::KvWatchResponse {
                revision,
                events: Vec::new(),
                resync: true,
            },
            Next::Events(revision, events) => wire::KvWatchResponse {
                revision,
                events,
                resync: false,
            },
        };
        let (resync, quiet, upto) = (
            response.resync,
            response.events.is_empty(),
            response.revision,
        );
        let due = futures::FutureExt::now_or_never(&mut progress).is_some();
        if !quiet || resync || due {
            progress = clock.sleep(PROGRESS_INTERVAL);
            if answers.send(Ok(response)).await.is_err() || resync {
                return;
            }
        }
        from = from.max(upto + 1);
        if upto < newest {
            continue;
        }
        tokio::select! {
            changed = revision.changed() => if changed.is_err() { return },
            () = clock.sleep(PROGRESS_INTERVAL) => {}
        }
    }
}
