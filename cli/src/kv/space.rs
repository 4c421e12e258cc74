//! One namespace of a session, with a function for each thing to do.
//!
//! Every write carries a request id of its own, so it is safely repeated while a leader dies; whoever wants it otherwise
//! uses [`Session::call`].

use std::time::Duration;

use bytes::Bytes;
use flott_proto::wire::kv_failure::Reason;
use flott_proto::wire::kv_request::Operation;
use flott_proto::wire::kv_response::Outcome;
use flott_proto::wire::kv_write::Kind;
use flott_proto::wire::{
    KvDelete, KvEntry, KvGrantLease, KvHeader, KvKeepLease, KvKeys, KvLease, KvLeaseResult,
    KvListLeases, KvPut, KvRange, KvRangeResult, KvRequest, KvRevokeLease, KvTxn, KvTxnResult,
    KvWrite,
};

use super::watch::Watch;
use super::{Ephemeral, KvError, Session, keys};

/// What was asked for, and as of when.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer<T> {
    /// The revision of a write, or the newest that a read saw; who answered; how stale at most.
    pub header: KvHeader,
    pub value: T,
}

/// A namespace of a session. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Space {
    session: Session,
    namespace: String,
}

impl Space {
    pub(super) fn new(session: Session, namespace: String) -> Self {
        Self { session, namespace }
    }

    /// The session behind it.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Its name.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Sets a key.
    pub async fn put(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Answer<()>, KvError> {
        let put = KvPut {
            key: key.into(),
            value: value.into(),
            ..KvPut::default()
        };
        self.put_entry(put).await
    }

    /// Sets a key that ends with a lease, or after a time.
    pub async fn put_entry(&self, put: KvPut) -> Result<Answer<()>, KvError> {
        self.write(Kind::Put(put), |outcome| match outcome {
            Outcome::Put(_) => Some(()),
            _ => None,
        })
        .await
    }

    /// Ends keys; how many there were.
    pub async fn delete(&self, keys: KvKeys) -> Result<Answer<u64>, KvError> {
        let kind = Kind::Delete(KvDelete { keys: Some(keys) });
        self.write(kind, |outcome| match outcome {
            Outcome::Delete(result) => Some(result.deleted),
            _ => None,
        })
        .await
    }

    /// Compares, and changes accordingly, in one step. A comparison that fails is no error.
    pub async fn txn(&self, txn: KvTxn) -> Result<Answer<KvTxnResult>, KvError> {
        self.write(Kind::Txn(txn), |outcome| match outcome {
            Outcome::Txn(result) => Some(result),
            _ => None,
        })
        .await
    }

    /// The entry of a key, as of now.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Answer<Option<KvEntry>>, KvError> {
        let keys = Some(keys::one(key));
        let range = KvRange {
            keys,
            ..KvRange::default()
        };
        let Answer { header, mut value } = self.range(range).await?;
        let value = value.entries.pop();
        Ok(Answer { header, value })
    }

    /// The entries of a range, in order, as many as fit into an answer.
    pub async fn range(&self, range: KvRange) -> Result<Answer<KvRangeResult>, KvError> {
        self.read(Operation::Range(range), |outcome| match outcome {
            Outcome::Range(result) => Some(result),
            _ => None,
        })
        .await
    }

    /// The entries of a range, in order, `limit` at most (0: all). A long list is read in several answers, each as of its
    /// own revision; the header is that of the first, so a watch from behind it misses nothing.
    pub async fn list(&self, range: KvRange) -> Result<Answer<KvRangeResult>, KvError> {
        let limit = range.limit as usize;
        let mut answer = self.range(range.clone()).await?;
        while answer.value.more && (limit == 0 || answer.value.entries.len() < limit) {
            let (Some(last), Some(keys)) = (answer.value.entries.last(), &range.keys) else {
                break;
            };
            let rest = KvRange {
                keys: Some(keys::behind(keys, &last.key)),
                limit: limit.saturating_sub(answer.value.entries.len()) as u32,
                ..range.clone()
            };
            let page = self.range(rest).await?;
            answer.value.more = page.value.more;
            answer.value.entries.extend(page.value.entries);
            answer.header.stale_ms = answer.header.stale_ms.max(page.header.stale_ms);
        }
        Ok(answer)
    }

