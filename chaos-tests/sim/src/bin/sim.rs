//! Runs simulations: one seed here, or many, each in a process of its own.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use flott_node::mutant::Mutant;
use flott_sim::verdict::Verdict;
use flott_sim::{cluster, raft_group, sometimes};

#[derive(Debug, Parser)]
#[command(about = "Flott in a deterministic simulation")]
struct Arguments {
    /// Run this seed and print its verdict as JSON.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run these seeds, `A-B`, each in a process of its own.
    #[arg(long)]
    seeds: Option<String>,
    /// Whole clusters with TaskManagers and jobs; otherwise groups of JobManagers alone.
    #[arg(long)]
    cluster: bool,
    /// Processes at once.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Plant this defect in every process.
    #[arg(long)]
    mutant: Option<String>,
    /// Stop at the first violation.
    #[arg(long)]
    first: bool,
    /// Say what goes wrong, and when.
    #[arg(long)]
    narrate: bool,
    /// Print the processes' logs, as filtered by this.
    #[arg(long)]
    log: Option<String>,
    /// Where simulated disks are; best a file system in memory.
    #[arg(long, default_value = "/dev/shm")]
    directory: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.seed {
        Some(seed) => one(&arguments, seed),
        None => many(&arguments),
    }
}

#[expect(clippy::print_stdout, reason = "this is what it is for")]
fn one(arguments: &Arguments, seed: u64) -> ExitCode {
    let directory = directory_of(&arguments.directory, seed);
    let mutants: Vec<Mutant> = match &arguments.mutant {
        None => Vec::new(),
        Some(name) => match Mutant::named(name) {
            Some(mutant) => vec![mutant],
            None => {
                println!("there is no mutant {name}; there are {:?}", Mutant::ALL);
                return ExitCode::from(2);
            }
        },
    };
    if let Some(filter) = &arguments.log {
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .init();
    }
    let (narrates, of_cluster) = (arguments.narrate, arguments.cluster);
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.to_string();
        let noted = flott_sim::kernel::note_panic(&text);
        if !noted {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }));
    // A new thread, so that nothing on it has drawn a random number before.
    let simulation = std::thread::Builder::new()
        .name("simulation".to_owned())
        .stack_size(64 << 20)
        .spawn({
            let directory = directory.clone();
            move || match of_cluster {
                true => {
                    let plan = cluster::plan::Plan::of(seed);
                    cluster::run::run(plan, &mutants, &directory, narrates)
                }
                false => {
                    let plan = raft_group::plan::Plan::of(seed);
                    raft_group::run::run(plan, &mutants, &directory, narrates)
                }
            }
        });
    let verdict = simulation.map(|thread| thread.join());
    let _ = std::fs::remove_dir_all(&directory);
    let Ok(Ok(verdict)) = verdict else {
        println!("{{\"seed\":{seed},\"error\":\"the simulation itself failed\"}}");
        return ExitCode::from(2);
    };
    println!(
        "{}",
        serde_json::to_string(&verdict).unwrap_or_else(|error| error.to_string())
    );
    let code = if verdict.is_clean() { 0 } else { 1 };
    // The processes of the simulation are left as they stand.
    std::process::exit(code)
}

/// A new directory for the simulated disks. Its name is in paths that processes send each other, and so in the trace: it is
/// the same each time, unless another run of the seed has it.
fn directory_of(parent: &Path, seed: u64) -> PathBuf {
    let own = parent.join(format!("flott-sim-{seed}"));
    match std::fs::create_dir(&own) {
        Ok(()) => own,
        Err(_) => parent.join(format!("flott-sim-{seed}-{}", std::process::id())),
    }
}

/// What many seeds came to.
#[derive(Debug, Default)]
struct Sum {
    clean: u64,
    failed: Vec<(u64, String)>,
    counts: BTreeMap<String, u64>,
    events: u64,
    virtual_ms: u64,
}

fn parse(range: &str) -> Option<(u64, u64)> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    Some((first.parse().ok()?, last.parse().ok()?))
}

#[expect(clippy::print_stdout, reason = "this is what it is for")]
fn many(arguments: &Arguments) -> ExitCode {
    let Some((first, last)) = parse(arguments.seeds.as_deref().unwrap_or("1-20")) else {
        println!("--seeds takes A-B");
        return ExitCode::from(2);
    };
    let next = AtomicU64::new(first);
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed > last {
                        return;
                    }
                    let verdict = in_a_process(arguments, seed);
                    let mut sum = sum.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    match verdict {
                        Ok(verdict) => add(&mut sum, verdict),
                        Err(error) => sum.failed.push((seed, error)),
                    }
                    if arguments.first && !sum.failed.is_empty() {
                        next.store(u64::MAX, Ordering::SeqCst);
                        return;
                    }
                }
            });
        }
    });
    let sum = sum
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    println!(
        "{} clean, {} failed; {} events, {} virtual seconds",
        sum.clean,
        sum.failed.len(),
        sum.events,
        sum.virtual_ms / 1000
    );
    for (what, n) in &sum.counts {
        println!("{n:>12}  {what}");
    }
    let seeds = sum.clean + sum.failed.len() as u64;
    let missing = sometimes::missing(&sum.counts, arguments.cluster, seeds);
    for what in &missing {
        println!("{:>12}  {what}", "never");
    }
    if sum.failed.is_empty() && missing.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[expect(clippy::print_stdout, reason = "this is what it is for")]
fn add(sum: &mut Sum, verdict: Verdict) {
    sum.events += verdict.events;
    sum.virtual_ms += verdict.virtual_ms;
    for (what, n) in verdict.counts {
        *sum.counts.entry(what).or_default() += n;
    }
    match verdict.violation {
        None => sum.clean += 1,
        Some(violation) => {
            let line: String = violation.chars().take(600).collect();
            println!("seed {}: {line}", verdict.seed);
            sum.failed.push((verdict.seed, violation));
        }
    }
}

fn in_a_process(arguments: &Arguments, seed: u64) -> Result<Verdict, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.arg("--seed").arg(seed.to_string());
    command.arg("--directory").arg(&arguments.directory);
    if arguments.cluster {
        command.arg("--cluster");
    }
    if let Some(mutant) = &arguments.mutant {
        command.arg("--mutant").arg(mutant);
    }
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.trim()).map_err(|error| {
        let failed = format!("seed {seed}: {error}: {text}");
        let _ = writeln!(std::io::stderr(), "{failed}");
        failed
    })
}
