//! The TaskManager's one stream to whoever leads.
//!
//! [`GatewayCore`] decides (pure); [`leader`] finds the leader and [`session`] carries the bytes.
//!
//! ```text
//!            session opened: Register             Registered
//! detached ─────────────────────────▶ registering ──────────▶ attached
//!     ▲                                   │                       │
//!     └────── session closed: stream broke, leader silent for the time-out, or fenced ──┘
//! ```
//!
//! What must stay true: tasks do not notice any of this. What a leader must not miss is held until a leader has said
//! that it knows: acks until their checkpoint is completed or aborted, ends of tasks until their attempt is over. All of
//! it is sent again in Register. A message of a lower epoch than the highest seen is refused.

pub mod leader;
pub mod session;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use flott_node::Mutant;
use flott_proto::fence::{EpochFence, Fenced};
use flott_proto::ids::{AttemptNumber, CheckpointId, JobId, LeaderEpoch, TaskId};
use flott_proto::wire::job_manager_message::Message as FromLeader;
use flott_proto::wire::task_manager_message::Message as ToLeader;
use flott_proto::wire::{
    self, CheckpointAck, CheckpointDeclined, Heartbeat, JobManagerMessage, Register,
    TaskManagerMessage, TaskReport, TaskStatusChanged,
};

/// Acks that wait for a leader's word: every task of a large TaskManager for some checkpoints. The oldest go first;
/// their checkpoint then does not complete, which is what happens without a leader anyway.
pub const HELD_ACKS_MAX: usize = 4096;
/// Declines that wait likewise.
pub const HELD_DECLINES_MAX: usize = 1024;
/// Ends of tasks that are reported again to the next leader. The oldest go first.
pub const ENDED_TASKS_MAX: usize = 1024;

/// Numbers the sessions of this process: an event of an earlier session means nothing.
pub type SessionId = u64;

#[derive(Clone, Debug)]
struct Session {
    id: SessionId,
    /// None before the leader's first message.
    epoch: LeaderEpoch,
    registered: bool,
    last_heard: Duration,
    last_beat: Duration,
}

/// What a tick asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    Nothing,
    /// Send [`GatewayCore::heartbeat`].
    Beat,
    /// The leader is silent: close the session and look again.
    Close,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It came over a session that is gone.
    Stale,
    /// Its sender was deposed. `close`: the session is worth nothing, its leader never had this TaskManager.
    Fenced { fenced: Fenced, close: bool },
    /// A kind that this build does not know; a newer leader has to do without.
    Unknown,
}

/// Decides what is sent, held and refused. Time is the clock's monotonic.
#[derive(Debug)]
pub struct GatewayCore {
    fence: EpochFence,
    session: Option<Session>,
    heartbeat_interval: Duration,
    heartbeat_timeout: Duration,
    held_acks: BTreeMap<(JobId, CheckpointId, TaskId), CheckpointAck>,
    held_declines: VecDeque<(TaskId, CheckpointDeclined)>,
    ended: VecDeque<(TaskId, TaskReport)>,
}

impl GatewayCore {
    /// Detached. The intervals hold until a leader names its own.
    pub fn new(heartbeat_interval: Duration, heartbeat_timeout: Duration) -> Self {
        Self {
            fence: EpochFence::default(),
            session: None,
            heartbeat_interval,
            heartbeat_timeout,
            held_acks: BTreeMap::new(),
            held_declines: VecDeque::new(),
            ended: VecDeque::new(),
        }
    }

    /// The highest epoch seen.
    pub fn epoch(&self) -> LeaderEpoch {
        self.fence.highest()
    }

    /// How often to call [`Self::on_tick`].
    pub fn tick_interval(&self) -> Duration {
        (self.heartbeat_interval / 2).clamp(Duration::from_millis(5), Duration::from_millis(250))
    }

    /// Acks that are held.
    pub fn held_acks(&self) -> usize {
        self.held_acks.len()
    }

    /// A session was opened; `register` lacks what is held here. What to send first, in this order.
    pub fn on_opened(
        &mut self,
        id: SessionId,
        mut register: Register,
        now: Duration,
    ) -> Vec<TaskManagerMessage> {
        self.session = Some(Session {
            id,
            epoch: LeaderEpoch::NONE,
            registered: false,
            last_heard: now,
            last_beat: now,
        });
        register
            .tasks
            .extend(self.ended.iter().map(|(_, report)| report.clone()));
        register.held_acks.extend(self.held_acks.values().cloned());
        let mut messages = vec![ToLeader::Register(register)];
        messages.extend(
            self.held_declines
                .iter()
                .map(|(_, declined)| ToLeader::CheckpointDeclined(declined.clone())),
        );
        messages
            .into_iter()
            .filter_map(|message| self.message(message))
            .collect()
    }

    /// A session ended, however that came.
    pub fn on_closed(&mut self, id: SessionId) {
        if self
            .session
            .as_ref()
            .is_some_and(|session| session.id == id)
        {
            self.session = None;
        }
    }

    /// A message came over a session. What of it concerns the tasks.
    pub fn on_message(
        &mut self,
        id: SessionId,
        message: JobManagerMessage,
        now: Duration,
    ) -> Result<Option<FromLeader>, Refused> {
        let session = self
            .session
            .as_mut()
            .filter(|session| session.id == id)
            .ok_or(Refused::Stale)?;
        let epoch = LeaderEpoch(message.epoch);
        if let Err(fenced) = self.fence.admit(epoch)
            && !Mutant::DeposedLeaderObeyed.is_planted()
        {
            let close = !session.registered;
            return Err(Refused::Fenced { fenced, close });
        }
        session.epoch = epoch;
        session.last_heard = now;
        match message.message.ok_or(Refused::Unknown)? {
            FromLeader::Registered(registered) => {
                session.registered = true;
                let positive = |ms: u64, present| {
                    if ms > 0 {
                        Duration::from_millis(ms)
                    } else {
                        present
                    }
                };
                self.heartbeat_interval =
                    positive(registered.heartbeat_interval_ms, self.heartbeat_interval);
                self.heartbeat_timeout =
                    positive(registered.heartbeat_timeout_ms, self.heartbeat_timeout);
                Ok(None)
            }
            FromLeader::Heartbeat(_) => Ok(None),
            other => Ok(Some(other)),
        }
    }

