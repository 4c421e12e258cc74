//! Whole runs: a group is set up, worked, broken, healed, and judged.
//!
//! - [`linearizability`]: registers under mixed faults. [`failover`]: how long the death of a leader is felt.
//!   [`power_loss`]: disks without power. [`many_jobs`]: what many jobs cost.
//! - [`until`]: awaiting a condition with a bound.
//!
//! All but [`many_jobs`] run inside of a [`crate::cluster::room`].

pub mod failover;
pub mod linearizability;
pub mod many_jobs;
pub mod power_loss;

use std::time::Duration;

use anyhow::bail;
use flott_node::SharedClock;

/// Between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(20);

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
            Err(complaint) if clock.monotonic() >= end => bail!("{complaint} after {deadline:?}"),
            Err(_) => clock.sleep(LOOK_EVERY).await,
        }
    }
}
