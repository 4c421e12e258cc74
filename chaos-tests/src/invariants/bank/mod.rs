//! Money is moved between accounts and never made or lost.
//!
//! Each transfer changes two accounts in one transaction, if neither has changed since its client read both. So whoever
//! reads all accounts at once sees:
//!
//! - *The same sum*, always, and no account below zero: a transaction is never half done, nor done on what is not so.
//! - *What was promised*: every transfer that was acknowledged before the read was asked for, each once; and none but those
//!   that were asked for before the read was answered. The system counts the changes of a key, which tells how many have
//!   touched an account.
//!
//! A transfer without an answer may take effect at any time, or never.

use serde::{Deserialize, Serialize};

use crate::report::Finding;

/// Of each sort so many findings are told one by one.
const TOLD_MAX: usize = 3;
/// With fewer transfers that were acknowledged, or fewer reads, little was shown.
const ANSWERED_MIN: u64 = 50;

/// An account, as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// None: there is something else than a number.
    pub balance: Option<i64>,
    /// How often it has changed since it was opened, which counts.
    pub version: u64,
}

/// What a client knows of its transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// Done.
    Done,
    /// Not done, and never will be: one of the accounts had changed, or it was refused.
    NotDone,
    /// Nobody knows.
    Unknown,
}

/// What a client did, or saw. Nanoseconds since the run began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "see each")]
pub enum Event {
    /// Money was moved.
    Moved {
        from: u32,
        to: u32,
        amount: i64,
        called_ns: u64,
        ended_ns: u64,
        fate: Fate,
    },
    /// All accounts were read at once; in order, `None` for one that was not there.
    Read {
        called_ns: u64,
        ended_ns: u64,
        accounts: Vec<Option<Account>>,
        /// Keys among them that are no accounts.
        strangers: u64,
    },
}

/// What there is in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Numbered from 0.
    pub accounts: u32,
    /// Of each, at the beginning.
    pub balance: i64,
}

impl Terms {
    fn sum(self) -> i128 {
        i128::from(self.accounts) * i128::from(self.balance)
    }
}

/// Figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "their names say it")]
pub struct Counts {
    pub done: u64,
    pub not_done: u64,
    pub unknown: u64,
    pub reads: u64,
}

/// How many ended how.
pub fn counts(events: &[Event]) -> Counts {
    let mut counts = Counts::default();
    for event in events {
        match event {
            Event::Read { .. } => counts.reads += 1,
            Event::Moved { fate, .. } => match fate {
                Fate::Done => counts.done += 1,
                Fate::NotDone => counts.not_done += 1,
                Fate::Unknown => counts.unknown += 1,
            },
        }
    }
    counts
}

/// Why little was shown. `is_over`: the last read was taken after everything had ended.
pub fn doubts(events: &[Event], is_over: bool) -> Vec<Finding> {
    let counts = counts(events);
    let mut doubts = Vec::new();
    if counts.done < ANSWERED_MIN || counts.reads < ANSWERED_MIN {
        doubts.push(Finding::in_all(format!(
            "only {} transfers between accounts were acknowledged, and {} reads of all answered",
            counts.done, counts.reads
        )));
    }
    if !is_over {
        doubts.push(Finding::in_all("the accounts were not read at the end"));
    }
    doubts
}

/// When transfers that touch one account were asked for and acknowledged, each in order.
#[derive(Debug, Default)]
struct Touched {
    /// Acknowledged then.
    acknowledged_ns: Vec<u64>,
    /// Asked for then, and acknowledged or perhaps done.
    possible_ns: Vec<u64>,
}

impl Touched {
    fn of(account: u32, events: &[Event]) -> Self {
        let mut touched = Self::default();
        for event in events {
            let Event::Moved {
                from,
                to,
                called_ns,
                ended_ns,
                fate,
                ..
            } = event
            else {
                continue;
            };
            if (*from != account && *to != account) || *fate == Fate::NotDone {
                continue;
            }
            touched.possible_ns.push(*called_ns);
            if *fate == Fate::Done {
                touched.acknowledged_ns.push(*ended_ns);
            }
        }
        touched.acknowledged_ns.sort_unstable();
        touched.possible_ns.sort_unstable();
        touched
    }