    /// The changes of a range from a revision on; `None`: all that come after this call.
    pub async fn watch(&self, keys: KvKeys, from: Option<u64>) -> Result<Watch, KvError> {
        let from = match from {
            Some(from) => from,
            // A watch "from now on" that breaks before its first answer would not know from where to go on.
            None => self.revision().await? + 1,
        };
        Ok(Watch::new(self, keys, from))
    }

    /// The newest revision.
    pub async fn revision(&self) -> Result<u64, KvError> {
        let range = KvRange {
            keys: Some(keys::prefix("")),
            count_only: true,
            ..KvRange::default()
        };
        Ok(self.range(range).await?.header.revision)
    }

    /// Starts a lease; `lease` 0: one is drawn.
    pub async fn grant_lease(
        &self,
        lease: u64,
        ttl: Duration,
    ) -> Result<Answer<KvLeaseResult>, KvError> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self.lease(Kind::GrantLease(KvGrantLease { lease, ttl_ms }))
            .await
    }

    /// Starts a lease's time anew, within `patience`.
    pub async fn keep_lease(
        &self,
        lease: u64,
        patience: Duration,
    ) -> Result<Answer<KvLeaseResult>, KvError> {
        let kind = Some(Kind::KeepLease(KvKeepLease { lease }));
        // Harmless to repeat, so nobody needs to remember it.
        let request = KvRequest {
            namespace: self.namespace.clone(),
            operation: Some(Operation::Write(KvWrite { kind })),
            ..KvRequest::default()
        };
        self.call(request, patience, lease_result).await
    }

    /// Ends a lease and its entries.
    pub async fn revoke_lease(&self, lease: u64) -> Result<Answer<KvLeaseResult>, KvError> {
        self.lease(Kind::RevokeLease(KvRevokeLease { lease })).await
    }

    async fn lease(&self, kind: Kind) -> Result<Answer<KvLeaseResult>, KvError> {
        self.write(kind, lease_result).await
    }

    /// The leases, and what is bound to them.
    pub async fn leases(&self) -> Result<Answer<Vec<KvLease>>, KvError> {
        let list = Operation::ListLeases(KvListLeases {});
        self.read(list, |outcome| match outcome {
            Outcome::Leases(leases) => Some(leases.leases),
            _ => None,
        })
        .await
    }

    /// A lease that is kept alive as long as the answer lives, and at most `ttl` longer.
    pub async fn ephemeral(&self, ttl: Duration) -> Result<Ephemeral, KvError> {
        Ephemeral::start(self, ttl).await
    }

    async fn read<T>(
        &self,
        operation: Operation,
        wanted: fn(Outcome) -> Option<T>,
    ) -> Result<Answer<T>, KvError> {
        let request = KvRequest {
            namespace: self.namespace.clone(),
            operation: Some(operation),
            ..KvRequest::default()
        };
        self.call(request, self.session.options().patience, wanted)
            .await
    }

    async fn write<T>(
        &self,
        kind: Kind,
        wanted: fn(Outcome) -> Option<T>,
    ) -> Result<Answer<T>, KvError> {
        let write = KvWrite { kind: Some(kind) };
        let request = KvRequest {
            namespace: self.namespace.clone(),
            request_id: self.session.request_id(),
            operation: Some(Operation::Write(write)),
            ..KvRequest::default()
        };
        self.call(request, self.session.options().patience, wanted)
            .await
    }

    async fn call<T>(
        &self,
        request: KvRequest,
        patience: Duration,
        wanted: fn(Outcome) -> Option<T>,
    ) -> Result<Answer<T>, KvError> {
        let is_write = matches!(request.operation, Some(Operation::Write(_)));
        let response = self.session.call_within(request, patience).await?;
        let value = response.outcome.and_then(wanted);
        let value = value.ok_or_else(|| strange_answer(is_write))?;
        let header = response.header.unwrap_or_default();
        Ok(Answer { header, value })
    }
}

fn lease_result(outcome: Outcome) -> Option<KvLeaseResult> {
    match outcome {
        Outcome::Lease(result) => Some(result),
        _ => None,
    }
}

fn strange_answer(is_write: bool) -> KvError {
    let last = "the answer is of another kind than the request; is the member of a newer version?";
    if is_write {
        return KvError::Unknown {
            last: last.to_owned(),
        };
    }
    KvError::Refused {
        reason: Reason::Unspecified,
        message: last.to_owned(),
    }
}
