//! Election safety: a term has at most one leader, and at no moment do two members have a valid lease.

use std::collections::BTreeMap;

use super::Look;

/// Who led in which term, and who has a lease.
#[derive(Debug, Default)]
pub struct Elections {
    leaders: BTreeMap<u64, u64>,
}

impl Elections {
    /// How often a leader was elected.
    pub fn count(&self) -> usize {
        self.leaders.len()
    }

    /// Whether this leader was not known before.
    pub fn check(&mut self, look: &Look<'_>) -> Result<bool, String> {
        let seen = look.seen;
        if !seen.is_leader {
            return Ok(false);
        }
        match self.leaders.insert(seen.term, seen.node) {
            None => Ok(true),
            Some(before) if before == seen.node => Ok(false),
            Some(before) => Err(format!(
                "election safety: {before} and {} both lead in term {}",
                seen.node, seen.term
            )),
        }
    }

    /// The leases of all members that run, as they see them at this moment.
    pub fn check_leases(leases: &[(u64, u64)]) -> Result<(), String> {
        match leases {
            [first, second, ..] => Err(format!(
                "two leases: {} in term {} and {} in term {} are sure to lead",
                first.0, first.1, second.0, second.1
            )),
            _ => Ok(()),
        }
    }
}
