//! The verbs of `chaos` that concern groups of JobManagers alone: `linearizability`, `failover`, `power-loss`, and `many-jobs`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use flott_node::{SharedClock, SystemClock};

use super::failover::{self, Loss};
use super::linearizability::{self, Course};
use super::many_jobs::{self, Size};
use super::power_loss::{self, Sync};
use crate::campaign::command::Say;
use crate::cluster::disks;
use crate::cluster::network::Network;
use crate::report::{Durations, HistoryReport, HistoryTable, Verdict, exit_code};

/// `chaos linearizability`
#[derive(Debug, Args)]
pub struct LinearizabilityArgs {
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

/// `chaos failover`
#[derive(Debug, Args)]
pub struct FailoverArgs {
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

/// `chaos power-loss`
#[derive(Debug, Args)]
pub struct PowerLossArgs {
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

/// `chaos many-jobs`
#[derive(Debug, Args)]
pub struct ManyJobsArgs {
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

/// `chaos many-jobs`, on the machine itself; the exit code, as of all here.
pub async fn many_jobs(
    arguments: &ManyJobsArgs,
    directory: Option<PathBuf>,
    say: &Say,
) -> anyhow::Result<u8> {
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
#[expect(
    missing_debug_implementations,
    reason = "who listens has nothing to show"
)]
pub struct Place<'a> {
    #[expect(missing_docs, reason = "its name says it")]
    pub network: Arc<Network>,
    /// Where runs keep their files.
    pub directory: PathBuf,
    #[expect(missing_docs, reason = "its name says it")]
    pub clock: SharedClock,
    #[expect(missing_docs, reason = "its name says it")]
    pub say: &'a Say,
}

impl Place<'_> {
    /// `chaos linearizability`
    pub async fn linearizability(&self, arguments: &LinearizabilityArgs) -> anyhow::Result<u8> {
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
            (self.say)(&format!(
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
                (self.say)(&format!(
                    "repeat with: chaos linearizability --seeds {seed} --members {members} --seconds {}",
                    arguments.seconds
                ));
            }
            reports.push(report);
        }
        (self.say)(&format!("\n{}", HistoryTable(&reports)));
        Ok(worst(reports.iter().map(|report| &report.verdict)))
    }

    /// `chaos failover`
    pub async fn failover(&self, arguments: &FailoverArgs) -> anyhow::Result<u8> {
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
                (self.say)(&format!(
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
            (self.say)(&format!(
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
            (self.say)(&format!(
                "SIGSTOP for 5 s: {} operations, {} unknown; {}",
                report.counts.attempted, report.counts.unknown, report.verdict
            ));
            rows.push(("SIGSTOP for 5 s", durations));
            verdicts.push(report.verdict);
        }
        (self.say)(&figures_table(&rows));
        Ok(worst(&verdicts))
    }

    /// `chaos power-loss`
    pub async fn power_loss(&self, arguments: &PowerLossArgs) -> anyhow::Result<u8> {
        if let Some(missing) = disks::missing().await {
            (self.say)(&format!("SKIPPED, nothing was tested: {missing}"));
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
                (self.say)(&format!(
                    "cut {cycle} of members {struck:?}: {} writes acknowledged, {} lost",
                    audit.acknowledged, audit.lost_count
                ));
            },
        )
        .await?;
        let [one, two, all] = outcome.cuts;
        (self.say)(&format!(
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
