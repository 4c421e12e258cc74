//! What waits, what is in flight, and what an answer or its absence means for the caller. Pure.
//!
//! ```text
//!           ┌──────────── not applied: NOT_LEADER ◄─────┐
//!           ▼                                           │
//! push → waiting ──next_batch──► in flight ──answer──► settled
//!           ▲                       │
//!           ├──── deferred ◄────────┤ BUSY; UNKNOWN, if harmless to repeat
//!           └───────────────────────┘ broken or overdue, if harmless to repeat; else the caller hears "unknown"
//! ```
//!
//! What must stay true: a call is in exactly one of the three places until it is settled, and is settled once. From the
//! moment that one attempt may have been applied, the call is `uncertain` and never ends with "not applied".

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use flott_proto::wire::kv_failure::Reason;
use flott_proto::wire::kv_response::Outcome;
use flott_proto::wire::{KvFailure, KvRequest, KvRequests, KvResponse, kv_request, kv_write};
use prost::Message;
use tokio::sync::oneshot;

use crate::kv::KvError;

/// Calls that wait or are in flight; further ones wait in the mailbox, and then with their callers.
const CALLS_MAX: usize = 4096;
/// Requests in one message: a leader answers as many within a millisecond or two.
const BATCH_MAX: usize = 1024;
/// Bytes in one message, unless a single request is larger: a fraction of what a member accepts as one message.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// A member refuses messages of 4 MiB, and the connection breaks with it; the rest is for what surrounds the request.
const REQUEST_BYTES_MAX: usize = (4 << 20) - 1024;
/// Before a request is repeated that found the leader busy, or losing its office.
const DEFERRAL: Duration = Duration::from_millis(20);

/// One call of a caller.
#[derive(Debug)]
pub(in crate::kv) struct Call {
    request: KvRequest,
    answer: oneshot::Sender<Result<KvResponse, KvError>>,
    patience: Duration,
    expires: Duration,
    kind: Kind,
    uncertain: bool,
}

/// What repeating a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    /// Carried out once however often it is sent, or without further effect.
    Repeatable,
    /// Carried out as often as it is sent.
    Once,
}

impl Kind {
    fn of(request: &KvRequest) -> Self {
        match &request.operation {
            Some(kv_request::Operation::Write(write)) => match write.kind {
                Some(kv_write::Kind::KeepLease(_)) => Self::Repeatable,
                _ if !request.request_id.is_empty() => Self::Repeatable,
                _ => Self::Once,
            },
            _ => Self::Read,
        }
    }
}

impl Call {
    pub(super) fn new(
        request: KvRequest,
        answer: oneshot::Sender<Result<KvResponse, KvError>>,
        now: Duration,
        patience: Duration,
    ) -> Self {
        Self {
            kind: Kind::of(&request),
            expires: now.saturating_add(patience),
            request,
            answer,
            patience,
            uncertain: false,
        }
    }

    /// A caller that has gone misses nothing.
    fn settle(self, result: Result<KvResponse, KvError>) {
        let _ = self.answer.send(result);
    }

    fn give_up(self, last: &str) {
        let last = last.to_owned();
        let error = if self.uncertain && self.kind != Kind::Read {
            KvError::Unknown { last }
        } else {
            let patience = self.patience;
            KvError::Unavailable { patience, last }
        };
        self.settle(Err(error));
    }
}

#[derive(Debug)]
struct Flight {
    call: Call,
    overdue: Duration,
}

/// What an answer says about the member that gave it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It can answer, well or ill.
    Answers,
    /// It cannot at present.
    Busy,
    /// It does not lead; perhaps it knows who does.
    NotLeader(Option<String>),
}

/// All calls of a session.
#[derive(Debug)]
pub(super) struct Requests {
    waiting: VecDeque<Call>,
    deferred: VecDeque<(Duration, Call)>,
    flying: BTreeMap<u64, Flight>,
    /// How many in flight must not be repeated.
    flying_once: usize,
    sequence: u64,
    attempt_timeout: Duration,
    /// The last that went wrong, for the message of a call that ends in vain.
    last: String,
}

impl Requests {
    pub(super) fn new(attempt_timeout: Duration) -> Self {
        Self {
            waiting: VecDeque::new(),
            deferred: VecDeque::new(),
            flying: BTreeMap::new(),
            flying_once: 0,
            sequence: 0,
            attempt_timeout,
            last: "none was asked".to_owned(),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.len() < CALLS_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.waiting.len() + self.deferred.len() + self.flying.len()
    }

    /// Whether something could be sent now.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn is_flying(&self) -> bool {
        !self.flying.is_empty()
    }

    /// Whether the loss of the connection would leave a write of which nobody knows how it ended.
    pub(super) fn is_flying_once(&self) -> bool {
        self.flying_once > 0
    }

    /// Something went wrong that is worth telling.
    pub(super) fn note(&mut self, what: String) {
        self.last = what;
    }

    pub(super) fn push(&mut self, call: Call) {
        if call.request.encoded_len() > REQUEST_BYTES_MAX {
            let error = KvError::Refused {
                reason: Reason::Invalid,
                message: format!("a request of more than {REQUEST_BYTES_MAX} bytes; split it"),
            };
            return call.settle(Err(error));
        }
        self.waiting.push_back(call);
    }

