//! Completed checkpoints are a log that only grows at its end: whoever is asked, and whoever leads.
//!
//! Judged from lists of a job's checkpoints, asked for one after the other. Old ones leave the list when they are subsumed;
//! what is left must never change, and the newest must never fall behind.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::report::Finding;

/// A checkpoint in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the columns of the list")]
pub struct Seen {
    pub id: u64,
    pub kind: String,
    pub status: String,
    pub triggered_at: String,
    pub size_bytes: u64,
}

/// One list; lists are in the order in which they were asked for, each after the answer to the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Milliseconds since the run began.
    pub at_ms: u64,
    #[expect(missing_docs, reason = "see above")]
    pub checkpoints: Vec<Seen>,
}

/// The newest completed one of all lists.
pub fn newest(lists: &[Listed]) -> u64 {
    let seen = lists.iter().flat_map(|list| &list.checkpoints);
    seen.filter(|seen| seen.status == "COMPLETED")
        .map(|seen| seen.id)
        .max()
        .unwrap_or(0)
}

impl Listed {
    /// An answer of `flott checkpoints`, which came then.
    pub fn of(listed: &Value, at_ms: u64) -> Self {
        let seen = |checkpoint: &Value| {
            let text = |name: &str| checkpoint[name].as_str().unwrap_or_default().to_owned();
            Seen {
                id: checkpoint["id"].as_u64().unwrap_or(0),
                kind: text("kind"),
                status: text("status"),
                triggered_at: text("triggered_at"),
                size_bytes: checkpoint["size_bytes"].as_u64().unwrap_or(0),
            }
        };
        let checkpoints = listed["checkpoints"].as_array().into_iter().flatten();
        Self {
            at_ms,
            checkpoints: checkpoints.map(seen).collect(),
        }
    }
}

/// What must not be.
pub fn check(lists: &[Listed]) -> Vec<Finding> {
    let mut violations = Vec::new();
    let mut completed: BTreeMap<u64, &Seen> = BTreeMap::new();
    let mut newest = 0;
    for list in lists {
        let own = list
            .checkpoints
            .iter()
            .filter(|seen| seen.status == "COMPLETED");
        let mut newest_here = 0;
        for seen in own {
            if seen.kind == "CHECKPOINT" {
                newest_here = newest_here.max(seen.id);
            }
            let known = *completed.entry(seen.id).or_insert(seen);
            if known != seen {
                let what = format!("checkpoint {} was {known:?} and is {seen:?}", seen.id);
                violations.push(Finding::at(list.at_ms, what));
            }
        }
        for seen in list
            .checkpoints
            .iter()
            .filter(|seen| seen.status != "COMPLETED")
        {
            if completed.contains_key(&seen.id) {
                let what = format!(
                    "checkpoint {} was complete and is {} at {} ms",
                    seen.id, seen.status, list.at_ms
                );
                violations.push(Finding::at(list.at_ms, what));
            }
        }
        if newest_here < newest {
            let what = format!(
                "the newest complete checkpoint was {newest} and is {newest_here} at {} ms",
                list.at_ms
            );
            violations.push(Finding::at(list.at_ms, what));
        }
        newest = newest.max(newest_here);
    }
    violations
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    fn seen(id: u64, status: &str) -> Seen {
        Seen {
            id,
            kind: "CHECKPOINT".to_owned(),
            status: status.to_owned(),
            triggered_at: format!("t{id}"),
            size_bytes: id * 10,
        }
    }

    fn lists(all: &[&[Seen]]) -> Vec<Listed> {
        let list = |(at, checkpoints): (usize, &&[Seen])| Listed {
            at_ms: at as u64,
            checkpoints: checkpoints.to_vec(),
        };
        all.iter().enumerate().map(list).collect()
    }

    #[test]
    fn a_log_that_grows_is_no_violation() {
        let (one, two) = (seen(1, "COMPLETED"), seen(2, "COMPLETED"));
        let log = lists(&[
            &[],
            from_ref(&one),
            &[seen(2, "IN_PROGRESS"), one.clone()],
            &[two.clone(), one.clone()],
            &[seen(3, "FAILED"), two.clone()],
        ]);
        assert_eq!(check(&log), []);
        assert_eq!(newest(&log), 2);
    }

    #[test]
    fn a_changed_a_withdrawn_and_a_forgotten_checkpoint_are_found() {
        let one = seen(1, "COMPLETED");
        let mut other = one.clone();
        other.size_bytes += 1;
        let changed = check(&lists(&[from_ref(&one), &[other]]));
        assert!(changed[0].what.contains("checkpoint 1 was"), "{changed:?}");
        assert_eq!(changed[0].at_ms, Some(1));
        let withdrawn = check(&lists(&[from_ref(&one), &[seen(1, "FAILED")]]));
        assert!(
            withdrawn[0].what.contains("was complete and is FAILED"),
            "{withdrawn:?}"
        );
        let two = seen(2, "COMPLETED");
        let forgotten = check(&lists(&[&[two], &[one]]));
        assert!(
            forgotten[0].what.contains("was 2 and is 1"),
            "{forgotten:?}"
        );
    }
}
