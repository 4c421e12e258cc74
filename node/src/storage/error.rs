//! What can go wrong with an object store, by what the caller may do about it.

use std::error::Error as StdError;
use std::io;
use std::path::{Path as LocalPath, PathBuf};

/// What went wrong, by what the caller may do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Retries are used up; a later try may succeed.
    #[error("storage unavailable for {path}")]
    Unavailable {
        path: String,
        #[source]
        source: object_store::Error,
    },
    /// There is no such object; trying again is useless.
    #[error("object {path} does not exist")]
    NotFound { path: String },
    /// The store refuses: credentials or file permissions have to be changed.
    #[error("access to {path} denied; check the credentials or the permissions")]
    Denied {
        path: String,
        #[source]
        source: object_store::Error,
    },
    /// The root cannot be used as it is written; the configuration has to be changed.
    #[error("storage root {root:?} is not usable: {reason}")]
    InvalidRoot { root: String, reason: String },
    /// The path is not one that every object store can hold.
    #[error("object path {path:?} is invalid")]
    InvalidPath {
        path: String,
        #[source]
        source: object_store::path::Error,
    },
    /// The local file of an upload or a download could not be read or written.
    #[error("local file {} failed", path.display())]
    Local {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Error {
    pub(super) fn of(path: &str, source: object_store::Error) -> Self {
        let path = path.to_owned();
        match source {
            source if says(&source, NO_BUCKET) => {
                let reason = "there is no such bucket; create it or correct its name".to_owned();
                Self::InvalidRoot { root: path, reason }
            }
            object_store::Error::NotFound { .. } => Self::NotFound { path },
            object_store::Error::InvalidPath { source } => Self::InvalidPath { path, source },
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => Self::Denied { path, source },
            source if is_permission_error(&source) || says(&source, REFUSALS) => {
                Self::Denied { path, source }
            }
            source => Self::Unavailable { path, source },
        }
    }

    pub(super) fn local(path: &LocalPath) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Local { path, source }
    }

    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// How S3 says that the bucket is missing, as against an object.
const NO_BUCKET: &[&str] = &["<Code>NoSuchBucket</Code>"];

/// How the client tells of a refused listing, and of a refusal inside the answer to a deletion. Only its words tell
/// these from other failures.
const REFUSALS: &[&str] = &[
    "status code: 401",
    "status code: 403",
    "(code: AccessDenied)",
];

fn says(error: &object_store::Error, phrases: &[&str]) -> bool {
    let text = error.to_string();
    phrases.iter().any(|phrase| text.contains(phrase))
}

/// The local file system's refusals come as an `io::Error` somewhere down the chain.
fn is_permission_error(error: &object_store::Error) -> bool {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return matches!(
                io.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            );
        }
        next = error.source();
    }
    false
}
