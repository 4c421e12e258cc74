//! The command line, and nothing else: what can be asked, with its help.

mod bench;
pub(crate) mod checkpoints;
mod cluster;
pub(crate) mod kv;
pub(crate) mod namespace;
mod security;
pub(crate) mod state;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use flott_node::config::{ClaimMode, ConfigValue};
use flott_proto::ids::ClusterId;

pub(crate) use bench::{BenchCommand, MetadataArgs};
pub(crate) use cluster::{
    AddArgs, BackupArgs, ClusterCommand, DebugBundleArgs, MemberArgs, MembersCommand, NewGroupArgs,
    RecoverArgs, ReplaceArgs, RestoreArgs, TransferLeaderArgs, UpgradeArgs, VerifyBackupArgs,
};
pub(crate) use security::{CertsArgs, CertsCommand, InitArgs, IssueArgs, SecurityArgs};

/// A stream processor whose control plane cannot be lost.
#[derive(Debug, Parser)]
#[command(name = "flott", version, propagate_version = true, max_term_width = 120, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  flott local --dir /tmp/flott              a cluster on this machine, until Ctrl-C
  export FLOTT_JOBMANAGER=host1:6123,host2:6123,host3:6123
  flott run -f job.sql -d -p 4              submit a job, and print its id
  flott list -o json                        all jobs
  flott stop 0193                           savepoint, then end; a unique beginning of the id, or the name, will do

Exit codes: 0 done, 1 refused or failed, 2 bad usage, 130 detached by Ctrl-C.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a JobManager in the foreground
    #[command(name = "jobmanager", after_help = PROCESS_HELP)]
    JobManager(ProcessArgs),
    /// Run a TaskManager in the foreground
    #[command(name = "taskmanager", after_help = PROCESS_HELP)]
    TaskManager(ProcessArgs),
    /// Run a whole cluster on this machine in the foreground
    ///
    /// Starts JobManagers and TaskManagers as child processes on loopback ports, prints `ready` when jobs can run, and
    /// stops all of them on SIGTERM or Ctrl-C. DIR/cluster.json lists the processes that run. A later start on the same
    /// DIR goes on with the cluster's jobs.
    Local(LocalArgs),
    /// Make, see and change the group of JobManagers
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Submit a SQL job
    ///
    /// Without --detached the job is followed until it ends; Ctrl-C then leaves the job running. Relative paths of
    /// filesystem tables are taken from the SQL file's directory (with `-f -`: from the working directory), so they have
    /// to exist on every TaskManager's machine. A `SET` in the script wins over -p and -D.
    #[command(after_help = "\
Examples:
  flott run -f job.sql
  flott run -f job.sql -d -o json                  prints {\"id\": …}
  flott run -f job.sql -s /savepoints/nightly        a savepoint, wherever it was moved to
  flott run -f job.sql -s /savepoints/nightly --dry-run
  flott run -f job.sql -D execution.checkpointing.interval='1 s'")]
    Run(RunArgs),
    /// Print the JobGraph of a SQL job without running it
    Explain(ExplainArgs),
    /// List the jobs
    List(ListArgs),
    /// Show a job with its tasks
    Info(JobArgs),
    /// List a job's checkpoints and savepoints, newest first; check their files; collect orphans
    Checkpoints(checkpoints::CheckpointsArgs),
    /// Look into a savepoint or retained checkpoint; needs no cluster
    #[command(subcommand)]
    State(state::StateCommand),
    /// Run a job at another parallelism: from its next checkpoint, which is taken at once
    ///
    /// The state is divided among the new tasks as it is; nothing is rewritten or uploaded again, unless a task would get
    /// parts of more than eight earlier ones. Vertices that scan.parallelism or sink.parallelism give another parallelism
    /// than the job's keep it.
    Rescale(RescaleArgs),
    /// Take a savepoint of a running job
    Savepoint(SavepointArgs),
    /// End a job with a savepoint, from which it can go on later
    Stop(StopArgs),
    /// End a job without a savepoint
    Cancel(JobArgs),
    /// Drop an ended job from the list, with the checkpoints that a failed one retains
    Forget(JobArgs),
    /// Tenants: each has jobs and keys of its own, sees nothing of another, and may be limited
    #[command(subcommand)]
    Namespace(namespace::NamespaceCommand),
    /// Small coordination data of a namespace: keys, transactions, watches, leases
    #[command(subcommand)]
    Kv(kv::KvCommand),
    /// Measure a running cluster
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Make a development CA, and certificates for processes and clients
    ///
    /// For anything but development have your own CA issue certificates with the same names: a URI
    /// flott://CLUSTER/ROLE/NAME, and the hosts under which a server is dialled, among the subject alternative names.
    #[command(after_help = CERTS_HELP)]
    Certs(CertsArgs),
    /// Print all configuration keys with their defaults
    Config(ConfigArgs),
    /// Run the main job on a cluster of processes, kill its leader and a worker, and check the result
    Demo {
        #[command(flatten)]
        arguments: crate::demo::Arguments,
        /// How to print the verdict
        #[arg(short, long, value_enum, default_value_t)]
        output: OutputFormat,
    },
}

