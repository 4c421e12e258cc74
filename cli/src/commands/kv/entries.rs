//! `flott kv put|get|list|delete`.

use std::io::Read;

use bytes::Bytes;
use flott_proto::wire::kv_compare::Target;
use flott_proto::wire::kv_operation::Kind;
use flott_proto::wire::kv_operation_result::Kind as Done;
use flott_proto::wire::{
    KvCompare, KvDelete, KvEntry, KvHeader, KvOperation, KvPut, KvRange, KvTxn, KvTxnResult,
};

use super::shapes::{Entry, Got, Listed, Written};
use super::{acknowledged, is_json, print, space};
use crate::args::NamespaceArgs;
use crate::args::kv::{DeleteArgs, GetArgs, KvListArgs, PutArgs};
use crate::kv::{Answer, Ephemeral, Space, keys};
use crate::role::StopSignals;
use crate::shapes::time;
use crate::{Error, output};

/// The largest value, and one byte to see that there is more.
const VALUE_READ_MAX: u64 = (256 << 10) + 1;
/// Of a value in a table.
const VALUE_SHOWN_MAX: usize = 60;

pub(super) async fn put(arguments: &PutArgs) -> Result<(), Error> {
    let value = value(arguments)?;
    let space = space(&arguments.namespace)?;
    let Some(ttl) = arguments.ephemeral else {
        let lease = arguments.lease.unwrap_or(0);
        return put_entry(arguments, &space, value, lease).await.map(drop);
    };
    let mut signals = StopSignals::listen()?;
    let held = space.ephemeral(ttl).await?;
    if let Err(error) = put_entry(arguments, &space, value, held.lease()).await {
        // The reason why it was not written counts; the lease runs out anyway.
        let _ = held.end().await;
        return Err(error);
    }
    hold(held, &mut signals).await
}

async fn hold(held: Ephemeral, signals: &mut StopSignals) -> Result<(), Error> {
    output::note("holding the entry until Ctrl-C");
    tokio::select! {
        why = held.lost() => Err(Error::Kv(format!("the entry is no longer held: {why}"))),
        () = signals.next() => held.end().await.map_err(Error::from),
    }
}

async fn put_entry(
    arguments: &PutArgs,
    space: &Space,
    value: Bytes,
    lease: u64,
) -> Result<(), Error> {
    let put = KvPut {
        key: arguments.key.clone().into(),
        value,
        lease,
        ttl_ms: arguments.ttl.map_or(0, |ttl| ttl.as_millis() as u64),
    };
    let wanted = match (arguments.if_revision, arguments.if_absent) {
        (Some(revision), _) => Some(revision),
        (None, true) => Some(0),
        (None, false) => None,
    };
    let header = match wanted {
        None => {
            let written = space.put_entry(put).await;
            acknowledged(&arguments.namespace, written)?.header
        }
        Some(revision) => {
            let change = Kind::Put(put);
            conditionally(
                &arguments.namespace,
                space,
                &arguments.key,
                revision,
                change,
            )
            .await?
            .0
        }
    };
    let mut written = Written::at(header.revision);
    written.lease = (lease != 0).then_some(lease);
    let text = || format!("applied at revision {}", header.revision);
    print(&arguments.namespace, &written, text);
    Ok(())
}

/// Carries out `change` if the key was changed last by `revision` (0: if there is none).
async fn conditionally(
    arguments: &NamespaceArgs,
    space: &Space,
    key: &str,
    revision: u64,
    change: Kind,
) -> Result<(KvHeader, Option<Done>), Error> {
    let key_bytes = Bytes::from(key.to_owned());
    let compare = KvCompare {
        key: key_bytes.clone(),
        target: Some(Target::ModRevision(revision)),
        ..KvCompare::default()
    };
    let look = KvRange {
        keys: Some(keys::one(key_bytes)),
        keys_only: true,
        ..KvRange::default()
    };
    let operation = |kind| vec![KvOperation { kind: Some(kind) }];
    let txn = KvTxn {
        compare: vec![compare],
        success: operation(change),
        failure: operation(Kind::Range(look)),
    };
    let Answer { header, value } = acknowledged(arguments, space.txn(txn).await)?;
    let KvTxnResult { succeeded, results } = value;
    let done = results.into_iter().next().and_then(|result| result.kind);
    if succeeded {
        return Ok((header, done));
    }
    let found = match done {
        Some(Done::Range(range)) => range.entries.first().map(|entry| entry.mod_revision),
        _ => None,
    };
    let text = match found {
        Some(found) if revision == 0 => format!("not applied: {key} exists, at revision {found}"),
        Some(found) => format!("not applied: {key} is at revision {found}, not {revision}"),
        None => format!("not applied: there is no {key}"),
    };
    if is_json(arguments) {
        let error = text.clone();
        let outcome = "not_applied";
        output::json(&super::Unacknowledged { outcome, error });
    }
    Err(Error::Kv(text))
}

