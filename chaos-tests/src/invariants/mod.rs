//! What must hold whatever was broken.
//!
//! - [`committed`]: the rows of an exactly-once sink are the expected ones, each once.
//! - [`linearizable`]: clients cannot tell the group from one register that never fails.
//! - [`same_rows`]: two runs of one query commit the same.
//! - [`sequence`]: no record is lost, twice, out of order or unknown.
//! - [`jobs`]: what was acknowledged is there once, what has ended stays ended. [`checkpoint_log`]: completed checkpoints only
//!   grow in number.
//! - [`bank`]: money is neither made nor lost.
//! - [`leaders`]: no term has two leaders. [`tenants`]: a namespace neither sees nor changes what is another's.

pub mod bank;
pub mod checkpoint_log;
pub mod committed;
pub mod jobs;
pub mod leaders;
pub mod linearizable;
pub mod same_rows;
pub mod sequence;
pub mod tenants;
