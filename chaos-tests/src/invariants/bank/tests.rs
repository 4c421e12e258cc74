//! Whatever a right system does is accepted; each planted mistake is found.

use flott_chaos_basis::random::Random;
use proptest::prelude::*;

use super::*;

const TERMS: Terms = Terms {
    accounts: 5,
    balance: 40,
};

/// A system that does one thing after the other, and what its clients saw of it.
struct Model {
    random: Random,
    accounts: Vec<(i64, u64)>,
    /// Asked for, without an answer, and not done yet.
    waiting: Vec<(u32, u32, i64)>,
    events: Vec<Event>,
    now_ns: u64,
}

impl Model {
    fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            accounts: vec![(TERMS.balance, 1); TERMS.accounts as usize],
            waiting: Vec::new(),
            events: Vec::new(),
            now_ns: 0,
        }
    }

    fn later(&mut self) -> u64 {
        self.now_ns += 1 + self.random.below(1_000);
        self.now_ns
    }

    fn apply(&mut self, from: u32, to: u32, amount: i64) {
        for (account, change) in [(from, -amount), (to, amount)] {
            let account = &mut self.accounts[account as usize];
            *account = (account.0 + change, account.1 + 1);
        }
    }

    fn transfer(&mut self) {
        let from = self.random.below(u64::from(TERMS.accounts)) as u32;
        let to =
            (from + 1 + self.random.below(u64::from(TERMS.accounts) - 1) as u32) % TERMS.accounts;
        let available = self.accounts[from as usize].0;
        let waiting = self.waiting.iter().filter(|(other, ..)| *other == from);
        let amount = available - waiting.map(|(.., amount)| amount).sum::<i64>();
        if amount < 1 {
            return;
        }
        let amount = 1 + self.random.below(amount as u64) as i64;
        let called_ns = self.later();
        let fate = match self.random.below(10) {
            0..6 => {
                self.apply(from, to, amount);
                Fate::Done
            }
            6..8 => Fate::NotDone,
            _ => {
                self.waiting.push((from, to, amount));
                Fate::Unknown
            }
        };
        let ended_ns = self.later();
        self.events.push(Event::Moved {
            from,
            to,
            amount,
            called_ns,
            ended_ns,
            fate,
        });
    }

    fn read(&mut self) {
        let called_ns = self.later();
        let account = |(balance, version): &(i64, u64)| {
            Some(Account {
                balance: Some(*balance),
                version: *version,
            })
        };
        let accounts = self.accounts.iter().map(account).collect();
        let ended_ns = self.later();
        self.events.push(Event::Read {
            called_ns,
            ended_ns,
            accounts,
            strangers: 0,
        });
    }

    /// What was without an answer takes effect late, or never.
    fn settle(&mut self) {
        if !self.waiting.is_empty() && self.random.percent(50) {
            let index = self.random.below(self.waiting.len() as u64) as usize;
            let (from, to, amount) = self.waiting.swap_remove(index);
            if self.random.percent(60) {
                self.apply(from, to, amount);
            }
        }
    }

    fn run(seed: u64, steps: u32) -> Vec<Event> {
        let mut model = Self::new(seed);
        for _ in 0..steps {
            model.transfer();
            model.settle();
            if model.random.percent(40) {
                model.read();
            }
        }
        // Something to find, and something to find it in.
        model.random = Random::new(seed);
        while !model.events.iter().any(is_done) {
            model.transfer();
        }
        model.read();
        // Clients hand in what they saw one after the other.
        let mut events = model.events;
        model.random.shuffle(&mut events);
        events
    }
}

fn is_done(event: &Event) -> bool {
    matches!(
        event,
        Event::Moved {
            fate: Fate::Done,
            ..
        }
    )
}

/// The read that came last.
fn last_read(events: &mut [Event]) -> &mut Vec<Option<Account>> {
    let reads = events.iter_mut().filter_map(|event| match event {
        Event::Read {
            called_ns,
            accounts,
            ..
        } => Some((*called_ns, accounts)),
        Event::Moved { .. } => None,
    });
    reads.max_by_key(|(called_ns, _)| *called_ns).unwrap().1
}

fn account(accounts: &mut [Option<Account>], number: usize) -> &mut Account {
    accounts[number].as_mut().unwrap()
}

fn found(events: &[Event], words: &str) -> bool {
    let found = check(events, TERMS);
    found.iter().any(|found| found.what.contains(words))
}

