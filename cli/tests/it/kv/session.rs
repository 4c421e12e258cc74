//! Calls find the leader, outlive it, and never say of a write what is not certain.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flott_cli::kv::{KvError, Outcome, Session, SessionOptions};
use flott_node::{SystemClock, Tasks};
use flott_proto::wire::kv_failure::Reason;
use flott_proto::wire::kv_request::Operation;
use flott_proto::wire::kv_write::Kind;
use flott_proto::wire::{KvPut, KvRange, KvRequest, KvWrite, kv_response};
use futures::future::join_all;

use super::fake::{Member, Reaction, done, failure, nobody, not_leader, session};

/// Generous: a passing test needs a fraction of it.
const PATIENCE: Duration = Duration::from_secs(30);
/// For calls that are to end in vain.
const SHORT: Duration = Duration::from_secs(1);

fn put(request_id: &str) -> KvRequest {
    let put = KvPut {
        key: Bytes::from_static(b"k"),
        ..KvPut::default()
    };
    let write = KvWrite {
        kind: Some(Kind::Put(put)),
    };
    KvRequest {
        request_id: request_id.to_owned(),
        operation: Some(Operation::Write(write)),
        ..KvRequest::default()
    }
}

fn read() -> KvRequest {
    KvRequest {
        operation: Some(Operation::Range(KvRange::default())),
        ..KvRequest::default()
    }
}

fn ids(member: &Member) -> Vec<String> {
    let ids = member
        .requests()
        .into_iter()
        .map(|request| request.request_id);
    ids.collect()
}

#[tokio::test]
async fn many_callers_find_the_leader_with_one_question() {
    let tasks = Tasks::default();
    let leader = Member::new(|_| done());
    let address = leader.serve(&tasks).await;
    let follower = Member::new(move |_| not_leader(&address));
    let dead = nobody().await;
    let members = [dead.as_str(), &follower.serve(&tasks).await];
    let session = session(&tasks, &members, PATIENCE);

    let answers = join_all((0..500).map(|_| session.call(put("")))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(follower.requests().len(), 1);
    assert_eq!(leader.requests().len(), 500);
    let messages = leader.batches.lock().unwrap().len();
    assert!(messages < 100, "{messages} messages for 500 waiting calls");
    let mut sequences: Vec<_> = leader
        .requests()
        .iter()
        .map(|request| request.sequence)
        .collect();
    sequences.sort_unstable();
    sequences.dedup();
    assert_eq!(
        sequences.len(),
        500,
        "every request has a number of its own"
    );
}

#[tokio::test]
async fn a_change_of_leader_is_followed_in_both_directions() {
    let tasks = Tasks::default();
    let turn = std::sync::Arc::new(AtomicUsize::new(0));
    let addresses: std::sync::Arc<std::sync::Mutex<Vec<String>>> = Default::default();
    let member = |number: usize| {
        let (turn, addresses) = (turn.clone(), addresses.clone());
        Member::new(move |_| match turn.load(Ordering::SeqCst) {
            leader if leader == number => done(),
            leader => not_leader(&addresses.lock().unwrap()[leader]),
        })
    };
    let members = [member(0), member(1)];
    for member in &members {
        let address = member.serve(&tasks).await;
        addresses.lock().unwrap().push(address);
    }
    let known = addresses.lock().unwrap()[0].clone();
    let session = session(&tasks, &[&known], PATIENCE);
    for (leader, asked_before) in [(0, 0), (1, 1), (0, 1), (1, 1)] {
        turn.store(leader, Ordering::SeqCst);
        let other = &members[1 - leader];
        let before = other.requests().len();
        session.call(put("")).await.unwrap();
        session.call(put("")).await.unwrap();
        assert_eq!(other.requests().len() - before, asked_before);
    }
}

#[tokio::test]
async fn when_the_connection_breaks_only_what_is_harmless_is_repeated() {
    let tasks = Tasks::default();
    let dying = Member::new(|_| Reaction::Break);
    let heir = Member::new(|_| done());
    let members = [dying.serve(&tasks).await, heir.serve(&tasks).await];
    let members: Vec<_> = members.iter().map(String::as_str).collect();

    let error = session(&tasks, &members, PATIENCE)
        .call(put(""))
        .await
        .unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert!(error.to_string().contains("the member dies"), "{error}");
    assert!(heir.requests().is_empty());

    session(&tasks, &members, PATIENCE)
        .call(put("id-1"))
        .await
        .unwrap();
    assert_eq!(
        (ids(&dying).pop(), ids(&heir)),
        (Some("id-1".to_owned()), vec!["id-1".to_owned()])
    );
    session(&tasks, &members, PATIENCE)
        .call(read())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_member_that_is_silent_is_left() {
    let tasks = Tasks::default();
    let silent = Member::new(|_| Reaction::Silence);
    let leader = Member::new(|_| done());
    let members = vec![silent.serve(&tasks).await, leader.serve(&tasks).await];
    let options = SessionOptions {
        attempt_timeout: Duration::from_millis(50),
        ..SessionOptions::default()
    };
    let session = Session::new(members, options, SystemClock::shared(), &tasks).unwrap();
    session.call(put("id")).await.unwrap();
    assert!(!silent.requests().is_empty() && !leader.requests().is_empty());
}

#[tokio::test]
async fn an_election_is_waited_for() {
    let tasks = Tasks::default();
    let asked = AtomicUsize::new(0);
    let electing = Member::new(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0..4 => not_leader(""),
        4..6 => Reaction::Answer(failure(Reason::Busy, "")),
        _ => done(),
    });
    let address = electing.serve(&tasks).await;
    session(&tasks, &[&address], PATIENCE)
        .call(put(""))
        .await
        .unwrap();
    assert_eq!(electing.requests().len(), 7);
}

#[tokio::test]
async fn the_last_answers_of_a_leader_that_gives_up_its_office_are_heard() {
    let tasks = Tasks::default();
    let heir = Member::new(|_| done());
    let heir_address = heir.serve(&tasks).await;
    // The first write is in the log; the second comes too late, and the answer to the first after that.
    let count = AtomicUsize::new(0);
    let leaving = Member::new(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => done(),
        1 => Reaction::Silence,
        _ => Reaction::AnswerHeldThen(
            kv_response::Outcome::Put(Default::default()),
            failure(Reason::NotLeader, &heir_address),
        ),
    });
    let address = leaving.serve(&tasks).await;
    let session = session(&tasks, &[&address], PATIENCE);
    session.call(put("")).await.unwrap();
    let (first, second) = tokio::join!(session.call(put("")), session.call(put("")));
    first.unwrap();
    second.unwrap();
    assert_eq!(
        heir.requests().len(),
        1,
        "only the one that was not applied"
    );
}

