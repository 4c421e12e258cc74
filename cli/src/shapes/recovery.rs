//! What backup, restore and recover print.

use std::path::PathBuf;

use flott_coordinator::recovery::{Founded, JobOutlook, Manifest, Survivor};
use flott_proto::ids::NodeId;
use serde::Serialize;

use super::time;

/// What `cluster backup` and `cluster verify-backup` print.
#[derive(Debug, Serialize)]
pub(crate) struct Backup {
    pub(crate) file: String,
    pub(crate) cluster_id: String,
    /// The clusters that it went on from, oldest first.
    pub(crate) predecessors: Vec<String>,
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) epoch: u64,
    /// Of the last entry that it has.
    pub(crate) log_time: Option<String>,
    pub(crate) feature_level: u32,
    pub(crate) revision: u64,
    pub(crate) records: u64,
    pub(crate) jobs: usize,
    pub(crate) jobs_active: usize,
    pub(crate) keys: usize,
    pub(crate) members: Vec<MemberRef>,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct MemberRef {
    pub(crate) id: u64,
    pub(crate) address: String,
}

fn members<'a>(members: impl IntoIterator<Item = (&'a NodeId, &'a String)>) -> Vec<MemberRef> {
    let one = |(id, address): (&NodeId, &String)| MemberRef {
        id: id.0,
        address: address.clone(),
    };
    members.into_iter().map(one).collect()
}

impl Backup {
    pub(crate) fn of(file: &str, manifest: &Manifest) -> Self {
        Self {
            file: file.to_owned(),
            cluster_id: manifest.cluster.to_string(),
            predecessors: manifest.predecessors.clone(),
            term: manifest.position.term,
            index: manifest.position.index,
            epoch: manifest.epoch,
            log_time: time(manifest.log_time_ms),
            feature_level: manifest.feature_level,
            revision: manifest.revision,
            records: manifest.records,
            jobs: manifest.jobs,
            jobs_active: manifest.jobs_active,
            keys: manifest.keys,
            members: members(manifest.members.iter().map(|(id, address)| (id, address))),
            bytes: manifest.bytes,
            sha256: manifest.sha256.clone(),
        }
    }
}

/// What `cluster recover` prints without `--yes`.
#[derive(Debug, Serialize)]
pub(crate) struct SurvivorList {
    pub(crate) survivors: Vec<SurvivorShape>,
}

#[derive(Debug, Serialize)]
pub(crate) struct SurvivorShape {
    pub(crate) dir: PathBuf,
    pub(crate) id: u64,
    pub(crate) incarnation: String,
    pub(crate) cluster_id: String,
    /// Where its log ends: what `--survivor ID=TERM/INDEX` wants.
    pub(crate) last_term: u64,
    pub(crate) last_index: u64,
    pub(crate) committed_index: Option<u64>,
    pub(crate) snapshot_index: Option<u64>,
    pub(crate) voted_in_term: u64,
    pub(crate) voters: Vec<MemberRef>,
    pub(crate) learners: Vec<MemberRef>,
    /// Why it is of no use to a group any more.
    pub(crate) retired: Option<String>,
    /// It is what `--yes` would take.
    pub(crate) most_advanced: bool,
}

impl SurvivorList {
    pub(crate) fn of(found: &[Survivor], chosen: Option<NodeId>) -> Self {
        let one = |survivor: &Survivor| SurvivorShape {
            dir: survivor.dir.clone(),
            id: survivor.node.0,
            incarnation: survivor.incarnation.clone(),
            cluster_id: survivor.cluster.clone(),
            last_term: survivor.last.term,
            last_index: survivor.last.index,
            committed_index: survivor.committed,
            snapshot_index: survivor.snapshot,
            voted_in_term: survivor.term,
            voters: members(&survivor.voters),
            learners: members(&survivor.learners),
            retired: survivor.retired.clone(),
            most_advanced: Some(survivor.node) == chosen,
        };
        Self {
            survivors: found.iter().map(one).collect(),
        }
    }
}

