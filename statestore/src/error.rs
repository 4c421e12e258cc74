//! What can go wrong with keyed state, by what the caller may do about it.

use std::io;
use std::path::{Path, PathBuf};

use flott_node::storage;

/// Why state could not be read, written, saved or restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Object storage did not do its part. An upload declines its checkpoint; a restore may be tried again if
    /// [`storage::Error::is_transient`].
    #[error("checkpoint storage failed")]
    Storage(#[from] storage::Error),
    /// The checkpoint cannot be restored: use an earlier one.
    #[error("state file {path} is missing from the checkpoint storage")]
    Missing { path: String },
    /// The checkpoint cannot be restored: use an earlier one. Or, for a path on local disk: restart the task.
    #[error("state file {path} is corrupt: {reason}")]
    Corrupt { path: String, reason: String },
    /// The handles do not make up the whole state of the key groups asked for: use an earlier checkpoint.
    #[error("the state to restore is not whole: {reason}")]
    Incomplete { reason: String },
    /// The job was submitted with another `pipeline.max-parallelism` than its state has.
    #[error(
        "the state has max parallelism {stored} and the job asks for {asked}; set pipeline.max-parallelism to {stored}"
    )]
    MaxParallelism { stored: u32, asked: u32 },
    /// Written by a later version: upgrade this one.
    #[error(
        "the state has format {stored}, this version reads {}; upgrade it",
        crate::keyed::FORMAT
    )]
    Format { stored: u32 },
    /// The operator has changed how it keeps this state.
    #[error(
        "state {name} of operator {operator_uid} is stored as {stored}, and asked for as {asked}; give the operator \
         another uid, or the state another name"
    )]
    OtherForm {
        operator_uid: String,
        name: String,
        stored: String,
        asked: String,
    },
    /// A job with that many states cannot be expressed.
    #[error("more than {max} states in one task")]
    TooManyStates { max: u16 },
    /// What an earlier run left behind has to be removed first.
    #[error("state directory {} is not empty; remove what an earlier run left there", dir.display())]
    NotEmpty { dir: PathBuf },
    /// The local disk failed: restart the task, elsewhere if it happens again.
    #[error("local state {} failed", path.display())]
    Local {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The local database failed: restart the task, elsewhere if it happens again.
    #[error("the state backend failed to {action}")]
    Backend {
        action: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    pub(crate) fn local(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Local { path, source }
    }
}
