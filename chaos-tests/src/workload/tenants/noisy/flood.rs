//! Keys: as many, as large and as often as the noisy tenant is let, and beyond.

use flott_chaos_basis::random::Random;
use flott_proto::wire::kv_request;

use super::super::{KEYS, PREFIX};
use super::{Abuse, DEADLINE, DISAPPOINTED, Tally};
use crate::invariants::tenants::{Answer, Tenant};
use crate::workload::client::{self, Attempt};

/// Keys that are flooded: with values of 64 KiB they are twice what the quota allows.
const FLOODED_KEYS: u64 = 64;
const VALUE_BYTES: usize = 64 << 10;
/// Above what any value may have.
const TOO_LARGE_BYTES: usize = 300 << 10;
/// Operations that a transaction may have.
const READS_AT_ONCE: usize = 128;

/// What a flooder asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mischief {
    /// Sets a key to a large value.
    Put,
    /// To one that is too large.
    TooLarge,
    /// Sets the steady tenant's names, in its own namespace.
    Transaction,
    /// Reads everything as often as a transaction has room for.
    ReadOften,
    Lease,
    ReadAll,
    DeleteAll,
}

impl Mischief {
    /// Of a hundred: mostly writes, and a deletion at times so that there is room for more.
    fn drawn(percent: u64) -> Self {
        match percent {
            0..60 => Self::Put,
            60..64 => Self::TooLarge,
            64..75 => Self::Transaction,
            75..77 => Self::ReadOften,
            77..80 => Self::Lease,
            80..97 => Self::ReadAll,
            _ => Self::DeleteAll,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::TooLarge => "put too large",
            Self::Transaction => "transaction",
            Self::ReadOften => "read all, often at once",
            Self::Lease => "lease",
            Self::ReadAll => "read all",
            Self::DeleteAll => "delete all",
        }
    }

    fn request(self, key: u64) -> kv_request::Operation {
        let all = client::prefix(PREFIX, PREFIX);
        let name = |key: u64| format!("{PREFIX}{key:04}");
        match self {
            Self::Put => client::put(&name(key), &value(VALUE_BYTES)),
            Self::TooLarge => client::put(&name(key), &value(TOO_LARGE_BYTES)),
            Self::Transaction => {
                client::put_all((0..u64::from(KEYS)).map(|key| (name(key), value(1 << 10))))
            }
            Self::ReadOften => client::read_often(&all, READS_AT_ONCE),
            Self::Lease => client::grant_lease(60_000),
            Self::ReadAll => client::range(all, 0, false),
            Self::DeleteAll => client::delete(all),
        }
    }

    /// What must be refused, and in which words.
    fn beyond(self, why: Option<&str>) -> Option<(&'static str, &'static str)> {
        if self == Self::TooLarge {
            return Some(("a value larger than any may be", "Invalid"));
        }
        // Whether a write would be above the quota only the group knows.
        let is_quota = why.is_some_and(|why| why.starts_with("Quota"));
        is_quota.then_some(("more bytes of keys than the quota", "its quota is"))
    }
}

/// A value that only the noisy tenant writes.
fn value(bytes: usize) -> String {
    let word = Tenant::Noisy.word();
    let mut value = word.repeat(bytes.div_ceil(word.len()));
    value.truncate(bytes);
    value
}

impl Abuse {
    /// Writes, reads and deletes until it is over.
    pub(super) async fn flood(self, mut random: Random) {
        let registers = &self.tenants.registers;
        let namespace = self.tenants.namespace(Tenant::Noisy);
        let connections = registers.connections().into_iter();
        let mut connections: Vec<_> = connections
            .map(|connection| connection.in_namespace(&namespace))
            .collect();
        let mut at = random.below(connections.len() as u64) as usize;
        while !self.over.is_cancelled() {
            let mischief = Mischief::drawn(random.below(100));
            let request = mischief.request(random.below(FLOODED_KEYS));
            let attempt = connections[at].attempt(request, "", DEADLINE).await;
            let next = (at + 1) % connections.len();
            match attempt {
                Attempt::Done { outcome, .. } => {
                    self.tally.count(Tally::DONE, mischief.word());
                    self.look_at(&outcome);
                    if let Some((what, says)) = mischief.beyond(None) {
                        self.went_beyond(what, says, Answer::Done);
                    }
                }
                Attempt::Refused { why, leader } => {
                    let reason = why.split(' ').next().unwrap_or_default();
                    self.tally.count(Tally::REFUSED, reason);
                    if matches!(reason, "NotLeader" | "Busy") {
                        let named = leader.and_then(|leader| registers.member_at(&leader));
                        at = named.map_or(next, |member| member as usize - 1);
                        self.tenants.clock().sleep(DISAPPOINTED).await;
                    } else if let Some((what, says)) = mischief.beyond(Some(&why)) {
                        self.went_beyond(what, says, Answer::Refused(why));
                    }
                }
                Attempt::NotSent | Attempt::Unknown(_) => {
                    self.tally.count(Tally::REFUSED, "no answer");
                    at = next;
                    self.tenants.clock().sleep(DISAPPOINTED).await;
                }
            }
        }
    }

    /// Deletes all keys of the noisy tenant.
    pub(super) async fn leave_no_key(&self) {
        let namespace = self.tenants.namespace(Tenant::Noisy);
        for connection in self.tenants.registers.connections() {
            let mut connection = connection.in_namespace(&namespace);
            let delete = Mischief::DeleteAll.request(0);
            if let Attempt::Done { .. } = connection.attempt(delete, "", DEADLINE).await {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mischief_is_drawn_and_writes_what_is_known_as_the_noisy_tenants() {
        let drawn: Vec<Mischief> = (0..100).map(Mischief::drawn).collect();
        for mischief in [
            Mischief::Put,
            Mischief::TooLarge,
            Mischief::Transaction,
            Mischief::ReadOften,
            Mischief::Lease,
            Mischief::ReadAll,
            Mischief::DeleteAll,
        ] {
            assert!(drawn.contains(&mischief), "{mischief:?}");
        }
        let value = value(VALUE_BYTES);
        assert!(value.len() == VALUE_BYTES && Tenant::Noisy.wrote(value.as_bytes()));
    }

    #[test]
    fn only_what_has_to_be_refused_goes_against_a_limit() {
        let quota = Some("Quota the namespace would have 9 bytes, its quota is 5");
        for (mischief, why, goes) in [
            (Mischief::TooLarge, None, true),
            (Mischief::Put, None, false),
            (Mischief::Put, quota, true),
            (
                Mischief::DeleteAll,
                Some("NoNamespace there is none"),
                false,
            ),
        ] {
            assert_eq!(mischief.beyond(why).is_some(), goes, "{mischief:?} {why:?}");
        }
    }
}
