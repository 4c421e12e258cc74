//! The cluster of others that a run breaks: shells that answer, processes that are there, members that are known.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use flott_node::SharedClock;

use super::Course;
use super::guard::Guard;
use crate::campaign::place::CannotRun;
use crate::campaign::plan::{Plan, Workload};
use crate::campaign::strike_remote::Site;
use crate::campaign::undo::{self, Healed};
use crate::target::client::Client;
use crate::target::remote::Remote;
use crate::target::remote::inventory::Inventory;

/// How often a machine is asked, at the end of the faults, to undo what it has not.
const HEAL_TRIES_MAX: u32 = 6;
/// Between two of these.
const HEAL_EVERY: Duration = Duration::from_secs(5);

/// What a run on it stands on.
pub(super) struct Abroad {
    remote: Arc<Remote>,
    pub(super) client: Arc<Client>,
    pub(super) guard: Guard,
}

impl Abroad {
    /// Asks every machine and the cluster whether they are as the inventory says. Nothing is done to them.
    pub(super) async fn reach(
        course: &Course,
        addresses: &[String],
        inventory: &Inventory,
        clock: &SharedClock,
    ) -> anyhow::Result<Self> {
        let shared = shared_directory(&course.plan, &course.directory);
        let opened = Remote::open(inventory, shared).await;
        let remote = opened.map_err(|missing| CannotRun(missing.join("\n")))?;
        let client = Client::new(
            course.programs.first.clone(),
            addresses.to_vec(),
            clock.clone(),
        );
        let known = members(&client).await;
        if let Some(why) = difference(&known, &inventory.jobmanagers(), addresses) {
            return Err(CannotRun(why).into());
        }
        Ok(Self {
            remote: Arc::new(remote),
            client: Arc::new(client),
            guard: Guard::post(&course.directory, clock)?,
        })
    }

    /// Where steps are carried out.
    pub(super) fn site(&self, job: Option<String>) -> Site {
        let clock = self.client.clock.clone();
        Site {
            remote: Arc::clone(&self.remote),
            client: Arc::clone(&self.client),
            journal: Arc::clone(&self.guard.journal),
            job,
            run_ms: clock.now_ms(),
            clock,
            faults: AtomicU32::new(0),
        }
    }

    /// Undoes what is left; what could not be undone.
    pub(super) async fn heal(&self) -> anyhow::Result<Vec<String>> {
        let journal = self.guard.journal.path();
        for _ in 0..HEAL_TRIES_MAX {
            let Healed { left, .. } = undo::heal(journal, i64::MAX).await?;
            if left.is_empty() {
                return Ok(left);
            }
            self.client.clock.sleep(HEAL_EVERY).await;
        }
        Ok(undo::heal(journal, i64::MAX).await?.left)
    }
}

/// What TaskManagers have to see, too: jobs commit to files there, which are read here.
fn shared_directory<'a>(plan: &Plan, directory: &'a Path) -> Option<&'a Path> {
    let commits = [Workload::Seq, Workload::Reference];
    let is_read = commits.iter().any(|one| plan.workloads.contains(one));
    is_read.then_some(directory)
}

/// The addresses by which the cluster knows its JobManagers; None if nobody answers.
async fn members(client: &Client) -> Option<Vec<String>> {
    let statuses = client.statuses().await;
    let newest = statuses.into_iter().max_by_key(|status| status.term)?;
    let members = newest.members.into_iter();
    Some(members.map(|member| member.address).collect())
}

/// How the members that are `known` differ from those that are `named`. Pure.
fn difference(known: &Option<Vec<String>>, named: &[String], asked: &[String]) -> Option<String> {
    let Some(known) = known else {
        return Some(format!(
            "no JobManager answers at {}, in plain text: see -m",
            asked.join(", ")
        ));
    };
    let list = known.join(", ");
    let unknown = named.iter().find(|address| !known.contains(address));
    let unnamed = known.iter().find(|address| !named.contains(address));
    match (unknown, unnamed) {
        (Some(address), _) => Some(format!(
            "the cluster knows no JobManager as {address}, but these: {list}; see `known-as`"
        )),
        (None, Some(address)) => Some(format!(
            "the cluster has a JobManager at {address}, which is not among the hosts: name all"
        )),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inventory_names_those_members_that_there_are() {
        let addresses = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let known = Some(addresses("a:1 b:1"));
        let asked = addresses("x:1");
        let say =
            |known: &Option<Vec<String>>, named: &str| difference(known, &addresses(named), &asked);
        assert_eq!(say(&known, "b:1 a:1"), None);
        for (known, named, words) in [
            (&None, "a:1 b:1", "answers at x:1"),
            (
                &known,
                "a:1 c:1",
                "no JobManager as c:1, but these: a:1, b:1",
            ),
            (&known, "a:1", "at b:1"),
        ] {
            let why = say(known, named).unwrap();
            assert!(why.contains(words), "{why}");
        }
    }
}
