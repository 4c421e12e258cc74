//! State that was saved is read again by who only wants to look.

use std::ops::ControlFlow;
use std::path::Path;

use arrow::array::AsArray;
use arrow::datatypes::TimestampMillisecondType;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use flott_node::storage::ObjectStorage;
use flott_proto::ids::CheckpointId;
use flott_proto::key_group::{KeyGroup, KeyGroupRange};
use flott_proto::state_handle::SubtaskState;
use flott_proto::wire;
use flott_statestore::{
    BackendOptions, KeyedBackend, SnapshotUploader, StateBatch, StateKey, Timer,
};
use flott_worker::Error;
use flott_worker::saved_state::{Done, RecordFormat, Wanted, read, summary};
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

const MAX_PARALLELISM: u32 = 16;
/// What an early build wrote: nobody has recorded whose it is.
const UNKNOWN: &[u8] = b"";

/// A savepoint of one vertex in two subtasks, with `keys` keys of one byte in a state `counts` and a timer for each.
async fn savepoint(directory: &Path, keys: u8) -> wire::CheckpointMetadata {
    let root = directory.join("savepoint").display().to_string();
    let storage = ObjectStorage::open(&root).unwrap();
    let mut subtasks = Vec::new();
    for subtask in 0..2 {
        let own = KeyGroupRange::of_subtask(subtask, MAX_PARALLELISM, 2);
        let options = BackendOptions::rocksdb(0);
        let dir = directory.join(format!("task-{subtask}"));
        let mut backend = KeyedBackend::create(&dir, MAX_PARALLELISM, own, options).unwrap();
        let state = backend.state("count", "counts").unwrap();
        let mut batch = StateBatch::new();
        for key in 0..keys {
            let group = KeyGroup::of_key(&[key], MAX_PARALLELISM);
            if !own.contains(group) {
                continue;
            }
            let at = StateKey {
                group,
                key: &[key],
                namespace: b"",
            };
            batch.put(state, at, &[0xab, key]);
            let timer = Timer {
                time_ms: key.into(),
                group,
                key: vec![key],
                namespace: Vec::new(),
            };
            batch.put_timer(state, timer);
        }
        backend.write(batch).unwrap();
        let snapshot = backend.snapshot(CheckpointId(1)).unwrap();
        let uploader = SnapshotUploader::new(storage.clone(), format!("1-1-v-{subtask}"), own);
        let uploaded = uploader.upload(snapshot, CheckpointId::NONE, Some(&storage));
        let files = uploaded.await.unwrap().added.into_iter();
        let saved = SubtaskState {
            operators: [("count".to_owned(), UNKNOWN.into())].into(),
            files: files.map(|file| (file.path.clone(), file)).collect(),
        };
        subtasks.push(saved.to_wire(subtask));
    }
    wire::CheckpointMetadata {
        root,
        vertices: vec![wire::VertexState {
            uid: "v".into(),
            parallelism: 2,
            max_parallelism: MAX_PARALLELISM,
            subtasks,
        }],
        ..Default::default()
    }
}

/// What is read, in one piece.
async fn printed(
    metadata: &wire::CheckpointMetadata,
    wanted: Wanted<'_>,
) -> Result<(Vec<u8>, Done), Error> {
    let scratch = tempfile::tempdir().unwrap();
    let mut printed = Vec::new();
    let mut out = |bytes: &[u8]| {
        printed.extend_from_slice(bytes);
        ControlFlow::Continue(())
    };
    let done = read(metadata, wanted, scratch.path(), &mut out).await?;
    let left = std::fs::read_dir(scratch.path()).unwrap().count();
    assert_eq!(left, 0, "no tablet stays");
    Ok((printed, done))
}

async fn lines(
    metadata: &wire::CheckpointMetadata,
    operator: &str,
    state: Option<&str>,
    limit: Option<u64>,
) -> Result<(Vec<String>, Done), Error> {
    let wanted = Wanted {
        operator,
        state,
        limit,
        format: RecordFormat::Csv,
    };
    let (printed, done) = printed(metadata, wanted).await?;
    let text = String::from_utf8(printed).unwrap();
    Ok((text.lines().map(str::to_owned).collect(), done))
}

#[tokio::test]
async fn state_whose_types_nobody_has_recorded_is_read_as_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let metadata = savepoint(directory.path(), 40).await;
    let before = metadata.clone();
    let (mut values, done) = lines(&metadata, "count", None, None).await.unwrap();
    assert_eq!((done.entries, done.is_raw), (40, true));
    assert_eq!(values.remove(0), "key,namespace,value");
    values.sort();
    assert_eq!(values[3], "03,,ab03");
    let (timers, _) = lines(&metadata, "count", Some("counts/timers"), Some(5))
        .await
        .unwrap();
    assert_eq!(timers.len(), 1 + 5, "a header, and what was asked for");
    assert!(timers[1].contains("1970-01-01 00:00:00"), "{timers:?}");
    assert_eq!(metadata, before);

    let summary = summary::operators(&metadata).unwrap();
    let [count] = &summary[..] else {
        panic!("{summary:?}")
    };
    let groups: Vec<_> = count.subtasks.iter().map(|it| it.key_groups.last).collect();
    assert_eq!(groups, [7, 15]);
    assert!(
        count
            .subtasks
            .iter()
            .all(|it| it.files > 0 && it.file_bytes > 0)
    );
}

#[tokio::test]
async fn who_asks_for_what_is_not_there_is_told_what_is() {
    let directory = tempfile::tempdir().unwrap();
    let mut metadata = savepoint(directory.path(), 4).await;
    for (operator, state, remedy) in [
        ("sum", None, "there is state of count"),
        (
            "count",
            Some("sums"),
            "it has operator, counts, counts/timers",
        ),
    ] {
        let error = lines(&metadata, operator, state, None).await.unwrap_err();
        assert!(error.to_string().contains(remedy), "{error}");
    }
    metadata.vertices[0].parallelism = 1;
    assert!(lines(&metadata, "count", None, None).await.is_err());
    assert!(summary::operators(&metadata).is_err());
}

/// All of it and nothing of it: either is a whole file.
#[tokio::test]
async fn state_is_read_into_a_parquet_file() {
    let directory = tempfile::tempdir().unwrap();
    let metadata = savepoint(directory.path(), 40).await;
    for (limit, rows) in [(None, 40), (Some(0), 0), (Some(7), 7)] {
        let wanted = Wanted {
            operator: "count",
            state: Some("counts/timers"),
            limit,
            format: RecordFormat::Parquet,
        };
        let (file, done) = printed(&metadata, wanted).await.unwrap();
        assert_eq!(done.entries, rows);
        let reader = ParquetRecordBatchReader::try_new(Bytes::from(file), 1024).unwrap();
        let batches: Vec<_> = reader.map(Result::unwrap).collect();
        let read: usize = batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(read as u64, rows);
        for batch in &batches {
            let times = batch.column_by_name("time").unwrap();
            let times = times.as_primitive::<TimestampMillisecondType>().values();
            assert!(times.iter().all(|time| (0..40).contains(time)), "{times:?}");
        }
    }
}
