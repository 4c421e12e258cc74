//! Carries the steps of a plan out, each at its time, and undoes each; and says what became of it. On machines of others
//! [`super::strike_remote`] does one.
//!
//! For each: whom it means is found out, its undo is written to disk, it is applied, it lives for its time, it is undone.
//! What must stay true: a step counts as installed only if it did something to somebody.

use std::sync::Arc;
use std::time::Duration;

use flott_node::SharedClock;
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::fault::{Kind, Step};
use super::lines::{pairs, rule, struck};
use super::undo::{Journal, Undo};
use super::{damage, inside, memory, operate, pressure};
use crate::cluster::processes;
use crate::target::Node;
use crate::target::client::Client;
use crate::target::local::Local;
use crate::target::netns::switch::Tally;
use crate::target::store::{Store, Trouble};

/// A flapping process is away for so long, then back for so long.
const FLAP: Duration = Duration::from_secs(1);
/// Or it has ended in this very moment.
pub(super) const NOT_RUNNING: &str = "it does not run";
/// Between two resets of a process's connections.
const RESET_EVERY: Duration = Duration::from_millis(200);

/// The cluster that is struck, and what is needed for it.
#[derive(Debug)]
pub struct Site {
    #[expect(missing_docs, reason = "its name says it")]
    pub local: Arc<Local>,
    #[expect(missing_docs, reason = "its name says it")]
    pub client: Arc<Client>,
    #[expect(missing_docs, reason = "its name says it")]
    pub journal: Arc<Journal>,
    /// None: checkpoints lie in a directory.
    pub store: Option<Arc<Store>>,
    /// The sequence job.
    pub job: Option<String>,
    #[expect(missing_docs, reason = "its name says it")]
    pub clock: SharedClock,
    /// Held while a member is being replaced.
    pub replacing: Mutex<()>,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was done to these, and undone.
    Installed {
        #[expect(missing_docs, reason = "see above")]
        nodes: Vec<Node>,
        /// Whether the leader was among them.
        led: bool,
        /// Who of them ended by it, as it should, and was started again.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ended: Vec<Node>,
    },
    /// Nothing was done: why.
    Skipped(String),
    /// Perhaps something was done: why nobody knows.
    Indeterminate(String),
}

impl Outcome {
    /// Nothing was done.
    pub fn skipped(why: impl Into<String>) -> Self {
        Self::Skipped(why.into())
    }

    /// It was done to these, and nobody ended by it.
    pub fn installed(nodes: Vec<Node>, led: bool) -> Self {
        let ended = Vec::new();
        Self::Installed { nodes, led, ended }
    }
}

/// A step, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Struck {
    #[expect(missing_docs, reason = "its name says it")]
    pub step: Step,
    #[expect(missing_docs, reason = "its name says it")]
    pub outcome: Outcome,
    /// Milliseconds since the run began.
    pub from_ms: u64,
    #[expect(missing_docs, reason = "likewise")]
    pub until_ms: u64,
}

/// All steps, each by `strike`; `start` is when the run began. Each is told when it is undone. An error means that something
/// could not be undone, or that a process ended by itself.
pub async fn carry_out(
    steps: &[Step],
    clock: &SharedClock,
    start: Duration,
    strike: impl AsyncFn(&Step) -> anyhow::Result<Outcome>,
    told: impl Fn(&Struck),
) -> anyhow::Result<()> {
    let begin = clock.monotonic();
    let since = |from: Duration| clock.monotonic().saturating_sub(from);
    let one = async |step: &Step| {
        let due = Duration::from_millis(step.at_ms).saturating_sub(since(begin));
        clock.sleep(due).await;
        let from = since(start);
        let outcome = strike(step).await?;
        let struck = Struck {
            step: *step,
            outcome,
            from_ms: from.as_millis() as u64,
            until_ms: since(start).as_millis() as u64,
        };
        told(&struck);
        anyhow::Ok(())
    };
    let ended = join_all(steps.iter().map(one)).await;
    ended.into_iter().collect()
}

/// One step, on a cluster of our own.
pub async fn strike(step: &Step, site: &Site) -> anyhow::Result<Outcome> {
    let local = &site.local;
    let address = site.client.leader().await;
    let leader = address.and_then(|address| local.at(&address));
    let nodes = match step
        .whom
        .resolve(leader, &local.jobmanagers(), &local.taskmanagers())
    {
        Ok(nodes) => nodes,
        Err(why) => return Ok(Outcome::Skipped(why)),
    };
    let nodes = struck(step, nodes, &local.nodes());
    let led = leader.is_some_and(|leader| nodes.contains(&leader));
    let installed = |nodes: Vec<Node>| match nodes.is_empty() {
        false => Outcome::installed(nodes, led),
        true => Outcome::skipped(NOT_RUNNING),
    };
    let lasts = Duration::from_millis(step.lasts_ms);
    match step.kind {
        Kind::Kill => kill(step, site, nodes, lasts).await.map(installed),
        Kind::Pause => pause(step, site, nodes, lasts).await.map(installed),
        Kind::Isolate
        | Kind::Deaf
        | Kind::Mute
        | Kind::Slow
        | Kind::Thin
        | Kind::Split
        | Kind::Bridge => {
            trouble_lines(step, site, &nodes, lasts).await?;
            Ok(installed(nodes))
        }
        Kind::Loss | Kind::Duplicate | Kind::Reorder => {
            if !local.network.has_frames() {
                let why =
                    "a proxy carries connections, which lose nothing: --target netns has frames";
                return Ok(Outcome::skipped(why));
            }
            let before = count(step.kind, local.network.tally());
            trouble_lines(step, site, &nodes, lasts).await?;
            Ok(match count(step.kind, local.network.tally()) - before {
                0 => Outcome::skipped("it met no frame"),
                _ => installed(nodes),
            })
        }
        Kind::Flap => flap(step, site, &nodes, lasts)
            .await
            .map(|()| installed(nodes)),
        Kind::Reset => {
            let id = site
                .journal
                .begin(&step.text(), lasts, Undo::EndsWithHarness)?;
            let end = site.clock.monotonic() + lasts;
            let mut broken = 0;
            while site.clock.monotonic() < end {
                for node in &nodes {
                    broken += local.network.reset(*node).await?;
                }
                site.clock.sleep(RESET_EVERY).await;
            }
            site.journal.done(id)?;
            Ok(match broken {
                0 => Outcome::skipped("it had no connections"),
                _ => installed(nodes),
            })
        }
        Kind::StoreOutage | Kind::StoreRefusal | Kind::StoreSlow => {
            trouble_store(step, site, lasts).await
        }
        Kind::Transfer
        | Kind::Restart
        | Kind::Replace
        | Kind::Rescale
        | Kind::Savepoint
        | Kind::Upgrade => operate::carry_out(step, site, nodes, leader, lasts).await,
        Kind::ClockAhead
        | Kind::ClockBack
        | Kind::DiskFull
        | Kind::SyncError
        | Kind::DiskSlow
        | Kind::DiskHung => inside::strike(step, site, nodes, leader).await,
        Kind::FewFiles => pressure::few_files(step, site, nodes, leader).await,
        Kind::Busy => pressure::busy(step, site).await,
        Kind::BitFlip | Kind::TornSnapshot => damage::strike(step, site, nodes, leader).await,
        Kind::Memory => memory::strike(step, site, nodes, leader).await,
    }
}

