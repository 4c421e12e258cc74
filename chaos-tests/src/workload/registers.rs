//! Registers that many clients read, write and swap through all members: few keys, so that clients meet.
//!
//! Several kinds of clients ([`Kind`]), because each finds what the others cannot. Every value that is written is written
//! once in a run, so a value tells who wrote it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use flott_chaos_basis::random::Random;
use flott_cli::known_cluster::KnownCluster;
use flott_node::SharedClock;
use flott_proto::wire::{self, kv_operation_result, kv_response};
use tokio_util::sync::CancellationToken;

use super::client::{self, Attempt, Connection};
use crate::cluster::network;
use crate::history::{Action, Operation, Outcome, Value};

/// Values of one client: its number times this, and counting.
const VALUES_PER_CLIENT: u64 = 1_000_000;
/// How long a hasty client waits for an answer.
const HASTY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(500));
/// How long a patient client waits: longer than any member is ever paused.
const PATIENT: Duration = Duration::from_secs(8);
/// Times that a repeating client sends one request.
const REPEATS_MAX: u32 = 6;
/// Pause after an answer.
const THINK: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(8));
/// Pause after anything else: members that refuse at once must not be asked in a busy loop.
const DISAPPOINTED: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(25));

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Each attempt is an operation, and given up soon.
    Hasty,
    /// Sends the same request again, at any member, until it knows: one operation, under one request id.
    Repeating,
    /// Only reads, at one member, and waits until that one has been woken up: what it then says must be up to date.
    Patient,
    /// Asks whoever leads, once, and waits long. Whoever calls it sets the pace.
    Steady,
}

/// What the clients of a run know together.
#[derive(Debug)]
pub struct Registers {
    /// Registers are numbered from 0.
    pub keys: u32,
    /// Members are numbered from 1.
    pub members: u32,
    /// Where they are reached, in that order.
    addresses: Vec<String>,
    cluster: KnownCluster,
    namespace: String,
    /// Begins the name of every key.
    pub prefix: String,
    /// Times in the history are since then.
    pub start: Duration,
    #[expect(missing_docs, reason = "the clock of the run")]
    pub clock: SharedClock,
    /// The member that acknowledged a write last; 0: none.
    leader: AtomicU32,
    acknowledged: AtomicU64,
}

impl Registers {
    /// Fresh registers; the run begins now.
    pub fn new(keys: u32, members: u32, prefix: &str, clock: SharedClock) -> Arc<Self> {
        let addresses = (1..=members).map(network::address).collect();
        Self::at(keys, addresses, prefix, clock)
    }

    /// The same of the members at `addresses`.
    pub fn at(keys: u32, addresses: Vec<String>, prefix: &str, clock: SharedClock) -> Arc<Self> {
        let start = clock.monotonic();
        Self::of("default", keys, addresses, prefix, start, clock)
    }

    /// The same in a namespace, with times since `start`.
    pub fn of(
        namespace: &str,
        keys: u32,
        addresses: Vec<String>,
        prefix: &str,
        start: Duration,
        clock: SharedClock,
    ) -> Arc<Self> {
        Arc::new(Self {
            keys,
            members: addresses.len() as u32,
            addresses,
            cluster: KnownCluster::default(),
            namespace: namespace.to_owned(),
            prefix: prefix.to_owned(),
            start,
            clock,
            leader: AtomicU32::new(0),
            acknowledged: AtomicU64::new(0),
        })
    }

