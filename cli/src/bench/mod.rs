//! Loads and their figures: what `flott bench` runs, and what other systems are compared with.
//!
//! - [`load`]: keeps a number of requests in flight and measures each. It knows a system only as a [`load::Place`].
//! - [`figures`]: what came of it, as a table and as JSON.
//! - [`metadata`]: Flott's key-value space as such a system.
//!
//! What must stay true: every system is driven by the same code with the same keys, and measured by the same clock.

pub mod figures;
pub mod load;
pub mod metadata;

/// How many keys a load uses.
pub const KEYS: usize = 256;

/// The key of a place in flight: its own, while there are no more places than keys.
pub fn key(prefix: &str, place: usize) -> String {
    format!("{prefix}{:03}", place % KEYS)
}