proptest! {
    #[test]
    fn whatever_a_right_system_does_is_accepted(seed: u64, steps in 0_u32..60) {
        let events = Model::run(seed, steps);
        prop_assert_eq!(check(&events, TERMS), Vec::new());
    }

    #[test]
    fn half_a_transfer_is_found(seed: u64, steps in 0_u32..60, number in 0_usize..5, amount in 1_i64..9) {
        let mut events = Model::run(seed, steps);
        let one = account(last_read(&mut events), number);
        one.balance = one.balance.map(|balance| balance + amount);
        prop_assert!(found(&events, "all accounts together have"));
    }

    #[test]
    fn money_that_nobody_has_is_found(seed: u64, steps in 0_u32..60, number in 0_usize..5) {
        let mut events = Model::run(seed, steps);
        let accounts = last_read(&mut events);
        let other = (number + 1) % accounts.len();
        let moved = account(accounts, number).balance.unwrap() + 1;
        for (number, change) in [(number, -moved), (other, moved)] {
            let one = account(accounts, number);
            one.balance = one.balance.map(|balance| balance + change);
        }
        prop_assert!(!found(&events, "all accounts together have"));
        prop_assert!(found(&events, "has -1"));
    }

    #[test]
    fn an_acknowledged_transfer_that_is_gone_is_found(seed: u64, steps in 0_u32..60) {
        let mut events = Model::run(seed, steps);
        // All that was possible is gone but what was never acknowledged, so at least one acknowledged one is.
        let touched = events.iter().find_map(|event| match event {
            Event::Moved { from, fate: Fate::Done, .. } => Some(*from as usize),
            _ => None,
        });
        account(last_read(&mut events), touched.unwrap()).version = 1;
        prop_assert!(found(&events, "although"));
    }

    #[test]
    fn a_transfer_that_nobody_asked_for_is_found(seed: u64, steps in 0_u32..60, number in 0_usize..5) {
        let mut events = Model::run(seed, steps);
        let possible = Touched::of(number as u32, &events).possible_ns.len() as u64;
        account(last_read(&mut events), number).version = 1 + possible + 1;
        prop_assert!(found(&events, "asked for until then"));
    }

    #[test]
    fn an_account_that_is_gone_or_no_number_or_a_stranger_is_found(seed: u64, number in 0_usize..5, how in 0..3) {
        let mut events = Model::run(seed, 5);
        match how {
            0 => last_read(&mut events)[number] = None,
            1 => account(last_read(&mut events), number).balance = None,
            _ => for event in &mut events {
                if let Event::Read { strangers, .. } = event {
                    *strangers = 1;
                }
            },
        }
        prop_assert!(found(&events, "of 5 accounts"));
    }
}

#[test]
fn a_stale_read_is_found_although_its_sum_is_right() {
    let mut model = Model::new(3);
    model.read();
    while !model.events.iter().any(is_done) {
        model.transfer();
    }
    let mut events = model.events.clone();
    let (called_ns, ended_ns) = (model.later(), model.later());
    let Some(Event::Read { accounts, .. }) = events.first().cloned() else {
        panic!("it was read first");
    };
    events.push(Event::Read {
        called_ns,
        ended_ns,
        accounts,
        strangers: 0,
    });
    let found = check(&events, TERMS);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0]
            .what
            .contains("although 1 were acknowledged before"),
        "{found:?}"
    );
    assert_eq!(found[0].at_ms, Some(ended_ns / 1_000_000));
}

#[test]
fn what_is_wrong_often_is_told_a_few_times_and_counted() {
    let mut events = Model::run(1, 60);
    let mut reads = 0;
    for event in &mut events {
        if let Event::Read { accounts, .. } = event {
            account(accounts, 0).balance = Some(1_000);
            reads += 1;
        }
    }
    let found = check(&events, TERMS);
    assert_eq!(found.len(), TOLD_MAX);
    let more = format!("{} more reads", reads - TOLD_MAX);
    assert!(found[TOLD_MAX - 1].what.contains(&more), "{found:?}");
}

#[test]
fn a_bank_that_hardly_answered_or_was_not_read_at_the_end_shows_nothing() {
    let events = Model::run(1, 400);
    let counts = counts(&events);
    assert!(
        counts.done > 50 && counts.reads > 50 && counts.unknown > 0,
        "{counts:?}"
    );
    assert_eq!(doubts(&events, true), Vec::new());
    assert_eq!(doubts(&events, false).len(), 1);
    assert_eq!(doubts(&[], true).len(), 1);
}
