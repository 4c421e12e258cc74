//! Signals to processes that a test started, and limits of theirs.

use std::io;
use std::time::Duration;

use anyhow::Context;
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit, test_kill_process};

/// SIGKILL: the process has no say. It must be there.
pub fn kill(pid: i32) -> anyhow::Result<()> {
    kill_process(known(pid)?, Signal::KILL).with_context(|| format!("cannot kill process {pid}"))
}

/// SIGKILL, if it still lives.
pub fn kill_if_alive(pid: i32) -> anyhow::Result<()> {
    match kill_process(known(pid)?, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => {
            Err(io::Error::from(error)).with_context(|| format!("cannot kill process {pid}"))
        }
    }
}

/// SIGTERM: asks it to end in order.
pub fn terminate(pid: i32) -> anyhow::Result<()> {
    kill_process(known(pid)?, Signal::TERM).with_context(|| format!("cannot signal process {pid}"))
}

/// SIGSTOP: it lives but does nothing more.
pub fn stop(pid: i32) -> anyhow::Result<()> {
    kill_process(known(pid)?, Signal::STOP).with_context(|| format!("cannot stop process {pid}"))
}

/// SIGCONT: undoes [`stop`]; nothing happens to one that runs.
pub fn go_on(pid: i32) -> anyhow::Result<()> {
    kill_process(known(pid)?, Signal::CONT).with_context(|| format!("cannot wake process {pid}"))
}

/// Whether the process still runs. One that only waits to be reaped does not.
pub fn is_alive(pid: i32) -> bool {
    let Ok(pid) = known(pid) else { return false };
    let stat =
        std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    !is_over(&stat) && test_kill_process(pid).is_ok()
}

/// Whether nothing is left of a process but its exit code. Its first thread may have ended before the others, which then
/// still hold its files and their locks.
fn is_over(stat: &str) -> bool {
    // The state follows the name, which is in parentheses and may hold anything; 17 fields later, how many threads.
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return false;
    };
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let threads = fields.get(17).and_then(|count| count.parse::<u32>().ok());
    fields.first() == Some(&"Z") && threads.is_none_or(|count| count <= 1)
}

/// When the process was born, in ticks since the machine started: with its number, this names it for ever.
pub fn born(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// What a process has used of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory that is its own and in use now.
    pub resident_bytes: u64,
    /// Processor time since it began.
    pub processor: Duration,
}

/// As the kernel counts it.
pub fn usage(pid: i32) -> anyhow::Result<Usage> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    };
    let parsed = parse_usage(&read("statm")?, &read("stat")?);
    parsed.with_context(|| format!("cannot understand what the kernel says of process {pid}"))
}

fn parse_usage(statm: &str, stat: &str) -> Option<Usage> {
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    // Behind the name, which may hold anything: the state, and eleven fields later the times in and for the process.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let mut ticks = || times.next()?.parse::<u64>().ok();
    let ticks = ticks()? + ticks()?;
    Some(Usage {
        resident_bytes: pages * rustix::param::page_size() as u64,
        processor: Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()),
    })
}

/// How many files a process may have open: the limit that counts, and up to where it may be raised. None: no limit.
pub fn file_limits(pid: i32) -> anyhow::Result<(Option<u64>, Option<u64>)> {
    let path = format!("/proc/{pid}/limits");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse_file_limits(&text).with_context(|| format!("cannot understand {path}"))
}

fn parse_file_limits(limits: &str) -> Option<(Option<u64>, Option<u64>)> {
    let mut lines = limits.lines();
    let line = lines.find_map(|line| line.strip_prefix("Max open files"))?;
    let mut numbers = line.split_whitespace().map(|word| match word {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    });
    Some((numbers.next()??, numbers.next()??))
}

/// How many files a process has open.
pub fn open_files(pid: i32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/fd");
    let open = std::fs::read_dir(&path).with_context(|| format!("cannot list {path}"))?;
    Ok(open.count() as u64)
}

/// Sets what [`file_limits`] tells.
pub fn limit_files(pid: i32, soft: Option<u64>, hard: Option<u64>) -> anyhow::Result<()> {
    let limit = Rlimit {
        current: soft,
        maximum: hard,
    };
    prlimit(Some(known(pid)?), Resource::Nofile, limit)
        .map(drop)
        .with_context(|| format!("cannot limit the files of process {pid}"))
}

fn known(pid: i32) -> anyhow::Result<Pid> {
    Pid::from_raw(pid)
        .filter(|_| pid > 1)
        .with_context(|| format!("{pid} is not a process of ours"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_over_when_its_last_thread_is() {
        let stat = |state: &str, threads: u32| {
            format!("7 (a (b) c) {state} 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 {threads} 0 5")
        };
        for (state, threads, over) in [("S", 9, false), ("Z", 2, false), ("Z", 1, true)] {
            assert_eq!(is_over(&stat(state, threads)), over, "{state} {threads}");
        }
        assert!(!is_over(""));
    }

    #[test]
    fn limits_of_files_are_read_and_set() {
        let text = "Limit  Soft Limit  Hard Limit  Units\nMax open files            20000                unlimited            files\n";
        assert_eq!(parse_file_limits(text), Some((Some(20_000), None)));
        assert_eq!(parse_file_limits("Max open files  many  few"), None);
        assert_eq!(parse_file_limits(""), None);
        let own = i32::try_from(std::process::id()).unwrap();
        let (soft, hard) = file_limits(own).unwrap();
        limit_files(own, soft, hard).unwrap();
        assert_eq!(file_limits(own).unwrap(), (soft, hard));
        assert!(open_files(own).unwrap() > 2);
    }

    #[test]
    fn usage_is_read_behind_a_name_with_spaces_and_parentheses() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 5 6 7";
        let usage = parse_usage("500 20 5 1 0 9 0", stat).unwrap();
        assert_eq!(usage.resident_bytes, 20 * rustix::param::page_size() as u64);
        let second = Duration::from_millis(200_000 / rustix::param::clock_ticks_per_second());
        assert_eq!(usage.processor, second);
        assert_eq!(parse_usage("", stat), None);
        assert_eq!(parse_usage("500 20", "7 (a) S 1"), None);
    }
}
