//! Connections between hosts, as TCP has them: bytes arrive in order or not at all, and what a link swallows is sent
//! again once it works.
//!
//! ```text
//!   write ──▶ segment ──latency, loss──▶ readable ──▶ read
//!               │ link is cut: waits, and is sent again when the link works
//!               │ the other process has gone: a reset comes back
//!               └ the other machine has no power: nothing comes back
//! ```

mod sockets;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::task::Waker;

use flott_chaos_basis::random::Random;
use xxhash_rust::xxh3::xxh3_64;

use super::hosts::HostId;
use super::{Kernel, MILLISECOND, SECOND};

pub use self::sockets::{Incoming, SimulatedStream, connect, listen};

/// Bytes of one direction that are sent and not read; a writer waits with more.
const WINDOW: usize = 1 << 20;
/// The first retransmission comes after it; each further one takes twice as long.
const RETRANSMISSION: u64 = 200 * MILLISECOND;

/// A link in one direction.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Nanoseconds that a segment takes, at least.
    pub latency: u64,
    /// And at most so many more.
    pub jitter: u64,
    /// Of a thousand segments so many are lost.
    pub loss_permille: u64,
    /// Nothing gets through.
    pub is_cut: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            latency: 100_000,
            jitter: 200_000,
            loss_permille: 0,
            is_cut: false,
        }
    }
}

/// One end of a connection: which process of which host.
type End = (HostId, u32);

#[derive(Debug)]
enum Segment {
    Bytes(Vec<u8>),
    /// No more will come.
    End,
    /// The other side knows nothing of this connection.
    Reset,
}

/// One direction of a connection.
#[derive(Debug)]
struct Pipe {
    from: End,
    to: End,
    /// On their way, each with the time at which it arrives. None: the link is cut.
    segments: VecDeque<(Option<u64>, Segment)>,
    readable: VecDeque<u8>,
    in_flight: usize,
    arrives_last: u64,
    ended: bool,
    reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// A connection is two pipes with neighbouring numbers: of the one who connected and of the one who accepted.
type PipeId = u64;

#[derive(Debug, Default)]
struct Dialling {
    outcome: Option<io::Result<()>>,
    waker: Option<Waker>,
}

#[derive(Debug)]
enum Happening {
    Arrives(PipeId),
    /// Somebody wants to connect.
    Request {
        pipe: PipeId,
        port: String,
    },
    /// And this is the answer.
    Reply {
        pipe: PipeId,
        accepted: bool,
    },
}

#[derive(Debug, Default)]
struct Listener {
    life: u32,
    waiting: VecDeque<PipeId>,
    waker: Option<Waker>,
}

/// All connections.
#[derive(Debug)]
pub struct Network {
    chance: Random,
    links: BTreeMap<(HostId, HostId), Link>,
    pipes: BTreeMap<PipeId, Pipe>,
    dialling: BTreeMap<PipeId, Dialling>,
    /// Requests to connect that wait for a link.
    held: Vec<(HostId, HostId, Happening)>,
    listeners: BTreeMap<String, Listener>,
    hosts: BTreeMap<String, HostId>,
    agenda: BTreeMap<(u64, u64), Happening>,
    serial: u64,
}

impl Network {
    pub(super) fn new(chance: Random) -> Self {
        Self {
            chance,
            links: BTreeMap::new(),
            pipes: BTreeMap::new(),
            dialling: BTreeMap::new(),
            held: Vec::new(),
            listeners: BTreeMap::new(),
            hosts: BTreeMap::new(),
            agenda: BTreeMap::new(),
            serial: 0,
        }
    }

    /// The address of a host, `name:port`.
    pub fn name(&mut self, address: &str, host: HostId) {
        self.hosts.insert(address.to_owned(), host);
    }

    /// A link in one direction.
    pub fn link(&self, from: HostId, to: HostId) -> Link {
        self.links.get(&(from, to)).copied().unwrap_or_default()
    }

    /// When something arrives next.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.agenda.first_key_value().map(|((at, _), _)| *at)
    }

    fn schedule(&mut self, at: u64, happening: Happening) {
        self.serial += 1;
        self.agenda.insert((at, self.serial), happening);
    }

    /// How long the next segment takes, with all that is lost of it; none if the link is cut.
    fn takes(&mut self, from: HostId, to: HostId) -> Option<u64> {
        let link = self.link(from, to);
        if link.is_cut {
            return None;
        }
        let mut takes = link.latency + self.chance.below(link.jitter + 1);
        let mut again = RETRANSMISSION;
        while link.loss_permille > 0 && self.chance.permille(link.loss_permille) {
            takes += again;
            again *= 2;
        }
        Some(takes)
    }

