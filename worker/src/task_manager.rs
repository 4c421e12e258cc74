//! The TaskManager process: owns the slots, the tasks and what the leader is told of them.
//!
//! One loop with one mailbox. It hears of three sides, the session with the leader, the tasks, and the clock, and never
//! waits for any of them: it posts to mailboxes that are bounded, and what the leader does not read closes the session.
//! Decisions are in [`GatewayCore`](crate::gateway::GatewayCore), [`attempts`] and `task::status`; this carries them out.

mod attempts;
mod deployment;
mod local_dirs;
mod local_state;
mod tasks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flott_node::config::Configuration;
use flott_node::health::{self, Probes};
use flott_node::{OnFailure, SharedClock, SystemClock, Tasks};
use flott_proto::ids::{AttemptNumber, CheckpointId, ClusterId, JobId, TaskId};
use flott_proto::wire::job_manager_message::Message as FromLeader;
use flott_proto::wire::{CheckpointKind, Register, TaskManagerMessage, TaskReport};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::TaskManagerConfig;
use crate::gateway::session::{Opened, SessionEvent, Sessions};
use crate::gateway::{GatewayCore, Refused, Tick};
use crate::network::Barrier;
use crate::network::attempt::AttemptNetwork;
use crate::network::exchange::Exchange;
use crate::task::mailbox::{Control, Mailbox};
use crate::task::run::TaskEvent;
use crate::task::status::{Progress, TaskStatus};
use crate::{Error, metrics};

use attempts::Attempts;
use deployment::Deployment;
use local_dirs::LocalDirs;
use local_state::LocalState;

/// Events of tasks that the loop has not taken; a task that would exceed it waits for a moment.
const TASK_EVENTS_MAX: usize = 1024;
/// Messages of the leader that the loop has not taken; the stream then waits.
const SESSION_EVENTS_MAX: usize = 256;

/// What the loop hears of.
#[derive(Debug)]
enum Event {
    Session(SessionEvent),
    Task(TaskId, TaskEvent),
    Tick,
}

/// Runs a TaskManager until `tasks` is cancelled, then ends its tasks and returns. Fails if it cannot start, or if
/// something it cannot do without fails.
pub async fn run(configuration: Configuration, tasks: Tasks) -> Result<(), Error> {
    run_with(
        TaskManagerConfig::read(&configuration)?,
        tasks,
        SystemClock::shared(),
    )
    .await
}

/// As [`run`], with settings that were read before and any clock.
pub async fn run_with(
    config: TaskManagerConfig,
    tasks: Tasks,
    clock: SharedClock,
) -> Result<(), Error> {
    info!(?config, "task manager starting");
    let dirs = LocalDirs::open(&config.tmp_dir, &config.id)?;
    let exchange = Exchange::bind(
        config.id.clone(),
        &config.host,
        config.data_port,
        config.transport.clone(),
        tasks.clone(),
        SharedClock::clone(&clock),
    )
    .await?;
    config
        .transport
        .watch(config.tls_reload_interval, &tasks, &clock);
    let attached = Arc::new(AtomicBool::new(false));
    let ready = Arc::clone(&attached);
    let probes = Probes {
        ready: Arc::new(move || {
            let ready = ready.load(Ordering::Relaxed);
            ready
                .then_some(())
                .ok_or_else(|| "not registered with a leading JobManager yet".to_owned())
        }),
        leader: Arc::new(|| false),
    };
    let http = health::serve(&config.http, probes, &tasks, &clock)
        .await
        .map_err(|source| Error::Io {
            place: "HTTP port".into(),
            source,
        })?;
    info!(id = %config.id, data = exchange.address(), %http, slots = config.slots, "task manager ready");

    let (session_sender, sessions) = mpsc::channel(SESSION_EVENTS_MAX);
    let gateway = Sessions {
        jobmanagers: config.jobmanagers.clone(),
        cluster: config.cluster.clone(),
        transport: config.transport.clone(),
        events: session_sender,
        tasks: tasks.clone(),
        clock: SharedClock::clone(&clock),
    };
    tasks.spawn("gateway", OnFailure::Shutdown, Arc::new(gateway).run());
    let (task_sender, task_events) = mpsc::channel(TASK_EVENTS_MAX);
    let core = GatewayCore::new(config.heartbeat_interval, config.heartbeat_timeout);
    let mut task_manager = TaskManager {
        attempts: Attempts::new(config.slots),
        core,
        session: None,
        running: BTreeMap::new(),
        networks: BTreeMap::new(),
        leaving: None,
        events: task_sender,
        exchange,
        dirs,
        local_state: LocalState::default(),
        http_address: http.to_string(),
        attached,
        config,
        tasks,
        clock,
    };
    task_manager.run(sessions, task_events).await;
    let TaskManager {
        dirs,
        tasks,
        config,
        networks,
        ..
    } = task_manager;
    drop(networks);
    let ended = tasks.shutdown(config.shutdown_timeout).await;
    dirs.remove();
    info!(id = %config.id, "task manager ended");
    ended.map_err(Error::Fatal)
}

