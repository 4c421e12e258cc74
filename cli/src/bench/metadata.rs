//! Flott's key-value space under load.

use bytes::Bytes;
use flott_node::{SharedClock, Tasks};
use flott_proto::wire::kv_request::Operation as Request;
use flott_proto::wire::kv_response::Outcome;
use flott_proto::wire::kv_write::Kind;
use flott_proto::wire::{KvPut, KvRange, KvRequest, KvResponse, KvWrite};
use futures::future::try_join_all;

use super::figures::Figures;
use super::load::{Load, Operation, Place, run};
use super::{KEYS, key};
use crate::kv::{KvError, Session, SessionOptions, keys};

/// Under which the keys lie.
const PREFIX: &str = "flott-bench/";

/// How Flott is driven.
#[derive(Clone, Debug)]
pub struct Target {
    pub members: Vec<String>,
    pub namespace: String,
    pub options: SessionOptions,
    /// Connections that share the load.
    pub sessions: u64,
    /// Whether every write is to be remembered.
    pub request_ids: bool,
}

impl Target {
    /// Runs one load. Reads find values of the load's size.
    pub async fn measure(
        &self,
        load: &Load,
        in_flight: u64,
        clock: &SharedClock,
    ) -> Result<Figures, KvError> {
        let tasks = Tasks::default();
        let count = self.sessions.min(in_flight);
        let mut sessions = Vec::new();
        for _ in 0..count {
            let (members, options) = (self.members.clone(), self.options.clone());
            sessions.push(Session::new(members, options, clock.clone(), &tasks)?);
        }
        if load.operation == Operation::Read {
            self.fill(&sessions[0], &load.value).await?;
        }
        let place = |number: usize| KvPlace {
            session: sessions[number % sessions.len()].clone(),
            namespace: self.namespace.clone(),
            key: key(PREFIX, number).into(),
            request_ids: self.request_ids,
        };
        let mut places: Vec<_> = (0..in_flight as usize).map(place).collect();
        let measured = run(&mut places, load, &**clock).await;
        Ok(Figures::new(load, in_flight, count, measured))
    }

    /// Deletes what the loads wrote.
    pub async fn clean_up(&self, clock: &SharedClock) -> Result<(), KvError> {
        let (members, options) = (self.members.clone(), self.options.clone());
        let session = Session::new(members, options, clock.clone(), &Tasks::default())?;
        let space = session.space(&self.namespace);
        space.delete(keys::prefix(PREFIX)).await.map(drop)
    }

    async fn fill(&self, session: &Session, value: &Bytes) -> Result<(), KvError> {
        let space = session.space(&self.namespace);
        let fill = |number| space.put(key(PREFIX, number), value.clone());
        try_join_all((0..KEYS).map(fill)).await.map(drop)
    }
}

struct KvPlace {
    session: Session,
    namespace: String,
    key: Bytes,
    request_ids: bool,
}

impl KvPlace {
    async fn call(&self, operation: Request, request_id: String) -> Result<KvResponse, String> {
        let request = KvRequest {
            namespace: self.namespace.clone(),
            request_id,
            operation: Some(operation),
            ..KvRequest::default()
        };
        let answered = self.session.call(request).await;
        answered.map_err(|error| error.to_string())
    }
}

impl Place for KvPlace {
    async fn write(&mut self, value: Bytes) -> Result<u64, String> {
        let put = KvPut {
            key: self.key.clone(),
            value,
            ..KvPut::default()
        };
        let write = KvWrite {
            kind: Some(Kind::Put(put)),
        };
        let request_id = if self.request_ids {
            self.session.request_id()
        } else {
            String::new()
        };
        let answer = self.call(Request::Write(write), request_id).await?;
        Ok(answer.header.unwrap_or_default().member)
    }

    async fn read(&mut self) -> Result<u64, String> {
        let range = KvRange {
            keys: Some(keys::one(self.key.clone())),
            ..KvRange::default()
        };
        let answer = self.call(Request::Range(range), String::new()).await?;
        match answer.outcome {
            Some(Outcome::Range(result)) if result.entries.len() == 1 => {
                Ok(answer.header.unwrap_or_default().member)
            }
            _ => Err("the read found nothing".to_owned()),
        }
    }
}
