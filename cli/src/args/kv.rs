//! The command line of `flott kv`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{NamespaceArgs, duration};

/// How long entries of a client that was killed stay, unless it says otherwise.
const EPHEMERAL_TTL_DEFAULT: &str = "10 s";

const TXN_HELP: &str = r#"
A transaction is a JSON document. If all comparisons hold, the operations under `success` are carried out, otherwise those
under `failure`, all in one step. At most 128 comparisons and operations.

  {
    "compare": [
      {"key": "config", "revision": 17},                 the revision that changed it last
      {"key": "lock", "absent": true},
      {"key": "config", "version": 3, "is": ">"},        is: "=", "!=", "<" or ">"; without it, "="
      {"key": "owner", "value": "me"}                    also: "create_revision", "lease"
    ],
    "success": [
      {"put": {"key": "config", "value": "new", "ttl": "1 min"}},        also: "lease": ID
      {"delete": {"key": "old"}}, {"delete": {"prefix": "old/"}},
      {"get": {"key": "owner"}}, {"get": {"prefix": "members/", "limit": 10, "keys_only": true}}
    ],
    "failure": [{"get": {"key": "config"}}]
  }

A value that is not text is written as "value_base64", a key as "key_base64", a prefix as "prefix_base64".

Exit codes: 0 the comparisons held, 1 they did not (and `failure` was carried out), or the cluster refused."#;

const WATCH_HELP: &str = r#"
Prints one JSON document a line, in the order of the changes, each exactly once:

  {"event": "put", "revision": 17, "key": "a", "value": "1", "version": 1, "create_revision": 17, …}
  {"event": "deleted", "revision": 18, "key": "a"}       or "expired", or "lease-ended"
  {"event": "resync", "revision": 40}                    changes before 40 are no longer held: forget what you knew;
                                                         what there is now follows as "put", then the changes go on

Runs until Ctrl-C. Members may die meanwhile."#;

/// A namespace's small coordination data
#[derive(Debug, Subcommand)]
pub(crate) enum KvCommand {
    /// Set a key
    #[command(after_help = "\
Examples:
  flott kv put config/limit 100
  flott kv put config/limit --file limit.json --if-revision 17
  flott kv put lock/leader host1 --if-absent --ephemeral       gone soon after this command ends
  echo 100 | flott kv put config/limit

Exit codes: 0 applied, 1 not applied (the comparison failed, or refused) or unknown, as it says; 2 bad usage.")]
    Put(PutArgs),
    /// Print the value of a key; exit code 1 if there is none
    Get(GetArgs),
    /// List the entries whose keys begin with a prefix, in order
    List(KvListArgs),
    /// Delete a key, or all that begin with a prefix; exit code 1 if there was none
    Delete(DeleteArgs),
    /// Print every change of a key, or of all that begin with a prefix
    #[command(after_help = WATCH_HELP)]
    Watch(WatchArgs),
    /// Compare and change several keys in one step
    #[command(after_help = TXN_HELP)]
    Txn(TxnArgs),
    /// Leases: entries bound to one end with it
    #[command(subcommand)]
    Lease(LeaseCommand),
}

#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    /// 1 to 1024 bytes
    pub(crate) key: String,
    /// At most 256 KiB [default: what comes from --file or standard input]
    #[arg(conflicts_with = "file")]
    pub(crate) value: Option<String>,
    /// Take the value from a file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Only if the key was changed last by this revision
    #[arg(long, value_name = "REVISION", conflicts_with = "if_absent")]
    pub(crate) if_revision: Option<u64>,
    /// Only if there is no such key
    #[arg(long)]
    pub(crate) if_absent: bool,
    /// End the entry after this time
    #[arg(long, value_parser = duration, conflicts_with_all = ["lease", "ephemeral"])]
    pub(crate) ttl: Option<Duration>,
    /// End the entry with this lease
    #[arg(long, value_name = "ID", conflicts_with = "ephemeral", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) lease: Option<u64>,
    /// Stay until Ctrl-C, and end the entry then, or this time after the command was killed [default: 10 s]
    #[arg(long, value_name = "TTL", value_parser = duration, num_args = 0..=1, require_equals = true,
          default_missing_value = EPHEMERAL_TTL_DEFAULT)]
    pub(crate) ephemeral: Option<Duration>,
    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) stale: StaleArgs,
    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StaleArgs {
    /// Take what the first member that answers has, and say how stale it is at most
    #[arg(long)]
    pub(crate) stale: bool,
}

#[derive(Debug, Args)]
pub(crate) struct KvListArgs {
    /// All keys without it
    #[arg(default_value = "")]
    pub(crate) prefix: String,
    /// Leave out the values
    #[arg(short, long)]
    pub(crate) keys_only: bool,
    /// At most so many; 0 for all
    #[arg(short, long, default_value_t = 0)]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) stale: StaleArgs,
    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    pub(crate) key: String,
    /// All keys that begin with KEY
    #[arg(short, long, conflicts_with = "if_revision")]
    pub(crate) prefix: bool,
    /// Only if the key was changed last by this revision
    #[arg(long, value_name = "REVISION")]
    pub(crate) if_revision: Option<u64>,
    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    pub(crate) key: String,
    /// All keys that begin with KEY
    #[arg(short, long)]
    pub(crate) prefix: bool,
    /// Begin with the changes of this revision [default: with the next change]
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) from: Option<u64>,
    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TxnArgs {
    /// The JSON document; `-` is standard input
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LeaseCommand {
    /// Start a lease, and print its id
    Grant {
        /// 1 s to 30 days
        #[arg(value_parser = duration)]
        ttl: Duration,
        /// [default: one is drawn]
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        id: Option<u64>,
        #[command(flatten)]
        namespace: NamespaceArgs,
    },
    /// Start a lease's time anew
    Keep(LeaseArgs),
    /// End a lease, and all entries that are bound to it
    Revoke(LeaseArgs),
    /// List the leases, and what is bound to them
    List {
        #[command(flatten)]
        namespace: NamespaceArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct LeaseArgs {
    pub(crate) id: u64,
    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Arguments, Command};
    use super::*;

    fn parse(line: &str) -> Result<KvCommand, clap::Error> {
        match Arguments::try_parse_from(line.split_whitespace())?.command {
            Command::Kv(command) => Ok(command),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_ephemeral_entry_has_a_time_of_its_own_only_if_told() {
        for (line, expected) in [("--ephemeral", 10), ("--ephemeral=3s", 3)] {
            let KvCommand::Put(put) = parse(&format!("flott kv put k v {line}")).unwrap() else {
                panic!("not put")
            };
            assert_eq!(put.ephemeral, Some(Duration::from_secs(expected)));
            assert_eq!(put.value.as_deref(), Some("v"));
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for line in [
            "flott kv",
            "flott kv put",
            "flott kv put k v --file f",
            "flott kv put k v --if-absent --if-revision 3",
            "flott kv put k v --ttl 1s --lease 3",
            "flott kv put k v --lease 3 --ephemeral",
            "flott kv put k v --lease 0",
            "flott kv delete k --prefix --if-revision 3",
            "flott kv watch k --from 0",
            "flott kv lease grant",
        ] {
            assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
        }
    }
}