const CERTS_HELP: &str = "\
Examples:
  flott certs --dir certs init --cluster prod
  flott certs --dir certs issue jobmanager host1:6123
  flott certs --dir certs issue taskmanager host4 --host host4,10.0.0.4
  flott certs --dir certs issue client ada
  flott certs --dir certs issue client ada --renew";

const PROCESS_HELP: &str = "\
SIGTERM or Ctrl-C ends the process in order, a second one at once. `flott config` lists all keys.

Without TLS (security.ssl.internal.*, `flott certs`) a process listens on this machine only, unless --insecure is said.

Examples:
  flott jobmanager --config config.yaml -D high-availability.raft.dir=/var/lib/flott
  flott taskmanager -D high-availability.jobmanager.addresses=host1:6123,host2:6123,host3:6123";

#[derive(Debug, Args)]
pub(crate) struct ProcessArgs {
    /// Configuration file (YAML, nested or dotted keys)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) overrides: Overrides,
    /// Without TLS, listen for and speak plain text beyond this machine (the same as -D security.insecure=true)
    #[arg(long)]
    pub(crate) insecure: bool,
    #[command(flatten)]
    pub(crate) logging: LoggingArgs,
    /// End at once when standard input closes: a child process then never outlives its parent
    #[arg(long, hide = true)]
    pub(crate) exit_with_stdin: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Overrides {
    /// Set a configuration key (repeatable)
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LoggingArgs {
    /// How log lines look (they go to standard error)
    #[arg(long, value_enum, default_value_t)]
    pub(crate) log_format: LogFormat,
    /// Which log lines: a level, or levels by module such as `info,flott_coordinator=debug`
    #[arg(
        long,
        env = "FLOTT_LOG",
        default_value = "info,openraft=error",
        value_name = "FILTER"
    )]
    pub(crate) log: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct LocalArgs {
    /// Where the cluster keeps everything; made if missing
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Number of JobManagers [default: 3, or as many as DIR has]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub(crate) jobmanagers: Option<u32>,
    /// Number of TaskManagers
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=64))]
    pub(crate) taskmanagers: u32,
    /// Task slots of each TaskManager
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) slots: u32,
    #[command(flatten)]
    pub(crate) overrides: Overrides,
    /// Make a CA in DIR/certs, and speak TLS only
    #[arg(long)]
    pub(crate) tls: bool,
    /// Start processes again that ended by themselves or were killed
    #[arg(long)]
    pub(crate) respawn: bool,
    #[command(flatten)]
    pub(crate) logging: LoggingArgs,
}

