//! The spaces against a plain map, under random writes, expiry, leader changes and snapshots.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use flott_proto::ids::Namespace;
use flott_proto::wire::kv_compare::{Relation, Target};
use flott_proto::wire::kv_failure::Reason;
use flott_proto::wire::kv_response::Outcome;
use flott_proto::wire::{self, command::Decision, kv_operation, kv_write};
use proptest::prelude::*;

use crate::core::kv::Change;
use crate::core::{ClusterState, Digester, KvChanges, Response};

const NAMESPACE: &str = "default";

fn namespace() -> Namespace {
    NAMESPACE.parse().unwrap()
}

/// A cluster's state with what its watchers were told.
struct Cluster {
    state: ClusterState,
    index: u64,
    now_ms: i64,
    told: Vec<KvChanges>,
}

impl Cluster {
    fn new() -> Self {
        let mut cluster = Self {
            state: ClusterState::default(),
            index: 0,
            now_ms: 1,
            told: Vec::new(),
        };
        cluster.activate();
        cluster
    }

    fn apply(&mut self, decision: Decision) -> Response {
        self.index += 1;
        let command = wire::Command {
            now_ms: self.now_ms,
            epoch: self.state.epoch.0,
            decision: Some(decision),
        };
        let response = self
            .state
            .apply_and_tell(self.index, &command, &mut self.told);
        self.state.check();
        response
    }

    fn activate(&mut self) {
        let activate = wire::ActivateJobManager {
            node_id: 1,
            ..Default::default()
        };
        self.apply(Decision::ActivateJobManager(activate));
    }

    fn write(&mut self, kind: kv_write::Kind) -> wire::KvResponse {
        self.write_as("", kind)
    }

