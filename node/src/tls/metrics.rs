//! The names of all metrics of TLS.

use metrics::{counter, gauge};

/// Somebody connected and did not get through the handshake.
pub(super) fn handshake_failed() {
    counter!("flott_tls_handshakes_failed_total").increment(1);
}

/// Renewed files are in use.
pub(super) fn reloaded() {
    counter!("flott_tls_reloads_total", "result" => "ok").increment(1);
}

/// Changed files are not usable; the ones before are still in use.
pub(super) fn reload_failed() {
    counter!("flott_tls_reloads_total", "result" => "failed").increment(1);
}

/// Seconds since the epoch at which what is in use expires.
pub(super) fn expires(certificate: i64, ca: i64) {
    let gauge = |of: &'static str, at: i64| {
        gauge!("flott_tls_expiry_timestamp_seconds", "of" => of).set(at as f64);
    };
    gauge("certificate", certificate);
    gauge("ca", ca);
}
