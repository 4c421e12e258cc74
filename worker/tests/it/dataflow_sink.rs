//! The filesystem sink by itself: what is visible when, and what a crash leaves behind.

use std::fs;

use arrow::array::RecordBatch;
use flott_node::clock::ManualClock;
use flott_proto::ids::CheckpointId;
use flott_worker::Error;
use flott_worker::operators::OperatorChain;

use crate::dataflow_harness::*;

struct SinkJob {
    dir: tempfile::TempDir,
    clock: ManualClock,
    parallelism: u32,
}

impl SinkJob {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            clock: ManualClock::new(0),
            parallelism: 1,
        }
    }

    fn open(
        &self,
        subtask: u32,
        attempt: u32,
        restored: Vec<States>,
    ) -> Result<OperatorChain, Error> {
        let vertex = vertex(
            "sink",
            self.parallelism,
            vec![file_sink(&self.dir.path().join("out"), json())],
        );
        let mut chain = build(
            &vertex,
            Some(&schema("n BIGINT")),
            (subtask, attempt),
            restored,
            &self.clock,
        )?;
        chain.open(None)?;
        Ok(chain)
    }

    fn write(&self, chain: &mut OperatorChain, n: i64) {
        let column = std::sync::Arc::new(arrow::array::Int64Array::from(vec![n]));
        let batch =
            RecordBatch::try_new(schema("n BIGINT").to_arrow().into(), vec![column]).unwrap();
        chain.process(batch, &mut Emitted::default()).unwrap();
    }

    fn visible(&self) -> Vec<String> {
        visible_lines(&self.dir.path().join("out")).0
    }

    fn hidden(&self) -> usize {
        visible_lines(&self.dir.path().join("out")).1.len()
    }
}

#[test]
fn rows_are_visible_when_their_checkpoint_is_complete_and_not_before() {
    let job = SinkJob::new();
    let mut sink = job.open(0, 1, Vec::new()).unwrap();
    job.write(&mut sink, 1);
    sink.snapshot(CheckpointId(1)).unwrap();
    job.write(&mut sink, 2);
    assert_eq!((job.visible().len(), job.hidden()), (0, 1));
    sink.snapshot(CheckpointId(2)).unwrap();
    job.write(&mut sink, 3);
    // Checkpoint 1 was aborted; what it had prepared belongs to the next.
    sink.commit(CheckpointId(2)).unwrap();
    sink.commit(CheckpointId(2)).unwrap();
    assert_eq!(job.visible(), [r#"{"n":1}"#, r#"{"n":2}"#]);
    // Nothing new: no file.
    let (states, _) = sink.snapshot(CheckpointId(3)).unwrap();
    sink.commit(CheckpointId(3)).unwrap();
    let (again, _) = sink.snapshot(CheckpointId(4)).unwrap();
    assert_ne!(states, again);
    assert_eq!((job.visible().len(), job.hidden()), (3, 0));
}

/// The sink is lost at every point between writing and commit, and the job goes on from what is complete by then.
#[test]
fn every_row_is_visible_once_wherever_the_sink_crashes() {
    for crash in 0..6 {
        let job = SinkJob::new();
        let mut sink = job.open(0, 1, Vec::new()).unwrap();
        job.write(&mut sink, 1);
        let (first, _) = sink.snapshot(CheckpointId(1)).unwrap();
        sink.commit(CheckpointId(1)).unwrap();
        job.write(&mut sink, 2);
        // What is complete, and the rows that are to be written again.
        let (complete, again) = match crash {
            0 => (first, vec![2]), // Rows in memory or in an open file.
            1 => {
                sink.snapshot(CheckpointId(2)).unwrap(); // Prepared, not complete.
                (first, vec![2])
            }
            2 => (sink.snapshot(CheckpointId(2)).unwrap().0, vec![]), // Complete, not committed.
            3 => {
                let (second, _) = sink.snapshot(CheckpointId(2)).unwrap();
                sink.commit(CheckpointId(2)).unwrap(); // Committed.
                (second, vec![])
            }
            4 => {
                let (second, _) = sink.snapshot(CheckpointId(2)).unwrap();
                job.write(&mut sink, 3);
                sink.snapshot(CheckpointId(3)).unwrap(); // The next is prepared, and lost.
                (second, vec![3])
            }
            _ => {
                let (second, _) = sink.snapshot(CheckpointId(2)).unwrap();
                job.write(&mut sink, 3);
                sink.commit(CheckpointId(2)).unwrap(); // Rows of the next in the open file.
                (second, vec![3])
            }
        };
        drop(sink);
        // Recovery itself may crash, and be repeated.
        drop(job.open(0, 2, vec![complete.clone()]).unwrap());
        let mut sink = job.open(0, 3, vec![complete]).unwrap();
        assert_eq!(job.hidden(), 0, "crash {crash}");
        let rows = 2 + again.iter().filter(|row| **row > 2).count();
        for row in again {
            job.write(&mut sink, row);
        }
        sink.snapshot(CheckpointId(9)).unwrap();
        sink.commit(CheckpointId(9)).unwrap();
        let expected: Vec<String> = (1..=rows).map(|row| format!("{{\"n\":{row}}}")).collect();
        assert_eq!(job.visible(), expected, "crash {crash}");
    }
}

#[test]
fn at_another_parallelism_every_prepared_file_has_an_heir() {
    let mut job = SinkJob::new();
    job.parallelism = 3;
    let mut states = Vec::new();
    for subtask in 0..3 {
        let mut sink = job.open(subtask, 1, Vec::new()).unwrap();
        job.write(&mut sink, subtask.into());
        states.push(sink.snapshot(CheckpointId(1)).unwrap().0);
        job.write(&mut sink, 100);
        sink.snapshot(CheckpointId(2)).unwrap();
    }
    assert_eq!(job.hidden(), 6);
    job.parallelism = 2;
    for subtask in 0..2 {
        job.open(subtask, 2, states.clone()).unwrap();
    }
    assert_eq!(job.hidden(), 0);
    assert_eq!(job.visible().len(), 3);
}

#[test]
fn a_prepared_file_that_is_gone_is_an_error_and_not_silence() {
    let job = SinkJob::new();
    let mut sink = job.open(0, 1, Vec::new()).unwrap();
    job.write(&mut sink, 1);
    let (state, _) = sink.snapshot(CheckpointId(1)).unwrap();
    for entry in fs::read_dir(job.dir.path().join("out")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for error in [
        sink.commit(CheckpointId(1)).unwrap_err(),
        job.open(0, 2, vec![state]).unwrap_err(),
    ] {
        assert!(error.to_string().contains("rows are lost"), "{error}");
    }
}

#[test]
fn a_directory_that_cannot_be_is_an_error_of_the_job() {
    let job = SinkJob::new();
    fs::write(job.dir.path().join("out"), "a file").unwrap();
    let error = job.open(0, 1, Vec::new()).unwrap_err();
    assert!(
        !error.retryable() && error.to_string().contains("out"),
        "{error}"
    );
}
