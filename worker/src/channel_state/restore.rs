//! Which part of the restored channel state is one subtask's: all that was its own where the parallelism is as it was,
//! otherwise its share of what was everybody's. And bringing it here.

use arrow::datatypes::{Schema, SchemaRef};
use flott_node::storage::{self, ObjectStorage};
use flott_proto::job_graph::{JobGraph, Partitioning, Vertex};
use flott_proto::state_handle::StateFile;
use flott_statestore::Error as StateError;
use tracing::warn;

use super::format::{self, Owner};
use super::{ChannelContent, ChannelState};
use crate::Error;
use crate::keys::HashPartitioner;
use crate::network::{ChannelId, Element};

/// Downloads of an object whose content does not fit its checksum: what was damaged on its way comes right the next time.
const DOWNLOADS_MAX: usize = 3;

/// One subtask of the job that goes on.
#[derive(Clone, Debug)]
pub struct Heir<'a> {
    pub graph: &'a JobGraph,
    pub vertex: &'a Vertex,
    pub subtask: u32,
    /// Of the rows that come in; none for a source.
    pub input: Option<SchemaRef>,
}

/// What is an heir's of one earlier subtask's channel state.
#[derive(Debug, Default, PartialEq)]
pub struct Share {
    /// To be processed in this order. Only a watermark's channel matters.
    pub input: Vec<(ChannelId, Element)>,
    /// To be sent, with whether it was this very subtask that waited to send it.
    pub output: Vec<(ChannelContent, bool)>,
}

impl Heir<'_> {
    /// Its share. All heirs together get each row of the input exactly once, and each content of the output.
    pub fn share(&self, owner: &Owner, state: ChannelState) -> Result<Share, Error> {
        if owner.subtask.vertex != self.vertex.uid {
            let what = format!(
                "the channel state of {} is restored in {}",
                owner.subtask, self.vertex.uid
            );
            return Err(Error::Protocol(what));
        }
        let is_own =
            owner.subtask.subtask == self.subtask && owner.parallelism == self.vertex.parallelism;
        let takes_over = owner.subtask.subtask % self.vertex.parallelism == self.subtask;
        let mut share = Share::default();
        for content in state.input {
            self.take_input(owner, content, is_own, takes_over, &mut share)?;
        }
        if takes_over {
            let output = state.output.into_iter();
            share.output.extend(output.map(|content| (content, is_own)));
        }
        Ok(share)
    }

    fn take_input(
        &self,
        owner: &Owner,
        content: ChannelContent,
        is_own: bool,
        takes_over: bool,
        share: &mut Share,
    ) -> Result<(), Error> {
        let mut edges = self.graph.inputs(&self.vertex.uid);
        let edge = edges.find(|(_, edge)| edge.source == content.peer);
        let (edge_index, edge) = edge.ok_or_else(|| content.has_no_way("from"))?;
        let source = self.graph.vertex(&edge.source);
        let channel = ChannelId {
            edge: edge_index as u32,
            source: content.peer_subtask,
            target: self.subtask,
        };
        let same_channel =
            is_own && source.is_some_and(|source| source.parallelism == content.peer_parallelism);
        let mut partitioner = None;
        for element in content.elements {
            match element {
                Element::Data(batch) => {
                    let schema = batch.schema();
                    if !self
                        .input
                        .as_deref()
                        .is_some_and(|wanted| has_same_columns(wanted, &schema))
                    {
                        let what = format!(
                            "the rows that were on their way from {} had the columns {schema} then; start from a savepoint, \
                             in which nothing is on its way",
                            edge.source
                        );
                        return Err(Error::user("restored checkpoint", what));
                    }
                    let own = match &edge.partitioning {
                        _ if owner.parallelism == self.vertex.parallelism => {
                            is_own.then_some(batch)
                        }
                        Partitioning::Hash { columns } => {
                            if partitioner.is_none() {
                                let (max, parallelism) =
                                    (self.vertex.max_parallelism, self.vertex.parallelism);
                                partitioner =
                                    Some(HashPartitioner::new(&schema, columns, max, parallelism)?);
                            }
                            let partitioner = partitioner.as_mut().expect("made above");
                            partitioner
                                .partition(&batch)?
                                .swap_remove(self.subtask as usize)
                        }
                        _ => takes_over.then_some(batch),
                    };
                    share
                        .input
                        .extend(own.map(|batch| (channel, Element::Data(batch))));
                }
                watermark if same_channel => share.input.push((channel, watermark)),
                // It would hold for rows of one earlier channel only.
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether rows of the one schema can be taken for rows of the other. Whether columns may be null is the sender's to know.
fn has_same_columns(wanted: &Schema, found: &Schema) -> bool {
    let columns = |schema: &Schema| {
        let fields = schema.fields().iter();
        let columns = fields.map(|field| (field.name().clone(), field.data_type().clone()));
        columns.collect::<Vec<_>>()
    };
    columns(wanted) == columns(found)
}

/// The channel state in an object, checked.
pub async fn read(
    storage: &ObjectStorage,
    file: &StateFile,
) -> Result<(Owner, ChannelState), StateError> {
    for _ in 1..DOWNLOADS_MAX {
        match read_once(storage, file).await {
            Err(error @ StateError::Corrupt { .. }) => {
                warn!(path = file.path, %error, "channel state came damaged, fetching it again");
            }
            other => return other,
        }
    }
    read_once(storage, file).await
}

async fn read_once(
    storage: &ObjectStorage,
    file: &StateFile,
) -> Result<(Owner, ChannelState), StateError> {
    let corrupt = |reason: String| StateError::Corrupt {
        path: file.path.clone(),
        reason,
    };
    let bytes = match storage.get(&file.path).await {
        Ok(bytes) => bytes,
        Err(storage::Error::NotFound { .. }) => {
            let path = file.path.clone();
            return Err(StateError::Missing { path });
        }
        Err(error) => return Err(error.into()),
    };
    let (size, crc32c) = (bytes.len() as u64, crc32c::crc32c(&bytes));
    if (size, crc32c) != (file.size, file.crc32c) {
        return Err(corrupt(format!(
            "it has {size} bytes with CRC-32C {crc32c:08x} instead of {} with {:08x}",
            file.size, file.crc32c
        )));
    }
    let decode = move || format::decode(&bytes);
    let decoded = flott_node::spawn_blocking(decode).await;
    match decoded {
        Ok(decoded) => decoded.map_err(|error| corrupt(error.full_text())),
        Err(panic) => Err(corrupt(panic.to_string())),
    }
}
