//! The well-behaved tenant: asks for a key, then sets one, at a fixed rate, whatever became of the request before.

use std::sync::Arc;
use std::time::Duration;

use flott_chaos_basis::random::Random;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Tenants;
use crate::history::{Action, Operation, Outcome};
use crate::invariants::checkpoint_log::{self, Listed};
use crate::invariants::jobs::Seen;
use crate::invariants::tenants::{Amounts, Answer, Event, Tenant};
use crate::runs::until;
use crate::workload::registers::{Client, Kind};

/// Clients, so that one that waits long does not keep the others.
const CLIENTS: u32 = 4;
/// Between two requests of a client: twenty requests a second in all.
const PERIOD: Duration = Duration::from_millis(200);
/// Between two looks at the namespaces. Each starts five processes.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// For each last read to be answered.
const LAST_READ_BOUND: Duration = Duration::from_secs(60);

/// Asks until `stop`; each client ends with what it did.
pub fn work(
    tenants: &Arc<Tenants>,
    random: &mut Random,
    stop: &CancellationToken,
) -> JoinSet<Vec<Operation>> {
    let mut clients = JoinSet::new();
    for number in 1..=CLIENTS {
        clients.spawn(ask(
            Arc::clone(tenants),
            number,
            random.fork(),
            stop.clone(),
        ));
    }
    clients
}

async fn ask(
    tenants: Arc<Tenants>,
    number: u32,
    mut random: Random,
    stop: CancellationToken,
) -> Vec<Operation> {
    let clock = tenants.clock().clone();
    let mut client = Client::new(&tenants.registers, number, Kind::Steady, random.fork());
    let mut operations = Vec::new();
    let mut due = clock.monotonic() + PERIOD * number / CLIENTS;
    for turn in 1_u64.. {
        let wait = due.saturating_sub(clock.monotonic());
        tokio::select! { biased;
            () = stop.cancelled() => break,
            () = clock.sleep(wait) => {}
        }
        let key = random.below(u64::from(tenants.registers.keys)) as u32;
        let action = match turn % 2 {
            0 => Action::Read,
            _ => Action::Write(client.value(turn)),
        };
        let operation = client.operate(key, action).await;
        let since_start = |time: Duration| time.saturating_sub(tenants.start).as_micros() as u64;
        tenants.record(Event::Asked {
            due_us: since_start(due),
            ended_us: since_start(clock.monotonic()),
            answer: answer_of(operation.as_ref()),
        });
        operations.extend(operation);
        due += PERIOD;
    }
    operations
}

fn answer_of(operation: Option<&Operation>) -> Answer {
    match operation.map(|operation| &operation.outcome) {
        None => Answer::Unknown("there was no connection".to_owned()),
        Some(Outcome::Done | Outcome::Found(_)) => Answer::Done,
        Some(Outcome::Failed(why)) => Answer::Refused(why.clone()),
        Some(Outcome::Unknown(why)) => Answer::Unknown(why.clone()),
    }
}

/// Looks at both namespaces until `stop`: what they use, their jobs, and how far the steady tenant's job is.
pub async fn look(tenants: Arc<Tenants>, stop: CancellationToken) {
    loop {
        tokio::select! { biased;
            () = stop.cancelled() => return,
            () = look_once(&tenants) => {}
        }
        tokio::select! { biased;
            () = stop.cancelled() => return,
            () = tenants.clock().sleep(LOOK_EVERY) => {}
        }
    }
}

async fn look_once(tenants: &Tenants) {
    let mut attempt = 0;
    for tenant in Tenant::ALL {
        let name = tenants.namespace(tenant);
        if let Ok(described) = tenants.client.json(&["namespace", "describe", &name]).await {
            tenants.record(Event::Used {
                tenant,
                at_ms: tenants.now_ms(),
                used: amounts(&described["used"]),
                quota: amounts(&described["quota"]),
            });
        }
        if let Ok(listed) = tenants.client.json(&["list", "-z", &name]).await {
            let jobs = Seen::all(&listed);
            let own = jobs.iter().find(|job| job.id == tenants.job);
            attempt = own.map_or(attempt, |job| job.attempt);
            tenants.record(Event::Listed {
                tenant,
                at_ms: tenants.now_ms(),
                jobs,
            });
        }
    }
    let name = tenants.namespace(Tenant::Steady);
    let arguments = ["checkpoints", "-z", &name, &tenants.job];
    if let Ok(listed) = tenants.client.json(&arguments).await {
        let at_ms = tenants.now_ms();
        let list = Listed::of(&listed, at_ms);
        tenants.record(Event::Progress {
            at_ms,
            checkpoint: checkpoint_log::newest(&[list]),
            attempt,
        });
    }
}

fn amounts(value: &Value) -> Amounts {
    let amount = |name: &str| value[name].as_u64().unwrap_or(0);
    Amounts {
        jobs: amount("jobs"),
        slots: amount("slots"),
        kv_bytes: amount("kv_bytes"),
        checkpoint_bytes: amount("checkpoint_bytes"),
    }
}

/// Reads every register of the steady tenant once more, and adds the reads to `operations`.
pub async fn read_again(
    tenants: &Tenants,
    random: Random,
    operations: &mut Vec<Operation>,
) -> anyhow::Result<()> {
    let mut client = Client::new(&tenants.registers, CLIENTS + 1, Kind::Steady, random);
    for key in 0..tenants.registers.keys {
        until(tenants.clock(), LAST_READ_BOUND, async || {
            let operation = client.operate(key, Action::Read).await;
            let known = operation.as_ref().is_some_and(Operation::is_acknowledged);
            let last = format!("register {key} of the steady tenant: {operation:?}");
            operations.extend(operation);
            known.then_some(()).ok_or(last)
        })
        .await?;
    }
    Ok(())
}
