//! The filesystem sink of one subtask: rows become visible when the checkpoint that covers them is complete.
//!
//! ```text
//! rows ──▶ .part-<job>-<vertex>-<subtask>-<number>-<attempt>.json.inprogress     open
//!   snapshot: flush, fsync, close; the pair of names goes into the operator state    prepared
//!   commit: rename to part-<job>-<vertex>-<subtask>-<number>-<attempt>.json         visible for ever
//! ```
//!
//! What must stay true: a visible file is never changed, renamed or deleted; a file is renamed only when a complete
//! checkpoint names it; and after a restore every file that the checkpoint names is visible, while every other hidden
//! file of this subtask's earlier attempts is gone. So whatever crashes when, each row is visible exactly once.
//!
//! The attempt is part of the name: an attempt that is thought dead but still writes meets nobody else's files.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{self, Path, PathBuf};

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use flott_node::{Failpoint, Mutant};
use flott_proto::ids::{CheckpointId, TaskId};
use flott_proto::job_graph::FilesystemSink;
use flott_proto::wire::{self, FileCommittable, FileSinkState, StateOrigin};
use prost::Message;
use tracing::{debug, info};

use super::encode::Encoder;
use super::local_path;
use super::split::unreadable;
use crate::Error;
use crate::operators::registry::Link;
use crate::operators::{Collector, Operator, OperatorContext, restore};

/// Records gather in memory up to this size before they are written.
const BUFFER: usize = 256 * 1024;

#[derive(Debug)]
pub(crate) struct FileSink {
    directory: PathBuf,
    encoder: Encoder,
    place: String,
    task: Option<TaskId>,
    origin: StateOrigin,
    open: Option<OpenFile>,
    buffer: Vec<u8>,
    /// Number of the next file of this attempt.
    number: u64,
    /// Prepared and not known to be committed, in the order of their checkpoints.
    prepared: Vec<FileCommittable>,
    rows: u64,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    hidden_name: String,
    final_name: String,
}

impl FileSink {
    pub(crate) fn build(table: &FilesystemSink, link: &Link<'_>) -> Result<Self, Error> {
        Ok(Self {
            directory: local_path(&table.path, link.place)?,
            encoder: Encoder::new(&table.format, link.input, link.place)?,
            place: link.place.to_owned(),
            task: None,
            origin: StateOrigin::default(),
            open: None,
            buffer: Vec::new(),
            number: 0,
            prepared: Vec::new(),
            rows: 0,
        })
    }

