//! The client of the key-value service against members that are played by the test.
//!
//! - [`fake`]: the members. [`session`]: calls follow the leader and outlive it. [`watches`]: so do watches and leases.

mod fake;
mod session;
mod watches;
