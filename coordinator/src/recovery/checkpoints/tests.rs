//! What is in storage, against what is recorded.

use bytes::Bytes;
use flott_proto::ids::SubtaskId;
use flott_proto::state_handle::{StateFile, SubtaskState};

use super::*;
use crate::core::records::vertices_to_wire;
use crate::core::testing::World;

/// A job that runs in cluster `c`, with a directory of its own for its checkpoints, and has completed some; the files of those
/// it retains are there.
struct Old {
    world: World,
    id: JobId,
    storage: ObjectStorage,
}

impl Old {
    async fn new(root: &str) -> Self {
        let (mut world, id, storage) = World::with_checkpoints_in(root);
        let job = Arc::make_mut(world.state.jobs.get_mut(&id).unwrap());
        // The files where a real TaskManager puts them, with bytes.
        let directory = paths::job(&"c".parse().unwrap(), &job.namespace, &job.id);
        let retained = job.checkpoints.retained.iter().map(|checkpoint| {
            let mut moved = (**checkpoint).clone();
            for state in moved.subtasks.values_mut() {
                *state = SubtaskState {
                    operators: state.operators.clone(),
                    files: state
                        .files
                        .values()
                        .map(|file| moved_to(&directory, file))
                        .collect(),
                };
            }
            Arc::new(moved)
        });
        job.checkpoints.retained = retained.collect();
        let old = Self { world, id, storage };
        for checkpoint in old.retained() {
            old.put_files(&checkpoint).await;
        }
        old
    }

    fn job(&self) -> &Job {
        self.world.job(&self.id)
    }

    fn retained(&self) -> Vec<Arc<CompletedCheckpoint>> {
        self.job().checkpoints.retained.clone()
    }

    async fn put_files(&self, checkpoint: &CompletedCheckpoint) {
        for file in checkpoint
            .subtasks
            .values()
            .flat_map(|state| state.files.values())
        {
            let bytes = Bytes::from(vec![0; file.size as usize]);
            self.storage.put(&file.path, bytes).await.unwrap();
        }
    }

    async fn remove_files(&self, checkpoint: &CompletedCheckpoint) {
        for file in checkpoint
            .subtasks
            .values()
            .flat_map(|state| state.files.values())
        {
            self.storage.delete(&file.path).await.unwrap();
        }
    }

    /// A checkpoint that the old cluster completed later: the metadata and one file a subtask.
    async fn later(&self, id: u64) -> CompletedCheckpoint {
        let directory = paths::job(&"c".parse().unwrap(), &self.job().namespace, &self.id);
        let state = |subtask: SubtaskId| {
            let file = StateFile {
                path: format!(
                    "{directory}/shared/later-{id}/{}-{}",
                    subtask.vertex, subtask.subtask
                ),
                local_name: "1.sst".to_owned(),
                size: 3,
                crc32c: 0,
                tablets: vec![flott_proto::key_group::KeyGroupRange::all(1)],
            };
            let files = BTreeMap::from([(file.path.clone(), file)]);
            let operators = BTreeMap::new();
            (subtask, SubtaskState { operators, files })
        };
        let checkpoint = CompletedCheckpoint {
            id: CheckpointId(id),
            kind: CheckpointKind::Checkpoint,
            triggered_at_ms: 5,
            completed_at_ms: 5,
            uploaded_bytes: 0,
            external_path: String::new(),
            metadata_object: None,
            subtasks: self.job().subtasks().map(state).collect(),
        };
        self.put_files(&checkpoint).await;
        self.put_metadata(id, &checkpoint.subtasks).await;
        checkpoint
    }

    async fn put_metadata(&self, id: u64, subtasks: &BTreeMap<SubtaskId, SubtaskState>) {
        let metadata = wire::CheckpointMetadata {
            version: 1,
            cluster_id: "c".to_owned(),
            namespace: self.job().namespace.to_string(),
            job_id: self.id.to_string(),
            checkpoint_id: id,
            kind: wire::CheckpointKind::Checkpoint.into(),
            triggered_at_ms: 5,
            vertices: vertices_to_wire(subtasks, |_| 1),
            ..Default::default()
        };
        let bytes = checkpoint_files::encode(&metadata);
        self.storage
            .put(&self.metadata_path(id), bytes)
            .await
            .unwrap();
    }

