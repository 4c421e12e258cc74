//! Whatever object storage does: a checkpoint is complete and right, or it fails and the task goes on; and a restore
//! brings back exactly what was there, or fails.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flott_node::storage::{self, ObjectStorage};
use flott_node::testing::{Call, Fault, Operation, S3Server, SeaweedFs};
use flott_proto::ids::CheckpointId;
use flott_proto::key_group::KeyGroupRange;
use flott_proto::state_handle::SubtaskState;
use flott_statestore::{Error, StateBatch, StateId};

use crate::fixture::{Contents, MAX_PARALLELISM, Task, at, contents, restore};

const CHECKPOINTS: u64 = 5;

/// Short, for it is waited for often; a request that a busy machine delays beyond it is only sent again.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(400);

fn all() -> KeyGroupRange {
    KeyGroupRange::all(MAX_PARALLELISM)
}

/// A task beside a map that holds what its state should hold.
struct Run {
    task: Task,
    state: StateId,
    model: Contents,
    /// The state at each checkpoint that completed, with its contents.
    completed: Vec<(SubtaskState, Contents)>,
    local: tempfile::TempDir,
    restores: usize,
}

impl Run {
    fn start(storage: &ObjectStorage) -> Self {
        let local = tempfile::tempdir().unwrap();
        let mut task = Task::start(&local.path().join("task"), storage, "w", all());
        let state = task.backend.state("op", "value").unwrap();
        Self {
            task,
            state,
            model: Contents::new(),
            completed: Vec::new(),
            local,
            restores: 0,
        }
    }

    /// Writes some keys and deletes others, different ones each time.
    fn change(&mut self, round: u64) {
        let mut batch = StateBatch::new();
        for key in (0..2000u64).step_by(round as usize) {
            let (key, value) = (key.to_be_bytes().to_vec(), (key * round).to_be_bytes());
            batch.put(self.state, at(&key, b""), &value);
            self.model.insert((key, Vec::new()), value.to_vec());
        }
        for key in (round..2000).step_by(7) {
            let key = key.to_be_bytes().to_vec();
            batch.delete(self.state, at(&key, b""));
            self.model.remove(&(key, Vec::new()));
        }
        self.task.backend.write(batch).unwrap();
    }

    /// A checkpoint that completes, or is aborted if its upload fails.
    async fn checkpoint(&mut self, id: u64) -> Result<(), Error> {
        let id = CheckpointId(id);
        let snapshot = self.task.backend.snapshot(id).unwrap();
        let base = self.task.base();
        let uploaded = self.task.uploader.upload(snapshot, base, None).await;
        let uploaded = uploaded.inspect_err(|_| self.task.uploader.aborted(id))?;
        let state = self.task.complete(id, &uploaded);
        self.completed.push((state, self.model.clone()));
        Ok(())
    }

    async fn restore(&mut self, index: usize) -> Result<Contents, Error> {
        self.restores += 1;
        let dir = self
            .local
            .path()
            .join(format!("restored-{}", self.restores));
        let state = std::slice::from_ref(&self.completed[index].0);
        let mut restored = restore(&dir, &self.task.storage, state, all()).await?;
        let state = restored.state("op", "value").unwrap();
        Ok(contents(&restored, state))
    }

    /// Every checkpoint that completed has the entries that it had.
    async fn check(&mut self) {
        for index in 0..self.completed.len() {
            let found = self.restore(index).await.unwrap();
            assert!(found == self.completed[index].1, "checkpoint {index}");
        }
    }
}

/// Checkpoints and restores go well although each request fails in this way the first time.
async fn passes_unnoticed(fault: Fault) {
    let server = S3Server::start().await;
    server.plan(move |call| (call.attempt == 1).then_some(fault));
    let storage = server.storage().with_request_timeout(REQUEST_TIMEOUT);
    let mut run = Run::start(&storage);
    for id in 1..=CHECKPOINTS {
        run.change(id);
        run.checkpoint(id).await.unwrap();
    }
    run.check().await;
    let listings = |call: &Call| call.operation == Operation::List;
    assert!(
        !server.calls().iter().any(listings),
        "listings may be stale"
    );
}

#[tokio::test]
async fn server_errors_pass_unnoticed() {
    for status in [500, 503, 429] {
        passes_unnoticed(Fault::Status(status)).await;
    }
}

#[tokio::test]
async fn broken_connections_pass_unnoticed() {
    passes_unnoticed(Fault::Reset).await;
}

#[tokio::test]
async fn slow_answers_pass_unnoticed() {
    passes_unnoticed(Fault::Slow(Duration::from_millis(20))).await;
}

#[tokio::test]
async fn lost_answers_pass_unnoticed() {
    passes_unnoticed(Fault::NoAnswer).await;
}

#[tokio::test]
async fn stale_listings_pass_unnoticed() {
    passes_unnoticed(Fault::StaleList).await;
}

#[tokio::test]
async fn bits_flipped_on_the_way_pass_unnoticed() {
    passes_unnoticed(Fault::FlippedBit).await;
}

#[tokio::test]
async fn a_checkpoint_fails_while_storage_does_and_the_next_one_holds_everything() {
    for fault in [Fault::Status(503), Fault::Status(403), Fault::Reset] {
        let server = S3Server::start().await;
        let mut run = Run::start(&server.storage());
        for id in 1..=CHECKPOINTS {
            run.change(id);
            // Every second checkpoint meets an outage after its first file.
            if id % 2 == 0 {
                let requests = AtomicUsize::new(0);
                server.plan(move |_| {
                    let earlier = requests.fetch_add(1, Ordering::Relaxed);
                    (earlier > 0).then_some(fault)
                });
            }
            let outcome = run.checkpoint(id).await;
            assert_eq!(outcome.is_err(), id % 2 == 0, "{outcome:?}");
            server.heal();
        }
        run.check().await;
    }
}

#[tokio::test]
async fn a_refusal_says_what_to_do_and_is_not_repeated() {
    let server = S3Server::start().await;
    let mut run = Run::start(&server.storage());
    run.change(1);
    run.checkpoint(1).await.unwrap();
    server.plan(|_| Some(Fault::Status(403)));
    run.change(2);
    let refusals = [
        run.checkpoint(2).await.unwrap_err(),
        run.restore(0).await.unwrap_err(),
    ];
    for error in refusals {
        let Error::Storage(error @ storage::Error::Denied { .. }) = error else {
            panic!("{error:?}");
        };
        assert!(
            error.to_string().contains("check the credentials"),
            "{error}"
        );
    }
    assert!(server.calls().iter().all(|call| call.attempt == 1));
}

#[tokio::test]
async fn a_file_that_always_comes_damaged_is_reported_after_bounded_tries() {
    let server = S3Server::start().await;
    let mut run = Run::start(&server.storage());
    run.change(1);
    run.checkpoint(1).await.unwrap();
    server.plan(|_| Some(Fault::FlippedBit));
    let refused = run.restore(0).await;
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    assert!(server.calls().iter().all(|call| call.attempt <= 3));
}

#[tokio::test]
async fn checkpoints_survive_on_seaweedfs() {
    let Some(server) = SeaweedFs::start().await else {
        return;
    };
    let mut run = Run::start(&server.storage());
    for id in 1..=CHECKPOINTS {
        run.change(id);
        run.checkpoint(id).await.unwrap();
    }
    run.check().await;
}
