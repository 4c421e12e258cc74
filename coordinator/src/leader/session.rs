//! One time in office: receives events, keeps what is observed, and asks for a plan after each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flott_node::{Failpoint, SharedClock, Tasks};
use flott_proto::ids::{JobId, LeaderEpoch, TaskManagerId};
use flott_proto::wire::{self, command::Decision, job_manager_message::Message};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::{Event, Inspection, LeaderSettings, LogClock, Outbox, TICK};
use crate::core::observed::{ConnectionId, Now, UnderWay};
use crate::core::plan::Settings;
use crate::core::{ClusterState, Observed, Response, plan};
use crate::metrics;
use crate::raft::RaftNode;

/// Events that wait for the leader: enough for every TaskManager of a large cluster to report at once.
const MAILBOX_MAX: usize = 4096;
/// Events handled before the next plan, so that a burst costs one plan.
const EVENTS_PER_PLAN_MAX: usize = 256;

/// One time in office.
pub(super) struct Session {
    pub(super) epoch: LeaderEpoch,
    pub(super) log_clock: LogClock,
    pub(super) raft: RaftNode,
    pub(super) clock: SharedClock,
    pub(super) tasks: Tasks,
    pub(super) plan_settings: Settings,
    pub(super) heartbeat_interval: Duration,
    pub(super) mailbox: mpsc::Receiver<Event>,
    pub(super) to_self: mpsc::Sender<Event>,
    pub(super) observed: Observed,
    pub(super) outboxes: BTreeMap<TaskManagerId, Outbox>,
    /// Decisions that were refused: what they were for is not tried again before the next tick.
    pub(super) refused: Vec<UnderWay>,
    pub(super) notes: BTreeMap<JobId, String>,
    pub(super) next_beat: Duration,
    pub(super) last_state: Arc<ClusterState>,
    /// The removal of expired keys is on its way.
    pub(super) expiring: bool,
}

impl Session {
    pub(super) fn new(
        epoch: LeaderEpoch,
        log_clock: LogClock,
        raft: &RaftNode,
        settings: &LeaderSettings,
        clock: &SharedClock,
        tasks: &Tasks,
    ) -> Option<(Self, mpsc::Sender<Event>)> {
        let (to_self, mailbox) = mpsc::channel(MAILBOX_MAX);
        let session = Self {
            epoch,
            log_clock,
            raft: raft.clone(),
            clock: clock.clone(),
            tasks: tasks.clone(),
            plan_settings: Settings {
                cluster: raft.cluster_id()?,
                heartbeat_timeout: settings.heartbeat_timeout,
                reconnect_grace: settings.reconnect_grace,
                results_expire_after: settings.results_expire_after,
                results_max: settings.results_max,
            },
            heartbeat_interval: settings.heartbeat_interval,
            mailbox,
            to_self: to_self.clone(),
            observed: Observed::empty(clock.monotonic()),
            outboxes: BTreeMap::new(),
            refused: Vec::new(),
            notes: BTreeMap::new(),
            next_beat: Duration::ZERO,
            last_state: raft.state(),
            expiring: false,
        };
        Some((session, to_self))
    }

    pub(super) async fn serve(&mut self) {
        let (mut leadership, mut planned) = (self.raft.leadership(), self.raft.planned());
        let cancelled = self.tasks.cancellation().clone();
        let mut tick = self.clock.sleep(TICK);
        loop {
            tokio::select! { biased;
                () = cancelled.cancelled() => return,
                changed = leadership.changed() => {
                    if changed.is_err() || !leadership.borrow_and_update().is_leader {
                        info!(epoch = %self.epoch, "JobManager left office");
                        return;
                    }
                }
                Some(event) = self.mailbox.recv() => {
                    self.on_event(event);
                    for _ in 1..EVENTS_PER_PLAN_MAX {
                        match self.mailbox.try_recv() {
                            Ok(event) => self.on_event(event),
                            Err(_) => break,
                        }
                    }
                }
                changed = planned.changed() => if changed.is_err() { return },
                () = &mut tick => {
                    tick = self.clock.sleep(TICK);
                    for what in self.refused.drain(..) {
                        self.observed.on_decided(&what);
                    }
                }
            }
            let state = self.raft.state();
            if state.epoch != self.epoch {
                info!(epoch = %self.epoch, newer = %state.epoch, "JobManager was replaced in office");
                return;
            }
            self.log_transitions(&state);
            self.observed.on_state(&state, self.now());
            if self.raft.lease_is_valid() {
                self.beat();
                let plan = plan(&state, &self.observed, &self.plan_settings, self.now());
                self.carry_out(&state, plan);
                self.expire_keys(&state);
            }
            self.last_state = state;
        }
    }

    /// Has the group remove what time has ended, one step at a time.
    fn expire_keys(&mut self, state: &ClusterState) {
        let now_ms = self.now().wall_ms;
        let due = state.next_kv_deadline().is_some_and(|at| at <= now_ms);
        if due && !std::mem::replace(&mut self.expiring, true) {
            self.propose_expiry();
        }
    }

    fn now(&self) -> Now {
        Now {
            monotonic: self.clock.monotonic(),
            wall_ms: self.log_clock.now_ms(&self.clock),
        }
    }

