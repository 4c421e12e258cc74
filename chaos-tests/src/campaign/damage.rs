//! A JobManager comes back to files that are not as it left them: a bit of its log has flipped, or its newest snapshot is cut
//! short.
//!
//! What is right: it does not take part with what it cannot trust. It refuses to start and names the file, and an operator,
//! who is us, replaces it; or, of a snapshot, it goes on from the one before. What must stay true: one member at a time, and
//! only while all others run, for a group cannot bear more.
//!
//! Of the log only what has more behind it is damaged. What is torn off the very end looks like a write that the power did
//! not let finish, and nobody can tell.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use flott_chaos_basis::random::Random;

use super::fault::{Kind, Step};
use super::operate;
use super::strike::{Outcome, Site};
use super::undo::Undo;
use crate::target::Node;

/// For a damaged member to refuse, or to be back.
const REFUSE_BOUND: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Other faults may be in the way of a replacement.
const REPLACEMENTS_MAX: u32 = 5;
/// Between two of them.
const REPLACE_PAUSE: Duration = Duration::from_secs(2);

/// A frame of a log file: "FLLG", bytes of the payload u32, 16 bytes more, payload.
const FRAME: &[u8] = b"FLLG";
const HEADER_BYTES: usize = 24;

/// One step. An error is one of the harness, or a member that went on with what is damaged or did not say what is.
pub async fn strike(
    step: &Step,
    site: &Site,
    nodes: Vec<Node>,
    leader: Option<Node>,
) -> anyhow::Result<Outcome> {
    let local = &site.local;
    let Ok(_alone) = site.replacing.try_lock() else {
        return Ok(Outcome::skipped("another member is being replaced"));
    };
    let node = match nodes[..] {
        [node] if node.is_jobmanager() => node,
        _ => {
            return Ok(Outcome::skipped(
                "only a JobManager has a log, and a group bears the loss of one",
            ));
        }
    };
    let mut others = local.jobmanagers();
    others.retain(|other| *other != node);
    if others.len() < 2 || others.iter().any(|other| local.pid(*other).is_none()) {
        return Ok(Outcome::skipped("the group could not bear it now"));
    }
    if file_of(step.kind, &local.raft_directory(node))?.is_none() {
        return Ok(Outcome::skipped("it has no such file yet"));
    }
    if !local.kill(node).await? || local.pid(node).is_some() {
        return Ok(Outcome::skipped(
            "it does not run, or was just started by somebody else",
        ));
    }
    // It is undone by replacing the member, which nobody can do who has only this line; the run's end makes it void.
    let lasts = Duration::from_millis(step.lasts_ms);
    let id = site
        .journal
        .begin(&step.text(), lasts, Undo::EndsWithHarness)?;
    let damaged = damage(step, &local.raft_directory(node))?;
    local.excuse(node);
    local.start_process(node)?;
    let outcome = match damaged {
        None => Ok(Outcome::Indeterminate(
            "it was killed, but there was nothing in its file that could be damaged".to_owned(),
        )),
        Some(file) => judge(step, site, node, leader, &file).await,
    };
    local.end_excuse(node);
    site.journal.done(id)?;
    outcome
}

/// What the member makes of it, and of what is left of the member.
async fn judge(
    step: &Step,
    site: &Site,
    node: Node,
    leader: Option<Node>,
    file: &Path,
) -> anyhow::Result<Outcome> {
    let refused = refuses(site, node).await?;
    if !refused && step.kind == Kind::BitFlip {
        bail!(
            "{node} went on although a bit of {} had flipped",
            file.display()
        );
    }
    if refused {
        says(site, node, file)?;
        if let Err(error) = replace(site, node).await {
            return Ok(Outcome::Indeterminate(format!("{error:#}")));
        }
    }
    Ok(Outcome::Installed {
        nodes: vec![node],
        led: leader == Some(node),
        ended: refused.then_some(node).into_iter().collect(),
    })
}

/// The file that is damaged: the oldest of the log, which is always in use, or the newest snapshot. None: there is none.
fn file_of(kind: Kind, directory: &Path) -> anyhow::Result<Option<PathBuf>> {
    let extension = match kind {
        Kind::BitFlip => "log",
        _ => "snapshot",
    };
    let mut found = Vec::new();
    collect(directory, extension, &mut found)
        .with_context(|| format!("cannot list {}", directory.display()))?;
    // Names are numbers with leading zeros, in order.
    found.sort();
    Ok(match kind {
        Kind::BitFlip => found.into_iter().next(),
        _ => found.pop(),
    })
}

fn collect(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, extension, found)?;
        } else if path.extension().is_some_and(|own| own == extension) {
            found.push(path);
        }
    }
    Ok(())
}

