//! The SQL compiler as its callers see it: scripts in, graphs or refusals out.

#![expect(
    clippy::unwrap_used,
    reason = "a test may panic, in its helpers as well"
)]

mod compiler;
mod decoders;
mod golden;
mod hostile;
mod meaning;
mod round_trip;
