//! The log against openraft's own suite, and against damaged and failing disks.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use openraft::storage::RaftLogStorageExt;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, RaftLogReader, StorageError};
use tempfile::TempDir;

use super::segment::{FrameBuilder, Kind, Seal};
use super::*;
use crate::core::FeatureLevels;
use crate::raft::identity::LocalIdentity;
use crate::raft::snapshot::SnapshotStore;
use crate::raft::state_machine::{Published, StateMachine};
use crate::raft::types::Proposal;

fn open(path: &Path, options: LogOptions) -> Result<LogStore, RaftError> {
    let (store, _, _) = LogStore::open(DataDirectory::open(path)?, options)?;
    Ok(store)
}

fn entry(term: u64, index: u64) -> Entry {
    Entry {
        log_id: LogId::new_term_index(term, index),
        payload: EntryPayload::Blank,
    }
}

async fn append(store: &mut LogStore, entries: impl IntoIterator<Item = Entry>) {
    store
        .blocking_append(entries.into_iter().collect::<Vec<_>>())
        .await
        .unwrap();
}

async fn read(store: &mut LogStore) -> Vec<u64> {
    let entries = store
        .get_log_reader()
        .await
        .try_get_log_entries(..)
        .await
        .unwrap();
    entries.iter().map(|entry| entry.log_id.index).collect()
}

/// Closes the log completely, so that its files can be changed and it can be opened again.
async fn close(store: LogStore, writer: WriterThread) {
    drop(store);
    tokio::task::spawn_blocking(move || writer.join())
        .await
        .unwrap();
}

async fn filled(path: &Path, count: u64) {
    let directory = DataDirectory::open(path).unwrap();
    let (mut store, _, writer) = LogStore::open(directory, LogOptions::default()).unwrap();
    for index in 0..count {
        append(&mut store, [entry(1, index)]).await;
    }
    close(store, writer).await;
}

/// The only segment of a small log: its path, its bytes, its seal, and where each of its frames begins and ends.
struct Written {
    path: PathBuf,
    bytes: Vec<u8>,
    seal: Seal,
    frames: Vec<(usize, usize)>,
}

impl Written {
    fn of(directory: &Path) -> Self {
        let log = directory.join("log");
        let path = spares::path_of(&log, 0);
        let salt = fs::read(log.join("salt")).unwrap().try_into().unwrap();
        let seal = Seal {
            salt: u64::from_le_bytes(salt),
            segment: 0,
        };
        let bytes = fs::read(&path).unwrap();
        let (mut frames, mut at) = (Vec::new(), 0);
        while let Some(frame) = segment::frame_at(&bytes, at, seal) {
            frames.push((at, frame.next));
            at = frame.next;
        }
        Self {
            path,
            bytes,
            seal,
            frames,
        }
    }

    fn save(&self) {
        fs::write(&self.path, &self.bytes).unwrap();
    }

    /// Adds a frame with an entry, valid as far as checksums go.
    fn add(&mut self, index: u64, encoded: &[u8]) {
        let mut builder = FrameBuilder::new();
        builder.push(Kind::Entry, &[&index.to_le_bytes(), encoded]);
        let end = self.frames.last().unwrap().1;
        let frame = builder.seal(self.seal, self.frames.len() as u64);
        self.bytes[end..end + frame.len()].copy_from_slice(frame);
        self.frames.push((end, end + frame.len()));
    }
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory.path().join("data"), LogOptions::default()).unwrap();
        let snapshots = Arc::new(SnapshotStore::open(&directory.path().join("snapshots")).unwrap());
        let identity = LocalIdentity::new(0, String::new(), String::new(), None, None);
        let state_machine = StateMachine::new(
            Arc::new(Published::new()),
            snapshots,
            Arc::new(identity),
            FeatureLevels::BUILD,
            Arc::default(),
        );
        Ok((directory, store, state_machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_and_the_state_machine_pass_the_suite_of_openraft() {
    Suite::test_all(Builder).await.unwrap();
}

#[tokio::test]
async fn everything_is_found_again_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let opened = LogStore::open(DataDirectory::open(path).unwrap(), LogOptions::default()).unwrap();
    let (mut store, marker, writer) = opened;
    assert!(marker.is_none() && store.is_empty());
    let marker = wire::RaftStorageMarker {
        format_version: 1,
        node: 7,
        ..Default::default()
    };
    store.marker_writer().write(&marker).await.unwrap();
    store.save_vote(&Ballot::new_committed(3, 7)).await.unwrap();
    append(&mut store, (0..20).map(|index| entry(2, index))).await;
    store
        .truncate_after(Some(LogId::new_term_index(2, 14)))
        .await
        .unwrap();
    append(&mut store, [entry(3, 15)]).await;
    store
        .save_committed(Some(LogId::new_term_index(2, 12)))
        .await
        .unwrap();
    store.purge(LogId::new_term_index(2, 9)).await.unwrap();
    close(store, writer).await;

    let opened = LogStore::open(DataDirectory::open(path).unwrap(), LogOptions::default()).unwrap();
    let (mut store, found, _) = opened;
    assert_eq!(found, Some(marker));
    assert_eq!(read(&mut store).await, (10..16).collect::<Vec<_>>());
    let state = store.get_log_state().await.unwrap();
    assert_eq!(state.last_log_id, Some(LogId::new_term_index(3, 15)));
    assert_eq!(state.last_purged_log_id, Some(LogId::new_term_index(2, 9)));
    assert_eq!(
        store.read_committed().await.unwrap(),
        Some(LogId::new_term_index(2, 12))
    );
    assert_eq!(
        store.get_log_reader().await.read_vote().await.unwrap(),
        Some(Ballot::new_committed(3, 7))
    );
}

#[tokio::test]
async fn entries_that_left_memory_are_read_from_disk() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(
        directory.path(),
        LogOptions {
            tail_bytes_max: 100,
            ..Default::default()
        },
    )
    .unwrap();
    for first in (0..200).step_by(10) {
        append(&mut store, (first..first + 10).map(|index| entry(1, index))).await;
    }
    assert_eq!(read(&mut store).await, (0..200).collect::<Vec<_>>());
    let mut reader = store.get_log_reader().await;
    let some = reader.try_get_log_entries(50..60).await.unwrap();
    assert_eq!(some.first().map(|entry| entry.log_id.index), Some(50));
    assert_eq!(some.len(), 10);
}

