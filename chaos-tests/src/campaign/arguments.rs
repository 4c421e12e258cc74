//! What the verbs of `chaos` that concern whole runs are told.

use std::path::PathBuf;

use anyhow::ensure;
use clap::{Args, ValueEnum};

use super::fault::{Kind, More};
use super::place::Place;
use super::plan::Workload;
use crate::target::remote::inventory::Inventory;
use crate::target::{Target, store};

/// `chaos run`
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// What the plan is made from; the same seed with the same options makes the same plan
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// So many runs, with rising seeds; ends with the first in which something is violated
    #[arg(long, default_value_t = 1)]
    pub runs: u64,
    /// Begins no further run after so many minutes in all
    #[arg(long)]
    pub for_minutes: Option<f64>,
    /// Minutes of faults in each run
    #[arg(long, default_value_t = 1.0)]
    pub minutes: f64,
    /// How the processes of its own cluster are joined on this machine
    #[arg(long, value_enum, default_value_t = Target::Local, conflicts_with_all = ["observe_only", "hosts"])]
    pub target: Target,
    /// Break nothing: run the workloads and checkers on a cluster that is there
    #[arg(long, requires = "jobmanagers", conflicts_with = "hosts")]
    pub observe_only: bool,
    #[command(flatten)]
    pub others: OthersArgs,
    /// Exactly these kinds of faults [default: a random part of the usual ones]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub faults: Option<Vec<Kind>>,
    /// Draw from these kinds of faults, too
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with = "faults")]
    pub more_faults: Vec<More>,
    /// Exactly these workloads [default: seq, and a random part of register and jobs]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub workloads: Option<Vec<Workload>>,
    /// Records per second of the sequence job [default: one of a few]
    #[arg(long)]
    pub rate: Option<u64>,
    /// End the sequence job's input after so many records, and check that all of them are there
    #[arg(long, default_value_t = 0)]
    pub records: u64,
    /// Print the plans as JSON instead of carrying them out
    #[arg(long)]
    pub dry_run: bool,
    /// The program under test [default: the `flott` beside this program]
    #[arg(long)]
    pub flott: Option<PathBuf>,
    /// Another build: in each run processes are upgraded to it, one after the other, and taken back
    #[arg(long, value_name = "FLOTT", conflicts_with_all = ["observe_only", "hosts"])]
    pub upgrade_to: Option<PathBuf>,
    /// The library that changes clocks and disks [default: libflott_chaos_preload.so beside this program]
    #[arg(long, value_name = "FILE")]
    pub preload: Option<PathBuf>,
    /// Keep the files of runs that held, too
    #[arg(long)]
    pub keep: bool,
}

/// `chaos replay`
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// A plan.json
    pub plan: PathBuf,
    #[command(flatten)]
    pub others: OthersArgs,
    /// The program under test [default: the `flott` beside this program]
    #[arg(long)]
    pub flott: Option<PathBuf>,
    /// The build that rolling upgrades go to
    #[arg(long, value_name = "FLOTT")]
    pub upgrade_to: Option<PathBuf>,
    /// The library that changes clocks and disks [default: libflott_chaos_preload.so beside this program]
    #[arg(long, value_name = "FILE")]
    pub preload: Option<PathBuf>,
    /// Keep the files if it held, too
    #[arg(long)]
    pub keep: bool,
}

/// A cluster that is there.
#[derive(Clone, Debug, Default, Args)]
pub struct OthersArgs {
    /// Break a cluster that is there, by shells on its machines: a file that names its processes (see `chaos hosts`)
    #[arg(long, value_name = "FILE")]
    pub hosts: Option<PathBuf>,
    /// That cluster's JobManagers (what `flott local` prints) [default: as the file of --hosts knows them]
    #[arg(
        long,
        short = 'm',
        env = "FLOTT_JOBMANAGER",
        value_delimiter = ',',
        value_name = "HOST:PORT,…"
    )]
    pub jobmanagers: Vec<String>,
}

impl OthersArgs {
    /// The file's cluster, if there is one.
    pub fn inventory(&self) -> anyhow::Result<Option<Inventory>> {
        self.hosts.as_deref().map(Inventory::read).transpose()
    }

    /// Where its JobManagers are reached.
    pub fn addresses(&self, inventory: &Inventory) -> Vec<String> {
        match self.jobmanagers.is_empty() {
            true => inventory.jobmanagers(),
            false => self.jobmanagers.clone(),
        }
    }

