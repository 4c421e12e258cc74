//! Accounts in the key-value space, between which clients move money: each transfer reads all accounts, then changes two of
//! them in one transaction, provided that neither has changed since. [`crate::invariants::bank`] tells what must hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use flott_chaos_basis::random::Random;
use flott_cli::known_cluster::KnownCluster;
use flott_node::SharedClock;
use flott_proto::wire::{self, kv_request, kv_response};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::client::{self, Attempt, Connection};
use crate::invariants::bank::{Account, Event, Fate, Terms};
use crate::target::client::Client;

/// Few, so that clients meet.
pub const TERMS: Terms = Terms {
    accounts: 8,
    balance: 100,
};
const CLIENTS: u32 = 6;
/// How long a client waits for an answer.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(500));
/// For the accounts to be opened, and to be read at the end.
const BOUND: Duration = Duration::from_secs(60);
/// Pause after an answer, and after anything else.
const THINK: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(8));
const DISAPPOINTED: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(25));

/// All accounts, opened.
#[derive(Debug)]
pub struct Bank {
    addresses: Vec<String>,
    cluster: KnownCluster,
    /// Begins the name of each account.
    prefix: String,
    /// When the run began.
    start: Duration,
    clock: SharedClock,
}

impl Bank {
    /// Opens the accounts; `prefix` tells them from those of other runs.
    pub async fn open(
        client: &Client,
        prefix: &str,
        start: Duration,
        random: Random,
    ) -> anyhow::Result<Arc<Self>> {
        let bank = Arc::new(Self {
            addresses: client.addresses(),
            cluster: KnownCluster::default(),
            prefix: format!("{prefix}bank/"),
            start,
            clock: client.clock.clone(),
        });
        let entries: Vec<(String, String)> = (0..TERMS.accounts)
            .map(|number| (bank.name(number), TERMS.balance.to_string()))
            .collect();
        let mut teller = Teller::new(&bank, random);
        // Repeated under one id it is done once.
        let id = format!("{prefix}open");
        let open = async || {
            let attempt = teller
                .ask(client::put_all(entries.iter().cloned()), &id)
                .await;
            ensure!(matches!(attempt, Attempt::Done { .. }), "{attempt:?}");
            Ok(())
        };
        let opened = client.until("the accounts to be opened", BOUND, open, |()| true);
        opened.await?;
        Ok(bank)
    }

