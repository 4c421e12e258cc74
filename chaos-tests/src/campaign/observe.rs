//! Watches a cluster as a user could: lists its jobs, a job's checkpoints, and asks every JobManager who leads.
//!
//! What cannot be asked at the moment is not written down: an observation is an answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flott_node::SharedClock;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::invariants::checkpoint_log::{self, Listed};
use crate::invariants::jobs::{Event, Seen as Job};
use crate::invariants::leaders::Leaders;
use crate::target::client::Client;

/// Everything seen, in the order in which it was.
#[derive(Debug)]
pub struct Observer {
    client: Arc<Client>,
    clock: SharedClock,
    /// When the run began.
    start: Duration,
    /// Between two rounds.
    every: Duration,
    seen: Mutex<Seen>,
}

/// What was seen, and what clients did.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Submissions, cancellations, lists.
    pub jobs: Vec<Event>,
    /// Of the sequence job.
    pub checkpoints: Vec<Listed>,
    /// Who led in which term.
    pub leaders: Leaders,
    /// The newest term that was seen with a leader, and that one; and how often it was another than before.
    pub leader: Option<(u64, u64)>,
    #[expect(missing_docs, reason = "see above")]
    pub leader_changes: u64,
    /// Each time that somebody else led than in the round before, or nobody.
    pub led: Vec<Led>,
    /// Restarts of the sequence job, by its last attempt.
    pub attempts: u64,
    /// Completed checkpoints of the sequence job.
    pub newest_checkpoint: u64,
}

/// From then on that member led in that term, as far as those who answered knew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Led {
    /// Milliseconds since the run began.
    pub at_ms: u64,
    #[expect(missing_docs, reason = "its name says it")]
    pub term: u64,
    /// 0: nobody.
    pub leader: u64,
}

impl Observer {
    /// Sees nothing yet.
    pub fn new(client: Arc<Client>, start: Duration, every: Duration) -> Arc<Self> {
        Arc::new(Self {
            clock: client.clock.clone(),
            client,
            start,
            every,
            seen: Mutex::default(),
        })
    }

    /// Milliseconds since the run began.
    pub fn now_ms(&self) -> u64 {
        self.clock
            .monotonic()
            .saturating_sub(self.start)
            .as_millis() as u64
    }

    /// Writes down what a client did.
    pub fn record(&self, event: Event) {
        self.with(|seen| seen.jobs.push(event));
    }

    /// A look at what was seen until now.
    pub fn with<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Watches until `stop`.
    pub async fn watch(self: Arc<Self>, job: Option<String>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! { biased;
                () = stop.cancelled() => return,
                () = self.look(job.as_deref()) => {}
            }
            tokio::select! { biased;
                () = stop.cancelled() => return,
                () = self.clock.sleep(self.every) => {}
            }
        }
    }

    /// One round.
    pub async fn look(&self, job: Option<&str>) {
        let statuses = self.client.statuses().await;
        let told = statuses.iter().map(|status| (status.term, status.leader));
        self.with(|seen| {
            let at_ms = self.now_ms();
            seen.led.extend(change_of_leader(&seen.led, at_ms, told));
        });
        for status in statuses {
            self.with(|seen| {
                seen.leaders
                    .observe(status.answered_by, status.term, status.leader);
                // One that is cut off goes on to believe that it leads, in its old term.
                let newest = seen.leader.map_or(0, |(term, _)| term);
                if status.leader != 0 && status.term > newest {
                    let another = |(_, leader)| leader != status.leader;
                    seen.leader_changes += u64::from(seen.leader.is_some_and(another));
                    seen.leader = Some((status.term, status.leader));
                }
            });
        }
        let called_ms = self.now_ms();
        if let Ok(listed) = self.client.json(&["list"]).await {
            let ended_ms = self.now_ms();
            let jobs = Job::all(&listed);
            let attempt = jobs
                .iter()
                .find(|seen| Some(seen.id.as_str()) == job)
                .map(|seen| seen.attempt);
            self.with(|seen| {
                seen.attempts = seen.attempts.max(attempt.unwrap_or(0));
                seen.jobs.push(Event::Listed {
                    called_ms,
                    ended_ms,
                    jobs,
                });
            });
        }
        let Some(job) = job else { return };
        if let Ok(listed) = self.client.json(&["checkpoints", job]).await {
            let list = Listed::of(&listed, self.now_ms());
            let newest = checkpoint_log::newest(std::slice::from_ref(&list));
            self.with(|seen| {
                seen.newest_checkpoint = seen.newest_checkpoint.max(newest);
                seen.checkpoints.push(list);
            });
        }
    }
}

/// What `told` (terms, and who leads in them) changes about who leads. Whoever is known of an earlier term only leads no
/// more: one that is cut off goes on to believe that it does.
fn change_of_leader(
    led: &[Led],
    at_ms: u64,
    told: impl Iterator<Item = (u64, u64)>,
) -> Option<Led> {
    let before = led.last().map_or((0, 0), |led| (led.term, led.leader));
    let newest = told.filter(|(_, leader)| *leader != 0).max();
    let now = newest
        .filter(|(term, _)| *term >= before.0)
        .unwrap_or((before.0, 0));
    (now != before).then_some(Led {
        at_ms,
        term: now.0,
        leader: now.1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_of_an_earlier_term_leads_no_more_and_nobody_is_somebody_else() {
        let rounds: [&[(u64, u64)]; 7] = [
            &[],
            &[(1, 0), (1, 2)],
            &[(1, 2), (1, 2)],
            &[(2, 0)],
            &[(2, 3), (1, 2)],
            &[(1, 2)],
            &[(2, 3)],
        ];
        let mut led: Vec<Led> = Vec::new();
        for (at_ms, told) in (0..).zip(rounds) {
            led.extend(change_of_leader(&led, at_ms, told.iter().copied()));
        }
        let seen: Vec<_> = led
            .iter()
            .map(|led| (led.at_ms, led.term, led.leader))
            .collect();
        assert_eq!(
            seen,
            [(1, 1, 2), (3, 1, 0), (4, 2, 3), (5, 2, 0), (6, 2, 3)]
        );
    }
}
