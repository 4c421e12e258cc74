//! `chaos`: breaks clusters of real processes, and groups of JobManagers in rooms of their own, and says what held.
//!
//! Exit codes: 0 everything held, 1 something did not, 2 too little was tried to tell, 4 this machine cannot run it.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, Subcommand};
use flott_chaos_tests::campaign::arguments::{ReplayArgs, RunArgs};
use flott_chaos_tests::campaign::hosts::{HostsCommand, hosts};
use flott_chaos_tests::campaign::place::CannotRun;
use flott_chaos_tests::campaign::{again, command, figures, watchdog};
use flott_chaos_tests::cluster::network::Network;
use flott_chaos_tests::cluster::{flott_binary, room};
use flott_chaos_tests::report::{Verdict, exit_code};
use flott_chaos_tests::runs::command::{
    FailoverArgs, LinearizabilityArgs, ManyJobsArgs, Place, PowerLossArgs, many_jobs,
};
use flott_node::SystemClock;
use tempfile::TempDir;

/// Breaks clusters, and says what held.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Said by this program to itself, inside of a room
    #[arg(long, hide = true, global = true)]
    in_room: bool,
    /// Where runs keep their files; those of a run that went wrong stay [default: a new temporary directory]
    #[arg(long, global = true)]
    directory: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Registers under kills, pauses and partitions; every history is checked
    Linearizability(LinearizabilityArgs),
    /// How long the loss of a leader is felt
    Failover(FailoverArgs),
    /// Power cuts under load; everything acknowledged is read back
    PowerLoss(PowerLossArgs),
    /// What many jobs cost: failover, memory and processor time, beside a few
    ManyJobs(ManyJobsArgs),
    /// A cluster, several workloads and many kinds of faults at once, all of it from a seed
    Run(RunArgs),
    /// Carries a plan.json out again
    Replay(ReplayArgs),
    /// Runs smaller plans for as long as they fail, and prints the smallest
    Shrink(ReplayArgs),
    /// Files for `run --hosts`: prints a first one, and checks one
    #[command(subcommand)]
    Hosts(HostsCommand),
    /// Undoes what a run that died has left
    Heal {
        /// The directory of the run, or its undo.jsonl
        run: PathBuf,
    },
    /// Adds up the report.json of many runs
    Report {
        /// Directories of runs, or of directories of them
        #[arg(required = true)]
        runs: Vec<PathBuf>,
    },
    /// Judges a history.jsonl, or the directory of a run, again
    Check {
        /// The file or directory
        history: PathBuf,
    },
    /// Makes the timeline.html of a run again
    Timeline {
        /// The directory of the run
        run: PathBuf,
    },
    /// Said by this program to itself: undoes faults when the harness does not
    #[command(hide = true)]
    Watchdog {
        /// What to undo
        journal: PathBuf,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let code = match run(arguments).await {
        Ok(code) => code,
        Err(error) if error.is::<CannotRun>() => {
            say(&format!("SKIPPED, nothing was tested: {error}"));
            exit_code::SKIPPED
        }
        Err(error) => {
            say(&format!("chaos: {error:#}"));
            1
        }
    };
    ExitCode::from(code)
}

async fn run(arguments: Arguments) -> anyhow::Result<u8> {
    if let Some(code) = without_room(&arguments).await? {
        return Ok(code);
    }
    if let Command::ManyJobs(many) = &arguments.command {
        return many_jobs(many, arguments.directory, &say).await;
    }
    if !arguments.in_room {
        return outside(arguments.directory).await;
    }
    room::furnish().await?;
    let directory = arguments.directory.context("chaos names it to itself")?;
    let clock = SystemClock::shared();
    let place = Place {
        network: Arc::new(Network::lay(5).await?),
        directory,
        clock,
        say: &say,
    };
    match arguments.command {
        Command::Linearizability(arguments) => place.linearizability(&arguments).await,
        Command::Failover(arguments) => place.failover(&arguments).await,
        Command::PowerLoss(arguments) => place.power_loss(&arguments).await,
        _ => unreachable!("needs no room"),
    }
}

/// Commands that take place on the machine itself.
async fn without_room(arguments: &Arguments) -> anyhow::Result<Option<u8>> {
    let clock = SystemClock::shared();
    let verdict = match &arguments.command {
        Command::Check { history } => again::check(history, &say)?,
        Command::Timeline { run } => {
            command::timeline(run, &say)?;
            return Ok(Some(0));
        }
        Command::Heal { run } => {
            command::heal(run, &say).await?;
            return Ok(Some(0));
        }
        Command::Report { runs } => {
            say(&figures::report(runs)?);
            return Ok(Some(0));
        }
        Command::Hosts(command) => {
            let are_fit = hosts(command, &say).await?;
            return Ok(Some(if are_fit { 0 } else { exit_code::SKIPPED }));
        }
        Command::Watchdog { journal } => {
            watchdog::watch(journal, &clock).await?;
            return Ok(Some(0));
        }
        Command::Run(run) => {
            let (directory, held) = kept_directory(arguments.directory.as_deref())?;
            let verdict = command::run(run, &directory, &clock, &say).await?;
            drop(
                held.filter(|_| verdict == Verdict::Held && !run.keep)
                    .map(TempDir::close),
            );
            return Ok(Some(verdict.exit_code()));
        }
        Command::Replay(replay) => {
            let (directory, held) = kept_directory(arguments.directory.as_deref())?;
            let verdict = command::replay(replay, &directory, &clock, &say).await?;
            drop(
                held.filter(|_| verdict == Verdict::Held && !replay.keep)
                    .map(TempDir::close),
            );
            return Ok(Some(verdict.exit_code()));
        }
        Command::Shrink(replay) => {
            let (directory, _held) = kept_directory(arguments.directory.as_deref())?;
            command::shrink(replay, &directory, &clock, &say).await?
        }
        _ => return Ok(None),
    };
    say(&verdict.to_string());
    Ok(Some(verdict.exit_code()))
}

/// The directory that was named, or a temporary one, which stays unless it is closed.
fn kept_directory(named: Option<&Path>) -> anyhow::Result<(PathBuf, Option<TempDir>)> {
    if let Some(named) = named {
        std::fs::create_dir_all(named)?;
        return Ok((named.canonicalize()?, None));
    }
    let mut temporary = tempfile::Builder::new().prefix("flott-chaos-").tempdir()?;
    temporary.disable_cleanup(true);
    Ok((temporary.path().to_owned(), Some(temporary)))
}

/// Makes a room and runs this command in it.
async fn outside(directory: Option<PathBuf>) -> anyhow::Result<u8> {
    flott_binary()?;
    if let Some(missing) = room::missing().await {
        say(&format!("SKIPPED, nothing was tested: {missing}"));
        return Ok(exit_code::SKIPPED);
    }
    let temporary = match directory {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("flott-chaos-").tempdir()?),
    };
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(temporary) = &temporary {
        arguments.extend(["--directory".into(), temporary.path().into()]);
    }
    let status = room::run(&arguments).await?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    let code = code.with_context(|| format!("the room ended with {status}"))?;
    if code == 1
        && let Some(temporary) = temporary
    {
        let kept = temporary.keep();
        say(&format!(
            "logs and histories are kept in {}",
            kept.display()
        ));
    }
    Ok(code)
}

/// To standard output, as a person or a test's log reads it.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody listens any more: there is nobody to tell.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
