//! A client of the key-value space that hides nothing: one attempt, one answer, and the difference between "certainly
//! not done" and "unknown" kept.
//!
//! It repeats nothing by itself and follows no leader. A connection is made before the attempt, so what could not connect
//! was not sent; from then on, whatever is not an answer is unknown. Another cluster at a member's address is no answer:
//! it refuses what names this one, as every request does once a member has answered.

use std::time::Duration;

use flott_cli::known_cluster::KnownCluster;
use flott_proto::wire::key_value_client::KeyValueClient;
use flott_proto::wire::{self, kv_failure::Reason, kv_request, kv_response};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use crate::cluster::network;

/// For a connection. Members are on the same machine; one that is stopped accepts connections all the same.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);

/// How an attempt went.
#[derive(Debug)]
pub enum Attempt {
    /// Nothing was sent to this cluster: there was no connection, or another cluster is there and refused.
    NotSent,
    /// Certainly not done.
    Refused {
        /// In the member's words.
        why: String,
        /// The address of the member that leads, if the refusal named it.
        leader: Option<String>,
    },
    /// Nobody knows.
    Unknown(String),
    /// Done.
    Done {
        /// The member that answered.
        member: u32,
        /// What it said.
        outcome: kv_response::Outcome,
    },
}

/// A connection to one member, made anew when it broke.
#[derive(Debug)]
pub struct Connection {
    member: u32,
    address: String,
    namespace: String,
    cluster: KnownCluster,
    client: Option<KeyValueClient<Channel>>,
}

impl Connection {
    /// To the member of that number.
    pub fn to(member: u32) -> Self {
        Self::at(member, network::address(member))
    }

    /// To the member of that number, which is reached at `address`.
    pub fn at(member: u32, address: String) -> Self {
        Self {
            member,
            address,
            namespace: "default".to_owned(),
            cluster: KnownCluster::default(),
            client: None,
        }
    }

    /// The same in another namespace.
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// The same to a member of that cluster; if it is not known yet, of the first one that answers one of its clients.
    pub fn of_cluster(mut self, cluster: &KnownCluster) -> Self {
        self.cluster = cluster.clone();
        self
    }

    /// Whom it is to.
    pub fn member(&self) -> u32 {
        self.member
    }

    /// Makes the connection if there is none; whether there is one now.
    pub async fn connect(&mut self) -> bool {
        if self.client.is_none() {
            let address = format!("http://{}", self.address);
            let Ok(endpoint) = Endpoint::from_shared(address) else {
                return false;
            };
            let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
            self.client = endpoint.connect().await.ok().map(KeyValueClient::new);
        }
        self.client.is_some()
    }

    /// One attempt, given up after `deadline`. With a `request_id` it may be repeated, at any member, without being done
    /// twice.
    pub async fn attempt(
        &mut self,
        operation: kv_request::Operation,
        request_id: &str,
        deadline: Duration,
    ) -> Attempt {
        if !self.connect().await {
            return Attempt::NotSent;
        }
        let Some(client) = &mut self.client else {
            return Attempt::NotSent;
        };
        let mut request = Request::new(wire::KvRequest {
            sequence: 0,
            namespace: self.namespace.clone(),
            request_id: request_id.to_owned(),
            operation: Some(operation),
        });
        self.cluster.name_in(request.metadata_mut());
        let answer = tokio::time::timeout(deadline, client.call(request)).await;
        match answer {
            Ok(Ok(answer)) => {
                self.cluster.learn_from(answer.metadata());
                understand(answer.into_inner())
            }
            Ok(Err(status)) => {
                self.client = None;
                // A member of another cluster, or of none, says so before it does anything.
                if status.code() == Code::FailedPrecondition {
                    return Attempt::NotSent;
                }
                Attempt::Unknown(format!("{:?}", status.code()))
            }
            Err(_) => Attempt::Unknown("no answer in time".to_owned()),
        }
    }
}

fn understand(response: wire::KvResponse) -> Attempt {
    let member = response.header.unwrap_or_default().member as u32;
    let failure = match response.outcome {
        Some(kv_response::Outcome::Failure(failure)) => failure,
        Some(outcome) => return Attempt::Done { member, outcome },
        None => return Attempt::Unknown("an empty answer".to_owned()),
    };
    let reason = failure.reason();
    match reason {
        Reason::NotLeader
        | Reason::Invalid
        | Reason::NoNamespace
        | Reason::Quota
        | Reason::NoLease
        | Reason::Busy => Attempt::Refused {
            leader: Some(failure.leader_address).filter(|address| !address.is_empty()),
            why: format!("{:?} {}", reason, failure.message),
        },
        Reason::Unspecified | Reason::Unknown => {
            Attempt::Unknown(format!("{:?} {}", failure.reason(), failure.message))
        }
    }
}