/// Of what a kind does to frames, how often it was done.
fn count(kind: Kind, tally: Tally) -> u64 {
    match kind {
        Kind::Loss => tally.lost,
        Kind::Duplicate => tally.doubled,
        _ => tally.overtaken,
    }
}

async fn trouble_lines(
    step: &Step,
    site: &Site,
    nodes: &[Node],
    lasts: Duration,
) -> anyhow::Result<()> {
    let pairs = pairs(step, nodes, &site.local.nodes());
    let id = site
        .journal
        .begin(&step.text(), lasts, Undo::EndsWithHarness)?;
    let rules = site.local.network.rules();
    let number = rules.lay(pairs, rule(step));
    site.clock.sleep(lasts).await;
    rules.lift(number);
    site.journal.done(id)
}

async fn kill(
    step: &Step,
    site: &Site,
    nodes: Vec<Node>,
    lasts: Duration,
) -> anyhow::Result<Vec<Node>> {
    let id = site
        .journal
        .begin(&step.text(), lasts, Undo::EndsWithHarness)?;
    let mut killed = Vec::new();
    for node in nodes {
        if site.local.kill(node).await? {
            killed.push(node);
        }
    }
    if !killed.is_empty() {
        site.clock.sleep(lasts).await;
    }
    for node in &killed {
        // Another fault may have started it again already, or replaced it.
        if site.local.pid(*node).is_none() && site.local.nodes().contains(node) {
            site.local.start_process(*node)?;
        }
    }
    site.journal.done(id)?;
    Ok(killed)
}

async fn pause(
    step: &Step,
    site: &Site,
    nodes: Vec<Node>,
    lasts: Duration,
) -> anyhow::Result<Vec<Node>> {
    let mut paused = Vec::new();
    for node in nodes {
        let Some(pid) = site.local.pid(node) else {
            continue;
        };
        let Some(born) = processes::born(pid) else {
            continue;
        };
        let what = format!("{} ({node})", step.text());
        let id = site.journal.begin(&what, lasts, Undo::Wake { pid, born })?;
        // It may have ended since: then it is as with one that does not run.
        if processes::stop(pid).is_ok() {
            paused.push((node, pid, born, id));
        } else {
            site.journal.done(id)?;
        }
    }
    if !paused.is_empty() {
        site.clock.sleep(lasts).await;
    }
    for (_, pid, born, id) in &paused {
        if processes::born(*pid) == Some(*born) {
            // It may have been killed in this very moment.
            let _ = processes::go_on(*pid);
        }
        site.journal.done(*id)?;
    }
    Ok(paused.into_iter().map(|(node, ..)| node).collect())
}

async fn flap(step: &Step, site: &Site, nodes: &[Node], lasts: Duration) -> anyhow::Result<()> {
    let rules = site.local.network.rules();
    let id = site
        .journal
        .begin(&step.text(), lasts, Undo::EndsWithHarness)?;
    let end = site.clock.monotonic() + lasts;
    let pairs = pairs(step, nodes, &site.local.nodes());
    while site.clock.monotonic() < end {
        let number = rules.lay(pairs.clone(), rule(step));
        site.clock.sleep(FLAP).await;
        rules.lift(number);
        site.clock.sleep(FLAP).await;
    }
    site.journal.done(id)
}

async fn trouble_store(step: &Step, site: &Site, lasts: Duration) -> anyhow::Result<Outcome> {
    let Some(store) = &site.store else {
        return Ok(Outcome::Skipped("there is no object store".to_owned()));
    };
    let trouble = match step.kind {
        Kind::StoreOutage => Trouble::Outage,
        Kind::StoreRefusal => Trouble::Refusal,
        _ => Trouble::Slow(Duration::from_millis(step.amount)),
    };
    let id = site
        .journal
        .begin(&step.text(), lasts, Undo::EndsWithHarness)?;
    let number = store.begin(trouble);
    site.clock.sleep(lasts).await;
    store.lift(number);
    site.journal.done(id)?;
    Ok(Outcome::installed(Vec::new(), false))
}
