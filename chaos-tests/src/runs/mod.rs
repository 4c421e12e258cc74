//! Whole runs: a group is set up, worked, broken, healed, and judged.
//!
//! - [`linearizability`]: registers under mixed faults. [`failover`]: how long the death of a leader is felt.
//!   [`power_loss`]: disks without power. [`many_jobs`]: what many jobs cost.
//! - [`until`]: awaiting a condition with a bound. [`command`]: the verbs of the program `chaos` for these.
//!
//! All but [`many_jobs`] run inside of a [`crate::cluster::room`].

pub mod command;
pub mod failover;
pub mod linearizability;
pub mod many_jobs;
pub mod power_loss;

use std::time::Duration;

use flott_node::SharedClock;

/// Between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Something did not happen in time. On a machine that is too busy this says nothing about the system.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Overdue(pub String);

/// Asks until `condition` is `Ok`; its last complaint if that takes longer than `deadline`.
pub async fn until<T>(
    clock: &SharedClock,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Result<T, String>,
) -> anyhow::Result<T> {
    let end = clock.monotonic() + deadline;
    loop {
        match condition().await {
            Ok(value) => return Ok(value),
            Err(complaint) if clock.monotonic() >= end => {
                return Err(Overdue(format!("{complaint} after {deadline:?}")).into());
            }
            Err(_) => clock.sleep(LOOK_EVERY).await,
        }
    }
}
