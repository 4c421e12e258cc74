//! What a request may ask for. Checked before a write is proposed, so that nothing malformed or oversized reaches the
//! log, and again by `apply`, which trusts nobody.

use flott_proto::wire::{self, kv_operation, kv_write};

/// Bytes of a key.
pub const KEY_BYTES_MAX: usize = 1024;
/// Bytes of a value. What is larger belongs into object storage, with its name here.
pub const VALUE_BYTES_MAX: usize = 256 << 10;
/// Comparisons and operations of a transaction.
pub const TXN_OPERATIONS_MAX: usize = 128;
/// Bytes of all keys and values of a write: well below what a log entry may have.
pub const WRITE_BYTES_MAX: usize = 1 << 20;
/// Characters of a request id.
pub const REQUEST_ID_CHARS_MAX: usize = 128;
/// Milliseconds of a lease: shorter ones would end with every election, longer ones are none.
pub const LEASE_TTL_MS_MIN: u64 = 1_000;
pub const LEASE_TTL_MS_MAX: u64 = 30 * 24 * 3_600_000;
/// Milliseconds of an entry's own time.
pub const TTL_MS_MAX: u64 = 10 * 365 * 24 * 3_600_000;

/// Why a request is not acceptable, for people.
pub type Invalid = String;

/// Checks a write's form and size.
pub fn check_write(write: &wire::KvWrite, request_id: &str) -> Result<(), Invalid> {
    use kv_write::Kind;
    if request_id.len() > REQUEST_ID_CHARS_MAX {
        return Err(format!(
            "a request id has at most {REQUEST_ID_CHARS_MAX} characters"
        ));
    }
    let bytes = match write
        .kind
        .as_ref()
        .ok_or("the write does not say what to do")?
    {
        Kind::Put(put) => check_put(put)?,
        Kind::Delete(delete) => check_keys(delete.keys.as_ref())?,
        Kind::Txn(txn) => check_txn(txn)?,
        Kind::GrantLease(grant) => check_ttl(grant.ttl_ms)?,
        Kind::KeepLease(wire::KvKeepLease { lease: 0 })
        | Kind::RevokeLease(wire::KvRevokeLease { lease: 0 }) => {
            return Err("lease 0 means no lease; name one".to_owned());
        }
        Kind::KeepLease(_) | Kind::RevokeLease(_) => 0,
    };
    if bytes > WRITE_BYTES_MAX {
        return Err(format!(
            "the write has {bytes} bytes of keys and values, more than {WRITE_BYTES_MAX}; split it"
        ));
    }
    Ok(())
}

/// Checks a range's form; its size is bounded by the answer's.
pub fn check_range(range: &wire::KvRange) -> Result<(), Invalid> {
    check_keys(range.keys.as_ref()).map(drop)
}

fn check_put(put: &wire::KvPut) -> Result<usize, Invalid> {
    check_key(&put.key)?;
    if put.value.len() > VALUE_BYTES_MAX {
        return Err(format!(
            "a value of {} bytes is larger than {VALUE_BYTES_MAX}; keep it in object storage, and its name here",
            put.value.len()
        ));
    }
    if put.lease != 0 && put.ttl_ms != 0 {
        return Err("an entry ends with its lease or after a time, not both".to_owned());
    }
    if put.ttl_ms > TTL_MS_MAX {
        return Err(format!("a time to live is at most {TTL_MS_MAX} ms"));
    }
    Ok(put.key.len() + put.value.len())
}

fn check_key(key: &[u8]) -> Result<(), Invalid> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(format!(
            "a key has 1 to {KEY_BYTES_MAX} bytes, this one has {}",
            key.len()
        ));
    }
    Ok(())
}

fn check_keys(keys: Option<&wire::KvKeys>) -> Result<usize, Invalid> {
    let keys = keys.ok_or("the request does not say which keys")?;
    // A range may begin before every key: with nothing.
    if keys.end.is_empty() || !keys.start.is_empty() {
        check_key(&keys.start)?;
    }
    if keys.end.len() > KEY_BYTES_MAX {
        return Err(format!(
            "the end of a range has at most {KEY_BYTES_MAX} bytes"
        ));
    }
    Ok(keys.start.len() + keys.end.len())
}

fn check_ttl(ttl_ms: u64) -> Result<usize, Invalid> {
    if (LEASE_TTL_MS_MIN..=LEASE_TTL_MS_MAX).contains(&ttl_ms) {
        Ok(0)
    } else {
        Err(format!(
            "a lease lasts {LEASE_TTL_MS_MIN} to {LEASE_TTL_MS_MAX} ms, not {ttl_ms}"
        ))
    }
}

fn check_txn(txn: &wire::KvTxn) -> Result<usize, Invalid> {
    let count = txn.compare.len() + txn.success.len() + txn.failure.len();
    if count > TXN_OPERATIONS_MAX {
        return Err(format!(
            "a transaction has at most {TXN_OPERATIONS_MAX} comparisons and operations, this one has {count}"
        ));
    }
    let mut bytes = 0;
    for compare in &txn.compare {
        check_key(&compare.key)?;
        wire::kv_compare::Relation::try_from(compare.relation)
            .map_err(|_| format!("a comparison has the unknown relation {}", compare.relation))?;
        let target = compare.target.as_ref();
        let target = target.ok_or("a comparison does not say what it compares with")?;
        if let wire::kv_compare::Target::Value(value) = target {
            bytes += value.len();
        }
        bytes += compare.key.len();
    }
    for operation in txn.success.iter().chain(&txn.failure) {
        use kv_operation::Kind;
        bytes += match operation
            .kind
            .as_ref()
            .ok_or("an operation does not say what to do")?
        {
            Kind::Put(put) => check_put(put)?,
            Kind::Delete(delete) => check_keys(delete.keys.as_ref())?,
            Kind::Range(range) => check_keys(range.keys.as_ref())?,
        };
    }
    Ok(bytes)
}
