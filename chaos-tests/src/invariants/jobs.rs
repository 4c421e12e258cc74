//! Jobs live as they should, whoever is asked: what was acknowledged is there, each once, and what has ended stays ended.
//!
//! Judged from what clients did and from what they saw when they listed all jobs, with the times of both on one clock. A
//! submission without an answer may have made a job or not, but never two.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::report::Finding;
use crate::target::client::is_terminal;

/// Something that a client did, or saw. Times are milliseconds since the run began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A job of that name, which is never used twice, was submitted. `id`: it was acknowledged.
    Submitted {
        #[expect(missing_docs, reason = "see above")]
        name: String,
        #[expect(missing_docs, reason = "see above")]
        id: Option<String>,
        /// When the answer came, or the client gave up.
        ended_ms: u64,
    },
    /// The end of that job was asked for, and acknowledged.
    Canceled {
        #[expect(missing_docs, reason = "see above")]
        id: String,
        #[expect(missing_docs, reason = "see above")]
        ended_ms: u64,
    },
    /// All jobs, as the leader told them.
    Listed {
        #[expect(missing_docs, reason = "see above")]
        called_ms: u64,
        #[expect(missing_docs, reason = "see above")]
        ended_ms: u64,
        #[expect(missing_docs, reason = "see above")]
        jobs: Vec<Seen>,
    },
}

/// A job in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the columns of the list")]
pub struct Seen {
    pub id: String,
    pub name: String,
    pub state: String,
    pub attempt: u64,
}

/// How much there was to judge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "counts of the events above")]
pub struct Counts {
    pub submitted: u64,
    pub acknowledged: u64,
    pub canceled: u64,
    pub lists: u64,
}

#[expect(missing_docs, reason = "see there")]
pub fn counts(events: &[Event]) -> Counts {
    let mut counts = Counts::default();
    for event in events {
        match event {
            Event::Submitted { id, .. } => {
                counts.submitted += 1;
                counts.acknowledged += u64::from(id.is_some());
            }
            Event::Canceled { .. } => counts.canceled += 1,
            Event::Listed { .. } => counts.lists += 1,
        }
    }
    counts
}

impl Seen {
    /// All jobs in an answer of `flott list`.
    pub fn all(listed: &Value) -> Vec<Self> {
        let seen = |job: &Value| {
            let text = |name: &str| job[name].as_str().unwrap_or_default().to_owned();
            Self {
                id: text("id"),
                name: text("name"),
                state: text("state"),
                attempt: job["attempt"].as_u64().unwrap_or(0),
            }
        };
        let jobs = listed["jobs"].as_array().into_iter().flatten();
        jobs.map(seen).collect()
    }
}

/// What must not be. `is_over`: the last list was taken when everything had been healed.
pub fn check(events: &[Event], is_over: bool) -> Vec<Finding> {
    let mut violations = Vec::new();
    let mut acknowledged: Vec<(u64, &str, &str)> = Vec::new();
    let mut canceled: Vec<(u64, &str)> = Vec::new();
    let mut lists: Vec<(u64, u64, &[Seen])> = Vec::new();
    for event in events {
        match event {
            Event::Submitted {
                name,
                id: Some(id),
                ended_ms,
            } => acknowledged.push((*ended_ms, id, name)),
            Event::Submitted { .. } => {}
            Event::Canceled { id, ended_ms } => canceled.push((*ended_ms, id)),
            Event::Listed {
                called_ms,
                ended_ms,
                jobs,
            } => lists.push((*called_ms, *ended_ms, jobs)),
        }
    }
    lists.sort_by_key(|(called, ended, _)| (*called, *ended));
    violations.extend(lost(&acknowledged, &lists));
    violations.extend(doubled(&acknowledged, &lists));
    violations.extend(revived(&lists));
    if let (true, Some((called, _, jobs))) = (is_over, lists.last()) {
        for (ended, id) in canceled.iter().filter(|(ended, _)| ended < called) {
            let state = jobs
                .iter()
                .find(|job| job.id == *id)
                .map(|job| job.state.as_str());
            if state.is_some_and(|state| !is_terminal(state)) {
                let what =
                    format!("job {id} was canceled at {ended} ms, and is {state:?} at the end");
                violations.push(Finding::at(*called, what));
            }
        }
    }
    violations
}

/// Acknowledged, and not in a list that was asked for later.
fn lost(acknowledged: &[(u64, &str, &str)], lists: &[(u64, u64, &[Seen])]) -> Vec<Finding> {
    let mut told = BTreeSet::new();
    let mut violations = Vec::new();
    for (called, _, jobs) in lists {
        let there: BTreeSet<&str> = jobs.iter().map(|job| job.id.as_str()).collect();
        for (ended, id, name) in acknowledged.iter().filter(|(ended, ..)| ended < called) {
            if !there.contains(id) && told.insert(*id) {
                let what = format!(
                    "job {name} ({id}) was acknowledged at {ended} ms, and is not in the list asked for at {called} ms"
                );
                violations.push(Finding::at(*called, what));
            }
        }
    }
    violations
}

/// One name, two jobs.
fn doubled(acknowledged: &[(u64, &str, &str)], lists: &[(u64, u64, &[Seen])]) -> Vec<Finding> {
    // By name: the ids, and when each was seen first.
    let mut names: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    let mut see = |name, id, at: u64| {
        let first = names.entry(name).or_default().entry(id).or_insert(at);
        *first = at.min(*first);
    };
    for (ended, id, name) in acknowledged {
        see(name, id, *ended);
    }
    for (called, _, jobs) in lists {
        let ours = jobs.iter().filter(|job| job.name.starts_with("chaos-"));
        ours.for_each(|job| see(&job.name, &job.id, *called));
    }
    let doubled = names.iter().filter(|(_, ids)| ids.len() > 1);
    doubled
        .map(|(name, ids)| {
            let at = ids.values().max().copied().unwrap_or(0);
            let ids: Vec<_> = ids.keys().collect();
            Finding::at(at, format!("one submission of {name} made {ids:?}"))
        })
        .collect()
}

