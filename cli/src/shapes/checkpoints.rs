//! The files of checkpoints, as `flott checkpoints verify` and `gc` print them.

use flott_proto::wire;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(crate) struct Verified {
    pub(crate) checkpoints: u64,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// At most 10,000.
    pub(crate) damaged: Vec<DamagedFile>,
}

#[derive(Debug, Serialize)]
pub(crate) struct DamagedFile {
    pub(crate) path: String,
    pub(crate) fault: String,
    /// Who needs it.
    pub(crate) checkpoints: Vec<u64>,
}

impl From<wire::VerifyCheckpointsResponse> for Verified {
    fn from(verified: wire::VerifyCheckpointsResponse) -> Self {
        let damaged = |file: wire::DamagedFile| DamagedFile {
            path: file.path,
            fault: file.fault,
            checkpoints: file.checkpoint_ids,
        };
        Self {
            checkpoints: verified.checkpoints,
            files: verified.files,
            bytes: verified.bytes,
            damaged: verified.damaged.into_iter().map(damaged).collect(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Orphans {
    /// Whether those that are named are gone now.
    pub(crate) deleted: bool,
    /// Of all that were found; at most 10,000 are named.
    pub(crate) count: u64,
    pub(crate) bytes: u64,
    pub(crate) orphans: Vec<Orphan>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Orphan {
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) reason: String,
}

impl Orphans {
    pub(crate) fn new(found: wire::CollectOrphansResponse, deleted: bool) -> Self {
        let orphan = |orphan: wire::Orphan| Orphan {
            path: orphan.path,
            bytes: orphan.bytes,
            reason: orphan.reason,
        };
        Self {
            deleted,
            count: found.count,
            bytes: found.bytes,
            orphans: found.orphans.into_iter().map(orphan).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn files_have_the_promised_shape() {
        let verified = wire::VerifyCheckpointsResponse {
            checkpoints: 3,
            files: 7,
            bytes: 900,
            damaged: vec![wire::DamagedFile {
                path: "c/default/j/shared/1-1-v-0/00000001".into(),
                fault: "it is missing".into(),
                checkpoint_ids: vec![4, 5],
            }],
            damaged_count: 1,
        };
        assert_eq!(
            serde_json::to_value(Verified::from(verified)).unwrap(),
            json!({
                "checkpoints": 3, "files": 7, "bytes": 900,
                "damaged": [{"path": "c/default/j/shared/1-1-v-0/00000001", "fault": "it is missing", "checkpoints": [4, 5]}],
            })
        );
        let found = wire::CollectOrphansResponse {
            orphans: vec![wire::Orphan {
                path: "p".into(),
                bytes: 5,
                reason: "attempt 1 is over".into(),
            }],
            count: 1,
            bytes: 5,
        };
        assert_eq!(
            serde_json::to_value(Orphans::new(found, false)).unwrap(),
            json!({
                "deleted": false, "count": 1, "bytes": 5,
                "orphans": [{"path": "p", "bytes": 5, "reason": "attempt 1 is over"}],
            })
        );
    }
}
