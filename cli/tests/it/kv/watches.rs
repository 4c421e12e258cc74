//! Watches and leases outlive the member that they were begun at.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flott_cli::kv::{KvError, Watched, keys};
use flott_node::Tasks;
use flott_proto::wire::kv_event::Change;
use flott_proto::wire::kv_failure::Reason;
use flott_proto::wire::kv_request::Operation;
use flott_proto::wire::kv_response::Outcome;
use flott_proto::wire::kv_write::Kind;
use flott_proto::wire::{
    KvEntry, KvEvent, KvLeaseResult, KvRangeResult, KvRequest, KvWatchResponse,
};
use tonic::Status;

use super::fake::{Member, Reaction, failure, session};

const PATIENCE: Duration = Duration::from_secs(30);

fn told(revision: u64) -> Result<KvWatchResponse, Status> {
    let entry = KvEntry {
        mod_revision: revision,
        ..KvEntry::default()
    };
    Ok(KvWatchResponse {
        revision,
        events: vec![KvEvent {
            change: Some(Change::Put(entry)),
        }],
        resync: false,
    })
}

fn revision(watched: Watched) -> u64 {
    match watched {
        Watched::Changes { revision, events } => {
            assert_eq!(events.len(), 1);
            revision
        }
        Watched::Resync => panic!("resync"),
    }
}

/// Answers every read with nothing, as of revision 7.
fn reads(_: &KvRequest) -> Reaction {
    Reaction::Answer(Outcome::Range(KvRangeResult::default()))
}

#[tokio::test]
async fn a_watch_goes_on_at_another_member_where_it_stood() {
    let tasks = Tasks::default();
    let dying = Member::new(reads).telling(|watch| {
        let dies = Err(Status::unavailable("the member dies"));
        (
            vec![
                told(watch.start_revision),
                told(watch.start_revision + 1),
                dies,
            ],
            true,
        )
    });
    let heir = Member::new(reads).telling(|watch| {
        (
            vec![told(watch.start_revision), told(watch.start_revision + 1)],
            false,
        )
    });
    let members = [dying.serve(&tasks).await, heir.serve(&tasks).await];
    let session = session(&tasks, &[&members[0], &members[1]], PATIENCE);
    let mut watch = session
        .space("z")
        .watch(keys::prefix("a/"), Some(3))
        .await
        .unwrap();
    for expected in 3..7 {
        assert_eq!(revision(watch.next().await.unwrap()), expected);
    }
    let asked = heir.watches.lock().unwrap().clone();
    assert_eq!(asked[0].start_revision, 5);
    assert_eq!(
        (asked[0].namespace.as_str(), &asked[0].keys),
        ("z", &Some(keys::prefix("a/")))
    );
}

#[tokio::test]
async fn a_watch_from_now_on_begins_behind_the_newest_revision() {
    let tasks = Tasks::default();
    let member = Member::new(reads).telling(|watch| (vec![told(watch.start_revision)], false));
    let address = member.serve(&tasks).await;
    let session = session(&tasks, &[&address], PATIENCE);
    let mut watch = session
        .space("z")
        .watch(keys::one("k"), None)
        .await
        .unwrap();
    assert_eq!(revision(watch.next().await.unwrap()), 8);
}

#[tokio::test]
async fn a_watcher_that_fell_behind_is_told() {
    let tasks = Tasks::default();
    let resync = KvWatchResponse {
        resync: true,
        ..KvWatchResponse::default()
    };
    let member = Member::new(reads).telling(move |_| (vec![Ok(resync.clone())], true));
    let address = member.serve(&tasks).await;
    let session = session(&tasks, &[&address], PATIENCE);
    let mut watch = session
        .space("z")
        .watch(keys::one("k"), Some(1))
        .await
        .unwrap();
    assert_eq!(watch.next().await.unwrap(), Watched::Resync);
}

#[tokio::test]
async fn a_watch_of_a_namespace_that_is_not_there_is_refused() {
    let tasks = Tasks::default();
    let member = Member::new(reads).telling(|_| {
        (
            vec![Err(Status::not_found("there is no namespace z"))],
            true,
        )
    });
    let address = member.serve(&tasks).await;
    let session = session(&tasks, &[&address], PATIENCE);
    let mut watch = session
        .space("z")
        .watch(keys::one("k"), Some(1))
        .await
        .unwrap();
    let error = watch.next().await.unwrap_err();
    assert!(error.is(Reason::NoNamespace), "{error:?}");
}

/// A member that grants leases of 30 ms, keeps each `keeps` times, and then knows it no more.
fn lessor(keeps: usize) -> Member {
    let kept = AtomicUsize::new(0);
    Member::new(move |request| {
        let Some(Operation::Write(write)) = &request.operation else {
            return Reaction::Break;
        };
        let result = Outcome::Lease(KvLeaseResult {
            lease: 5,
            ttl_ms: 30,
        });
        match write.kind {
            Some(Kind::KeepLease(_)) if kept.fetch_add(1, Ordering::SeqCst) >= keeps => {
                Reaction::Answer(failure(Reason::NoLease, ""))
            }
            _ => Reaction::Answer(result),
        }
    })
}

fn lease_calls(member: &Member) -> (usize, usize) {
    let count = |wanted: fn(&Kind) -> bool| {
        let kinds = member
            .requests()
            .into_iter()
            .filter_map(|request| match request.operation {
                Some(Operation::Write(write)) => write.kind,
                _ => None,
            });
        kinds.filter(wanted).count()
    };
    (
        count(|kind| matches!(kind, Kind::KeepLease(_))),
        count(|kind| matches!(kind, Kind::RevokeLease(_))),
    )
}

#[tokio::test]
async fn a_lease_is_kept_until_it_is_lost_and_its_holder_hears_of_it() {
    let tasks = Tasks::default();
    let member = lessor(3);
    let address = member.serve(&tasks).await;
    let session = session(&tasks, &[&address], PATIENCE);
    let ephemeral = session
        .space("z")
        .ephemeral(Duration::from_millis(30))
        .await
        .unwrap();
    assert_eq!(ephemeral.lease(), 5);
    let why = ephemeral.lost().await;
    assert!(!why.is_empty());
    assert!(lease_calls(&member).0 >= 1, "{why}");
}

#[tokio::test]
async fn a_lease_that_is_ended_is_revoked_and_kept_no_more() {
    let tasks = Tasks::default();
    let member = lessor(usize::MAX);
    let address = member.serve(&tasks).await;
    let session = session(&tasks, &[&address], PATIENCE);
    let ephemeral = session
        .space("z")
        .ephemeral(Duration::from_secs(60))
        .await
        .unwrap();
    ephemeral.end().await.unwrap();
    assert_eq!(lease_calls(&member), (0, 1));
    let closed = Tasks::default();
    closed.cancellation().cancel();
    let ended = super::fake::session(&closed, &[&address], PATIENCE);
    let error = ended
        .space("z")
        .ephemeral(Duration::from_secs(60))
        .await
        .unwrap_err();
    assert_eq!(error, KvError::Closed);
}