    /// Whether a leader has accepted this TaskManager, and its epoch.
    pub fn attached_to(&self) -> Option<LeaderEpoch> {
        self.session
            .as_ref()
            .filter(|session| session.registered)
            .map(|session| session.epoch)
    }

    /// Time has passed.
    pub fn on_tick(&mut self, now: Duration) -> Tick {
        let Some(session) = &mut self.session else {
            return Tick::Nothing;
        };
        if now.saturating_sub(session.last_heard) >= self.heartbeat_timeout {
            return Tick::Close;
        }
        if session.registered && now.saturating_sub(session.last_beat) >= self.heartbeat_interval {
            session.last_beat = now;
            return Tick::Beat;
        }
        Tick::Nothing
    }

    /// The heartbeat with reports of the tasks that have not ended.
    pub fn heartbeat(&self, tasks: Vec<TaskReport>) -> Option<TaskManagerMessage> {
        self.message(ToLeader::Heartbeat(Heartbeat { tasks }))
    }

    /// A task acknowledged a checkpoint: held, and sent if there is a session.
    pub fn on_ack(&mut self, task: &TaskId, ack: CheckpointAck) -> Option<TaskManagerMessage> {
        let key = (
            task.job.clone(),
            CheckpointId(ack.checkpoint_id),
            task.clone(),
        );
        self.held_acks.insert(key, ack.clone());
        while self.held_acks.len() > HELD_ACKS_MAX {
            let oldest = self
                .held_acks
                .keys()
                .min_by_key(|(_, checkpoint, _)| *checkpoint)
                .cloned();
            oldest.and_then(|oldest| self.held_acks.remove(&oldest));
        }
        self.message(ToLeader::CheckpointAck(ack))
    }

    /// A task declined a checkpoint: likewise.
    pub fn on_decline(
        &mut self,
        task: &TaskId,
        checkpoint: CheckpointId,
        reason: String,
    ) -> Option<TaskManagerMessage> {
        let declined = CheckpointDeclined {
            task: Some(task.into()),
            checkpoint_id: checkpoint.0,
            reason,
        };
        self.held_declines
            .push_back((task.clone(), declined.clone()));
        if self.held_declines.len() > HELD_DECLINES_MAX {
            self.held_declines.pop_front();
        }
        self.message(ToLeader::CheckpointDeclined(declined))
    }

    /// A task's state changed; `ended` if it is its last.
    pub fn on_status(
        &mut self,
        task: &TaskId,
        report: TaskReport,
        ended: bool,
    ) -> Option<TaskManagerMessage> {
        let changed = TaskStatusChanged {
            retryable: !report.failure_is_final,
            lost_peer: report.lost_peer.clone(),
            task: Some(report.clone()),
        };
        if ended {
            self.ended.push_back((task.clone(), report));
            if self.ended.len() > ENDED_TASKS_MAX {
                self.ended.pop_front();
            }
        }
        self.message(ToLeader::TaskStatus(changed))
    }

    /// A task carried out a checkpoint's commit. Not held: every report names the highest.
    pub fn on_committed(
        &mut self,
        task: &TaskId,
        checkpoint: CheckpointId,
    ) -> Option<TaskManagerMessage> {
        self.message(ToLeader::CheckpointCommitted(wire::CheckpointCommitted {
            task: Some(task.into()),
            checkpoint_id: checkpoint.0,
        }))
    }

    /// The leader knows how the checkpoint ended; so it does of all before a completed one.
    pub fn on_checkpoint_over(
        &mut self,
        job: &JobId,
        attempt: AttemptNumber,
        checkpoint: CheckpointId,
        completed: bool,
    ) {
        let over = |task: &TaskId, id: CheckpointId| {
            task.job == *job
                && task.attempt <= attempt
                && (id == checkpoint || completed && id < checkpoint)
        };
        self.held_acks.retain(|(_, id, task), _| !over(task, *id));
        self.held_declines
            .retain(|(task, declined)| !over(task, CheckpointId(declined.checkpoint_id)));
    }

    /// The leader has ended these attempts of the job: it needs to hear nothing more of them.
    pub fn on_attempts_over(&mut self, job: &JobId, up_to: AttemptNumber) {
        let over = |task: &TaskId| task.job == *job && task.attempt <= up_to;
        self.held_acks.retain(|(_, _, task), _| !over(task));
        self.held_declines.retain(|(task, _)| !over(task));
        self.ended.retain(|(task, _)| !over(task));
    }

    /// This TaskManager's cluster has a successor, which wants to hear nothing of what was before. The fence stays: the
    /// successor's epochs are higher than any of its predecessor's.
    pub fn on_superseded(&mut self) {
        self.held_acks.clear();
        self.held_declines.clear();
        self.ended.clear();
    }

    /// The message if there is a session. Its epoch is the session's own: none before the leader has named it.
    fn message(&self, message: ToLeader) -> Option<TaskManagerMessage> {
        let session = self.session.as_ref()?;
        Some(TaskManagerMessage {
            epoch: session.epoch.0,
            message: Some(message),
        })
    }
}

#[cfg(test)]
mod tests;
