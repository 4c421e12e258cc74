//! Little memory for a process, for some time: a few MiB beyond what it has, pages of files among it, and every tenth of a second
//! as much again beyond what cannot be taken back. What it takes faster, it has to wait for, or is refused.
//!
//! A step counts as installed only if somebody had to wait, or had pages taken back.

use std::path::PathBuf;
use std::time::Duration;

use super::fault::Step;
use super::held::Held;
use super::strike::{NOT_RUNNING, Outcome, Site};
use super::undo::Undo;
use crate::cluster::memory::{Group, dissolve, ground};
use crate::cluster::processes;
use crate::target::Node;

/// How often a process has room again.
const RELIEVE_EVERY: Duration = Duration::from_millis(100);

/// A process that was put into a group.
struct Pressed {
    held: Held,
    group: Group,
    path: PathBuf,
    home: PathBuf,
}

/// One step. An error is one of the harness, or a process that ended by itself although it had no reason.
pub async fn strike(
    step: &Step,
    site: &Site,
    nodes: Vec<Node>,
    leader: Option<Node>,
) -> anyhow::Result<Outcome> {
    let mut pressed = Vec::new();
    let mut why = NOT_RUNNING.to_owned();
    for node in nodes {
        match press(step, site, node)? {
            Ok(one) => pressed.push(one),
            Err(reason) => why = reason,
        }
    }
    if pressed.is_empty() {
        return Ok(Outcome::skipped(why));
    }
    let end = site.clock.monotonic() + Duration::from_millis(step.lasts_ms);
    while site.clock.monotonic() < end {
        site.clock.sleep(RELIEVE_EVERY).await;
        for one in &mut pressed {
            one.group.relieve()?;
        }
    }
    let (mut struck, mut ended) = (Vec::new(), Vec::new());
    for one in &pressed {
        if one.group.times()? > 0 {
            struck.push(one.held.node);
        }
        dissolve(&one.path, &one.home)?;
        one.held.end(site)?;
    }
    // Starts those again that have ended.
    site.local.check_alive()?;
    for one in &pressed {
        if one.held.has_ended(site) {
            ended.push(one.held.node);
        }
    }
    if struck.is_empty() {
        return Ok(Outcome::skipped("it took no more memory meanwhile"));
    }
    let led = leader.is_some_and(|leader| struck.contains(&leader));
    Ok(Outcome::Installed {
        nodes: struck,
        led,
        ended,
    })
}

/// Puts one process into a group of its own; why not.
fn press(step: &Step, site: &Site, node: Node) -> anyhow::Result<Result<Pressed, String>> {
    let running = site.local.pid(node);
    let born = |pid: i32| processes::born(pid).map(|born| (pid, born));
    let Some((pid, born)) = running.and_then(born) else {
        return Ok(Err(NOT_RUNNING.to_owned()));
    };
    let ground = match ground(pid) {
        Ok(ground) => ground,
        Err(why) => return Ok(Err(why)),
    };
    let (path, home) = (ground.group(pid, born), ground.home().to_owned());
    let undo = Undo::Memory {
        group: path.clone(),
        home: home.clone(),
    };
    let held = Held::begin(step, site, node, undo)?;
    let made = Group::make(&ground, &path, step.amount.saturating_mul(1 << 20));
    let admitted = made.and_then(|group| group.admit(pid).map(|()| group));
    match admitted {
        Ok(group) if processes::born(pid) == Some(born) => {
            held.excuse(site);
            Ok(Ok(Pressed {
                held,
                group,
                path,
                home,
            }))
        }
        admitted => {
            if path.exists() {
                dissolve(&path, &home)?;
            }
            held.void(site)?;
            Ok(Err(match admitted {
                Ok(_) => NOT_RUNNING.to_owned(),
                Err(error) => format!("no group can be made in {}: {error}", home.display()),
            }))
        }
    }
}
