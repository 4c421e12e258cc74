//! What is done to a group, when, and for how long.
//!
//! - [`plan`]: which faults; pure, everything follows from the seed. [`inject`]: carries a plan out and writes down what
//!   really happened, for a run whose faults did not happen has shown nothing.

pub mod inject;
pub mod plan;
