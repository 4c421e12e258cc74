//! What happened to a job, for people: a bounded list of its transitions and failed checkpoints.
//!
//! Written by `apply`, in log time, so it is the same on every JobManager and survives all of them. The newest
//! [`EVENTS_MAX`] are kept. The list is a persistent vector: jobs are copied with every decision, their history is not.

use flott_proto::Malformed;
use flott_proto::ids::{AttemptNumber, CheckpointId};
use flott_proto::wire;
use imbl::Vector;

use super::job::JobStatus;

/// Events that a job remembers: several restarts with all that led to them.
pub const EVENTS_MAX: usize = 64;
/// Bytes of an event's cause. The last failure is kept whole elsewhere; a history of stack traces would fill snapshots.
pub const CAUSE_BYTES_MAX: usize = 512;

const CHECKPOINT_FAILED: &str = "CHECKPOINT_FAILED";
const CHECKPOINT_DISCARDED: &str = "CHECKPOINT_DISCARDED";
const RESCALED: &str = "RESCALED";

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The job came into this state.
    Became(JobStatus),
    /// A checkpoint was given up in a way that counts as a failure.
    CheckpointFailed(CheckpointId),
    /// A retained checkpoint turned out to be unreadable.
    CheckpointDiscarded(CheckpointId),
    /// From now on its attempts have another parallelism.
    Rescaled,
}

/// One line of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEvent {
    /// Log time.
    pub at_ms: i64,
    /// The attempt that it happened to; [`AttemptNumber::NONE`] before the first.
    pub attempt: AttemptNumber,
    pub what: What,
    /// Why; empty where `what` says it all.
    pub cause: String,
}

/// Newest last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History(Vector<JobEvent>);

impl History {
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &JobEvent> {
        self.0.iter()
    }

    /// Adds an event; the oldest makes room for it.
    pub fn record(&mut self, at_ms: i64, attempt: AttemptNumber, what: What, cause: &str) {
        while self.0.len() >= EVENTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(JobEvent {
            at_ms,
            attempt,
            what,
            cause: shortened(cause),
        });
    }

    /// Why that checkpoint is unusable, if it is and that is not too long ago.
    pub fn why_discarded(&self, checkpoint: CheckpointId) -> Option<&str> {
        let discarded = What::CheckpointDiscarded(checkpoint);
        let event = self.iter().rev().find(|event| event.what == discarded)?;
        Some(&event.cause)
    }

    /// Panics if the history contradicts itself.
    pub fn check(&self) {
        assert!(self.0.len() <= EVENTS_MAX);
        assert!(
            self.iter().is_sorted_by_key(|event| event.at_ms),
            "log time never goes back"
        );
    }

    pub(crate) fn to_wire(&self) -> Vec<wire::JobEvent> {
        self.iter().map(JobEvent::to_wire).collect()
    }

    pub(super) fn from_wire(events: Vec<wire::JobEvent>) -> Result<Self, Malformed> {
        let events = events.into_iter().map(JobEvent::from_wire);
        events.collect::<Result<_, _>>().map(Self)
    }
}

impl JobEvent {
    fn to_wire(&self) -> wire::JobEvent {
        let (event, checkpoint) = match self.what {
            What::Became(status) => (status.name(), CheckpointId::NONE),
            What::CheckpointFailed(id) => (CHECKPOINT_FAILED, id),
            What::CheckpointDiscarded(id) => (CHECKPOINT_DISCARDED, id),
            What::Rescaled => (RESCALED, CheckpointId::NONE),
        };
        wire::JobEvent {
            at_ms: self.at_ms,
            attempt: self.attempt.0,
            event: event.to_owned(),
            checkpoint_id: checkpoint.0,
            cause: self.cause.clone(),
        }
    }

    fn from_wire(event: wire::JobEvent) -> Result<Self, Malformed> {
        let checkpoint = CheckpointId(event.checkpoint_id);
        let what = match event.event.as_str() {
            CHECKPOINT_FAILED => What::CheckpointFailed(checkpoint),
            CHECKPOINT_DISCARDED => What::CheckpointDiscarded(checkpoint),
            RESCALED => What::Rescaled,
            name => What::Became(JobStatus::from_name(name).ok_or_else(|| {
                Malformed::new("job event", format!("{name:?}; upgrade this JobManager"))
            })?),
        };
        Ok(Self {
            at_ms: event.at_ms,
            attempt: AttemptNumber(event.attempt),
            what,
            cause: event.cause,
        })
    }
}

/// At most [`CAUSE_BYTES_MAX`] bytes, cut between characters.
fn shortened(cause: &str) -> String {
    const CUT: &str = "…";
    if cause.len() <= CAUSE_BYTES_MAX {
        return cause.to_owned();
    }
    let mut end = CAUSE_BYTES_MAX - CUT.len();
    while !cause.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{CUT}", &cause[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_events_are_kept_with_causes_of_bounded_length() {
        let mut history = History::default();
        for n in 0..EVENTS_MAX as i64 + 5 {
            history.record(
                n,
                AttemptNumber(1),
                What::Became(JobStatus::Running),
                &"ö".repeat(n as usize * 10),
            );
            history.check();
        }
        let times: Vec<_> = history.iter().map(|event| event.at_ms).collect();
        assert!(times.iter().copied().eq(5..EVENTS_MAX as i64 + 5));
        let longest = history.iter().map(|event| event.cause.len()).max().unwrap();
        assert!((CAUSE_BYTES_MAX - 4..=CAUSE_BYTES_MAX).contains(&longest));
    }

    #[test]
    fn every_event_survives_a_snapshot() {
        let mut history = History::default();
        let whats = [
            What::Became(JobStatus::Created),
            What::Became(JobStatus::Failed),
            What::CheckpointFailed(CheckpointId(7)),
            What::CheckpointDiscarded(CheckpointId(8)),
        ];
        for what in whats {
            history.record(3, AttemptNumber(2), what, "why");
        }
        assert_eq!(History::from_wire(history.to_wire()), Ok(history));
    }
}