    /// What is waiting, up to `max` requests and the bounds of a message; from now on in flight.
    pub(super) fn next_batch(&mut self, now: Duration, max: usize) -> Option<KvRequests> {
        let mut batch = KvRequests::default();
        let mut bytes = 0;
        while batch.requests.len() < max.min(BATCH_MAX) {
            let Some(call) = self.waiting.front() else {
                break;
            };
            bytes += call.request.encoded_len();
            if bytes > BATCH_BYTES_MAX && !batch.requests.is_empty() {
                break;
            }
            let Some(mut call) = self.waiting.pop_front() else {
                break;
            };
            if call.answer.is_closed() {
                continue;
            }
            self.sequence += 1;
            call.request.sequence = self.sequence;
            batch.requests.push(call.request.clone());
            self.flying_once += usize::from(call.kind == Kind::Once);
            let overdue = call.expires.min(now.saturating_add(self.attempt_timeout));
            self.flying.insert(self.sequence, Flight { call, overdue });
        }
        (!batch.requests.is_empty()).then_some(batch)
    }

    pub(super) fn on_response(&mut self, response: KvResponse, now: Duration) -> Told {
        // An answer to nothing: its request was overdue.
        let Some(call) = self.land(response.sequence) else {
            return Told::Answers;
        };
        match response.outcome {
            Some(Outcome::Failure(failure)) => self.on_failure(call, failure, now),
            None => {
                let message = "the answer is empty; is the member of a newer version?".to_owned();
                let reason = Reason::Unspecified.into();
                let failure = KvFailure {
                    reason,
                    message,
                    ..KvFailure::default()
                };
                self.on_failure(call, failure, now)
            }
            Some(_) => {
                call.settle(Ok(response));
                Told::Answers
            }
        }
    }

    fn on_failure(&mut self, mut call: Call, failure: KvFailure, now: Duration) -> Told {
        let (reason, message) = (failure.reason(), failure.message);
        match reason {
            Reason::NotLeader => {
                self.last = message;
                self.waiting.push_front(call);
                let leader = failure.leader_address;
                return Told::NotLeader((!leader.is_empty()).then_some(leader));
            }
            Reason::Busy => {
                self.last = message;
                self.deferred.push_back((now + DEFERRAL, call));
                return Told::Busy;
            }
            Reason::Unknown | Reason::Unspecified => {
                self.last = message;
                call.uncertain = true;
                if call.kind == Kind::Once {
                    call.give_up(&self.last);
                } else {
                    self.deferred.push_back((now + DEFERRAL, call));
                }
            }
            // A malformed request was malformed at every attempt.
            Reason::Invalid => call.settle(Err(KvError::Refused { reason, message })),
            // An attempt before may have been applied nevertheless.
            Reason::NoNamespace | Reason::Quota | Reason::NoLease if call.uncertain => {
                call.give_up(&message);
            }
            Reason::NoNamespace | Reason::Quota | Reason::NoLease => {
                call.settle(Err(KvError::Refused { reason, message }));
            }
        }
        Told::Answers
    }

    /// The connection is gone, and with it all answers that were to come.
    pub(super) fn on_break(&mut self) {
        self.flying_once = 0;
        for (_, flight) in std::mem::take(&mut self.flying).into_iter().rev() {
            self.on_lost(flight.call);
        }
    }

    fn on_lost(&mut self, mut call: Call) {
        call.uncertain = true;
        if call.kind == Kind::Once {
            call.give_up(&self.last);
        } else {
            self.waiting.push_front(call);
        }
    }

    /// Time has passed. Whether a request in flight is overdue although its caller would have waited longer: a sign that
    /// the member is not well.
    pub(super) fn on_tick(&mut self, now: Duration) -> bool {
        while let Some((_, call)) = self.deferred.pop_front_if(|(until, _)| *until <= now) {
            self.waiting.push_back(call);
        }
        let overdue = self
            .flying
            .iter()
            .filter(|(_, flight)| flight.overdue <= now);
        let overdue: Vec<u64> = overdue.map(|(sequence, _)| *sequence).collect();
        let mut unwell = false;
        for sequence in overdue {
            let Some(call) = self.land(sequence) else {
                continue;
            };
            self.last = format!("no answer within {} s", self.attempt_timeout.as_secs_f64());
            unwell |= now < call.expires;
            self.on_lost(call);
        }
        self.expire(now);
        unwell
    }

    /// Ends the waiting calls whose patience is used up.
    fn expire(&mut self, now: Duration) {
        let Self {
            waiting,
            deferred,
            last,
            ..
        } = self;
        if waiting.iter().any(|call| call.expires <= now) {
            for call in std::mem::take(waiting) {
                if call.expires <= now {
                    call.give_up(last);
                } else {
                    waiting.push_back(call);
                }
            }
        }
        if deferred.iter().any(|(_, call)| call.expires <= now) {
            for (until, call) in std::mem::take(deferred) {
                if call.expires <= now {
                    call.give_up(last);
                } else {
                    deferred.push_back((until, call));
                }
            }
        }
    }

    /// The session ends: nothing more is sent.
    pub(super) fn on_end(&mut self) {
        self.last = "the session has ended".to_owned();
        self.on_break();
        let deferred = std::mem::take(&mut self.deferred).into_iter();
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        for call in waiting.chain(deferred.map(|(_, call)| call)) {
            if call.uncertain {
                call.give_up(&self.last);
            } else {
                call.settle(Err(KvError::Closed));
            }
        }
    }

    fn land(&mut self, sequence: u64) -> Option<Call> {
        let call = self.flying.remove(&sequence)?.call;
        self.flying_once -= usize::from(call.kind == Kind::Once);
        Some(call)
    }

    /// What must hold between any two steps.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let once = self
            .flying
            .values()
            .filter(|flight| flight.call.kind == Kind::Once);
        assert_eq!(once.count(), self.flying_once);
        assert!(
            self.flying
                .keys()
                .all(|sequence| *sequence <= self.sequence)
        );
    }
}

#[cfg(test)]
mod tests;
