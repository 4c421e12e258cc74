//! `flott cluster …`: making, seeing and changing the JobManager group.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};

use flott_coordinator::recovery::Position;

use super::{ClusterArgs, OutputFormat, duration};

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Make a cluster of fresh JobManagers, once in its life: those that -m names
    #[command(after_help = "Example:\n  flott cluster init -m host1:6123,host2:6123,host3:6123")]
    Init(ClusterArgs),
    /// Who leads, how every member is, which TaskManagers there are
    #[command(after_help = "\
Examples:
  flott cluster status
  flott cluster status -o json | jq '.members[] | select(.health != \"ok\")'

Health of a member: ok, lagging (lacks more than 1000 entries of the leader's log), disk-low, unreachable,
incarnation-mismatch (another data directory answers at its address: remove the member and add the new one), or
state-differs (it has decided otherwise than the others: make a backup of its directory and replace it).")]
    Status(ClusterArgs),
    /// List, add, promote, remove or replace JobManagers
    #[command(subcommand)]
    Members(MembersCommand),
    /// Have another JobManager lead, without an election time-out
    #[command(after_help = "\
Examples:
  flott cluster transfer-leader            to the voter that is most up to date
  flott cluster transfer-leader 3 -o json  {\"from\": 1, \"to\": 3, \"took_ms\": 21.4, \"epoch\": 57}

The time is that until the successor's entry to take office was applied on the former leader. No task restarts.")]
    TransferLeader(TransferLeaderArgs),
    /// Raise the feature level, when all members run a version that supports it
    #[command(after_help = "\
Examples:
  flott cluster upgrade            to the highest level that all members support
  flott cluster upgrade --to 2

Update all binaries first, one JobManager after the other. Every member, learners included, has to be up and confirm that
it supports the level. The level is never lowered: from then on older binaries refuse to start.")]
    Upgrade(UpgradeArgs),
    /// Write all that the JobManagers have decided into one file, while they run
    #[command(after_help = "\
Examples:
  flott cluster backup /backups/flott-monday -o json
  flott cluster backup s3://bucket/flott/monday

The file has jobs, checkpoints' metadata, namespaces and keys as of now; of jobs' state it has the names of the files, which
stay in checkpoint storage. It is checked before it gets its name, and needs nothing beside it.")]
    Backup(BackupArgs),
    /// Check a backup and say what is in it; needs no cluster
    #[command(after_help = "Example:\n  flott cluster verify-backup /backups/flott-monday -o json")]
    VerifyBackup(VerifyBackupArgs),
    /// Make the data directory of a new group from a backup
    #[command(after_help = RESTORE_HELP)]
    Restore(RestoreArgs),
    /// Go on after a quorum was lost for good, with what survives
    #[command(after_help = RECOVER_HELP)]
    Recover(RecoverArgs),
    /// Write what helps to find out what is wrong into one file
    #[command(after_help = "\
Examples:
  flott cluster debug-bundle
  flott cluster debug-bundle /tmp/flott.tar.zst -m host1:6123,host2:6123,host3:6123
  tar --zstd -xf flott-debug-….tar.zst

Asks every member that answers and needs no leader. The file has states, settings (secrets masked), versions, metrics,
positions and kinds of log entries, and counts of jobs; it has no SQL, keys, values, or texts of failures.")]
    DebugBundle(DebugBundleArgs),
}

const RESTORE_HELP: &str = "\
Run this where the first JobManager of the new group will run, with all JobManagers of the old group stopped. Then start that
JobManager with --dir as its high-availability.raft.dir, start others with empty directories, and have them join with
`flott cluster members add HOST:PORT --promote`.

The new group has an id of its own, so nobody of the old one can speak to it. TaskManagers that know the address of one of its
JobManagers end their tasks and come over. Jobs that had not ended begin again from their newest whole checkpoint, which is
looked for in checkpoint storage, since the backup knows only old ones. A job that ended, or was submitted, after the backup
was made is as it was in the backup: running, or unknown.

Files of the old group in checkpoint storage are read and never deleted. Once no checkpoint names them any more
(`flott checkpoints`), <checkpoint dir>/<old cluster id>/ is yours to delete.

Examples:
  flott cluster restore /backups/flott-monday --dir /var/lib/flott --address host1:6123
  flott cluster restore s3://bucket/flott/monday --dir /var/lib/flott --address host1:6123 -o json";

const RECOVER_HELP: &str = "\
Needed only if so many JobManagers have lost their data that no quorum is left. As long as there is one, starting it is enough,
and `flott cluster members replace` mends the rest.

Without --yes this only shows what each directory has. With --yes it makes a new group of one of the survivor that is ahead, in
its directory; the contents before stay in before-<new cluster id>. Every voter has to be accounted for: by its directory; by
--survivor, with what this command shows on its machine; or by --lost. All JobManagers of the old group have to be stopped.

Then start that JobManager, and have others join with empty directories, as after `flott cluster restore --help`, which also
says what becomes of TaskManagers and jobs.

Examples:
  flott cluster recover /var/lib/flott                                           what is there?
  flott cluster recover /var/lib/flott --survivor 2=7/1200 --lost 3 --yes
  flott cluster recover /mnt/jm1 /mnt/jm2 --lost 3 --lost 4 --lost 5 --yes -o json";

#[derive(Debug, Subcommand)]
pub(crate) enum MembersCommand {
    /// List the members with their health
    List(ClusterArgs),
    /// Make a fresh JobManager a member: a learner, which receives the log and has no vote
    #[command(after_help = "\
Start the new JobManager first, with an empty data directory. The command returns when it has caught up.

Examples:
  flott cluster members add host4:6123
  flott cluster members add host4:6123 --promote      and give it a vote then")]
    Add(AddArgs),
    /// Give a learner a vote, once it has kept up for some seconds
    #[command(after_help = "Example:\n  flott cluster members promote 197332801522321")]
    Promote(MemberArgs),
    /// Remove a member for good: neither its id nor its data directory can be used again
    ///
    /// A leader hands over first. Refused if the voters that are left and can be reached would be no quorum.
    #[command(after_help = "Example:\n  flott cluster members remove 3")]
    Remove(MemberArgs),
    /// Put a fresh JobManager in the place of a member, which may be dead
    ///
    /// Adds the new one, waits until it has caught up, then gives it the vote of the old one in one step. If it is
    /// interrupted, it can be repeated.
    #[command(after_help = "Example:\n  flott cluster members replace 3 host4:6123")]
    Replace(ReplaceArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Where the new JobManager is reached by the others
    #[arg(value_name = "HOST:PORT")]
    pub(crate) address: String,
    /// Give it a vote when it has caught up
    #[arg(long)]
    pub(crate) promote: bool,
    /// How long it may take to catch up
    #[arg(long, default_value = "10 min", value_parser = duration, value_name = "TIME")]
    pub(crate) catch_up_timeout: Duration,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

#[derive(Debug, Args)]
pub(crate) struct MemberArgs {
    /// The member's id, as `members list` shows it
    pub(crate) id: u64,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReplaceArgs {
    /// The id of the member that goes
    pub(crate) id: u64,
    /// Where the new JobManager is reached by the others
    #[arg(value_name = "HOST:PORT")]
    pub(crate) address: String,
    /// How long the new one may take to catch up
    #[arg(long, default_value = "10 min", value_parser = duration, value_name = "TIME")]
    pub(crate) catch_up_timeout: Duration,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TransferLeaderArgs {
    /// The id of the voter that is to lead [default: the most up-to-date one]
    pub(crate) id: Option<u64>,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

#[derive(Debug, Args)]
pub(crate) struct UpgradeArgs {
    /// The level [default: the highest that all members support]
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) to: Option<u32>,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DebugBundleArgs {
    /// The file to write [default: flott-debug-<cluster>-<time>.tar.zst in the working directory]
    pub(crate) file: Option<PathBuf>,
    /// Entries of each member's log that are described
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub(crate) log_entries: u32,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The file to write, or an object: s3://bucket/name
    #[arg(value_name = "FILE|URL")]
    pub(crate) to: String,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyBackupArgs {
    /// The backup
    #[arg(value_name = "FILE|URL")]
    pub(crate) from: String,
    /// How to print results
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: OutputFormat,
}

/// What restoring and recovering have in common.
#[derive(Debug, Args)]
pub(crate) struct NewGroupArgs {
    /// The id of the new group [default: a new one]
    #[arg(long, value_name = "ID")]
    pub(crate) cluster_id: Option<String>,
    /// The id of its first member, where high-availability.raft.node-id sets one [default: a new one]
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) node_id: Option<u64>,
    /// Do not look into checkpoint storage: jobs begin from what is recorded, which may be old or gone
    #[arg(long)]
    pub(crate) trust_recorded_checkpoints: bool,
    /// Have jobs fail of whose checkpoints none is whole, instead of refusing
    #[arg(long)]
    pub(crate) fail_lost_jobs: bool,
    /// Do it although JobManagers of the old group answer: both groups will run the same jobs
    #[arg(long)]
    pub(crate) while_old_group_runs: bool,
    /// How to print results
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FILE|URL")]
    pub(crate) from: String,
    /// The data directory to make; empty or missing
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Where the JobManager with that directory will be reached
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) address: String,
    #[command(flatten)]
    pub(crate) group: NewGroupArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// Data directories of JobManagers of the group: what high-availability.raft.dir says
    #[arg(required = true, value_name = "DIR")]
    pub(crate) dirs: Vec<PathBuf>,
    /// A member whose directory is elsewhere, with where its log ends; repeatable
    #[arg(long, value_name = "ID=TERM/INDEX")]
    pub(crate) survivor: Vec<Elsewhere>,
    /// A member of whom nothing is left; repeatable
    #[arg(long, value_name = "ID")]
    pub(crate) lost: Vec<u64>,
    /// Where the JobManager will be reached [default: where it was reached before]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) address: Option<String>,
    /// Make the new group
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) group: NewGroupArgs,
}

/// A member that survives on another machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Elsewhere {
    pub(crate) id: u64,
    pub(crate) last: Position,
}

impl FromStr for Elsewhere {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .split_once('=')
            .and_then(|(id, last)| Some((id.parse().ok()?, last)));
        let (id, last) = parts
            .ok_or_else(|| format!("expected ID=TERM/INDEX, such as 3=7/1234, not {text:?}"))?;
        Ok(Self {
            id,
            last: last.parse()?,
        })
    }
}