    /// At least and at most so many have taken effect for a read between these.
    fn range(&self, called_ns: u64, ended_ns: u64) -> (u64, u64) {
        let before = |all: &[u64], at: u64| all.partition_point(|ns| *ns < at) as u64;
        (
            before(&self.acknowledged_ns, called_ns),
            before(&self.possible_ns, ended_ns),
        )
    }
}

/// What must not be.
pub fn check(events: &[Event], terms: Terms) -> Vec<Finding> {
    let touched: Vec<Touched> = (0..terms.accounts)
        .map(|account| Touched::of(account, events))
        .collect();
    let mut sorts: [Vec<Finding>; 4] = Default::default();
    for event in events {
        if let Event::Read {
            called_ns,
            ended_ns,
            accounts,
            strangers,
        } = event
        {
            let wrong = [
                content(accounts, *strangers, terms),
                sum(accounts, terms),
                negative(accounts),
                promises(accounts, &touched, (*called_ns, *ended_ns)),
            ];
            for (sort, wrong) in sorts.iter_mut().zip(wrong) {
                let finding = |what| Finding::at(ended_ns / 1_000_000, what);
                sort.extend(wrong.map(finding));
            }
        }
    }
    let mut found = Vec::new();
    for mut sort in sorts {
        let more = sort.len().saturating_sub(TOLD_MAX);
        sort.truncate(TOLD_MAX);
        if let Some(last) = sort.last_mut()
            && more > 0
        {
            last.what += &format!(", and so in {more} more reads of all accounts");
        }
        found.append(&mut sort);
    }
    found
}

/// Each account is there, is a number, and nothing else is.
fn content(accounts: &[Option<Account>], strangers: u64, terms: Terms) -> Option<String> {
    let is_number = |account: &Option<Account>| {
        let account = account.as_ref();
        account.is_some_and(|account| account.balance.is_some())
    };
    let there = accounts.iter().filter(|account| is_number(account)).count();
    let is_whole = there == terms.accounts as usize && accounts.len() == there && strangers == 0;
    (!is_whole).then(|| {
        format!(
            "of {} accounts {there} were there, and {strangers} keys that nobody wrote",
            terms.accounts
        )
    })
}

/// Only of reads that have everything: what is missing is told anyway.
fn balances(accounts: &[Option<Account>]) -> Option<Vec<i64>> {
    accounts
        .iter()
        .map(|account| account.as_ref()?.balance)
        .collect()
}

fn sum(accounts: &[Option<Account>], terms: Terms) -> Option<String> {
    let balances = balances(accounts)?;
    let sum: i128 = balances.iter().copied().map(i128::from).sum();
    let whole = accounts.len() == terms.accounts as usize;
    (whole && sum != terms.sum()).then(|| {
        format!(
            "all accounts together have {sum} instead of {}: {balances:?}",
            terms.sum()
        )
    })
}

fn negative(accounts: &[Option<Account>]) -> Option<String> {
    let balances = accounts.iter().map(|account| account.as_ref()?.balance);
    let mut below = (0..).zip(balances).filter_map(|(number, balance)| {
        let below = balance.filter(|balance| *balance < 0)?;
        Some(format!("account {number} has {below}"))
    });
    below.next()
}

fn promises(
    accounts: &[Option<Account>],
    touched: &[Touched],
    (called_ns, ended_ns): (u64, u64),
) -> Option<String> {
    let mut wrong = (0..).zip(accounts).zip(touched);
    wrong.find_map(|((number, account), touched)| {
        // Opening it was its first change.
        let changes = account.as_ref()?.version.checked_sub(1)?;
        let (least, most) = touched.range(called_ns, ended_ns);
        let which = match changes {
            changes if changes < least => "acknowledged before",
            changes if changes > most => "asked for until then",
            _ => return None,
        };
        let promised = least.max(changes.min(most));
        Some(format!(
            "account {number} was changed by {changes} transfers, although {promised} were {which}"
        ))
    })
}

#[cfg(test)]
mod tests;
