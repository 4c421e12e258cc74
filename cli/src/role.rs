//! `flott jobmanager` and `flott taskmanager`: a server in the foreground, from its configuration to its end.
//!
//! The first SIGTERM or SIGINT asks it to end in order (a leader hands over first), within `cluster.shutdown-timeout`. A
//! second one, or the end of that time, ends it at once: what it has promised is on disk in any case.

use std::io::Read;
use std::time::Duration;

use flott_node::config::{Configuration, options};
use flott_node::{Tasks, telemetry};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::Error;
use crate::args::{LogFormat, LoggingArgs, ProcessArgs};
use crate::local::Role;

/// Open files with which a TaskManager gets along.
const OPEN_FILES_WANTED: u64 = 8_192;

/// Runs until it was told to end, or cannot go on.
pub(crate) async fn run(role: Role, arguments: &ProcessArgs) -> Result<(), Error> {
    let _log = start_logging(&arguments.logging)?;
    let mut signals = StopSignals::listen()?;
    let configuration = configuration(role, arguments)?;
    for warning in configuration.warnings() {
        warn!("{warning}");
    }
    let open_files_max = allow_open_files();
    if open_files_max < OPEN_FILES_WANTED {
        warn!(
            open_files_max,
            "state of some GB has more files than this process may open; raise the hard limit (ulimit -Hn, LimitNOFILE=)"
        );
    }
    info!(
        role = role.verb(),
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        open_files_max,
        "starting"
    );
    for (key, value, origin) in configuration.iter() {
        info!(key, value, %origin, "setting");
    }
    if arguments.exit_with_stdin {
        exit_with_stdin()?;
    }

    let limit = configuration.get(&options::SHUTDOWN_TIMEOUT)?;
    let tasks = Tasks::default();
    let mut server = std::pin::pin!(serve(role, configuration, tasks.clone()));
    let ended = tokio::select! {
        ended = &mut server => ended,
        why = stop_reason(&mut signals, &tasks) => {
            info!(why, "stopping");
            tasks.cancellation().cancel();
            tokio::select! {
                ended = tokio::time::timeout(limit, &mut server) => ended.unwrap_or_else(|_| Err(overdue(limit))),
                () = signals.next() => return Err(Error::Process("ended by a second signal".to_owned())),
            }
        }
    };
    // The failure of a task is the reason; that of the server may only be its consequence.
    let failed = tasks.shutdown(limit).await.map_err(Error::Process);
    let result = failed.and(ended);
    if result.is_ok() {
        info!(role = role.verb(), "stopped");
    }
    result
}

/// Raises the limit of open files as far as it goes; that of most systems is 1,024 until somebody asks. Returns what it is.
fn allow_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised,
        Err(_) => limit,
    }
    .current
    .unwrap_or(u64::MAX)
}

async fn serve(role: Role, configuration: Configuration, tasks: Tasks) -> Result<(), Error> {
    match role {
        Role::JobManager => flott_coordinator::run(configuration, tasks)
            .await
            .map_err(|error| Error::process(&error)),
        Role::TaskManager => flott_worker::run(configuration, tasks)
            .await
            .map_err(|error| Error::process(&error)),
    }
}

async fn stop_reason(signals: &mut StopSignals, tasks: &Tasks) -> &'static str {
    tokio::select! {
        () = signals.next() => "signal",
        () = tasks.cancellation().cancelled() => "failure",
    }
}

fn overdue(limit: Duration) -> Error {
    Error::Process(format!(
        "did not end within {} s ({})",
        limit.as_secs_f64(),
        options::SHUTDOWN_TIMEOUT.key()
    ))
}

/// File, then `-D`; checked as a whole.
fn configuration(role: Role, arguments: &ProcessArgs) -> Result<Configuration, Error> {
    let file = match &arguments.config {
        Some(path) => Configuration::load(path)?,
        None => Configuration::default(),
    };
    let overrides =
        Configuration::from_overrides(&arguments.overrides.overrides).map_err(Error::Override)?;
    let mut configuration = file.merge(overrides);
    if arguments.insecure {
        configuration.set(&options::INSECURE, true);
    }
    configuration.validate()?;
    if role == Role::TaskManager
        && configuration
            .get(&options::JOBMANAGER_ADDRESSES)?
            .is_empty()
    {
        // As with Flink: a cluster of one JobManager is found by its RPC address.
        let host = configuration.get(&options::JOBMANAGER_RPC_ADDRESS)?;
        let port = configuration.get(&options::JOBMANAGER_RPC_PORT)?;
        configuration.set(&options::JOBMANAGER_ADDRESSES, format!("{host}:{port}"));
    }
    Ok(configuration)
}

/// Logs to standard error from here on.
pub(crate) fn start_logging(arguments: &LoggingArgs) -> Result<telemetry::LogGuard, Error> {
    let format = match arguments.log_format {
        LogFormat::Text => telemetry::LogFormat::Text,
        LogFormat::Json => telemetry::LogFormat::Json,
    };
    telemetry::init(format, &arguments.log).map_err(|error| Error::Usage(error.to_string()))
}

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// From now on these signals do not end the process by themselves.
    pub(crate) fn listen() -> Result<Self, Error> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Error::Process(format!("cannot listen for signals: {error}")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// The next of either.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Ends this process when standard input closes, as a crash would: the parent is gone, and nobody else stops us.
fn exit_with_stdin() -> Result<(), Error> {
    let watch = || {
        let mut buffer = [0; 64];
        while std::io::stdin()
            .lock()
            .read(&mut buffer)
            .is_ok_and(|read| read > 0)
        {}
        std::process::exit(1);
    };
    let thread = std::thread::Builder::new()
        .name("parent-watch".to_owned())
        .spawn(watch);
    thread
        .map(drop)
        .map_err(|error| Error::Process(format!("cannot watch the parent process: {error}")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Arguments, Command};

    fn arguments(line: &str) -> ProcessArgs {
        match Arguments::try_parse_from(line.split_whitespace())
            .unwrap()
            .command
        {
            Command::JobManager(arguments) | Command::TaskManager(arguments) => arguments,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_limit_of_open_files_is_raised_as_far_as_it_goes() {
        let limit = getrlimit(Resource::Nofile);
        let current = Some(256);
        setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
        assert_eq!(allow_open_files(), limit.maximum.unwrap_or(u64::MAX));
        assert_eq!(getrlimit(Resource::Nofile).current, limit.maximum);
    }

    #[test]
    fn flags_win_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        std::fs::write(
            &file,
            "jobmanager.rpc.address: h1\njobmanager.rpc.port: 7000\n",
        )
        .unwrap();
        let arguments = arguments(&format!(
            "flott taskmanager --config {} -D jobmanager.rpc.port=7001",
            file.display()
        ));
        let read = configuration(Role::TaskManager, &arguments).unwrap();
        assert_eq!(
            read.get(&options::JOBMANAGER_ADDRESSES).unwrap(),
            ["h1:7001"]
        );
    }

    #[test]
    fn a_bad_flag_is_bad_usage_and_a_bad_file_a_failure() {
        let error = configuration(
            Role::JobManager,
            &arguments("flott jobmanager -D rest.prot=1"),
        )
        .unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(
            error.line().contains("did you mean `rest.port`"),
            "{}",
            error.line()
        );
        let error = configuration(
            Role::JobManager,
            &arguments("flott jobmanager --config /no/such"),
        )
        .unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(
            error.line().contains("/no/such: No such file"),
            "{}",
            error.line()
        );
    }
}
