//! `flott checkpoints [list]|verify|gc`.

use std::io::{BufRead, IsTerminal, Write};

use flott_proto::wire;

use super::jobs::find;
use crate::args::checkpoints::{CheckpointsArgs, CheckpointsCommand, GcArgs, VerifyArgs};
use crate::args::{NamespaceArgs, OutputFormat};
use crate::shapes::{Checkpoint, CheckpointList, Orphans, Verified};
use crate::{Error, output};

pub(crate) async fn run(arguments: &CheckpointsArgs) -> Result<(), Error> {
    match &arguments.command {
        Some(CheckpointsCommand::List(job)) => list(&job.namespace, &job.job).await,
        Some(CheckpointsCommand::Verify(arguments)) => verify(arguments).await,
        Some(CheckpointsCommand::Gc(arguments)) => gc(arguments).await,
        None => {
            let job = arguments.job.as_deref().unwrap_or_default();
            list(&arguments.namespace, job).await
        }
    }
}

async fn list(namespace: &NamespaceArgs, job: &str) -> Result<(), Error> {
    let (client, id) = find(namespace, job).await?;
    let checkpoints = client.checkpoints(&namespace.namespace, &id).await?;
    if namespace.cluster.output == OutputFormat::Json {
        output::json(&CheckpointList::from(checkpoints));
        return Ok(());
    }
    let row = |info: wire::CheckpointInfo| {
        let checkpoint = Checkpoint::from(info);
        let place = checkpoint.failure.or(checkpoint.path);
        let numbers = [
            checkpoint.duration_ms,
            checkpoint.size_bytes,
            checkpoint.uploaded_bytes,
        ];
        let mut row = vec![
            checkpoint.id.to_string(),
            checkpoint.kind.to_owned(),
            checkpoint.status,
        ];
        row.push(checkpoint.triggered_at.unwrap_or_default());
        row.extend(numbers.iter().map(u64::to_string));
        row.push(checkpoint.alignment_ms.to_string());
        row.push(if checkpoint.unaligned {
            checkpoint.in_flight_bytes.to_string()
        } else {
            "aligned".to_owned()
        });
        row.push(place.unwrap_or_default());
        row
    };
    let rows = checkpoints.into_iter().map(row).collect();
    let header = [
        "ID",
        "KIND",
        "STATUS",
        "TRIGGERED",
        "MS",
        "BYTES",
        "UPLOADED",
        "ALIGN MS",
        "IN FLIGHT",
        "PATH OR FAILURE",
    ];
    output::table(&header, rows, "no checkpoints yet");
    Ok(())
}

async fn verify(arguments: &VerifyArgs) -> Result<(), Error> {
    let namespace = &arguments.job.namespace;
    let (client, id) = find(namespace, &arguments.job.job).await?;
    let verified = client
        .verify_checkpoints(&namespace.namespace, &id, !arguments.sizes_only)
        .await?;
    let damaged = verified.damaged_count;
    let verified = Verified::from(verified);
    let looked_at = format!(
        "{} files with {} bytes, of {} checkpoints and savepoints",
        verified.files, verified.bytes, verified.checkpoints
    );
    match namespace.cluster.output {
        OutputFormat::Json => output::json(&verified),
        OutputFormat::Table => {
            let rows = verified.damaged.into_iter().map(|file| {
                let checkpoints: Vec<_> = file.checkpoints.iter().map(u64::to_string).collect();
                vec![file.path, checkpoints.join(", "), file.fault]
            });
            let whole = format!("All is whole: {looked_at}.");
            output::table(&["FILE", "NEEDED BY", "FAULT"], rows.collect(), &whole);
        }
    }
    if damaged == 0 {
        return Ok(());
    }
    Err(Error::Damaged(format!(
        "{damaged} missing or damaged, of {looked_at}; a job that has to restart goes on from the newest \
         checkpoint that is whole"
    )))
}

async fn gc(arguments: &GcArgs) -> Result<(), Error> {
    let namespace = &arguments.job.namespace;
    if !arguments.dry_run && !arguments.yes && !std::io::stdin().is_terminal() {
        return Err(Error::Usage(
            "this deletes objects; say --yes if that is meant, or --dry-run to see them".to_owned(),
        ));
    }
    let (client, id) = find(namespace, &arguments.job.job).await?;
    let collect = |delete| client.collect_orphans(&namespace.namespace, &id, delete);
    if !arguments.yes {
        let found = collect(false).await?;
        let none = found.count == 0;
        let question = format!("Delete these {} bytes for ever? [y/N]", found.bytes);
        print(namespace, found, false);
        if arguments.dry_run || none {
            return Ok(());
        }
        if !is_confirmed(&question)? {
            return Err(Error::Refused("nothing was deleted".to_owned()));
        }
    }
    print(namespace, collect(true).await?, true);
    Ok(())
}

fn print(namespace: &NamespaceArgs, orphans: wire::CollectOrphansResponse, deleted: bool) {
    let more = orphans.count - orphans.orphans.len() as u64;
    let orphans = Orphans::new(orphans, deleted);
    match namespace.cluster.output {
        OutputFormat::Json => output::json(&orphans),
        OutputFormat::Table => {
            let row = |orphan: crate::shapes::Orphan| {
                vec![orphan.path, orphan.bytes.to_string(), orphan.reason]
            };
            let rows = orphans.orphans.into_iter().map(row).collect();
            let header = if deleted { "DELETED" } else { "ORPHAN" };
            output::table(&[header, "BYTES", "REASON"], rows, "no orphans");
        }
    }
    if more > 0 {
        output::note(&format!("{more} more are left; run this again"));
    }
}

/// Has a person decide.
fn is_confirmed(question: &str) -> Result<bool, Error> {
    output::note(question);
    let _ = std::io::stderr().flush();
    let mut typed = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut typed)
        .map_err(Error::file("cannot read", "standard input"))?;
    Ok(matches!(typed.trim(), "y" | "Y" | "yes"))
}
