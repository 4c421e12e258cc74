//! The arguments of `flott state`.

use clap::{Args, Subcommand, ValueEnum};

use super::OutputFormat;

#[derive(Debug, Subcommand)]
pub(crate) enum StateCommand {
    /// Show who has state in a savepoint or retained checkpoint, and how much
    Inspect(InspectArgs),
    /// Print the entries of an operator's state
    ///
    /// Reads the files into a temporary directory, one part after the other, and changes nothing. Keys, windows and
    /// aggregates are decoded where their types are recorded; otherwise entries are given as hexadecimal digits.
    #[command(after_help = "\
Examples:
  flott state inspect s3://bucket/savepoints/nightly
  flott state read /savepoints/nightly --operator window --limit 20
  flott state read /savepoints/nightly --operator window --state windows/timers -o json
  flott state read /savepoints/nightly --operator source --state operator
  flott state read /savepoints/nightly --operator window -o parquet >window.parquet")]
    Read(ReadArgs),
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The directory of the savepoint or checkpoint, or the _metadata object in it
    pub(crate) path: String,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    /// The directory of the savepoint or checkpoint, or the _metadata object in it
    pub(crate) path: String,
    /// The operator's uid, as `flott state inspect` shows it
    #[arg(long, value_name = "UID")]
    pub(crate) operator: String,
    /// A keyed state's name, with /timers for its timers; `operator` is what the operator itself keeps [default: its keyed
    /// state, if it has one]
    #[arg(long, value_name = "NAME")]
    pub(crate) state: Option<String>,
    /// Entries at most
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// How to print: CSV with a header, a JSON object a line, or a Parquet file
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: RecordFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum RecordFormat {
    #[default]
    Csv,
    Json,
    Parquet,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Arguments, Command};

    #[test]
    fn read_takes_an_operator_and_inspect_a_path() {
        let line =
            "flott state read /sp --operator window --state windows/timers --limit 3 -o json";
        let parsed = Arguments::try_parse_from(line.split_whitespace()).unwrap();
        let Command::State(StateCommand::Read(read)) = parsed.command else {
            panic!("not read")
        };
        assert_eq!((read.limit, read.output), (Some(3), RecordFormat::Json));
        assert_eq!(read.state.as_deref(), Some("windows/timers"));
        for line in ["flott state", "flott state read /sp", "flott state inspect"] {
            let refused = Arguments::try_parse_from(line.split_whitespace());
            assert_eq!(refused.expect_err(line).exit_code(), 2, "{line}");
        }
    }
}
