//! What an operator does while everything breaks: each by the command line, as in the manual.
//!
//! An operation that fails or is given up may have taken effect all the same, so it is *indeterminate*. After it the group
//! is asked who belongs to it.

use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use super::fault::{Kind, Step};
use super::strike::{Outcome, Site};
use crate::target::Node;

/// For a restarted JobManager to have all that was decided.
const CATCH_UP: Duration = Duration::from_secs(20);

/// One operation. An error is one of the harness.
pub async fn carry_out(
    step: &Step,
    site: &Site,
    nodes: Vec<Node>,
    leader: Option<Node>,
    lasts: Duration,
) -> anyhow::Result<Outcome> {
    let nodes = match step.kind {
        Kind::Upgrade => site.local.install_for_next(step.amount as usize),
        _ => nodes,
    };
    if step.kind == Kind::Upgrade && nodes.is_empty() {
        return Ok(Outcome::skipped("there is no other build: --upgrade-to"));
    }
    let led = leader.is_some_and(|leader| nodes.contains(&leader));
    let operation = async {
        match step.kind {
            Kind::Transfer => run(site, &["cluster", "transfer-leader"]).await,
            Kind::Restart => restart(site, &site.local.jobmanagers()).await,
            Kind::Upgrade => restart(site, &nodes).await,
            Kind::Replace => {
                // Whoever damages a member waits for the end of it; it waits for nobody.
                let _alone = site.replacing.try_lock();
                replace(site, nodes.first().copied()).await
            }
            Kind::Rescale => {
                let job = site.job.as_deref().context("there is no sequence job")?;
                run(site, &["rescale", job, "-p", &step.amount.to_string()]).await
            }
            Kind::Savepoint => {
                let job = site.job.as_deref().context("there is no sequence job")?;
                run(site, &["savepoint", job]).await
            }
            other => anyhow::bail!("{other} is no operation"),
        }
    };
    let ended = match step.kind {
        // Cut short it would leave a process that nobody knows of.
        Kind::Replace => Ok(operation.await),
        _ => tokio::time::timeout(lasts, operation).await,
    };
    let done = Outcome::installed(nodes, led);
    Ok(match ended {
        Ok(Ok(())) => done,
        Ok(Err(error)) => Outcome::Indeterminate(format!("{error:#}")),
        Err(_) => {
            if matches!(step.kind, Kind::Restart | Kind::Upgrade) {
                start_all(site)?;
            }
            Outcome::Indeterminate(format!("given up after {} s", lasts.as_secs()))
        }
    })
}

async fn run(site: &Site, arguments: &[&str]) -> anyhow::Result<()> {
    site.client.json(arguments).await.map(drop)
}

/// Each in turn, once the one before has caught up, or has offered its slots.
async fn restart(site: &Site, nodes: &[Node]) -> anyhow::Result<()> {
    for node in nodes.iter().copied() {
        if !site.local.end(node).await? {
            continue;
        }
        if site.local.pid(node).is_none() {
            site.local.start_process(node)?;
        }
        let status = async || site.client.json(&["cluster", "status"]).await;
        let what = format!("{node} to be well again");
        let is_well = |status: &Value| is_well(site, node, status);
        site.client.until(&what, CATCH_UP, status, is_well).await?;
    }
    Ok(())
}

fn is_well(site: &Site, node: Node, status: &Value) -> bool {
    let any = |list: &str, is_it: &dyn Fn(&Value) -> bool| {
        let mut members = status[list].as_array().into_iter().flatten();
        members.any(is_it)
    };
    match node {
        Node::Jobmanager(_) => site.local.address(node).is_ok_and(|address| {
            any("members", &|member| {
                member["address"] == address.as_str() && member["health"] == "ok"
            })
        }),
        Node::Taskmanager(_) => site
            .local
            .pid(node)
            .is_some_and(|pid| any("taskmanagers", &|taskmanager| taskmanager["pid"] == pid)),
    }
}

fn start_all(site: &Site) -> anyhow::Result<()> {
    for node in site.local.nodes() {
        if site.local.pid(node).is_none() {
            site.local.start_process(node)?;
        }
    }
    Ok(())
}

/// Puts a new JobManager in the place of `old`, which ends by itself, or is killed.
pub(super) async fn replace(site: &Site, old: Option<Node>) -> anyhow::Result<()> {
    let local = &site.local;
    let old = old.context("there is nobody to replace")?;
    let new = local.add_jobmanager().await?;
    // Until the group says otherwise it belongs to nobody, and nobody asks it.
    local.retire(new);
    let asked = async || {
        let (address, out) = (local.address(new)?, local.address(old)?);
        let status = async || anyhow::Ok(crate::cluster::status::status_at(&address).await);
        let answers = |status: &Option<_>| status.is_some();
        site.client
            .until("the new JobManager to answer", CATCH_UP, status, answers)
            .await?;
        let id = member_id(&members(site).await?, &out).context("the old one is no member")?;
        // From here on it may end by itself.
        local.retire(old);
        run(
            site,
            &["cluster", "members", "replace", &id.to_string(), &address],
        )
        .await
    };
    let replaced = asked().await;
    // Whatever was said: who belongs to the group now?
    let listed = async || members(site).await;
    let listed = site
        .client
        .until("the list of members", CATCH_UP, listed, |_| true)
        .await?;
    let voter = |node: Node| {
        let address = local.address(node).unwrap_or_default();
        member_id(&listed, &address).is_some()
    };
    if voter(new) {
        local.adopt(new);
    } else {
        local.kill_if_running(new).await?;
    }
    if voter(old) {
        local.adopt(old);
    } else {
        local.kill_if_running(old).await?;
    }
    site.client.set_addresses(local.addresses());
    replaced
}

async fn members(site: &Site) -> anyhow::Result<Value> {
    site.client.json(&["cluster", "members", "list"]).await
}

fn member_id(listed: &Value, address: &str) -> Option<u64> {
    let mut members = listed["members"].as_array()?.iter();
    members.find(|member| member["address"] == address)?["id"].as_u64()
}
