//! Credit of one channel: how many rows and bytes may be on their way or waiting at the receiver.
//!
//! ```text
//! sender: take(cost) ──data──▶ receiver: on_received(cost) … on_consumed(cost) ──grant──▶ sender: give_back(grant)
//! ```
//!
//! What must stay true: what is outstanding never exceeds the limit, except that one batch that is larger than the whole
//! limit passes when nothing else is outstanding; and what was taken comes back in full. Both ends check.

use std::ops::{AddAssign, SubAssign};

/// What an element takes of a channel's credit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    pub rows: u64,
    pub bytes: u64,
}

impl Cost {
    fn is_zero(self) -> bool {
        self == Self::default()
    }

    /// Whether so much more may be outstanding.
    pub(super) fn fits(self, outstanding: Self, limit: Self) -> bool {
        let within =
            |used: u64, more: u64, max: u64| used.checked_add(more).is_some_and(|sum| sum <= max);
        outstanding.is_zero()
            || within(outstanding.rows, self.rows, limit.rows)
                && within(outstanding.bytes, self.bytes, limit.bytes)
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.bytes += other.bytes;
    }
}

impl SubAssign for Cost {
    fn sub_assign(&mut self, other: Self) {
        self.rows -= other.rows;
        self.bytes -= other.bytes;
    }
}

/// The other end of the channel does not keep to the credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreditError {
    #[error("{given:?} was granted back where {outstanding:?} is outstanding")]
    GrantExceedsOutstanding { given: Cost, outstanding: Cost },
    #[error("{cost:?} was sent where {outstanding:?} of {limit:?} is outstanding")]
    LimitExceeded {
        cost: Cost,
        outstanding: Cost,
        limit: Cost,
    },
}

/// The sender's side of a channel.
#[derive(Clone, Copy, Debug)]
pub struct Credit {
    limit: Cost,
    outstanding: Cost,
}

impl Credit {
    /// Nothing outstanding; `limit` is what the receiver offers.
    pub fn new(limit: Cost) -> Self {
        Self {
            limit,
            outstanding: Cost::default(),
        }
    }

    /// Takes `cost` if it may be sent now. A cost of nothing always may.
    pub fn take(&mut self, cost: Cost) -> bool {
        let fits = cost.is_zero() || cost.fits(self.outstanding, self.limit);
        if fits {
            self.outstanding += cost;
        }
        fits
    }

    /// What the receiver has consumed.
    pub fn give_back(&mut self, given: Cost) -> Result<(), CreditError> {
        let outstanding = self.outstanding;
        if given.rows > outstanding.rows || given.bytes > outstanding.bytes {
            return Err(CreditError::GrantExceedsOutstanding { given, outstanding });
        }
        self.outstanding -= given;
        Ok(())
    }

    /// Changes the limit to what the receiver said in its handshake.
    pub fn set_limit(&mut self, limit: Cost) {
        self.limit = limit;
    }
}

/// The receiver's side of a channel: checks the sender, and grants back in portions that are worth a frame.
#[derive(Clone, Copy, Debug)]
pub struct Grants {
    limit: Cost,
    /// Received and not yet granted back.
    outstanding: Cost,
    /// Of that, what the task has consumed.
    consumed: Cost,
}

/// A grant is sent once this part of the limit has been consumed, or when nothing else is queued.
const GRANT_PART: u64 = 4;

impl Grants {
    /// Nothing received yet; the sender was told `limit`.
    pub fn new(limit: Cost) -> Self {
        Self {
            limit,
            outstanding: Cost::default(),
            consumed: Cost::default(),
        }
    }

    /// Data arrived.
    pub fn on_received(&mut self, cost: Cost) -> Result<(), CreditError> {
        let (outstanding, limit) = (self.outstanding, self.limit);
        if !cost.fits(outstanding, limit) {
            return Err(CreditError::LimitExceeded {
                cost,
                outstanding,
                limit,
            });
        }
        self.outstanding += cost;
        Ok(())
    }

    /// The task took data from the channel. What to grant back now, if anything.
    pub fn on_consumed(&mut self, cost: Cost) -> Option<Cost> {
        self.consumed += cost;
        let worth = self.consumed.rows * GRANT_PART >= self.limit.rows
            || self.consumed.bytes * GRANT_PART >= self.limit.bytes
            || self.consumed == self.outstanding;
        (worth && !self.consumed.is_zero()).then(|| {
            let grant = std::mem::take(&mut self.consumed);
            self.outstanding -= grant;
            grant
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn cost() -> impl Strategy<Value = Cost> {
        (1u64..60, 1u64..6000).prop_map(|(rows, bytes)| Cost { rows, bytes })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn credit_never_exceeds_its_limit_and_never_leaks(
            limit in cost(), batches in prop::collection::vec(cost(), 0..60), schedule in prop::collection::vec(0u8..4, 0..400)
        ) {
            let (mut credit, mut grants) = (Credit::new(limit), Grants::new(limit));
            let mut unsent: VecDeque<Cost> = batches.into();
            let (mut wire, mut queued, mut granted) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
            // Whatever the schedule left undone is done at the end, each step in turn.
            let rest = (0..4000).map(|step| (step % 4) as u8);
            for step in schedule.into_iter().chain(rest) {
                match step {
                    0 => if let Some(&next) = unsent.front() && credit.take(next) {
                        unsent.pop_front();
                        wire.push_back(next);
                    },
                    1 => if let Some(arrived) = wire.pop_front() {
                        grants.on_received(arrived).unwrap();
                        queued.push_back(arrived);
                    },
                    2 => if let Some(taken) = queued.pop_front() {
                        granted.extend(grants.on_consumed(taken));
                    },
                    _ => if let Some(grant) = granted.pop_front() {
                        credit.give_back(grant).unwrap();
                    },
                }
                let outstanding = credit.outstanding;
                let whole = wire.len() + queued.len() <= 1;
                prop_assert!(whole || (outstanding.rows <= limit.rows && outstanding.bytes <= limit.bytes));
            }
            prop_assert!(unsent.is_empty() && queued.is_empty());
            prop_assert_eq!(credit.outstanding, Cost::default());
            prop_assert_eq!(grants.outstanding, Cost::default());
        }
    }

    #[test]
    fn both_ends_notice_a_peer_that_does_not_keep_to_the_credit() {
        let limit = Cost {
            rows: 10,
            bytes: 100,
        };
        let mut credit = Credit::new(limit);
        assert!(credit.give_back(Cost { rows: 1, bytes: 0 }).is_err());
        let mut grants = Grants::new(limit);
        grants.on_received(Cost { rows: 9, bytes: 9 }).unwrap();
        assert!(grants.on_received(Cost { rows: 2, bytes: 1 }).is_err());
        assert!(
            grants
                .on_received(Cost {
                    rows: u64::MAX,
                    bytes: 1
                })
                .is_err()
        );
    }

    #[test]
    fn control_elements_need_no_credit() {
        let mut credit = Credit::new(Cost { rows: 1, bytes: 1 });
        assert!(
            credit.take(Cost { rows: 5, bytes: 5 }),
            "an oversized batch passes alone"
        );
        assert!(!credit.take(Cost { rows: 1, bytes: 1 }));
        assert!(credit.take(Cost::default()));
    }
}
