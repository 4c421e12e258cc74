//! What is done to the clock and the disk of a process, from within it: by the page that the preload library obeys.
//!
//! A step counts as installed only if a process obeys its page and the library did something to it: a sync that fails is
//! none if nothing was synced.

use std::time::Duration;

use flott_chaos_basis::control::{ALWAYS, Lever};

use super::fault::{Kind, Step, lever_of};
use super::held::Held;
use super::strike::{NOT_RUNNING, Outcome, Site};
use super::undo::Undo;
use crate::target::Node;
use crate::target::control::Control;

/// A lever that is on.
struct Pressed {
    held: Held,
    control: Control,
    /// How often it had done something before.
    times: u64,
}

/// One step. An error is one of the harness, or a process that ended by itself although it had no reason.
pub async fn strike(
    step: &Step,
    site: &Site,
    nodes: Vec<Node>,
    leader: Option<Node>,
) -> anyhow::Result<Outcome> {
    let Some(lever) = lever_of(step.kind) else {
        return Ok(Outcome::skipped("it is not done from within a process"));
    };
    let mut pressed = Vec::new();
    let mut why = NOT_RUNNING.to_owned();
    for node in nodes {
        match press(step, site, node, lever)? {
            Ok(one) => pressed.push(one),
            Err(reason) => why = reason,
        }
    }
    if pressed.is_empty() {
        return Ok(Outcome::skipped(why));
    }
    site.clock.sleep(Duration::from_millis(step.lasts_ms)).await;
    let (mut struck, mut ended) = (Vec::new(), Vec::new());
    for one in &pressed {
        one.control.release(lever)?;
        one.held.end(site)?;
    }
    // Starts those again that have ended.
    site.local.check_alive()?;
    for one in &pressed {
        if one.control.times(lever)? > one.times {
            struck.push(one.held.node);
        }
        if one.held.has_ended(site) {
            ended.push(one.held.node);
        }
    }
    if struck.is_empty() {
        let why = "the process did nothing meanwhile that it concerns";
        return Ok(Outcome::skipped(why));
    }
    let led = leader.is_some_and(|leader| struck.contains(&leader));
    Ok(Outcome::Installed {
        nodes: struck,
        led,
        ended,
    })
}

/// Presses the lever of one process; why not.
fn press(
    step: &Step,
    site: &Site,
    node: Node,
    lever: Lever,
) -> anyhow::Result<Result<Pressed, String>> {
    let Some(pid) = site.local.pid(node) else {
        return Ok(Err(NOT_RUNNING.to_owned()));
    };
    let control = match site.local.control(node) {
        Ok(control) => control,
        Err(why) => return Ok(Err(why)),
    };
    if control.process()? != pid {
        let why = "it has not loaded the library for clocks and disks: it has only just been started, or is linked statically";
        return Ok(Err(why.to_owned()));
    }
    if control.is_on(lever)? {
        return Ok(Err("the same is being done to it already".to_owned()));
    }
    let times = control.times(lever)?;
    let undo = Undo::Release {
        page: control.path().to_owned(),
        lever: lever as usize,
    };
    let held = Held::begin(step, site, node, undo)?;
    held.excuse(site);
    let until_ms = site.clock.now_ms().saturating_add_unsigned(step.lasts_ms);
    let (amount, left) = measures(step);
    control.press(lever, until_ms, amount, left)?;
    Ok(Ok(Pressed {
        held,
        control,
        times,
    }))
}

/// What the page says of the step: amount, and how often.
fn measures(step: &Step) -> (u64, u64) {
    let offset_ns = |sign: i64| {
        let ms = i64::try_from(step.amount).unwrap_or(i64::MAX);
        ms.saturating_mul(1_000_000)
            .saturating_mul(sign)
            .cast_unsigned()
    };
    match step.kind {
        Kind::ClockAhead => (offset_ns(1), ALWAYS),
        Kind::ClockBack => (offset_ns(-1), ALWAYS),
        Kind::SyncError if step.amount == 0 => (1_000, 1),
        _ => (step.amount, ALWAYS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::fault::Whom;

    #[test]
    fn a_clock_is_off_by_nanoseconds_to_either_side_and_one_sync_fails_once() {
        let of = |kind, amount| {
            measures(&Step {
                at_ms: 0,
                lasts_ms: 1_000,
                kind,
                whom: Whom::Leader,
                amount,
            })
        };
        let signed = |(amount, left): (u64, u64)| (amount.cast_signed(), left);
        assert_eq!(signed(of(Kind::ClockAhead, 500)), (500_000_000, ALWAYS));
        assert_eq!(signed(of(Kind::ClockBack, 500)), (-500_000_000, ALWAYS));
        assert_eq!(of(Kind::SyncError, 0), (1_000, 1));
        assert_eq!(of(Kind::SyncError, 100), (100, ALWAYS));
        assert_eq!(signed(of(Kind::ClockAhead, u64::MAX)).0, i64::MAX);
    }
}