    /// Nanoseconds since the run began.
    pub fn now_ns(&self) -> u64 {
        let elapsed = self.clock.monotonic().saturating_sub(self.start);
        u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Who leads, as far as acknowledgements tell.
    pub fn leader(&self) -> Option<u32> {
        Some(self.leader.load(Ordering::Relaxed)).filter(|leader| *leader != 0)
    }

    /// Operations of all clients that were answered.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// A connection to each member, not made yet.
    pub fn connections(&self) -> Vec<Connection> {
        let addresses = (1..).zip(&self.addresses);
        addresses
            .map(|(member, address)| {
                Connection::at(member, address.clone())
                    .in_namespace(&self.namespace)
                    .of_cluster(&self.cluster)
            })
            .collect()
    }

    /// The member that is reached at that address.
    pub fn member_at(&self, address: &str) -> Option<u32> {
        let index = self.addresses.iter().position(|known| known == address)?;
        Some(index as u32 + 1)
    }

    /// The name of a register.
    pub fn name(&self, key: u32) -> String {
        format!("{}{key:04}", self.prefix)
    }
}

/// One client. It has one operation under way at a time.
#[derive(Debug)]
pub struct Client {
    registers: Arc<Registers>,
    number: u32,
    kind: Kind,
    random: Random,
    connections: Vec<Connection>,
    /// The member that it reads from, and returns to.
    home: u32,
    /// The member that it takes for the leader.
    believed: u32,
    values: u64,
    seen: BTreeMap<u32, Value>,
}

impl Client {
    /// Clients are numbered from 1.
    pub fn new(registers: &Arc<Registers>, number: u32, kind: Kind, random: Random) -> Self {
        let home = 1 + (number - 1) % registers.members;
        Self {
            registers: registers.clone(),
            number,
            kind,
            random,
            connections: registers.connections(),
            home,
            believed: home,
            values: 0,
            seen: BTreeMap::new(),
        }
    }

    /// Works until `stop`; what it did.
    pub async fn run(mut self, stop: CancellationToken) -> Vec<Operation> {
        let mut operations = Vec::new();
        while !stop.is_cancelled() {
            let key = self.random.below(u64::from(self.registers.keys)) as u32;
            let action = self.choose(key);
            // What is under way at the end has an unknown outcome, so a write is waited for and a read given up.
            let operation = if action == Action::Read {
                tokio::select! { biased;
                    operation = self.operate(key, action) => operation,
                    () = stop.cancelled() => return operations,
                }
            } else {
                self.operate(key, action).await
            };
            let content = operation.as_ref().is_some_and(Operation::is_acknowledged);
            operations.extend(operation);
            let pause = if content { THINK } else { DISAPPOINTED };
            let pause = self.random.duration(pause.0, pause.1);
            self.registers.clock.sleep(pause).await;
        }
        operations
    }

    fn choose(&mut self, key: u32) -> Action {
        let chance = self.random.below(100);
        if self.kind == Kind::Patient || chance < 45 {
            return Action::Read;
        }
        self.values += 1;
        let to = self.value(self.values);
        if chance < 72 {
            Action::Write(to)
        } else {
            let from = self.seen.get(&key).copied().unwrap_or(Value::ABSENT);
            Action::Swap { from, to }
        }
    }

    /// A value that only this client writes, and only once if `number` is new.
    pub fn value(&self, number: u64) -> Value {
        assert!(number > 0 && number < VALUES_PER_CLIENT);
        Value(u64::from(self.number) * VALUES_PER_CLIENT + number)
    }

    /// Carries out one operation; `None` if nothing was sent.
    pub async fn operate(&mut self, key: u32, action: Action) -> Option<Operation> {
        let repeats = if self.kind == Kind::Repeating && action != Action::Read {
            REPEATS_MAX
        } else {
            1
        };
        let request_id = if repeats > 1 {
            format!("{}-{}", self.number, self.values)
        } else {
            String::new()
        };
        let mut operation = None;
        let called_ns = self.registers.now_ns();
        let mut doubt: Option<String> = None;
        for _ in 0..repeats {
            let member = self.whom(action);
            let deadline = match self.kind {
                Kind::Patient | Kind::Steady => PATIENT,
                _ => self.random.duration(HASTY.0, HASTY.1),
            };
            let name = self.registers.name(key);
            let connection = &mut self.connections[member as usize - 1];
            let attempt = connection
                .attempt(request(&name, action), &request_id, deadline)
                .await;
            let outcome = match self.learn(key, action, attempt) {
                None => continue,
                // An earlier attempt may have taken effect, or may yet.
                Some(Outcome::Failed(why)) if doubt.is_some() => Outcome::Unknown(why),
                Some(outcome) => outcome,
            };
            if let Outcome::Unknown(why) = &outcome {
                doubt = Some(why.clone());
            }
            let known = matches!(outcome, Outcome::Done | Outcome::Found(_));
            operation = Some(Operation {
                key,
                client: self.number,
                member,
                called_ns,
                ended_ns: self.registers.now_ns(),
                action,
                outcome,
            });
            if known {
                self.registers.acknowledged.fetch_add(1, Ordering::Relaxed);
                break;
            }
            if repeats > 1 {
                let pause = self.random.duration(DISAPPOINTED.0, DISAPPOINTED.1);
                self.registers.clock.sleep(pause).await;
            }
        }
        operation
    }

