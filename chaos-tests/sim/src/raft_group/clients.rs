//! Clients of the key-value space: few keys, so that they meet, and all members, so that none is trusted alone.
//!
//! Each value is written once in a run. Half of the clients repeat a write under its request id until they know; the
//! others give up at once, and nobody knows then.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flott_chaos_basis::random::Random;
use flott_proto::wire::{
    self, key_value_client::KeyValueClient, kv_compare, kv_failure::Reason, kv_operation,
    kv_operation_result, kv_request, kv_response::Outcome, kv_write,
};
use tonic::transport::Channel;

use super::member;
use super::plan::Plan;
use crate::callers;
use crate::history::{Action, History, Operation, Told};
use crate::kernel;

/// How long a client waits for an answer.
const PATIENCE_MS: (u64, u64) = (150, 2500);
/// How often a write is repeated.
const REPEATS_MAX: u32 = 8;

/// What all clients know.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    history: Arc<Mutex<History>>,
    /// Nobody asks anything before.
    rest_until: Arc<AtomicU64>,
}

impl Shared {
    /// They ask nothing until then.
    pub fn rest_until(&self, at: u64) {
        self.rest_until.fetch_max(at, Ordering::Relaxed);
    }

    fn rests(&self) -> bool {
        kernel::now() < self.rest_until.load(Ordering::Relaxed)
    }

    /// What they were told so far.
    pub fn history(&self) -> History {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.clone()
    }

    /// How many writes were acknowledged, and when the last one was.
    pub fn acknowledged(&self) -> (usize, u64) {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let written = history
            .operations
            .iter()
            .filter(|operation| matches!(operation.told, Told::Written { .. }));
        let last = written.clone().map(|operation| operation.ended).max();
        (written.count(), last.unwrap_or(0))
    }

    fn begin(&self, operation: Operation) -> usize {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.operations.push(operation);
        history.operations.len() - 1
    }

    fn end(&self, at: usize, told: Told) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let operation = &mut history.operations[at];
        (operation.ended, operation.told) = (kernel::now(), told);
    }
}

/// One client.
#[derive(Debug)]
struct Client {
    number: u32,
    repeats: bool,
    plan: Plan,
    random: Random,
    shared: Shared,
    channels: BTreeMap<usize, KeyValueClient<Channel>>,
    /// Whom to ask first.
    favourite: usize,
    values: u64,
    /// The revision in which each key was seen last.
    known: BTreeMap<u32, u64>,
}

/// Runs the clients, until their process ends.
pub async fn main(plan: Plan, shared: Shared) {
    let mut random = plan.random.clone().fork();
    let clients = (0..plan.clients).map(|number| Client {
        number,
        repeats: number % 2 == 0,
        plan: plan.clone(),
        random: random.fork(),
        shared: shared.clone(),
        channels: BTreeMap::new(),
        favourite: 0,
        values: 0,
        known: BTreeMap::new(),
    });
    futures::future::join_all(clients.map(Client::run)).await;
}

fn keys(key: u32) -> wire::KvKeys {
    wire::KvKeys {
        start: format!("key-{key}").into(),
        end: Default::default(),
    }
}

impl Client {
    async fn run(mut self) {
        loop {
            let pause = if self.random.permille(50) { 300 } else { 20 };
            self.pause(pause).await;
            if self.shared.rests() {
                continue;
            }
            let key = self.random.below(u64::from(self.plan.keys)) as u32;
            let action = self.choose(key);
            let at = self.shared.begin(Operation {
                client: self.number,
                key,
                action: action.clone(),
                begun: kernel::now(),
                ended: u64::MAX,
                told: Told::Unknown,
            });
            let told = self.carry_out(key, &action).await;
            match &told {
                Told::Written { revision } => self.known.insert(key, *revision),
                Told::Found {
                    entry: Some((_, revision)),
                    ..
                } => self.known.insert(key, *revision),
                _ => None,
            };
            self.shared.end(at, told);
        }
    }

    async fn pause(&mut self, ms_max: u64) {
        callers::pause(&mut self.random, ms_max).await;
    }

    fn choose(&mut self, key: u32) -> Action {
        let mut value = || {
            self.values += 1;
            u64::from(self.number) * 1_000_000 + self.values
        };
        match self.random.below(10) {
            0..4 => Action::Read,
            4..8 => Action::Write(value()),
            _ => Action::Swap {
                expected: self.known.get(&key).copied().unwrap_or(0),
                value: value(),
            },
        }
    }

