//! `flott cluster restore` and `recover`: on the disks of JobManagers that do not run.

use std::collections::BTreeSet;
use std::path::PathBuf;

use flott_coordinator::raft::RaftError;
use flott_coordinator::recovery::{self, Founded, NewGroup, Survivor, Survivors};
use flott_proto::ids::{ClusterId, NodeId};

use super::backup;
use crate::args::{NewGroupArgs, OutputFormat, RecoverArgs, RestoreArgs};
use crate::shapes::{FoundedGroup, SurvivorList};
use crate::{Error, output};

pub(super) async fn restore(arguments: &RestoreArgs) -> Result<(), Error> {
    let group = group(&arguments.group, arguments.dir.clone(), &arguments.address)?;
    let fetched = backup::fetch(&arguments.from).await?;
    let founded = recovery::restore(fetched.path(), group).await;
    report(&founded.map_err(refused)?, arguments.group.output);
    Ok(())
}

pub(super) async fn recover(arguments: &RecoverArgs) -> Result<(), Error> {
    let found = recovery::inspect(arguments.dirs.clone()).await;
    let found = found.map_err(refused)?;
    let chosen = recovery::most_advanced(&found);
    if !arguments.yes {
        show(&found, chosen, arguments.group.output);
        return Ok(());
    }
    let chosen = chosen.map_err(refused)?;
    let address = match &arguments.address {
        Some(address) => address.clone(),
        None => address_of(chosen)?,
    };
    let group = group(&arguments.group, chosen.dir.clone(), &address)?;
    let survivors = Survivors {
        dirs: arguments.dirs.clone(),
        elsewhere: arguments
            .survivor
            .iter()
            .map(|one| (NodeId(one.id), one.last))
            .collect(),
        lost: arguments
            .lost
            .iter()
            .map(|id| NodeId(*id))
            .collect::<BTreeSet<_>>(),
    };
    let founded = recovery::recover(survivors, group).await;
    report(&founded.map_err(refused)?, arguments.group.output);
    Ok(())
}

fn refused(error: RaftError) -> Error {
    Error::Refused(Error::process(&error).line())
}

fn group(arguments: &NewGroupArgs, dir: PathBuf, address: &str) -> Result<NewGroup, Error> {
    let cluster = arguments
        .cluster_id
        .as_ref()
        .map(|id| id.parse::<ClusterId>());
    let cluster = cluster
        .transpose()
        .map_err(|error| Error::Usage(format!("--cluster-id: {error}")))?;
    Ok(NewGroup {
        dir,
        address: address.to_owned(),
        cluster,
        node: arguments.node_id.map(NodeId),
        survey: !arguments.trust_recorded_checkpoints,
        give_up_lost_jobs: arguments.fail_lost_jobs,
        ignore_running: arguments.while_old_group_runs,
    })
}

fn address_of(survivor: &Survivor) -> Result<String, Error> {
    let members = survivor.voters.iter().chain(&survivor.learners);
    let own = members
        .filter(|(id, _)| **id == survivor.node)
        .map(|(_, address)| address.clone())
        .next();
    own.ok_or_else(|| {
        Error::Usage(format!(
            "{} does not say where its JobManager is reached; say it with --address HOST:PORT",
            survivor.dir.display()
        ))
    })
}

fn show(found: &[Survivor], chosen: Result<&Survivor, RaftError>, format: OutputFormat) {
    let list = SurvivorList::of(found, chosen.as_ref().ok().map(|chosen| chosen.node));
    if format == OutputFormat::Json {
        return output::json(&list);
    }
    let header = [
        "JOBMANAGER",
        "DIRECTORY",
        "CLUSTER",
        "LAST LOG",
        "COMMITTED",
        "SNAPSHOT",
        "VOTED IN",
        "MEMBERS",
        "",
    ];
    let known = |index: Option<u64>| index.map_or("-".to_owned(), |index| index.to_string());
    let rows = list.survivors.iter().map(|one| {
        let note = match (&one.retired, one.most_advanced) {
            (Some(why), _) => why.clone(),
            (None, true) => "most advanced".to_owned(),
            (None, false) => String::new(),
        };
        let members = one.voters.iter().chain(&one.learners);
        let members: Vec<String> = members
            .map(|member| format!("{} ({})", member.id, member.address))
            .collect();
        vec![
            one.id.to_string(),
            one.dir.display().to_string(),
            one.cluster_id.clone(),
            format!("{}/{}", one.last_term, one.last_index),
            known(one.committed_index),
            known(one.snapshot_index),
            one.voted_in_term.to_string(),
            members.join(", "),
            note,
        ]
    });
    output::table(&header, rows.collect(), "no directories");
    match chosen {
        Ok(chosen) => output::note(&format!(
            "Nothing was changed. --yes makes a new group of member {}, in {}",
            chosen.node,
            chosen.dir.display()
        )),
        Err(error) => output::note(&format!("Nothing was changed. {error}")),
    }
}

fn report(founded: &Founded, format: OutputFormat) {
    if format == OutputFormat::Json {
        return output::json(&FoundedGroup::of(founded));
    }
    output::line(&format!(
        "Cluster {} made in {}: it goes on from cluster {} at log entry {}",
        founded.cluster,
        founded.dir.display(),
        founded.predecessor,
        founded.taken_over
    ));
    if let Some(aside) = &founded.aside {
        output::line(&format!("What was there before is in {}", aside.display()));
    }
    for job in &founded.jobs {
        let from = match (&job.lost, job.checkpoint) {
            (Some(why), _) => format!("fails: {why}"),
            (None, Some(checkpoint)) if job.newer => {
                format!("goes on from checkpoint {checkpoint}, found in its storage")
            }
            (None, Some(checkpoint)) => format!("goes on from checkpoint {checkpoint}"),
            (None, None) => "has no checkpoint and begins as it was submitted".to_owned(),
        };
        output::line(&format!("Job {} ({}) {from}", job.id, job.name));
    }
    output::note(&format!(
        "Start the JobManager that is reached at {} with high-availability.raft.dir={}; others join it with empty \
         directories: flott cluster members add HOST:PORT --promote -m {0}",
        founded.address,
        founded.dir.display()
    ));
}
