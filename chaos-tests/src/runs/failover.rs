//! For how long the loss of a leader is felt: from the fault to the first write that another member acknowledges.
//!
//! - [`losses`]: SIGKILL, or a planned stop (SIGTERM) at which the leader hands over; under load. The member is started
//!   again and catches up before the next.
//! - [`pauses`]: SIGSTOP for seconds. This one runs as a history of registers, because the danger is not the wait but a
//!   leader that wakes up and still believes in itself.
//!
//! At the end everything that was acknowledged is read back.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use flott_chaos_basis::random::Random;
use flott_node::SharedClock;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::linearizability::{self, Course};
use super::until;
use crate::cluster::group::{Group, Options};
use crate::cluster::network::Network;
use crate::cluster::processes;
use crate::cluster::status::{applied, status};
use crate::faults::plan::{Fault, Plan};
use crate::report::{Durations, Verdict};
use crate::workload::ledger::{Acknowledged, Audit, Ledger};

const MEMBERS: u32 = 3;
/// Writers: each has one write under way.
const WRITERS: u32 = 8;
/// Pause of a writer between two writes: about a thousand writes a second in all.
const PACE: Duration = Duration::from_millis(5);
/// For an answer; then another member is asked.
const DEADLINE: Duration = Duration::from_millis(500);
/// Writes that must be acknowledged before the next fault.
const BETWEEN: u64 = 300;
/// For a group of healthy members to do anything that they must do.
const HEALTHY: Duration = Duration::from_secs(60);
/// A pause of the leader, and the time to recover after it.
const PAUSE: Duration = Duration::from_secs(5);
const RECOVERY: Duration = Duration::from_millis(2_500);
/// Registers while the leader is paused: enough that no history gets too long to be judged.
const PAUSED_KEYS: u32 = 40;

/// What was measured.
#[derive(Debug)]
pub struct Figures {
    /// From each fault to the first acknowledgement by another member.
    pub durations: Durations,
    /// What became of all that was acknowledged.
    pub audit: Audit,
    /// All promises kept?
    pub verdict: Verdict,
}

/// How leadership is taken from the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Stop,
}

/// Takes leadership away `count` times.
pub async fn losses(
    loss: Loss,
    count: u32,
    seed: u64,
    directory: &Path,
    network: Arc<Network>,
    clock: &SharedClock,
    mut told: impl FnMut(u32, Duration),
) -> anyhow::Result<Figures> {
    let group = Group::start(directory, MEMBERS, network, Options::default()).await?;
    let ledger = Ledger::new(MEMBERS, clock.clone(), PACE, DEADLINE);
    let stop = CancellationToken::new();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(ledger.clone().write(writer, stop.clone()));
    }
    let mut random = Random::new(seed);
    let mut durations = Durations::default();
    for number in 1..=count {
        ledger.until_acknowledged(BETWEEN, HEALTHY).await?;
        // Not always at the same point between two heartbeats.
        clock
            .sleep(random.duration(Duration::ZERO, Duration::from_millis(200)))
            .await;
        let leader = ledger.leader().context("writes were acknowledged")?;
        ledger.take_recent();
        let begin = clock.monotonic();
        match loss {
            Loss::Kill => {
                group.kill(leader).await?;
            }
            Loss::Stop => {
                let pid = group.pid(leader)?.context("the leader runs")?;
                processes::terminate(pid)?;
            }
        }
        let first = until(clock, HEALTHY, async || {
            let recent = ledger.take_recent();
            let by_another = |write: &&Acknowledged| write.member != leader && write.at > begin;
            recent
                .iter()
                .find(by_another)
                .map(|write| write.at)
                .ok_or_else(|| format!("nobody took over from member {leader}"))
        })
        .await?;
        let took = first - begin;
        durations.push(took);
        told(number, took);
        if loss == Loss::Stop {
            group.wait(leader, HEALTHY).await?;
        }
        group.start_member(leader)?;
        catch_up(leader, clock).await?;
        group.check_alive()?;
    }
    stop.cancel();
    while let Some(ended) = writers.join_next().await {
        ended?;
    }
    let audit = ledger.audit(HEALTHY).await?;
    group.check_alive()?;
    group.put_all_down().await?;
    let mut violations = Vec::new();
    if !audit.is_clean() {
        violations.push(format!("{audit:?}"));
    }
    Ok(Figures {
        durations,
        audit,
        verdict: Verdict::of(violations, Vec::new()),
    })
}

/// Waits until the member has applied what the leader had when it was asked first.
async fn catch_up(member: u32, clock: &SharedClock) -> anyhow::Result<()> {
    let mut wanted = None;
    until(clock, HEALTHY, async || {
        for asked in 1..=MEMBERS {
            let Some(status) = status(asked).await.filter(|status| status.leader != 0) else {
                continue;
            };
            let leader = applied(&status, status.leader as u32);
            wanted = wanted.or(leader);
            let reached = applied(&status, member);
            if reached.is_some() && wanted.is_some() && reached >= wanted {
                return Ok(());
            }
        }
        Err(format!("member {member} did not catch up with {wanted:?}"))
    })
    .await
}

/// The leader is paused `count` times for five seconds, while registers are read and written.
pub async fn pauses(
    count: u32,
    seed: u64,
    directory: &Path,
    network: Arc<Network>,
    clock: &SharedClock,
) -> anyhow::Result<(Durations, crate::report::HistoryReport)> {
    let course = Course {
        seed,
        members: MEMBERS,
        keys: PAUSED_KEYS,
        plan: Plan::pauses_of_the_leader(count, PAUSE, RECOVERY),
        options: Options::default(),
    };
    let (report, evidence) = linearizability::run(&course, directory, network, clock).await?;
    let writes = linearizability::acknowledged_writes(&evidence.history);
    let mut durations = Durations::default();
    for struck in &evidence.struck {
        let Ok((member, true)) = struck.member else {
            continue;
        };
        let begin = evidence.faults_from + struck.from;
        let first = writes.iter().find(|(at, by)| *at > begin && *by != member);
        if let Some((at, _)) = first {
            durations.push(*at - begin);
        }
    }
    let mut report = report;
    if durations.len() < count as usize && report.verdict == Verdict::Held {
        report.verdict = Verdict::Unknown(vec![format!(
            "only {} of {count} pauses struck a leader; faults: {:?}",
            durations.len(),
            report.faults.get(&Fault::Pause)
        )]);
    }
    Ok((durations, report))
}