    /// Writes the buffer out, to a new file if none is open.
    fn flush(&mut self) -> Result<(), Error> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let open = match &mut self.open {
            Some(open) => open,
            closed => {
                let task = self.task.as_ref().expect("opened before use");
                let (hidden_name, final_name) = names(task, self.number, self.encoder.extension());
                let path = self.directory.join(&hidden_name);
                let mut file =
                    File::create_new(&path).map_err(unreadable("create", &path, &self.place))?;
                self.number += 1;
                file.write_all(self.encoder.header()).map_err(unreadable(
                    "write",
                    &path,
                    &self.place,
                ))?;
                closed.insert(OpenFile {
                    file,
                    hidden_name,
                    final_name,
                })
            }
        };
        open.file.write_all(&self.buffer).map_err(unreadable(
            "write",
            &self.directory.join(&open.hidden_name),
            &self.place,
        ))?;
        self.buffer.clear();
        Ok(())
    }

    /// Makes one prepared file visible. Done already is done.
    fn make_visible(&self, file: &FileCommittable) -> Result<(), Error> {
        let hidden = self.directory.join(&file.hidden_name);
        let visible = self.directory.join(&file.final_name);
        match fs::rename(&hidden, &visible) {
            Ok(()) => {
                info!(file = %visible.display(), checkpoint = file.checkpoint_id, "committed file");
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let there = visible.try_exists();
                match there.map_err(unreadable("look for", &visible, &self.place))? {
                    true => {
                        #[cfg(feature = "simulation")]
                        flott_node::simulation::happened("a rename was repeated");
                        Ok(())
                    }
                    false => Err(Error::user(
                        &self.place,
                        format!(
                            "checkpoint {} covers {}, and neither it nor {} is there: rows are lost; \
                             put the file back or restore from another checkpoint",
                            file.checkpoint_id,
                            hidden.display(),
                            visible.display()
                        ),
                    )),
                }
            }
            Err(error) => Err(unreadable("rename", &hidden, &self.place)(error)),
        }
    }

    /// Makes the directory. Its name has to be as durable as the files in it, and so have those of the directories above
    /// it that were not there either.
    fn make_directory(&self) -> Result<(), Error> {
        let failed = || unreadable("make the directory", &self.directory, &self.place);
        let directory = path::absolute(&self.directory).map_err(failed())?;
        let missing = directory.ancestors().take_while(|path| !path.exists());
        let missing = missing.count();
        fs::create_dir_all(&directory).map_err(failed())?;
        // One that is there may have been made by an attempt that died before it came to this.
        for parent in directory.ancestors().skip(1).take(missing.max(1)) {
            match sync_names(parent) {
                // Then it was somebody else who made it.
                Err(error) if missing == 0 && error.kind() == io::ErrorKind::PermissionDenied => {}
                synced => synced.map_err(unreadable("sync", parent, &self.place))?,
            }
        }
        Ok(())
    }

    fn sync_directory(&self) -> Result<(), Error> {
        let failed = unreadable("sync", &self.directory, &self.place);
        sync_names(&self.directory).map_err(failed)
    }

    /// Deletes the hidden files that earlier attempts of the subtasks whose heir this one is left behind.
    fn delete_leftovers(&self, task: &TaskId) -> Result<(), Error> {
        let keep: BTreeSet<&str> = self
            .prepared
            .iter()
            .map(|file| file.hidden_name.as_str())
            .collect();
        let list = || unreadable("list", &self.directory, &self.place);
        for entry in fs::read_dir(&self.directory).map_err(list())? {
            let name = entry.map_err(list())?.file_name();
            let Some(name) = name.to_str() else { continue };
            if is_leftover(name, task, self.origin.parallelism) && !keep.contains(name) {
                let path = self.directory.join(name);
                debug!(file = %path.display(), "deleting what no checkpoint covers");
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(unreadable("delete", &path, &self.place)(error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Names are durable once their directory is.
fn sync_names(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// The hidden and the final name of a subtask's file.
fn names(task: &TaskId, number: u64, extension: &str) -> (String, String) {
    let subtask = &task.subtask;
    let final_name = format!(
        "part-{}-{}-{}-{number}-{}.{extension}",
        task.job, subtask.vertex, subtask.subtask, task.attempt
    );
    (format!(".{final_name}.inprogress"), final_name)
}

/// Whether `name` is a hidden file of a lower attempt of a subtask that is, modulo the parallelism, this one.
fn is_leftover(name: &str, task: &TaskId, parallelism: u32) -> bool {
    let parse = || {
        let vertex = format!(".part-{}-{}-", task.job, task.subtask.vertex);
        let rest = name.strip_prefix(&vertex)?.strip_suffix(".inprogress")?;
        let mut parts = rest.split_once('.')?.0.split('-');
        let subtask: u32 = parts.next()?.parse().ok()?;
        let _number: u64 = parts.next()?.parse().ok()?;
        let attempt: u32 = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some((subtask, attempt))
    };
    parse().is_some_and(|(subtask, attempt)| {
        subtask % parallelism == task.subtask.subtask && attempt < task.attempt.0
    })
}

impl Operator for FileSink {
    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<(), Error> {
        let task = &ctx.chain.task;
        self.task = Some(task.clone());
        self.origin = restore::origin::<FileSinkState>(ctx);
        self.make_directory()?;
        // Where the parallelism changed, subtask i is the heir of every earlier subtask that is i modulo it.
        for state in restore::states_of::<FileSinkState>(ctx)? {
            let from = state.origin.unwrap_or_default().subtask;
            if from % self.origin.parallelism == self.origin.subtask {
                self.prepared.extend(state.committables);
            }
        }
        let restored = std::mem::take(&mut self.prepared);
        for file in restored
            .iter()
            .filter(|_| !Mutant::PreparedForgotten.is_planted())
        {
            self.make_visible(file)?;
        }
        if !restored.is_empty() {
            self.sync_directory()?;
        }
        self.delete_leftovers(task)
    }

    fn process(&mut self, batch: RecordBatch, _out: &mut dyn Collector) -> Result<(), Error> {
        self.encoder.encode(&batch, &mut self.buffer, &self.place)?;
        self.rows += batch.num_rows() as u64;
        if self.buffer.len() >= BUFFER {
            self.flush()?;
        }
        Ok(())
    }

    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<Option<Bytes>, Error> {
        self.flush()?;
        if let Some(open) = self.open.take() {
            let path = self.directory.join(&open.hidden_name);
            if !Mutant::OutputNotSynced.is_planted() {
                open.file
                    .sync_all()
                    .map_err(unreadable("sync", &path, &self.place))?;
                self.sync_directory()?;
            }
            self.prepared.push(FileCommittable {
                checkpoint_id: checkpoint.0,
                hidden_name: open.hidden_name,
                final_name: open.final_name,
            });
        }
        let state = FileSinkState {
            origin: Some(self.origin),
            committables: self.prepared.clone(),
        };
        Ok(Some(state.encode_to_vec().into()))
    }

    fn commit(&mut self, checkpoint: CheckpointId) -> Result<(), Error> {
        let due = |file: &FileCommittable| file.checkpoint_id <= checkpoint.0;
        let mut committed = 0;
        Failpoint::CommitBegins.pass();
        for file in self.prepared.iter().filter(|file| due(file)) {
            self.make_visible(file)?;
            Failpoint::CommitMiddle.pass();
            committed += 1;
        }
        if committed > 0 {
            self.sync_directory()?;
            self.prepared.retain(|file| !due(file));
            Failpoint::CommitEnds.pass();
        }
        Ok(())
    }

    fn add_counters(&self, counters: &mut wire::TaskCounters) {
        counters.records_out += self.rows;
    }
}