    fn send(&mut self, now: u64, id: PipeId, segment: Segment) {
        let Some(pipe) = self.pipes.get(&id) else {
            return;
        };
        let (from, to) = (pipe.from.0, pipe.to.0);
        let held = pipe.segments.back().is_some_and(|(at, _)| at.is_none());
        let takes = if held { None } else { self.takes(from, to) };
        let Some(pipe) = self.pipes.get_mut(&id) else {
            return;
        };
        if let Segment::Bytes(bytes) = &segment {
            pipe.in_flight += bytes.len();
        }
        let at = takes.map(|takes| pipe.arrives_last.max(now + takes));
        pipe.segments.push_back((at, segment));
        if let Some(at) = at {
            pipe.arrives_last = at;
            self.schedule(at, Happening::Arrives(id));
        }
    }

    fn request(&mut self, now: u64, from: HostId, to: HostId, happening: Happening) {
        match self.takes(from, to) {
            Some(takes) => self.schedule(now + takes, happening),
            None => self.held.push((from, to, happening)),
        }
    }

    /// Sends again what a link has swallowed while it was cut.
    fn resume(&mut self, now: u64, from: HostId, to: HostId) {
        let waiting: Vec<PipeId> = self
            .pipes
            .iter()
            .filter(|(_, pipe)| (pipe.from.0, pipe.to.0) == (from, to))
            .filter(|(_, pipe)| pipe.segments.back().is_some_and(|(at, _)| at.is_none()))
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            let again = now + self.chance.below(SECOND);
            let Some(pipe) = self.pipes.get_mut(&id) else {
                continue;
            };
            let at = pipe.arrives_last.max(again);
            pipe.arrives_last = at;
            let mut arriving = 0;
            for (planned, _) in &mut pipe.segments {
                if planned.is_none() {
                    *planned = Some(at);
                    arriving += 1;
                }
            }
            for _ in 0..arriving {
                self.schedule(at, Happening::Arrives(id));
            }
        }
        let (due, held) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|(f, t, _)| (*f, *t) == (from, to));
        self.held = held;
        let due: Vec<_> = due;
        for (_, _, happening) in due {
            let again = now + self.chance.below(SECOND);
            self.schedule(again, happening);
        }
    }
}

fn peer(pipe: PipeId) -> PipeId {
    pipe ^ 1
}

impl Kernel {
    /// Changes a link in one direction.
    pub fn set_link(&mut self, from: HostId, to: HostId, change: impl FnOnce(&mut Link)) {
        let link = self.network.links.entry((from, to)).or_default();
        let was_cut = link.is_cut;
        change(link);
        if was_cut && !link.is_cut {
            self.network.resume(self.now, from, to);
        }
    }

    fn lives(&self, end: End) -> bool {
        let host = &self.hosts[end.0];
        host.is_up && host.life == end.1 && host.death.is_none()
    }

    /// Everything that arrives by now.
    pub(crate) fn deliver(&mut self) -> Vec<Waker> {
        let mut woken = Vec::new();
        while self.network.next_at().is_some_and(|at| at <= self.now) {
            let Some((_, happening)) = self.network.agenda.pop_first() else {
                break;
            };
            match happening {
                Happening::Arrives(pipe) => self.arrive(pipe, &mut woken),
                Happening::Request { pipe, port } => self.on_request(pipe, &port, &mut woken),
                Happening::Reply { pipe, accepted } => self.on_reply(pipe, accepted, &mut woken),
            }
        }
        woken
    }

    fn arrive(&mut self, id: PipeId, woken: &mut Vec<Waker>) {
        let Some(pipe) = self.network.pipes.get_mut(&id) else {
            return;
        };
        let Some((_, segment)) = pipe.segments.pop_front() else {
            return;
        };
        let (from, to) = (pipe.from, pipe.to);
        let (length, hash) = match &segment {
            Segment::Bytes(bytes) => (bytes.len() as u64, xxh3_64(bytes)),
            Segment::End => (0, 1),
            Segment::Reset => (0, 2),
        };
        self.trace.add(
            "segment",
            &[self.now, from.0 as u64, to.0 as u64, length, hash],
        );
        if !self.lives(to) {
            let is_reset = matches!(segment, Segment::Reset);
            if self.hosts[to.0].has_power && !is_reset && self.network.pipes.contains_key(&peer(id))
            {
                self.network.send(self.now, peer(id), Segment::Reset);
            }
            return;
        }
        let Some(pipe) = self.network.pipes.get_mut(&id) else {
            return;
        };
        match segment {
            Segment::Bytes(bytes) => {
                pipe.in_flight -= bytes.len();
                pipe.readable.extend(bytes);
            }
            Segment::End => pipe.ended = true,
            Segment::Reset => {
                pipe.reset = true;
                woken.extend(pipe.writer.take());
                if let Some(back) = self.network.pipes.get_mut(&peer(id)) {
                    back.reset = true;
                    woken.extend(back.writer.take());
                }
            }
        }
        if let Some(pipe) = self.network.pipes.get_mut(&id) {
            woken.extend(pipe.reader.take());
        }
        self.hosts[to.0].is_runnable = true;
    }

