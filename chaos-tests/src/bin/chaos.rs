//! `chaos`: breaks clusters of real processes, and groups of JobManagers in rooms of their own, and says what held.
//!
//! Exit codes: 0 everything held, 1 something did not, 2 too little was tried to tell, 4 this machine cannot run it.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use flott_chaos_tests::campaign::command::{self, ReplayArgs, RunArgs};
use flott_chaos_tests::campaign::place::CannotRun;
use flott_chaos_tests::campaign::{again, figures, undo};
use flott_chaos_tests::cluster::network::Network;
use flott_chaos_tests::cluster::{disks, flott_binary, room};
use flott_chaos_tests::report::{Durations, HistoryReport, HistoryTable, Verdict, exit_code};
use flott_chaos_tests::runs::failover::{self, Loss};
use flott_chaos_tests::runs::linearizability::{self, Course};
use flott_chaos_tests::runs::many_jobs::{self, Size};
use flott_chaos_tests::runs::power_loss::{self, Sync};
use flott_node::{SharedClock, SystemClock};
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

#[derive(Debug, Args)]
struct LinearizabilityArgs {
    /// One history for each seed; with --histories: only the first counts
    #[arg(long, value_delimiter = ',', default_value = "1")]
    seeds: Vec<u64>,
    /// So many histories, with rising seeds
    #[arg(long)]
    histories: Option<u64>,
    /// Size of the group; 0: three, and every fourth history five
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=9))]
    members: u32,
    /// Leave the files of histories that held, too
    #[arg(long)]
    keep: bool,
    /// Seconds of faults in each
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

#[derive(Debug, Args)]
struct FailoverArgs {
    /// SIGKILLs of the leader
    #[arg(long, default_value_t = 50)]
    kills: u32,
    /// SIGSTOPs of the leader, of five seconds
    #[arg(long, default_value_t = 20)]
    pauses: u32,
    /// Planned stops of the leader
    #[arg(long, default_value_t = 20)]
    transfers: u32,
    /// Begins the moments of the faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct PowerLossArgs {
    /// Power cuts
    #[arg(long, default_value_t = 20)]
    cycles: u32,
    /// Begins who is struck, and when
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What fsync does in the members: `ignored` shows that this test can fail
    #[arg(long, value_enum, default_value_t = SyncArg::Works)]
    sync: SyncArg,
}