    fn write_as(&mut self, request_id: &str, kind: kv_write::Kind) -> wire::KvResponse {
        let proposal = wire::KvProposal {
            namespace: NAMESPACE.to_owned(),
            request_id: request_id.to_owned(),
            write: Some(wire::KvWrite { kind: Some(kind) }),
        };
        let batch = wire::KvBatch {
            proposals: vec![proposal],
        };
        match self.apply(Decision::KvBatch(batch)) {
            Response::Kv(mut responses) => responses.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn expire(&mut self) {
        self.apply(Decision::KvExpire(wire::KvExpire {}));
    }

    fn value(&self, key: &str) -> Option<String> {
        let space = self.state.kv.get(&namespace())?;
        let entry = space.get(key.as_bytes())?;
        Some(String::from_utf8(entry.value.to_vec()).unwrap())
    }
}

fn put(key: &str, value: &str) -> wire::KvPut {
    wire::KvPut {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        ..Default::default()
    }
}

fn keys(start: &str, end: &str) -> Option<wire::KvKeys> {
    Some(wire::KvKeys {
        start: Bytes::copy_from_slice(start.as_bytes()),
        end: Bytes::copy_from_slice(end.as_bytes()),
    })
}

fn delete(start: &str, end: &str) -> wire::KvDelete {
    wire::KvDelete {
        keys: keys(start, end),
    }
}

/// The key is absent or has that revision.
fn compare_revision(key: &str, revision: u64) -> wire::KvCompare {
    wire::KvCompare {
        key: Bytes::copy_from_slice(key.as_bytes()),
        relation: Relation::Equal.into(),
        target: Some(Target::ModRevision(revision)),
    }
}

fn put_operation(key: &str, value: &str) -> wire::KvOperation {
    wire::KvOperation {
        kind: Some(kv_operation::Kind::Put(put(key, value))),
    }
}

fn revision(response: &wire::KvResponse) -> u64 {
    response.header.as_ref().unwrap().revision
}

fn reason(response: &wire::KvResponse) -> Option<Reason> {
    match &response.outcome {
        Some(Outcome::Failure(failure)) => Some(failure.reason()),
        _ => None,
    }
}

#[test]
fn two_writes_of_one_entry_have_revisions_of_their_own() {
    let mut cluster = Cluster::new();
    let proposal = |value| wire::KvProposal {
        namespace: NAMESPACE.to_owned(),
        request_id: String::new(),
        write: Some(wire::KvWrite {
            kind: Some(kv_write::Kind::Put(put("k", value))),
        }),
    };
    let batch = wire::KvBatch {
        proposals: vec![proposal("a"), proposal("b")],
    };
    let Response::Kv(responses) = cluster.apply(Decision::KvBatch(batch)) else {
        panic!("no answers")
    };
    let revisions: Vec<u64> = responses.iter().map(revision).collect();
    assert_eq!(revisions, [1, 2]);
    // Whoever saw the first of the two must not pass for having seen the second.
    let swap = |expected| wire::KvTxn {
        compare: vec![compare_revision("k", expected)],
        success: vec![put_operation("k", "c")],
        failure: Vec::new(),
    };
    let swapped = |response: &wire::KvResponse| match &response.outcome {
        Some(Outcome::Txn(txn)) => txn.succeeded,
        other => panic!("{other:?}"),
    };
    assert!(!swapped(&cluster.write(kv_write::Kind::Txn(swap(1)))));
    assert!(swapped(&cluster.write(kv_write::Kind::Txn(swap(2)))));
    assert_eq!(cluster.value("k").as_deref(), Some("c"));
}

#[test]
fn a_repeated_request_is_carried_out_once_and_answered_alike() {
    let mut cluster = Cluster::new();
    let first = cluster.write_as("id-1", kv_write::Kind::Put(put("k", "a")));
    cluster.write(kv_write::Kind::Put(put("k", "b")));
    let second = cluster.write_as("id-1", kv_write::Kind::Put(put("k", "a")));
    assert_eq!(first, second);
    assert_eq!(cluster.value("k").as_deref(), Some("b"));
    let misused = cluster.write_as("id-1", kv_write::Kind::Put(put("k", "z")));
    assert_eq!(reason(&misused), Some(Reason::Invalid));
    cluster.now_ms += 11 * 60_000;
    for n in 0..3 {
        cluster.write_as(&format!("later-{n}"), kv_write::Kind::Put(put("x", "y")));
    }
    cluster.write_as("id-1", kv_write::Kind::Put(put("k", "a")));
    assert_eq!(
        cluster.value("k").as_deref(),
        Some("a"),
        "forgotten after its time"
    );
}

#[test]
fn a_failed_transaction_changes_nothing() {
    let mut cluster = Cluster::new();
    cluster.write(kv_write::Kind::Put(put("k", "a")));
    let before = cluster.state.kv.clone();
    let with_lease = wire::KvPut {
        lease: 99,
        ..put("z", "1")
    };
    let txn = wire::KvTxn {
        compare: Vec::new(),
        success: vec![
            put_operation("k", "b"),
            wire::KvOperation {
                kind: Some(kv_operation::Kind::Put(with_lease)),
            },
        ],
        failure: Vec::new(),
    };
    let told = cluster.told.len();
    let response = cluster.write(kv_write::Kind::Txn(txn));
    assert_eq!(reason(&response), Some(Reason::NoLease));
    assert_eq!(cluster.state.kv, before);
    assert_eq!(cluster.told.len(), told);
}

#[test]
fn an_entry_goes_when_its_time_or_its_lease_is_over_and_not_before() {
    let mut cluster = Cluster::new();
    let grant = wire::KvGrantLease {
        lease: 0,
        ttl_ms: 5_000,
    };
    let granted = cluster.write(kv_write::Kind::GrantLease(grant));
    let Some(Outcome::Lease(lease)) = granted.outcome else {
        panic!("no lease")
    };
    let leased = wire::KvPut {
        lease: lease.lease,
        ..put("leased", "1")
    };
    cluster.write(kv_write::Kind::Put(leased));
    let timed = wire::KvPut {
        ttl_ms: 3_000,
        ..put("timed", "1")
    };
    cluster.write(kv_write::Kind::Put(timed));
    cluster.write(kv_write::Kind::Put(put("for ever", "1")));
    let present =
        |cluster: &Cluster| ["leased", "timed", "for ever"].map(|key| cluster.value(key).is_some());
    assert_eq!(cluster.state.next_kv_deadline(), Some(3_001));
    cluster.now_ms = 3_000;
    cluster.expire();
    assert_eq!(present(&cluster), [true, true, true]);
    cluster.now_ms = 3_001;
    cluster.expire();
    assert_eq!(present(&cluster), [true, false, true]);
    let keep = wire::KvKeepLease { lease: lease.lease };
    cluster.write(kv_write::Kind::KeepLease(keep));
    cluster.now_ms = 8_000;
    cluster.expire();
    assert_eq!(present(&cluster), [true, false, true], "it was kept");
    cluster.activate();
    cluster.now_ms = 12_999;
    cluster.expire();
    assert_eq!(
        present(&cluster),
        [true, false, true],
        "a new leader gives its time anew"
    );
    cluster.now_ms = 13_000;
    cluster.expire();
    assert_eq!(present(&cluster), [false, false, true]);
    let kept = cluster.write(kv_write::Kind::KeepLease(keep));
    assert_eq!(reason(&kept), Some(Reason::NoLease));
}

#[test]
fn the_quota_stops_growth_and_nothing_else() {
    let mut cluster = Cluster::new();
    let mut tenant = (*cluster.state.namespaces[&namespace()]).clone();
    tenant.quota.kv_bytes = 100;
    cluster.state.namespaces.insert(namespace(), tenant.into());
    let ninety = "x".repeat(90);
    assert_eq!(
        reason(&cluster.write(kv_write::Kind::Put(put("k", &ninety)))),
        None
    );
    let more = cluster.write(kv_write::Kind::Put(put("l", &ninety)));
    assert_eq!(reason(&more), Some(Reason::Quota));
    let txn = wire::KvTxn {
        success: vec![put_operation("l", &ninety)],
        ..Default::default()
    };
    let more = cluster.write(kv_write::Kind::Txn(txn));
    assert_eq!(reason(&more), Some(Reason::Quota));
    assert_eq!(
        reason(&cluster.write(kv_write::Kind::Put(put("k", "small")))),
        None
    );
    assert_eq!(
        reason(&cluster.write(kv_write::Kind::Delete(delete("k", "")))),
        None
    );
}

#[test]
fn what_is_malformed_or_too_large_is_refused_with_a_reason() {
    let mut cluster = Cluster::new();
    let large = "x".repeat((256 << 10) + 1);
    let cases = [
        kv_write::Kind::Put(put("", "v")),
        kv_write::Kind::Put(put(&"k".repeat(1025), "v")),
        kv_write::Kind::Put(put("k", &large)),
        kv_write::Kind::Put(wire::KvPut {
            lease: 1,
            ttl_ms: 1,
            ..put("k", "v")
        }),
        kv_write::Kind::Delete(wire::KvDelete { keys: None }),
        kv_write::Kind::Txn(wire::KvTxn {
            success: vec![put_operation("k", "v"); 129],
            ..Default::default()
        }),
        kv_write::Kind::GrantLease(wire::KvGrantLease {
            lease: 0,
            ttl_ms: 10,
        }),
        kv_write::Kind::KeepLease(wire::KvKeepLease { lease: 0 }),
    ];
    for case in cases {
        let response = cluster.write(case.clone());
        assert_eq!(reason(&response), Some(Reason::Invalid), "{case:?}");
    }
    assert_eq!(cluster.state.revision, 0);
}

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8, u64),
    Delete(u8, u8),
    Swap(u8, u8),
    Lease(u8),
    PutLeased(u8, u8),
    Revoke(u8),
    Wait(u16),
    Expire,
    NewLeader,
    Snapshot,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..12_u8, any::<u8>(), prop_oneof![Just(0), 1..4_000_u64]).prop_map(|(k, v, t)| Step::Put(k, v, t)),
        2 => (0..12_u8, 0..12_u8).prop_map(|(a, b)| Step::Delete(a, b)),
        3 => (0..12_u8, any::<u8>()).prop_map(|(k, v)| Step::Swap(k, v)),
        1 => (1..4_u8).prop_map(Step::Lease),
        2 => (0..12_u8, 1..4_u8).prop_map(|(k, l)| Step::PutLeased(k, l)),
        1 => (1..4_u8).prop_map(Step::Revoke),
        2 => (0..3_000_u16).prop_map(Step::Wait),
        2 => Just(Step::Expire),
        1 => Just(Step::NewLeader),
        1 => Just(Step::Snapshot),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Watchers who replay what they are told have what is stored, revisions rise, and a snapshot is the state.
    #[test]
    fn what_watchers_are_told_is_what_happened(steps in steps()) {
        let mut digester = Digester::default();
        let mut cluster = Cluster::new();
        let mut mirror: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        let (mut seen, mut last) = (0, 0);
        for step in steps {
            let key = |k: u8| format!("key-{k:02}");
            match step {
                Step::Put(k, v, ttl_ms) => {
                    let put = wire::KvPut { ttl_ms, ..put(&key(k), &v.to_string()) };
                    cluster.write(kv_write::Kind::Put(put));
                }
                Step::Delete(a, b) => {
                    cluster.write(kv_write::Kind::Delete(delete(&key(a), &key(b))));
                }
                Step::Swap(k, v) => {
                    let space = cluster.state.kv.get(&namespace());
                    let entry = space.and_then(|space| space.get(key(k).as_bytes()));
                    let expected = entry.map_or(0, |entry| entry.mod_revision);
                    let txn = wire::KvTxn {
                        compare: vec![compare_revision(&key(k), expected)],
                        success: vec![put_operation(&key(k), &v.to_string())],
                        failure: Vec::new(),
                    };
                    cluster.write(kv_write::Kind::Txn(txn));
                    prop_assert_eq!(cluster.value(&key(k)), Some(v.to_string()));
                }
                Step::Lease(l) => {
                    let grant = wire::KvGrantLease { lease: l.into(), ttl_ms: 2_000 };
                    cluster.write(kv_write::Kind::GrantLease(grant));
                }
                Step::PutLeased(k, l) => {
                    let put = wire::KvPut { lease: l.into(), ..put(&key(k), "leased") };
                    cluster.write(kv_write::Kind::Put(put));
                }
                Step::Revoke(l) => {
                    let revoke = wire::KvRevokeLease { lease: l.into() };
                    cluster.write(kv_write::Kind::RevokeLease(revoke));
                }
                Step::Wait(ms) => cluster.now_ms += i64::from(ms),
                Step::Expire => {
                    cluster.expire();
                    let due = cluster.state.next_kv_deadline().is_some_and(|at| at <= cluster.now_ms);
                    prop_assert!(!due);
                }
                Step::NewLeader => cluster.activate(),
                Step::Snapshot => {
                    let restored = ClusterState::from_records(cluster.state.records()).unwrap();
                    restored.check();
                    prop_assert_eq!(&restored, &cluster.state);
                    let digest = digester.digest(&cluster.state);
                    prop_assert_eq!(Digester::default().digest(&restored), digest);
                    cluster.state = restored;
                }
            }
            for changes in &cluster.told[seen..] {
                prop_assert!(changes.revision > last);
                last = changes.revision;
                for change in &changes.changes {
                    match change {
                        Change::Put(key, entry) => mirror.insert(key.clone(), entry.value.clone()),
                        Change::Gone(key, _) => mirror.remove(key),
                    };
                }
            }
            seen = cluster.told.len();
            prop_assert!(last <= cluster.state.revision);
        }
        let stored: BTreeMap<Bytes, Bytes> = match cluster.state.kv.get(&namespace()) {
            Some(space) => {
                let all = space.range(&wire::KvRange {
                    keys: Some(wire::KvKeys { start: Bytes::new(), end: vec![0].into() }),
                    ..Default::default()
                });
                prop_assert!(!all.more);
                all.entries.into_iter().map(|entry| (entry.key, entry.value)).collect()
            }
            None => BTreeMap::new(),
        };
        prop_assert_eq!(stored, mirror);
    }

    /// A purge in steps of any size leaves nothing.
    #[test]
    fn a_purge_leaves_nothing(keys in proptest::collection::btree_set(0..200_u16, 0..100), step in 1..40_usize) {
        let mut cluster = Cluster::new();
        cluster.write(kv_write::Kind::GrantLease(wire::KvGrantLease { lease: 7, ttl_ms: 5_000 }));
        for key in &keys {
            let lease = if key % 2 == 0 { 7 } else { 0 };
            let put = wire::KvPut { lease, ..put(&key.to_string(), "v") };
            cluster.write(kv_write::Kind::Put(put));
        }
        let mut space = (*cluster.state.kv[&namespace()]).clone();
        let mut steps = 0;
        while space.purge(step) > 0 {
            space.check();
            steps += 1;
            prop_assert!(steps <= keys.len() + 2);
        }
        prop_assert!(space.is_empty());
        prop_assert_eq!(space.digest(), 0);
    }
}

