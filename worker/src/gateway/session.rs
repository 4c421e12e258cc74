//! Carries messages between the TaskManager's loop and the leader, one session after another.
//!
//! A session is opened before the call is made, so that Register is the first message on the stream; a leader may read
//! it before it answers. The leader that is found to be the present one is tried until it accepts.

use std::sync::Arc;
use std::time::Duration;

use flott_node::{SharedClock, Tasks, Transport};
use flott_proto::ids::{ClusterId, LeaderEpoch};
use flott_proto::wire::{JobManagerMessage, TaskManagerMessage};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::SessionId;
use super::leader::{self, Backoff, Candidate, Kin, LeaderView};
use crate::Error;

/// Messages on their way to the leader. Beyond it the leader does not read, and the session is closed.
pub(crate) const OUTGOING_MAX: usize = 8192;
/// A leader that takes longer to accept the stream is none.
const ATTACH_DEADLINE: Duration = Duration::from_secs(2);
/// Where a JobManager that does not lead sends others.
const LEADER_ADDRESS_HEADER: &str = "flott-leader-address";

/// What the TaskManager's loop hears of sessions.
#[derive(Debug)]
pub(crate) enum SessionEvent {
    Opened(Opened),
    Received {
        session: SessionId,
        message: JobManagerMessage,
    },
    Closed {
        session: SessionId,
    },
    /// This TaskManager's cluster has a successor. All tasks have to end and to be forgotten; then `done` is told, and the
    /// next session is with the successor.
    Superseded {
        cluster: ClusterId,
        done: oneshot::Sender<()>,
    },
}

/// A session to be registered on.
#[derive(Debug)]
pub(crate) struct Opened {
    pub session: SessionId,
    pub address: String,
    /// The leader's; this TaskManager belongs to it if the leader accepts.
    pub cluster: String,
    pub outgoing: mpsc::Sender<TaskManagerMessage>,
    /// Cancelled to close the session.
    pub close: CancellationToken,
}

/// Keeps a session to the leader, until the tasks are cancelled.
pub(crate) struct Sessions {
    pub jobmanagers: Vec<String>,
    pub cluster: Option<ClusterId>,
    pub transport: Transport,
    pub events: mpsc::Sender<SessionEvent>,
    pub tasks: Tasks,
    pub clock: SharedClock,
}

enum SessionEnd {
    /// The leader had accepted the stream.
    Closed(String),
    /// Somebody has to change something.
    Misconfigured(String),
    /// With the leader's address as the refusing one knows it, if it does.
    Refused { why: String, leader: Option<String> },
}

impl Sessions {
    /// Runs until cancelled, or until nobody listens.
    pub(crate) async fn run(self: Arc<Self>) -> Result<(), Error> {
        let cancelled = self.tasks.cancellation().clone();
        let views = leader::watch_all(
            &self.jobmanagers,
            self.cluster.as_ref(),
            &self.transport,
            &self.tasks,
            &self.clock,
        );
        tokio::select! { biased;
            () = cancelled.cancelled() => (),
            () = self.keep(views) => (),
        }
        Ok(())
    }

