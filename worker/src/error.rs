//! What can go wrong in a worker. Each variant is a decision of its caller: retry, fail the job for good, or stop quietly.

use std::fmt::Display;
use std::io;
use std::path::Path;

use flott_proto::Malformed;
use flott_proto::ids::{CheckpointId, TaskManagerId};
use flott_proto::state_handle::SubtaskState;

/// Why a task or the TaskManager could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The task was told to end: not a failure.
    #[error("canceled")]
    Canceled,
    /// The job or its data is wrong in a way that another attempt meets again: a malformed row, a type that does not
    /// fit, a missing input file. The text names the place (file and line, operator, column) and the remedy.
    #[error("{place}: {what}")]
    User { place: String, what: String },
    /// A data connection broke; `peer` is the TaskManager at its other end.
    #[error("data connection with task manager {peer} was lost: {what}")]
    ConnectionLost { peer: TaskManagerId, what: String },
    /// A peer sent what the exchange's protocol does not allow.
    #[error("data connection: {0}")]
    Protocol(String),
    /// The keyed state or its storage.
    #[error(transparent)]
    State(#[from] flott_statestore::Error),
    /// What a task was to begin from is damaged or gone: the next attempt begins from an earlier checkpoint.
    #[error("{}", restored_from(*checkpoint))]
    UnusableState {
        /// [`CheckpointId::NONE`]: what the job was submitted to start from.
        checkpoint: CheckpointId,
        /// The file; none if the files are there and do not make up the whole state.
        path: Option<String>,
        source: Box<flott_statestore::Error>,
    },
    /// The checkpoint storage cannot be opened.
    #[error("cannot open the checkpoint storage {root}: {what}")]
    Storage { root: String, what: String },
    /// A local disk, a socket or a process resource.
    #[error("{place}")]
    Io {
        place: String,
        #[source]
        source: io::Error,
    },
    /// Columns could not be computed; on data that passed its source this is a fault of ours or of the machine.
    #[error("{place}")]
    Arrow {
        place: String,
        source: Box<arrow::error::ArrowError>,
    },
    /// Input from the leader that the protocol does not allow.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The process's or the job's configuration.
    #[error("configuration: {0}")]
    Configuration(String),
    /// TLS, or its absence, cannot be as it is configured; the text says what to do.
    #[error(transparent)]
    Security(#[from] flott_node::tls::TlsError),
    /// A task's code panicked; the process goes on.
    #[error("task panicked: {0}")]
    Panicked(String),
    /// A background task that the TaskManager cannot do without has ended.
    #[error("task manager cannot go on: {0}")]
    Fatal(String),
}

impl Error {
    /// The job or its data is wrong at `place`.
    pub fn user(place: impl Into<String>, what: impl Display) -> Self {
        Self::User {
            place: place.into(),
            what: what.to_string(),
        }
    }

    /// For `map_err`: an I/O error while doing `verb` with `path`.
    pub fn io(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let place = format!("cannot {verb} {}", path.display());
        move |source| Self::Io { place, source }
    }

    /// For `map_err`: an Arrow error at `place`.
    pub fn arrow(place: impl Into<String>) -> impl FnOnce(arrow::error::ArrowError) -> Self {
        let place = place.into();
        move |source| Self::Arrow {
            place,
            source: Box::new(source),
        }
    }

    /// For `map_err`: `restored`, the state of `checkpoint`, could not be restored. Storage that cannot be reached, and
    /// damage of local files, are no fault of the checkpoint.
    pub fn restoring(
        checkpoint: CheckpointId,
        restored: &[SubtaskState],
    ) -> impl FnOnce(flott_statestore::Error) -> Self {
        use flott_statestore::Error as State;
        move |source| {
            let is_restored =
                |path: &str| restored.iter().any(|state| state.files.contains_key(path));
            let path = match &source {
                State::Missing { path } | State::Corrupt { path, .. } if is_restored(path) => {
                    Some(path.clone())
                }
                State::Incomplete { .. } => None,
                _ => return Self::State(source),
            };
            Self::UnusableState {
                checkpoint,
                path,
                source: Box::new(source),
            }
        }
    }

    /// Whether another attempt may succeed.
    pub fn retryable(&self) -> bool {
        !matches!(
            self,
            Self::User { .. } | Self::Malformed(_) | Self::Configuration(_)
        )
    }

    /// The TaskManager whose data connection broke, if that is what happened.
    pub fn lost_peer(&self) -> Option<&TaskManagerId> {
        match self {
            Self::ConnectionLost { peer, .. } => Some(peer),
            _ => None,
        }
    }

    /// The error and all its sources in one line, for reports that leave the process.
    pub fn full_text(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            let part = error.to_string();
            if !text.contains(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
            source = error.source();
        }
        text
    }
}

fn restored_from(checkpoint: CheckpointId) -> String {
    if checkpoint.is_some() {
        format!("the state of checkpoint {checkpoint} cannot be restored")
    } else {
        "the state that the job was submitted to start from cannot be restored".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use flott_proto::key_group::KeyGroupRange;
    use flott_proto::state_handle::StateFile;
    use flott_statestore::Error as State;

    use super::*;

    #[test]
    fn only_damage_of_the_restored_files_is_blamed_on_the_checkpoint() {
        let file = StateFile {
            path: "c/default/j/shared/1-1-v-0/00000001".into(),
            local_name: "1.sst".into(),
            size: 1,
            crc32c: 0,
            tablets: vec![KeyGroupRange { first: 0, last: 1 }],
        };
        let path = file.path.clone();
        let files = [(path.clone(), file)].into();
        let restored = [SubtaskState {
            files,
            ..SubtaskState::default()
        }];
        let corrupt = |path: &str| State::Corrupt {
            path: path.to_owned(),
            reason: "its CRC-32C is 0".to_owned(),
        };
        let incomplete = State::Incomplete {
            reason: "key group 3 is missing".to_owned(),
        };
        for (error, blamed) in [
            (State::Missing { path: path.clone() }, Some(Some(&path))),
            (corrupt(&path), Some(Some(&path))),
            (incomplete, Some(None)),
            (corrupt("/local/db/1.sst"), None),
            (State::TooManyStates { max: 1 }, None),
        ] {
            let error = Error::restoring(CheckpointId(7), &restored)(error);
            let found = match &error {
                Error::UnusableState { path, .. } => Some(path.as_ref()),
                _ => None,
            };
            assert_eq!(found, blamed, "{error}");
            assert!(error.retryable());
        }
        let missing = Error::restoring(CheckpointId(7), &restored)(State::Missing { path });
        assert_eq!(
            missing.full_text(),
            "the state of checkpoint 7 cannot be restored: state file c/default/j/shared/1-1-v-0/00000001 is missing \
             from the checkpoint storage"
        );
    }

    #[test]
    fn only_faults_of_the_job_are_final() {
        assert!(!Error::user("flights.csv:7", "not a number").retryable());
        assert!(Error::Panicked("index".into()).retryable());
        let peer: TaskManagerId = "tm-2".parse().unwrap();
        let lost = Error::ConnectionLost {
            peer: peer.clone(),
            what: "closed".into(),
        };
        assert!(lost.retryable());
        assert_eq!(lost.lost_peer(), Some(&peer));
    }

    #[test]
    fn the_full_text_names_every_source_once() {
        let error = Error::io("open", Path::new("/x"))(io::Error::other("disk on fire"));
        assert_eq!(error.full_text(), "cannot open /x: disk on fire");
    }
}
