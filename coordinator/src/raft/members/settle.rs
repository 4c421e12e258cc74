//! Completes a change of the membership whose leader died in the middle.
//!
//! A change of voters is two entries: one under which both the old and the new voters decide, and one that leaves the new
//! ones alone. Nobody but the leader that began would write the second, and until then the loss of a majority of either
//! set stops the group. So whoever leads writes it.

use std::collections::BTreeSet;
use std::time::Duration;

use flott_node::Mutant;
use openraft::ChangeMembers;
use tracing::{info, warn};

use super::super::node::Inner;
use super::super::rounds::Rounds;

/// How often the leader looks whether something was left unfinished.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Runs until the node ends.
pub(in super::super) async fn run(rounds: Rounds) {
    while let Some(inner) = rounds.next(LOOK_EVERY).await {
        if inner.leadership.borrow().is_leader && !Mutant::JointNeverSettled.is_planted() {
            inner.settle().await;
        }
    }
}

impl Inner {
    async fn settle(&self) {
        let membership = self.membership();
        if membership.get_joint_config().len() < 2 {
            return;
        }
        // One that this leader itself has begun goes on by itself.
        let what = "completing a change of the voters that another leader began";
        let Ok(guard) = self.changing.take(what.to_owned()) else {
            return;
        };
        // No voter more: what remains is the second step of what is under way.
        let nothing = ChangeMembers::AddVoterIds(BTreeSet::new());
        match self.change(guard, &membership, nothing).await {
            Ok(()) => info!("completed a change of the raft voters that another leader began"),
            Err(error) => warn!(%error, "cannot complete a change of the raft voters yet"),
        }
    }
}