/// How to reach a cluster, and how to print.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// JobManagers, any of them: the leader is found through them
    #[arg(
        short = 'm',
        long,
        env = "FLOTT_JOBMANAGER",
        default_value = "127.0.0.1:6123",
        value_delimiter = ',',
        value_name = "HOST:PORT,…"
    )]
    pub(crate) jobmanager: Vec<String>,
    /// Speak with this cluster only, whatever else answers there [default: the first one that answers]
    #[arg(long, env = "FLOTT_CLUSTER_ID", value_name = "ID")]
    pub(crate) cluster_id: Option<ClusterId>,
    /// How to print results
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: OutputFormat,
    /// How long to look for a leader that answers
    #[arg(long, default_value = "30 s", value_parser = duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) security: SecurityArgs,
    #[command(flatten)]
    pub(crate) overrides: Overrides,
}

fn duration(text: &str) -> Result<Duration, String> {
    Duration::parse(text).ok_or_else(|| format!("expected {}", Duration::EXPECTED))
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    #[default]
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct NamespaceArgs {
    /// The tenant whose jobs are meant
    #[arg(short = 'z', long, default_value = "default")]
    pub(crate) namespace: String,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The SQL script: CREATE TABLE statements and one INSERT INTO … SELECT; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Return when the job is accepted, instead of waiting for its end
    #[arg(short, long)]
    pub(crate) detached: bool,
    /// Parallelism of the job
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) parallelism: Option<u32>,
    /// Start from this savepoint or retained checkpoint
    #[arg(short = 's', long, value_name = "PATH")]
    pub(crate) from_savepoint: Option<String>,
    /// What becomes of that savepoint: NO_CLAIM leaves it to you, CLAIM lets the job delete it when it needs it no more
    #[arg(long, value_name = "MODE", value_parser = claim_mode)]
    pub(crate) claim_mode: Option<ClaimMode>,
    /// Start even if the savepoint holds state of operators that the job no longer has
    #[arg(short = 'n', long)]
    pub(crate) allow_non_restored_state: bool,
    /// The job's name [default: what the script says]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Print the JobGraph instead of submitting it
    #[arg(long, conflicts_with = "detached")]
    pub(crate) explain: bool,
    /// Print the JobGraph and what the cluster would make of it, without submitting it
    ///
    /// With -s: which state would be restored, and everything for which the job would be refused. The exit code is 1 if it
    /// would be.
    #[arg(long, conflicts_with_all = ["detached", "explain"])]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,
}

fn claim_mode(text: &str) -> Result<ClaimMode, String> {
    ClaimMode::parse(text).ok_or_else(|| format!("expected {}", ClaimMode::EXPECTED))
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The SQL script; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Parallelism of the job
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) parallelism: Option<u32>,
    #[command(flatten)]
    pub(crate) overrides: Overrides,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only jobs that have not ended
    #[arg(short, long)]
    pub(crate) running: bool,
    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// The job's id, a unique beginning of it, or the job's name
    pub(crate) job: String,
    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RescaleArgs {
    /// The job's id, a unique beginning of it, or the job's name
    pub(crate) job: String,
    /// The parallelism to run at, at most pipeline.max-parallelism
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) parallelism: u32,
    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SavepointArgs {
    /// The job's id, a unique beginning of it, or the job's name
    pub(crate) job: String,
    /// Where to put it [default: execution.checkpointing.savepoint-dir]
    pub(crate) directory: Option<String>,
    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// The job's id, a unique beginning of it, or the job's name
    pub(crate) job: String,
    /// Where to put the savepoint [default: execution.checkpointing.savepoint-dir]
    #[arg(short = 'p', long, value_name = "DIR")]
    pub(crate) savepoint_path: Option<String>,
    /// Let all windows fire first, as if the input had ended; for a job that is not to go on
    #[arg(short, long)]
    pub(crate) drain: bool,
    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// Only keys that contain this text
    pub(crate) filter: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: OutputFormat,
}

#[cfg(test)]
mod tests;
