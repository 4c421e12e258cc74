//! The generated protobuf types, messages and services alike.
#![allow(
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes_without_reason
)]

tonic::include_proto!("flott.v1");
