//! Only who is in office decides, and a TaskManager that has heard a leader obeys none that was in office before it.

use std::collections::{BTreeMap, BTreeSet};

use flott_node::simulation::Told;

/// Who took office, and whom the TaskManagers obey.
#[derive(Debug, Default)]
pub struct Offices {
    /// Entries by which somebody took office: their indexes are the epochs.
    taken: BTreeSet<u64>,
    /// By machine.
    obeyed: BTreeMap<usize, u64>,
}

impl Offices {
    /// The process of that machine has ended, and with it what it knew.
    pub fn on_death(&mut self, host: usize) {
        self.obeyed.remove(&host);
    }

    /// Whether a process of that machine may have told this.
    pub fn check(&mut self, host: usize, told: &Told) -> Result<(), String> {
        match told {
            Told::Decided {
                index,
                takes_office: true,
                ..
            } => {
                self.taken.insert(*index);
            }
            Told::Decided { index, epoch, .. } => {
                let in_office = self.taken.range(..index).next_back();
                if in_office != Some(epoch) {
                    return Err(format!(
                        "offices: host {host} carried out entry {index} of epoch {epoch} although {in_office:?} is in office"
                    ));
                }
            }
            Told::LeaderObeyed { epoch } => {
                let highest = self.obeyed.entry(host).or_default();
                if epoch < highest {
                    return Err(format!(
                        "offices: host {host} obeys the leader of epoch {epoch} after that of {highest}"
                    ));
                }
                *highest = *epoch;
            }
            _ => {}
        }
        Ok(())
    }
}
