//! Scripts against processes of this machine. What needs root is only read.

use std::process::{Child, Command, Stdio};

use flott_node::{SharedClock, SystemClock};

use super::process::{End, Process, end, find, pause};
use super::*;
use crate::cluster::processes;
use crate::target::Node;
use crate::target::remote::inventory::Host;
use crate::target::remote::inventory::tests::host as any_host;
use crate::target::remote::shell::{Answer, Said, run};

const BOUND: Duration = Duration::from_secs(60);

fn lease(number: u32, grace: Duration) -> Lease {
    Lease {
        token: Token {
            number,
            // No other test that runs now has it.
            run_ms: i64::from(std::process::id()),
        },
        lives: Duration::ZERO,
        grace,
    }
}

/// A process that does nothing, and ends with its test.
struct Idle(Child);

impl Idle {
    fn new() -> Self {
        let mut command = Command::new("sleep");
        Self(command.arg("600").stdin(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    fn host(&self) -> Host {
        Host {
            pid: format!("echo '{}'", self.pid()),
            ..any_host(Node::Taskmanager(1))
        }
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn say(script: &str) -> Answer {
    run(&["sh", "-s"].map(str::to_owned), script, BOUND).await
}

fn done(answer: Answer) -> Said {
    match answer {
        Answer::Done(said) => said,
        other => panic!("{other:?}"),
    }
}

async fn found(host: &Host) -> Process {
    let said = done(say(&find(host)).await);
    Process {
        pid: said.number("pid").unwrap(),
        born: said.number("born").unwrap(),
    }
}

fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')')
        .unwrap()
        .1
        .trim_start()
        .starts_with('T')
}

async fn until(clock: &SharedClock, what: &str, mut holds: impl FnMut() -> bool) {
    let end = clock.monotonic() + BOUND;
    while !holds() {
        assert!(clock.monotonic() < end, "waited in vain for {what}");
        clock.sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_process_is_stopped_and_woken_and_twice_is_as_good_as_once() {
    let idle = Idle::new();
    let process = found(&idle.host()).await;
    assert_eq!(process.pid, idle.pid());
    assert_eq!(Some(process.born), processes::born(idle.pid()));
    let fault = pause(&idle.host(), process, lease(1, GRACE));
    let said = done(say(&fault.apply).await);
    assert!(said.how == "state T" && is_stopped(idle.pid()), "{said:?}");
    let said = done(say(&fault.undo).await);
    assert_eq!(said.how, "woken, it was in state T");
    assert!(!is_stopped(idle.pid()));
    done(say(&fault.undo).await);
}

#[tokio::test]
async fn a_machine_that_hears_no_more_undoes_it_by_itself() {
    let idle = Idle::new();
    let process = found(&idle.host()).await;
    let clock = SystemClock::shared();
    let [soon, disarmed] = [1, 2].map(|number| lease(10 + number, Duration::from_secs(2)));
    let fault = pause(&idle.host(), process, soon);
    done(say(&fault.apply).await);
    assert!(is_stopped(idle.pid()));
    until(&clock, "it to be woken", || !is_stopped(idle.pid())).await;

    // One that was disarmed does nothing any more.
    let fault = pause(&idle.host(), process, disarmed);
    done(say(&fault.apply).await);
    done(say(&fault.undo).await);
    processes::stop(idle.pid()).unwrap();
    let directory = format!("/tmp/flott-{}", disarmed.token);
    until(&clock, "the sleeper to end", || !somebody_has(&directory)).await;
    assert!(is_stopped(idle.pid()));
}

/// Whether a process was started with that argument.
fn somebody_has(argument: &str) -> bool {
    let mut processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.any(|process| {
        let arguments = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let mut arguments = arguments.split(|byte| *byte == 0);
        arguments.any(|one| one == argument.as_bytes())
    })
}

#[tokio::test]
async fn nothing_is_done_to_another_process_or_to_none() {
    let idle = Idle::new();
    let process = found(&idle.host()).await;
    let earlier = Process {
        born: process.born - 1,
        ..process
    };
    let fault = pause(&idle.host(), earlier, lease(20, GRACE));
    let answer = say(&fault.apply).await;
    assert_eq!(
        answer,
        Answer::Skipped("it is another process by now".to_owned())
    );
    let said = done(say(&fault.undo).await);
    assert_eq!(said.how, "its process is gone");
    assert!(!is_stopped(idle.pid()));

    for (number, (pid, words)) in (21..).zip([
        ("true", "it does not run"),
        ("echo 0", "it does not run"),
        ("echo 999999999", "it does not run"),
        ("echo 1", "first process"),
        ("echo 12 13", "says: 12 13"),
        ("nonesuch-command", "not found"),
    ]) {
        let host = Host {
            pid: pid.to_owned(),
            ..idle.host()
        };
        for script in [
            find(&host),
            end(&host, End::Kill, lease(number, GRACE)).apply,
        ] {
            let answer = say(&script).await;
            assert!(
                matches!(&answer, Answer::Skipped(why) if why.contains(words)),
                "{pid}: {answer:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_process_is_ended_and_started_again_once() {
    for (number, how) in [(30, End::Kill), (31, End::Terminate)] {
        let mut idle = Idle::new();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("it's pid");
        std::fs::write(&file, idle.pid().to_string()).unwrap();
        let file = quoted(&file.display().to_string());
        let host = Host {
            pid: format!("cat {file}"),
            start: Some(format!(
                "sleep 600 & echo $! >{file}; echo started >>{file}.times"
            )),
            ..idle.host()
        };
        let before = found(&host).await;
        let fault = end(&host, how, lease(number, GRACE));
        let said = done(say(&fault.apply).await);
        assert!(!said.how.is_empty() && idle.0.wait().is_ok());
        done(say(&fault.undo).await);
        let after = found(&host).await;
        assert_ne!(before, after);
        done(say(&fault.undo).await);
        assert_eq!(found(&host).await, after);
        processes::kill(after.pid).unwrap();
        let times = std::fs::read_to_string(directory.path().join("it's pid.times")).unwrap();
        assert_eq!(times.lines().count(), 1);

        // Where a supervisor should, it is waited for.
        let supervised = Host {
            start: None,
            ..host
        };
        let fault = end(&supervised, how, lease(number + 10, GRACE));
        let answer = say(&fault.undo).await;
        assert!(
            matches!(&answer, Answer::Unclear(why) if why.contains("supervisor")),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn a_machine_says_what_it_has() {
    let idle = Idle::new();
    let said = done(say(&probe::probe(&idle.host(), None)).await);
    let process = said.value("process").unwrap();
    assert!(
        process.starts_with(&format!("{} ", idle.pid())),
        "{process}"
    );
    assert_eq!(said.value("self-undo"), Some("ok"));
    for (name, _) in probe::ABILITIES {
        assert!(
            said.value(name).is_some_and(|what| !what.is_empty()),
            "{name}: {said:?}"
        );
    }
    let nobody = Host {
        pid: "echo none".to_owned(),
        ..idle.host()
    };
    let said = done(say(&probe::probe(&nobody, Some(std::path::Path::new("/")))).await);
    assert_eq!(said.value("process"), None);
    assert!(
        said.value("no-process").unwrap().contains("says: none"),
        "{said:?}"
    );
    assert_eq!(said.value("shares"), Some("yes"));
}

#[test]
fn a_cut_is_in_a_chain_of_its_own_and_only_that_is_removed() {
    let silence = packets::Silence {
        from: vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
        to: vec!["10.0.0.3".parse().unwrap()],
    };
    let fault = packets::cut(&silence, lease(40, GRACE));
    let token = lease(40, GRACE).token.to_string();
    assert!(token.len() <= 28, "{token} is too long for a chain");
    for line in [
        format!("iptables -w 5 -A {token} -p tcp -s 10.0.0.2 -j DROP"),
        format!("iptables -w 5 -A {token} -p tcp -d 10.0.0.3 -j DROP"),
        format!("ip6tables -w 5 -A {token} -p tcp -s fd00::2 -j DROP"),
    ] {
        assert!(
            fault.apply.contains(&line),
            "{line} is not in {}",
            fault.apply
        );
        assert!(!fault.undo.contains(&line));
    }
    assert!(!fault.apply.contains("-s 10.0.0.3") && !fault.apply.contains("-F INPUT"));
    for script in [&fault.apply, &fault.undo] {
        assert!(script.contains(&format!("-X {token}")), "{script}");
        assert!(script.starts_with("{\n") && script.ends_with("} </dev/null\n"));
    }
    let flap = packets::flap(&silence, lease(41, GRACE));
    assert!(flap.apply.contains("rounds"));
    let reset = packets::reset(&silence.from, lease(42, GRACE));
    assert!(
        reset.apply.contains("'dst 10.0.0.2 or dst [fd00::2]'"),
        "{}",
        reset.apply
    );
}

#[test]
fn a_line_is_changed_toward_its_peers_only() {
    use super::lines::{Shape, shape};
    let peers = ["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
    let table = [
        (Shape::Late(150), "netem delay 150ms "),
        (Shape::Thin(20_000), "tbf rate 160000bit "),
        (Shape::Loss(50), "netem loss 5.0%\n"),
        (Shape::Duplicate(333), "netem duplicate 33.3%\n"),
        (Shape::Reorder(300), " reorder 70.0%\n"),
    ];
    for (what, words) in table {
        let fault = shape(what, &peers, lease(50, GRACE));
        assert!(
            fault.apply.contains(words),
            "{words} is not in {}",
            fault.apply
        );
        for line in ["match ip dst 10.0.0.2/32", "match ip6 dst fd00::2/128"] {
            assert!(
                fault.apply.contains(line) && !fault.undo.contains(line),
                "{line}"
            );
        }
        assert!(
            fault
                .undo
                .contains("qdisc del dev \"$dev\" root handle 4032:"),
            "{}",
            fault.undo
        );
    }
}

/// Every script is one that a shell understands.
#[tokio::test]
async fn scripts_are_shell() {
    let host = any_host(Node::Jobmanager(1));
    let silence = packets::Silence {
        from: vec!["10.0.0.2".parse().unwrap()],
        to: vec!["fd00::3".parse().unwrap()],
    };
    let process = Process { pid: 2, born: 3 };
    let all = [
        pause(&host, process, lease(60, GRACE)),
        end(&host, End::Terminate, lease(60, GRACE)),
        packets::cut(&silence, lease(60, GRACE)),
        packets::flap(&silence, lease(60, GRACE)),
        packets::reset(&silence.to, lease(60, GRACE)),
        lines::shape(lines::Shape::Loss(1), &silence.from, lease(60, GRACE)),
        load::busy(2, lease(60, GRACE)),
    ];
    let scripts = all.into_iter().flat_map(|fault| [fault.apply, fault.undo]);
    let others = [find(&host), probe::probe(&host, None)];
    for script in scripts.chain(others) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("script");
        std::fs::write(&file, &script).unwrap();
        let checked = Command::new("sh").arg("-n").arg(&file).output().unwrap();
        let words = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(checked.status.success(), "{words} in {script}");
    }
}