#[tokio::test]
async fn a_torn_last_record_is_tolerated() {
    // However much of the last frame reached the disk.
    for kept in [0, 3, 20, 30] {
        let directory = tempfile::tempdir().unwrap();
        filled(directory.path(), 10).await;
        let mut written = Written::of(directory.path());
        let (begins, ends) = *written.frames.last().unwrap();
        written.bytes[begins + kept..ends].fill(0);
        written.save();
        let opened = LogStore::open(
            DataDirectory::open(directory.path()).unwrap(),
            LogOptions::default(),
        );
        let (mut store, _, writer) = opened.unwrap();
        assert_eq!(read(&mut store).await, (0..9).collect::<Vec<_>>());
        append(&mut store, [entry(1, 9), entry(1, 10)]).await;
        close(store, writer).await;
        let mut store = open(directory.path(), LogOptions::default()).unwrap();
        assert_eq!(read(&mut store).await, (0..11).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn damage_in_the_middle_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 10).await;
    let intact = Written::of(directory.path());
    // Anywhere in any frame but the last: header, checksum, payload.
    for frame in 0..9 {
        for offset in [0, 5, 9, 17, 30] {
            let mut written = Written::of(directory.path());
            let at = written.frames[frame].0 + offset;
            written.bytes[at] ^= 0x10;
            written.save();
            let refused = open(directory.path(), LogOptions::default()).err();
            let refused = refused.unwrap_or_else(|| panic!("frame {frame}, byte {offset}"));
            assert!(matches!(refused, RaftError::Corrupt { .. }), "{refused}");
            assert!(refused.to_string().contains("join again as a new node"));
            intact.save();
        }
    }
    open(directory.path(), LogOptions::default()).unwrap();
}

#[tokio::test]
async fn a_missing_or_changed_entry_is_refused() {
    type Damage = fn(&mut Written);
    let damages: [(Damage, &str); 4] = [
        (
            |written| written.add(12, &entry::encode(&entry(1, 12))),
            "entry 10 is missing",
        ),
        (
            |written| {
                let mut encoded = entry::encode(&entry(1, 10));
                *encoded.last_mut().unwrap() ^= 1;
                written.add(10, &encoded);
            },
            "entry 10: checksum mismatch",
        ),
        (
            |written| written.add(10, &entry::encode(&entry(1, 9))),
            "entry 10 says that it is 9",
        ),
        (
            |written| written.add(10, &entry::encode(&entry(0, 10))),
            "the term falls at entry 10",
        ),
    ];
    for (damage, expected) in damages {
        let directory = tempfile::tempdir().unwrap();
        filled(directory.path(), 10).await;
        let mut written = Written::of(directory.path());
        damage(&mut written);
        written.save();
        let refused = open(directory.path(), LogOptions::default())
            .err()
            .unwrap()
            .to_string();
        assert!(refused.contains(expected), "{refused}");
    }
}

/// Entries of a size that makes a few of them fill a segment.
fn large(term: u64, index: u64) -> Entry {
    let command = wire::Command {
        now_ms: 1,
        epoch: 1,
        decision: Some(wire::command::Decision::ForgetFiles(wire::ForgetFiles {
            job_id: "x".repeat(1000),
            paths: Vec::new(),
            ..Default::default()
        })),
    };
    Entry {
        log_id: LogId::new_term_index(term, index),
        payload: EntryPayload::Normal(Proposal::new(command)),
    }
}

fn small_segments() -> LogOptions {
    LogOptions {
        segment_bytes: 16 << 10,
        tail_bytes_max: 4 << 10,
        ..Default::default()
    }
}

fn files(directory: &Path) -> usize {
    fs::read_dir(directory.join("log")).unwrap().count()
}

#[tokio::test]
async fn a_log_of_many_files_survives_cuts_purges_and_restarts_in_bounded_space() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (mut next, mut first, mut term) = (0_u64, 0_u64, 1_u64);
    let mut most_files = 0;
    for round in 0..12 {
        let opened = LogStore::open(DataDirectory::open(path).unwrap(), small_segments()).unwrap();
        let (mut store, _, writer) = opened;
        assert_eq!(
            read(&mut store).await,
            (first..next).collect::<Vec<_>>(),
            "round {round}"
        );
        for _ in 0..4 {
            append(
                &mut store,
                (next..next + 20).map(|index| large(term, index)),
            )
            .await;
            next += 20;
            let cut = next - 7;
            store
                .truncate_after(Some(LogId::new_term_index(term, cut - 1)))
                .await
                .unwrap();
            next = cut;
            term += 1;
            assert_eq!(read(&mut store).await, (first..next).collect::<Vec<_>>());
        }
        store.save_vote(&Ballot::new(term, 1)).await.unwrap();
        let last = store.get_log_state().await.unwrap().last_log_id.unwrap();
        let keep_from = next - 10;
        let mut reader = store.get_log_reader().await;
        let before = reader
            .try_get_log_entries(keep_from - 1..keep_from)
            .await
            .unwrap();
        store.purge(before[0].log_id).await.unwrap();
        first = keep_from;
        // The next synced write takes the purge along.
        append(&mut store, [large(term, last.index + 1)]).await;
        next += 1;
        assert_eq!(read(&mut store).await, (first..next).collect::<Vec<_>>());
        close(store, writer).await;
        most_files = most_files.max(files(path));
    }
    assert!(
        most_files <= 16,
        "{most_files} files of 16 KiB for a log of 11 entries"
    );
}

