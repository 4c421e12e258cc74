//! What makes a JobManager process end, by what its operator does next.

use std::path::PathBuf;

/// Why a JobManager could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Correct the named setting.
    #[error("configuration")]
    Configuration(#[from] flott_node::config::ConfigError),
    /// TLS, or its absence, cannot be as it is configured; the source says what to do.
    #[error("security")]
    Security(#[from] flott_node::tls::TlsError),
    /// Free the address, or choose another one.
    #[error(
        "cannot listen on {address} (see jobmanager.rpc.address, jobmanager.rpc.port, rest.port)"
    )]
    Listen {
        address: String,
        source: std::io::Error,
    },
    /// The data directory or the group cannot be used; the source says why and what to do.
    #[error("JobManager group with data in {dir}")]
    Raft {
        dir: PathBuf,
        source: crate::raft::RaftError,
    },
    /// A part of the process that it cannot do without has failed.
    #[error("{0}")]
    Failed(String),
}
