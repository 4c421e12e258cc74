//! What the verbs of the JobManager group print.

use flott_proto::wire;
use serde::Serialize;

/// What `cluster status` prints.
#[derive(Debug, Serialize)]
pub(crate) struct ClusterStatus {
    pub(crate) cluster_id: String,
    /// None while nobody leads.
    pub(crate) leader: Option<u64>,
    pub(crate) epoch: u64,
    pub(crate) term: u64,
    /// 0 before there is a cluster.
    pub(crate) feature_level: u32,
    /// How many more voters may fail before the group stops.
    pub(crate) tolerated_failures: u32,
    /// The change of the group that is under way.
    pub(crate) pending_change: Option<String>,
    pub(crate) members: Vec<Member>,
    pub(crate) taskmanagers: Vec<TaskManager>,
}

/// A JobManager. What only itself can say is none if it is unreachable.
#[derive(Debug, Serialize)]
pub(crate) struct Member {
    pub(crate) id: u64,
    pub(crate) address: String,
    pub(crate) role: String,
    pub(crate) voter: bool,
    pub(crate) health: String,
    pub(crate) last_log_index: u64,
    pub(crate) applied_index: u64,
    /// Entries that it lacks of the leader's log.
    pub(crate) lag: Option<u64>,
    pub(crate) incarnation: String,
    pub(crate) snapshot_index: Option<u64>,
    pub(crate) snapshot_age_ms: Option<u64>,
    pub(crate) disk_free_bytes: Option<u64>,
    pub(crate) disk_total_bytes: Option<u64>,
    pub(crate) feature_level_min: Option<u32>,
    pub(crate) feature_level_max: Option<u32>,
    pub(crate) version: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct TaskManager {
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) slots: u32,
    pub(crate) slots_free: u32,
}

/// What `cluster members list` prints.
#[derive(Debug, Serialize)]
pub(crate) struct MemberList {
    pub(crate) feature_level: u32,
    pub(crate) tolerated_failures: u32,
    pub(crate) pending_change: Option<String>,
    pub(crate) members: Vec<Member>,
}

/// What `cluster members add` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Added {
    pub(crate) id: u64,
    pub(crate) address: String,
    pub(crate) voter: bool,
    /// Entries that it lacked when it counted as caught up.
    pub(crate) lag: u64,
}

/// What `cluster members promote`, `remove` and `replace` print.
#[derive(Debug, Serialize)]
pub(crate) struct MembershipChange {
    /// The member that was promoted or removed, or the new one.
    pub(crate) id: u64,
    /// False: it was so already.
    pub(crate) changed: bool,
    pub(crate) voters: Vec<u64>,
    pub(crate) learners: Vec<u64>,
    pub(crate) tolerated_failures: u32,
}

impl MembershipChange {
    pub(crate) fn of(id: u64, change: wire::MembershipResponse) -> Self {
        Self {
            id,
            changed: change.changed,
            voters: change.voters,
            learners: change.learners,
            tolerated_failures: change.tolerated_failures,
        }
    }
}

/// What `cluster transfer-leader` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Transferred {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Until the new leader was in office.
    pub(crate) took_ms: f64,
    pub(crate) epoch: u64,
}

impl From<wire::TransferLeaderResponse> for Transferred {
    fn from(transfer: wire::TransferLeaderResponse) -> Self {
        Self {
            from: transfer.from,
            to: transfer.to,
            took_ms: transfer.took_us as f64 / 1000.0,
            epoch: transfer.epoch,
        }
    }
}

/// What `cluster upgrade` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Upgraded {
    pub(crate) before: u32,
    pub(crate) after: u32,
}

impl From<wire::ClusterStatusResponse> for ClusterStatus {
    fn from(status: wire::ClusterStatusResponse) -> Self {
        let taskmanager = |tm: wire::TaskManagerInfo| TaskManager {
            id: tm.id,
            address: tm.address,
            slots: tm.slots,
            slots_free: tm.slots_free,
        };
        Self {
            cluster_id: status.cluster_id,
            leader: (status.leader != 0).then_some(status.leader),
            epoch: status.epoch,
            term: status.term,
            feature_level: status.feature_level,
            tolerated_failures: status.tolerated_failures,
            pending_change: Some(status.pending_change).filter(|change| !change.is_empty()),
            members: status.members.into_iter().map(Member::from).collect(),
            taskmanagers: status.task_managers.into_iter().map(taskmanager).collect(),
        }
    }
}

