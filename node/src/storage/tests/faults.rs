//! What S3 may do to each call: it is carried out all the same, or fails for a reason that says what to do.

use std::time::Duration;

use futures::FutureExt;

use super::*;
use crate::testing::Fault::{FlippedBit, NoAnswer, Reset, Slow, StaleList, Status};
use crate::testing::Operation::{self, *};
use crate::testing::{Call, S3Server, SECRET_KEY};

/// A deadline for requests that a busy machine keeps to and a test can wait for.
const DEADLINE: Duration = Duration::from_secs(1);

/// Longer than that.
const LATE: Duration = Duration::from_millis(1500);

/// Each call once, with files of one request and of two parts.
async fn each_call_works(server: &S3Server) {
    let storage = server.storage().with_request_timeout(DEADLINE);
    let local = tempfile::tempdir().unwrap();
    let (source, copy) = (local.path().join("source"), local.path().join("copy"));
    fs::write(&source, bytes(PART + 1)).unwrap();
    storage.put("a/whole", bytes(100)).await.unwrap();
    storage.put_file("a/file", &source).await.unwrap();
    assert_eq!(storage.get("a/whole").await.unwrap(), bytes(100));
    storage.get_file("a/file", &copy).await.unwrap();
    assert!(fs::read(&copy).unwrap() == bytes(PART + 1));
    assert!(storage.exists("a/file").await.unwrap());
    assert_eq!(storage.list("a").await.unwrap().len(), 2);
    storage.delete("a/file").await.unwrap();
    server.heal();
    assert_eq!(
        storage.list("").await.unwrap(),
        [("a/whole".to_owned(), 100)]
    );
    assert_eq!(server.orphaned_parts(), 0);
}

/// Every call of the interface, each with what came of it.
async fn each_outcome(storage: &ObjectStorage) -> Vec<(&'static str, Result<(), Error>)> {
    let local = tempfile::tempdir().unwrap();
    let (small, large) = (local.path().join("small"), local.path().join("large"));
    fs::write(&small, bytes(100)).unwrap();
    fs::write(&large, bytes(PART + 1)).unwrap();
    let copy = local.path().join("copy");
    let outcomes = futures::join!(
        storage.put("a/x", bytes(1)),
        storage.put_file("a/y", &small),
        storage.put_file("a/z", &large),
        storage.get("a/there"),
        storage.get_file("a/other", &copy),
        storage.exists("a/there"),
        storage.list("a"),
        storage.delete("a/there"),
    );
    vec![
        ("put", outcomes.0),
        ("put_file", outcomes.1.map(drop)),
        ("put_file in parts", outcomes.2.map(drop)),
        ("get", outcomes.3.map(drop)),
        ("get_file", outcomes.4.map(drop)),
        ("exists", outcomes.5.map(drop)),
        ("list", outcomes.6.map(drop)),
        ("delete", outcomes.7),
    ]
}

async fn with_an_object() -> S3Server {
    let server = S3Server::start().await;
    server.storage().put("a/there", bytes(100)).await.unwrap();
    server
}

fn count(server: &S3Server, operation: Operation) -> usize {
    let calls = server.calls();
    calls
        .iter()
        .filter(|call| call.operation == operation)
        .count()
}

/// Waits for what happens beside the test.
async fn until(mut condition: impl FnMut() -> bool) {
    let happens = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    let happened = tokio::time::timeout(Duration::from_secs(20), happens).await;
    happened.expect("it happens within 20 seconds");
}

#[tokio::test]
async fn errors_and_broken_connections_are_tried_again() {
    for fault in [Status(500), Status(503), Status(429), Reset] {
        let server = S3Server::start().await;
        server.plan(move |call| (call.attempt == 1).then_some(fault));
        each_call_works(&server).await;
    }
}

#[tokio::test]
async fn requests_that_were_carried_out_without_an_answer_are_repeated_without_damage() {
    let server = S3Server::start().await;
    server.plan(|call| (call.attempt == 1).then_some(NoAnswer));
    each_call_works(&server).await;
}

#[tokio::test]
async fn late_answers_are_asked_for_again() {
    let server = S3Server::start().await;
    server.plan(|call| (call.attempt == 1).then_some(Slow(LATE)));
    each_call_works(&server).await;
}

#[tokio::test]
async fn a_slow_body_is_waited_for_while_it_moves() {
    let server = S3Server::start().await;
    let storage = server.storage().with_request_timeout(DEADLINE);
    storage.put("x", bytes(1000)).await.unwrap();
    // All of it takes longer than the deadline, each piece does not.
    server.plan(|_| Some(Slow(DEADLINE / 8)));
    assert_eq!(storage.get("x").await.unwrap(), bytes(1000));
    let local = tempfile::tempdir().unwrap();
    let copy = local.path().join("copy");
    storage.get_file("x", &copy).await.unwrap();
    assert!(fs::read(&copy).unwrap() == bytes(1000));
    assert_eq!(server.calls().len(), 2, "{:?}", server.calls());
}

#[tokio::test]
async fn an_outage_is_reported_after_bounded_retries() {
    let server = with_an_object().await;
    server.plan(|_| Some(Status(503)));
    for (call, outcome) in each_outcome(&server.storage()).await {
        assert!(
            matches!(outcome, Err(Error::Unavailable { .. })),
            "{call}: {outcome:?}"
        );
    }
    // Ours, and each with one by the client.
    let calls_max = 2 * (RETRIES_MAX + 1);
    assert!(server.calls().iter().all(|call| call.attempt <= calls_max));
}