    fn metadata_path(&self, id: u64) -> String {
        let directory = paths::job(&"c".parse().unwrap(), &self.job().namespace, &self.id);
        format!(
            "{}/{}",
            paths::checkpoint(&directory, CheckpointId(id)),
            paths::METADATA
        )
    }

    async fn survey(&self) -> Surveyed {
        let surveyed = survey(&"c".parse().unwrap(), &self.world.state)
            .await
            .unwrap();
        surveyed[&self.id].clone()
    }

    async fn usable(&self) -> Vec<u64> {
        match self.survey().await {
            Surveyed::Usable(checkpoints) => checkpoints.iter().map(|one| one.id.0).collect(),
            Surveyed::Lost(why) => panic!("{why}"),
        }
    }
}

fn moved_to(directory: &str, file: &StateFile) -> (String, StateFile) {
    let path = format!("{directory}/shared/{}", file.path);
    let moved = StateFile {
        path: path.clone(),
        ..file.clone()
    };
    (path, moved)
}

fn ids(checkpoints: &[Arc<CompletedCheckpoint>]) -> Vec<u64> {
    checkpoints.iter().map(|one| one.id.0).collect()
}

#[tokio::test]
async fn what_is_recorded_and_whole_is_taken_as_it_is() {
    let old = Old::new("as-recorded").await;
    assert_eq!(old.survey().await, Surveyed::Usable(old.retained()));
    assert_eq!(old.retained().len(), 2);
}

#[tokio::test]
async fn a_newer_checkpoint_in_storage_is_found_and_a_damaged_one_is_not() {
    let old = Old::new("newer").await;
    let last = old.job().checkpoints.last_id.0;
    old.later(last + 5).await;
    let newest = old.later(last + 9).await;
    assert_eq!(old.usable().await, [last + 5, last + 9]);
    // Its metadata does not decode, or names what is not there.
    let path = old.metadata_path(last + 9);
    let intact = old.storage.get(&path).await.unwrap();
    let mut damaged = intact.to_vec();
    damaged[20] ^= 1;
    old.storage.put(&path, damaged.into()).await.unwrap();
    assert_eq!(old.usable().await.last(), Some(&(last + 5)));
    old.storage.put(&path, intact).await.unwrap();
    old.remove_files(&newest).await;
    assert_eq!(old.usable().await.last(), Some(&(last + 5)));
    old.put_metadata(last + 9, &BTreeMap::new()).await;
    assert_eq!(old.usable().await.last(), Some(&(last + 5)));
}

#[tokio::test]
async fn a_checkpoint_that_the_state_gave_up_is_left_out_and_a_pending_one_is_not() {
    let mut old = Old::new("given-up").await;
    let recorded = ids(&old.retained());
    let last = old.job().checkpoints.last_id.0;
    let job = Arc::make_mut(old.world.state.jobs.get_mut(&old.id).unwrap());
    job.checkpoints.last_id = CheckpointId(last + 1);
    job.checkpoints.pending = None;
    old.later(last + 1).await;
    assert_eq!(old.usable().await, recorded);
    let job = Arc::make_mut(old.world.state.jobs.get_mut(&old.id).unwrap());
    job.checkpoints.pending = Some(crate::core::checkpoint::PendingRecord {
        id: CheckpointId(last + 1),
        kind: CheckpointKind::Checkpoint,
        attempt: job.attempt,
        triggered_at_ms: 1,
        base: CheckpointId::NONE,
        savepoint_directory: String::new(),
    });
    assert_eq!(old.usable().await.last(), Some(&(last + 1)));
}

#[tokio::test]
async fn a_job_is_lost_only_if_it_had_checkpoints_and_none_is_whole() {
    let mut old = Old::new("lost").await;
    let retained = old.retained();
    old.remove_files(&retained[1]).await;
    // Later checkpoints share files with earlier ones.
    old.put_files(&retained[0]).await;
    assert_eq!(old.usable().await, [retained[0].id.0]);
    old.remove_files(&retained[0]).await;
    let Surveyed::Lost(why) = old.survey().await else {
        panic!("nothing is whole")
    };
    assert!(why.contains("which is gone"), "{why}");
    let job = Arc::make_mut(old.world.state.jobs.get_mut(&old.id).unwrap());
    job.checkpoints.retained.clear();
    assert_eq!(old.survey().await, Surveyed::Usable(Vec::new()));
}