/// The entry of one key, or those of all keys that begin with `prefix`.
pub fn range(keys: wire::KvKeys, limit: u32, stale: bool) -> kv_request::Operation {
    kv_request::Operation::Range(wire::KvRange {
        keys: Some(keys),
        limit,
        stale,
        ..Default::default()
    })
}

/// Exactly this key.
pub fn key(key: &str) -> wire::KvKeys {
    wire::KvKeys {
        start: key.to_owned().into(),
        end: Default::default(),
    }
}

/// All keys from `start` that begin with `prefix`, which ends with a character below the last.
pub fn prefix(start: &str, prefix: &str) -> wire::KvKeys {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    wire::KvKeys {
        start: start.to_owned().into(),
        end: end.into(),
    }
}

/// Sets a key.
pub fn put(key: &str, value: &str) -> kv_request::Operation {
    write(wire::kv_write::Kind::Put(put_of(key, value)))
}

/// Sets a key if it holds `from` (`None`: if it is absent); otherwise tells what it holds.
pub fn swap(name: &str, from: Option<&str>, to: &str) -> kv_request::Operation {
    use wire::kv_compare::{Relation, Target};
    use wire::kv_operation::Kind;
    let target = match from {
        Some(value) => Target::Value(value.to_owned().into()),
        None => Target::Version(0),
    };
    let compare = wire::KvCompare {
        key: name.to_owned().into(),
        relation: Relation::Equal as i32,
        target: Some(target),
    };
    let look = wire::KvRange {
        keys: Some(key(name)),
        ..Default::default()
    };
    let operation = |kind| wire::KvOperation { kind: Some(kind) };
    write(wire::kv_write::Kind::Txn(wire::KvTxn {
        compare: vec![compare],
        success: vec![operation(Kind::Put(put_of(name, to)))],
        failure: vec![operation(Kind::Range(look))],
    }))
}

fn put_of(key: &str, value: &str) -> wire::KvPut {
    wire::KvPut {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    }
}

/// Sets these keys, if none has changed since that revision of it.
pub fn put_if_unchanged(
    entries: &[(String, u64, impl std::fmt::Display)],
) -> kv_request::Operation {
    use wire::kv_compare::{Relation, Target};
    let compare = entries.iter().map(|(key, revision, _)| wire::KvCompare {
        key: key.to_owned().into(),
        relation: Relation::Equal as i32,
        target: Some(Target::ModRevision(*revision)),
    });
    let put = entries.iter().map(|(key, _, value)| wire::KvOperation {
        kind: Some(wire::kv_operation::Kind::Put(put_of(
            key,
            &value.to_string(),
        ))),
    });
    write(wire::kv_write::Kind::Txn(wire::KvTxn {
        compare: compare.collect(),
        success: put.collect(),
        ..Default::default()
    }))
}

/// Deletes keys.
pub fn delete(keys: wire::KvKeys) -> kv_request::Operation {
    write(wire::kv_write::Kind::Delete(wire::KvDelete {
        keys: Some(keys),
    }))
}

/// Sets many keys at once.
pub fn put_all(entries: impl IntoIterator<Item = (String, String)>) -> kv_request::Operation {
    let put = |(key, value): (String, String)| wire::KvOperation {
        kind: Some(wire::kv_operation::Kind::Put(put_of(&key, &value))),
    };
    write(wire::kv_write::Kind::Txn(wire::KvTxn {
        success: entries.into_iter().map(put).collect(),
        ..Default::default()
    }))
}

/// Asks for the same keys again and again, in one transaction.
pub fn read_often(keys: &wire::KvKeys, times: usize) -> kv_request::Operation {
    let range = wire::KvOperation {
        kind: Some(wire::kv_operation::Kind::Range(wire::KvRange {
            keys: Some(keys.clone()),
            ..Default::default()
        })),
    };
    write(wire::kv_write::Kind::Txn(wire::KvTxn {
        success: vec![range; times],
        ..Default::default()
    }))
}

/// Begins a lease that nobody keeps.
pub fn grant_lease(ttl_ms: u64) -> kv_request::Operation {
    write(wire::kv_write::Kind::GrantLease(wire::KvGrantLease {
        lease: 0,
        ttl_ms,
    }))
}

fn write(kind: wire::kv_write::Kind) -> kv_request::Operation {
    kv_request::Operation::Write(wire::KvWrite { kind: Some(kind) })
}
