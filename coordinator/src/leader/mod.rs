//! The leader's loop: receives events, asks [`crate::core::plan`], carries out what it says.
//!
//! ```text
//!   elected ──► ActivateJobManager committed: its index is the epoch ──► serving ──► leadership lost ──► waiting
//! ```
//!
//! While its lease is in doubt, a leader neither proposes nor deletes nor beats: TaskManagers then look for another one.
//! Every decision and every call carries the epoch, so what a deposed leader still sends is refused wherever it arrives.

mod carry_out;
mod session;
mod transitions;

use std::sync::Arc;
use std::time::Duration;

use flott_node::{SharedClock, Tasks};
use flott_proto::ids::{CheckpointId, JobId, LeaderEpoch, TaskManagerId};
use flott_proto::job_graph::JobGraph;
use flott_proto::wire::{self, command::Decision};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info};

use crate::core::observed::{ConnectionId, FileChecked, MetadataWritten, UnderWay};
use crate::core::{Observed, Response};
use crate::metrics;
use crate::raft::{ProposeError, RaftNode};

use session::Session;

/// Messages that wait for one TaskManager. One that does not drain them is disconnected and registers again.
const OUTBOX_MAX: usize = 256;
/// How often time-outs are looked at. Also how long a refused decision waits before it is tried again.
const TICK: Duration = Duration::from_millis(20);

/// What goes to a TaskManager's stream.
pub(crate) type Outbox = mpsc::Sender<Result<wire::JobManagerMessage, tonic::Status>>;
pub(crate) type OutboxReceiver = mpsc::Receiver<Result<wire::JobManagerMessage, tonic::Status>>;

/// Everything that can wake the leader.
#[derive(Debug)]
pub(crate) enum Event {
    Registered {
        connection: ConnectionId,
        register: wire::Register,
        outbox: Outbox,
    },
    Received {
        task_manager: TaskManagerId,
        connection: ConnectionId,
        message: wire::task_manager_message::Message,
    },
    Disconnected {
        task_manager: TaskManagerId,
        connection: ConnectionId,
    },
    Proposed {
        what: UnderWay,
        outcome: Result<Response, ProposeError>,
        /// The checkpoint that it was to complete, if it was that.
        completing: Option<CheckpointId>,
    },
    MetadataWritten {
        job: JobId,
        written: MetadataWritten,
    },
    /// Files were deleted, or there is nothing to forget: no work of that kind is under way any more.
    FilesDeleted {
        job: JobId,
        deleted: Option<wire::ForgetFiles>,
    },
    /// What time had ended in the key-value spaces was removed, or not.
    KeysExpired,
    /// The directory of an ended job was looked through; whether nothing is left in it.
    Swept { job: JobId, empty: bool },
    /// The leader has looked at a file that a task could not restore.
    FileChecked { job: JobId, checked: FileChecked },
    GraphLoaded {
        job: JobId,
        outcome: Result<Arc<JobGraph>, String>,
    },
    Inspect {
        /// The job whose tasks are wanted.
        job: Option<JobId>,
        answer: oneshot::Sender<Inspection>,
    },
}

/// What the leader sees, for those who ask.
#[derive(Debug)]
pub(crate) struct Inspection {
    /// All TaskManagers, with the tasks of the job that was asked for.
    pub observed: Observed,
    /// Why that job waits.
    pub note: Option<String>,
}

/// The leader in office, if it is this process.
#[derive(Clone, Debug)]
pub(crate) struct Office {
    pub epoch: LeaderEpoch,
    pub mailbox: mpsc::Sender<Event>,
    pub log_clock: LogClock,
}

/// What a leader writes into its entries as the time: the wall's when it took office, and from then on what its
/// monotonic clock says has passed. A wall clock that is set while it leads ends no lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogClock {
    base_ms: i64,
    base: Duration,
}

impl LogClock {
    /// Never behind `log_time_ms`, the time of the last entry.
    fn starting_now(clock: &SharedClock, log_time_ms: i64) -> Self {
        Self {
            base_ms: clock.now_ms().max(log_time_ms),
            base: clock.monotonic(),
        }
    }

    /// Milliseconds since the epoch, for a log entry.
    pub(crate) fn now_ms(&self, clock: &SharedClock) -> i64 {
        let passed = clock.monotonic().saturating_sub(self.base);
        self.base_ms + i64::try_from(passed.as_millis()).unwrap_or(i64::MAX / 2)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct LeaderSettings {
    pub heartbeat_interval: Duration,
    pub heartbeat_timeout: Duration,
    pub reconnect_grace: Duration,
    pub results_expire_after: Duration,
    pub results_max: Option<u32>,
    /// Where this JobManager is reached, host:port.
    pub address: String,
}

/// A new outbox and its receiving end.
pub(crate) fn outbox() -> (Outbox, OutboxReceiver) {
    mpsc::channel(OUTBOX_MAX)
}

/// Waits for leadership, takes office, serves until it ends; over and over, until the process ends.
pub(crate) async fn run(
    raft: RaftNode,
    settings: LeaderSettings,
    office: watch::Sender<Option<Office>>,
    clock: SharedClock,
    tasks: Tasks,
) -> Result<(), String> {
    let mut leadership = raft.leadership();
    let cancelled = tasks.cancellation().clone();
    loop {
        tokio::select! { biased;
            () = cancelled.cancelled() => return Ok(()),
            led = async { leadership.wait_for(|now| now.is_leader).await.is_ok() } => if !led {
                // Raft has ended and says why: that is the reason to be told, not that this loop cannot go on.
                cancelled.cancelled().await;
                return Ok(());
            }
        }
        match take_office(&raft, &settings, &clock).await {
            Ok(epoch) => {
                let log_clock = LogClock::starting_now(&clock, raft.state().log_time_ms);
                let session = Session::new(epoch, log_clock, &raft, &settings, &clock, &tasks);
                let Some((mut session, mailbox)) = session else {
                    continue;
                };
                metrics::is_leader(true);
                office.send_replace(Some(Office {
                    epoch,
                    mailbox: mailbox.clone(),
                    log_clock,
                }));
                session.serve().await;
                office.send_replace(None);
                metrics::is_leader(false);
            }
            Err(error) => {
                debug!(%error, "could not take office");
                clock.sleep(TICK).await;
            }
        }
    }
}

/// Commits the entry by which this node leads. Everything committed before is applied when it returns.
async fn take_office(
    raft: &RaftNode,
    settings: &LeaderSettings,
    clock: &SharedClock,
) -> Result<LeaderEpoch, ProposeError> {
    let activate = wire::ActivateJobManager {
        node_id: raft.node_id().0,
        incarnation: raft.incarnation().to_owned(),
        address: settings.address.clone(),
    };
    let command = wire::Command {
        now_ms: clock.now_ms(),
        epoch: 0,
        decision: Some(Decision::ActivateJobManager(activate)),
    };
    let applied = raft.propose(command).await?;
    let epoch = LeaderEpoch(applied.index);
    info!(%epoch, node = %raft.node_id(), "JobManager took office");
    Ok(epoch)
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
