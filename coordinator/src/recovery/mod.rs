//! Disaster recovery: what an operator does with the data of a JobManager group that does not run.
//!
//! ```text
//!   backup ──restore──▶ ┐
//!                       ├─▶ which checkpoints are whole? ─▶ a new lineage ─▶ the data directory of a group of one
//!   survivors ─recover─▶┘
//! ```
//!
//! What must stay true: nothing is done while a member of the old group answers, or where anything that survives is ahead of
//! what would be taken; the old group's data is never changed or deleted, only set aside; a job never begins anew that has
//! made results visible.
//!
//! - Here: the two operations, each from its checks to its report. [`checkpoints`]: what of a job's state is whole.
//! - `raft::offline`: the data directories. `core::lineage`: what changes in the state.

mod checkpoints;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flott_proto::ids::{CheckpointId, ClusterId, JobId, Namespace, NodeId};
use flott_proto::wire;
use flott_proto::wire::raft_service_client::RaftServiceClient;
use futures::future::join_all;
use tokio::net::TcpStream;
use tonic::transport::Endpoint;
use uuid::Uuid;

use crate::core::lineage::{Beginning, Origin, Surveyed};
use crate::core::state::ActiveLeader;
use crate::core::{ClusterState, JobStatus};
use crate::raft::RaftError;
use crate::raft::offline::backup;
use crate::raft::offline::founding::{self, Founding, check_address};
use crate::raft::offline::rules::{self, Accounts};
use crate::raft::offline::survivor::Held;
use crate::raft::{blocking, new_member, open_directory};

pub use crate::raft::offline::Position;
pub use crate::raft::offline::backup::Manifest;
pub use crate::raft::offline::survivor::Survivor;

/// For a member of the old group to say that it is there. One that hangs for longer leads nobody.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Where the new group begins, and how.
#[derive(Clone, Debug)]
pub struct NewGroup {
    /// The data directory of its first member.
    pub dir: PathBuf,
    /// Where that member will be reached, host:port.
    pub address: String,
    /// None: a new one.
    pub cluster: Option<ClusterId>,
    /// The id of that member. None: a new one. It may be one of the old group's, since it is another group.
    pub node: Option<NodeId>,
    /// Look which checkpoints are whole, and for newer ones than are recorded. Without, what is recorded is trusted.
    pub survey: bool,
    /// Jobs whose checkpoints are all lost become FAILED. Without, they are a reason to refuse.
    pub give_up_lost_jobs: bool,
    /// Do it although members of the old group answer.
    pub ignore_running: bool,
}

/// A recovery: see [`recover`].
#[derive(Clone, Debug, Default)]
pub struct Survivors {
    /// Data directories that are here.
    pub dirs: Vec<PathBuf>,
    /// Where the logs end of members whose directories are elsewhere.
    pub elsewhere: BTreeMap<NodeId, Position>,
    /// Members of whom nothing is left.
    pub lost: BTreeSet<NodeId>,
}

/// A group that was founded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founded {
    pub cluster: ClusterId,
    /// The cluster that it goes on from, and what of its log it has.
    pub predecessor: ClusterId,
    pub taken_over: Position,
    /// Its first member.
    pub node: NodeId,
    pub address: String,
    pub dir: PathBuf,
    /// Where the former contents of the directory are, if it had any.
    pub aside: Option<PathBuf>,
    /// Its first log index.
    pub first_index: u64,
    /// Those that had not ended.
    pub jobs: Vec<JobOutlook>,
}

/// How a job goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobOutlook {
    pub id: JobId,
    pub namespace: Namespace,
    pub name: String,
    pub status: JobStatus,
    /// What it begins from; none: from the beginning, or from what it was submitted with.
    pub checkpoint: Option<CheckpointId>,
    /// That checkpoint is newer than what the backup or the survivor knew of.
    pub newer: bool,
    /// Why it does not go on, if so.
    pub lost: Option<String>,
}

/// Reads and checks a whole backup. Blocks on the disk.
pub fn verify(path: &Path) -> Result<Manifest, RaftError> {
    backup::read(path).map(|backup| backup.manifest)
}

/// Makes the data directory of a new group from a backup. The directory must be empty or missing.
pub async fn restore(path: &Path, group: NewGroup) -> Result<Founded, RaftError> {
    check_address(&group.address)?;
    refuse_used(&group.dir)?;
    let path = path.to_owned();
    let backup = blocking(move || backup::read(&path)).await?;
    let manifest = backup.manifest;
    let addresses: BTreeSet<String> = manifest
        .members
        .iter()
        .map(|(_, address)| address.clone())
        .collect();
    refuse_running(&addresses, &manifest.cluster, &group).await?;
    let old = Old {
        cluster: manifest.cluster,
        position: manifest.position,
        term: manifest.position.term,
        origin: Origin::Backup,
        state: backup.state,
    };
    found(old, group, true).await
}

