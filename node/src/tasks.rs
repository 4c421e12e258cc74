//! Supervision of a process's background tasks.
//!
//! Every task is spawned here with a name and with what its failure means. The first failure of a task that the
//! process cannot do without cancels all others; `finished` then says which it was and why.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, error, info_span};

/// What the process does when a task ends with an error or a panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Log it; the rest goes on.
    Log,
    /// The process cannot go on: cancel everything, and exit with this error.
    Shutdown,
}

/// The tasks of one process. Clones share the same set.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    cancel: CancellationToken,
    first_failure: Arc<Mutex<Option<String>>>,
}

impl Tasks {
    /// Tasks that end when `cancel` is cancelled.
    pub fn new(cancel: CancellationToken) -> Self {
        Self {
            cancel,
            ..Self::default()
        }
    }

    /// Cancelled when the process is to end.
    pub fn cancellation(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Runs `future` until it ends. It has to end soon after [`Self::cancellation`].
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that spawns"
    )]
    pub fn spawn<E: Display>(
        &self,
        name: &'static str,
        on_failure: OnFailure,
        future: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let future = self
            .tracker
            .track_future(future.instrument(info_span!("task", name)));
        let tasks = self.clone();
        let watched = tokio::spawn(async move { future.await.map_err(|error| error.to_string()) });
        self.tracker.spawn(async move {
            let failure = match watched.await {
                Ok(Ok(())) => return,
                Ok(Err(failure)) => failure,
                Err(join) if join.is_panic() => format!("panicked: {join}"),
                Err(_) => return,
            };
            error!(task = name, failure, "background task failed");
            if on_failure == OnFailure::Shutdown {
                let mut first = tasks
                    .first_failure
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert_with(|| format!("{name}: {failure}"));
                tasks.cancel.cancel();
            }
        });
    }

    /// Cancels all tasks and waits for them, at most for `deadline`. The first fatal failure, if there was one.
    pub async fn shutdown(&self, deadline: Duration) -> Result<(), String> {
        self.cancel.cancel();
        self.tracker.close();
        let drained = tokio::time::timeout(deadline, self.tracker.wait()).await;
        match self
            .first_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            Some(failure) => Err(failure),
            None if drained.is_err() => Err(format!("tasks were still running after {deadline:?}")),
            None => Ok(()),
        }
    }
}

/// Runs work that blocks, on the disk or by computing, where nothing else waits for the thread.
pub fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    #[cfg(feature = "simulation")]
    if let Some(environment) = crate::simulation::environment() {
        #[expect(
            clippy::disallowed_methods,
            reason = "simulated processes have one thread, whose time passes in sleeps"
        )]
        return tokio::spawn(async move {
            tokio::time::sleep(environment.blocking_takes()).await;
            work()
        });
    }
    tokio::task::spawn_blocking(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_fatal_failure_cancels_the_rest_and_is_reported() {
        let tasks = Tasks::default();
        let cancelled = tasks.cancellation().clone();
        tasks.spawn("waits", OnFailure::Log, async move {
            cancelled.cancelled().await;
            Ok::<_, String>(())
        });
        tasks.spawn("breaks", OnFailure::Shutdown, async { Err("disk full") });
        tasks.cancellation().cancelled().await;
        assert_eq!(
            tasks.shutdown(Duration::from_secs(5)).await,
            Err("breaks: disk full".to_owned())
        );
    }

    #[tokio::test]
    async fn a_panic_is_a_failure() {
        let tasks = Tasks::default();
        tasks.spawn("panics", OnFailure::Shutdown, async {
            assert!(std::hint::black_box(false), "on purpose");
            Ok::<_, String>(())
        });
        tasks.cancellation().cancelled().await;
        assert!(
            tasks
                .shutdown(Duration::from_secs(5))
                .await
                .unwrap_err()
                .contains("on purpose")
        );
    }
}