#[tokio::test]
async fn patience_ends_with_the_truth() {
    let tasks = Tasks::default();
    let dead = nobody().await;
    let error = session(&tasks, &[&dead], SHORT)
        .call(put(""))
        .await
        .unwrap_err();
    assert!(matches!(error, KvError::Unavailable { .. }));
    assert_eq!(error.outcome(), Outcome::NotApplied);
    assert!(error.to_string().contains(&dead), "{error}");

    let unsure = Member::new(|_| Reaction::Answer(failure(Reason::Unknown, "")));
    let address = unsure.serve(&tasks).await;
    let error = session(&tasks, &[&address], SHORT)
        .call(put("id"))
        .await
        .unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert!(unsure.requests().len() > 1, "it was safe to try again");
}

#[tokio::test]
async fn a_refusal_is_final() {
    let tasks = Tasks::default();
    let strict = Member::new(|_| Reaction::Answer(failure(Reason::Quota, "")));
    let address = strict.serve(&tasks).await;
    let session = session(&tasks, &[&address], PATIENCE);
    let error = session.call(put("id")).await.unwrap_err();
    assert!(error.is(Reason::Quota));
    assert_eq!(strict.requests().len(), 1);
}

#[tokio::test]
async fn the_end_of_the_process_ends_all_calls() {
    let tasks = Tasks::default();
    let silent = Member::new(|_| Reaction::Silence);
    let address = silent.serve(&tasks).await;
    let own = Tasks::default();
    let session = session(&own, &[&address], PATIENCE);
    let end = async {
        while silent.requests().is_empty() {
            tokio::task::yield_now().await;
        }
        own.cancellation().cancel();
    };
    let (answer, ()) = tokio::join!(session.call(put("")), end);
    assert_eq!(answer.unwrap_err().outcome(), Outcome::Unknown);
    assert_eq!(session.call(put("")).await.unwrap_err(), KvError::Closed);
}

#[tokio::test]
async fn a_member_that_is_busy_for_ever_is_left() {
    let tasks = Tasks::default();
    let cut_off = Member::new(|_| Reaction::Answer(failure(Reason::Busy, "")));
    let leader = Member::new(|_| done());
    let members = [cut_off.serve(&tasks).await, leader.serve(&tasks).await];
    let session = session(&tasks, &[&members[0], &members[1]], PATIENCE);
    session.call(read()).await.unwrap();
    assert!(!cut_off.requests().is_empty() && leader.requests().len() == 1);
}