/// Opens the directories, which must not be in use; what each has, in the order given.
pub async fn inspect(dirs: Vec<PathBuf>) -> Result<Vec<Survivor>, RaftError> {
    blocking(move || {
        let one = |dir: &PathBuf| {
            let held = Held::open(dir)?;
            let survivor = held.survivor.clone();
            held.close();
            Ok(survivor)
        };
        dirs.iter().map(one).collect()
    })
    .await
}

/// The survivor that is ahead of all that are here; it must not have been removed from its group.
pub fn most_advanced(survivors: &[Survivor]) -> Result<&Survivor, RaftError> {
    let refused = |what: String| Err(RaftError::Refused(what));
    let clusters: BTreeSet<&str> = survivors
        .iter()
        .map(|found| found.cluster.as_str())
        .collect();
    if clusters.len() > 1 {
        return refused(format!(
            "the directories are of different clusters: {clusters:?}"
        ));
    }
    let mut here = BTreeMap::new();
    for survivor in survivors {
        if here.insert(survivor.node.0, survivor.last).is_some() {
            return refused(format!("two directories are of member {}", survivor.node));
        }
    }
    let chosen = rules::most_advanced(&here);
    let chosen = chosen.and_then(|node| survivors.iter().find(|one| one.node.0 == node));
    let Some(chosen) = chosen else {
        return refused("name at least one data directory".to_owned());
    };
    if chosen.cluster.is_empty() || chosen.last == Position::default() {
        return refused(format!(
            "{} is of a JobManager that never belonged to a group; there is nothing to recover",
            chosen.dir.display()
        ));
    }
    if let Some(why) = &chosen.retired {
        return refused(format!(
            "{} cannot be gone on from: {why}",
            chosen.dir.display()
        ));
    }
    Ok(chosen)
}

/// Makes a new group of the most advanced survivor, in its directory, whose contents are set aside. `group.dir` is ignored.
pub async fn recover(survivors: Survivors, mut group: NewGroup) -> Result<Founded, RaftError> {
    check_address(&group.address)?;
    let found = inspect(survivors.dirs.clone()).await?;
    let chosen = most_advanced(&found)?.clone();
    let others: BTreeMap<u64, Position> = found.iter().map(|one| (one.node.0, one.last)).collect();
    let accounts = Accounts {
        here: others,
        elsewhere: survivors
            .elsewhere
            .iter()
            .map(|(node, position)| (node.0, *position))
            .collect(),
        lost: survivors.lost.iter().map(|node| node.0).collect(),
    };
    let terms = found.iter().map(|one| one.term).max().unwrap_or_default();
    let dir = chosen.dir.clone();
    let (state, addresses, term) = blocking(move || {
        let held = Held::open(&dir)?;
        let electorate = held.electorate();
        let checked = rules::check(chosen.node.0, &accounts, &electorate);
        let replayed = checked
            .map_err(RaftError::Refused)
            .and_then(|()| held.replay());
        let term = held.highest_term();
        held.close();
        let addresses: BTreeSet<String> = electorate.addresses.into_values().collect();
        Ok::<_, RaftError>((replayed?, addresses, term))
    })
    .await?;
    let cluster: ClusterId = chosen
        .cluster
        .parse()
        .map_err(|error| RaftError::corrupt(&chosen.dir, format!("marker: {error}")))?;
    refuse_running(&addresses, &cluster, &group).await?;
    group.dir.clone_from(&chosen.dir);
    let elsewhere = survivors.elsewhere.values().map(|position| position.term);
    let old = Old {
        cluster,
        position: chosen.last,
        term: elsewhere.chain([term, terms]).max().unwrap_or_default(),
        origin: Origin::Recovery,
        state,
    };
    found_in(old, group).await
}

/// What is gone on from.
struct Old {
    cluster: ClusterId,
    position: Position,
    term: u64,
    origin: Origin,
    state: ClusterState,
}

async fn found_in(old: Old, group: NewGroup) -> Result<Founded, RaftError> {
    found(old, group, false).await
}

