//! `flott bench`.

use flott_node::SystemClock;

use super::check_namespace;
use crate::args::{BenchCommand, MetadataArgs, OutputFormat};
use crate::bench::figures::Report;
use crate::bench::load::{Load, Operation};
use crate::bench::metadata::Target;
use crate::kv::SessionOptions;
use crate::{Error, output};

pub(crate) async fn run(command: &BenchCommand) -> Result<(), Error> {
    match command {
        BenchCommand::Metadata(arguments) => metadata(arguments).await,
    }
}

async fn metadata(arguments: &MetadataArgs) -> Result<(), Error> {
    check_namespace(&arguments.namespace)?;
    let cluster = &arguments.namespace.cluster;
    let members = cluster.jobmanager.iter();
    let target = Target {
        members: members.map(|member| member.trim().to_owned()).collect(),
        namespace: arguments.namespace.namespace.clone(),
        options: SessionOptions {
            patience: cluster.timeout,
            transport: super::transport(&cluster.security)?,
            cluster: cluster.cluster_id.clone().into(),
            ..SessionOptions::default()
        },
        sessions: arguments.sessions,
        request_ids: arguments.request_ids,
    };
    let clock = SystemClock::shared();
    let operation = if arguments.read {
        Operation::Read
    } else {
        Operation::Write
    };
    let mut figures = Vec::new();
    for bytes in &arguments.value {
        for in_flight in &arguments.in_flight {
            if output::is_watched() {
                output::live(&format!("{bytes} B, {in_flight} in flight …"));
            }
            let (warmup, measured) = (arguments.warmup, arguments.seconds);
            let load = Load::new(operation, *bytes as usize, warmup, measured);
            figures.push(target.measure(&load, *in_flight, &clock).await?);
        }
    }
    if output::is_watched() {
        output::live("");
    }
    let report = Report {
        system: "flott".to_owned(),
        figures,
    };
    match cluster.output {
        OutputFormat::Json => output::line(&report.json()),
        OutputFormat::Table => output::line(&report.table()),
    }
    target.clean_up(&clock).await?;
    report
        .failures()
        .iter()
        .for_each(|failure| output::note(failure));
    match report.figures.iter().map(|figures| figures.failed()).sum() {
        0 => Ok(()),
        failed => Err(Error::Bench(format!("{failed} requests failed"))),
    }
}