/// From the command line, a file, or standard input.
fn value(arguments: &PutArgs) -> Result<Bytes, Error> {
    if let Some(value) = &arguments.value {
        return Ok(value.clone().into());
    }
    let mut value = Vec::new();
    match &arguments.file {
        Some(path) => {
            let file = std::fs::File::open(path).map_err(Error::file("cannot open", path))?;
            let read = file.take(VALUE_READ_MAX).read_to_end(&mut value);
            read.map_err(Error::file("cannot read", path))?;
        }
        None => {
            let read = std::io::stdin()
                .lock()
                .take(VALUE_READ_MAX)
                .read_to_end(&mut value);
            read.map_err(Error::file("cannot read", "standard input"))?;
        }
    }
    if value.len() as u64 >= VALUE_READ_MAX {
        let text = format!("the value is larger than {} bytes", VALUE_READ_MAX - 1);
        return Err(Error::Usage(text));
    }
    Ok(value.into())
}

pub(super) async fn get(arguments: &GetArgs) -> Result<(), Error> {
    let range = KvRange {
        keys: Some(keys::one(arguments.key.clone())),
        stale: arguments.stale.stale,
        ..KvRange::default()
    };
    let Answer { header, value } = space(&arguments.namespace)?.range(range).await?;
    note_stale(arguments.stale.stale, &header);
    let Some(entry) = value.entries.first() else {
        return Err(Error::Kv(format!("there is no {}", arguments.key)));
    };
    if is_json(&arguments.namespace) {
        output::json(&Got {
            entry: Entry::of(entry, false),
            header: (&header).into(),
        });
    } else {
        output::bytes(&entry.value);
    }
    Ok(())
}

pub(super) async fn list(arguments: &KvListArgs) -> Result<(), Error> {
    let range = KvRange {
        keys: Some(keys::prefix(arguments.prefix.clone())),
        limit: arguments.limit,
        keys_only: arguments.keys_only,
        stale: arguments.stale.stale,
        ..KvRange::default()
    };
    let Answer { header, value } = space(&arguments.namespace)?.list(range).await?;
    note_stale(arguments.stale.stale, &header);
    if is_json(&arguments.namespace) {
        output::json(&Listed::of(&value, &header, arguments.keys_only));
        return Ok(());
    }
    let rows = value
        .entries
        .iter()
        .map(|entry| row(entry, arguments.keys_only));
    let none = format!("no keys that begin with {:?}", arguments.prefix);
    let mut columns = vec!["KEY", "REVISION", "VERSION", "LEASE", "EXPIRES"];
    columns.extend((!arguments.keys_only).then_some("VALUE"));
    output::table(&columns, rows.collect(), &none);
    if value.more {
        output::note(&format!("{} of {}", value.entries.len(), value.count));
    }
    Ok(())
}

fn row(entry: &KvEntry, keys_only: bool) -> Vec<String> {
    let lease = if entry.lease == 0 {
        "-".to_owned()
    } else {
        entry.lease.to_string()
    };
    let expires = time(entry.expires_at_ms).unwrap_or_else(|| "-".to_owned());
    let numbers = [entry.mod_revision.to_string(), entry.version.to_string()];
    let mut row = vec![shown(&entry.key)];
    row.extend(numbers);
    row.extend([lease, expires]);
    row.extend((!keys_only).then(|| shortened(&entry.value)));
    row
}

/// On one line, whatever it is.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).escape_debug().to_string()
}

fn shortened(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let short: String = text.chars().take(VALUE_SHOWN_MAX).collect();
    let rest = if short.len() < text.len() { "…" } else { "" };
    short.escape_debug().to_string() + rest
}

fn note_stale(asked: bool, header: &KvHeader) {
    if asked {
        output::note(&format!(
            "as member {} has it, at most {} ms stale",
            header.member, header.stale_ms
        ));
    }
}

pub(super) async fn delete(arguments: &DeleteArgs) -> Result<(), Error> {
    let space = space(&arguments.namespace)?;
    let keys = if arguments.prefix {
        keys::prefix(arguments.key.clone())
    } else {
        keys::one(arguments.key.clone())
    };
    let (header, deleted) = match arguments.if_revision {
        None => {
            let answer = acknowledged(&arguments.namespace, space.delete(keys).await)?;
            (answer.header, answer.value)
        }
        Some(revision) => {
            let change = Kind::Delete(KvDelete { keys: Some(keys) });
            let namespace = &arguments.namespace;
            let (header, done) =
                conditionally(namespace, &space, &arguments.key, revision, change).await?;
            let deleted = match done {
                Some(Done::Delete(result)) => result.deleted,
                _ => 0,
            };
            (header, deleted)
        }
    };
    let mut written = Written::at(header.revision);
    written.deleted = Some(deleted);
    let text = || format!("{deleted} deleted at revision {}", header.revision);
    print(&arguments.namespace, &written, text);
    if deleted == 0 {
        let what = if arguments.prefix {
            "key that begins with "
        } else {
            ""
        };
        return Err(Error::Kv(format!("there is no {what}{}", arguments.key)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_stays_on_one_line() {
        let entry = KvEntry {
            key: Bytes::from_static(b"a\nb"),
            value: vec![b'x'; 100].into(),
            ..KvEntry::default()
        };
        let row = row(&entry, false);
        assert_eq!(row[0], "a\\nb");
        assert_eq!(row[5].chars().count(), VALUE_SHOWN_MAX + 1);
        assert_eq!(super::row(&entry, true).len(), 5);
    }
}
