//! A type for every identifier, so that no two kinds can be confused.
//!
//! Numbers that order something (`LeaderEpoch`, `AttemptNumber`, `CheckpointId`) start at 1; 0 means "none yet".

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Malformed;

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $int:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl $name {
            /// The "none yet" value, below every real one.
            pub const NONE: Self = Self(0);

            /// The value after this one.
            ///
            /// Panics on overflow, which at one step a microsecond takes longer than any cluster lives.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("identifiers never wrap"))
            }

            /// Whether this is a real value, not [`Self::NONE`].
            pub fn is_some(self) -> bool {
                self != Self::NONE
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// A JobManager in its Raft group. Never reused, not even after the node is removed.
    NodeId, u64
);
number_id!(
    /// The log index of the entry by which a leader took office: unique and rising.
    LeaderEpoch, u64
);
number_id!(
    /// One try at running a job; rises with each restart.
    AttemptNumber, u32
);
number_id!(
    /// A checkpoint or savepoint of one job; rises and is never reused within the job.
    CheckpointId, u64
);

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The text as it stands on the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// A job: 32 lower-case hexadecimal digits, as in Flink.
    JobId
);
text_id!(
    /// A tenant: 1 to 63 characters of `[a-z0-9-]`, beginning with a letter or digit. A path component of every object.
    Namespace
);
text_id!(
    /// A lineage of the replicated state: made by `cluster init`, checked in every handshake. `[A-Za-z0-9._-]`.
    ClusterId
);
text_id!(
    /// A TaskManager process, unique to one start of it. `[A-Za-z0-9._:-]`, at most 128 characters.
    TaskManagerId
);
text_id!(
    /// A vertex of a JobGraph, stable across resubmissions. `[A-Za-z0-9._-]`, at most 128 characters.
    VertexId
);

impl JobId {
    /// A new id whose order follows its time of creation.
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7().simple().to_string())
    }
}

impl FromStr for JobId {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if text.len() == 32 && text.chars().all(hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Malformed::new(
                "job id",
                format!("{text:?} is not 32 lower-case hexadecimal digits"),
            ))
        }
    }
}

impl Namespace {
    /// The namespace of a client that names none.
    pub const DEFAULT: &'static str = "default";
}

impl Default for Namespace {
    fn default() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

impl FromStr for Namespace {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if (1..=63).contains(&text.len()) && text.chars().all(plain) && !text.starts_with('-') {
            Ok(Self(text.to_owned()))
        } else {
            Err(Malformed::new(
                "namespace",
                format!(
                    "{text:?} is not 1 to 63 characters of a-z, 0-9 and '-', beginning with a letter or digit"
                ),
            ))
        }
    }
}

/// Text that is safe as one component of a path or URL.
fn path_component(kind: &'static str, text: &str, also: &str) -> Result<String, Malformed> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c) || also.contains(c);
    if (1..=128).contains(&text.len()) && text.chars().all(allowed) && !text.starts_with('.') {
        Ok(text.to_owned())
    } else {
        Err(Malformed::new(
            kind,
            format!(
                "{text:?} is not 1 to 128 characters of A-Z, a-z, 0-9, and ._-{also}, not beginning with '.'"
            ),
        ))
    }
}

impl FromStr for ClusterId {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        path_component("cluster id", text, "").map(Self)
    }
}

impl FromStr for TaskManagerId {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        path_component("task manager id", text, ":").map(Self)
    }
}

impl FromStr for VertexId {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        path_component("vertex uid", text, "").map(Self)
    }
}

/// A subtask of a vertex of a job, independent of the attempt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubtaskId {
    pub vertex: VertexId,
    pub subtask: u32,
}

impl fmt::Display for SubtaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.vertex, self.subtask)
    }
}

/// One execution attempt of one subtask.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    pub job: JobId,
    pub attempt: AttemptNumber,
    pub subtask: SubtaskId,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}#{}", self.job, self.subtask, self.attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_job_ids_parse() {
        let id = JobId::generate();
        assert_eq!(id.as_str().parse::<JobId>().unwrap(), id);
    }

    #[test]
    fn ids_that_could_leave_their_directory_are_refused() {
        for bad in ["", "..", ".hidden", "a/b", "a b", "ä"] {
            assert!(bad.parse::<VertexId>().is_err(), "{bad:?}");
            assert!(bad.parse::<ClusterId>().is_err(), "{bad:?}");
            assert!(bad.parse::<TaskManagerId>().is_err(), "{bad:?}");
        }
        for bad in ["", "-a", "Prod", "a_b", &"a".repeat(64)] {
            assert!(bad.parse::<Namespace>().is_err(), "{bad:?}");
        }
        assert!("team-7".parse::<Namespace>().is_ok());
    }
}
