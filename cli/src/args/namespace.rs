//! The arguments of `flott namespace`.

use clap::{Args, Subcommand};
use flott_node::config::{ConfigValue, MemorySize};

use super::ClusterArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum NamespaceCommand {
    /// Make a namespace
    #[command(after_help = "\
Example:
  flott namespace create team-a --max-jobs 20 --max-slots 64 --max-checkpoint-bytes 200g")]
    Create(CreateArgs),
    /// List the namespaces with their quotas and what they use
    List(ClusterArgs),
    /// Show a namespace
    Describe(NameArgs),
    /// Change the quota of a namespace; what no flag names stays as it is
    Update(CreateArgs),
    /// Delete a namespace with all that is in it: its jobs, their checkpoints, its keys
    ///
    /// Jobs are cancelled, not stopped: take savepoints first of what is to go on elsewhere. Savepoints stay where they
    /// are, with the files that they need. Asks for the name on a terminal; elsewhere it needs --yes.
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// 1 to 63 characters of a-z, 0-9 and '-', beginning with a letter or digit
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    pub(crate) name: NameArgs,
    #[command(flatten)]
    pub(crate) quota: QuotaArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    pub(crate) name: NameArgs,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Of each: 0 is no limit.
#[derive(Clone, Copy, Debug, Args, PartialEq, Eq)]
pub(crate) struct QuotaArgs {
    /// Jobs that have not ended; 0 is no limit
    #[arg(long, value_name = "N")]
    pub(crate) max_jobs: Option<u32>,
    /// Task slots of all its jobs together; 0 is no limit
    #[arg(long, value_name = "N")]
    pub(crate) max_slots: Option<u32>,
    /// Keys and values in the key-value space, such as `64mb`; 0 is no limit
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) max_kv_bytes: Option<u64>,
    /// Files of retained checkpoints, such as `200g`; savepoints do not count; 0 is no limit
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) max_checkpoint_bytes: Option<u64>,
}

fn size(text: &str) -> Result<u64, String> {
    let size = MemorySize::parse(text).map(MemorySize::bytes);
    size.ok_or_else(|| format!("expected {}", MemorySize::EXPECTED))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Arguments, Command};

    fn parse(line: &str) -> Result<NamespaceCommand, clap::Error> {
        let arguments = Arguments::try_parse_from(line.split_whitespace())?;
        match arguments.command {
            Command::Namespace(command) => Ok(command),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn quotas_are_numbers_and_sizes() {
        let line = "flott namespace create a --max-jobs 2 --max-kv-bytes 64mb --max-checkpoint-bytes 1g -m h:1";
        let NamespaceCommand::Create(create) = parse(line).unwrap() else {
            panic!("not create")
        };
        let quota = QuotaArgs {
            max_jobs: Some(2),
            max_slots: None,
            max_kv_bytes: Some(64 << 20),
            max_checkpoint_bytes: Some(1 << 30),
        };
        assert_eq!((create.name.name.as_str(), create.quota), ("a", quota));
        for line in [
            "flott namespace create",
            "flott namespace create a --max-kv-bytes many",
            "flott namespace create a --max-jobs -1",
            "flott namespace delete",
            "flott namespace drop a",
        ] {
            assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
        }
    }
}