async fn found(mut old: Old, group: NewGroup, pristine: bool) -> Result<Founded, RaftError> {
    let cluster = group.cluster.clone().map_or_else(fresh_cluster, Ok)?;
    let known: Vec<&str> = old.state.predecessors().collect();
    if cluster == old.cluster || known.contains(&cluster.as_str()) {
        return Err(RaftError::Refused(format!(
            "the new group cannot have the id {cluster} of the old one: each would take the other's members and \
             TaskManagers for its own"
        )));
    }
    let surveyed = if group.survey {
        checkpoints::survey(&old.cluster, &old.state).await?
    } else {
        BTreeMap::new()
    };
    let lost = lost_jobs(&surveyed);
    if !lost.is_empty() && !group.give_up_lost_jobs {
        return Err(RaftError::Refused(format!(
            "{}; run this where the checkpoints can be read, or say --fail-lost-jobs, and they become FAILED",
            lost.join("; ")
        )));
    }
    let recorded: BTreeMap<JobId, Option<CheckpointId>> = old
        .state
        .active_jobs()
        .map(|job| {
            (
                job.id.clone(),
                job.checkpoints.latest().map(|newest| newest.id),
            )
        })
        .collect();
    let marker = new_member(group.node);
    let beginning = Beginning {
        predecessor: old.cluster.clone(),
        last_index: old.position.index,
        origin: old.origin,
        member: ActiveLeader {
            node: NodeId(marker.node),
            incarnation: marker.incarnation.clone(),
            address: group.address.clone(),
        },
        surveyed: surveyed.clone(),
    };
    let begun = old.state.begin_lineage(beginning);
    let first_index = begun.map_err(|error| RaftError::Refused(error.to_string()))?;
    let outlook = |id: &JobId| {
        let job = old.state.jobs.get(id)?;
        let checkpoint = job.checkpoints.latest().map(|newest| newest.id);
        let lost = match surveyed.get(id) {
            Some(Surveyed::Lost(why)) => Some(why.clone()),
            _ => None,
        };
        Some(JobOutlook {
            id: id.clone(),
            namespace: job.namespace.clone(),
            name: job.graph.name.clone(),
            status: job.status,
            checkpoint,
            newer: checkpoint > recorded.get(id).copied().flatten(),
            lost,
        })
    };
    let jobs: Vec<JobOutlook> = recorded.keys().filter_map(outlook).collect();
    let node = NodeId(marker.node);
    let founding = Founding {
        cluster: cluster.clone(),
        marker,
        address: group.address.clone(),
        state: old.state,
        index: first_index,
        term: old.term,
    };
    let dir = group.dir.clone();
    let held = blocking(move || {
        let held = open_directory(&dir)?;
        // Nobody else has come in since the first look.
        if pristine {
            refuse_used(&dir)?;
        }
        Ok::<_, RaftError>(held)
    })
    .await?;
    let aside = founding::write(&held, founding).await?;
    Ok(Founded {
        cluster,
        predecessor: old.cluster,
        taken_over: old.position,
        node,
        address: group.address,
        dir: group.dir,
        aside,
        first_index,
        jobs,
    })
}

fn fresh_cluster() -> Result<ClusterId, RaftError> {
    let id = Uuid::now_v7().to_string();
    id.parse()
        .map_err(|error: flott_proto::Malformed| RaftError::Configuration(error.to_string()))
}

fn lost_jobs(surveyed: &BTreeMap<JobId, Surveyed>) -> Vec<String> {
    let lost = surveyed.iter().filter_map(|(id, found)| match found {
        Surveyed::Lost(why) => Some(format!("job {id} cannot go on: {why}")),
        Surveyed::Usable(_) => None,
    });
    lost.collect()
}

fn refuse_used(dir: &Path) -> Result<(), RaftError> {
    // The lock may be there: of an earlier try, or this one's.
    let lock = std::ffi::OsStr::new("flott.lock");
    let listed = match std::fs::read_dir(dir) {
        Ok(listed) => listed,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(RaftError::storage("list", dir)(error)),
    };
    for entry in listed {
        let name = entry.map_err(RaftError::storage("list", dir))?.file_name();
        if name != lock && name != "next" {
            return Err(RaftError::Refused(format!(
                "{} is not empty ({} is there); restore into an empty directory",
                dir.display(),
                name.display()
            )));
        }
    }
    Ok(())
}

/// Refuses while a member of the old group answers: it could still lead TaskManagers.
async fn refuse_running(
    addresses: &BTreeSet<String>,
    cluster: &ClusterId,
    group: &NewGroup,
) -> Result<(), RaftError> {
    if group.ignore_running {
        return Ok(());
    }
    let asked = addresses.iter().map(|address| async move {
        let may_run = may_run(address, cluster).await;
        may_run.then(|| address.clone())
    });
    let running: Vec<String> = join_all(asked).await.into_iter().flatten().collect();
    if running.is_empty() {
        return Ok(());
    }
    Err(RaftError::Refused(format!(
        "JobManagers of cluster {cluster} still run at {}, or somebody who does not say who it is: stop them first, since two groups must not run the same jobs \
         (--while-old-group-runs does it all the same)",
        running.join(", ")
    )))
}

/// Whether a member of that cluster may run there. Whoever listens and does not say who it is, is taken for one: it may
/// speak TLS, or hang.
async fn may_run(address: &str, cluster: &ClusterId) -> bool {
    let listens = tokio::time::timeout(ANSWER_WAIT, TcpStream::connect(address)).await;
    if !matches!(listens, Ok(Ok(_))) {
        return false;
    }
    let Ok(endpoint) = Endpoint::from_shared(format!("http://{address}")) else {
        return true;
    };
    let ask = async {
        let channel = endpoint.connect().await.ok()?;
        let mut client = RaftServiceClient::new(channel);
        let answer = client.introduce(wire::RaftIntroduceRequest {}).await;
        Some(answer.ok()?.into_inner().cluster_id)
    };
    let answer = tokio::time::timeout(ANSWER_WAIT, ask).await.ok().flatten();
    answer.is_none_or(|answer| answer == cluster.as_str())
}
