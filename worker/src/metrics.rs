//! Every metric of the TaskManager, and the only place that names one.

use std::time::Duration;

use flott_proto::state_handle::Alignment;
use metrics::{counter, gauge, histogram};

/// A task began on this TaskManager.
pub(crate) fn task_started() {
    gauge!("flott_taskmanager_tasks").increment(1);
}

/// A task ended, in that state.
pub(crate) fn task_ended(state: &'static str) {
    gauge!("flott_taskmanager_tasks").decrement(1);
    counter!("flott_taskmanager_tasks_ended_total", "state" => state).increment(1);
}

/// What the tasks of a vertex have counted since the last call.
pub(crate) fn task_progress(
    job: &str,
    vertex: &str,
    subtask: u32,
    rise: &flott_proto::wire::TaskCounters,
) {
    let labels = [
        ("job", job.to_owned()),
        ("vertex", vertex.to_owned()),
        ("subtask", subtask.to_string()),
    ];
    counter!("flott_task_records_in_total", &labels).increment(rise.records_in);
    counter!("flott_task_records_out_total", &labels).increment(rise.records_out);
    counter!("flott_task_late_records_dropped_total", &labels).increment(rise.late_records_dropped);
    counter!("flott_task_parse_errors_skipped_total", &labels).increment(rise.parse_errors_skipped);
}

/// The synchronous part of a checkpoint in one task.
pub(crate) fn checkpoint_taken(sync: Duration, alignment: Alignment) {
    histogram!("flott_task_checkpoint_sync_seconds").record(sync);
    histogram!("flott_task_checkpoint_alignment_seconds").record(alignment.duration);
    if alignment.unaligned {
        counter!("flott_task_checkpoints_unaligned_total").increment(1);
        counter!("flott_task_checkpoint_in_flight_bytes_total")
            .increment(alignment.in_flight_bytes);
    }
}

/// The asynchronous part of a checkpoint in one task.
pub(crate) fn checkpoint_uploaded(took: Duration) {
    histogram!("flott_task_checkpoint_async_seconds").record(took);
}

/// A data connection, in either direction.
pub(crate) fn connection_opened() {
    gauge!("flott_taskmanager_data_connections").increment(1);
}

pub(crate) fn connection_closed() {
    gauge!("flott_taskmanager_data_connections").decrement(1);
}

/// Bytes of frames.
pub(crate) fn bytes_sent(count: usize) {
    counter!("flott_taskmanager_data_sent_bytes_total").increment(count as u64);
}

pub(crate) fn bytes_received(count: usize) {
    counter!("flott_taskmanager_data_received_bytes_total").increment(count as u64);
}

/// A session with a leader began (it accepted the registration).
pub(crate) fn registered() {
    counter!("flott_taskmanager_registrations_total").increment(1);
}

/// A message of a deposed leader was refused.
pub(crate) fn message_fenced() {
    counter!("flott_taskmanager_fenced_messages_total").increment(1);
}

/// Acks that wait for a leader's word.
pub(crate) fn acks_held(count: usize) {
    gauge!("flott_taskmanager_held_acks").set(count as f64);
}
