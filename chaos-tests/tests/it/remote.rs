//! `chaos run --hosts` on a cluster that somebody else has started: the shell beside each process is one of this machine. Tools
//! that need root are stand-ins, which refuse as the real ones do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use flott_chaos_tests::cluster::Cluster;
use flott_chaos_tests::cluster::processes::{is_alive, kill};
use flott_chaos_tests::report::exit_code;
use flott_node::{SharedClock, SystemClock};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::alone;
use crate::campaign::with_steps;
use crate::job::{DEADLINE, start_cluster};
use crate::program::{chaos_in, executable, report_without_violation};

/// A cluster whose processes are started again when they end, and the file that names them.
struct Theirs {
    cluster: Cluster,
    hosts: PathBuf,
    directory: TempDir,
}

impl Theirs {
    async fn start() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let cluster = start_cluster(directory.path(), &["--respawn", "--slots", "4"]).await?;
        let members = cluster.members()?;
        let shell = shell_without_root(directory.path())?;
        let mut hosts = Vec::new();
        for (kind, members) in [
            ("jobmanager", &members.jobmanagers),
            ("taskmanager", &members.taskmanagers),
        ] {
            for (number, member) in (1..).zip(members) {
                let name = format!("{kind}-{number}");
                let mut host = json!({
                    "node": name,
                    "addresses": [format!("127.0.0.{}", 11 + hosts.len())],
                    "shell": shell,
                    "pid": pid_command(cluster.directory(), &name),
                });
                if kind == "jobmanager" {
                    host["known-as"] = member.address.as_str().into();
                }
                hosts.push(host);
            }
        }
        let file = directory.path().join("hosts.json");
        fs::write(&file, json!({ "slots": 4, "hosts": hosts }).to_string())?;
        Ok(Self {
            cluster,
            hosts: file,
            directory,
        })
    }

    fn hosts(&self) -> anyhow::Result<&str> {
        self.hosts.to_str().context("a path that is text")
    }

    /// A plan of these steps, in a file.
    async fn plan(&self, workloads: &str, steps: &[(&str, &str, u64)]) -> anyhow::Result<Value> {
        let dry = [
            "run",
            "--seed",
            "2",
            "--minutes",
            "0.1",
            "--faults",
            "kill",
            "--rate",
            "1000",
            "--workloads",
            workloads,
            "--dry-run",
            "--hosts",
            self.hosts()?,
        ];
        let (code, said) = chaos_in(self.directory.path(), &dry).await?;
        ensure!(code == 0, "{said}");
        let plan = with_steps(&said, steps)?;
        ensure!(
            plan["target"] == "remote" && plan["knobs"]["slots"] == 4,
            "{plan:#}"
        );
        Ok(plan)
    }

    fn write(&self, plan: &Value) -> anyhow::Result<String> {
        let file = self.directory.path().join("plan.json");
        fs::write(&file, plan.to_string())?;
        Ok(file.to_str().context("text")?.to_owned())
    }
}

/// Prints the process that has the name, as its cluster wrote it down. A TaskManager that is started again has another id.
fn pid_command(directory: &Path, name: &str) -> String {
    format!(
        r#"awk -v name='"{name}",' '$1 == "\"name\":" {{ is_it = $2 == name }} is_it && $1 == "\"pid\":" {{ print $2 + 0; exit }}' '{}'"#,
        directory.join("cluster.json").display()
    )
}

/// A shell whose machine has tools for networks, and nobody who may use them.
fn shell_without_root(directory: &Path) -> anyhow::Result<Vec<String>> {
    let tools = directory.join("tools");
    fs::create_dir(&tools)?;
    let refuse = "echo 'Permission denied (you must be root)' >&2; exit 4";
    executable(&tools.join("iptables"), refuse)?;
    executable(&tools.join("ip"), "echo \"$4 dev lo src $4\"")?;
    let unknown =
        "[ \"$2\" = show ] || { echo 'Error: Specified qdisc kind is unknown.' >&2; exit 2; }";
    executable(&tools.join("tc"), unknown)?;
    executable(
        &tools.join("ss"),
        "echo 'RTNETLINK answers: Operation not permitted' >&2",
    )?;
    let path = format!("PATH={}:/usr/bin:/bin", tools.display());
    Ok(["env", &path, "sh", "-s"].map(str::to_owned).to_vec())
}

