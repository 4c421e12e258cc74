//! What each answer, and each absence of one, means for the caller.

use bytes::Bytes;
use flott_proto::wire::{KvKeepLease, KvPut, KvPutResult, KvRange, KvWrite};
use tokio::sync::oneshot::error::TryRecvError;

use super::*;

const ATTEMPT: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);
const START: Duration = Duration::ZERO;

type Answered = oneshot::Receiver<Result<KvResponse, KvError>>;

fn write(kind: kv_write::Kind, request_id: &str) -> KvRequest {
    let write = KvWrite { kind: Some(kind) };
    KvRequest {
        namespace: "default".to_owned(),
        request_id: request_id.to_owned(),
        operation: Some(kv_request::Operation::Write(write)),
        ..KvRequest::default()
    }
}

fn put(request_id: &str, bytes: usize) -> KvRequest {
    let put = KvPut {
        key: Bytes::from_static(b"k"),
        value: vec![0; bytes].into(),
        ..KvPut::default()
    };
    write(kv_write::Kind::Put(put), request_id)
}

fn read() -> KvRequest {
    KvRequest {
        operation: Some(kv_request::Operation::Range(KvRange::default())),
        ..KvRequest::default()
    }
}

fn call(requests: &mut Requests, request: KvRequest) -> Answered {
    let (answer, answered) = oneshot::channel();
    requests.push(Call::new(request, answer, START, PATIENCE));
    answered
}

fn done(sequence: u64) -> KvResponse {
    KvResponse {
        sequence,
        outcome: Some(Outcome::Put(KvPutResult {})),
        ..KvResponse::default()
    }
}

fn failed(sequence: u64, reason: Reason) -> KvResponse {
    let failure = KvFailure {
        reason: reason.into(),
        message: format!("{reason:?}"),
        leader_address: String::new(),
    };
    KvResponse {
        sequence,
        outcome: Some(Outcome::Failure(failure)),
        ..KvResponse::default()
    }
}

/// Requests with one call in flight, numbered 1.
fn flying(request: KvRequest) -> (Requests, Answered) {
    let mut requests = Requests::new(ATTEMPT);
    let answered = call(&mut requests, request);
    assert_eq!(
        requests.next_batch(START, 10).unwrap().requests[0].sequence,
        1
    );
    requests.check();
    (requests, answered)
}

fn error(answered: &mut Answered) -> KvError {
    answered.try_recv().unwrap().unwrap_err()
}

fn is_open(answered: &mut Answered) -> bool {
    matches!(answered.try_recv(), Err(TryRecvError::Empty))
}

#[test]
fn all_that_waits_goes_out_as_one_message_within_its_bounds() {
    let mut requests = Requests::new(ATTEMPT);
    let _answers: Vec<_> = (0..BATCH_MAX + 5)
        .map(|_| call(&mut requests, put("", 8)))
        .collect();
    assert_eq!(requests.next_batch(START, 1).unwrap().requests.len(), 1);
    assert_eq!(
        requests
            .next_batch(START, usize::MAX)
            .unwrap()
            .requests
            .len(),
        BATCH_MAX
    );
    assert_eq!(
        requests
            .next_batch(START, usize::MAX)
            .unwrap()
            .requests
            .len(),
        4
    );
    assert_eq!(requests.next_batch(START, usize::MAX), None);

    let _large: Vec<_> = (0..3)
        .map(|_| call(&mut requests, put("", BATCH_BYTES_MAX / 2)))
        .collect();
    let _huge = call(&mut requests, put("", BATCH_BYTES_MAX * 2));
    let sizes: Vec<_> = std::iter::from_fn(|| requests.next_batch(START, usize::MAX))
        .map(|batch| batch.requests.len())
        .collect();
    assert_eq!(
        sizes,
        [1, 1, 1, 1],
        "two of half the bound do not fit with what surrounds them"
    );
    requests.check();
}

#[test]
fn a_request_that_no_member_accepts_is_refused_at_once() {
    let mut requests = Requests::new(ATTEMPT);
    let mut answered = call(&mut requests, put("", REQUEST_BYTES_MAX));
    assert!(error(&mut answered).is(Reason::Invalid));
    assert!(requests.is_empty());
}

#[test]
fn answers_find_their_callers_in_any_order() {
    let mut requests = Requests::new(ATTEMPT);
    let mut answers: Vec<_> = (0..3).map(|_| call(&mut requests, put("", 1))).collect();
    requests.next_batch(START, 10).unwrap();
    for sequence in [3, 1, 2] {
        assert_eq!(requests.on_response(done(sequence), START), Told::Answers);
        let answered = &mut answers[sequence as usize - 1];
        assert_eq!(answered.try_recv().unwrap().unwrap().sequence, sequence);
        requests.check();
    }
    assert!(requests.is_empty());
    assert_eq!(
        requests.on_response(done(3), START),
        Told::Answers,
        "an answer that comes twice"
    );
}

