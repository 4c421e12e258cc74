//! The command line of `flott bench`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{NamespaceArgs, duration};

/// More calls in flight than a session holds would wait in the client, and be measured there.
const IN_FLIGHT_MAX: u64 = 4096;
/// What a value may be.
const VALUE_BYTES_MAX: u64 = 256 << 10;

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Durable writes, or linearizable reads, of the key-value space
    ///
    /// Every place in flight writes (reads) a key of its own, of 256, one request after the other, all over one
    /// connection that follows the leader. The keys lie under `flott-bench/` in the namespace, and are deleted at the
    /// end. A latency is that from the call to its answer in the client.
    #[command(after_help = "\
Examples:
  flott bench metadata -m host1:6123,host2:6123,host3:6123
  flott bench metadata --read --in-flight 256 --value 4096 --seconds 10 -o json")]
    Metadata(MetadataArgs),
}

#[derive(Debug, Args)]
pub(crate) struct MetadataArgs {
    /// How many requests are in flight at a time; one measurement for each number
    #[arg(long, default_value = "1,16,64,256", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..=IN_FLIGHT_MAX))]
    pub(crate) in_flight: Vec<u64>,
    /// Bytes of a value; one measurement for each size
    #[arg(long, default_value = "256,4096", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..=VALUE_BYTES_MAX))]
    pub(crate) value: Vec<u64>,
    /// How long each measurement takes, after the warm-up
    #[arg(long, default_value = "5", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// How long the load runs before it is measured, in seconds
    #[arg(long, default_value = "1.5", value_parser = seconds)]
    pub(crate) warmup: Duration,
    /// Read instead of write: linearizable reads
    #[arg(long)]
    pub(crate) read: bool,
    /// Connections that share the load
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub(crate) sessions: u64,
    /// Give every write a request id, so that it is remembered and could be repeated safely
    #[arg(long, conflicts_with = "read")]
    pub(crate) request_ids: bool,
    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,
}

/// A number of seconds, or a duration with its unit.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>().map(Duration::try_from_secs_f64) {
        Ok(Ok(seconds)) => Ok(seconds),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => duration(text),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Arguments, Command};
    use super::*;

    fn parse(line: &str) -> Result<MetadataArgs, clap::Error> {
        match Arguments::try_parse_from(line.split_whitespace())?.command {
            Command::Bench(BenchCommand::Metadata(arguments)) => Ok(arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn defaults_are_the_matrix_of_the_help() {
        let arguments = parse("flott bench metadata").unwrap();
        assert_eq!(
            (arguments.in_flight, arguments.value),
            (vec![1, 16, 64, 256], vec![256, 4096])
        );
        assert_eq!(arguments.warmup, Duration::from_millis(1500));
    }

    #[test]
    fn seconds_may_have_a_unit_and_nonsense_is_refused() {
        let line = "flott bench metadata --seconds 250ms --warmup 0 --in-flight 2";
        let arguments = parse(line).unwrap();
        assert_eq!(
            (arguments.seconds, arguments.warmup),
            (Duration::from_millis(250), Duration::ZERO)
        );
        for bad in [
            "--seconds -1",
            "--in-flight 0",
            "--value 300000",
            "--in-flight ,",
            "--seconds soon",
        ] {
            assert!(
                parse(&format!("flott bench metadata {bad}")).is_err(),
                "{bad}"
            );
        }
    }
}
