//! A task in a simulation: the same steps, without a thread. Between two of them others have their turn.

use std::sync::Arc;
use std::time::Duration;

use flott_node::OnFailure;
use flott_node::simulation::{Environment, Told};
use flott_proto::ids::{CheckpointId, TaskId};

use super::run::{self, Step, TaskEvent, TaskSpec};
use crate::Error;

/// Steps that take no time together.
const STEPS_AT_ONCE: u32 = 8;

/// Starts the task.
pub(super) fn spawn(spec: TaskSpec, environment: Arc<dyn Environment>) {
    let (events, gate) = (spec.events.clone(), Arc::clone(&spec.ends.gate));
    let (tasks, task) = (spec.tasks.clone(), Identity::of(&spec.task));
    environment.tells(task.began(spec.state.restored_checkpoint));
    tasks.spawn("task", OnFailure::Log, async move {
        let result = execute(spec, &task, &environment).await;
        gate.close();
        environment.tells(task.ended());
        events.tell(TaskEvent::Ended(result));
        Ok::<_, std::convert::Infallible>(())
    });
}

async fn execute(
    spec: TaskSpec,
    identity: &Identity,
    environment: &Arc<dyn Environment>,
) -> Result<(), Error> {
    let mut task = run::open(spec).await?;
    let (mut steps, mut committed) = (0, CheckpointId::NONE);
    loop {
        let step = task.step()?;
        let newest = task.progress.last_committed();
        if newest > committed {
            committed = newest;
            environment.tells(identity.committed(committed));
        }
        match step {
            Step::Again if steps < STEPS_AT_ONCE => steps += 1,
            Step::Again => {
                steps = 0;
                task.clock.sleep(environment.blocking_takes()).await;
            }
            Step::Wait(wait) => {
                steps = 0;
                let wait = wait.max(Duration::from_millis(1));
                task.mailbox.wait_simulated(wait, &task.clock).await;
            }
            Step::Finished => return Ok(()),
        }
    }
}

/// What a task tells of itself.
struct Identity {
    job: String,
    attempt: u32,
    subtask: String,
}

impl Identity {
    fn of(task: &TaskId) -> Self {
        Self {
            job: task.job.to_string(),
            attempt: task.attempt.0,
            subtask: task.subtask.to_string(),
        }
    }

    fn began(&self, restored: CheckpointId) -> Told {
        Told::TaskBegan {
            job: self.job.clone(),
            attempt: self.attempt,
            subtask: self.subtask.clone(),
            restored: restored.0,
        }
    }

    fn committed(&self, checkpoint: CheckpointId) -> Told {
        Told::TaskCommitted {
            job: self.job.clone(),
            attempt: self.attempt,
            subtask: self.subtask.clone(),
            checkpoint: checkpoint.0,
        }
    }

    fn ended(&self) -> Told {
        Told::TaskEnded {
            job: self.job.clone(),
            attempt: self.attempt,
            subtask: self.subtask.clone(),
        }
    }
}
