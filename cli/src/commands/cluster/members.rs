//! `flott cluster members add|promote|remove|replace`.
//!
//! Each step is one call that the leader decides and that may be repeated. So a command that was interrupted, or whose
//! leader died, is simply given again.

use std::time::Duration;

use flott_node::{SharedClock, SystemClock};
use flott_proto::wire;

use super::client;
use crate::args::{AddArgs, MemberArgs, OutputFormat, ReplaceArgs};
use crate::client::Client;
use crate::shapes::{Added, MembershipChange};
use crate::{Error, output};

/// How often a new member is looked at while it catches up.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often that is told where nobody watches.
const TELL_EVERY: Duration = Duration::from_secs(5);

pub(super) async fn add(arguments: &AddArgs) -> Result<(), Error> {
    let client = client(&arguments.cluster)?;
    let added = client.add_member(&arguments.address).await?;
    let progress = catch_up(&client, added.id, arguments.catch_up_timeout).await?;
    let mut voter = progress.voter;
    if arguments.promote && !voter {
        output::note(&format!(
            "member {} has caught up; giving it a vote",
            added.id
        ));
        client.promote_member(added.id).await?;
        voter = true;
    }
    let added = Added {
        id: added.id,
        address: progress.address.clone(),
        voter,
        lag: lag(&progress),
    };
    let (id, address) = (added.id, &added.address);
    match arguments.cluster.output {
        OutputFormat::Json => output::json(&added),
        OutputFormat::Table if voter => {
            output::line(&format!("Member {id} ({address}) has a vote"));
        }
        OutputFormat::Table => output::line(&format!(
            "Member {id} ({address}) is a learner and has caught up; `flott cluster members promote {id}` gives it a vote"
        )),
    }
    Ok(())
}

pub(super) async fn promote(arguments: &MemberArgs) -> Result<(), Error> {
    let id = arguments.id;
    let changed = client(&arguments.cluster)?.promote_member(id).await?;
    print(arguments.cluster.output, id, changed, "has a vote");
    Ok(())
}

pub(super) async fn remove(arguments: &MemberArgs) -> Result<(), Error> {
    let id = arguments.id;
    let changed = client(&arguments.cluster)?.remove_member(id).await?;
    print(arguments.cluster.output, id, changed, "is removed for good");
    Ok(())
}

pub(super) async fn replace(arguments: &ReplaceArgs) -> Result<(), Error> {
    let client = client(&arguments.cluster)?;
    let (old, address) = (arguments.id, &arguments.address);
    check_replaceable(&client.status().await?, old, address)?;
    let new = client.add_member(address).await?.id;
    catch_up(&client, new, arguments.catch_up_timeout).await?;
    output::note(&format!(
        "member {new} has caught up; giving it the vote of member {old}"
    ));
    let changed = client.replace_member(old, new).await?;
    let what = format!("has the place of member {old}");
    print(arguments.cluster.output, new, changed, &what);
    Ok(())
}

/// A wrong id is noticed before a learner is added for nothing. The leader checks all else.
fn check_replaceable(
    status: &wire::ClusterStatusResponse,
    old: u64,
    address: &str,
) -> Result<(), Error> {
    let known = status.members.iter().any(|member| member.id == old);
    let is_done = || {
        let by_address = |member: &&wire::Member| member.address == address;
        let new = status.members.iter().find(by_address);
        new.is_some_and(|new| new.voter)
    };
    if known || is_done() {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "there is no member {old}; `flott cluster members list` shows all"
    )))
}

/// Waits until the leader says that the member has caught up.
async fn catch_up(
    client: &Client,
    id: u64,
    patience: Duration,
) -> Result<wire::MemberProgressResponse, Error> {
    let clock: SharedClock = SystemClock::shared();
    let begun = clock.monotonic();
    let mut told = begun;
    let watched = output::is_watched();
    loop {
        let progress = client.member_progress(id).await?;
        let now = clock.monotonic();
        if progress.caught_up {
            if watched {
                output::live("");
            }
            return Ok(progress);
        }
        let text = describe(id, &progress);
        if now.saturating_sub(begun) > patience {
            return Err(Error::Refused(format!(
                "{text}, after {} s; it stays a learner: repeat the command, or remove it with `flott cluster members \
                 remove {id}`",
                patience.as_secs()
            )));
        }
        if watched {
            output::live(&text);
        } else if now.saturating_sub(told) >= TELL_EVERY {
            output::note(&text);
            told = now;
        }
        clock.sleep(LOOK_EVERY).await;
    }
}

fn describe(id: u64, progress: &wire::MemberProgressResponse) -> String {
    let silent = match progress.silent_ms {
        None => " and has not answered yet",
        Some(silent) if silent > 2000 => " and does not answer at present",
        Some(_) => "",
    };
    format!(
        "member {id} ({}) has {} of {} log entries{silent}",
        progress.address, progress.matched_index, progress.leader_last_log_index
    )
}

fn lag(progress: &wire::MemberProgressResponse) -> u64 {
    progress
        .leader_last_log_index
        .saturating_sub(progress.matched_index)
}

fn print(format: OutputFormat, id: u64, changed: wire::MembershipResponse, what: &str) {
    let change = MembershipChange::of(id, changed);
    if format == OutputFormat::Json {
        return output::json(&change);
    }
    let already = if change.changed { "" } else { " (as before)" };
    let voters: Vec<String> = change.voters.iter().map(u64::to_string).collect();
    output::line(&format!(
        "Member {id} {what}{already}; voters: {}",
        voters.join(", ")
    ));
    if change.tolerated_failures == 0 && change.voters.len() > 1 {
        output::note("warning: the group stops with the next voter that fails; add another member");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_of_nobody_is_refused_and_one_that_is_done_is_not() {
        let member = |id, address: &str, voter| wire::Member {
            id,
            address: address.to_owned(),
            voter,
            ..Default::default()
        };
        let status = wire::ClusterStatusResponse {
            members: vec![
                member(1, "h1:1", true),
                member(4, "h4:1", true),
                member(5, "h5:1", false),
            ],
            ..Default::default()
        };
        let table = [
            (1, "h9:1", true),
            (3, "h4:1", true),
            (3, "h5:1", false),
            (3, "h9:1", false),
        ];
        for (old, address, allowed) in table {
            let checked = check_replaceable(&status, old, address);
            assert_eq!(checked.is_ok(), allowed, "{old} by {address}");
        }
    }
}