#[test]
fn a_write_that_may_have_been_applied_is_not_sent_again() {
    for lost in [
        Requests::on_break as fn(&mut Requests),
        |requests| assert!(requests.on_tick(ATTEMPT)),
        |requests| drop(requests.on_response(failed(1, Reason::Unknown), START)),
        |requests| {
            drop(requests.on_response(
                KvResponse {
                    sequence: 1,
                    ..KvResponse::default()
                },
                START,
            ))
        },
    ] {
        let (mut requests, mut answered) = flying(put("", 1));
        lost(&mut requests);
        assert!(matches!(error(&mut answered), KvError::Unknown { .. }));
        assert!(requests.is_empty());
        requests.check();
    }
}

#[test]
fn a_write_with_an_id_and_a_read_are_repeated() {
    let keep = write(kv_write::Kind::KeepLease(KvKeepLease { lease: 7 }), "");
    for request in [put("id", 1), read(), keep] {
        let (mut requests, mut answered) = flying(request.clone());
        requests.on_break();
        let again = requests.next_batch(START, 10).unwrap().requests.remove(0);
        assert_eq!(
            again.sequence, 2,
            "an answer to the first attempt must not be taken for one to the second"
        );
        assert_eq!(again.request_id, request.request_id);
        requests.on_response(failed(2, Reason::Unknown), START);
        assert!(is_open(&mut answered) && requests.next_batch(START, 10).is_none());
        assert!(!requests.on_tick(DEFERRAL));
        assert_eq!(
            requests.next_batch(START, 10).unwrap().requests[0].sequence,
            3
        );
        requests.on_response(done(3), START);
        answered.try_recv().unwrap().unwrap();
        requests.check();
    }
}

#[test]
fn a_write_that_was_certainly_not_applied_is_repeated_even_without_an_id() {
    let (mut requests, mut answered) = flying(put("", 1));
    assert_eq!(
        requests.on_response(failed(1, Reason::NotLeader), START),
        Told::NotLeader(None)
    );
    requests.next_batch(START, 10).unwrap();
    assert_eq!(
        requests.on_response(failed(2, Reason::Busy), START),
        Told::Busy
    );
    requests.on_tick(DEFERRAL);
    requests.next_batch(START, 10).unwrap();
    requests.on_response(done(3), START);
    answered.try_recv().unwrap().unwrap();
}

#[test]
fn the_end_of_patience_says_not_applied_only_if_no_attempt_can_have_been() {
    let (mut requests, mut answered) = flying(put("id", 1));
    requests.on_response(failed(1, Reason::NotLeader), START);
    requests.on_tick(PATIENCE);
    assert_eq!(
        error(&mut answered),
        KvError::Unavailable {
            patience: PATIENCE,
            last: "NotLeader".to_owned()
        }
    );

    let (mut requests, mut answered) = flying(put("id", 1));
    requests.on_break();
    requests.next_batch(START, 10).unwrap();
    requests.on_response(failed(2, Reason::NotLeader), START);
    requests.on_tick(PATIENCE);
    assert!(matches!(error(&mut answered), KvError::Unknown { .. }));

    let (mut requests, mut answered) = flying(read());
    requests.on_break();
    requests.on_tick(PATIENCE);
    assert!(
        matches!(error(&mut answered), KvError::Unavailable { .. }),
        "a read applies nothing"
    );
    assert!(requests.is_empty());
}

#[test]
fn a_refusal_after_an_attempt_that_may_have_been_applied_is_no_certain_refusal() {
    for (reason, certain) in [
        (Reason::Quota, false),
        (Reason::NoLease, false),
        (Reason::NoNamespace, false),
        (Reason::Invalid, true),
    ] {
        let (mut requests, mut answered) = flying(put("id", 1));
        requests.on_response(failed(1, reason), START);
        assert!(
            error(&mut answered).is(reason),
            "at the first attempt it is certain"
        );

        let (mut requests, mut answered) = flying(put("id", 1));
        requests.on_break();
        requests.next_batch(START, 10).unwrap();
        requests.on_response(failed(2, reason), START);
        assert_eq!(error(&mut answered).is(reason), certain, "{reason:?}");
    }
}

#[test]
fn an_overdue_request_is_a_sign_of_a_member_that_is_not_well() {
    let (mut requests, mut answered) = flying(read());
    assert!(!requests.on_tick(ATTEMPT - Duration::from_millis(1)));
    assert!(requests.on_tick(ATTEMPT));
    assert!(is_open(&mut answered) && requests.is_waiting());
}

#[test]
fn a_caller_that_has_gone_costs_nothing() {
    let mut requests = Requests::new(ATTEMPT);
    drop(call(&mut requests, put("", 1)));
    assert_eq!(requests.next_batch(START, 10), None);
    assert!(requests.is_empty());
}

#[test]
fn the_end_of_the_session_leaves_no_caller_waiting() {
    let (mut requests, mut sent) = flying(put("", 1));
    let mut waiting = call(&mut requests, put("", 1));
    requests.on_end();
    assert!(matches!(error(&mut sent), KvError::Unknown { .. }));
    assert_eq!(error(&mut waiting), KvError::Closed);
    assert!(requests.is_empty());
}
