//! A few seeds in every test run; many more by `make sim SEEDS=1-2000`.

mod cluster;
mod determinism;
mod raft_group;

use std::process::{Command, Output};

use flott_sim::verdict::Verdict;

fn sim(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sim"));
    let output = command.args(arguments).output();
    output.expect("the program starts")
}

/// The verdict on one seed of a group of JobManagers, run in a process of its own.
fn verdict(seed: u64, mutant: Option<&str>) -> Verdict {
    verdict_of(seed, mutant, false)
}

/// The same, of a whole cluster if `cluster`.
fn verdict_of(seed: u64, mutant: Option<&str>, cluster: bool) -> Verdict {
    let seed = seed.to_string();
    let mut arguments = vec!["--seed", &seed];
    arguments.extend(cluster.then_some("--cluster"));
    arguments.extend(mutant.into_iter().flat_map(|mutant| ["--mutant", mutant]));
    let output = sim(&arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("seed {seed}: {error}: {text}"))
}