    /// That cluster, or one of our own.
    pub fn place(&self) -> anyhow::Result<Place> {
        Ok(match self.inventory()? {
            Some(inventory) => Place::Remote(self.addresses(&inventory), inventory),
            None => Place::Own,
        })
    }
}

/// Kinds that a plan may have on that target.
pub(super) fn possible_kinds(arguments: &RunArgs, target: Target) -> anyhow::Result<Vec<Kind>> {
    let is_upgraded = arguments.upgrade_to.is_some();
    let named = arguments.faults.iter().flatten();
    let wants_upgrade = arguments.more_faults.contains(&More::Upgrade)
        || named.into_iter().any(|kind| *kind == Kind::Upgrade);
    ensure!(
        is_upgraded || !wants_upgrade,
        "to which build? Name it: --upgrade-to FLOTT"
    );
    if let Some(wanted) = &arguments.faults {
        ensure!(
            store::AVAILABLE || !wanted.iter().any(|kind| kind.is_of_store()),
            "this program was built without its object store: build it with --features object-store"
        );
        let mut kinds = wanted.clone();
        if is_upgraded && !kinds.contains(&Kind::Upgrade) {
            kinds.push(Kind::Upgrade);
        }
        return Ok(kinds);
    }
    let usual = Kind::USUAL
        .into_iter()
        .filter(|kind| kind.is_drawn_on(target))
        .filter(|kind| store::AVAILABLE || !kind.is_of_store());
    // In the order of `More`, whatever the order in which they were named.
    let more = More::ALL
        .into_iter()
        .filter(|more| {
            arguments.more_faults.contains(more) || *more == More::Upgrade && is_upgraded
        })
        .flat_map(More::kinds);
    Ok(usual.chain(more.copied()).collect())
}

/// The options that make the same plan again.
pub(super) fn options_of(arguments: &RunArgs, seed: u64) -> String {
    fn names<T: ValueEnum>(all: &[T]) -> String {
        let names = all.iter().filter_map(ValueEnum::to_possible_value);
        names
            .map(|value| value.get_name().to_owned())
            .collect::<Vec<_>>()
            .join(",")
    }
    let mut options = format!("--seed {seed} --minutes {}", arguments.minutes);
    if !arguments.target.is_local() {
        options += &format!(" --target {}", arguments.target);
    }
    if let Some(faults) = &arguments.faults {
        options += &format!(" --faults {}", names(faults));
    }
    if !arguments.more_faults.is_empty() {
        options += &format!(" --more-faults {}", names(&arguments.more_faults));
    }
    if let Some(workloads) = &arguments.workloads {
        options += &format!(" --workloads {}", names(workloads));
    }
    if let Some(rate) = arguments.rate {
        options += &format!(" --rate {rate}");
    }
    if arguments.records > 0 {
        options += &format!(" --records {}", arguments.records);
    }
    if let Some(other) = &arguments.upgrade_to {
        options += &format!(" --upgrade-to {}", other.display());
    }
    let others = &arguments.others;
    if arguments.observe_only {
        options += " --observe-only";
    }
    if let Some(hosts) = &others.hosts {
        options += &format!(" --hosts {}", hosts.display());
    }
    if (arguments.observe_only || others.hosts.is_some()) && !others.jobmanagers.is_empty() {
        options += &format!(" -m {}", others.jobmanagers.join(","));
    }
    options
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        run: RunArgs,
    }

    fn parsed(line: &str) -> Result<RunArgs, String> {
        let words = std::iter::once("chaos").chain(line.split_whitespace());
        let parsed = Program::try_parse_from(words);
        parsed
            .map(|program| program.run)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_options_of_a_run_make_the_same_plan_again() {
        for line in [
            "--seed 4 --minutes 2",
            "--seed 4 --minutes 2 --target netns --faults kill,pause --workloads seq,bank --rate 7 --records 9",
            "--seed 4 --minutes 2 --more-faults clock,disk",
            "--seed 4 --minutes 2 --upgrade-to next/flott",
            "--seed 4 --minutes 2 --observe-only -m a:1,b:2",
            "--seed 4 --minutes 2 --hosts hosts.yaml",
            "--seed 4 --minutes 2 --faults kill --hosts hosts.yaml -m a:1,b:2",
        ] {
            let arguments = parsed(line).unwrap();
            assert_eq!(options_of(&arguments, arguments.seed), line);
        }
    }

    #[test]
    fn a_cluster_is_broken_observed_or_made_and_no_two_of_these() {
        for line in [
            "--hosts hosts.yaml --observe-only -m a:1",
            "--hosts hosts.yaml --target netns",
            "--target remote",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
