//! The verbs of `chaos` that concern whole runs: `run`, `replay`, `timeline`, `shrink`, `heal`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use flott_node::SharedClock;

use super::fault::{Kind, More};
use super::judge::judge;
use super::leftovers::read_json;
use super::place::Place;
use super::plan::{Plan, Wanted, Workload};
use super::run::{Course, run as carry_out};
use super::words::text_of;
use super::{shrink, timeline, undo};
use crate::cluster::{flott, flott_binary};
use crate::report::Verdict;
use crate::target::control::library;
use crate::target::local::Programs;
use crate::target::{Target, store};

/// A smaller plan is kept if it fails once in so many runs.
const REPEATS: u32 = 3;

/// Records per second of the sequence job on a cluster that has other work to do.
const OBSERVED_RATE: u64 = 2_000;

/// Somebody who listens.
pub type Say = dyn Fn(&str) + Sync;

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
    #[arg(long, value_enum, default_value_t = Target::Local, conflicts_with = "observe_only")]
    pub target: Target,
    /// Break nothing: run the workloads and checkers on a cluster that is there
    #[arg(long, requires = "jobmanagers")]
    pub observe_only: bool,
    /// With --observe-only: that cluster's JobManagers (what `flott local` prints)
    #[arg(
        long,
        short = 'm',
        env = "FLOTT_JOBMANAGER",
        value_delimiter = ',',
        value_name = "HOST:PORT,…"
    )]
    pub jobmanagers: Vec<String>,
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
    #[arg(long, value_name = "FLOTT", conflicts_with = "observe_only")]
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

/// Runs plans made from seeds. The worst verdict.
pub async fn run(
    arguments: &RunArgs,
    directory: &Path,
    clock: &SharedClock,
    say: &Say,
) -> anyhow::Result<Verdict> {
    ensure!(
        arguments.minutes > 0.0 && arguments.minutes <= 10_000.0,
        "--minutes must be above 0"
    );
    let length = Duration::from_secs_f64(arguments.minutes * 60.0);
    let deadline = arguments
        .for_minutes
        .map(|minutes| clock.monotonic() + Duration::from_secs_f64(minutes.clamp(0.0, 1e6) * 60.0));
    let (place, kinds) = match arguments.observe_only {
        true => (Place::Observed(arguments.jobmanagers.clone()), Vec::new()),
        false => (Place::Own, possible_kinds(arguments)?),
    };
    let workloads = arguments
        .workloads
        .as_ref()
        .map(|all| all.iter().copied().collect());
    let wanted = Wanted {
        target: arguments.target,
        length,
        kinds,
        all_kinds: arguments.faults.is_some(),
        workloads: match arguments.observe_only {
            true => Some(workloads.unwrap_or_else(|| BTreeSet::from(Workload::USUAL))),
            false => workloads,
        },
        records_per_second: match arguments.observe_only {
            true => arguments.rate.or(Some(OBSERVED_RATE)),
            false => arguments.rate,
        },
    };
    let (mut runs, mut doubts) = (0_u64, Vec::new());
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.runs) {
        if deadline.is_some_and(|deadline| clock.monotonic() >= deadline) {
            break;
        }
        let mut plan = Plan::from_seed(seed, &wanted);
        plan.knobs.records = arguments.records;
        if arguments.dry_run {
            say(&serde_json::to_string_pretty(&plan)?);
            continue;
        }
        let options = options_of(arguments, seed);
        let course = Course {
            plan,
            place: place.clone(),
            length,
            directory: directory.join(format!("seed-{seed}")),
            programs: programs(arguments.flott.as_deref(), arguments.upgrade_to.as_deref())?,
            library: library(arguments.preload.as_deref()),
        };
        let verdict = one(
            &course,
            clock,
            say,
            &format!("chaos run {options}"),
            arguments.keep,
        )
        .await?;
        runs += 1;
        match verdict {
            Verdict::Held => {}
            Verdict::Unknown(why) => doubts.push(format!("seed {seed}: {}", why.join("; "))),
            Verdict::Violated(_) => return Ok(verdict),
        }
    }
    if runs > 1 {
        say(&format!(
            "CHAOS {runs} runs: {} held, {} unknown",
            runs - doubts.len() as u64,
            doubts.len()
        ));
    }
    Ok(Verdict::of(Vec::new(), doubts))
}

