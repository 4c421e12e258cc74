//! Who may still speak: the fences of leaders and of attempts.
//!
//! A receiver remembers the highest epoch it has seen and refuses lower ones; so a deposed leader is harmless however
//! late its calls arrive. Attempts fence tasks of the same job in the same way.

use crate::ids::LeaderEpoch;

/// The highest leader epoch that this process has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct EpochFence {
    highest: LeaderEpoch,
}

/// A call came from a leader that a newer one has replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("leader epoch {seen} is fenced by {highest}")]
pub struct Fenced {
    pub seen: LeaderEpoch,
    pub highest: LeaderEpoch,
}

impl EpochFence {
    pub fn highest(self) -> LeaderEpoch {
        self.highest
    }

    /// Accepts the highest epoch so far or a higher one, which then becomes the highest.
    pub fn admit(&mut self, epoch: LeaderEpoch) -> Result<(), Fenced> {
        if epoch < self.highest {
            return Err(Fenced {
                seen: epoch,
                highest: self.highest,
            });
        }
        self.highest = epoch;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_epoch_is_refused_and_leaves_the_fence_alone() {
        let mut fence = EpochFence::default();
        fence.admit(LeaderEpoch(5)).unwrap();
        fence.admit(LeaderEpoch(5)).unwrap();
        assert_eq!(
            fence.admit(LeaderEpoch(4)),
            Err(Fenced {
                seen: LeaderEpoch(4),
                highest: LeaderEpoch(5)
            })
        );
        assert_eq!(fence.highest(), LeaderEpoch(5));
    }
}