/// Ended, and then something else; or back at an earlier attempt. Only of two lists that did not overlap.
fn revived(lists: &[(u64, u64, &[Seen])]) -> Vec<Finding> {
    let mut violations = Vec::new();
    // By job: when it was seen so, its state, its attempt. The newest knowledge whose list had ended.
    let mut known: BTreeMap<&str, (u64, &str, u64)> = BTreeMap::new();
    let mut waiting: Vec<&(u64, u64, &[Seen])> = Vec::new();
    for list in lists {
        let (called, _, jobs) = list;
        waiting.retain(|(_, ended, earlier)| {
            let is_before = ended < called;
            if is_before {
                for job in *earlier {
                    let newest = known
                        .entry(&job.id)
                        .or_insert((*ended, &job.state, job.attempt));
                    if !is_terminal(newest.1) && newest.2 <= job.attempt {
                        *newest = (*ended, &job.state, job.attempt);
                    }
                }
            }
            !is_before
        });
        for job in *jobs {
            let Some((at, state, attempt)) = known.get(job.id.as_str()) else {
                continue;
            };
            if is_terminal(state) && *state != job.state {
                let what = format!(
                    "job {} ({}) was {state} at {at} ms and {} at {called} ms",
                    job.name, job.id, job.state
                );
                violations.push(Finding::at(*called, what));
            }
            if job.attempt < *attempt {
                let what = format!(
                    "job {} ({}) was at attempt {attempt} at {at} ms and at {} at {called} ms",
                    job.name, job.id, job.attempt
                );
                violations.push(Finding::at(*called, what));
            }
        }
        waiting.push(list);
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submitted(name: &str, id: Option<&str>, ended_ms: u64) -> Event {
        Event::Submitted {
            name: name.to_owned(),
            id: id.map(str::to_owned),
            ended_ms,
        }
    }

    fn listed(called_ms: u64, jobs: &[(&str, &str, &str, u64)]) -> Event {
        let seen = |(id, name, state, attempt): &(&str, &str, &str, u64)| Seen {
            id: (*id).to_owned(),
            name: (*name).to_owned(),
            state: (*state).to_owned(),
            attempt: *attempt,
        };
        Event::Listed {
            called_ms,
            ended_ms: called_ms + 5,
            jobs: jobs.iter().map(seen).collect(),
        }
    }

    #[test]
    fn a_life_as_it_should_be_is_no_violation() {
        let events = [
            submitted("chaos-1", Some("a"), 10),
            submitted("chaos-2", None, 20),
            listed(9, &[]),
            listed(
                30,
                &[
                    ("a", "chaos-1", "RUNNING", 1),
                    ("b", "chaos-2", "CREATED", 0),
                ],
            ),
            listed(
                40,
                &[
                    ("a", "chaos-1", "RESTARTING", 1),
                    ("b", "chaos-2", "RUNNING", 1),
                ],
            ),
            Event::Canceled {
                id: "a".to_owned(),
                ended_ms: 45,
            },
            listed(
                50,
                &[
                    ("a", "chaos-1", "CANCELED", 2),
                    ("b", "chaos-2", "FINISHED", 1),
                ],
            ),
            listed(
                60,
                &[
                    ("a", "chaos-1", "CANCELED", 2),
                    ("b", "chaos-2", "FINISHED", 1),
                ],
            ),
        ];
        assert_eq!(check(&events, true), []);
        let expected = Counts {
            submitted: 2,
            acknowledged: 1,
            canceled: 1,
            lists: 5,
        };
        assert_eq!(counts(&events), expected);
    }

    #[test]
    fn lost_doubled_revived_and_uncanceled_jobs_are_found() {
        let running = |called| listed(called, &[("a", "chaos-1", "RUNNING", 2)]);
        let ended = |called| listed(called, &[("a", "chaos-1", "FAILED", 2)]);
        let one = |events: &[Event], at_ms: u64, text: &str| {
            let violations = check(events, true);
            assert!(
                violations.len() == 1 && violations[0].what.contains(text),
                "{violations:?}"
            );
            assert_eq!(violations[0].at_ms, Some(at_ms), "{violations:?}");
        };
        one(
            &[
                submitted("chaos-1", Some("a"), 10),
                listed(11, &[]),
                listed(20, &[]),
            ],
            11,
            "is not in the list",
        );
        let twice = [
            ("a", "chaos-1", "RUNNING", 1),
            ("b", "chaos-1", "RUNNING", 1),
        ];
        one(
            &[submitted("chaos-1", None, 10), listed(20, &twice)],
            20,
            "made [\"a\", \"b\"]",
        );
        one(
            &[ended(10), running(20)],
            20,
            "was FAILED at 15 ms and RUNNING at 20 ms",
        );
        one(
            &[running(10), listed(20, &[("a", "chaos-1", "RUNNING", 1)])],
            20,
            "was at attempt 2",
        );
        let canceled = Event::Canceled {
            id: "a".to_owned(),
            ended_ms: 5,
        };
        one(&[canceled, running(10)], 10, "was canceled at 5 ms");
        // Two lists at the same time may have been answered in either order.
        assert!(check(&[ended(10), running(12)], true).is_empty());
    }
}
