//! Epochs rise, and nothing at a member ever goes back while it lives.

use std::collections::BTreeMap;

use flott_coordinator::simulation::Seen;

use super::Look;

/// The members as they were seen last.
#[derive(Debug, Default)]
pub struct Epochs {
    last: BTreeMap<usize, (u32, Seen)>,
    /// By applied index: epoch and revision there.
    states: BTreeMap<u64, (u64, u64)>,
}

impl Epochs {
    /// Whether this member went forward.
    pub fn check(&mut self, look: &Look<'_>) -> Result<(), String> {
        let (host, seen) = (look.host, look.seen);
        let state = (seen.epoch, seen.revision);
        if seen.applied > 0 {
            let known = *self.states.entry(seen.applied).or_insert(state);
            if known != state {
                return Err(format!(
                    "states differ: at entry {} host {host} has epoch and revision {state:?}, another {known:?}",
                    seen.applied
                ));
            }
            let around = [
                self.states.range(..seen.applied).next_back(),
                self.states.range(seen.applied + 1..).next(),
            ];
            for (index, other) in around.into_iter().flatten() {
                let rises = if *index < seen.applied {
                    other.0 <= state.0 && other.1 <= state.1
                } else {
                    other.0 >= state.0 && other.1 >= state.1
                };
                if !rises {
                    return Err(format!(
                        "epochs rise: {state:?} at entry {} and {other:?} at entry {index}",
                        seen.applied
                    ));
                }
            }
        }
        let previous = self.last.insert(host, (look.life, seen.clone()));
        let Some((life, before)) = previous else {
            return Ok(());
        };
        // A new life of the same data directory has what was durable of the one before.
        let goes_back = |what: &str, was: &dyn std::fmt::Debug, is: &dyn std::fmt::Debug| {
            Err(format!(
                "monotonic: the {what} of host {host} went from {was:?} to {is:?}"
            ))
        };
        if life != look.life {
            return Ok(());
        }
        if seen.term < before.term {
            return goes_back("term", &before.term, &seen.term);
        }
        if seen.applied < before.applied {
            return goes_back("applied index", &before.applied, &seen.applied);
        }
        if seen.committed < before.committed {
            return goes_back("committed position", &before.committed, &seen.committed);
        }
        if seen.purged < before.purged {
            return goes_back("beginning", &before.purged, &seen.purged);
        }
        Ok(())
    }

    /// That host has another data directory from now on.
    pub fn forget(&mut self, host: usize) {
        self.last.remove(&host);
    }
}
