//! The abusive tenant, and its abuse: each kind is a task that goes on as fast as it is answered.
//!
//! - [`flood`]: keys, too many and too large. [`looks`]: lists and watches. [`jobs`]: too many jobs, and other people's.

mod flood;
mod jobs;
mod looks;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flott_chaos_basis::random::Random;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Tenants;
use crate::invariants::tenants::{Answer, Event, Tenant};

/// The noisy tenant does nothing for so long, for the steady one's figures at rest …
const REST: Duration = Duration::from_secs(6);
/// … then does its worst for so long.
const ABUSE: Duration = Duration::from_secs(12);
/// Of each kind of abuse.
const FLOODERS: u32 = 8;
const WATCHERS: u32 = 8;
const LISTERS: u32 = 2;
/// For an answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// After something that was not carried out because of who was asked, or of faults.
const DISAPPOINTED: Duration = Duration::from_millis(10);
/// Requests of one period that go against a limit, and are written down; all of them that were carried out are.
const BEYOND_MAX: u64 = 3;

/// What one period of abuse came to: what was carried out, what was not, and what went against a limit.
#[derive(Debug, Default)]
struct Tally(Mutex<[BTreeMap<String, u64>; 3]>);

impl Tally {
    const DONE: usize = 0;
    const REFUSED: usize = 1;
    const BEYOND: usize = 2;

    /// Counts one more; how many there are now.
    fn count(&self, which: usize, what: &str) -> u64 {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts[which].entry(what.to_owned()).or_default();
        *count += 1;
        *count
    }

    fn take(&self) -> [BTreeMap<String, u64>; 3] {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What all tasks of one period have.
#[derive(Clone)]
struct Abuse {
    tenants: Arc<Tenants>,
    tally: Arc<Tally>,
    over: CancellationToken,
}

/// Rests and abuses in turn until `stop`.
pub async fn abuse(tenants: Arc<Tenants>, mut random: Random, stop: CancellationToken) {
    loop {
        tokio::select! { biased;
            () = stop.cancelled() => return,
            () = tenants.clock().sleep(REST) => {}
        }
        let from_ms = tenants.now_ms();
        let abuse = Abuse {
            tenants: Arc::clone(&tenants),
            tally: Arc::default(),
            over: stop.child_token(),
        };
        let mut tasks = JoinSet::new();
        for _ in 0..FLOODERS {
            tasks.spawn(abuse.clone().flood(random.fork()));
        }
        for number in 0..WATCHERS {
            tasks.spawn(abuse.clone().watch(number));
        }
        for number in 0..LISTERS {
            tasks.spawn(abuse.clone().list(number));
        }
        tasks.spawn(abuse.clone().submit());
        tasks.spawn(abuse.clone().trespass());
        tokio::select! { biased;
            () = stop.cancelled() => {}
            () = tenants.clock().sleep(ABUSE) => {}
        }
        abuse.over.cancel();
        while let Some(ended) = tasks.join_next().await {
            ended.expect("no kind of abuse panics");
        }
        abuse.leave_no_job().await;
        abuse.leave_no_key().await;
        let [done, refused, _] = abuse.tally.take();
        tenants.record(Event::Abused {
            from_ms,
            until_ms: tenants.now_ms(),
            done,
            refused,
        });
    }
}

impl Abuse {
    fn saw(&self, what: String) {
        self.tenants.record(Event::Foreign {
            tenant: Tenant::Noisy,
            at_ms: self.tenants.now_ms(),
            what,
        });
    }

    /// Writes down what became of a request beyond a limit: the first few, and all that were carried out.
    fn went_beyond(&self, what: &str, says: &str, answer: Answer) {
        if self.tally.count(Tally::BEYOND, what) > BEYOND_MAX && answer != Answer::Done {
            return;
        }
        self.tenants.record(Event::Beyond {
            what: what.to_owned(),
            says: says.to_owned(),
            at_ms: self.tenants.now_ms(),
            answer,
        });
    }

    fn counted(&self, what: &str, answer: &Answer) {
        match answer {
            Answer::Done => self.tally.count(Tally::DONE, what),
            _ => self.tally.count(Tally::REFUSED, what),
        };
    }
}
