//! State machine safety, from the outside: members that have applied equally much have equal states.

use std::collections::BTreeMap;

/// Digests by applied index.
#[derive(Debug, Default)]
pub struct States {
    digests: BTreeMap<u64, (usize, u128)>,
    compared: u64,
}

impl States {
    /// How many digests met another one.
    pub fn compared(&self) -> u64 {
        self.compared
    }

    /// Whether this state is the one that others have at that entry.
    pub fn check(&mut self, host: usize, applied: u64, digest: u128) -> Result<(), String> {
        match self.digests.get(&applied) {
            None => {
                self.digests.insert(applied, (host, digest));
                Ok(())
            }
            Some((_, known)) if *known == digest => {
                self.compared += 1;
                Ok(())
            }
            Some((other, _)) => Err(format!(
                "state machine safety: hosts {other} and {host} have different states at entry {applied}"
            )),
        }
    }
}
