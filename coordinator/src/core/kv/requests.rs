//! Writes that were answered lately, so that a client that did not hear the answer may ask again.
//!
//! Bounded in number, bytes and log time, the oldest first: a repetition that comes later than that is carried out again,
//! which clients are told in the documentation of `request_id`.

use std::sync::Arc;

use flott_proto::wire;
use imbl::OrdMap;
use prost::Message;

/// Answers that are remembered in one namespace.
const REQUESTS_MAX: usize = 10_000;
/// Their bytes.
const BYTES_MAX: usize = 4 << 20;
/// For how long, ms of log time: longer than any client goes on trying.
const REMEMBERED_MS: i64 = 10 * 60_000;
/// Forgotten with each new one, so that no write pays for many.
const FORGET_STEP: usize = 4;

/// One answered write.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    pub serial: u64,
    pub at_ms: i64,
    /// Of the write, to notice an id that is used twice.
    pub fingerprint: u64,
    pub response: wire::KvResponse,
}

impl Answered {
    fn bytes(&self, id: &str) -> usize {
        id.len() + self.response.encoded_len() + 64
    }
}

/// The answered writes of one namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requests {
    by_id: OrdMap<Arc<str>, Arc<Answered>>,
    /// Oldest first.
    order: OrdMap<u64, Arc<str>>,
    next_serial: u64,
    bytes: usize,
}

impl Requests {
    pub fn get(&self, id: &str) -> Option<&Answered> {
        self.by_id.get(id).map(|answered| &**answered)
    }

    /// Remembers an answer under an id that has none yet.
    pub fn remember(
        &mut self,
        id: &str,
        now_ms: i64,
        fingerprint: u64,
        response: wire::KvResponse,
    ) {
        let answered = Answered {
            serial: self.next_serial,
            at_ms: now_ms,
            fingerprint,
            response,
        };
        self.insert(Arc::from(id), answered);
        for _ in 0..FORGET_STEP {
            let Some((serial, oldest)) = self.order.get_min().cloned() else {
                break;
            };
            let full = self.order.len() > REQUESTS_MAX || self.bytes > BYTES_MAX;
            let old = self.by_id[&oldest].at_ms.saturating_add(REMEMBERED_MS) < now_ms;
            if !full && !old {
                break;
            }
            self.order.remove(&serial);
            if let Some(forgotten) = self.by_id.remove(&oldest) {
                self.bytes -= forgotten.bytes(&oldest);
            }
        }
    }

    fn insert(&mut self, id: Arc<str>, answered: Answered) {
        self.next_serial = self.next_serial.max(answered.serial + 1);
        self.bytes += answered.bytes(&id);
        self.order.insert(answered.serial, Arc::clone(&id));
        self.by_id.insert(id, Arc::new(answered));
    }

    /// What the next answer will be numbered.
    pub fn next_serial(&self) -> u64 {
        self.next_serial
    }

    /// None yet, with numbers from here on.
    pub fn starting_at(next_serial: u64) -> Self {
        Self {
            next_serial,
            ..Self::default()
        }
    }

    /// All, the oldest first, as a snapshot keeps them.
    pub fn to_wire(&self) -> impl Iterator<Item = wire::KvAnswered> {
        self.order.iter().map(|(serial, id)| {
            let answered = &self.by_id[id];
            wire::KvAnswered {
                request_id: id.to_string(),
                serial: *serial,
                at_ms: answered.at_ms,
                fingerprint: answered.fingerprint,
                response: Some(answered.response.clone()),
            }
        })
    }

    /// Takes one of [`Self::to_wire`] back.
    pub fn restore(&mut self, answered: wire::KvAnswered) {
        let value = Answered {
            serial: answered.serial,
            at_ms: answered.at_ms,
            fingerprint: answered.fingerprint,
            response: answered.response.unwrap_or_default(),
        };
        self.insert(answered.request_id.into(), value);
    }

    pub(super) fn check(&self) {
        assert_eq!(self.order.len(), self.by_id.len());
        let bytes = self.by_id.iter().map(|(id, answered)| answered.bytes(id));
        assert_eq!(self.bytes, bytes.sum::<usize>());
        for (serial, id) in &self.order {
            assert_eq!(self.by_id[id].serial, *serial);
            assert!(*serial < self.next_serial);
        }
    }
}
