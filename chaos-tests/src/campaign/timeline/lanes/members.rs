//! Who led, and what was done to each member and when.

use std::collections::BTreeSet;

use super::{Bar, Content, Lane, length_ms, seconds, stack};
use crate::campaign::fault::Kind;
use crate::campaign::strike::{Outcome, Struck};
use crate::campaign::timeline::Material;
use crate::target::Node;

/// Looks of leaders, so that one after the other is told apart.
const LEADER_LOOKS: [&str; 5] = ["lead-0", "lead-1", "lead-2", "lead-3", "lead-4"];

pub(super) fn lanes(material: &Material) -> Vec<Lane> {
    let mut lanes = vec![leaders(material)];
    lanes.extend(members(material).into_iter().map(|node| Lane {
        name: node.to_string(),
        about: format!("what was done to {node}; * where it led"),
        content: Content::Rows(stack(struck(material, node), 0)),
    }));
    lanes
}

fn leaders(material: &Material) -> Lane {
    let ends = material.led.iter().skip(1).map(|next| next.at_ms);
    let ends = ends.chain([length_ms(material)]);
    let bars = material.led.iter().zip(ends).map(|(led, until_ms)| {
        let span = format!("{} to {}", seconds(led.at_ms), seconds(until_ms));
        let (look, label, who) = match led.leader {
            0 => ("nobody", "nobody".to_owned(), "nobody led".to_owned()),
            leader => (
                LEADER_LOOKS[leader as usize % LEADER_LOOKS.len()],
                leader.to_string(),
                format!("member {leader} led in term {}", led.term),
            ),
        };
        Bar {
            from_ms: led.at_ms,
            until_ms,
            look,
            label,
            about: format!("{who}, {span}"),
        }
    });
    Lane {
        name: "leader".to_owned(),
        about: "the number of the member that led, as far as those knew who answered".to_owned(),
        content: Content::Rows(vec![bars.collect()]),
    }
}

/// All members that there were, as far as the files say.
fn members(material: &Material) -> BTreeSet<Node> {
    let knobs = &material.plan.knobs;
    let mut members = BTreeSet::new();
    if material.report.place != "observed" {
        members.extend((1..=knobs.jobmanagers).map(Node::Jobmanager));
        members.extend((1..=knobs.taskmanagers).map(Node::Taskmanager));
    }
    for struck in &material.struck {
        if let Outcome::Installed { nodes, .. } = &struck.outcome {
            members.extend(nodes);
        }
    }
    members
}

fn struck(material: &Material, node: Node) -> Vec<Vec<Bar>> {
    let struck = material.struck.iter();
    struck
        .filter_map(|struck| bar(struck, node))
        .map(|bar| vec![bar])
        .collect()
}

fn bar(struck: &Struck, node: Node) -> Option<Bar> {
    let Outcome::Installed { nodes, led, ended } = &struck.outcome else {
        return None;
    };
    if !nodes.contains(&node) {
        return None;
    }
    let kind = struck.step.kind;
    let alone = *led && nodes.len() == 1;
    Some(Bar {
        from_ms: struck.from_ms,
        until_ms: struck.until_ms,
        look: look(kind),
        label: format!("{kind}{}", if alone { "*" } else { "" }),
        about: format!(
            "{}: {} to {}{}{}",
            struck.step.text(),
            seconds(struck.from_ms),
            seconds(struck.until_ms),
            if alone { "; it led" } else { "" },
            if ended.contains(&node) {
                "; it ended by it"
            } else {
                ""
            }
        ),
    })
}

/// Faults of one family look alike.
pub(super) fn look(kind: Kind) -> &'static str {
    match kind {
        Kind::Kill | Kind::Pause => "process",
        Kind::Isolate
        | Kind::Deaf
        | Kind::Mute
        | Kind::Flap
        | Kind::Slow
        | Kind::Reset
        | Kind::Thin
        | Kind::Loss
        | Kind::Duplicate
        | Kind::Reorder
        | Kind::Split
        | Kind::Bridge => "network",
        Kind::StoreOutage | Kind::StoreRefusal | Kind::StoreSlow => "store",
        Kind::Transfer
        | Kind::Restart
        | Kind::Replace
        | Kind::Rescale
        | Kind::Savepoint
        | Kind::Upgrade => "operation",
        Kind::ClockAhead
        | Kind::ClockBack
        | Kind::DiskFull
        | Kind::SyncError
        | Kind::DiskSlow
        | Kind::DiskHung
        | Kind::FewFiles
        | Kind::Busy
        | Kind::BitFlip
        | Kind::TornSnapshot
        | Kind::Memory => "machine",
    }
}
