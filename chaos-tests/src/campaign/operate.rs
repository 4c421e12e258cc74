//! What an operator does while everything breaks: each by the command line, as in the manual.
//!
//! An operation that fails or is given up may have taken effect all the same, so it is *indeterminate*. After it the group
//! is asked who belongs to it.

use std::time::Duration;

use anyhow::Context;
use flott_proto::wire;
use serde_json::Value;

use super::fault::{Kind, Step};
use super::strike::{Outcome, Site};
use crate::target::Node;
use crate::target::client::Client;

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
            Kind::Restart => restart(site, &site.local.jobmanagers()).await,
            Kind::Upgrade => restart(site, &nodes).await,
            Kind::Replace => {
                // Whoever damages a member waits for the end of it; it waits for nobody.
                let _alone = site.replacing.try_lock();
                replace(site, nodes.first().copied()).await
            }
            _ => ask(step, &site.client, site.job.as_deref()).await,
        }
    };
    if step.kind == Kind::Replace {
        // Cut short it would leave a process that nobody knows of.
        return Ok(became(operation.await, nodes.clone(), led));
    }
    let outcome = within(lasts, operation, nodes.clone(), led).await;
    let restarts = matches!(step.kind, Kind::Restart | Kind::Upgrade);
    if restarts && !matches!(outcome, Outcome::Installed { .. }) {
        start_all(site)?;
    }
    Ok(outcome)
}

/// An operation that takes nothing but the command line.
pub(super) async fn ask(step: &Step, client: &Client, job: Option<&str>) -> anyhow::Result<()> {
    let job = job.context("there is no sequence job");
    match step.kind {
        Kind::Transfer => run(client, &["cluster", "transfer-leader"]).await,
        Kind::Rescale => run(client, &["rescale", job?, "-p", &step.amount.to_string()]).await,
        Kind::Savepoint => run(client, &["savepoint", job?]).await,
        other => anyhow::bail!("{other} is no operation"),
    }
}

/// What becomes of an operation that is given up after that time.
pub(super) async fn within(
    lasts: Duration,
    operation: impl Future<Output = anyhow::Result<()>>,
    nodes: Vec<Node>,
    led: bool,
) -> Outcome {
    match tokio::time::timeout(lasts, operation).await {
        Ok(ended) => became(ended, nodes, led),
        Err(_) => Outcome::Indeterminate(format!("given up after {} s", lasts.as_secs())),
    }
}

fn became(ended: anyhow::Result<()>, nodes: Vec<Node>, led: bool) -> Outcome {
    match ended {
        Ok(()) => Outcome::installed(nodes, led),
        Err(error) => Outcome::Indeterminate(format!("{error:#}")),
    }
}

async fn run(client: &Client, arguments: &[&str]) -> anyhow::Result<()> {
    client.json(arguments).await.map(drop)
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
        match node {
            Node::Jobmanager(_) => {
                let address = site.local.address(node)?;
                until_well(&site.client, node, &address).await?;
            }
            Node::Taskmanager(_) => until_registered(site, node).await?,
        }
    }
    Ok(())
}

/// Waits until the JobManager that is known by that address has all that was decided.
pub(super) async fn until_well(client: &Client, node: Node, address: &str) -> anyhow::Result<()> {
    let is_well = |status: &Value| {
        let members = status["members"].as_array().into_iter().flatten();
        let mut own = members.filter(|member| member["address"] == address);
        own.any(|member| member["health"] == "ok")
    };
    let status = async || client.json(&["cluster", "status"]).await;
    let what = format!("{node} to be well again");
    client
        .until(&what, CATCH_UP, status, is_well)
        .await
        .map(drop)
}

/// Waits until the leader knows the TaskManager that runs there now.
async fn until_registered(site: &Site, node: Node) -> anyhow::Result<()> {
    let is_there = |statuses: &Vec<wire::ClusterStatusResponse>| {
        let mut known = statuses.iter().flat_map(|status| &status.task_managers);
        let pid = site.local.pid(node).map(i32::cast_unsigned);
        pid.is_some_and(|pid| known.any(|taskmanager| taskmanager.pid == pid))
    };
    let statuses = async || Ok(site.client.statuses().await);
    let what = format!("{node} to be registered");
    let until = site.client.until(&what, CATCH_UP, statuses, is_there);
    until.await.map(drop)
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
            &site.client,
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
