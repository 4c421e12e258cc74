//! etcd, as far as the load needs it: `KV.Put`, `KV.Range` and `Maintenance.Status` of its public gRPC API, version 3.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use flott_cli::bench::figures::Figures;
use flott_cli::bench::load::{Load, Operation, Place, run};
use flott_cli::bench::{KEYS, key};
use flott_node::SharedClock;
use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::{ANSWER_TIMEOUT, spread};

/// Under which the keys lie.
const PREFIX: &str = "flott-bench/";

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct PutResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
}

/// Linearizable unless it says otherwise.
#[derive(Clone, PartialEq, Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct RangeResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[derive(Clone, PartialEq, Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(string, tag = "2")]
    version: String,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// One channel.
#[derive(Clone)]
struct Client(Grpc<Channel>);

impl Client {
    async fn connect(server: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{server}"))?
            .connect_timeout(ANSWER_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .tcp_nodelay(true);
        let channel = endpoint.connect().await;
        Ok(Self(Grpc::new(channel.with_context(|| {
            format!("cannot connect to etcd at {server}")
        })?)))
    }

    async fn call<Q, A>(&mut self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let ready = self.0.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec: ProstCodec<Q, A> = ProstCodec::default();
        let path = PathAndQuery::from_static(path);
        Ok(self
            .0
            .unary(Request::new(request), path, codec)
            .await?
            .into_inner())
    }

    async fn put(&mut self, key: Bytes, value: Bytes) -> Result<u64, Status> {
        let request = PutRequest { key, value };
        let response: PutResponse = self.call("/etcdserverpb.KV/Put", request).await?;
        Ok(response.header.unwrap_or_default().member_id)
    }
}

/// The servers, and what is known about them.
#[derive(Clone, Debug)]
pub struct Etcd {
    servers: Vec<String>,
    members: Vec<u64>,
    leader: usize,
    version: String,
}

impl Etcd {
    /// Asks every server who it is, and who leads.
    pub async fn find(servers: &[String]) -> anyhow::Result<Self> {
        let (mut members, mut leader, mut version) = (Vec::new(), 0, String::new());
        for server in servers {
            let mut client = Client::connect(server).await?;
            let status: StatusResponse = client
                .call("/etcdserverpb.Maintenance/Status", StatusRequest {})
                .await?;
            members.push(status.header.unwrap_or_default().member_id);
            (leader, version) = (status.leader, status.version);
        }
        let leader = members
            .iter()
            .position(|member| *member == leader && leader != 0);
        let leader = leader.context("etcd has no leader")?;
        let servers = servers.to_vec();
        Ok(Self {
            servers,
            members,
            leader,
            version,
        })
    }

    /// Its name and version.
    pub fn name(&self) -> String {
        format!("etcd {}", self.version)
    }

    /// Runs one load over `sessions` channels.
    pub async fn measure(
        &self,
        load: &Load,
        in_flight: u64,
        sessions: u64,
        clock: &SharedClock,
    ) -> anyhow::Result<Figures> {
        let sessions = sessions.min(in_flight);
        let mut clients = Vec::new();
        for server in spread(self.servers.len(), self.leader, sessions as usize) {
            clients.push(Client::connect(&self.servers[server]).await?);
        }
        if load.operation == Operation::Read {
            for number in 0..KEYS {
                clients[0]
                    .put(key(PREFIX, number).into(), load.value.clone())
                    .await?;
            }
        }
        let place = |number: usize| EtcdPlace {
            client: clients[number % clients.len()].clone(),
            key: key(PREFIX, number).into(),
            bytes: load.value.len(),
            members: self.members.clone(),
        };
        let mut places: Vec<_> = (0..in_flight as usize).map(place).collect();
        let measured = run(&mut places, load, &**clock).await;
        Ok(Figures::new(load, in_flight, sessions, measured))
    }

    /// Waits until there is a leader, and a write succeeds at every server, within `limit`.
    pub async fn wait_ready(
        servers: &[String],
        limit: Duration,
        clock: &SharedClock,
    ) -> anyhow::Result<()> {
        super::compare::until(limit, clock, async || {
            let found = Self::find(servers).await?;
            for server in &found.servers {
                let mut client = Client::connect(server).await?;
                client.put("flott-bench/ready".into(), Bytes::new()).await?;
            }
            ensure!(
                found.members.len() == servers.len(),
                "not all servers answer"
            );
            Ok(())
        })
        .await
    }
}

struct EtcdPlace {
    client: Client,
    key: Bytes,
    bytes: usize,
    members: Vec<u64>,
}

impl EtcdPlace {
    /// Servers are numbered from 1, in the order in which they were given.
    fn number(&self, member: u64) -> u64 {
        let position = self.members.iter().position(|known| *known == member);
        position.map_or(0, |position| position as u64 + 1)
    }
}

impl Place for EtcdPlace {
    async fn write(&mut self, value: Bytes) -> Result<u64, String> {
        let put = self.client.put(self.key.clone(), value).await;
        put.map(|member| self.number(member))
            .map_err(|status| status.to_string())
    }

    async fn read(&mut self) -> Result<u64, String> {
        let request = RangeRequest {
            key: self.key.clone(),
        };
        let response: RangeResponse = self
            .client
            .call("/etcdserverpb.KV/Range", request)
            .await
            .map_err(|status| status.to_string())?;
        match &response.kvs[..] {
            [entry] if entry.value.len() == self.bytes => {
                Ok(self.number(response.header.unwrap_or_default().member_id))
            }
            _ => Err("the read found something else than was written".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes as the public API defines them, written by hand.
    #[test]
    fn messages_are_encoded_as_the_api_says() {
        let put = PutRequest {
            key: "k".into(),
            value: "v".into(),
        };
        assert_eq!(put.encode_to_vec(), b"\x0a\x01k\x12\x01v");
        let answer = b"\x0a\x04\x08\x07\x10\x09\x12\x06\x0a\x01k\x2a\x01v\x20\x01";
        let range = RangeResponse::decode(&answer[..]).unwrap();
        assert_eq!(range.header.unwrap().member_id, 9);
        assert_eq!(
            (&range.kvs[0].key[..], &range.kvs[0].value[..]),
            (&b"k"[..], &b"v"[..])
        );
    }
}
