//! The verbs of `chaos` that concern whole runs: `run`, `replay`, `timeline`, `shrink`, `heal`.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use flott_node::SharedClock;

use super::arguments::{ReplayArgs, RunArgs, options_of, possible_kinds};
use super::fault::Kind;
use super::judge::judge;
use super::leftovers::read_json;
use super::place::Place;
use super::plan::{Plan, Size, Wanted, Workload};
use super::run::{Course, run as carry_out};
use super::undo::Healed;
use super::words::text_of;
use super::{shrink, timeline, undo};
use crate::cluster::{flott, flott_binary};
use crate::report::Verdict;
use crate::target::Target;
use crate::target::control::library;
use crate::target::local::Programs;

/// A smaller plan is kept if it fails once in so many runs.
const REPEATS: u32 = 3;

/// Records per second of the sequence job on a cluster that has other work to do.
const OBSERVED_RATE: u64 = 2_000;

/// Somebody who listens.
pub type Say = dyn Fn(&str) + Sync;

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
    let others = &arguments.others;
    let place = match arguments.observe_only {
        true => Place::Observed(others.jobmanagers.clone()),
        false => others.place()?,
    };
    let (target, size) = match &place {
        Place::Remote(_, inventory) => {
            let size = Size {
                jobmanagers: inventory.jobmanagers().len() as u32,
                taskmanagers: inventory.taskmanagers() as u32,
                slots: inventory.slots,
            };
            (Target::Remote, Some(size))
        }
        Place::Own | Place::Observed(_) => (arguments.target, None),
    };
    let kinds = match &place {
        Place::Observed(_) => Vec::new(),
        Place::Own | Place::Remote(..) => possible_kinds(arguments, target)?,
    };
    let is_ours = matches!(place, Place::Own);
    let workloads = arguments
        .workloads
        .as_ref()
        .map(|all| all.iter().copied().collect());
    let wanted = Wanted {
        target,
        length,
        kinds,
        all_kinds: arguments.faults.is_some(),
        workloads: match is_ours {
            true => workloads,
            false => Some(workloads.unwrap_or_else(|| BTreeSet::from(Workload::USUAL))),
        },
        records_per_second: match is_ours {
            true => arguments.rate,
            false => arguments.rate.or(Some(OBSERVED_RATE)),
        },
        size,
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
        place: arguments.others.place()?,
        directory: directory.join("replay"),
        programs: programs(arguments.flott.as_deref(), arguments.upgrade_to.as_deref())?,
        library: library(arguments.preload.as_deref()),
        plan,
    };
    let mut again = format!("chaos replay {}", arguments.plan.display());
    if let Some(hosts) = &arguments.others.hosts {
        again += &format!(" --hosts {}", hosts.display());
    }
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
        Place::Remote(..) => Target::Remote.to_string(),
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
        Place::Observed(addresses) | Place::Remote(addresses, _) => {
            format!("the cluster of {}", addresses.join(", "))
        }
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
    report.not_judged = course.place.not_judged();
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
    let place = arguments.others.place()?;
    let programs = programs(arguments.flott.as_deref(), arguments.upgrade_to.as_deref())?;
    let library = library(arguments.preload.as_deref());
    let mut runs = 0_u32;
    'smaller: loop {
        for candidate in shrink::smaller(&plan) {
            for _ in 0..REPEATS {
                runs += 1;
                let course = Course {
                    length: candidate.ends(),
                    place: place.clone(),
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
pub async fn heal(directory: &Path, say: &Say) -> anyhow::Result<()> {
    let journal = match directory.is_dir() {
        true => directory.join(undo::FILE),
        false => directory.to_owned(),
    };
    if let Some(pid) = undo::harness(&journal)? {
        anyhow::bail!("this run goes on, as process {pid}: end that first");
    }
    let Healed { done, left } = undo::heal(&journal, i64::MAX).await?;
    for line in &done {
        say(line);
    }
    say(&format!("{} faults were pending", done.len() + left.len()));
    ensure!(
        left.is_empty(),
        "not undone, and to be tried again: {}",
        left.join("; ")
    );
    Ok(())
}

/// Makes the page of a run again from its files.
pub fn timeline(directory: &Path, say: &Say) -> anyhow::Result<()> {
    say(&timeline::write(directory)?.display().to_string());
    Ok(())
}