#[tokio::test]
async fn what_was_read_before_a_file_is_given_back_stays_readable() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path(), small_segments()).unwrap();
    append(&mut store, (0..100).map(|index| large(1, index))).await;
    let located = store.shared.disk.locate(0, 5, usize::MAX);
    for first in (100..1000).step_by(100) {
        let upto = LogId::new_term_index(1, first - 1);
        store.purge(upto).await.unwrap();
        append(
            &mut store,
            (first..first + 100).map(|index| large(1, index)),
        )
        .await;
    }
    let indexes: Vec<u64> = located
        .read()
        .map(|read| read.unwrap().0.log_id.index)
        .collect();
    assert_eq!(indexes, [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_lost_file_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let opened = LogStore::open(
        DataDirectory::open(directory.path()).unwrap(),
        small_segments(),
    );
    let (mut store, _, writer) = opened.unwrap();
    for index in 0..100 {
        append(&mut store, [large(1, index)]).await;
    }
    close(store, writer).await;
    let log = directory.path().join("log");
    for (lost, expected) in [
        (2, "the file before it is missing"),
        (0, "entry 0 is missing"),
    ] {
        let path = spares::path_of(&log, lost);
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let refused = open(directory.path(), small_segments())
            .err()
            .unwrap()
            .to_string();
        assert!(refused.contains(expected), "{refused}");
        fs::write(&path, bytes).unwrap();
    }
    open(directory.path(), small_segments()).unwrap();
}

#[test]
fn a_directory_of_the_version_before_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    fs::create_dir_all(&log).unwrap();
    fs::write(log.join("CURRENT"), "MANIFEST-000001\n").unwrap();
    let refused = open(directory.path(), LogOptions::default()).err().unwrap();
    assert!(
        matches!(refused, RaftError::UnsupportedFormat { found: 1, .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged_and_the_process_ends() {
    let directory = tempfile::tempdir().unwrap();
    let exits = Arc::new(AtomicUsize::new(0));
    let failing = Arc::new(AtomicBool::new(false));
    let options = LogOptions {
        exit: {
            let exits = Arc::clone(&exits);
            Arc::new(move || {
                exits.fetch_add(1, Ordering::SeqCst);
            })
        },
        fault: {
            let failing = Arc::clone(&failing);
            Some(Arc::new(move || {
                if failing.load(Ordering::SeqCst) {
                    Err(io::Error::other("fsync: I/O error"))
                } else {
                    Ok(())
                }
            }))
        },
        ..Default::default()
    };
    let mut store = open(directory.path(), options).unwrap();
    append(&mut store, [entry(1, 0)]).await;
    failing.store(true, Ordering::SeqCst);
    assert!(store.blocking_append(vec![entry(1, 1)]).await.is_err());
    assert_eq!(exits.load(Ordering::SeqCst), 1);
    // The disk works again: that changes nothing, because what the failed sync lost is unknown.
    failing.store(false, Ordering::SeqCst);
    assert!(store.blocking_append(vec![entry(1, 2)]).await.is_err());
    assert!(store.save_vote(&Ballot::new(2, 1)).await.is_err());
    assert_eq!(exits.load(Ordering::SeqCst), 1);
}

/// openraft awaits these in its core: a heartbeat must not wait for a disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_vote_waits_for_a_disk_that_hangs() {
    let directory = tempfile::tempdir().unwrap();
    let hangs = Arc::new((Mutex::new(false), std::sync::Condvar::new()));
    let options = LogOptions {
        fault: {
            let hangs = Arc::clone(&hangs);
            Some(Arc::new(move || {
                let (hanging, over) = &*hangs;
                let hanging = hanging.lock().unwrap();
                drop(over.wait_while(hanging, |hanging| *hanging).unwrap());
                Ok(())
            }))
        },
        ..Default::default()
    };
    let mut store = open(directory.path(), options).unwrap();
    append(&mut store, (0..4).map(|index| entry(1, index))).await;
    assert_eq!(store.reader().writing(), None);
    *hangs.0.lock().unwrap() = true;

    let committed = LogId::new_term_index(1, 3);
    store
        .append([entry(1, 4)], IOFlushed::noop())
        .await
        .unwrap();
    store.save_committed(Some(committed)).await.unwrap();
    store.truncate_after(Some(committed)).await.unwrap();
    store.purge(LogId::new_term_index(1, 1)).await.unwrap();
    assert_eq!(
        read(&mut store).await,
        [2, 3],
        "what was said is seen at once"
    );
    // The writer takes it up in a moment.
    while store.reader().writing().is_none() {
        tokio::task::yield_now().await;
    }

    let mut voting = store.clone();
    let vote = Ballot::new(2, 1);
    let mut voted = std::pin::pin!(voting.save_vote(&vote));
    assert!(futures::poll!(&mut voted).is_pending());
    *hangs.0.lock().unwrap() = false;
    hangs.1.notify_all();
    voted.await.unwrap();
    assert_eq!(store.read_committed().await.unwrap(), Some(committed));
}

#[tokio::test]
async fn concurrent_appends_share_a_sync_and_are_acknowledged_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let batches = Arc::new(AtomicUsize::new(0));
    let (release, gate) = std::sync::mpsc::sync_channel::<()>(0);
    let gate = Mutex::new(gate);
    let counted = Arc::clone(&batches);
    let fault: WriteFault = Arc::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        // Each batch waits until the test lets it go.
        gate.lock().unwrap().recv().map_err(io::Error::other)
    });
    let mut store = open(
        directory.path(),
        LogOptions {
            fault: Some(fault),
            ..Default::default()
        },
    )
    .unwrap();
    let mut done = Vec::new();
    for index in 0..50 {
        let (flushed, waiting) = oneshot();
        store
            .append([entry(1, index)], IOFlushed::signal(flushed))
            .await
            .unwrap();
        done.push(waiting);
        if index == 0 {
            // The first batch is under way before the others are submitted.
            tokio::task::spawn_blocking({
                let batches = Arc::clone(&batches);
                move || {
                    while batches.load(Ordering::SeqCst) == 0 {
                        std::thread::yield_now()
                    }
                }
            })
            .await
            .unwrap();
        }
    }
    tokio::task::spawn_blocking(move || {
        release.send(()).unwrap();
        release.send(()).unwrap();
    })
    .await
    .unwrap();
    for waiting in done {
        waiting.await.unwrap().unwrap();
    }
    assert_eq!(
        batches.load(Ordering::SeqCst),
        2,
        "the first append alone, then all others together"
    );
}

type Flushed = Result<(), io::Error>;

fn oneshot() -> (
    openraft::type_config::alias::OneshotSenderOf<TypeConfig, Flushed>,
    openraft::type_config::alias::OneshotReceiverOf<TypeConfig, Flushed>,
) {
    <TypeConfig as openraft::type_config::TypeConfigExt>::oneshot()
}

#[test]
fn a_directory_has_one_process_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let held = DataDirectory::open(directory.path()).unwrap();
    let refused = DataDirectory::open(directory.path())
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains(&directory.path().display().to_string()),
        "{refused}"
    );
    assert!(
        refused.contains(&format!("process {}", std::process::id())),
        "{refused}"
    );
    drop(held);
    DataDirectory::open(directory.path()).unwrap();
}
