//! Many callers, one connection to the leader.
//!
//! A [`Session`] is a handle; a task, [`drive`](self::drive), owns the connection. Calls reach it through a bounded
//! mailbox. It sends all that is waiting as one message as soon as the connection takes one: without load a call goes out
//! alone and at once, under load the messages grow by themselves.
//!
//! ```text
//! callers ──mailbox──► drive: requests (waiting, in flight) ──► connection to the member that leads
//!         ◄──oneshot──        route (whom to ask next)      ◄──
//! ```
//!
//! - `requests` (pure): what waits, what is in flight, what an answer or its absence means for the caller.
//! - `route` (pure): which member is asked next, and when to pause.
//! - `link`: one connection. `drive`: the loop.
//!
//! What must stay true:
//! - A write is sent a second time only if the first was certainly not applied, or if repeating it is harmless.
//! - A caller hears "not applied" only if no attempt can have been.
//! - Every attempt and every call has a deadline; everything that waits has a bound.
//! - Once a cluster has answered, nothing is sent to another one ([`crate::known_cluster`]).

mod drive;
mod link;
mod requests;
mod route;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flott_node::{OnFailure, SharedClock, Tasks, Transport};
use flott_proto::wire::{KvRequest, KvResponse};
use tokio::sync::{mpsc, oneshot};

use super::{KvError, Space};
use crate::client::is_address;
use crate::known_cluster::KnownCluster;
use requests::Call;

pub(super) use link::{channel, describe};
pub(super) use route::{Next, Route};

/// Calls that the driving task has not looked at yet: more than it takes at a glance.
const MAILBOX_MAX: usize = 1024;

/// How patient a session is.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// How long a call looks for a leader that answers, all attempts together.
    pub patience: Duration,
    /// How long one attempt waits for its answer. A leader under load needs a fraction of a second.
    pub attempt_timeout: Duration,
    /// A connection on a healthy network stands within milliseconds; a member that needs longer is passed over.
    pub connect_timeout: Duration,
    /// How often a member has to give a sign of life, also while it works on long answers.
    pub ping_interval: Duration,
    /// A member without a sign of life for so long is taken for frozen or cut off.
    pub ping_timeout: Duration,
    /// Plain text on this machine, or TLS.
    pub transport: Transport,
    /// The cluster to speak with; by default the first one that answers. Sessions with clones of these options speak with
    /// the same one.
    pub cluster: KnownCluster,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(30),
            attempt_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_millis(500),
            ping_interval: Duration::from_millis(500),
            ping_timeout: Duration::from_secs(1),
            transport: Transport::loopback(),
            cluster: KnownCluster::default(),
        }
    }
}

/// A client of the key-value service that follows the leader. Clones share the connection; with the last one it ends.
#[derive(Clone)]
pub struct Session {
    mailbox: mpsc::Sender<Call>,
    shared: Arc<Shared>,
}

struct Shared {
    members: Vec<String>,
    options: SessionOptions,
    clock: SharedClock,
    tasks: Tasks,
    /// Begins all request ids of this session.
    id: String,
    ids: AtomicU64,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("members", &self.shared.members)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// A session with these members (`host:port` each), of which the first is asked first. It connects with the first
    /// call. Needs a tokio runtime; ends with `tasks`.
    pub fn new(
        members: Vec<String>,
        options: SessionOptions,
        clock: SharedClock,
        tasks: &Tasks,
    ) -> Result<Self, KvError> {
        if members.is_empty() {
            let address = String::new();
            return Err(KvError::Address { address });
        }
        if let Some(address) = members.iter().find(|member| !is_address(member)) {
            let address = address.clone();
            return Err(KvError::Address { address });
        }
        for member in &members {
            options.transport.check_address(member)?;
        }
        let (mailbox, calls) = mpsc::channel(MAILBOX_MAX);
        let driver = drive::Driver::new(members.clone(), options.clone(), clock.clone(), calls);
        let cancelled = tasks.cancellation().clone();
        tasks.spawn("key-value session", OnFailure::Log, driver.run(cancelled));
        let shared = Shared {
            members,
            options,
            clock,
            tasks: tasks.clone(),
            id: uuid::Uuid::new_v4().simple().to_string(),
            ids: AtomicU64::new(0),
        };
        Ok(Self {
            mailbox,
            shared: Arc::new(shared),
        })
    }

    /// Sends a request and waits for its answer, whose outcome is never a failure. `sequence` is set here. A write without
    /// request id is never repeated once it may have been applied; one with an id, and a read, is until the patience ends.
    ///
    /// A caller that stops waiting does not take the request back.
    pub async fn call(&self, request: KvRequest) -> Result<KvResponse, KvError> {
        self.call_within(request, self.shared.options.patience)
            .await
    }

    /// [`Self::call`] with a patience of its own.
    pub async fn call_within(
        &self,
        request: KvRequest,
        patience: Duration,
    ) -> Result<KvResponse, KvError> {
        let (answer, answered) = oneshot::channel();
        let begun = self.shared.clock.monotonic();
        let call = Call::new(request, answer, begun, patience);
        self.mailbox.send(call).await.map_err(|_| KvError::Closed)?;
        // Without an answer the driving task broke: nobody knows how far the request came.
        let broke = |_| KvError::Unknown {
            last: "the session broke".to_owned(),
        };
        answered.await.map_err(broke)?
    }

    /// An id for a request, different from all others.
    pub fn request_id(&self) -> String {
        let number = self.shared.ids.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number}", self.shared.id)
    }

    /// This session's view of a namespace.
    pub fn space(&self, namespace: impl Into<String>) -> Space {
        Space::new(self.clone(), namespace.into())
    }

    pub(super) fn members(&self) -> &[String] {
        &self.shared.members
    }

    pub(super) fn options(&self) -> &SessionOptions {
        &self.shared.options
    }

    pub(super) fn clock(&self) -> &SharedClock {
        &self.shared.clock
    }

    pub(super) fn tasks(&self) -> &Tasks {
        &self.shared.tasks
    }
}
