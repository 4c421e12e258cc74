//! Carries a plan out, and writes down what really happened.

use std::time::Duration;

use flott_node::SharedClock;
use futures::future::try_join_all;

use super::plan::{Fault, Plan, Step, Whom, cut_pairs};
use crate::cluster::group::Group;
use crate::cluster::processes;

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Struck {
    /// What was planned.
    pub step: Step,
    /// Whom it struck and whether that one led; or why it struck nobody.
    pub member: Result<(u32, bool), String>,
    /// When it began, since the begin of the faults.
    pub from: Duration,
    /// When it was undone.
    pub until: Duration,
}

/// Carries out all steps of the plan, each at its time, and undoes each. `leader` says who leads.
///
/// An error means that a fault could not be undone, or that a member ended by itself.
pub async fn carry_out(
    plan: &Plan,
    group: &Group,
    leader: impl Fn() -> Option<u32>,
    clock: &SharedClock,
) -> anyhow::Result<Vec<Struck>> {
    let begin = clock.monotonic();
    let elapsed = || clock.monotonic().saturating_sub(begin);
    let strike = async |step: &Step| {
        clock.sleep(step.at).await;
        let from = elapsed();
        let leader = leader();
        let member = match step.whom {
            Whom::Leader => leader,
            Whom::Member(member) => Some(member),
        };
        let struck = match member {
            None => Err("nobody leads".to_owned()),
            Some(member) => match apply(step.fault, member, group).await? {
                Some(undo) => {
                    clock.sleep(step.lasts).await;
                    undo.undo(group).await?;
                    Ok((member, leader == Some(member)))
                }
                None => Err(format!("member {member} does not run")),
            },
        };
        anyhow::Ok(Struck {
            step: *step,
            member: struck,
            from,
            until: elapsed(),
        })
    };
    try_join_all(plan.steps.iter().map(strike)).await
}

/// How to undo a fault.
enum Undo {
    Start(u32),
    Wake { member: u32, pid: i32 },
    Mend(Vec<(u32, u32)>),
}

/// `None`: there is nobody to strike.
async fn apply(fault: Fault, member: u32, group: &Group) -> anyhow::Result<Option<Undo>> {
    match fault {
        Fault::Kill => {
            let killed = group.kill(member).await?;
            Ok(killed.then_some(Undo::Start(member)))
        }
        Fault::Pause => {
            let Some(pid) = group.pid(member)? else {
                return Ok(None);
            };
            processes::stop(pid)?;
            Ok(Some(Undo::Wake { member, pid }))
        }
        Fault::Isolate | Fault::Minority | Fault::Deaf | Fault::Mute => {
            let pairs = cut_pairs(fault, member, group.size());
            group.network.cut(&pairs).await?;
            Ok(Some(Undo::Mend(pairs)))
        }
    }
}

impl Undo {
    async fn undo(self, group: &Group) -> anyhow::Result<()> {
        match self {
            Self::Start(member) => group.start_member(member),
            // It may have been killed meanwhile, by another fault.
            Self::Wake { member, pid } if group.pid(member)? == Some(pid) => processes::go_on(pid),
            Self::Wake { .. } => Ok(()),
            Self::Mend(pairs) => group.network.mend(&pairs).await,
        }
    }
}
