//! Log entries to one follower: one call, many requests on their way, answers in the order of the requests.
//!
//! What must stay true:
//!
//! - The stream given to openraft owns openraft's input. Dropping it, which is how openraft ends a session, drops the
//!   input too; a transport that kept polling the input would take entries away from the next session.
//! - A request without entries, which only tells how far the log is committed, waits a moment for one with entries, which
//!   tells it too and is answered for both. Nothing is ever answered that the follower has not answered, and nothing late
//!   in a way that openraft would take for an answer to something newer: see [`append_order`].
//! - Something in flight without an answer for [`append_progress`] ends the session. A connection that only looks
//!   alive would otherwise hold replication up for ever.
//!
//! [`append_progress`]: super::NetworkTiming::append_progress
//! [`append_order`]: super::append_order

use std::collections::VecDeque;
use std::time::Duration;

use flott_node::SharedClock;
use flott_node::clock::Sleep;
use flott_proto::wire;
use futures::{Stream, StreamExt, stream};
use openraft::base::BoxStream;
use openraft::errors::NetworkError;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use openraft::{OptionalSend, RPCTypes};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::super::types::{LogId, TypeConfig};
use super::Lane;
use super::append_order::Order;
use super::client::{Failure, MemberClient, append_to_wire, appended_from_wire};

/// Requests without an answer. Each has up to 1 MiB of entries, so this also bounds the memory of a slow follower.
const IN_FLIGHT_MAX: usize = 16;

/// For how long a request without entries may wait for company.
const COMPANY_WAIT: Duration = Duration::from_millis(2);

type Item = Result<StreamAppendResult<TypeConfig>, Failure>;

/// Starts a session with the follower.
pub(super) async fn open<'s, S>(
    member: &'s mut MemberClient,
    input: S,
) -> Result<BoxStream<'s, Item>, Failure>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
{
    let mut client = member.client(Lane::Log)?;
    let (requests, outgoing) = mpsc::channel(IN_FLIGHT_MAX);
    let deadline = member.network.timing.append_progress;
    let call = client.stream_append(ReceiverStream::new(outgoing));
    let responses = match tokio::time::timeout(deadline, call).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return Err(member.failure(&status)),
        Err(_) => return Err(member.timeout(RPCTypes::AppendEntries, deadline).into()),
    };
    let clock = member.network.clock.clone();
    let member_timing = member.network.timing;
    let session = Session {
        member,
        input,
        requests: Some(requests),
        responses,
        order: Order::new(member_timing.answer_tolerance),
        waiting: None,
        ready: VecDeque::new(),
        deadline,
        clock,
        ended: false,
    };
    let answers = stream::unfold(session, |mut session| async move {
        let answer = session.next().await?;
        Some((answer, session))
    });
    Ok(Box::pin(answers))
}

struct Session<'s, S> {
    member: &'s mut MemberClient,
    input: S,
    /// None once the input has ended.
    requests: Option<mpsc::Sender<wire::RaftAppendRequest>>,
    responses: Streaming<wire::RaftAppendResponse>,
    /// The requests without an answer.
    order: Order<Option<LogId>>,
    /// A request without entries that waits for company, and until when.
    waiting: Option<(AppendEntriesRequest<TypeConfig>, Sleep)>,
    /// Answers that openraft may hear.
    ready: VecDeque<Item>,
    deadline: Duration,
    clock: SharedClock,
    ended: bool,
}

enum Event {
    /// No company came.
    Alone,
    Answered(Option<Result<wire::RaftAppendResponse, Status>>),
    Submitted(Option<AppendEntriesRequest<TypeConfig>>),
    Overdue,
}

impl<S> Session<'_, S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
{
    async fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            let all_answered = self.order.len() == 0 && self.waiting.is_none();
            if self.ended || (self.requests.is_none() && all_answered) {
                return None;
            }
            let room = self.order.len() < IN_FLIGHT_MAX;
            let may_send = self.requests.is_some() && room;
            let overdue = self.order.oldest().map(|sent| {
                let waited = self.clock.monotonic().saturating_sub(sent);
                self.clock.sleep(self.deadline.saturating_sub(waited))
            });
            let alone = self.waiting.as_mut().map(|(_, until)| until);
            let event = tokio::select! { biased;
                answer = self.responses.next() => Event::Answered(answer),
                request = self.input.next(), if may_send => Event::Submitted(request),
                () = async { match overdue { Some(sleep) => sleep.await, None => std::future::pending().await } } => {
                    Event::Overdue
                }
                () = async { match alone { Some(until) => until.await, None => std::future::pending().await } }, if room => {
                    Event::Alone
                }
            };
            match event {
                Event::Answered(answer) => self.on_answer(answer),
                Event::Submitted(Some(request)) => self.on_submitted(request),
                Event::Submitted(None) => {
                    self.send_waiting();
                    self.requests = None;
                }
                Event::Alone => self.send_waiting(),
                Event::Overdue => {
                    self.ended = true;
                    return Some(Err(self
                        .member
                        .timeout(RPCTypes::AppendEntries, self.deadline)
                        .into()));
                }
            }
        }
    }

    fn on_submitted(&mut self, request: AppendEntriesRequest<TypeConfig>) {
        if let Some((before, _)) = self.waiting.take() {
            self.order.accompanies(before.prev_log_id);
        }
        if request.entries.is_empty() {
            self.waiting = Some((request, self.clock.sleep(COMPANY_WAIT)));
        } else {
            self.send(&request);
        }
    }

    fn send_waiting(&mut self) {
        if let Some((request, _)) = self.waiting.take() {
            self.send(&request);
        }
    }

    fn send(&mut self, request: &AppendEntriesRequest<TypeConfig>) {
        self.order
            .sent(self.clock.monotonic(), request.entries.is_empty());
        let request = append_to_wire(request, self.member);
        // There is room for all that may be in flight. If the call has ended, its answer says so next.
        let full = |requests: &mpsc::Sender<_>| {
            matches!(requests.try_send(request), Err(TrySendError::Full(_)))
        };
        let full = self.requests.as_ref().is_some_and(full);
        assert!(!full, "more append requests than may be in flight");
    }

    fn on_answer(&mut self, answer: Option<Result<wire::RaftAppendResponse, Status>>) {
        let result = match answer {
            Some(Ok(response)) => appended_from_wire(response),
            Some(Err(status)) => Err(self.member.failure(&status)),
            None => Err(NetworkError::from_string("the follower ended the append stream").into()),
        };
        let Ok(Ok(matching)) = result else {
            // After a conflict or a higher vote the follower takes no more of this session.
            self.ended = true;
            self.ready.push_back(result);
            return;
        };
        let now = self.clock.monotonic();
        match self.order.answered(now, matching, self.waiting.is_some()) {
            Some(told) => self
                .ready
                .extend(told.into_iter().map(|matching| Ok(Ok(matching)))),
            None => {
                self.ended = true;
                let what = "append response without a request";
                self.ready
                    .push_back(Err(NetworkError::from_string(what).into()));
            }
        }
    }
}
