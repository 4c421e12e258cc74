//! The client library against JobManagers that are played by the test, and in `other_cluster` against real ones.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod client;
mod kv;
mod other_cluster;