    async fn carry_out(&mut self, key: u32, action: &Action) -> Told {
        let repeats = self.repeats && *action != Action::Read;
        let request_id = match action {
            Action::Write(value) | Action::Swap { value, .. } if repeats => format!("r{value}"),
            _ => String::new(),
        };
        let request = wire::KvRequest {
            sequence: 1,
            namespace: "default".to_owned(),
            request_id,
            operation: Some(self.operation(key, action)),
        };
        let mut unknown = false;
        for _ in 0..if repeats { REPEATS_MAX } else { 1 } {
            match self.ask(&request).await {
                Told::Unknown => unknown = true,
                // Refused this time; but an attempt before may still be carried out.
                Told::Refused if repeats => {}
                told => return told,
            }
            self.pause(60).await;
        }
        if unknown {
            Told::Unknown
        } else {
            Told::Refused
        }
    }

    fn operation(&self, key: u32, action: &Action) -> kv_request::Operation {
        let put = |value: u64| {
            let mut text = value.to_string();
            text.push(' ');
            text.extend(std::iter::repeat_n('.', self.plan.value_bytes));
            wire::KvPut {
                key: keys(key).start,
                value: text.into(),
                ..Default::default()
            }
        };
        let range = wire::KvRange {
            keys: Some(keys(key)),
            ..Default::default()
        };
        match action {
            Action::Read => kv_request::Operation::Range(range),
            Action::Write(value) => kv_request::Operation::Write(wire::KvWrite {
                kind: Some(kv_write::Kind::Put(put(*value))),
            }),
            Action::Swap { expected, value } => kv_request::Operation::Write(wire::KvWrite {
                kind: Some(kv_write::Kind::Txn(wire::KvTxn {
                    compare: vec![wire::KvCompare {
                        key: keys(key).start,
                        relation: kv_compare::Relation::Equal.into(),
                        target: Some(kv_compare::Target::ModRevision(*expected)),
                    }],
                    success: vec![wire::KvOperation {
                        kind: Some(kv_operation::Kind::Put(put(*value))),
                    }],
                    failure: vec![],
                })),
            }),
        }
    }

    fn channel(&mut self, host: usize) -> KeyValueClient<Channel> {
        let channels = self.channels.entry(host);
        channels
            .or_insert_with(|| KeyValueClient::new(callers::channel(host)))
            .clone()
    }

    async fn ask(&mut self, request: &wire::KvRequest) -> Told {
        let hosts = self.plan.member_hosts() as u64;
        let anybody = self.random.permille(250);
        let host = if anybody {
            self.random.below(hosts) as usize
        } else {
            self.favourite
        };
        let mut client = self.channel(host);
        let patience = self.random.between(PATIENCE_MS.0, PATIENCE_MS.1);
        let call = client.call(request.clone());
        let answer = tokio::time::timeout(Duration::from_millis(patience), call).await;
        let response = match answer {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(_)) | Err(_) => {
                self.favourite = self.random.below(hosts) as usize;
                return Told::Unknown;
            }
        };
        self.understand(request, response, host)
    }

    fn understand(
        &mut self,
        request: &wire::KvRequest,
        response: wire::KvResponse,
        host: usize,
    ) -> Told {
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        match response.outcome {
            Some(Outcome::Put(_)) => Told::Written { revision },
            Some(Outcome::Txn(txn)) if txn.succeeded => {
                let put = txn.results.first().and_then(|result| result.kind.as_ref());
                assert!(
                    matches!(put, Some(kv_operation_result::Kind::Put(_))),
                    "a swap puts"
                );
                Told::Written { revision }
            }
            Some(Outcome::Txn(_)) => Told::Differs,
            Some(Outcome::Range(range)) => {
                self.favourite = if self.random.permille(300) {
                    host
                } else {
                    self.favourite
                };
                let entry = range.entries.first().map(|entry| {
                    let text = String::from_utf8_lossy(&entry.value);
                    let value = text.split(' ').next().and_then(|text| text.parse().ok());
                    (value.unwrap_or(u64::MAX), entry.mod_revision)
                });
                Told::Found { revision, entry }
            }
            Some(Outcome::Failure(failure)) => {
                let leader = (0..self.plan.member_hosts())
                    .find(|host| member::address(*host) == failure.leader_address);
                self.favourite = leader
                    .unwrap_or_else(|| self.random.below(self.plan.member_hosts() as u64) as usize);
                match failure.reason() {
                    Reason::Unknown | Reason::Unspecified => Told::Unknown,
                    // Under this id an earlier attempt may have done it.
                    Reason::Invalid if !request.request_id.is_empty() => Told::Unknown,
                    _ => Told::Refused,
                }
            }
            _ => Told::Unknown,
        }
    }
}
