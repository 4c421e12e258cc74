//! `flott kv`: the key-value space from a shell.
//!
//! - [`entries`]: put, get, list, delete. [`txn`]: a JSON document to a transaction. [`watch`]: changes as lines.
//!   [`lease`]: leases. [`shapes`]: what `-o json` prints.
//!
//! What must stay true: of a write that was not acknowledged it is said whether it was not applied or may have been.

mod entries;
mod lease;
mod shapes;
mod txn;
mod watch;

use flott_node::{SystemClock, Tasks};
use serde::Serialize;

use super::check_namespace;
use crate::args::kv::KvCommand;
use crate::args::{NamespaceArgs, OutputFormat};
use crate::kv::{Answer, KvError, Outcome, Session, SessionOptions, Space};
use crate::{Error, output};
use shapes::Unacknowledged;

pub(crate) async fn run(command: &KvCommand) -> Result<(), Error> {
    match command {
        KvCommand::Put(arguments) => entries::put(arguments).await,
        KvCommand::Get(arguments) => entries::get(arguments).await,
        KvCommand::List(arguments) => entries::list(arguments).await,
        KvCommand::Delete(arguments) => entries::delete(arguments).await,
        KvCommand::Watch(arguments) => watch::run(arguments).await,
        KvCommand::Txn(arguments) => txn::run(arguments).await,
        KvCommand::Lease(command) => lease::run(command).await,
    }
}

/// The namespace that the arguments name, of the cluster that they name.
fn space(arguments: &NamespaceArgs) -> Result<Space, Error> {
    check_namespace(arguments)?;
    let members = arguments.cluster.jobmanager.iter();
    let members = members.map(|member| member.trim().to_owned()).collect();
    let options = SessionOptions {
        patience: arguments.cluster.timeout,
        transport: super::transport(&arguments.cluster.security)?,
        cluster: arguments.cluster.cluster_id.clone().into(),
        ..SessionOptions::default()
    };
    let session = Session::new(members, options, SystemClock::shared(), &Tasks::default())?;
    Ok(session.space(&arguments.namespace))
}

fn is_json(arguments: &NamespaceArgs) -> bool {
    arguments.cluster.output == OutputFormat::Json
}

/// The answer to a write. Without one, what became of it is part of the result.
fn acknowledged<T>(
    arguments: &NamespaceArgs,
    written: Result<Answer<T>, KvError>,
) -> Result<Answer<T>, Error> {
    written.map_err(|error| {
        if is_json(arguments) {
            let outcome = match error.outcome() {
                Outcome::NotApplied => "not_applied",
                Outcome::Unknown => "unknown",
            };
            let error = error.to_string();
            output::json(&Unacknowledged { outcome, error });
        }
        Error::Unacknowledged(error)
    })
}

fn print(arguments: &NamespaceArgs, json: &impl Serialize, text: impl FnOnce() -> String) {
    if is_json(arguments) {
        output::json(json);
    } else {
        output::line(&text());
    }
}
