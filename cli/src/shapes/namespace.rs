//! What `flott namespace` prints as JSON.

use flott_proto::wire;
use serde::Serialize;

use super::time;

#[derive(Debug, Serialize)]
pub(crate) struct NamespaceList {
    pub(crate) namespaces: Vec<NamespaceShape>,
}

#[derive(Debug, Serialize)]
pub(crate) struct NamespaceShape {
    pub(crate) name: String,
    /// `ACTIVE` or `DELETING`.
    pub(crate) state: String,
    /// None of `default`, which has always been there.
    pub(crate) created_at: Option<String>,
    pub(crate) quota: Quota,
    pub(crate) used: Used,
}

/// Each is null where there is no limit.
#[derive(Debug, Serialize)]
pub(crate) struct Quota {
    pub(crate) jobs: Option<u64>,
    pub(crate) slots: Option<u64>,
    pub(crate) kv_bytes: Option<u64>,
    pub(crate) checkpoint_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Used {
    pub(crate) jobs: u32,
    pub(crate) slots: u32,
    pub(crate) kv_bytes: u64,
    pub(crate) checkpoint_bytes: u64,
}

/// What `create`, `update` and `delete` print.
#[derive(Debug, Serialize)]
pub(crate) struct NamespaceRef {
    pub(crate) name: String,
    pub(crate) state: String,
}

impl From<Vec<wire::NamespaceInfo>> for NamespaceList {
    fn from(namespaces: Vec<wire::NamespaceInfo>) -> Self {
        Self {
            namespaces: namespaces.into_iter().map(NamespaceShape::from).collect(),
        }
    }
}

impl From<wire::NamespaceInfo> for NamespaceShape {
    fn from(info: wire::NamespaceInfo) -> Self {
        let (quota, used) = (
            info.quota.unwrap_or_default(),
            info.used.unwrap_or_default(),
        );
        let limit = |limit: u64| (limit != 0).then_some(limit);
        Self {
            name: info.name,
            state: info.state,
            created_at: time(info.created_at_ms),
            quota: Quota {
                jobs: limit(quota.jobs.into()),
                slots: limit(quota.slots.into()),
                kv_bytes: limit(quota.kv_bytes),
                checkpoint_bytes: limit(quota.checkpoint_bytes),
            },
            used: Used {
                jobs: used.jobs,
                slots: used.slots,
                kv_bytes: used.kv_bytes,
                checkpoint_bytes: used.checkpoint_bytes,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_namespace_has_the_promised_shape() {
        let info = wire::NamespaceInfo {
            name: "team".into(),
            state: "ACTIVE".into(),
            created_at_ms: 1_000,
            quota: Some(wire::NamespaceQuota {
                jobs: 3,
                checkpoint_bytes: 1 << 30,
                ..Default::default()
            }),
            used: Some(wire::NamespaceQuota {
                jobs: 1,
                slots: 4,
                kv_bytes: 10,
                checkpoint_bytes: 20,
            }),
        };
        let expected = json!({"namespaces": [{
            "name": "team", "state": "ACTIVE", "created_at": "1970-01-01T00:00:01.000Z",
            "quota": {"jobs": 3, "slots": null, "kv_bytes": null, "checkpoint_bytes": 1_073_741_824},
            "used": {"jobs": 1, "slots": 4, "kv_bytes": 10, "checkpoint_bytes": 20},
        }]});
        let list = NamespaceList::from(vec![info]);
        assert_eq!(serde_json::to_value(list).unwrap(), expected);
    }
}
