//! What is in a savepoint or checkpoint, as `flott state inspect` prints it.

use flott_coordinator::Found;
use flott_proto::key_group::KeyGroupRange;
use flott_worker::saved_state::summary::{OperatorSummary, SubtaskSummary};
use serde::Serialize;

use super::{kind_name, time};

#[derive(Debug, Serialize)]
pub(crate) struct SavedState {
    pub(crate) path: String,
    pub(crate) kind: &'static str,
    /// Whether all of it is in that directory.
    pub(crate) self_contained: bool,
    pub(crate) job: String,
    pub(crate) job_name: String,
    pub(crate) checkpoint: u64,
    pub(crate) triggered_at: Option<String>,
    pub(crate) operators: Vec<SavedOperator>,
}

#[derive(Debug, Serialize)]
pub(crate) struct SavedOperator {
    pub(crate) uid: String,
    pub(crate) vertex: String,
    pub(crate) kind: &'static str,
    pub(crate) parallelism: u32,
    pub(crate) max_parallelism: u32,
    pub(crate) subtasks: Vec<SavedSubtask>,
}

#[derive(Debug, Serialize)]
pub(crate) struct SavedSubtask {
    pub(crate) subtask: u32,
    /// First and last.
    pub(crate) key_groups: [u16; 2],
    pub(crate) files: u64,
    pub(crate) file_bytes: u64,
    pub(crate) operator_bytes: u64,
}

impl SavedState {
    pub(crate) const COLUMNS: [&'static str; 8] = [
        "OPERATOR",
        "KIND",
        "SUBTASK",
        "KEY GROUPS",
        "MAX",
        "FILES",
        "FILE BYTES",
        "OPERATOR BYTES",
    ];

    pub(crate) fn new(found: Found, operators: Vec<OperatorSummary>) -> Self {
        let subtask = |subtask: SubtaskSummary| {
            let KeyGroupRange { first, last } = subtask.key_groups;
            SavedSubtask {
                subtask: subtask.subtask,
                key_groups: [first, last],
                files: subtask.files,
                file_bytes: subtask.file_bytes,
                operator_bytes: subtask.operator_bytes,
            }
        };
        let operator = |operator: OperatorSummary| SavedOperator {
            uid: operator.uid,
            vertex: operator.vertex,
            kind: operator.kind,
            parallelism: operator.parallelism,
            max_parallelism: operator.max_parallelism,
            subtasks: operator.subtasks.into_iter().map(subtask).collect(),
        };
        let self_contained = found.is_self_contained();
        Self {
            path: found.directory,
            kind: kind_name(found.metadata.kind()),
            self_contained,
            checkpoint: found.metadata.checkpoint_id,
            triggered_at: time(found.metadata.triggered_at_ms),
            job: found.metadata.job_id,
            job_name: found.metadata.job_name,
            operators: operators.into_iter().map(operator).collect(),
        }
    }

    /// What it is, in a line.
    pub(crate) fn headline(&self) -> String {
        let place = if self.self_contained {
            "all of it is in its directory"
        } else {
            "its files are among those of its job"
        };
        format!(
            "{} {} of job {} ({}), {}; {place}",
            self.kind,
            self.checkpoint,
            self.job,
            self.job_name,
            self.triggered_at.as_deref().unwrap_or("at an unknown time"),
        )
    }

    /// A row for each subtask of each operator.
    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        let row = |operator: &SavedOperator, subtask: &SavedSubtask| {
            let [first, last] = subtask.key_groups;
            vec![
                operator.uid.clone(),
                operator.kind.to_owned(),
                format!("{}/{}", subtask.subtask, operator.parallelism),
                format!("{first}-{last}"),
                operator.max_parallelism.to_string(),
                subtask.files.to_string(),
                subtask.file_bytes.to_string(),
                subtask.operator_bytes.to_string(),
            ]
        };
        let of_operator = |operator| {
            let operator: &SavedOperator = operator;
            let subtasks = operator.subtasks.iter();
            subtasks.map(move |subtask| row(operator, subtask))
        };
        self.operators.iter().flat_map(of_operator).collect()
    }
}
