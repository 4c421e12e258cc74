//! What ends a command without success, and with which exit code.

use std::path::PathBuf;

use flott_node::config::ConfigError;

use crate::client::ClientError;
use crate::kv::{KvError, Outcome};

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for something that cannot be meant. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// A `-D` of the command line is wrong. Exit code 2.
    #[error(transparent)]
    Override(ConfigError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Security(#[from] flott_node::tls::TlsError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{}: {source}", path.display())]
    Sql {
        path: PathBuf,
        source: flott_sql::SqlError,
    },
    #[error("{doing} {}: {source}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    /// A process of `flott local` did not come up, or could not be started.
    #[error("{0}")]
    Local(String),
    /// A JobManager or TaskManager ended because of a failure.
    #[error("{0}")]
    Process(String),
    /// What was asked is not possible as things are; the text says why and what to do.
    #[error("{0}")]
    Refused(String),
    /// Files are missing or damaged. They have been printed.
    #[error("{0}")]
    Damaged(String),
    /// There is no such job, or several.
    #[error("{0}")]
    NoSuchJob(String),
    /// A job that was waited for ended other than FINISHED. Its fate has been printed.
    #[error("job {id} ended {state}")]
    JobFailed { id: String, state: String },
    /// A call to the key-value space that changes nothing.
    #[error(transparent)]
    KvCall(#[from] KvError),
    /// A write to the key-value space.
    #[error("{}: {_0}", outcome(_0))]
    Unacknowledged(KvError),
    /// The key-value space is not as the command needs it: an absent key, a comparison that fails, a lease that is lost.
    #[error("{0}")]
    Kv(String),
    /// Measurements that failed or were disturbed have been printed.
    #[error("{0}")]
    Bench(String),
    /// The user left a job that goes on. Exit code 130, as of any command ended by Ctrl-C.
    #[error(
        "detached from job {id}, which goes on; `flott info {id}` shows it, `flott cancel {id}` ends it"
    )]
    Detached { id: String },
}

impl Error {
    /// For `map_err` on file operations; `doing` is e.g. "cannot read".
    pub(crate) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            doing,
            path,
            source,
        }
    }

    /// Of a server: its message with all causes.
    pub(crate) fn process(error: &dyn std::error::Error) -> Self {
        Self::Process(with_causes(error))
    }

    /// 2 for bad usage, 1 for anything that was refused or failed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_)
            | Self::Override(_)
            | Self::Client(ClientError::Address { .. })
            | Self::KvCall(KvError::Address { .. }) => 2,
            Self::Detached { .. } => 130,
            _ => 1,
        }
    }

    /// The message with all its causes, in one line.
    pub fn line(&self) -> String {
        with_causes(self)
    }
}

fn outcome(error: &KvError) -> &'static str {
    match error.outcome() {
        Outcome::NotApplied => "not applied",
        Outcome::Unknown => "unknown whether applied",
    }
}

pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some errors of libraries repeat their source.
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line.replace('\n', " ")
}
