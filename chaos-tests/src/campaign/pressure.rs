//! What a process may have of the machine: fewer files, and less of the processor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::fault::Step;
use super::held::Held;
use super::strike::{NOT_RUNNING, Outcome, Site};
use super::undo::Undo;
use crate::cluster::processes;
use crate::target::Node;

/// A process whose limit was lowered.
struct Limited {
    held: Held,
    pid: i32,
    born: u64,
    /// The limits before.
    soft: Option<u64>,
    hard: Option<u64>,
}

/// The processes can open only a few more files for some time.
pub async fn few_files(
    step: &Step,
    site: &Site,
    nodes: Vec<Node>,
    leader: Option<Node>,
) -> anyhow::Result<Outcome> {
    let mut limited = Vec::new();
    let mut why = NOT_RUNNING;
    for node in nodes {
        match limit(step, site, node)? {
            Ok(one) => limited.push(one),
            Err(reason) => why = reason,
        }
    }
    if limited.is_empty() {
        return Ok(Outcome::skipped(why));
    }
    site.clock.sleep(Duration::from_millis(step.lasts_ms)).await;
    for one in &limited {
        if processes::born(one.pid) == Some(one.born) {
            // It may have ended in this very moment.
            let _ = processes::limit_files(one.pid, one.soft, one.hard);
        }
        one.held.end(site)?;
    }
    // Starts those again that have ended.
    site.local.check_alive()?;
    let has_ended = |one: &&Limited| one.held.has_ended(site);
    let ended = limited.iter().filter(has_ended).map(|one| one.held.node);
    let nodes: Vec<Node> = limited.iter().map(|one| one.held.node).collect();
    Ok(Outcome::Installed {
        led: leader.is_some_and(|leader| nodes.contains(&leader)),
        ended: ended.collect(),
        nodes,
    })
}

/// Lowers the limit of one process; why not.
fn limit(step: &Step, site: &Site, node: Node) -> anyhow::Result<Result<Limited, &'static str>> {
    let Some(pid) = site.local.pid(node) else {
        return Ok(Err(NOT_RUNNING));
    };
    // It may end in this very moment: then it is as with one that does not run.
    let (Some(born), Ok((soft, hard)), Ok(open)) = (
        processes::born(pid),
        processes::file_limits(pid),
        processes::open_files(pid),
    ) else {
        return Ok(Err(NOT_RUNNING));
    };
    let fewer = open.saturating_add(step.amount);
    if soft.is_some_and(|soft| soft <= fewer) {
        return Ok(Err("it can open no more files anyway"));
    }
    let undo = Undo::Files {
        pid,
        born,
        soft,
        hard,
    };
    let held = Held::begin(step, site, node, undo)?;
    if processes::limit_files(pid, Some(fewer), hard).is_err() {
        held.void(site)?;
        return Ok(Err(NOT_RUNNING));
    }
    held.excuse(site);
    Ok(Ok(Limited {
        held,
        pid,
        born,
        soft,
        hard,
    }))
}

/// Threads of ours take the processors for some time.
pub async fn busy(step: &Step, site: &Site) -> anyhow::Result<Outcome> {
    let lasts = Duration::from_millis(step.lasts_ms);
    let id = site
        .journal
        .begin(&step.text(), lasts, Undo::EndsWithHarness)?;
    let burning = Burning(Arc::new(AtomicBool::new(true)));
    for number in 0..step.amount {
        let goes_on = Arc::clone(&burning.0);
        let burn = move || {
            while goes_on.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        };
        thread::Builder::new()
            .name(format!("burn-{number}"))
            .spawn(burn)?;
    }
    site.clock.sleep(lasts).await;
    drop(burning);
    site.journal.done(id)?;
    Ok(Outcome::installed(Vec::new(), false))
}

/// Ends with the step, even if that is given up.
struct Burning(Arc<AtomicBool>);

impl Drop for Burning {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