/// What `cluster restore` and `cluster recover --yes` print.
#[derive(Debug, Serialize)]
pub(crate) struct FoundedGroup {
    pub(crate) cluster_id: String,
    /// The cluster that it goes on from, and its last log entry that it has.
    pub(crate) predecessor: String,
    pub(crate) taken_over_term: u64,
    pub(crate) taken_over_index: u64,
    pub(crate) first_index: u64,
    pub(crate) member: MemberRef,
    pub(crate) dir: PathBuf,
    /// The former contents of the directory.
    pub(crate) set_aside: Option<PathBuf>,
    /// Those that had not ended.
    pub(crate) jobs: Vec<JobShape>,
}

#[derive(Debug, Serialize)]
pub(crate) struct JobShape {
    pub(crate) id: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) state: String,
    /// What it begins from.
    pub(crate) checkpoint: Option<u64>,
    /// It is newer than what was recorded.
    pub(crate) found_in_storage: bool,
    /// Why it does not go on.
    pub(crate) lost: Option<String>,
}

impl FoundedGroup {
    pub(crate) fn of(founded: &Founded) -> Self {
        let job = |job: &JobOutlook| JobShape {
            id: job.id.to_string(),
            namespace: job.namespace.to_string(),
            name: job.name.clone(),
            state: job.status.to_string(),
            checkpoint: job.checkpoint.map(|id| id.0),
            found_in_storage: job.newer,
            lost: job.lost.clone(),
        };
        Self {
            cluster_id: founded.cluster.to_string(),
            predecessor: founded.predecessor.to_string(),
            taken_over_term: founded.taken_over.term,
            taken_over_index: founded.taken_over.index,
            first_index: founded.first_index,
            member: MemberRef {
                id: founded.node.0,
                address: founded.address.clone(),
            },
            dir: founded.dir.clone(),
            set_aside: founded.aside.clone(),
            jobs: founded.jobs.iter().map(job).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use flott_coordinator::core::JobStatus;
    use flott_coordinator::recovery::Position;
    use flott_proto::ids::CheckpointId;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_backup_has_the_promised_shape() {
        let manifest = Manifest {
            cluster: "c".parse().unwrap(),
            predecessors: vec!["b".to_owned()],
            position: Position { term: 3, index: 9 },
            epoch: 4,
            log_time_ms: 1_000_000_000_000,
            feature_level: 1,
            revision: 5,
            records: 6,
            jobs: 2,
            jobs_active: 1,
            keys: 7,
            members: vec![(NodeId(1), "h:1".to_owned())],
            bytes: 100,
            sha256: "ab".to_owned(),
        };
        let expected = json!({
            "file": "f", "cluster_id": "c", "predecessors": ["b"], "term": 3, "index": 9, "epoch": 4,
            "log_time": time(1_000_000_000_000), "feature_level": 1, "revision": 5, "records": 6, "jobs": 2,
            "jobs_active": 1, "keys": 7, "members": [{"id": 1, "address": "h:1"}], "bytes": 100, "sha256": "ab",
        });
        assert_eq!(
            serde_json::to_value(Backup::of("f", &manifest)).unwrap(),
            expected
        );
    }

    #[test]
    fn a_founded_group_has_the_promised_shape() {
        let id: flott_proto::ids::JobId = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let founded = Founded {
            cluster: "d".parse().unwrap(),
            predecessor: "c".parse().unwrap(),
            taken_over: Position { term: 3, index: 9 },
            node: NodeId(1),
            address: "h:1".to_owned(),
            dir: "/d".into(),
            aside: None,
            first_index: 1 << 32,
            jobs: vec![JobOutlook {
                id: id.clone(),
                namespace: "default".parse().unwrap(),
                name: "n".to_owned(),
                status: JobStatus::Restarting,
                checkpoint: Some(CheckpointId(7)),
                newer: true,
                lost: None,
            }],
        };
        let expected = json!({
            "cluster_id": "d", "predecessor": "c", "taken_over_term": 3, "taken_over_index": 9,
            "first_index": 4_294_967_296_u64, "member": {"id": 1, "address": "h:1"}, "dir": "/d", "set_aside": null,
            "jobs": [{"id": id.to_string(), "namespace": "default", "name": "n", "state": "RESTARTING", "checkpoint": 7,
                      "found_in_storage": true, "lost": null}],
        });
        assert_eq!(
            serde_json::to_value(FoundedGroup::of(&founded)).unwrap(),
            expected
        );
    }
}
