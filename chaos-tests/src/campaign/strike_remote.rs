//! Carries steps out on machines of others, through their shells, and undoes them there.
//!
//! ```text
//! journal ──▶ apply: the machine arms its own undo, then the fault ──▶ its time ──▶ undo, until it is undone ──▶ journal
//! ```
//!
//! What a machine lacks is skipped, in the machine's words. What must stay true: a step counts as installed only if every shell
//! that was to do it has said so, with its proof; a shell that was lost makes it indeterminate.

mod became;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use flott_node::SharedClock;
use futures::future::join_all;

use self::became::{Became, outcome_of};
use super::fault::{Kind, Step};
use super::lines::struck;
use super::operate;
use super::sides::{Side, cuts, speakers, with_neighbours};
use super::strike::{NOT_RUNNING, Outcome};
use super::undo::{Journal, Undo};
use crate::target::Node;
use crate::target::client::Client;
use crate::target::remote::inventory::Host;
use crate::target::remote::scripts::lines::{Shape, shape};
use crate::target::remote::scripts::packets::{Silence, cut, flap, reset};
use crate::target::remote::scripts::process::{End, Process, end, find, pause};
use crate::target::remote::scripts::{Fault, GRACE, Lease, Token, load};
use crate::target::remote::shell::Answer;
use crate::target::remote::{Remote, SHELL_BOUND};

/// For a process to end that was asked to, and for its shell to say so.
const END_BOUND: Duration = Duration::from_secs(60);
/// For the undo of a fault, tried again and again.
const UNDO_BOUND: Duration = Duration::from_secs(60);
/// For a supervisor to start a process again. The kubelet waits for five minutes, if it had to do so often.
const RESTART_BOUND: Duration = Duration::from_secs(360);
/// Between two tries.
const AGAIN: Duration = Duration::from_secs(1);

/// The cluster that is struck, and what is needed for it.
#[derive(Debug)]
pub struct Site {
    #[expect(missing_docs, reason = "its name says it")]
    pub remote: Arc<Remote>,
    #[expect(missing_docs, reason = "its name says it")]
    pub client: Arc<Client>,
    #[expect(missing_docs, reason = "its name says it")]
    pub journal: Arc<Journal>,
    /// The sequence job.
    pub job: Option<String>,
    #[expect(missing_docs, reason = "its name says it")]
    pub clock: SharedClock,
    /// When the run began, in milliseconds since 1970.
    pub run_ms: i64,
    /// That have a name by now.
    pub faults: AtomicU32,
}

/// What one shell is told.
struct Deed {
    /// Beside that process.
    at: Node,
    /// Whom it strikes.
    nodes: Vec<Node>,
    fault: Fault,
}

/// One step. An error is one of the harness.
pub async fn strike(step: &Step, site: &Site) -> anyhow::Result<Outcome> {
    if let Some(why) = beyond(step.kind) {
        return Ok(Outcome::skipped(why));
    }
    let remote = &site.remote;
    let address = site.client.leader().await;
    let leader = address.and_then(|address| remote.at(&address));
    let jobmanagers = remote.jobmanagers();
    let named = step
        .whom
        .resolve(leader, &jobmanagers, &remote.taskmanagers());
    let nodes = match named {
        Ok(named) => struck(step, named, &remote.nodes()),
        Err(why) => return Ok(Outcome::Skipped(why)),
    };
    let lasts = Duration::from_millis(step.lasts_ms);
    let deeds: Vec<Deed> = match step.kind {
        Kind::Kill => nodes
            .into_iter()
            .map(|node| site.deed(node, lasts, |lease| end(site.host(node), End::Kill, lease)))
            .collect(),
        Kind::Pause => return pauses(step, site, nodes, leader).await,
        Kind::Busy => busy(step, site, lasts),
        Kind::Restart => {
            let operation = restart(step, site);
            return Ok(operate::within(lasts, operation, Vec::new(), false).await);
        }
        Kind::Transfer | Kind::Rescale | Kind::Savepoint => {
            let operation = operate::ask(step, &site.client, site.job.as_deref());
            return Ok(operate::within(lasts, operation, Vec::new(), false).await);
        }
        _ => match network(step, site, &nodes, lasts) {
            Ok(deeds) => deeds,
            Err(why) => return Ok(Outcome::Skipped(why)),
        },
    };
    let became = act(step, site, &deeds, lasts).await?;
    Ok(outcome_of(&became, is_whole(step.kind), leader))
}