/// The file that was damaged, of a member that does not run. None: nothing was.
fn damage(step: &Step, directory: &Path) -> anyhow::Result<Option<PathBuf>> {
    let Some(path) = file_of(step.kind, directory)? else {
        return Ok(None);
    };
    let cannot = || format!("cannot damage {}", path.display());
    let mut bytes = fs::read(&path).with_context(cannot)?;
    if step.kind == Kind::BitFlip {
        let mut random = Random::new(step.at_ms);
        if !flip(&mut bytes, &mut random) {
            return Ok(None);
        }
    } else {
        bytes.truncate(bytes.len() / 2);
    }
    fs::write(&path, bytes).with_context(cannot)?;
    Ok(Some(path))
}

/// Flips a bit of the first frame's payload, if another frame follows.
fn flip(log: &mut [u8], random: &mut Random) -> bool {
    let length = log.get(4..8).and_then(|bytes| bytes.try_into().ok());
    let length = length.map_or(0, u32::from_le_bytes) as usize;
    let next = HEADER_BYTES.saturating_add(length).next_multiple_of(8);
    let begins = |at: usize| log.get(at..).is_some_and(|rest| rest.starts_with(FRAME));
    if length == 0 || !begins(0) || !begins(next) {
        return false;
    }
    let at = HEADER_BYTES + random.below(length as u64) as usize;
    log[at] ^= 1 << random.below(8);
    true
}

/// Whether it ends by itself. False: it answers, which it does only once it has read its files.
async fn refuses(site: &Site, node: Node) -> anyhow::Result<bool> {
    let local = &site.local;
    let address = local.address(node)?;
    let end = site.clock.monotonic() + REFUSE_BOUND;
    let ends = local.ends(node);
    while site.clock.monotonic() < end {
        local.check_alive()?;
        if local.ends(node) > ends {
            return Ok(true);
        }
        if crate::cluster::status::status_at(&address).await.is_some() {
            return Ok(false);
        }
        site.clock.sleep(LOOK_EVERY).await;
    }
    bail!(
        "{node} neither refused to start on a damaged file nor answered within {} s",
        REFUSE_BOUND.as_secs()
    )
}

/// It has to have named the file.
fn says(site: &Site, node: Node, file: &Path) -> anyhow::Result<()> {
    let tail = site.local.tail(node);
    let name = file.file_name().context("a file has a name")?;
    let name = name.to_str().context("a name that is text")?;
    if !tail.contains(name) {
        bail!(
            "{node} refused to start on a damaged {} and did not name it:\n{tail}",
            file.display()
        );
    }
    Ok(())
}

/// As an operator does, until it is done.
async fn replace(site: &Site, node: Node) -> anyhow::Result<()> {
    let mut replaced = operate::replace(site, Some(node)).await;
    for _ in 1..REPLACEMENTS_MAX {
        if replaced.is_ok() || !site.local.jobmanagers().contains(&node) {
            return Ok(());
        }
        site.clock.sleep(REPLACE_PAUSE).await;
        replaced = operate::replace(site, Some(node)).await;
    }
    // It must not be started again: it would only refuse again.
    site.local.retire(node);
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = FRAME.to_vec();
        frame.extend((payload.len() as u32).to_le_bytes());
        frame.resize(HEADER_BYTES, 0);
        frame.extend(payload);
        frame.resize(frame.len().next_multiple_of(8), 0);
        frame
    }

    #[test]
    fn one_bit_of_the_first_payload_flips_if_more_follows() {
        let log = [frame(b"first"), frame(b"second"), vec![0; 64]].concat();
        for seed in 0..100 {
            let mut flipped = log.clone();
            assert!(flip(&mut flipped, &mut Random::new(seed)));
            let differs: Vec<usize> = (0..log.len())
                .filter(|at| log[*at] != flipped[*at])
                .collect();
            assert!(differs.len() == 1 && (24..29).contains(&differs[0]));
            let bits = log[differs[0]] ^ flipped[differs[0]];
            assert_eq!(bits.count_ones(), 1);
        }
        for alone in [frame(b"first"), vec![0; 99], Vec::new(), vec![0xFF; 99]] {
            let mut same = alone.clone();
            assert!(!flip(&mut same, &mut Random::new(1)));
            assert_eq!(same, alone);
        }
    }

    #[test]
    fn the_oldest_file_of_the_log_is_meant_and_the_newest_snapshot() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        assert_eq!(file_of(Kind::BitFlip, directory.path()).unwrap(), None);
        for folder in ["log", "snapshots"] {
            fs::create_dir(at(folder)).unwrap();
        }
        for name in [
            "log/0b.log",
            "log/0a.log",
            "log/09.spare",
            "snapshots/1.snapshot",
            "snapshots/2.snapshot",
        ] {
            fs::write(at(name), "").unwrap();
        }
        let of = |kind| file_of(kind, directory.path()).unwrap();
        assert_eq!(of(Kind::BitFlip), Some(at("log/0a.log")));
        assert_eq!(of(Kind::TornSnapshot), Some(at("snapshots/2.snapshot")));
    }
}