/// A task from its deployment to its end.
#[derive(Debug)]
struct TaskHandle {
    status: TaskStatus,
    mailbox: Arc<Mailbox>,
    progress: Arc<Progress>,
    /// Counters as the metrics have them.
    counted: flott_proto::wire::TaskCounters,
}

struct Session {
    outgoing: mpsc::Sender<TaskManagerMessage>,
    close: CancellationToken,
}

/// The cluster was superseded, and tasks of it have not all ended.
#[derive(Debug)]
struct Leaving {
    successor: ClusterId,
    done: oneshot::Sender<()>,
}

struct TaskManager {
    config: TaskManagerConfig,
    core: GatewayCore,
    session: Option<Session>,
    attempts: Attempts<Deployment>,
    running: BTreeMap<TaskId, TaskHandle>,
    networks: BTreeMap<(JobId, AttemptNumber), AttemptNetwork>,
    leaving: Option<Leaving>,
    events: mpsc::Sender<(TaskId, TaskEvent)>,
    exchange: Arc<Exchange>,
    dirs: LocalDirs,
    local_state: LocalState,
    http_address: String,
    attached: Arc<AtomicBool>,
    tasks: Tasks,
    clock: SharedClock,
}

impl TaskManager {
    /// Until cancelled; then until all tasks have ended, within the time for that.
    async fn run(
        &mut self,
        mut sessions: mpsc::Receiver<SessionEvent>,
        mut task_events: mpsc::Receiver<(TaskId, TaskEvent)>,
    ) {
        let cancelled = self.tasks.cancellation().clone();
        let mut tick = self.clock.sleep(self.core.tick_interval());
        loop {
            let event = tokio::select! { biased;
                () = cancelled.cancelled() => break,
                Some((task, event)) = task_events.recv() => Event::Task(task, event),
                Some(event) = sessions.recv() => Event::Session(event),
                () = &mut tick => Event::Tick,
            };
            match event {
                Event::Task(task, event) => self.on_task(&task, event),
                Event::Session(event) => self.on_session(event),
                Event::Tick => {
                    self.on_tick();
                    tick = self.clock.sleep(self.core.tick_interval());
                }
            }
        }
        info!(tasks = self.running.len(), "task manager stopping");
        for task in self.running.values() {
            task.mailbox.interrupt(Error::Canceled);
        }
        let mut deadline = self.clock.sleep(self.config.shutdown_timeout);
        while !self.running.is_empty() {
            tokio::select! {
                Some((task, event)) = task_events.recv() => self.on_task(&task, event),
                () = &mut deadline => {
                    warn!(tasks = self.running.len(), "tasks have not ended in time");
                    return;
                }
            }
        }
    }