    /// Clients that move money until `stop`; each ends with what it did and saw.
    pub fn work(
        self: &Arc<Self>,
        random: &mut Random,
        stop: &CancellationToken,
    ) -> JoinSet<Vec<Event>> {
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let teller = Teller::new(self, random.fork());
            clients.spawn(teller.work(stop.clone()));
        }
        clients
    }

    /// Reads all accounts once more, when everybody has ended.
    pub async fn close(self: &Arc<Self>, client: &Client, random: Random) -> anyhow::Result<Event> {
        let mut teller = Teller::new(self, random);
        let read = async || {
            let read = teller.read().await;
            read.map(|(event, _)| event).context("no answer")
        };
        client
            .until("all accounts to be read", BOUND, read, |_| true)
            .await
    }

    fn name(&self, account: u32) -> String {
        format!("{}{account:04}", self.prefix)
    }

    fn now_ns(&self) -> u64 {
        let elapsed = self.clock.monotonic().saturating_sub(self.start);
        u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What a client has read of an account: its balance, and the revision of its last change.
type Known = BTreeMap<u32, (i64, u64)>;

/// A client. It has one request under way at a time.
#[derive(Debug)]
struct Teller {
    bank: Arc<Bank>,
    random: Random,
    connections: Vec<Connection>,
    /// The member that it takes for the leader, by its index.
    believed: usize,
}

impl Teller {
    fn new(bank: &Arc<Bank>, mut random: Random) -> Self {
        let addresses = (1..).zip(&bank.addresses);
        Self {
            bank: Arc::clone(bank),
            connections: addresses
                .map(|(member, address)| {
                    Connection::at(member, address.clone()).of_cluster(&bank.cluster)
                })
                .collect(),
            believed: random.below(bank.addresses.len() as u64) as usize,
            random,
        }
    }

    /// Moves money until `stop`, waiting for what is under way.
    async fn work(mut self, stop: CancellationToken) -> Vec<Event> {
        let mut events = Vec::new();
        while !stop.is_cancelled() {
            let mut is_content = false;
            if let Some((read, known)) = self.read().await {
                events.push(read);
                let moved = self.transfer(&known).await;
                is_content = moved.is_some();
                events.extend(moved);
            }
            let pause = if is_content { THINK } else { DISAPPOINTED };
            let pause = self.random.duration(pause.0, pause.1);
            self.bank.clock.sleep(pause).await;
        }
        events
    }

    /// All accounts as of now; none: there was no answer.
    async fn read(&mut self) -> Option<(Event, Known)> {
        let called_ns = self.bank.now_ns();
        let keys = client::prefix(&self.bank.prefix, &self.bank.prefix);
        let attempt = self.ask(client::range(keys, 0, false), "").await;
        let Attempt::Done {
            outcome: kv_response::Outcome::Range(range),
            ..
        } = attempt
        else {
            return None;
        };
        let (accounts, known, strangers) = self.understand(&range);
        let event = Event::Read {
            called_ns,
            ended_ns: self.bank.now_ns(),
            accounts,
            strangers,
        };
        Some((event, known))
    }

    fn understand(&self, range: &wire::KvRangeResult) -> (Vec<Option<Account>>, Known, u64) {
        let mut accounts = vec![None; TERMS.accounts as usize];
        let mut known = Known::new();
        let mut strangers = 0;
        for entry in &range.entries {
            let key = str::from_utf8(&entry.key).unwrap_or_default();
            let number = key.strip_prefix(&self.bank.prefix);
            let number = number.and_then(|number| number.parse::<u32>().ok());
            let place = accounts.get_mut(number.unwrap_or(u32::MAX) as usize);
            let free = number.zip(place).filter(|(_, place)| place.is_none());
            let Some((number, place)) = free else {
                strangers += 1;
                continue;
            };
            let text = str::from_utf8(&entry.value).unwrap_or_default();
            let balance = text.parse().ok();
            if let Some(balance) = balance {
                known.insert(number, (balance, entry.mod_revision));
            }
            *place = Some(Account {
                balance,
                version: entry.version,
            });
        }
        (accounts, known, strangers)
    }

    /// Moves some of what one account has to another; none: nothing was sent.
    async fn transfer(&mut self, known: &Known) -> Option<Event> {
        let rich: Vec<u32> = known
            .iter()
            .filter(|(_, (balance, _))| *balance > 0)
            .map(|(number, _)| *number)
            .collect();
        if rich.is_empty() || known.len() < 2 {
            return None;
        }
        let from = *self.random.pick(&rich);
        let others: Vec<u32> = known
            .keys()
            .copied()
            .filter(|other| *other != from)
            .collect();
        let to = *self.random.pick(&others);
        let (has, from_revision) = known[&from];
        let (gets, to_revision) = known[&to];
        let amount = 1 + self.random.below(has.unsigned_abs()).cast_signed();
        let sides = [
            (self.bank.name(from), from_revision, has - amount),
            (self.bank.name(to), to_revision, gets + amount),
        ];
        let called_ns = self.bank.now_ns();
        let fate = match self.ask(client::put_if_unchanged(&sides), "").await {
            Attempt::NotSent => return None,
            Attempt::Refused { .. } => Fate::NotDone,
            Attempt::Done {
                outcome: kv_response::Outcome::Txn(txn),
                ..
            } => match txn.succeeded {
                true => Fate::Done,
                false => Fate::NotDone,
            },
            Attempt::Unknown(_) | Attempt::Done { .. } => Fate::Unknown,
        };
        Some(Event::Moved {
            from,
            to,
            amount,
            called_ns,
            ended_ns: self.bank.now_ns(),
            fate,
        })
    }

    /// Asks whom it takes for the leader, and learns who is.
    async fn ask(&mut self, operation: kv_request::Operation, id: &str) -> Attempt {
        let patience = self.random.duration(PATIENCE.0, PATIENCE.1);
        let connection = &mut self.connections[self.believed];
        let attempt = connection.attempt(operation, id, patience).await;
        let named = match &attempt {
            Attempt::Done { .. } => return attempt,
            Attempt::Refused { leader, .. } => leader.as_ref(),
            Attempt::NotSent | Attempt::Unknown(_) => None,
        };
        let mut addresses = self.bank.addresses.iter();
        let anybody = self.random.below(self.bank.addresses.len() as u64) as usize;
        self.believed = named
            .and_then(|named| addresses.position(|address| address == named))
            .unwrap_or(anybody);
        attempt
    }
}
