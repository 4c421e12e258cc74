//! `flott cluster …`: making, seeing and changing the JobManager group.
//!
//! - [`status`]: who leads and how everybody is. [`members`]: who belongs to it. [`debug_bundle`]: one file for whoever
//!   is to find out what is wrong.
//! - [`backup`]: making and checking backups. [`recovery`]: restoring one, and going on without a quorum.
//! - Here: init, transfer-leader, upgrade, which are one call each.
//!
//! The servers decide what is safe and refuse the rest; here is only the order of the steps.

mod backup;
mod debug_bundle;
mod members;
mod recovery;
mod status;

use super::{connect, overrides};
use crate::args::{
    ClusterArgs, ClusterCommand, MembersCommand, OutputFormat, TransferLeaderArgs, UpgradeArgs,
};
use crate::client::Client;
use crate::shapes::{ClusterRef, Transferred, Upgraded};
use crate::{Error, output};

pub(crate) async fn run(command: &ClusterCommand) -> Result<(), Error> {
    match command {
        ClusterCommand::Init(arguments) => init(arguments).await,
        ClusterCommand::Status(arguments) => status::status(arguments).await,
        ClusterCommand::Members(MembersCommand::List(arguments)) => status::list(arguments).await,
        ClusterCommand::Members(MembersCommand::Add(arguments)) => members::add(arguments).await,
        ClusterCommand::Members(MembersCommand::Promote(arguments)) => {
            members::promote(arguments).await
        }
        ClusterCommand::Members(MembersCommand::Remove(arguments)) => {
            members::remove(arguments).await
        }
        ClusterCommand::Members(MembersCommand::Replace(arguments)) => {
            members::replace(arguments).await
        }
        ClusterCommand::TransferLeader(arguments) => transfer_leader(arguments).await,
        ClusterCommand::Upgrade(arguments) => upgrade(arguments).await,
        ClusterCommand::Backup(arguments) => backup::backup(arguments).await,
        ClusterCommand::VerifyBackup(arguments) => backup::verify(arguments).await,
        ClusterCommand::Restore(arguments) => recovery::restore(arguments).await,
        ClusterCommand::Recover(arguments) => recovery::recover(arguments).await,
        ClusterCommand::DebugBundle(arguments) => debug_bundle::run(arguments).await,
    }
}

/// A client, after a look at the `-D` flags, which have no effect here and may still be malformed.
fn client(arguments: &ClusterArgs) -> Result<Client, Error> {
    overrides(&arguments.overrides)?;
    connect(arguments)
}

/// Makes a cluster of the JobManagers that `-m` names.
async fn init(arguments: &ClusterArgs) -> Result<(), Error> {
    let client = client(arguments)?;
    let cluster_id = client.init(arguments.jobmanager.clone()).await?;
    match arguments.output {
        OutputFormat::Json => output::json(&ClusterRef { cluster_id }),
        OutputFormat::Table => output::line(&format!(
            "Cluster {cluster_id} made of {}",
            arguments.jobmanager.join(", ")
        )),
    }
    Ok(())
}

async fn transfer_leader(arguments: &TransferLeaderArgs) -> Result<(), Error> {
    let client = client(&arguments.cluster)?;
    let transferred = Transferred::from(client.transfer_leader(arguments.id).await?);
    let Transferred {
        from,
        to,
        took_ms,
        epoch,
    } = transferred;
    match arguments.cluster.output {
        OutputFormat::Json => output::json(&transferred),
        OutputFormat::Table if from == to => {
            output::line(&format!("Member {to} leads already (epoch {epoch})"));
        }
        OutputFormat::Table => output::line(&format!(
            "Member {to} is in office (epoch {epoch}), {took_ms:.1} ms after member {from} was told to hand over"
        )),
    }
    Ok(())
}

async fn upgrade(arguments: &UpgradeArgs) -> Result<(), Error> {
    let raised = client(&arguments.cluster)?.upgrade(arguments.to).await?;
    let (before, after) = (raised.before, raised.after);
    match arguments.cluster.output {
        OutputFormat::Json => output::json(&Upgraded { before, after }),
        OutputFormat::Table if before == after => output::line(&format!(
            "The group is at feature level {after} already{}",
            match arguments.to {
                Some(_) => "",
                None => ", the highest that all members support",
            }
        )),
        OutputFormat::Table => output::line(&format!("Feature level {before} raised to {after}")),
    }
    Ok(())
}