    fn on_event(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Registered {
                connection,
                register,
                outbox,
            } => self.on_registered(connection, register, outbox, now),
            Event::Received {
                task_manager,
                connection,
                message,
            } => {
                if let Err(error) =
                    self.observed
                        .on_message(&task_manager, connection, message, now)
                {
                    warn!(%task_manager, %error, "ignoring a message");
                }
            }
            Event::Disconnected {
                task_manager,
                connection,
            } => {
                let present = self
                    .observed
                    .task_managers
                    .get(&task_manager)
                    .and_then(|tm| tm.connection);
                if present == Some(connection) {
                    info!(%task_manager, "TaskManager disconnected");
                    self.outboxes.remove(&task_manager);
                }
                self.observed.on_disconnect(&task_manager, connection, now);
            }
            Event::Proposed {
                what,
                outcome,
                completing,
            } => match outcome {
                Ok(Response::Applied | Response::Kv(_)) => {
                    metrics::decision(true);
                    self.observed.on_decided(&what);
                }
                Ok(Response::Refused(reason)) => {
                    metrics::decision(false);
                    warn!(?what, reason, "a decision was refused");
                    if let (UnderWay::Proposal(job), Some(checkpoint)) = (&what, completing) {
                        self.observed
                            .on_completion_refused(job, checkpoint, &reason);
                    }
                    self.refused.push(what);
                }
                Err(error) => {
                    debug!(?what, %error, "a decision was not replicated");
                    self.refused.push(what);
                }
            },
            Event::MetadataWritten { job, written } => {
                self.observed
                    .under_way
                    .remove(&UnderWay::WriteMetadata(job.clone()));
                if let Err(reason) = &written.outcome {
                    warn!(%job, checkpoint = %written.checkpoint, reason, "checkpoint metadata was not written");
                }
                self.observed.metadata.insert(job, written);
            }
            Event::FilesDeleted { job, deleted } => match deleted {
                Some(forget) => {
                    Failpoint::BeforeForgetting.pass();
                    self.propose_forgetting(job, Decision::ForgetFiles(forget));
                }
                None => {
                    self.observed.under_way.remove(&UnderWay::DeleteFiles(job));
                }
            },
            Event::KeysExpired => self.expiring = false,
            Event::Swept { job, empty } => {
                self.observed
                    .under_way
                    .remove(&UnderWay::Sweep(job.clone()));
                if empty {
                    self.observed.swept.insert(job);
                }
            }
            Event::GraphLoaded { job, outcome } => {
                self.observed
                    .under_way
                    .remove(&UnderWay::LoadGraph(job.clone()));
                self.observed.graphs.insert(job, outcome);
            }
            Event::FileChecked { job, checked } => {
                self.observed
                    .under_way
                    .remove(&UnderWay::CheckFile(job.clone()));
                self.observed.files_checked.insert(job, checked);
            }
            Event::Inspect { job, answer } => {
                let note = job.as_ref().and_then(|job| self.notes.get(job).cloned());
                // Who asked may be gone already.
                let _ = answer.send(Inspection {
                    observed: self.observed.excerpt(job.as_ref()),
                    note,
                });
            }
        }
    }

    fn on_registered(
        &mut self,
        connection: ConnectionId,
        register: wire::Register,
        outbox: Outbox,
        now: Now,
    ) {
        let tasks = register.tasks.len();
        self.observed.on_state(&self.raft.state(), now);
        match self.observed.on_register(connection, register, now) {
            Ok(id) => {
                info!(task_manager = %id, tasks, epoch = %self.epoch, "TaskManager registered");
                let registered = Message::Registered(wire::Registered {
                    heartbeat_interval_ms: self.heartbeat_interval.as_millis() as u64,
                    heartbeat_timeout_ms: self.plan_settings.heartbeat_timeout.as_millis() as u64,
                });
                self.outboxes.insert(id.clone(), outbox);
                self.send(&id, registered);
            }
            Err(error) => {
                warn!(%error, "refusing a TaskManager");
                // A full or closed outbox means that it is gone.
                let _ = outbox.try_send(Err(tonic::Status::invalid_argument(error.to_string())));
            }
        }
    }

    /// Lets the TaskManagers know that their leader lives.
    fn beat(&mut self) {
        let now = self.clock.monotonic();
        if now < self.next_beat {
            return;
        }
        self.next_beat = now + self.heartbeat_interval;
        let everyone: Vec<_> = self.outboxes.keys().cloned().collect();
        metrics::task_managers(everyone.len());
        for task_manager in everyone {
            self.send(&task_manager, Message::Heartbeat(wire::LeaderHeartbeat {}));
        }
        // One that is long gone is forgotten.
        let forget_after = self
            .plan_settings
            .heartbeat_timeout
            .max(self.plan_settings.reconnect_grace)
            * 4;
        let (outboxes, state) = (&self.outboxes, self.raft.state());
        let hosts = |id: &TaskManagerId| {
            state.active_jobs().any(|job| {
                job.assignments
                    .values()
                    .any(|place| place.task_manager == *id)
            })
        };
        self.observed.task_managers.retain(|id, task_manager| {
            outboxes.contains_key(id)
                || now.saturating_sub(task_manager.last_heard) < forget_after
                || hosts(id)
        });
    }

    pub(super) fn send(&mut self, to: &TaskManagerId, message: Message) {
        let Some(outbox) = self.outboxes.get(to) else {
            return;
        };
        self.observed.on_sent(to, &message);
        let message = wire::JobManagerMessage {
            epoch: self.epoch.0,
            message: Some(message),
        };
        if outbox.try_send(Ok(message)).is_err() {
            warn!(task_manager = %to, "TaskManager does not take its messages; disconnecting it");
            self.outboxes.remove(to);
            let now = self.now();
            if let Some(connection) = self
                .observed
                .task_managers
                .get(to)
                .and_then(|tm| tm.connection)
            {
                self.observed.on_disconnect(to, connection, now);
            }
        }
    }
}