    fn on_request(&mut self, id: PipeId, port: &str, woken: &mut Vec<Waker>) {
        let Some(pipe) = self.network.pipes.get(&id) else {
            return;
        };
        let (from, to) = (pipe.from, pipe.to.0);
        self.trace
            .add("connect", &[self.now, from.0 as u64, to as u64]);
        if !self.hosts[to].has_power {
            // Nobody says anything.
            return;
        }
        let life = self.hosts[to].life;
        let alive = self.lives((to, life));
        let listener = self.network.listeners.get_mut(port);
        let listener = listener.filter(|listener| alive && listener.life == life);
        let accepted = listener.is_some();
        if let Some(listener) = listener {
            listener.waiting.push_back(id);
            woken.extend(listener.waker.take());
            self.hosts[to].is_runnable = true;
            for (pipe, end) in [(id, 1), (peer(id), 0)] {
                if let Some(pipe) = self.network.pipes.get_mut(&pipe) {
                    if end == 1 {
                        pipe.to = (to, life);
                    } else {
                        pipe.from = (to, life);
                    }
                }
            }
        }
        let reply = Happening::Reply { pipe: id, accepted };
        self.network.request(self.now, to, from.0, reply);
    }

    fn on_reply(&mut self, id: PipeId, accepted: bool, woken: &mut Vec<Waker>) {
        let Some(dialling) = self.network.dialling.get_mut(&id) else {
            return;
        };
        dialling.outcome = Some(match accepted {
            true => Ok(()),
            false => Err(io::ErrorKind::ConnectionRefused.into()),
        });
        woken.extend(dialling.waker.take());
        if let Some(pipe) = self.network.pipes.get(&id) {
            self.hosts[pipe.from.0].is_runnable = true;
        }
    }

    /// The process of that host has ended; the others hear of it, unless its machine lost its power.
    pub fn take_connections_from(&mut self, host: HostId, power_failed: bool) {
        let life = self.hosts[host].life;
        let own: Vec<PipeId> = self
            .network
            .pipes
            .iter()
            .filter(|(_, pipe)| pipe.from == (host, life))
            .map(|(id, _)| *id)
            .collect();
        for id in own {
            if !power_failed {
                self.network.send(self.now, id, Segment::Reset);
            }
        }
        // Whoever sends to the one that has gone is told when it arrives. What nobody can read any more is forgotten.
        let lives = |kernel: &Self, end: End| kernel.lives(end) && end != (host, life);
        let gone: BTreeSet<PipeId> = self
            .network
            .pipes
            .iter()
            .filter(|(_, pipe)| !lives(self, pipe.from) && !lives(self, pipe.to))
            .map(|(id, _)| *id)
            .collect();
        self.network.pipes.retain(|id, _| !gone.contains(id));
        self.network.dialling.retain(|id, _| !gone.contains(id));
        for listener in self.network.listeners.values_mut() {
            if listener.life == life && listener.waiting.iter().any(|id| gone.contains(id)) {
                listener.waiting.clear();
            }
        }
    }

    /// Breaks a connection between two hosts, if there is one.
    pub fn reset_connections(&mut self, a: HostId, b: HostId, permille: u64) -> u64 {
        let between = |pipe: &Pipe| (pipe.from.0, pipe.to.0) == (a, b);
        let mut found: Vec<PipeId> = Vec::new();
        for (id, pipe) in &self.network.pipes {
            if between(pipe) && !pipe.reset {
                found.push(*id);
            }
        }
        found.retain(|_| self.chance.permille(permille));
        for id in &found {
            for pipe in [*id, peer(*id)] {
                self.network.send(self.now, pipe, Segment::Reset);
            }
        }
        found.len() as u64
    }
}
