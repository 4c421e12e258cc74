//! Tests of the worker as its users see it, in one binary.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helper may fail where it stands"
)]

mod dataflow_chain;
mod dataflow_files;
mod dataflow_graphs;
mod dataflow_harness;
mod dataflow_job;
mod dataflow_nexmark;
mod dataflow_sink;
mod runtime;
mod runtime_cluster;
mod runtime_network;
mod saved_state;
mod unaligned;
