//! What is done to a cluster while it is being broken, so that the right result is known without running anything.
//!
//! - [`flights`]: a job with an input made up by rule. [`registers`]: clients of the key-value space that read, write and
//!   swap the same few keys. [`ledger`]: writers of many keys, each written once, all read back at the end.
//! - [`bank`]: accounts between which clients move money.
//! - [`reference`]: queries whose right results are what they commit without faults.
//! - [`sequence`]: a job over any number of records whose right result is a formula.
//! - [`tenants`]: a namespace that does its worst, beside one that is well-behaved.
//! - [`client`]: one attempt, one answer.

pub mod bank;
pub mod client;
pub mod flights;
pub mod ledger;
pub mod reference;
pub mod registers;
pub mod sequence;
pub mod tenants;