    async fn keep(&self, mut views: watch::Receiver<LeaderView>) {
        let mut backoff = Backoff::new();
        let mut hint = None;
        // The cluster that this TaskManager belongs to.
        let mut bound = self.cluster.clone();
        let mut warned = String::new();
        for session in 1.. {
            let candidate = match hint.take() {
                Some(candidate) => candidate,
                None => {
                    let any = |view: &LeaderView| view.candidate(bound.as_ref()).is_some();
                    match views.wait_for(any).await {
                        Ok(view) => view.candidate(bound.as_ref()).expect("waited for"),
                        Err(_) => return,
                    }
                }
            };
            views.mark_unchanged();
            if candidate.kin == Kin::Successor
                && let Ok(successor) = candidate.cluster.parse::<ClusterId>()
            {
                if !self.leave_for(&successor).await {
                    return;
                }
                bound = Some(successor);
            }
            let start = self.clock.monotonic();
            match self
                .session(session, &candidate, bound.as_ref(), &mut views)
                .await
            {
                SessionEnd::Closed(why) => {
                    info!(
                        leader = candidate.address,
                        why, "session with the leader ended"
                    );
                    // Tasks of this cluster may run here from now on: they are no other cluster's business.
                    bound = bound.or_else(|| candidate.cluster.parse().ok());
                    // A leader that accepts and is left at once, because it was deposed, is not asked in a tight loop.
                    if self.clock.monotonic().saturating_sub(start) > leader::RETRY_MAX {
                        backoff = Backoff::new();
                    }
                }
                SessionEnd::Misconfigured(why) => {
                    if warned != why {
                        warn!(leader = candidate.address, why, "refused by the leader");
                        warned = why;
                    }
                }
                SessionEnd::Refused { why, leader } => {
                    debug!(address = candidate.address, why, "no session");
                    let elsewhere = leader.filter(|address| *address != candidate.address);
                    hint = elsewhere.map(|address| Candidate {
                        address,
                        epoch: LeaderEpoch::NONE,
                        cluster: candidate.cluster.clone(),
                        kin: Kin::Own,
                    });
                }
            }
            if self
                .events
                .send(SessionEvent::Closed { session })
                .await
                .is_err()
            {
                return;
            }
            // News of the leader are worth no waiting.
            tokio::select! {
                () = self.clock.sleep(backoff.next()) => (),
                changed = views.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Ends whatever runs here for the cluster that `successor` goes on from; whether anybody is left to go on.
    async fn leave_for(&self, successor: &ClusterId) -> bool {
        let (done, left) = oneshot::channel();
        let superseded = SessionEvent::Superseded {
            cluster: successor.clone(),
            done,
        };
        self.events.send(superseded).await.is_ok() && left.await.is_ok()
    }

    async fn session(
        &self,
        session: SessionId,
        candidate: &Candidate,
        bound: Option<&ClusterId>,
        views: &mut watch::Receiver<LeaderView>,
    ) -> SessionEnd {
        let refused = |why: String| SessionEnd::Refused { why, leader: None };
        let of_another =
            |own: &&ClusterId| !candidate.cluster.is_empty() && candidate.cluster != own.as_str();
        if let Some(own) = bound.filter(of_another) {
            return SessionEnd::Misconfigured(format!(
                "it is of cluster {}, this task manager of {own}; check the addresses and high-availability.cluster-id",
                candidate.cluster
            ));
        }
        let mut client = match leader::connect(&self.transport, &candidate.address).await {
            Ok(client) => client,
            Err(Error::Configuration(why)) => return SessionEnd::Misconfigured(why),
            Err(error) => return refused(error.full_text()),
        };
        let (outgoing, messages) = mpsc::channel(OUTGOING_MAX);
        let close = CancellationToken::new();
        let opened = Opened {
            session,
            address: candidate.address.clone(),
            cluster: candidate.cluster.clone(),
            outgoing,
            close: close.clone(),
        };
        if self
            .events
            .send(SessionEvent::Opened(opened))
            .await
            .is_err()
        {
            return refused("shutting down".into());
        }
        let attached = tokio::time::timeout(
            ATTACH_DEADLINE,
            client.attach(ReceiverStream::new(messages)),
        )
        .await;
        let mut stream = match attached {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status))
                if matches!(
                    status.code(),
                    tonic::Code::PermissionDenied | tonic::Code::InvalidArgument
                ) =>
            {
                return SessionEnd::Misconfigured(status.message().to_owned());
            }
            Ok(Err(status)) => {
                let leader = status
                    .metadata()
                    .get(LEADER_ADDRESS_HEADER)
                    .and_then(|value| value.to_str().ok());
                return SessionEnd::Refused {
                    why: status.message().to_owned(),
                    leader: leader.map(ToOwned::to_owned),
                };
            }
            Err(_) => return refused("no answer in time".into()),
        };
        loop {
            let message = tokio::select! { biased;
                () = close.cancelled() => return SessionEnd::Closed("closed by this task manager".into()),
                Ok(()) = views.changed() => {
                    let present = candidate.cluster.parse::<ClusterId>().ok();
                    let replaced = |newer: &Candidate| match newer.kin {
                        Kin::Foreign => false,
                        Kin::Own => newer.epoch > candidate.epoch && newer.address != candidate.address,
                        Kin::Successor => true,
                    };
                    let newer = views.borrow().candidate(bound.or(present.as_ref()));
                    if let Some(newer) = newer.filter(replaced) {
                        return SessionEnd::Closed(format!("{} leads now, epoch {}", newer.address, newer.epoch));
                    }
                    continue;
                }
                message = stream.message() => message,
            };
            let message = match message {
                Ok(Some(message)) => message,
                Ok(None) => return SessionEnd::Closed("stream ended".into()),
                Err(status) => return SessionEnd::Closed(status.message().to_owned()),
            };
            if self
                .events
                .send(SessionEvent::Received { session, message })
                .await
                .is_err()
            {
                return SessionEnd::Closed("shutting down".into());
            }
        }
    }
}