    fn whom(&mut self, action: Action) -> u32 {
        let percent_at_home = match (self.kind, action) {
            (Kind::Patient, _) => 100,
            (Kind::Steady, _) => 0,
            (_, Action::Read) => 50,
            _ => 15,
        };
        if self.random.percent(percent_at_home) {
            self.home
        } else {
            self.believed
        }
    }

    /// What the attempt means for the operation, and for whom to ask next.
    fn learn(&mut self, key: u32, action: Action, attempt: Attempt) -> Option<Outcome> {
        let anybody = 1 + self.random.below(u64::from(self.registers.members)) as u32;
        match attempt {
            Attempt::NotSent => {
                self.believed = anybody;
                None
            }
            Attempt::Refused { why, leader } => {
                self.believed = leader
                    .and_then(|address| self.registers.member_at(&address))
                    .unwrap_or(anybody);
                Some(Outcome::Failed(why))
            }
            Attempt::Unknown(why) => {
                self.believed = anybody;
                Some(Outcome::Unknown(why))
            }
            Attempt::Done { member, outcome } => {
                let outcome = outcome_of(action, &outcome);
                match (&outcome, action) {
                    (Outcome::Found(value), _) => self.seen.insert(key, *value),
                    (_, Action::Write(value) | Action::Swap { to: value, .. }) => {
                        self.seen.insert(key, value)
                    }
                    _ => None,
                };
                if action != Action::Read {
                    self.believed = member.clamp(1, self.registers.members);
                    self.registers
                        .leader
                        .store(self.believed, Ordering::Relaxed);
                }
                Some(outcome)
            }
        }
    }
}

fn request(name: &str, action: Action) -> wire::kv_request::Operation {
    let text = |value: Value| value.0.to_string();
    match action {
        Action::Read => client::range(client::key(name), 0, false),
        Action::Write(value) => client::put(name, &text(value)),
        Action::Swap { from, to } => {
            let expected = (from != Value::ABSENT).then(|| text(from));
            client::swap(name, expected.as_deref(), &text(to))
        }
    }
}

fn outcome_of(action: Action, outcome: &kv_response::Outcome) -> Outcome {
    match (action, outcome) {
        (Action::Read, kv_response::Outcome::Range(range)) => Outcome::Found(value_in(range)),
        (Action::Write(_), kv_response::Outcome::Put(_)) => Outcome::Done,
        (Action::Swap { .. }, kv_response::Outcome::Txn(txn)) if txn.succeeded => Outcome::Done,
        (Action::Swap { .. }, kv_response::Outcome::Txn(txn)) => {
            match txn.results.first().and_then(|result| result.kind.as_ref()) {
                Some(kv_operation_result::Kind::Range(range)) => Outcome::Found(value_in(range)),
                other => Outcome::Unknown(format!("a swap was answered with {other:?}")),
            }
        }
        (_, other) => Outcome::Unknown(format!("{action:?} was answered with {other:?}")),
    }
}

/// The value of the only entry. What is no number was never written by us: it becomes a value that nobody wrote.
fn value_in(range: &wire::KvRangeResult) -> Value {
    let Some(entry) = range.entries.first() else {
        return Value::ABSENT;
    };
    let text = str::from_utf8(&entry.value).unwrap_or_default();
    Value(text.parse().unwrap_or(u64::MAX))
}