/// Why it is not done on machines of others.
fn beyond(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::StoreOutage | Kind::StoreRefusal | Kind::StoreSlow => {
            Some("the object store is theirs, and nothing of ours is before it")
        }
        Kind::Replace => Some("a new JobManager needs a machine, which nobody has named"),
        Kind::ClockAhead
        | Kind::ClockBack
        | Kind::DiskFull
        | Kind::SyncError
        | Kind::DiskSlow
        | Kind::DiskHung => {
            Some("the library that changes clocks and disks is in processes of our own only")
        }
        Kind::FewFiles | Kind::Memory => Some("limits of their processes are left alone"),
        Kind::BitFlip | Kind::TornSnapshot => Some("their files are left alone"),
        Kind::Upgrade => Some("their programs are left alone"),
        _ => None,
    }
}

/// Whether it is done everywhere or nowhere: half of a cut is another cut.
fn is_whole(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Isolate | Kind::Deaf | Kind::Mute | Kind::Split | Kind::Bridge
    )
}

/// Whether its script takes as long as it lasts, and undoes it.
fn is_within(kind: Kind) -> bool {
    matches!(kind, Kind::Flap | Kind::Reset)
}

impl Site {
    fn host(&self, node: Node) -> &Host {
        &self.remote.seat(node).host
    }

    fn deed(&self, node: Node, lives: Duration, fault: impl FnOnce(Lease) -> Fault) -> Deed {
        let number = self.faults.fetch_add(1, Ordering::Relaxed);
        let lease = Lease {
            token: Token {
                number,
                run_ms: self.run_ms,
            },
            lives,
            grace: GRACE,
        };
        Deed {
            at: node,
            nodes: vec![node],
            fault: fault(lease),
        }
    }
}

fn busy(step: &Step, site: &Site, lasts: Duration) -> Vec<Deed> {
    let remote = &site.remote;
    let on = |machine: Node| {
        let nodes = remote.nodes().into_iter();
        nodes
            .filter(|node| remote.machine(*node) == machine)
            .collect()
    };
    let machines = remote.machines().into_iter();
    machines
        .map(|machine| Deed {
            nodes: on(machine),
            ..site.deed(machine, lasts, |lease| load::busy(step.amount, lease))
        })
        .collect()
}

/// What each machine has to do for a fault of its lines; why it cannot be done.
fn network(step: &Step, site: &Site, nodes: &[Node], lasts: Duration) -> Result<Vec<Deed>, String> {
    let remote = &site.remote;
    let all = remote.nodes();
    let machine = |node: Node| remote.machine(node);
    let struck = match step.kind {
        Kind::Bridge => nodes.to_vec(),
        _ => with_neighbours(nodes, &all, &machine),
    };
    let change = match step.kind {
        Kind::Slow => Some(Shape::Late(step.amount)),
        Kind::Thin => Some(Shape::Thin(step.amount)),
        Kind::Loss => Some(Shape::Loss(step.amount)),
        Kind::Duplicate => Some(Shape::Duplicate(step.amount)),
        Kind::Reorder => Some(Shape::Reorder(step.amount)),
        _ => None,
    };
    let sides = match (change, step.kind) {
        (Some(_), _) | (_, Kind::Reset) => speakers(step, &struck, &all, &machine)?,
        _ => cuts(step, &struck, &all, &machine)?,
    };
    let deed = |side: Side| {
        let addresses = |nodes: &[Node]| {
            let seats = nodes.iter().map(|node| remote.seat(*node));
            seats
                .flat_map(|seat| seat.addresses.iter().copied())
                .collect::<Vec<_>>()
        };
        let silence = Silence {
            from: addresses(&side.from),
            to: addresses(&side.to),
        };
        let fault = |lease| match (change, step.kind) {
            (Some(change), _) => shape(change, &silence.to, lease),
            (_, Kind::Reset) => reset(&silence.to, lease),
            (_, Kind::Flap) => flap(&silence, lease),
            _ => cut(&silence, lease),
        };
        let there = |node: &&Node| machine(**node) == side.machine;
        let nodes: Vec<Node> = struck.iter().filter(there).copied().collect();
        Deed {
            nodes: if nodes.is_empty() {
                struck.clone()
            } else {
                nodes
            },
            ..site.deed(side.machine, lasts, fault)
        }
    };
    Ok(sides.into_iter().map(deed).collect())
}

/// Which process it is stands in the journal before it is stopped, so it is looked up first; and once more when it is stopped.
async fn pauses(
    step: &Step,
    site: &Site,
    nodes: Vec<Node>,
    leader: Option<Node>,
) -> anyhow::Result<Outcome> {
    let lasts = Duration::from_millis(step.lasts_ms);
    let found = nodes.iter().map(|node| {
        let script = find(site.host(*node));
        async move { site.remote.ask(*node, &script, SHELL_BOUND).await }
    });
    let found = join_all(found).await;
    let (mut deeds, mut became) = (Vec::new(), Vec::new());
    for (node, answer) in nodes.into_iter().zip(found) {
        let process = match &answer {
            Answer::Done(said) => said.number("pid").zip(said.number("born")),
            _ => None,
        };
        match (process, answer) {
            (Some((pid, born)), _) => {
                let process = Process { pid, born };
                let stop = |lease| pause(site.host(node), process, lease);
                deeds.push(site.deed(node, lasts, stop));
            }
            // A look does nothing, whatever became of it.
            (None, Answer::Skipped(why) | Answer::Unclear(why)) => became.push(Became {
                at: node,
                nodes: vec![node],
                applied: Answer::Skipped(why),
                undone: None,
            }),
            (None, Answer::Done(said)) => anyhow::bail!("{node}: {said:?} names no process"),
        }
    }
    became.extend(act(step, site, &deeds, lasts).await?);
    Ok(outcome_of(&became, is_whole(step.kind), leader))
}

