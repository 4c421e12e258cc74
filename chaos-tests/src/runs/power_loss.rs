//! Power cuts: the disks of one, two or all members stop at a random moment under load, the processes die, the power
//! comes back, and every acknowledged write must be there.
//!
//! SIGKILL cannot find a missing fsync, because what a process wrote lives on in the page cache. This can; and
//! [`Sync::Ignored`] shows that it does.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use flott_chaos_basis::random::Random;
use flott_node::SharedClock;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cluster::disks::{self, Disk};
use crate::cluster::group::{Group, Options};
use crate::cluster::network::Network;
use crate::report::Verdict;
use crate::workload::ledger::{Audit, Ledger};

const MEMBERS: u32 = 3;
/// Writers: each has one write under way.
const WRITERS: u32 = 8;
/// Pause of a writer between two writes.
const PACE: Duration = Duration::from_millis(4);
/// For an answer; then another member is asked.
const DEADLINE: Duration = Duration::from_millis(500);
/// Writes that must be acknowledged before each cut.
const BEFORE: u64 = 200;
/// For healthy members to do anything that they must do. A debug build that recovers is slow.
const HEALTHY: Duration = Duration::from_secs(60);
/// With all syncs ignored nothing may come back at all; then there is no need to wait long for it.
const HOPELESS: Duration = Duration::from_secs(20);

/// What the members' fsync does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// What it should.
    Works,
    /// Nothing: the fault that this test has to find.
    Ignored,
}

/// What was found.
#[derive(Debug)]
pub struct Outcome {
    /// Cuts by the number of members that they struck: one, two, all.
    pub cuts: [u32; MEMBERS as usize],
    /// What became of all that was acknowledged.
    pub audit: Audit,
    /// All promises kept?
    pub verdict: Verdict,
}

/// Cuts the power `cycles` times. Stops at the first promise that was broken.
pub async fn run(
    cycles: u32,
    seed: u64,
    sync: Sync,
    directory: &Path,
    network: Arc<Network>,
    clock: &SharedClock,
    mut told: impl FnMut(u32, &[u32], &Audit),
) -> anyhow::Result<Outcome> {
    let mut powered = Vec::new();
    for member in 1..=MEMBERS {
        let image = directory.join(format!("jm{member}.img"));
        powered.push(Disk::make(&image, &directory.join(format!("jm{member}"))).await?);
    }
    let mut options = Options::default();
    if sync == Sync::Ignored {
        let library = disks::build_no_sync(directory).await?;
        options
            .environment
            .push(("LD_PRELOAD".into(), library.into_os_string()));
    }
    let group = Group::start(directory, MEMBERS, network, options).await?;
    let ledger = Ledger::new(MEMBERS, clock.clone(), PACE, DEADLINE);
    let stop = CancellationToken::new();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(ledger.clone().write(writer, stop.clone()));
    }
    let healthy = match sync {
        Sync::Works => HEALTHY,
        Sync::Ignored => HOPELESS,
    };
    let mut random = Random::new(seed);
    let mut outcome = Outcome {
        cuts: [0; MEMBERS as usize],
        audit: Audit::default(),
        verdict: Verdict::Held,
    };
    for cycle in 1..=cycles {
        ledger.until_acknowledged(BEFORE, HEALTHY).await?;
        if sync == Sync::Ignored && cycle == 1 {
            // The members as such survive; what is acknowledged from here on is at stake.
            for disk in &powered {
                disk.sync().await?;
            }
            ledger.until_acknowledged(BEFORE, HEALTHY).await?;
        }
        let struck = choose(&mut random, sync);
        outcome.cuts[struck.len() - 1] += 1;
        clock
            .sleep(random.duration(Duration::ZERO, Duration::from_millis(500)))
            .await;
        let disks: Vec<_> = struck.iter().map(|m| &powered[*m as usize - 1]).collect();
        disks::cut_power(&disks).await?;
        // Real processes lose their power at the same moment. A while of life without a disk is harder on them: nothing
        // may be acknowledged in it.
        clock
            .sleep(random.duration(Duration::ZERO, Duration::from_millis(200)))
            .await;
        for member in &struck {
            group.put_down(*member).await?;
        }
        for (member, disk) in struck.iter().zip(&disks) {
            disk.repower().await?;
            group.start_member(*member)?;
        }
        let audited = async {
            ledger.until_acknowledged(1, healthy).await?;
            ledger.audit(healthy).await
        };
        match audited.await.context("after the power came back") {
            Ok(audit) => outcome.audit = audit,
            Err(error) => {
                outcome.verdict = Verdict::Violated(vec![format!("{error:#}")]);
                break;
            }
        }
        told(cycle, &struck, &outcome.audit);
        if !outcome.audit.is_clean() {
            outcome.verdict = Verdict::Violated(vec![format!("{:?}", outcome.audit)]);
            break;
        }
        if let Err(error) = group.check_alive() {
            outcome.verdict = Verdict::Violated(vec![format!("{error:#}")]);
            break;
        }
    }
    stop.cancel();
    while let Some(ended) = writers.join_next().await {
        ended?;
    }
    group.put_all_down().await?;
    Ok(outcome)
}

/// Who loses power: one, two or all, at equal odds. Without syncs all: what another member still holds in memory would
/// make up for it.
fn choose(random: &mut Random, sync: Sync) -> Vec<u32> {
    let count = match sync {
        Sync::Works => 1 + random.below(u64::from(MEMBERS)) as u32,
        Sync::Ignored => MEMBERS,
    };
    let first = random.below(u64::from(MEMBERS)) as u32;
    (0..count)
        .map(|step| (first + step) % MEMBERS + 1)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_members_loses_power_and_each_of_them() {
        let mut random = Random::new(1);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..100 {
            seen.insert(choose(&mut random, Sync::Works));
        }
        assert_eq!(seen.len(), 9, "{seen:?}");
        assert_eq!(choose(&mut random, Sync::Ignored).len(), 3);
    }
}
