//! The task that owns a session's connection.
//!
//! ```text
//!        something to send            connected              first answer
//! Down ─────────────────────► Opening ─────────► Up(unproven) ──────────► Up(proven)
//!  ▲  ▲                          │                   │ NOT_LEADER             │ NOT_LEADER
//!  │  └── Pausing ◄── all asked ─┤ failed            │                        ▼
//!  └─────────────────────────────┴───────────────────┴──────── Up(leaving): nothing new is sent; what cannot be
//!                                                              repeated is waited for, shortly
//! ```
//!
//! On a connection that is unproven a single request asks whether this is the leader; the others wait. So the search for
//! a leader costs the members one request each, however many callers wait.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use flott_node::SharedClock;
use flott_node::clock::Sleep;
use flott_proto::wire::KvResponses;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::SessionOptions;
use super::link::{self, NotOpened, Open};
use super::requests::{Call, Requests, Told};
use super::route::{Next, Route};
use crate::known_cluster::Strangers;

/// Calls that are taken from the mailbox at once.
const CALLS_AT_ONCE_MAX: usize = 1024;
/// While something is under way, deadlines are looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A member that gave up its office answers what it still holds within milliseconds, or not at all.
const LEAVE_MAX: Duration = Duration::from_millis(100);
/// A member that is busy for so long may be cut off from the others, which know better.
const BUSY_MAX: Duration = Duration::from_secs(1);

/// The connection and all calls of a session.
pub(super) struct Driver {
    mailbox: mpsc::Receiver<Call>,
    taken: Vec<Call>,
    requests: Requests,
    route: Route,
    link: Link,
    strangers: Strangers,
    /// Runs while there is something to look at.
    tick: Option<Sleep>,
    clock: SharedClock,
    options: SessionOptions,
}

enum Link {
    Down,
    Pausing(Sleep),
    Opening {
        address: String,
        opening: BoxFuture<'static, Result<Open, NotOpened>>,
    },
    Up(Up),
}

struct Up {
    address: String,
    open: Open,
    /// It has answered something other than that it does not lead, or is busy.
    proven: bool,
    /// It does not lead any more; until when its last answers are waited for.
    leaving: Option<Duration>,
    /// When it answered last, or was connected to.
    heard: Duration,
    /// Since when it only says that it is busy.
    busy: Option<Duration>,
}

enum Event {
    Calls(usize),
    Rested,
    Opened(Result<Open, NotOpened>),
    Answers(KvResponses),
    Broken(String),
    /// The connection can take a message.
    Room,
    Tick,
    Cancelled,
}

impl Driver {
    pub(super) fn new(
        members: Vec<String>,
        options: SessionOptions,
        clock: SharedClock,
        mailbox: mpsc::Receiver<Call>,
    ) -> Self {
        Self {
            mailbox,
            taken: Vec::with_capacity(CALLS_AT_ONCE_MAX),
            requests: Requests::new(options.attempt_timeout),
            route: Route::new(members),
            link: Link::Down,
            strangers: Strangers::default(),
            tick: None,
            clock,
            options,
        }
    }

    /// Until all handles are gone, or the process ends.
    pub(super) async fn run(mut self, cancelled: CancellationToken) -> Result<(), Infallible> {
        loop {
            let event = self.next_event(&cancelled).await;
            let now = self.clock.monotonic();
            match event {
                Event::Cancelled | Event::Calls(0) => break,
                Event::Calls(_) => self
                    .taken
                    .drain(..)
                    .for_each(|call| self.requests.push(call)),
                Event::Rested => self.link = Link::Down,
                Event::Opened(opened) => self.on_opened(opened, now),
                Event::Answers(answers) => self.on_answers(answers, now),
                Event::Broken(why) => self.on_broken(why),
                Event::Room => {}
                Event::Tick => self.on_tick(now),
            }
            self.send(now);
            self.keep_going();
        }
        self.mailbox.close();
        while let Ok(call) = self.mailbox.try_recv() {
            self.requests.push(call);
        }
        self.requests.on_end();
        Ok(())
    }

    async fn next_event(&mut self, cancelled: &CancellationToken) -> Event {
        let has_room = self.requests.has_room();
        let wants_to_send = self.may_send() > 0;
        tokio::select! { biased;
            () = cancelled.cancelled() => Event::Cancelled,
            event = self.link.next_event(wants_to_send) => event,
            taken = self.mailbox.recv_many(&mut self.taken, CALLS_AT_ONCE_MAX), if has_room => Event::Calls(taken),
            () = next_tick(&mut self.tick) => Event::Tick,
        }
    }

    fn on_opened(&mut self, opened: Result<Open, NotOpened>, now: Duration) {
        let Link::Opening { address, .. } = std::mem::replace(&mut self.link, Link::Down) else {
            return;
        };
        match opened {
            Ok(open) => {
                self.link = Link::Up(Up {
                    address,
                    open,
                    proven: false,
                    leaving: None,
                    heard: now,
                    busy: None,
                });
            }
            Err(NotOpened { why, stranger }) => {
                let why = self.strangers.note(&address, stranger.as_ref(), why);
                self.requests.note(why);
                self.route.on_unreachable(&address);
            }
        }
    }