#[tokio::test]
async fn a_cluster_of_others_is_broken_by_shells_and_what_a_machine_lacks_is_skipped()
-> anyhow::Result<()> {
    let _alone = alone().await;
    let theirs = Theirs::start().await?;
    let mut plan = theirs
        .plan(
            "seq,register,jobs",
            &[
                ("kill", "leader", 0),
                ("pause", "worker", 0),
                ("isolate", "leader", 0),
                ("slow", "worker", 60),
                ("reset", "leader", 0),
                ("restart", "nobody", 0),
                ("clock-ahead", "leader", 300),
                ("kill", "worker", 0),
                ("busy", "nobody", 1),
            ],
        )
        .await?;
    // Until it is given up; and not longer than the neighbours of this test like.
    plan["steps"][5]["lasts_ms"] = 60_000.into();
    plan["steps"][8]["lasts_ms"] = 1_000.into();
    let file = theirs.write(&plan)?;
    let replay = ["replay", &file, "--keep", "--hosts", theirs.hosts()?];
    let (code, said) = chaos_in(theirs.directory.path(), &replay).await?;
    let run = theirs.directory.path().join("replay");
    let report = report_without_violation(&run, code, &said)?;
    ensure!(
        report["place"] == "remote" && report["not_judged"].is_array(),
        "{report:#}"
    );
    ensure!(said.contains("not judged"), "{said}");
    for (kind, what) in [
        ("kill", "installed"),
        ("pause", "installed"),
        ("restart", "installed"),
        ("busy", "installed"),
        ("isolate", "skipped"),
        ("slow", "skipped"),
        ("reset", "skipped"),
        ("clock-ahead", "skipped"),
    ] {
        let count = &report["faults"][kind];
        ensure!(count[what] == count["planned"], "{kind}: {count} in {said}");
    }
    for words in [
        "you must be root",
        "qdisc kind is unknown",
        "not permitted",
        "of our own only",
    ] {
        ensure!(said.contains(words), "{words}: {said}");
    }
    // What was never installed was not shown.
    ensure!(code == i32::from(exit_code::UNKNOWN), "{code}: {said}");
    let page = fs::read_to_string(run.join("timeline.html"))?;
    for lane in ["jobmanager-3", "taskmanager-2", "isolate (0 of 1)"] {
        ensure!(page.contains(lane), "{lane} is not on the page");
    }
    let (code, said) = chaos_in(&run, &["heal", run.to_str().context("text")?]).await?;
    ensure!(
        code == 0 && said.contains("0 faults were pending"),
        "{said}"
    );
    theirs.cluster.stop(DEADLINE).await
}

#[tokio::test]
async fn a_harness_that_dies_leaves_nothing_stopped_on_machines_of_others() -> anyhow::Result<()> {
    let _alone = alone().await;
    let theirs = Theirs::start().await?;
    let clock = SystemClock::shared();
    let mut plan = theirs.plan("register", &[("pause", "worker", 0)]).await?;
    plan["steps"][0]["lasts_ms"] = 300_000.into();
    let file = theirs.write(&plan)?;
    // Once the watchdog undoes it, and once it dies, too.
    for watchdog_dies in [false, true] {
        let directory = theirs.directory.path().join(format!("{watchdog_dies}"));
        let mut harness = Command::new(env!("CARGO_BIN_EXE_chaos"))
            .arg("--directory")
            .arg(&directory)
            .args(["replay", &file, "--hosts", theirs.hosts()?])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let members = theirs.cluster.members()?.taskmanagers;
        let stopped = || {
            members
                .iter()
                .map(|member| member.pid)
                .find(|pid| is_stopped(*pid))
        };
        until(&clock, "a process to be stopped", || stopped().is_some()).await?;
        let pid = stopped().context("it was woken at once")?;
        let journal = directory.join("replay/undo.jsonl");
        if watchdog_dies {
            kill(watchdog_of(&journal).context("there is no watchdog")?)?;
        }
        harness.kill().await?;
        if watchdog_dies {
            ensure!(is_stopped(pid), "somebody has woken {pid}");
            let run = journal.parent().and_then(Path::to_str).context("text")?;
            let (code, said) = chaos_in(&directory, &["heal", run]).await?;
            ensure!(
                code == 0 && said.contains("woken, it was in state T"),
                "{said}"
            );
        }
        until(&clock, "it to be woken", || !is_stopped(pid)).await?;
        ensure!(is_alive(pid), "{pid} was another's, and must live");
    }
    theirs.cluster.stop(DEADLINE).await
}