#[derive(Debug, Args)]
struct ManyJobsArgs {
    /// Jobs, spread over the namespaces
    #[arg(long, default_value_t = 1000)]
    jobs: u32,
    /// Namespaces
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    namespaces: u32,
    /// Jobs of the run that it is compared with, in one namespace
    #[arg(long, default_value_t = 10)]
    few: u32,
    /// SIGKILLs of the leader, in each
    #[arg(long, default_value_t = 5)]
    kills: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SyncArg {
    Works,
    Ignored,
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
        return many_jobs(many, arguments.directory).await;
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
            command::heal(run, &say)?;
            return Ok(Some(0));
        }
        Command::Report { runs } => {
            say(&figures::report(runs)?);
            return Ok(Some(0));
        }
        Command::Watchdog { journal } => {
            undo::watch(journal, &clock).await?;
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

async fn many_jobs(arguments: &ManyJobsArgs, directory: Option<PathBuf>) -> anyhow::Result<u8> {
    let temporary = tempfile::Builder::new().prefix("flott-chaos-").tempdir()?;
    let directory = directory.unwrap_or_else(|| temporary.path().to_owned());
    let clock = SystemClock::shared();
    let mut table = String::from(
        "\n| jobs | namespaces | elected p50 / max ms | adopted p50 / max ms | leader MiB | followers MiB | leader, thousandths of \
         a core | started again |\n|---|---|---|---|---|---|---|---|\n",
    );
    let mut restarted = 0;
    for (jobs, namespaces) in [(arguments.few, 1), (arguments.jobs, arguments.namespaces)] {
        let size = Size { jobs, namespaces };
        let directory = directory.join(format!("{jobs}-jobs"));
        let figures = many_jobs::run(size, arguments.kills, &directory, &clock, say).await?;
        let mib = |bytes: u64| bytes >> 20;
        let times = |durations: &Durations| {
            let ms = |duration: Duration| duration.as_millis();
            format!(
                "{} / {}",
                ms(durations.percentile(50)),
                ms(durations.percentile(100))
            )
        };
        table.push_str(&format!(
            "| {jobs} | {namespaces} | {} | {} | {} | {} | {} | {} |\n",
            times(&figures.elected),
            times(&figures.adopted),
            mib(figures.leader_bytes),
            mib(figures.follower_bytes),
            figures.leader_millicores,
            figures.restarted
        ));
        restarted += figures.restarted;
    }
    say(&table);
    Ok(u8::from(restarted != 0))
}

/// Inside of a room.
struct Place {
    network: Arc<Network>,
    directory: PathBuf,
    clock: SharedClock,
}

impl Place {
    async fn linearizability(&self, arguments: &LinearizabilityArgs) -> anyhow::Result<u8> {
        let seeds: Vec<u64> = match arguments.histories {
            Some(count) => {
                let first = arguments.seeds.first().copied().unwrap_or(1);
                (first..first + count).collect()
            }
            None => arguments.seeds.clone(),
        };
        let mut reports: Vec<HistoryReport> = Vec::new();
        for seed in seeds {
            let members = match arguments.members {
                0 if seed % 4 == 0 => 5,
                0 => 3,
                members => members,
            };
            let course = Course::mixed(seed, members, Duration::from_secs(arguments.seconds));
            let directory = self.directory.join(format!("seed-{seed}"));
            std::fs::create_dir_all(&directory)?;
            let plan = serde_json::to_vec_pretty(&course.plan)?;
            std::fs::write(directory.join("plan.json"), plan)?;
            let begin = self.clock.monotonic();
            let (report, _) =
                linearizability::run(&course, &directory, self.network.clone(), &self.clock)
                    .await?;
            let took = self.clock.monotonic() - begin;
            say(&format!(
                "seed {seed}, {members} members, {:.1} s: {} operations, {} unknown; {}",
                took.as_secs_f64(),
                report.counts.attempted,
                report.counts.unknown,
                report.verdict
            ));
            if report.verdict == Verdict::Held {
                if !arguments.keep {
                    std::fs::remove_dir_all(&directory)?;
                }
            } else {
                say(&format!(
                    "repeat with: chaos linearizability --seeds {seed} --members {members} --seconds {}",
                    arguments.seconds
                ));
            }
            reports.push(report);
        }
        say(&format!("\n{}", HistoryTable(&reports)));
        Ok(worst(reports.iter().map(|report| &report.verdict)))
    }

    async fn failover(&self, arguments: &FailoverArgs) -> anyhow::Result<u8> {
        let mut rows = Vec::new();
        let mut verdicts = Vec::new();
        for (loss, count, name) in [
            (Loss::Kill, arguments.kills, "SIGKILL"),
            (Loss::Stop, arguments.transfers, "SIGTERM, handing over"),
        ] {
            if count == 0 {
                continue;
            }
            let told = |number, took: Duration| {
                say(&format!(
                    "{name} {number}: {:.0} ms",
                    took.as_secs_f64() * 1e3
                ));
            };
            let directory = self.directory.join(format!("{loss:?}"));
            std::fs::create_dir_all(&directory)?;
            let network = self.network.clone();
            let figures = failover::losses(
                loss,
                count,
                arguments.seed,
                &directory,
                network,
                &self.clock,
                told,
            )
            .await?;
            say(&format!(
                "{name}: {} writes acknowledged, {} lost, {} wrong; {}",
                figures.audit.acknowledged,
                figures.audit.lost_count,
                figures.audit.wrong.len(),
                figures.verdict
            ));
            rows.push((name, figures.durations));
            verdicts.push(figures.verdict);
        }
        if arguments.pauses > 0 {
            let directory = self.directory.join("pauses");
            std::fs::create_dir_all(&directory)?;
            let (durations, report) = failover::pauses(
                arguments.pauses,
                arguments.seed,
                &directory,
                self.network.clone(),
                &self.clock,
            )
            .await?;
            say(&format!(
                "SIGSTOP for 5 s: {} operations, {} unknown; {}",
                report.counts.attempted, report.counts.unknown, report.verdict
            ));
            rows.push(("SIGSTOP for 5 s", durations));
            verdicts.push(report.verdict);
        }
        say(&figures_table(&rows));
        Ok(worst(&verdicts))
    }

    async fn power_loss(&self, arguments: &PowerLossArgs) -> anyhow::Result<u8> {
        if let Some(missing) = disks::missing().await {
            say(&format!("SKIPPED, nothing was tested: {missing}"));
            return Ok(exit_code::SKIPPED);
        }
        let sync = match arguments.sync {
            SyncArg::Works => Sync::Works,
            SyncArg::Ignored => Sync::Ignored,
        };
        let outcome = power_loss::run(
            arguments.cycles,
            arguments.seed,
            sync,
            &self.directory,
            self.network.clone(),
            &self.clock,
            |cycle, struck, audit| {
                say(&format!(
                    "cut {cycle} of members {struck:?}: {} writes acknowledged, {} lost",
                    audit.acknowledged, audit.lost_count
                ));
            },
        )
        .await?;
        let [one, two, all] = outcome.cuts;
        say(&format!(
            "power cuts of one member {one}, two {two}, all {all}: {} acknowledged writes, {} lost, {} wrong; {}",
            outcome.audit.acknowledged,
            outcome.audit.lost_count,
            outcome.audit.wrong.len(),
            outcome.verdict
        ));
        Ok(outcome.verdict.exit_code())
    }
}

fn figures_table(rows: &[(&str, Durations)]) -> String {
    let mut table = String::from(
        "\n| the leader is struck by | times | p50 ms | p99 ms | max ms |\n|---|---|---|---|---|\n",
    );
    for (name, durations) in rows {
        table.push_str(&format!("| {name} | {durations} |\n"));
    }
    table
}

fn worst<'a>(verdicts: impl IntoIterator<Item = &'a Verdict>) -> u8 {
    let codes = verdicts.into_iter().map(Verdict::exit_code);
    // A violation outweighs a doubt.
    codes
        .min_by_key(|code| (*code != 1, *code == 0))
        .unwrap_or(0)
}

/// To standard output, as a person or a test's log reads it.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody listens any more: there is nobody to tell.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
