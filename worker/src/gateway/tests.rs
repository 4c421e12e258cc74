//! Tables of the gateway's core.

use super::*;

const INTERVAL: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(3);
const START: Duration = Duration::from_secs(100);

fn task(subtask: u32) -> TaskId {
    let task = wire::TaskId {
        job_id: "0123456789abcdef0123456789abcdef".into(),
        vertex: "v".into(),
        subtask,
        attempt: 2,
    };
    task.try_into().unwrap()
}

fn from_leader(epoch: u64, message: FromLeader) -> JobManagerMessage {
    JobManagerMessage {
        epoch,
        message: Some(message),
    }
}

fn registered(epoch: u64) -> JobManagerMessage {
    let registered = wire::Registered {
        heartbeat_interval_ms: 200,
        heartbeat_timeout_ms: 1000,
    };
    from_leader(epoch, FromLeader::Registered(registered))
}

fn attached(epoch: u64) -> GatewayCore {
    let mut core = GatewayCore::new(INTERVAL, TIMEOUT);
    core.on_opened(1, Register::default(), START);
    core.on_message(1, registered(epoch), START).unwrap();
    core
}

fn ack(core: &mut GatewayCore, subtask: u32, checkpoint: u64) -> Option<TaskManagerMessage> {
    let ack = CheckpointAck {
        task: Some((&task(subtask)).into()),
        checkpoint_id: checkpoint,
        ..CheckpointAck::default()
    };
    core.on_ack(&task(subtask), ack)
}

fn reopened(core: &mut GatewayCore, id: SessionId) -> (Register, Vec<TaskManagerMessage>) {
    let mut messages = core.on_opened(id, Register::default(), START);
    let Some(ToLeader::Register(register)) = messages.remove(0).message else {
        panic!("Register comes first");
    };
    (register, messages)
}

#[test]
fn what_no_leader_has_confirmed_is_in_the_next_register() {
    let mut core = attached(5);
    assert!(ack(&mut core, 0, 1).is_some());
    core.on_closed(1);
    assert!(ack(&mut core, 1, 1).is_none(), "nowhere to send it");
    assert!(
        core.on_decline(&task(2), CheckpointId(1), "disk full".into())
            .is_none()
    );
    let failed = TaskReport {
        failure_is_final: true,
        ..TaskReport::default()
    };
    assert!(core.on_status(&task(3), failed.clone(), true).is_none());
    let (register, rest) = reopened(&mut core, 2);
    assert_eq!(register.held_acks.len(), 2);
    assert_eq!(register.tasks, [failed]);
    assert!(matches!(
        rest[0].message,
        Some(ToLeader::CheckpointDeclined(_))
    ));
    assert_eq!(rest[0].epoch, 0, "the new leader has not named its epoch");
}

#[test]
fn acks_are_let_go_when_their_checkpoint_is_over() {
    let mut core = attached(5);
    for checkpoint in [3, 4, 5] {
        ack(&mut core, 0, checkpoint);
    }
    let job = task(0).job;
    core.on_checkpoint_over(&job, AttemptNumber(2), CheckpointId(3), false);
    assert_eq!(core.held_acks(), 2);
    core.on_checkpoint_over(&job, AttemptNumber(2), CheckpointId(4), true);
    assert_eq!(core.held_acks(), 1);
    core.on_attempts_over(&job, AttemptNumber(1));
    assert_eq!(
        core.held_acks(),
        1,
        "a lower attempt's end concerns no task of this one"
    );
    core.on_attempts_over(&job, AttemptNumber(2));
    assert_eq!(core.held_acks(), 0);
}

#[test]
fn held_acks_are_bounded_and_the_oldest_checkpoint_goes_first() {
    let mut core = attached(5);
    for subtask in 0..HELD_ACKS_MAX as u32 {
        ack(&mut core, subtask, 2);
    }
    ack(&mut core, 0, 1);
    ack(&mut core, 0, 3);
    let (register, _) = reopened(&mut core, 2);
    assert_eq!(register.held_acks.len(), HELD_ACKS_MAX);
    assert!(register.held_acks.iter().all(|ack| ack.checkpoint_id > 1));
    assert!(register.held_acks.iter().any(|ack| ack.checkpoint_id == 3));
}

#[test]
fn a_deposed_leader_is_refused_on_the_stream_and_at_the_door() {
    let mut core = attached(5);
    let cancel = || FromLeader::Cancel(wire::CancelTasks::default());
    let refused = core.on_message(1, from_leader(4, cancel()), START);
    assert!(matches!(refused, Err(Refused::Fenced { close: false, .. })));
    assert_eq!(
        core.on_message(1, from_leader(5, cancel()), START),
        Ok(Some(cancel()))
    );
    core.on_opened(2, Register::default(), START);
    assert!(matches!(
        core.on_message(2, registered(4), START),
        Err(Refused::Fenced { close: true, .. })
    ));
    assert_eq!(core.attached_to(), None);
    assert_eq!(
        core.on_message(1, from_leader(6, cancel()), START),
        Err(Refused::Stale)
    );
    core.on_message(2, registered(6), START).unwrap();
    assert_eq!(core.attached_to(), Some(LeaderEpoch(6)));
}

#[test]
fn a_silent_leader_is_left_and_a_living_one_hears_heartbeats() {
    let mut core = GatewayCore::new(INTERVAL, TIMEOUT);
    assert_eq!(core.on_tick(START), Tick::Nothing);
    core.on_opened(1, Register::default(), START);
    assert_eq!(
        core.on_tick(START + INTERVAL),
        Tick::Nothing,
        "not before it is registered"
    );
    core.on_message(1, registered(5), START + INTERVAL).unwrap();
    // The leader's own intervals hold now: 200 ms and 1 s.
    let at = |ms| START + INTERVAL + Duration::from_millis(ms);
    assert_eq!(core.on_tick(at(210)), Tick::Beat);
    assert_eq!(core.on_tick(at(300)), Tick::Nothing);
    let beat = from_leader(5, FromLeader::Heartbeat(wire::LeaderHeartbeat {}));
    core.on_message(1, beat, at(900)).unwrap();
    assert_eq!(core.on_tick(at(1800)), Tick::Beat);
    assert_eq!(core.on_tick(at(1900)), Tick::Close);
    core.on_closed(7);
    assert!(
        core.heartbeat(Vec::new()).is_some(),
        "the end of another session changes nothing"
    );
    core.on_closed(1);
    assert!(core.heartbeat(Vec::new()).is_none());
}