    fn on_session(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Opened(opened) => self.on_opened(opened),
            SessionEvent::Superseded { cluster, done } => self.on_superseded(cluster, done),
            SessionEvent::Closed { session } => {
                self.core.on_closed(session);
                if self.core.attached_to().is_none() {
                    self.session = None;
                }
            }
            SessionEvent::Received { session, message } => {
                let before = self.core.attached_to();
                #[cfg(feature = "simulation")]
                let obeyed = flott_node::simulation::Told::LeaderObeyed {
                    epoch: message.epoch,
                };
                let taken = self
                    .core
                    .on_message(session, message, self.clock.monotonic());
                if let Some(epoch) = self.core.attached_to().filter(|_| before.is_none()) {
                    info!(%epoch, "registered with the leader");
                    metrics::registered();
                    self.attached.store(true, Ordering::Relaxed);
                }
                #[cfg(feature = "simulation")]
                if taken.is_ok() {
                    flott_node::simulation::tell(obeyed);
                }
                match taken {
                    Ok(Some(message)) => self.on_leader(message),
                    Ok(None) | Err(Refused::Stale) => (),
                    Err(Refused::Unknown) => {
                        warn!("the leader sent a message that this build does not know")
                    }
                    Err(Refused::Fenced { fenced, close }) => {
                        metrics::message_fenced();
                        warn!(%fenced, "refused a message");
                        #[cfg(feature = "simulation")]
                        flott_node::simulation::happened(
                            "a message of a deposed leader was refused",
                        );
                        if close {
                            self.close_session();
                        }
                    }
                }
            }
        }
    }

    /// Another cluster goes on from the one that this TaskManager belongs to: its tasks end without another commit. No
    /// session is open until they have.
    fn on_superseded(&mut self, successor: ClusterId, done: oneshot::Sender<()>) {
        warn!(
            %successor,
            tasks = self.running.len(),
            "this task manager's cluster has a successor, after a restore or a recovery; ending all tasks"
        );
        self.leaving = Some(Leaving { successor, done });
        let interrupt = self.attempts.cancel_all();
        self.interrupt(&interrupt);
        self.leave_if_empty();
    }

    fn leave_if_empty(&mut self) {
        if !self.running.is_empty() {
            return;
        }
        let Some(Leaving { successor, done }) = self.leaving.take() else {
            return;
        };
        self.attempts = Attempts::new(self.config.slots);
        self.core.on_superseded();
        info!(%successor, "no task of the former cluster is left; going over to its successor");
        // Nobody listens any more if the process is ending.
        let _ = done.send(());
    }

    fn on_opened(&mut self, opened: Opened) {
        let register = Register {
            cluster_id: opened.cluster,
            task_manager_id: self.config.id.to_string(),
            data_address: self.exchange.address().to_owned(),
            slots: self.config.slots,
            tasks: self.reports(),
            held_acks: Vec::new(),
            pid: std::process::id(),
            http_address: self.http_address.clone(),
        };
        #[cfg(feature = "simulation")]
        if self.core.held_acks() > 0 {
            flott_node::simulation::happened("held acks were sent again");
        }
        info!(
            leader = opened.address,
            tasks = register.tasks.len(),
            held_acks = self.core.held_acks(),
            "registering"
        );
        self.session = Some(Session {
            outgoing: opened.outgoing,
            close: opened.close,
        });
        for message in self
            .core
            .on_opened(opened.session, register, self.clock.monotonic())
        {
            self.send(Some(message));
        }
    }

    /// Reports of all tasks that have not ended.
    fn reports(&self) -> Vec<TaskReport> {
        let running = self
            .running
            .iter()
            .map(|(task, handle)| handle.progress.report(task, &handle.status));
        let (nothing, deploying) = (Progress::default(), TaskStatus::default());
        let waiting = self
            .attempts
            .waiting()
            .map(|task| nothing.report(&task, &deploying));
        running.chain(waiting).collect()
    }

    fn send(&mut self, message: Option<TaskManagerMessage>) {
        let (Some(message), Some(session)) = (message, &self.session) else {
            return;
        };
        if session.outgoing.try_send(message).is_err() {
            // Full or closed: what must not be lost is held, and sent in the next session's Register.
            self.close_session();
        }
    }

    fn close_session(&mut self) {
        if let Some(session) = self.session.take() {
            session.close.cancel();
        }
    }

    fn on_tick(&mut self) {
        self.count_progress();
        self.give_up_waiting();
        self.give_up_local_state();
        match self.core.on_tick(self.clock.monotonic()) {
            Tick::Nothing => (),
            Tick::Beat => {
                let heartbeat = self.core.heartbeat(self.reports());
                self.send(heartbeat);
            }
            Tick::Close => {
                if self.session.is_some() {
                    warn!("the leader is silent; looking for it again");
                }
                self.close_session();
            }
        }
    }

    fn count_progress(&mut self) {
        metrics::acks_held(self.core.held_acks());
        for (task, handle) in &mut self.running {
            let Some(now) = handle.progress.report(task, &handle.status).counters else {
                continue;
            };
            let before = std::mem::replace(&mut handle.counted, now);
            let rise = flott_proto::wire::TaskCounters {
                records_in: now.records_in.saturating_sub(before.records_in),
                records_out: now.records_out.saturating_sub(before.records_out),
                late_records_dropped: now
                    .late_records_dropped
                    .saturating_sub(before.late_records_dropped),
                parse_errors_skipped: now
                    .parse_errors_skipped
                    .saturating_sub(before.parse_errors_skipped),
                watermark_ms: now.watermark_ms,
            };
            metrics::task_progress(
                task.job.as_str(),
                task.subtask.vertex.as_str(),
                task.subtask.subtask,
                &rise,
            );
        }
    }

    fn on_leader(&mut self, message: FromLeader) {
        let done = match message {
            FromLeader::Deploy(deploy) => {
                self.on_deploy(deploy);
                Ok(())
            }
            FromLeader::Cancel(cancel) => self.with_job(&cancel.job_id, |this, job| {
                this.on_cancel(&job, AttemptNumber(cancel.attempt))
            }),
            FromLeader::TriggerCheckpoint(trigger) => {
                self.with_job(&trigger.job_id, |this, job| {
                    let barrier = Barrier {
                        checkpoint: CheckpointId(trigger.checkpoint_id),
                        base: CheckpointId(trigger.base_checkpoint_id),
                        kind: CheckpointKind::try_from(trigger.kind)
                            .unwrap_or(CheckpointKind::Checkpoint),
                        savepoint_directory: Some(trigger.savepoint_directory)
                            .filter(|directory| !directory.is_empty())
                            .map(Into::into),
                    };
                    this.post(
                        &job,
                        AttemptNumber(trigger.attempt),
                        Control::TriggerCheckpoint {
                            barrier,
                            unaligned_after: trigger.unaligned_after_ms.map(Duration::from_millis),
                        },
                    );
                })
            }
            FromLeader::CheckpointCompleted(notify) => {
                self.with_job(&notify.job_id, |this, job| {
                    let (attempt, checkpoint) = (
                        AttemptNumber(notify.attempt),
                        CheckpointId(notify.checkpoint_id),
                    );
                    this.core
                        .on_checkpoint_over(&job, attempt, checkpoint, true);
                    this.post(&job, attempt, Control::CheckpointCompleted(checkpoint));
                })
            }
            FromLeader::CheckpointAborted(notify) => self.with_job(&notify.job_id, |this, job| {
                let (attempt, checkpoint) = (
                    AttemptNumber(notify.attempt),
                    CheckpointId(notify.checkpoint_id),
                );
                this.core
                    .on_checkpoint_over(&job, attempt, checkpoint, false);
                this.post(&job, attempt, Control::CheckpointAborted(checkpoint));
            }),
            FromLeader::Finish(finish) => self.with_job(&finish.job_id, |this, job| {
                this.post(&job, AttemptNumber(finish.attempt), Control::Finish)
            }),
            FromLeader::Registered(_) | FromLeader::Heartbeat(_) => Ok(()),
        };
        if let Err(error) = done {
            warn!(%error, "ignoring a message of the leader");
        }
    }

    fn with_job(&mut self, job: &str, then: impl FnOnce(&mut Self, JobId)) -> Result<(), Error> {
        then(self, job.parse()?);
        Ok(())
    }

    fn post(&self, job: &JobId, attempt: AttemptNumber, event: Control) {
        for (task, handle) in &self.running {
            if task.job == *job && task.attempt == attempt {
                handle.mailbox.post(event.clone());
            }
        }
    }
}
