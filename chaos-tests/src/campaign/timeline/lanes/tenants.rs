//! One tenant that abuses at times, and how the other fares meanwhile.

use std::collections::BTreeMap;

use super::operations::{column, columns, strip};
use super::{Bar, Content, Lane, Material, Strip, seconds};
use crate::invariants::tenants::{Answer, Event};

pub(super) fn lanes(material: &Material) -> Vec<Lane> {
    if material.tenants.is_empty() {
        return Vec::new();
    }
    let abuse: Vec<Bar> = material.tenants.iter().filter_map(abuse).collect();
    let mut lanes = vec![Lane {
        name: "abuse".to_owned(),
        about: "when the noisy tenant did its worst".to_owned(),
        content: Content::Rows(vec![abuse]),
    }];
    let asked = material.tenants.iter().filter_map(|event| match event {
        Event::Asked {
            ended_us, answer, ..
        } => Some((ended_us / 1_000, as_what(answer))),
        _ => None,
    });
    let names = ["answered", "without an answer", "refused"];
    lanes.extend(strip(material, "steady tenant", names, asked));
    lanes.extend(waits(material));
    lanes
}

fn as_what(answer: &Answer) -> usize {
    match answer {
        Answer::Done => 0,
        Answer::Unknown(_) => 1,
        Answer::Refused(_) => 2,
    }
}

fn abuse(event: &Event) -> Option<Bar> {
    let Event::Abused {
        from_ms,
        until_ms,
        done,
        refused,
    } = event
    else {
        return None;
    };
    let words = |counts: &BTreeMap<String, u64>| -> String {
        let words: Vec<String> = counts
            .iter()
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        words.join(", ")
    };
    Some(Bar {
        from_ms: *from_ms,
        until_ms: *until_ms,
        look: "abuse",
        label: format!("{} requests", done.values().sum::<u64>()),
        about: format!(
            "abuse from {} to {}. Carried out: {}. Not: {}",
            seconds(*from_ms),
            seconds(*until_ms),
            words(done),
            words(refused)
        ),
    })
}

/// How long the steady tenant waited at most, second by second.
fn waits(material: &Material) -> Option<Lane> {
    let (every_ms, mut columns) = columns(material);
    let mut longest = 0;
    for event in &material.tenants {
        if let Event::Asked {
            due_us,
            ended_us,
            answer: Answer::Done,
        } = event
        {
            let waited_ms = ended_us.saturating_sub(*due_us).div_ceil(1_000);
            let [most, ..] = column(&mut columns, every_ms, ended_us / 1_000);
            *most = waited_ms.max(*most);
            longest = waited_ms.max(longest);
        }
    }
    (longest > 0).then(|| Lane {
        name: format!("steady tenant's longest wait (at most {longest} ms)"),
        about: "from the moment when it was a request's turn to its answer".to_owned(),
        content: Content::Strip(Strip {
            every_ms,
            names: ["ms waited at most", "", ""],
            unit: "ms".to_owned(),
            columns,
        }),
    })
}
