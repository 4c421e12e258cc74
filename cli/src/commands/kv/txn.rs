//! `flott kv txn`: a transaction from a JSON document. The document is described in the command's help.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use flott_node::config::ConfigValue;
use flott_proto::wire::kv_compare::{Relation, Target};
use flott_proto::wire::kv_operation::Kind;
use flott_proto::wire::kv_operation_result::Kind as Done;
use flott_proto::wire::{
    KvCompare, KvDelete, KvKeys, KvOperation, KvOperationResult, KvPut, KvRange, KvTxn, KvTxnResult,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::shapes::{Entry, bytes};
use super::{acknowledged, print, space};
use crate::Error;
use crate::args::kv::TxnArgs;
use crate::kv::keys;

pub(super) async fn run(arguments: &TxnArgs) -> Result<(), Error> {
    let text = read(&arguments.file)?;
    let wrong = |error| Error::Usage(format!("{}: {error}", arguments.file.display()));
    let txn = parse(&text).map_err(wrong)?;
    let keys_only = [keys_only(&txn.failure), keys_only(&txn.success)];
    let answer = acknowledged(
        &arguments.namespace,
        space(&arguments.namespace)?.txn(txn).await,
    )?;
    let succeeded = answer.value.succeeded;
    let shape = Outcome {
        outcome: "applied",
        succeeded,
        revision: answer.header.revision,
        results: results(&answer.value, &keys_only[usize::from(succeeded)]),
    };
    print(&arguments.namespace, &shape, || shape.text());
    if succeeded {
        return Ok(());
    }
    let text = "a comparison did not hold; `failure` was carried out";
    Err(Error::Kv(text.to_owned()))
}

fn read(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.map_err(Error::file("cannot read", path))?;
    Ok(text)
}

#[derive(Debug, Serialize)]
struct Outcome {
    outcome: &'static str,
    /// Whether all comparisons held.
    succeeded: bool,
    revision: u64,
    results: Vec<Value>,
}

impl Outcome {
    fn text(&self) -> String {
        let branch = if self.succeeded { "success" } else { "failure" };
        let mut text = format!("`{branch}` carried out at revision {}", self.revision);
        for result in &self.results {
            text.push_str(&format!("\n{result}"));
        }
        text
    }
}

fn keys_only(operations: &[KvOperation]) -> Vec<bool> {
    let keys_only = |operation: &KvOperation| matches!(&operation.kind, Some(Kind::Range(range)) if range.keys_only);
    operations.iter().map(keys_only).collect()
}

fn results(result: &KvTxnResult, keys_only: &[bool]) -> Vec<Value> {
    let one = |(index, result): (usize, &KvOperationResult)| match &result.kind {
        Some(Done::Put(_)) => json!({ "put": true }),
        Some(Done::Delete(result)) => json!({ "deleted": result.deleted }),
        Some(Done::Range(range)) => {
            let keys_only = keys_only.get(index).copied().unwrap_or(false);
            let entries = range
                .entries
                .iter()
                .map(|entry| Entry::of(entry, keys_only));
            json!({ "entries": entries.collect::<Vec<_>>(), "more": range.more })
        }
        None => json!({}),
    };
    result.results.iter().enumerate().map(one).collect()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    compare: Vec<Compare>,
    #[serde(default)]
    success: Vec<Operation>,
    #[serde(default)]
    failure: Vec<Operation>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Compare {
    key: Option<String>,
    key_base64: Option<String>,
    is: Option<Is>,
    revision: Option<u64>,
    create_revision: Option<u64>,
    version: Option<u64>,
    value: Option<String>,
    value_base64: Option<String>,
    lease: Option<u64>,
    absent: Option<bool>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Is {
    #[serde(rename = "=")]
    Equal,
    #[serde(rename = "!=")]
    NotEqual,
    #[serde(rename = "<")]
    Less,
    #[serde(rename = ">")]
    Greater,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Operation {
    Put(Put),
    Delete(Select),
    Get(Select),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Put {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    lease: Option<u64>,
    ttl: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Select {
    key: Option<String>,
    key_base64: Option<String>,
    prefix: Option<String>,
    prefix_base64: Option<String>,
    limit: Option<u32>,
    keys_only: Option<bool>,
}

fn parse(text: &str) -> Result<KvTxn, String> {
    let document: Document = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let operations = |which: &str, operations: Vec<Operation>| {
        let numbered = operations.into_iter().enumerate();
        let one = |(index, operation)| {
            let kind = kind(operation).map_err(|error| format!("{which}[{index}]: {error}"))?;
            Ok(KvOperation { kind: Some(kind) })
        };
        numbered.map(one).collect::<Result<Vec<_>, String>>()
    };
    let numbered = document.compare.into_iter().enumerate();
    let one = |(index, each)| compare(each).map_err(|error| format!("compare[{index}]: {error}"));
    Ok(KvTxn {
        compare: numbered.map(one).collect::<Result<_, _>>()?,
        success: operations("success", document.success)?,
        failure: operations("failure", document.failure)?,
    })
}

fn compare(compare: Compare) -> Result<KvCompare, String> {
    let key = bytes("key", compare.key, compare.key_base64)?.ok_or("`key` is missing")?;
    let mut relation = match compare.is.unwrap_or(Is::Equal) {
        Is::Equal => Relation::Equal,
        Is::NotEqual => Relation::NotEqual,
        Is::Less => Relation::Less,
        Is::Greater => Relation::Greater,
    };
    let absent = match compare.absent {
        Some(_) if compare.is.is_some() => return Err("`absent` goes without `is`".to_owned()),
        Some(absent) => {
            relation = if absent {
                Relation::Equal
            } else {
                Relation::NotEqual
            };
            Some(Target::ModRevision(0))
        }
        None => None,
    };
    let value = bytes("value", compare.value, compare.value_base64)?;
    let targets = [
        absent,
        compare.revision.map(Target::ModRevision),
        compare.create_revision.map(Target::CreateRevision),
        compare.version.map(Target::Version),
        value.map(Target::Value),
        compare.lease.map(Target::Lease),
    ];
    let mut targets = targets.into_iter().flatten();
    let (Some(target), None) = (targets.next(), targets.next()) else {
        return Err(
            "one of `revision`, `create_revision`, `version`, `value`, `lease`, `absent`"
                .to_owned(),
        );
    };
    Ok(KvCompare {
        key,
        relation: relation.into(),
        target: Some(target),
    })
}

fn kind(operation: Operation) -> Result<Kind, String> {
    match operation {
        Operation::Put(put) => {
            let ttl = match &put.ttl {
                Some(text) => <Duration as ConfigValue>::parse(text)
                    .ok_or_else(|| format!("`ttl` {text:?}: expected {}", Duration::EXPECTED))?,
                None => Duration::ZERO,
            };
            Ok(Kind::Put(KvPut {
                key: bytes("key", put.key, put.key_base64)?.ok_or("`key` is missing")?,
                value: bytes("value", put.value, put.value_base64)?.ok_or("`value` is missing")?,
                lease: put.lease.unwrap_or(0),
                ttl_ms: ttl.as_millis() as u64,
            }))
        }
        Operation::Delete(select) if select.limit.is_some() || select.keys_only.is_some() => {
            Err("`limit` and `keys_only` go with `get` only".to_owned())
        }
        Operation::Delete(select) => {
            let keys = Some(selected(select)?);
            Ok(Kind::Delete(KvDelete { keys }))
        }
        Operation::Get(select) => Ok(Kind::Range(KvRange {
            limit: select.limit.unwrap_or(0),
            keys_only: select.keys_only.unwrap_or(false),
            keys: Some(selected(select)?),
            ..KvRange::default()
        })),
    }
}

fn selected(select: Select) -> Result<KvKeys, String> {
    let key = bytes("key", select.key, select.key_base64)?;
    let prefix = bytes("prefix", select.prefix, select.prefix_base64)?;
    match (key, prefix) {
        (Some(key), None) => Ok(keys::one(key)),
        (None, Some(prefix)) => Ok(keys::prefix(prefix)),
        _ => Err("either `key` or `prefix`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_of_the_help_is_understood() {
        let txn = parse(
            r#"{
              "compare": [
                {"key": "config", "revision": 17}, {"key": "lock", "absent": true},
                {"key": "config", "version": 3, "is": ">"}, {"key": "owner", "value": "me"}
              ],
              "success": [
                {"put": {"key": "config", "value": "new", "ttl": "1 min"}},
                {"delete": {"key": "old"}}, {"delete": {"prefix": "old/"}},
                {"get": {"key": "owner"}}, {"get": {"prefix": "members/", "limit": 10, "keys_only": true}}
              ],
              "failure": [{"get": {"key": "config"}}]
            }"#,
        )
        .unwrap();
        let compared: Vec<_> = txn
            .compare
            .iter()
            .map(|each| (each.relation(), each.target.clone()))
            .collect();
        assert_eq!(
            compared[0],
            (Relation::Equal, Some(Target::ModRevision(17)))
        );
        assert_eq!(compared[1], (Relation::Equal, Some(Target::ModRevision(0))));
        assert_eq!(compared[2], (Relation::Greater, Some(Target::Version(3))));
        assert_eq!(
            compared[3],
            (Relation::Equal, Some(Target::Value("me".into())))
        );
        let Some(Kind::Put(put)) = &txn.success[0].kind else {
            panic!("not put")
        };
        assert_eq!((put.ttl_ms, &put.value[..]), (60_000, &b"new"[..]));
        let Some(Kind::Delete(delete)) = &txn.success[2].kind else {
            panic!("not delete")
        };
        assert_eq!(delete.keys, Some(keys::prefix("old/")));
        let Some(Kind::Range(range)) = &txn.success[4].kind else {
            panic!("not get")
        };
        assert_eq!((range.limit, range.keys_only), (10, true));
        assert_eq!(keys_only(&txn.success), [false, false, false, false, true]);
        assert_eq!(txn.failure.len(), 1);
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        for (text, says) in [
            ("{", "EOF"),
            (r#"{"sucess": []}"#, "sucess"),
            (r#"{"compare": [{"key": "k"}]}"#, "compare[0]: one of"),
            (
                r#"{"compare": [{"key": "k", "version": 1, "lease": 2}]}"#,
                "compare[0]: one of",
            ),
            (
                r#"{"compare": [{"revision": 1}]}"#,
                "compare[0]: `key` is missing",
            ),
            (
                r#"{"compare": [{"key": "k", "absent": true, "is": ">"}]}"#,
                "without `is`",
            ),
            (
                r#"{"success": [{"put": {"key": "k"}}]}"#,
                "success[0]: `value` is missing",
            ),
            (
                r#"{"success": [{"put": {"key": "k", "value": "v", "ttl": "soon"}}]}"#,
                "`ttl`",
            ),
            (
                r#"{"success": [{"put": {"key": "k", "key_base64": "aw==", "value": ""}}]}"#,
                "exclude",
            ),
            (
                r#"{"failure": [{"get": {}}]}"#,
                "failure[0]: either `key` or `prefix`",
            ),
            (
                r#"{"failure": [{"delete": {"key": "k", "limit": 1}}]}"#,
                "`get` only",
            ),
            (
                r#"{"failure": [{"get": {"key_base64": "?"}}]}"#,
                "key_base64",
            ),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