/// Each JobManager in turn, once the one before has caught up.
async fn restart(step: &Step, site: &Site) -> anyhow::Result<()> {
    for node in site.remote.jobmanagers() {
        let deed = site.deed(node, Duration::ZERO, |lease| {
            end(site.host(node), End::Terminate, lease)
        });
        let became = act(step, site, &[deed], Duration::ZERO).await?;
        match outcome_of(&became, false, None) {
            Outcome::Installed { .. } => {}
            Outcome::Skipped(why) if why.ends_with(NOT_RUNNING) => continue,
            Outcome::Skipped(why) | Outcome::Indeterminate(why) => anyhow::bail!(why),
        }
        let address = site.host(node).known_as.clone().unwrap_or_default();
        operate::until_well(&site.client, node, &address).await?;
    }
    Ok(())
}

/// Does all of it, for that time, and undoes it.
async fn act(
    step: &Step,
    site: &Site,
    deeds: &[Deed],
    lasts: Duration,
) -> anyhow::Result<Vec<Became>> {
    let begun = join_all(deeds.iter().map(|deed| begin(step, site, deed, lasts))).await;
    let begun: Vec<(u64, Answer)> = begun.into_iter().collect::<anyhow::Result<_>>()?;
    let is_done = |(_, answer): &(u64, Answer)| matches!(answer, Answer::Done(_));
    let goes_on = match is_whole(step.kind) {
        true => begun.iter().all(is_done),
        false => begun.iter().any(is_done),
    };
    if goes_on && !is_within(step.kind) {
        site.clock.sleep(lasts).await;
    }
    let ends = deeds.iter().zip(begun).map(async |(deed, (id, applied))| {
        let is_over = match &applied {
            Answer::Skipped(_) => true,
            Answer::Done(_) => is_within(step.kind),
            Answer::Unclear(_) => false,
        };
        let undone = match is_over {
            true => {
                site.journal.done(id)?;
                None
            }
            false => Some(undo(step, site, deed, id).await?),
        };
        anyhow::Ok(Became {
            at: deed.at,
            nodes: deed.nodes.clone(),
            applied,
            undone,
        })
    });
    join_all(ends).await.into_iter().collect()
}

async fn begin(
    step: &Step,
    site: &Site,
    deed: &Deed,
    lasts: Duration,
) -> anyhow::Result<(u64, Answer)> {
    let undo = Undo::Remote {
        shell: site.host(deed.at).shell.clone(),
        script: deed.fault.undo.clone(),
    };
    let what = format!("{} ({})", step.text(), deed.at);
    let id = site.journal.begin(&what, lasts, undo)?;
    let bound = match step.kind {
        Kind::Kill | Kind::Restart => END_BOUND,
        kind if is_within(kind) => lasts + SHELL_BOUND,
        _ => SHELL_BOUND,
    };
    let answer = site.remote.ask(deed.at, &deed.fault.apply, bound).await;
    Ok((id, answer))
}

/// Until it is undone, or nobody can wait any longer: then it stays in the journal.
async fn undo(step: &Step, site: &Site, deed: &Deed, id: u64) -> anyhow::Result<Answer> {
    let bound = match step.kind {
        Kind::Kill | Kind::Restart => RESTART_BOUND,
        _ => UNDO_BOUND,
    };
    let end = site.clock.monotonic() + bound;
    loop {
        let script = &deed.fault.undo;
        let answer = site.remote.ask(deed.at, script, SHELL_BOUND).await;
        if matches!(answer, Answer::Done(_)) {
            site.journal.done(id)?;
            return Ok(answer);
        }
        if site.clock.monotonic() >= end {
            return Ok(answer);
        }
        site.clock.sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Target;

    #[test]
    fn what_needs_more_than_a_shell_is_skipped_and_says_so() {
        for kind in Kind::all() {
            let drawn = kind.is_drawn_on(Target::Remote);
            let can = Kind::USUAL.contains(&kind) && beyond(kind).is_none();
            assert_eq!(drawn, can, "{kind}");
        }
        assert_eq!(beyond(Kind::Busy), None);
    }
}
