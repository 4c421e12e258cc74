//! `flott demo`: the main job on a cluster of real processes whose leader and then a worker are killed, ending in a
//! verdict that needs no trust.
//!
//! ```text
//! plan(seed) ──▶ script ──step──▶ course: kills and starts processes
//!                  ▲                │
//!               sample ◀── observe ─┘    recovery: durations of every phase
//!                                        verify: the result, computed independently ──▶ verdict
//! ```
//!
//! - [`plan`]: when what dies. [`script`]: which step comes next. [`sample`]: what one look saw. [`recovery`]: what each
//!   death cost. [`verify`]: whether the result is exact. [`verdict`]: the table. All pure.
//! - [`seen`]: what is kept of the samples. [`observe`] asks the cluster, [`view`] shows it, [`course`] is the loop,
//!   [`run`] is everything around it.
//!
//! What must stay true: it passes only if both kills happened, the result is exact, and the leader's death restarted
//! no task. It is a program of its own beside the client's verbs, and so its errors are `anyhow`.

mod course;
mod observe;
mod plan;
mod recovery;
mod run;
mod sample;
mod script;
mod seen;
mod verdict;
mod verify;
mod view;

use std::io::{IsTerminal, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use flott_node::SharedClock;

use run::Interrupted;
use verify::Expected;
use view::View;

/// Runs the main job on a cluster of processes on this machine, kills the leader and a worker, and checks the result.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Decides when the leader and the TaskManager die.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run once for each of these seeds and summarise, e.g. `1-10`.
    #[arg(long, value_name = "FIRST-LAST", value_parser = parse_seeds, conflicts_with = "seed")]
    seeds: Option<RangeInclusive<u64>>,
    /// Where the cluster, its checkpoints, its logs and the job's output go. A temporary directory by default.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Pace of the input.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..))]
    rows_per_second: u64,
    /// The flights, as CSV (.zst, .gz or plain).
    #[arg(long, default_value = "deploy/demo/flights-2013.csv.zst")]
    data: PathBuf,
    /// One line for each event, also on a terminal.
    #[arg(long)]
    plain: bool,
    /// Keep the temporary directory.
    #[arg(long)]
    keep: bool,
}

/// What all runs of one invocation share.
struct Setup {
    executable: PathBuf,
    data: PathBuf,
    rows_per_second: u64,
    expected: Expected,
    clock: SharedClock,
}

/// Runs the demo; whether every run passed. `json` prints the verdicts as JSON to standard output, one a line, and
/// everything else to standard error.
pub async fn run(arguments: Arguments, json: bool, clock: SharedClock) -> anyhow::Result<bool> {
    let setup = Setup {
        executable: std::env::current_exe().context("the path of this program is not known")?,
        data: find_data(&arguments.data)?,
        rows_per_second: arguments.rows_per_second,
        expected: Expected::from_file(&arguments.data)?,
        clock,
    };
    ensure!(
        setup.expected.input_rows > 0,
        "{} holds no rows",
        arguments.data.display()
    );
    let live = !arguments.plain && !json && std::io::stdout().is_terminal();
    let seeds = arguments
        .seeds
        .clone()
        .unwrap_or(arguments.seed..=arguments.seed);
    let several = seeds.end() > seeds.start();
    let mut verdicts = Vec::new();
    for seed in seeds {
        let directory = Directory::of_run(&arguments, several, seed)?;
        let out: Box<dyn Write> = if json {
            Box::new(std::io::stderr())
        } else {
            Box::new(std::io::stdout())
        };
        let mut view = View::new(out, live);
        let verdict = match run::run_once(&setup, &directory.path, seed, &mut view).await {
            Ok(verdict) => verdict,
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) => {
                let kept = directory.keep();
                return Err(error.context(format!("the demo's logs are in {}", kept.display())));
            }
        };
        let mut out = std::io::stdout().lock();
        if json {
            writeln!(out, "{}", serde_json::to_string(&verdict)?)?;
        } else {
            writeln!(out, "{}", verdict.table())?;
        }
        if !verdict.passed || arguments.keep {
            writeln!(std::io::stderr(), "kept: {}", directory.keep().display())?;
        }
        verdicts.push(verdict);
    }
    if several && !json {
        writeln!(std::io::stdout(), "{}", verdict::summary(&verdicts))?;
    }
    Ok(verdicts.iter().all(|verdict| verdict.passed))
}

fn find_data(path: &Path) -> anyhow::Result<PathBuf> {
    // The workers have another working directory.
    path.canonicalize().with_context(|| {
        format!("cannot find {}: run the demo from the root of Flott's sources, or name the file with --data", path.display())
    })
}

fn parse_seeds(text: &str) -> Result<RangeInclusive<u64>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse(), last.trim().parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(first..=last),
        _ => Err("expected FIRST-LAST, e.g. 1-10".to_owned()),
    }
}

/// Where one run keeps everything: removed afterwards if it is ours.
struct Directory {
    path: PathBuf,
    temporary: Option<tempfile::TempDir>,
}

impl Directory {
    fn of_run(arguments: &Arguments, several: bool, seed: u64) -> anyhow::Result<Self> {
        let Some(given) = &arguments.dir else {
            let temporary = tempfile::Builder::new().prefix("flott-demo-").tempdir()?;
            return Ok(Self {
                path: temporary.path().to_owned(),
                temporary: Some(temporary),
            });
        };
        let path = if several {
            given.join(format!("seed-{seed}"))
        } else {
            given.clone()
        };
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        let empty = path.read_dir()?.next().is_none();
        ensure!(
            empty,
            "{} is not empty: the demo begins afresh, name another --dir",
            path.display()
        );
        Ok(Self {
            path: path.canonicalize()?,
            temporary: None,
        })
    }

    fn keep(self) -> PathBuf {
        self.temporary.map_or(self.path, tempfile::TempDir::keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_range_or_one_number() {
        assert_eq!(parse_seeds("1-10"), Ok(1..=10));
        assert_eq!(parse_seeds("7"), Ok(7..=7));
        for bad in ["", "a", "3-1", "1-", "-1"] {
            assert!(parse_seeds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_missing_data_file_names_the_remedy() {
        let error = find_data(Path::new("nowhere.csv.zst"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("--data"), "{error}");
    }
}