impl From<wire::Member> for Member {
    fn from(member: wire::Member) -> Self {
        // A binary always has a version, so an empty one means that the member did not answer.
        let answered = !member.version.is_empty();
        let known_disk = answered && member.disk_total_bytes > 0;
        Self {
            id: member.id,
            address: member.address,
            role: member.role,
            voter: member.voter,
            health: member.health,
            last_log_index: member.last_log_index,
            applied_index: member.applied_index,
            lag: member.lag,
            incarnation: member.incarnation,
            snapshot_index: (member.snapshot_index > 0).then_some(member.snapshot_index),
            snapshot_age_ms: member.snapshot_age_ms,
            disk_free_bytes: known_disk.then_some(member.disk_free_bytes),
            disk_total_bytes: known_disk.then_some(member.disk_total_bytes),
            feature_level_min: answered.then_some(member.feature_level_min),
            feature_level_max: answered.then_some(member.feature_level_max),
            version: answered.then_some(member.version),
        }
    }
}

impl From<ClusterStatus> for MemberList {
    fn from(status: ClusterStatus) -> Self {
        Self {
            feature_level: status.feature_level,
            tolerated_failures: status.tolerated_failures,
            pending_change: status.pending_change,
            members: status.members,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cluster_status_has_the_promised_shape() {
        let leader = wire::Member {
            id: 2,
            address: "h:1".into(),
            role: "leader".into(),
            last_log_index: 9,
            applied_index: 8,
            voter: true,
            lag: Some(0),
            health: "ok".into(),
            incarnation: "i".into(),
            snapshot_index: 5,
            snapshot_age_ms: Some(1500),
            disk_free_bytes: 10,
            disk_total_bytes: 20,
            feature_level_min: 1,
            feature_level_max: 2,
            version: "0.1.0".into(),
        };
        let dead = wire::Member {
            id: 3,
            address: "h:3".into(),
            role: "unreachable".into(),
            health: "unreachable".into(),
            voter: true,
            ..Default::default()
        };
        let status = wire::ClusterStatusResponse {
            cluster_id: "c1".into(),
            leader: 2,
            epoch: 5,
            term: 3,
            members: vec![leader, dead],
            task_managers: vec![wire::TaskManagerInfo {
                id: "tm-1".into(),
                address: "h:2".into(),
                slots: 2,
                slots_free: 1,
                pid: 7,
            }],
            answered_by: 2,
            leader_address: "h:1".into(),
            feature_level: 1,
            ..Default::default()
        };
        let expected = json!({
            "cluster_id": "c1", "leader": 2, "epoch": 5, "term": 3,
            "feature_level": 1, "tolerated_failures": 0, "pending_change": null,
            "members": [
                {"id": 2, "address": "h:1", "role": "leader", "voter": true, "health": "ok",
                 "last_log_index": 9, "applied_index": 8, "lag": 0, "incarnation": "i",
                 "snapshot_index": 5, "snapshot_age_ms": 1500, "disk_free_bytes": 10, "disk_total_bytes": 20,
                 "feature_level_min": 1, "feature_level_max": 2, "version": "0.1.0"},
                {"id": 3, "address": "h:3", "role": "unreachable", "voter": true, "health": "unreachable",
                 "last_log_index": 0, "applied_index": 0, "lag": null, "incarnation": "",
                 "snapshot_index": null, "snapshot_age_ms": null, "disk_free_bytes": null, "disk_total_bytes": null,
                 "feature_level_min": null, "feature_level_max": null, "version": null},
            ],
            "taskmanagers": [{"id": "tm-1", "address": "h:2", "slots": 2, "slots_free": 1}],
        });
        assert_eq!(
            serde_json::to_value(ClusterStatus::from(status)).unwrap(),
            expected
        );
        let nobody = ClusterStatus::from(wire::ClusterStatusResponse::default());
        assert_eq!(serde_json::to_value(nobody).unwrap()["leader"], json!(null));
    }
}
