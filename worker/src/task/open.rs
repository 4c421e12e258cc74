//! What a task opens before it runs: its keyed state, and what was on its way when the restored checkpoint was taken.

use flott_node::storage::ObjectStorage;
use flott_proto::key_group::KeyGroupRange;
use flott_proto::state_handle::SubtaskState;
use flott_statestore::{KeyedBackend, SnapshotUploader, Source};
use tracing::info;

use super::run::TaskSpec;
use crate::Error;
use crate::channel_state::restore::{self, Heir, Share};
use crate::channel_state::restored::Restored;

/// The keyed state of a task that has some, and who uploads it.
pub(super) async fn open_state(
    spec: &TaskSpec,
    key_groups: KeyGroupRange,
) -> Result<(Option<KeyedBackend>, Option<SnapshotUploader>), Error> {
    let state = &spec.state;
    let max_parallelism = spec.vertex.max_parallelism;
    let own = if state.storage_root.is_empty() {
        None
    } else {
        Some(open(&state.storage_root)?)
    };
    let restored = state.restore.iter().map(SubtaskState::without_channels);
    let restored: Vec<SubtaskState> = restored.collect();
    let restores = restored.iter().any(|subtask| !subtask.files.is_empty());
    let backend = if restores {
        let source = match (&own, state.restore_root.as_str()) {
            (Some(own), "") => Source {
                storage: own.clone(),
                local: state.local.clone(),
            },
            (None, "") => {
                return Err(Error::Configuration(
                    "state is to be restored, but execution.checkpointing.dir is not set".into(),
                ));
            }
            (_, root) => open(root)?.into(),
        };
        let start = spec.clock.monotonic();
        let opened = flott_statestore::restore(
            &state.dir,
            &source,
            &restored,
            max_parallelism,
            key_groups,
            state.options,
        );
        let opened = unless_canceled(spec, opened).await?;
        let bytes: u64 = restored.iter().map(SubtaskState::size).sum();
        let took_ms = spec.clock.monotonic().saturating_sub(start).as_millis() as u64;
        info!(checkpoint = %state.restored_checkpoint, bytes, took_ms, "state restored");
        opened.map_err(Error::restoring(state.restored_checkpoint, &restored))?
    } else {
        KeyedBackend::create(&state.dir, max_parallelism, key_groups, state.options)?
    };
    let uploader = own.map(|storage| {
        let uploader = SnapshotUploader::new(storage, state.writer.clone(), key_groups);
        match &state.local {
            Some(local) => uploader.keeping(local.of_subtask(spec.task.subtask.to_string())),
            None => uploader,
        }
    });
    if let (Some(uploader), "") = (&uploader, state.restore_root.as_str()) {
        let files = backend.restored_files();
        uploader.restored_from(state.restored_checkpoint, files, state.is_base);
    }
    Ok((Some(backend), uploader))
}

/// What was on its way to this task when the restored checkpoint was taken; and what was on its way from it waits in its output
/// again. All comes from storage: it is little, and was written in a hurry.
pub(super) async fn restore_channels(spec: &mut TaskSpec) -> Result<Restored, Error> {
    let state = &spec.state;
    let files: Vec<_> = state
        .restore
        .iter()
        .flat_map(SubtaskState::channel_files)
        .collect();
    let mut input = Vec::new();
    if files.is_empty() {
        return Ok(Restored::default());
    }
    let root = if state.restore_root.is_empty() {
        &state.storage_root
    } else {
        &state.restore_root
    };
    let storage = open(root)?;
    let heir = Heir {
        graph: &spec.graph,
        vertex: &spec.vertex,
        subtask: spec.task.subtask.subtask,
        input: super::run::input_schema(&spec.graph, &spec.vertex),
    };
    for file in &files {
        let read = unless_canceled(spec, restore::read(&storage, file)).await?;
        let read = read.map_err(Error::restoring(state.restored_checkpoint, &state.restore));
        let (owner, channels) = read?;
        let share: Share = heir.share(&owner, channels)?;
        input.extend(share.input);
        for (content, own) in share.output {
            spec.ends.output.restore(content, own)?;
        }
    }
    let elements = input.len();
    info!(checkpoint = %state.restored_checkpoint, objects = files.len(), elements, "channel state restored");
    Ok(Restored::new(input))
}

/// Waits for `work`, unless the task is canceled meanwhile.
async fn unless_canceled<T>(spec: &TaskSpec, work: impl Future<Output = T>) -> Result<T, Error> {
    let done = tokio::select! { biased;
        () = spec.mailbox.cancellation().cancelled() => None,
        done = work => Some(done),
    };
    done.ok_or_else(|| spec.mailbox.check().err().unwrap_or(Error::Canceled))
}

/// The storage below `root`.
pub(super) fn open(root: &str) -> Result<ObjectStorage, Error> {
    ObjectStorage::open(root).map_err(|error| Error::Storage {
        root: root.to_owned(),
        what: error.to_string(),
    })
}
