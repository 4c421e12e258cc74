//! How a client shows who it is, and the arguments of `flott certs`.

use std::path::PathBuf;

use clap::{ArgAction, Args, Subcommand, ValueEnum, builder::BoolishValueParser};
use flott_node::tls;

use super::OutputFormat;

/// TLS of a client. Given none of these, a client speaks plain text, to this machine only.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SecurityArgs {
    /// Speak TLS, and trust the CAs in this PEM file
    #[arg(long, env = "FLOTT_TLS_CA", value_name = "FILE")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Show the certificate in this PEM file
    #[arg(long, env = "FLOTT_TLS_CERT", value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, env = "FLOTT_TLS_KEY", value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Take the keys security.* from this configuration file instead
    #[arg(long, env = "FLOTT_CLIENT_CONFIG", value_name = "FILE")]
    pub(crate) client_config: Option<PathBuf>,
    /// Without TLS, speak plain text to other machines too: readable and forgeable by anybody on the way
    #[arg(long, env = "FLOTT_INSECURE", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub(crate) insecure: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CertsArgs {
    /// Where the CA and the certificates are
    #[arg(long, global = true, default_value = "flott-certs")]
    pub(crate) dir: PathBuf,
    /// How to print results
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub(crate) output: OutputFormat,
    #[command(subcommand)]
    pub(crate) command: CertsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertsCommand {
    /// Make a CA: DIR/ca.pem, to be trusted, and DIR/ca.key, to be kept
    Init(InitArgs),
    /// Issue a certificate: DIR/ROLE-NAME.pem and its key
    ///
    /// A jobmanager's NAME is where the others reach it: host, host:port, or its node id. It is checked against the
    /// membership, so one member cannot speak for another. The NAME of a taskmanager or client is for people.
    Issue(IssueArgs),
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Name of the cluster in all certificates; processes and clients of another name are refused
    #[arg(long, default_value = "flott")]
    pub(crate) cluster: String,
    /// Days until the CA expires
    #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub(crate) days: u32,
}

#[derive(Debug, Args)]
pub(crate) struct IssueArgs {
    /// What its holder is to the cluster
    #[arg(value_enum)]
    pub(crate) role: CertificateRole,
    /// Who its holder is
    pub(crate) name: String,
    /// Names and addresses under which its holder is dialled [default: the host in NAME]
    #[arg(long, value_delimiter = ',', value_name = "HOST,…")]
    pub(crate) host: Vec<String>,
    /// Days until it expires
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub(crate) days: u32,
    /// Replace the certificate that is there by a newer one with the same key; running processes take it up by themselves
    #[arg(long)]
    pub(crate) renew: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub(crate) enum CertificateRole {
    JobManager,
    TaskManager,
    Client,
}

impl From<CertificateRole> for tls::Role {
    fn from(role: CertificateRole) -> Self {
        match role {
            CertificateRole::JobManager => Self::JobManager,
            CertificateRole::TaskManager => Self::TaskManager,
            CertificateRole::Client => Self::Client,
        }
    }
}