#[test]
fn a_range_comes_in_pieces_that_fit_and_says_so() {
    let mut cluster = Cluster::new();
    let value = "x".repeat(200 << 10);
    for n in 0..12 {
        cluster.write(kv_write::Kind::Put(put(&format!("k{n:02}"), &value)));
    }
    let space = &cluster.state.kv[&namespace()];
    let mut seen = BTreeSet::new();
    let mut start = "k".to_owned();
    loop {
        let range = wire::KvRange {
            keys: keys(&start, "l"),
            ..Default::default()
        };
        let result = space.range(&range);
        assert!(!result.entries.is_empty() && result.entries.len() < 12);
        seen.extend(result.entries.iter().map(|entry| entry.key.clone()));
        if !result.more {
            break;
        }
        let last = result.entries.last().unwrap();
        start = format!("{}\0", String::from_utf8(last.key.to_vec()).unwrap());
    }
    assert_eq!(seen.len(), 12);
    let limited = wire::KvRange {
        keys: keys("k", "l"),
        limit: 3,
        keys_only: true,
        ..Default::default()
    };
    let result = space.range(&limited);
    assert_eq!(
        (result.entries.len(), result.more, result.count),
        (3, true, 12)
    );
    assert!(result.entries.iter().all(|entry| entry.value.is_empty()));
}