fn possible_kinds(arguments: &RunArgs) -> anyhow::Result<Vec<Kind>> {
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
        .filter(|kind| kind.is_drawn_on(arguments.target))
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
fn options_of(arguments: &RunArgs, seed: u64) -> String {
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
    if arguments.observe_only {
        options += &format!(" --observe-only -m {}", arguments.jobmanagers.join(","));
    }
    options
}

fn programs(first: Option<&Path>, other: Option<&Path>) -> anyhow::Result<Programs> {
    let given = |program: &Path| {
        ensure!(program.is_file(), "{} is no program", program.display());
        Ok(program.canonicalize()?)
    };
    Ok(Programs {
        first: first.map_or_else(flott_binary, given)?,
        other: other.map(given).transpose()?,
    })
}

/// Carries a plan out again. A seed replays the plan, not the interleaving.
pub async fn replay(
    arguments: &ReplayArgs,
    directory: &Path,
    clock: &SharedClock,
    say: &Say,
) -> anyhow::Result<Verdict> {
    let plan: Plan = read_json(&arguments.plan)?;
    let course = Course {
        length: plan.ends(),
        place: Place::Own,
        directory: directory.join("replay"),
        programs: programs(arguments.flott.as_deref(), arguments.upgrade_to.as_deref())?,
        library: library(arguments.preload.as_deref()),
        plan,
    };
    let again = format!("chaos replay {}", arguments.plan.display());
    one(&course, clock, say, &again, arguments.keep).await
}

/// One run: the first and the last line, and what lies between.
async fn one(
    course: &Course,
    clock: &SharedClock,
    say: &Say,
    again: &str,
    keep: bool,
) -> anyhow::Result<Verdict> {
    let version = version_of(&course.programs).await?;
    let plan = &course.plan;
    let place = match &course.place {
        Place::Own => plan.target.to_string(),
        Place::Observed(_) => "observed".to_owned(),
    };
    let title = format!(
        "CHAOS seed={} plan={} target={place} ({version})",
        plan.seed,
        plan.digest()
    );
    let kinds: Vec<String> = plan.kinds().iter().map(ToString::to_string).collect();
    let knobs = &plan.knobs;
    let on = match &course.place {
        Place::Own => format!(
            "{} JobManagers, {} TaskManagers of our own",
            knobs.jobmanagers, knobs.taskmanagers
        ),
        Place::Observed(addresses) => format!("the cluster of {}", addresses.join(", ")),
    };
    let broken = match kinds.is_empty() {
        true => "nothing is broken".to_owned(),
        false => format!("{} faults: {}", plan.steps.len(), kinds.join(", ")),
    };
    say(&format!(
        "{title}\n  {broken}, within {} s\n  workloads {:?} on {on}; the sequence job reads {} records/s at parallelism {}",
        course.length.as_secs(),
        plan.workloads,
        knobs.records_per_second,
        knobs.parallelism,
    ));
    let is_inside = plan.kinds().into_iter().any(Kind::is_inside);
    if let (true, Err(why)) = (is_inside, &course.library) {
        say(&format!(
            "  faults of clocks and disks will be SKIPPED: {why}"
        ));
    }
    let evidence = carry_out(course, clock, say).await?;
    let (verdict, mut report) = judge(plan, &evidence);
    report.version = version;
    report.place = place;
    std::fs::write(
        course.directory.join("report.json"),
        serde_json::to_vec_pretty(&report)?,
    )?;
    let page = timeline::write(&course.directory)?;
    say(&text_of(&report));
    say(&format!("{title}: {verdict}"));
    if verdict == Verdict::Held {
        if !keep {
            tidy(&course.directory)?;
        }
    } else {
        let kept = course.directory.display();
        say(&format!(
            "REPRODUCE: {again}\n  the same plan: chaos replay {kept}/plan.json\n  judge again:   chaos check {kept}\n  smaller plans: chaos shrink {kept}/plan.json\n  what happened: {}\n  kept: plan, history, faults, logs and data of all processes, output, in {kept}",
            page.display()
        ));
    }
    Ok(verdict)
}

/// What the program under test calls itself, and the one that it is upgraded to.
async fn version_of(programs: &Programs) -> anyhow::Result<String> {
    let own = async |program: &Path| {
        let answer = flott(program, &["--version"]).await?;
        anyhow::Ok(answer.stdout.trim().to_owned())
    };
    let first = own(&programs.first).await?;
    Ok(match &programs.other {
        Some(other) => format!("{first}, upgraded to {}", own(other).await?),
        None => first,
    })
}

/// Of a run that held, plan, report and histories are worth keeping; data and output are not.
fn tidy(directory: &Path) -> anyhow::Result<()> {
    for bulky in ["cluster", "checkpoints", "savepoints", "out", "reference"] {
        let path = directory.join(bulky);
        if path.is_dir() {
            std::fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Smaller and smaller plans, for as long as one of them does not hold. The smallest is left beside the plan.
pub async fn shrink(
    arguments: &ReplayArgs,
    directory: &Path,
    clock: &SharedClock,
    say: &Say,
) -> anyhow::Result<Verdict> {
    let mut plan: Plan = read_json(&arguments.plan)?;
    let programs = programs(arguments.flott.as_deref(), arguments.upgrade_to.as_deref())?;
    let library = library(arguments.preload.as_deref());
    let mut runs = 0_u32;
    'smaller: loop {
        for candidate in shrink::smaller(&plan) {
            for _ in 0..REPEATS {
                runs += 1;
                let course = Course {
                    length: candidate.ends(),
                    place: Place::Own,
                    directory: directory.join(format!("shrink-{runs}")),
                    programs: programs.clone(),
                    library: library.clone(),
                    plan: candidate.clone(),
                };
                let evidence = carry_out(&course, clock, &|_| {}).await?;
                let (verdict, _) = judge(&candidate, &evidence);
                let fails = matches!(verdict, Verdict::Violated(_));
                say(&format!(
                    "{} steps of {:?}: {}",
                    candidate.steps.len(),
                    candidate.kinds(),
                    if fails { "still fails" } else { "held" }
                ));
                if fails {
                    plan = candidate;
                    let smallest = arguments.plan.with_extension("small.json");
                    std::fs::write(&smallest, serde_json::to_vec_pretty(&plan)?)?;
                    continue 'smaller;
                }
                tidy(&course.directory)?;
            }
        }
        break;
    }
    say(&format!(
        "{} steps are left after {runs} runs: {}",
        plan.steps.len(),
        serde_json::to_string(&plan)?
    ));
    Ok(Verdict::Held)
}

/// Undoes what a run that died has left.
pub fn heal(directory: &Path, say: &Say) -> anyhow::Result<()> {
    let journal = match directory.is_dir() {
        true => directory.join(undo::FILE),
        false => directory.to_owned(),
    };
    if let Some(pid) = undo::harness(&journal)? {
        anyhow::bail!("this run goes on, as process {pid}: end that first");
    }
    let done = undo::heal(&journal, i64::MAX)?;
    for line in &done {
        say(line);
    }
    say(&format!("{} faults were pending", done.len()));
    Ok(())
}

/// Makes the page of a run again from its files.
pub fn timeline(directory: &Path, say: &Say) -> anyhow::Result<()> {
    say(&timeline::write(directory)?.display().to_string());
    Ok(())
}
