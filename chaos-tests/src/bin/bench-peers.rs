//! Drives other coordination stores with the load of `flott bench metadata`, and compares. `make bench-metadata` runs it.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program's output"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use flott_chaos_tests::peers::SESSIONS_MAX;
use flott_chaos_tests::peers::compare::{Comparison, Memory, compare};
use flott_chaos_tests::peers::etcd::Etcd;
use flott_chaos_tests::peers::zookeeper::ZooKeeper;
use flott_cli::bench::figures::{Figures, Report};
use flott_cli::bench::load::{Load, Operation};
use flott_node::SystemClock;

/// The load of `flott bench metadata` for etcd and ZooKeeper
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure etcd; a JSON report
    Etcd(LoadArgs),
    /// Measure ZooKeeper; a JSON report
    Zookeeper(LoadArgs),
    /// Wait until etcd serves at all of its servers
    WaitEtcd(WaitArgs),
    /// Wait until ZooKeeper serves at all of its servers
    WaitZookeeper(WaitArgs),
    /// Put reports together: a table, and JSON into a file
    Compare {
        /// Reports of this program and of `flott bench metadata -o json`; the system's name is that of the file up to its
        /// first dash, as in etcd-1-write.json
        #[arg(required = true)]
        reports: Vec<PathBuf>,
        /// SYSTEM=MIB,MIB,… of its nodes (repeatable)
        #[arg(long, value_parser = memory)]
        memory: Vec<Memory>,
        /// Where to write the JSON
        #[arg(long)]
        json: PathBuf,
    },
}

#[derive(Debug, Args)]
struct LoadArgs {
    /// All servers
    #[arg(long, value_delimiter = ',', required = true)]
    servers: Vec<String>,
    #[arg(long, default_value = "1,16,64,256", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..))]
    in_flight: Vec<u64>,
    #[arg(long, default_value = "256,4096", value_delimiter = ',')]
    value: Vec<usize>,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    #[arg(long, default_value_t = 1.5)]
    warmup: f64,
    /// Read instead of write
    #[arg(long)]
    read: bool,
    /// Connections that share a load, at most
    #[arg(long, default_value_t = SESSIONS_MAX, value_parser = clap::value_parser!(u64).range(1..))]
    sessions: u64,
}

#[derive(Debug, Args)]
struct WaitArgs {
    /// All servers
    #[arg(long, value_delimiter = ',', required = true)]
    servers: Vec<String>,
    /// How long, at most
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

fn memory(text: &str) -> anyhow::Result<Memory> {
    let (system, nodes) = text.split_once('=').context("expected SYSTEM=MIB,MIB,…")?;
    let nodes: Result<_, _> = nodes.split(',').map(str::parse).collect();
    let system = system.to_owned();
    let nodes_mib = nodes.context("expected numbers of MiB")?;
    Ok(Memory { system, nodes_mib })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    let clock = SystemClock::shared();
    match command {
        Command::Etcd(arguments) => {
            let etcd = Etcd::find(&arguments.servers).await?;
            let measure = async |load: &Load, in_flight| {
                etcd.measure(load, in_flight, arguments.sessions, &clock)
                    .await
            };
            report(&arguments, etcd.name(), measure).await
        }
        Command::Zookeeper(arguments) => {
            let zookeeper = ZooKeeper::find(&arguments.servers).await?;
            let measure = async |load: &Load, in_flight| {
                zookeeper
                    .measure(load, in_flight, arguments.sessions, &clock)
                    .await
            };
            report(&arguments, zookeeper.name(), measure).await
        }
        Command::WaitEtcd(wait) => {
            let limit = Duration::from_secs(wait.seconds);
            Etcd::wait_ready(&wait.servers, limit, &clock).await
        }
        Command::WaitZookeeper(wait) => {
            let limit = Duration::from_secs(wait.seconds);
            ZooKeeper::wait_ready(&wait.servers, limit, &clock).await
        }
        Command::Compare {
            reports,
            memory,
            json,
        } => compare_files(&reports, memory, &json),
    }
}

async fn report(
    arguments: &LoadArgs,
    system: String,
    measure: impl AsyncFn(&Load, u64) -> anyhow::Result<Figures>,
) -> anyhow::Result<()> {
    let operation = match arguments.read {
        true => Operation::Read,
        false => Operation::Write,
    };
    let warmup = Duration::try_from_secs_f64(arguments.warmup)?;
    let measured = Duration::try_from_secs_f64(arguments.seconds)?;
    let mut figures = Vec::new();
    for bytes in &arguments.value {
        for in_flight in &arguments.in_flight {
            let load = Load::new(operation, *bytes, warmup, measured);
            figures.push(measure(&load, *in_flight).await?);
        }
    }
    println!("{}", Report { system, figures }.json());
    Ok(())
}

fn compare_files(reports: &[PathBuf], memory: Vec<Memory>, json: &Path) -> anyhow::Result<()> {
    let reports: anyhow::Result<Vec<_>> = reports.iter().map(|path| read(path)).collect();
    let comparison = Comparison {
        rows: compare(&reports?),
        memory,
    };
    let text = serde_json::to_string_pretty(&comparison)? + "\n";
    std::fs::write(json, text).with_context(|| format!("cannot write {}", json.display()))?;
    print!("{}", comparison.table());
    Ok(())
}

/// A report, under the name that its file has.
fn read(path: &Path) -> anyhow::Result<Report> {
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    let report: Report =
        serde_json::from_str(&text).with_context(|| format!("in {}", path.display()))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let system = name.split('-').next().unwrap_or_default().to_owned();
    Ok(Report { system, ..report })
}
