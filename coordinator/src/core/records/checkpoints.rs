//! A job's checkpoints as its record has them.

use flott_proto::Malformed;
use flott_proto::ids::{AttemptNumber, CheckpointId};
use flott_proto::wire;

use super::{subtasks_from_wire, vertices_to_wire};
use crate::core::checkpoint::{CheckpointKind, CompletedCheckpoint, PendingRecord, Summary};

pub(super) fn completed_to_wire(
    checkpoint: &CompletedCheckpoint,
) -> wire::CompletedCheckpointRecord {
    wire::CompletedCheckpointRecord {
        id: checkpoint.id.0,
        kind: wire::CheckpointKind::from(checkpoint.kind).into(),
        triggered_at_ms: checkpoint.triggered_at_ms,
        completed_at_ms: checkpoint.completed_at_ms,
        uploaded_bytes: checkpoint.uploaded_bytes,
        external_path: checkpoint.external_path.clone(),
        metadata_object: checkpoint.metadata_object.clone().unwrap_or_default(),
        vertices: vertices_to_wire(&checkpoint.subtasks, |_| 0),
    }
}

pub(super) fn completed_from_wire(
    record: wire::CompletedCheckpointRecord,
) -> Result<CompletedCheckpoint, Malformed> {
    Ok(CompletedCheckpoint {
        id: CheckpointId(record.id),
        kind: record.kind().try_into()?,
        triggered_at_ms: record.triggered_at_ms,
        completed_at_ms: record.completed_at_ms,
        uploaded_bytes: record.uploaded_bytes,
        external_path: record.external_path,
        metadata_object: Some(record.metadata_object).filter(|object| !object.is_empty()),
        subtasks: subtasks_from_wire(record.vertices)?,
    })
}

pub(super) fn pending_to_wire(pending: &PendingRecord) -> wire::PendingCheckpointRecord {
    wire::PendingCheckpointRecord {
        id: pending.id.0,
        kind: wire::CheckpointKind::from(pending.kind).into(),
        triggered_at_ms: pending.triggered_at_ms,
        base_checkpoint_id: pending.base.0,
        savepoint_directory: pending.savepoint_directory.clone(),
        attempt: pending.attempt.0,
    }
}

pub(super) fn pending_from_wire(
    record: wire::PendingCheckpointRecord,
) -> Result<PendingRecord, Malformed> {
    Ok(PendingRecord {
        id: CheckpointId(record.id),
        kind: record.kind().try_into()?,
        attempt: AttemptNumber(record.attempt),
        triggered_at_ms: record.triggered_at_ms,
        base: CheckpointId(record.base_checkpoint_id),
        savepoint_directory: record.savepoint_directory,
    })
}

pub(super) fn summary_to_wire(summary: &Summary) -> wire::CheckpointSummary {
    wire::CheckpointSummary {
        id: summary.id.0,
        kind: wire::CheckpointKind::from(summary.kind).into(),
        status: String::new(),
        triggered_at_ms: summary.triggered_at_ms,
        duration_ms: summary.duration_ms,
        size_bytes: summary.size,
        uploaded_bytes: summary.uploaded_bytes,
        path: summary.outcome.clone().unwrap_or_default(),
        failure: summary.outcome.clone().err().unwrap_or_default(),
        alignment: Some(summary.alignment.into()),
    }
}

pub(super) fn summary_from_wire(record: wire::CheckpointSummary) -> Result<Summary, Malformed> {
    let kind: CheckpointKind = record.kind().try_into()?;
    Ok(Summary {
        id: CheckpointId(record.id),
        kind,
        triggered_at_ms: record.triggered_at_ms,
        duration_ms: record.duration_ms,
        size: record.size_bytes,
        uploaded_bytes: record.uploaded_bytes,
        alignment: record.alignment.unwrap_or_default().into(),
        outcome: if record.failure.is_empty() {
            Ok(record.path)
        } else {
            Err(record.failure)
        },
    })
}

pub(super) fn retired_to_wire(
    (directory, not_before_ms): (&String, &i64),
) -> wire::RetiredDirectoryRecord {
    wire::RetiredDirectoryRecord {
        directory: directory.clone(),
        not_before_ms: *not_before_ms,
    }
}

pub(super) fn retired_from_wire(retired: wire::RetiredDirectoryRecord) -> (String, i64) {
    (retired.directory, retired.not_before_ms)
}