    fn on_answers(&mut self, answers: KvResponses, now: Duration) {
        let Link::Up(up) = &mut self.link else { return };
        up.heard = now;
        for response in answers.responses {
            match self.requests.on_response(response, now) {
                Told::Answers => {
                    up.busy = None;
                    if up.leaving.is_none() && !std::mem::replace(&mut up.proven, true) {
                        self.route.on_answer(&up.address);
                        self.options.cluster.learn_from(&up.open.said);
                        self.strangers.forget();
                    }
                }
                Told::Busy if now.saturating_sub(*up.busy.get_or_insert(now)) >= BUSY_MAX => {
                    self.route.on_not_leader(&up.address, None);
                    up.leaving.get_or_insert(now + LEAVE_MAX);
                }
                Told::Busy => {}
                Told::NotLeader(leader) => {
                    self.route.on_not_leader(&up.address, leader);
                    up.leaving.get_or_insert(now + LEAVE_MAX);
                }
            }
        }
        self.leave(now);
    }

    /// Leaves a member that does not lead, as soon as nothing of value is lost with the connection.
    fn leave(&mut self, now: Duration) {
        let Link::Up(up) = &self.link else { return };
        let done = |until: Duration| until <= now || !self.requests.is_flying_once();
        if up.leaving.is_some_and(done) {
            self.requests.on_break();
            self.link = Link::Down;
        }
    }

    fn on_broken(&mut self, why: String) {
        if let Link::Up(up) = std::mem::replace(&mut self.link, Link::Down) {
            self.requests.note(format!("{}: {why}", up.address));
            self.route.on_unreachable(&up.address);
            self.requests.on_break();
        }
    }

    fn on_tick(&mut self, now: Duration) {
        self.tick = None;
        let unwell = self.requests.on_tick(now);
        self.leave(now);
        let silent = |up: &Up| now.saturating_sub(up.heard) >= self.options.attempt_timeout;
        if unwell && matches!(&self.link, Link::Up(up) if silent(up)) {
            let limit = self.options.attempt_timeout.as_secs_f64();
            self.on_broken(format!("silent for {limit} s"));
        }
    }

    /// How many requests may be sent now.
    fn may_send(&self) -> usize {
        match &self.link {
            Link::Up(up) if up.leaving.is_some() || !self.requests.is_waiting() => 0,
            Link::Up(up) if up.proven => usize::MAX,
            Link::Up(_) => usize::from(!self.requests.is_flying()),
            Link::Down | Link::Pausing(_) | Link::Opening { .. } => 0,
        }
    }

    /// Sends what waits, as far as the connection takes it.
    fn send(&mut self, now: Duration) {
        loop {
            let max = self.may_send();
            let Link::Up(up) = &self.link else { return };
            if max == 0 {
                return;
            }
            let Ok(room) = up.open.outgoing.try_reserve() else {
                return;
            };
            match self.requests.next_batch(now, max) {
                Some(batch) => room.send(batch),
                None => return,
            }
        }
    }

    /// While there are calls, there is a connection or the search for one, and deadlines are watched.
    fn keep_going(&mut self) {
        // A tick that runs is left to run out: one more glance is cheaper than a timer for each call.
        if self.requests.is_empty() {
            return;
        }
        let tick = || self.clock.sleep(LOOK_EVERY);
        self.tick.get_or_insert_with(tick);
        if matches!(self.link, Link::Down) {
            self.link = match self.route.next() {
                Next::Ask(address) => {
                    let opening = Box::pin(link::open(address.clone(), self.options.clone()));
                    Link::Opening { address, opening }
                }
                Next::Pause(pause) => Link::Pausing(self.clock.sleep(pause)),
            };
        }
    }
}

async fn next_tick(tick: &mut Option<Sleep>) {
    match tick {
        Some(tick) => tick.await,
        None => std::future::pending().await,
    }
}

impl Link {
    async fn next_event(&mut self, wants_to_send: bool) -> Event {
        match self {
            Self::Down => std::future::pending().await,
            Self::Pausing(pause) => {
                pause.await;
                Event::Rested
            }
            Self::Opening { opening, .. } => Event::Opened(opening.await),
            Self::Up(up) => up.next_event(wants_to_send).await,
        }
    }
}

impl Up {
    async fn next_event(&mut self, wants_to_send: bool) -> Event {
        let Open {
            outgoing, incoming, ..
        } = &mut self.open;
        tokio::select! { biased;
            answers = incoming.message() => match answers {
                Ok(Some(answers)) => Event::Answers(answers),
                Ok(None) => Event::Broken("the member ended the connection".to_owned()),
                Err(status) => Event::Broken(link::cause(&status)),
            },
            // If nobody takes messages any more, the answers end too, and say why.
            Ok(_) = outgoing.reserve(), if wants_to_send => Event::Room,
        }
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("requests", &self.requests)
            .field("route", &self.route)
            .finish_non_exhaustive()
    }
}