#[tokio::test]
async fn a_body_that_always_breaks_off_is_never_taken_for_whole() {
    let server = with_an_object().await;
    server.plan(|call| (call.operation == Get).then_some(Reset));
    let storage = server.storage();
    let got = storage.get("a/there").await;
    assert!(matches!(got, Err(Error::Unavailable { .. })), "{got:?}");
    let local = tempfile::tempdir().unwrap();
    let got = storage
        .get_file("a/there", &local.path().join("copy"))
        .await;
    assert!(matches!(got, Err(Error::Unavailable { .. })), "{got:?}");
}

#[tokio::test]
async fn a_refusal_is_reported_at_once_with_what_to_do() {
    let server = with_an_object().await;
    server.plan(|_| Some(Status(403)));
    for (call, outcome) in each_outcome(&server.storage()).await {
        let Err(error @ Error::Denied { .. }) = outcome else {
            panic!("{call}: {outcome:?}");
        };
        assert!(
            error.to_string().contains("check the credentials"),
            "{error}"
        );
    }
    let calls = server.calls();
    assert_eq!(calls.len(), 8, "one request for each call: {calls:?}");
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_a_missing_bucket_named() {
    let server = with_an_object().await;
    let stranger = server.open("s3://checkpoints", "another key");
    for (call, outcome) in each_outcome(&stranger).await {
        assert!(
            matches!(outcome, Err(Error::Denied { .. })),
            "{call}: {outcome:?}"
        );
    }
    let nowhere = server.open("s3://no-such-bucket", SECRET_KEY);
    let list = nowhere.list("").await;
    assert!(matches!(list, Err(Error::InvalidRoot { .. })), "{list:?}");
}

#[tokio::test]
async fn a_part_that_fails_is_sent_again_alone() {
    let server = S3Server::start().await;
    // Twice for us: the client tries once more by itself.
    server.plan(|call| (call.operation == PutPart && call.attempt <= 2).then_some(Status(500)));
    let (storage, local) = (server.storage(), tempfile::tempdir().unwrap());
    let (source, copy) = (local.path().join("source"), local.path().join("copy"));
    fs::write(&source, bytes(2 * PART + 1)).unwrap();
    storage.put_file("file", &source).await.unwrap();
    let counts = [CreateMultipart, PutPart, CompleteMultipart, AbortMultipart];
    assert_eq!(
        counts.map(|operation| count(&server, operation)),
        [1, 9, 1, 0]
    );
    storage.get_file("file", &copy).await.unwrap();
    assert!(fs::read(&copy).unwrap() == bytes(2 * PART + 1));
}

#[tokio::test]
async fn a_completion_that_is_still_being_carried_out_is_waited_for() {
    let server = S3Server::start().await;
    server.plan(|call| {
        let repeated = call.operation == CompleteMultipart && call.attempt <= 2;
        repeated.then_some(Status(404))
    });
    each_call_works(&server).await;
}

#[tokio::test]
async fn an_upload_in_parts_that_fails_or_is_given_up_leaves_no_parts() {
    let server = S3Server::start().await;
    let (storage, local) = (server.storage(), tempfile::tempdir().unwrap());
    let source = local.path().join("source");
    fs::write(&source, bytes(2 * PART + 1)).unwrap();
    for failing in [PutPart, CompleteMultipart] {
        server.plan(move |call| (call.operation == failing).then_some(Status(500)));
        let failed = storage.put_file("file", &source).await;
        assert!(
            matches!(failed, Err(Error::Unavailable { .. })),
            "{failed:?}"
        );
        until(|| server.orphaned_parts() == 0).await;
        assert_eq!(storage.list("").await.unwrap(), []);
    }
    server.plan(|call| (call.operation == PutPart).then_some(NoAnswer));
    let mut upload = Box::pin(storage.put_file("file", &source));
    until(|| {
        assert!((&mut upload).now_or_never().is_none());
        server.orphaned_parts() == 3
    })
    .await;
    drop(upload);
    until(|| server.orphaned_parts() == 0).await;
    assert_eq!(storage.list("").await.unwrap(), []);
}

#[tokio::test]
async fn a_bit_flipped_on_the_way_up_is_noticed_by_the_store() {
    let server = S3Server::start().await;
    server.plan(|call: &Call| {
        let uploads = matches!(call.operation, Put | PutPart);
        (uploads && call.attempt == 1).then_some(FlippedBit)
    });
    each_call_works(&server).await;
}

#[tokio::test]
async fn only_listings_may_be_stale() {
    let server = with_an_object().await;
    let storage = server.storage();
    let before = storage.list("").await.unwrap();
    server.plan(|_| Some(StaleList));
    storage.put("a/new", bytes(1)).await.unwrap();
    storage.delete("a/there").await.unwrap();
    assert_eq!(storage.list("").await.unwrap(), before);
    assert!(storage.exists("a/new").await.unwrap());
    assert_eq!(storage.get("a/new").await.unwrap(), bytes(1));
    assert!(!storage.exists("a/there").await.unwrap());
    // What a stale listing names can be deleted once more.
    storage.delete("a/there").await.unwrap();
}
