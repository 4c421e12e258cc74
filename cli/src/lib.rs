//! The `flott` binary, as a library: one program for all processes and all client verbs.
//!
//! - `args`: the command line. [`commands`] and [`role`]: what the verbs do. [`demo`]: the main job under fire.
//! - [`client`]: a cluster of JobManagers as if it were one. [`kv`]: its key-value space. [`known_cluster`]: that it stays
//!   the same cluster. [`local`]: a cluster of child processes.
//! - [`bench`]: loads and their figures.
//! - `output`: all that is printed; `shapes`: all JSON. `error`: what ends a command, with which exit code.
//!
//! What must stay true: results go to standard output and prose to standard error; the exit code is 0 only if what was
//! asked is done.

mod args;
pub mod bench;
pub mod client;
mod commands;
pub mod demo;
mod error;
pub mod known_cluster;
pub mod kv;
pub mod local;
mod output;
mod role;
mod shapes;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use flott_node::SystemClock;

use args::{Arguments, Command, OutputFormat};
pub use error::Error;
use local::Role;

/// After the last word is said, stray background work may hold up the end of the process no longer than this.
const LEFTOVERS_WAIT_MAX: Duration = Duration::from_millis(200);

/// The program: reads the command line, does what it says, prints, and tells the exit code.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut builder = match &arguments.command {
        // What is measured shall be the cluster, not threads that wake each other; and it may run on this machine too.
        Command::Bench(_) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = match builder.enable_all().thread_name("flott").build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::note(&format!("flott: cannot start threads: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(&arguments.command));
    runtime.shutdown_timeout(LEFTOVERS_WAIT_MAX);
    code
}

async fn run(command: &Command) -> ExitCode {
    if let Command::Demo { arguments, output } = command {
        return demo(arguments, *output).await;
    }
    match dispatch(command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&format!("flott: {}", error.line()));
            ExitCode::from(error.exit_code())
        }
    }
}

async fn dispatch(command: &Command) -> Result<(), Error> {
    match command {
        Command::JobManager(arguments) => role::run(Role::JobManager, arguments).await,
        Command::TaskManager(arguments) => role::run(Role::TaskManager, arguments).await,
        Command::Local(arguments) => local::command::run(arguments).await,
        Command::Cluster(command) => commands::cluster::run(command).await,
        Command::Run(arguments) => commands::run::run(arguments).await,
        Command::Explain(arguments) => commands::run::explain(arguments),
        Command::List(arguments) => commands::jobs::list(arguments).await,
        Command::Info(arguments) => commands::jobs::info(arguments).await,
        Command::Checkpoints(arguments) => commands::checkpoints::run(arguments).await,
        Command::State(command) => commands::state::run(command).await,
        Command::Rescale(arguments) => commands::jobs::rescale(arguments).await,
        Command::Savepoint(arguments) => commands::jobs::savepoint(arguments).await,
        Command::Stop(arguments) => commands::jobs::stop(arguments).await,
        Command::Cancel(arguments) => commands::jobs::cancel(arguments).await,
        Command::Forget(arguments) => commands::jobs::forget(arguments).await,
        Command::Namespace(command) => commands::namespace::run(command).await,
        Command::Kv(command) => commands::kv::run(command).await,
        Command::Bench(command) => commands::bench::run(command).await,
        Command::Certs(arguments) => commands::certs::run(arguments),
        Command::Config(arguments) => {
            commands::reference::run(arguments);
            Ok(())
        }
        Command::Demo { .. } => Ok(()),
    }
}

async fn demo(arguments: &demo::Arguments, output: OutputFormat) -> ExitCode {
    match demo::run(
        arguments.clone(),
        output == OutputFormat::Json,
        SystemClock::shared(),
    )
    .await
    {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            output::note(&format!("flott demo: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