fn is_stopped(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').map(|(_, fields)| fields.trim_start());
    state.is_some_and(|state| state.starts_with('T'))
}

/// The process that was told to watch that file.
fn watchdog_of(journal: &Path) -> Option<i32> {
    let is_it = |pid: &i32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut arguments = arguments.split(|byte| *byte == 0).skip(1);
        arguments.next() == Some(b"watchdog".as_slice())
            && arguments.next() == journal.to_str().map(str::as_bytes)
    };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    pids.find(is_it)
}

async fn until(
    clock: &SharedClock,
    what: &str,
    mut holds: impl FnMut() -> bool,
) -> anyhow::Result<()> {
    let end = clock.monotonic() + DEADLINE;
    while !holds() {
        ensure!(clock.monotonic() < end, "waited in vain for {what}");
        clock.sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Runs `chaos` with that directory before all others of the path.
async fn chaos_with(tools: &Path, arguments: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(arguments)
        .env("PATH", format!("{}:/usr/bin:/bin", tools.display()))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let said = String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?;
    Ok((output.status.code(), said))
}

/// Not Kubernetes: what is shown is how `kubectl` is called.
#[tokio::test]
async fn a_pod_is_reached_by_kubectl_exec_and_a_check_says_what_it_has() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let tools = directory.path().join("tools");
    fs::create_dir(&tools)?;
    let log = directory.path().join("log");
    let kubectl = format!(
        "echo \"$*\" >>'{}'\nwhile [ \"$1\" != -- ]; do shift; done\nshift\nexec \"$@\"",
        log.display()
    );
    executable(&tools.join("kubectl"), &kubectl)?;
    let print = [
        "hosts",
        "k8s",
        "--namespace",
        "flott",
        "--jobmanagers",
        "1",
        "--taskmanagers",
        "1",
    ];
    let (code, said) = chaos_with(&tools, &print).await?;
    ensure!(code == Some(0), "{said}");
    let mut inventory: Value = serde_json::from_str(&said)?;
    for host in inventory["hosts"].as_array_mut().context("hosts")? {
        host["pid"] = format!("echo {}", std::process::id()).into();
        host["addresses"] = json!(["10.0.0.1"]);
    }
    let file = directory.path().join("hosts.json");
    fs::write(&file, inventory.to_string())?;
    let check = ["hosts", "check", file.to_str().context("text")?];
    let (code, said) = chaos_with(&tools, &check).await?;
    ensure!(
        code == Some(0) && said.contains("every machine answers"),
        "{said}"
    );
    let process = format!("process {}", std::process::id());
    for words in [
        "jobmanager-1: ",
        &process,
        "at 10.0.0.1",
        "started by a supervisor",
        "self-undo",
    ] {
        ensure!(said.contains(words), "{words}: {said}");
    }
    let mut calls: Vec<String> = fs::read_to_string(&log)?
        .lines()
        .map(str::to_owned)
        .collect();
    calls.sort();
    let call = |pod: &str| format!("exec -i -n flott {pod} -c chaos -- sh -s");
    ensure!(
        calls == [call("flott-jobmanager-0"), call("flott-taskmanager-0")],
        "{calls:?}"
    );

    // One whose process is not there, and a directory that is not.
    inventory["hosts"][1]["pid"] = "echo 0".into();
    fs::write(&file, inventory.to_string())?;
    let shares = [&check[..], &["--shares", "/nowhere/at/all"]].concat();
    let (code, said) = chaos_with(&tools, &shares).await?;
    ensure!(
        code == Some(i32::from(exit_code::SKIPPED)),
        "{code:?}: {said}"
    );
    ensure!(
        said.contains("taskmanager-1: NO PROCESS: it does not run"),
        "{said}"
    );
    Ok(())
}
