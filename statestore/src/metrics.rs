//! The names of this crate's metrics, and nothing else.

use metrics::counter;

/// A checkpoint's or savepoint's upload has ended well.
pub(crate) fn uploaded(files: usize, bytes: u64, reused_files: usize) {
    counter!("flott_state_uploaded_files_total").increment(files as u64);
    counter!("flott_state_uploaded_bytes_total").increment(bytes);
    counter!("flott_state_reused_files_total").increment(reused_files as u64);
}

/// A file that a restore needs was on this machine.
pub(crate) fn found_locally(bytes: u64) {
    counter!("flott_state_local_files_total").increment(1);
    counter!("flott_state_local_bytes_total").increment(bytes);
}

/// A file has come down from object storage.
pub(crate) fn downloaded(bytes: u64) {
    counter!("flott_state_downloaded_files_total").increment(1);
    counter!("flott_state_downloaded_bytes_total").increment(bytes);
}
