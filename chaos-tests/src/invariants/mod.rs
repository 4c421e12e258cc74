//! What must hold whatever was broken.
//!
//! - [`committed`]: the rows of an exactly-once sink are the expected ones, each once.
//! - [`linearizable`]: clients cannot tell the group from one register that never fails.
//! - [`leaders`]: no term has two leaders.

pub mod committed;
pub mod leaders;
pub mod linearizable;
