//! The verbs about machines of others: `chaos hosts ssh`, `k8s` and `check`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};

use super::command::Say;
use crate::target::remote::ask_all;
use crate::target::remote::inventory::Inventory;
use crate::target::remote::presets::{Pods, Systemd, name_in};

/// `chaos hosts`
#[derive(Clone, Debug, Subcommand)]
pub enum HostsCommand {
    /// Prints a file for machines that are reached by ssh, where systemd runs Flott
    Ssh(SshArgs),
    /// Prints a file for StatefulSets of Kubernetes, whose pods have a container for `chaos` beside Flott
    K8s(PodArgs),
    /// Runs every shell of a file and says what its machine has; nothing is done to it
    Check {
        /// The file
        hosts: PathBuf,
        /// Say, too, whether the TaskManagers see this directory, to which `seq` commits
        #[arg(long, value_name = "DIRECTORY")]
        shares: Option<PathBuf>,
    },
}

/// `chaos hosts ssh`
#[derive(Clone, Debug, Args)]
pub struct SshArgs {
    /// Machines of JobManagers, as the cluster knows them
    #[arg(
        long,
        required = true,
        value_delimiter = ',',
        value_name = "[USER@]HOST,…"
    )]
    jobmanagers: Vec<String>,
    /// Machines of TaskManagers
    #[arg(
        long,
        required = true,
        value_delimiter = ',',
        value_name = "[USER@]HOST,…"
    )]
    taskmanagers: Vec<String>,
    /// The port by which the cluster knows its JobManagers
    #[arg(long, default_value_t = 6123)]
    port: u16,
    /// The unit of a JobManager
    #[arg(long, default_value = "flott-jobmanager")]
    jobmanager_unit: String,
    /// The unit of a TaskManager
    #[arg(long, default_value = "flott-taskmanager")]
    taskmanager_unit: String,
    /// Become root by `sudo -n`
    #[arg(long)]
    sudo: bool,
    /// Slots of each TaskManager
    #[arg(long, default_value_t = 1)]
    slots: u32,
}

/// `chaos hosts k8s`
#[derive(Clone, Debug, Args)]
pub struct PodArgs {
    /// The namespace of Kubernetes
    #[arg(long, default_value = "default")]
    namespace: String,
    /// How many JobManagers there are
    #[arg(long, default_value_t = 3)]
    jobmanagers: u32,
    /// How many TaskManagers there are
    #[arg(long, default_value_t = 2)]
    taskmanagers: u32,
    /// The StatefulSet of the JobManagers
    #[arg(long, default_value = "flott-jobmanager")]
    jobmanager_set: String,
    /// The StatefulSet of the TaskManagers
    #[arg(long, default_value = "flott-taskmanager")]
    taskmanager_set: String,
    /// The address by which the cluster knows the JobManager in {pod}
    #[arg(
        long,
        default_value = "{pod}.flott-jobmanager:6123",
        value_name = "HOST:PORT"
    )]
    known_as: String,
    /// The container beside Flott
    #[arg(long, default_value = "chaos")]
    container: String,
    /// Slots of each TaskManager
    #[arg(long, default_value_t = 1)]
    slots: u32,
}

/// Carries one out; whether every machine has what a run cannot do without.
pub async fn hosts(command: &HostsCommand, say: &Say) -> anyhow::Result<bool> {
    let inventory = match command {
        HostsCommand::Ssh(arguments) => ssh(arguments).await?.inventory(),
        HostsCommand::K8s(arguments) => k8s(arguments).inventory(),
        HostsCommand::Check { hosts, shares } => {
            return check(&Inventory::read(hosts)?, shares.as_deref(), say).await;
        }
    };
    let text = inventory.text()?;
    // What is printed is to be read again.
    Inventory::parse(&text)?;
    say(&text);
    Ok(true)
}

async fn ssh(arguments: &SshArgs) -> anyhow::Result<Systemd> {
    let [jobmanagers, taskmanagers] = [&arguments.jobmanagers, &arguments.taskmanagers];
    Ok(Systemd {
        jobmanagers: with_addresses(jobmanagers).await?,
        taskmanagers: with_addresses(taskmanagers).await?,
        port: arguments.port,
        units: [&arguments.jobmanager_unit, &arguments.taskmanager_unit].map(Clone::clone),
        sudo: arguments.sudo,
        slots: arguments.slots,
    })
}

fn k8s(arguments: &PodArgs) -> Pods {
    Pods {
        namespace: arguments.namespace.clone(),
        sets: [&arguments.jobmanager_set, &arguments.taskmanager_set].map(Clone::clone),
        jobmanagers: arguments.jobmanagers,
        taskmanagers: arguments.taskmanagers,
        known_as: arguments.known_as.clone(),
        container: arguments.container.clone(),
        slots: arguments.slots,
    }
}

/// Logins, with the addresses of their machines as they are seen from here.
async fn with_addresses(logins: &[String]) -> anyhow::Result<Vec<(String, Vec<IpAddr>)>> {
    let mut all = Vec::new();
    for login in logins {
        let name = name_in(login);
        let found = tokio::net::lookup_host((name, 0)).await;
        let found = found.with_context(|| format!("{name} has no address"))?;
        let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
        addresses.sort();
        addresses.dedup();
        ensure!(!addresses.is_empty(), "{name} has no address");
        all.push((login.clone(), addresses));
    }
    Ok(all)
}

/// Runs every shell once.
async fn check(inventory: &Inventory, shares: Option<&Path>, say: &Say) -> anyhow::Result<bool> {
    let all = ask_all(inventory, shares).await;
    let seats = all.iter().map(|(host, machine)| match machine {
        Ok(machine) => machine.seat(host, shares),
        Err(why) => Err(why.clone()),
    });
    let seats: Vec<Result<Vec<IpAddr>, String>> = seats.collect();
    let theirs: Vec<IpAddr> = seats.iter().flatten().flatten().copied().collect();
    for ((host, machine), seat) in all.iter().zip(&seats) {
        let mut text = match machine {
            Ok(machine) => machine.text(host),
            Err(why) => format!("NO ANSWER: {why}"),
        };
        if let (Ok(_), Err(why)) = (machine, seat) {
            text += &format!("\n  UNFIT: {why}");
        }
        if let Ok(machine) = machine
            && machine
                .from
                .parse::<IpAddr>()
                .is_ok_and(|from| theirs.contains(&from))
        {
            text += &format!(
                "\n  its shell comes from {}, a machine of the cluster: cuts between them are skipped",
                machine.from
            );
        }
        say(&format!("{}: {text}", host.node));
    }
    let are_fit = seats.iter().all(Result::is_ok);
    say(match are_fit {
        true => "every machine answers; what one lacks is skipped there",
        false => "a run cannot begin: mend what is UNFIT or gives NO ANSWER",
    });
    Ok(are_fit)
}
