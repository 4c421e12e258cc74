//! `flott namespace create|list|describe|update|delete`.

use std::io::{BufRead, IsTerminal, Write};

use flott_proto::ids::Namespace;
use flott_proto::wire::{NamespaceInfo, NamespaceQuota};

use super::{connect, overrides};
use crate::args::namespace::{CreateArgs, DeleteArgs, NameArgs, NamespaceCommand, QuotaArgs};
use crate::args::{ClusterArgs, OutputFormat};
use crate::client::Client;
use crate::shapes::namespace::{NamespaceList, NamespaceRef, NamespaceShape};
use crate::{Error, output};

pub(crate) async fn run(command: &NamespaceCommand) -> Result<(), Error> {
    match command {
        NamespaceCommand::Create(arguments) => create(arguments).await,
        NamespaceCommand::List(arguments) => list(arguments).await,
        NamespaceCommand::Describe(arguments) => describe(arguments).await,
        NamespaceCommand::Update(arguments) => update(arguments).await,
        NamespaceCommand::Delete(arguments) => delete(arguments).await,
    }
}

async fn create(arguments: &CreateArgs) -> Result<(), Error> {
    let client = reach(&arguments.name)?;
    let name = &arguments.name.name;
    let quota = overlaid(NamespaceQuota::default(), arguments.quota);
    client.create_namespace(name, quota).await?;
    done(
        &arguments.name,
        "ACTIVE",
        &format!("Namespace {name} made."),
    );
    Ok(())
}

async fn list(arguments: &ClusterArgs) -> Result<(), Error> {
    overrides(&arguments.overrides)?;
    let namespaces = connect(arguments)?.namespaces().await?;
    match arguments.output {
        OutputFormat::Json => output::json(&NamespaceList::from(namespaces)),
        OutputFormat::Table => print(namespaces),
    }
    Ok(())
}

async fn describe(arguments: &NameArgs) -> Result<(), Error> {
    let info = reach(arguments)?.namespace(&arguments.name).await?;
    match arguments.cluster.output {
        OutputFormat::Json => output::json(&NamespaceShape::from(info)),
        OutputFormat::Table => print(vec![info]),
    }
    Ok(())
}

async fn update(arguments: &CreateArgs) -> Result<(), Error> {
    let none = QuotaArgs {
        max_jobs: None,
        max_slots: None,
        max_kv_bytes: None,
        max_checkpoint_bytes: None,
    };
    if arguments.quota == none {
        return Err(Error::Usage(
            "nothing to change: give --max-jobs, --max-slots, --max-kv-bytes or --max-checkpoint-bytes"
                .to_owned(),
        ));
    }
    let client = reach(&arguments.name)?;
    let name = &arguments.name.name;
    let present = client.namespace(name).await?.quota.unwrap_or_default();
    let quota = overlaid(present, arguments.quota);
    client.update_namespace(name, quota).await?;
    let text = format!("Quota of namespace {name} changed.");
    done(&arguments.name, "ACTIVE", &text);
    Ok(())
}

async fn delete(arguments: &DeleteArgs) -> Result<(), Error> {
    let client = reach(&arguments.name)?;
    let name = &arguments.name.name;
    if !arguments.yes {
        confirm(&client, name).await?;
    }
    client.delete_namespace(name).await?;
    let text = format!("Deletion of namespace {name} has begun.");
    done(&arguments.name, "DELETING", &text);
    output::note(&format!(
        "its jobs are being cancelled and everything in it is deleted; `flott namespace describe {name}` shows what is \
         left. Savepoints stay where they are, with the files that they need."
    ));
    Ok(())
}

/// Has a person type the name, knowing what would go.
async fn confirm(client: &Client, name: &str) -> Result<(), Error> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::Usage(format!(
            "this deletes namespace {name} and all that is in it; say --yes if that is meant"
        )));
    }
    let used = client.namespace(name).await?.used.unwrap_or_default();
    output::note(&format!(
        "This cancels {} jobs and deletes {} bytes of checkpoints and {} bytes of keys and values for ever. Savepoints \
         stay. Type the name of the namespace to go on:",
        used.jobs, used.checkpoint_bytes, used.kv_bytes
    ));
    let cannot_read = Error::file("cannot read", "standard input");
    let _ = std::io::stderr().flush();
    let mut typed = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut typed)
        .map_err(cannot_read)?;
    if typed.trim() == name {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{:?} is not {name}; nothing was deleted",
        typed.trim()
    )))
}

/// A client, after a look at what was given.
fn reach(arguments: &NameArgs) -> Result<Client, Error> {
    overrides(&arguments.cluster.overrides)?;
    let name = arguments.name.parse::<Namespace>();
    name.map_err(|error| Error::Usage(error.to_string()))?;
    connect(&arguments.cluster)
}

/// The quota with what the flags say instead.
fn overlaid(quota: NamespaceQuota, flags: QuotaArgs) -> NamespaceQuota {
    NamespaceQuota {
        jobs: flags.max_jobs.unwrap_or(quota.jobs),
        slots: flags.max_slots.unwrap_or(quota.slots),
        kv_bytes: flags.max_kv_bytes.unwrap_or(quota.kv_bytes),
        checkpoint_bytes: flags.max_checkpoint_bytes.unwrap_or(quota.checkpoint_bytes),
    }
}

fn done(arguments: &NameArgs, state: &str, text: &str) {
    match arguments.cluster.output {
        OutputFormat::Json => output::json(&NamespaceRef {
            name: arguments.name.clone(),
            state: state.to_owned(),
        }),
        OutputFormat::Table => output::line(text),
    }
}

/// What is used of what there may be.
fn print(namespaces: Vec<NamespaceInfo>) {
    let of = |used: u64, quota: u64| match quota {
        0 => used.to_string(),
        quota => format!("{used}/{quota}"),
    };
    let row = |info: NamespaceInfo| {
        let (used, quota) = (
            info.used.unwrap_or_default(),
            info.quota.unwrap_or_default(),
        );
        vec![
            info.name,
            info.state,
            of(used.jobs.into(), quota.jobs.into()),
            of(used.slots.into(), quota.slots.into()),
            of(used.kv_bytes, quota.kv_bytes),
            of(used.checkpoint_bytes, quota.checkpoint_bytes),
        ]
    };
    let header = [
        "NAMESPACE",
        "STATE",
        "JOBS",
        "SLOTS",
        "KV BYTES",
        "CHECKPOINT BYTES",
    ];
    let rows = namespaces.into_iter().map(row).collect();
    output::table(&header, rows, "no namespaces");
}
