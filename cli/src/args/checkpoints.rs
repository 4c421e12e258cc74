//! The arguments of `flott checkpoints`.

use clap::{Args, Subcommand};

use super::{JobArgs, NamespaceArgs};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct CheckpointsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<CheckpointsCommand>,
    /// List those of this job: its id, a unique beginning of it, or its name
    #[arg(required = true)]
    pub(crate) job: Option<String>,
    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CheckpointsCommand {
    /// List a job's checkpoints and savepoints, newest first
    List(JobArgs),
    /// Check that all files of the retained checkpoints and of the savepoints are there, and whole
    ///
    /// The leading JobManager reads every file and compares its size and its CRC-32C. Names each file that is missing or
    /// damaged, with the checkpoints that need it.
    #[command(
        after_help = "Exit codes: 0 all files are whole, 1 some are not, or they cannot be read."
    )]
    Verify(VerifyArgs),
    /// Find, and delete, objects in a job's directory that nobody needs and nobody ever will
    ///
    /// Such are the files of attempts that are over which no retained checkpoint, savepoint or restore needs, and metadata of
    /// checkpoints that did not complete. Files of the present attempt are never among them, however old they are.
    Gc(GcArgs),
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) job: JobArgs,
    /// Do not read the files: look only whether they are there, with their sizes
    #[arg(long)]
    pub(crate) sizes_only: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    #[command(flatten)]
    pub(crate) job: JobArgs,
    /// Only list them
    #[arg(long, conflicts_with = "yes")]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Arguments, Command, OutputFormat};

    fn parse(line: &str) -> Result<CheckpointsArgs, clap::Error> {
        let arguments = Arguments::try_parse_from(line.split_whitespace())?;
        match arguments.command {
            Command::Checkpoints(arguments) => Ok(arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_job_alone_lists_its_checkpoints() {
        for line in [
            "flott checkpoints j -z team -o json",
            "flott checkpoints -o json -z team j",
        ] {
            let listed = parse(line).unwrap();
            assert!(listed.command.is_none());
            assert_eq!(listed.job.as_deref(), Some("j"));
            assert_eq!(listed.namespace.namespace, "team");
            assert_eq!(listed.namespace.cluster.output, OutputFormat::Json);
        }
        let Some(CheckpointsCommand::List(job)) =
            parse("flott checkpoints list verify").unwrap().command
        else {
            panic!("not list")
        };
        assert_eq!(job.job, "verify");
    }

    #[test]
    fn verify_and_gc_take_a_job_and_their_flags() {
        let line = "flott checkpoints verify j --sizes-only -m h:1 -o json";
        let Some(CheckpointsCommand::Verify(verify)) = parse(line).unwrap().command else {
            panic!("not verify")
        };
        assert!(verify.sizes_only);
        assert_eq!(verify.job.namespace.cluster.jobmanager, ["h:1"]);
        let Some(CheckpointsCommand::Gc(gc)) =
            parse("flott checkpoints gc j --dry-run").unwrap().command
        else {
            panic!("not gc")
        };
        assert!(gc.dry_run && !gc.yes);
        for line in [
            "flott checkpoints",
            "flott checkpoints verify",
            "flott checkpoints gc",
            "flott checkpoints gc j --dry-run --yes",
            "flott checkpoints j --sizes-only",
        ] {
            assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
        }
    }
}
