//! The coordinator's dealings with object storage: `_metadata` objects, large job graphs, and deleting what was retired.
//! [`check`]: whether files are as they were written. [`savepoint`]: savepoints, which have a directory of their own.
//!
//! `_metadata` is self-contained, for disaster recovery and for starting a job elsewhere; a leader never reads it to
//! recover a job, since the replicated state holds the same. Format: 8 bytes magic, CRC32C of the rest as u32 LE, then
//! a protobuf `CheckpointMetadata`.

pub(crate) mod check;
pub(crate) mod savepoint;

use bytes::Bytes;
use flott_node::Failpoint;
use flott_node::storage::ObjectStorage;
use flott_proto::ids::{ClusterId, Namespace};
use flott_proto::job_graph::JobGraph;
use flott_proto::{paths, wire};
use prost::Message;

use crate::core::Job;
use crate::core::checkpoint::{CheckpointKind, PendingCheckpoint, PendingRecord};
use crate::core::graph_object::{GraphError, GraphObject};
use crate::core::records::vertices_to_wire;

const MAGIC: &[u8; 8] = b"FLOTTMD1";
const HEADER_LEN: usize = 12;

/// Why an object-storage step did not work.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error(transparent)]
    Storage(#[from] flott_node::storage::Error),
    #[error("the acknowledgements do not make a checkpoint: {0}")]
    Incomplete(#[from] crate::core::checkpoint::CompletionError),
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error("{path} is no checkpoint metadata: {what}")]
    Malformed { path: String, what: String },
}

/// Where the metadata of a checkpoint was written.
#[derive(Debug)]
pub(crate) struct Written {
    /// The directory, as users name it.
    pub external_path: String,
    /// Relative to the checkpoint root; empty for a savepoint.
    pub object: String,
}

/// Writes the metadata of a pending checkpoint whose acks are all there.
pub(crate) async fn write_metadata(
    cluster: &ClusterId,
    job: &Job,
    record: &PendingRecord,
    collected: &PendingCheckpoint,
) -> Result<Written, FilesError> {
    let is_savepoint = record.kind == CheckpointKind::Savepoint;
    let storage = ObjectStorage::open(if is_savepoint {
        &record.savepoint_directory
    } else {
        &job.settings.checkpoint_dir
    })?;
    let subtasks = job.resolve(collected.acks().values().cloned())?;
    let parallelism = |uid: &str| {
        job.graph
            .vertices
            .iter()
            .find(|v| v.uid.as_str() == uid)
            .map_or(0, |v| v.parallelism)
    };
    let mut vertices = vertices_to_wire(&subtasks, parallelism);
    for vertex in &mut vertices {
        let in_graph = job
            .graph
            .vertices
            .iter()
            .find(|v| v.uid.as_str() == vertex.uid);
        vertex.max_parallelism = in_graph.map_or(0, |v| v.max_parallelism);
    }
    let metadata = wire::CheckpointMetadata {
        version: 1,
        cluster_id: cluster.to_string(),
        namespace: job.namespace.to_string(),
        job_id: job.id.to_string(),
        job_name: job.graph.name.clone(),
        checkpoint_id: record.id.0,
        kind: wire::CheckpointKind::from(record.kind).into(),
        triggered_at_ms: record.triggered_at_ms,
        vertices,
        // A savepoint may be moved.
        root: if is_savepoint {
            String::new()
        } else {
            storage.root().to_owned()
        },
    };
    if is_savepoint {
        Failpoint::MetadataBegins.pass();
        storage.put(paths::METADATA, encode(&metadata)).await?;
        Failpoint::MetadataEnds.pass();
        return Ok(Written {
            external_path: storage.root().to_owned(),
            object: String::new(),
        });
    }
    let directory = paths::job(cluster, &job.namespace, &job.id);
    let directory = paths::checkpoint(&directory, record.id);
    let object = format!("{directory}/{}", paths::METADATA);
    Failpoint::MetadataBegins.pass();
    storage.put(&object, encode(&metadata)).await?;
    Failpoint::MetadataEnds.pass();
    Ok(Written {
        external_path: storage.url(&directory),
        object,
    })
}

/// What the directory of a savepoint or retained checkpoint says of it.
#[derive(Debug)]
pub struct Found {
    /// In its normal form.
    pub directory: String,
    /// Its root is complete: of a savepoint, where that lies now.
    pub metadata: wire::CheckpointMetadata,
}

impl Found {
    /// Whether all of it is in its directory, as is so for savepoints.
    pub fn is_self_contained(&self) -> bool {
        self.metadata.root == self.directory
    }
}

/// Reads the metadata of a savepoint or retained checkpoint: its directory, or the object itself.
pub async fn read_metadata(path: &str) -> Result<Found, FilesError> {
    let directory = path.trim_end_matches('/');
    let directory = directory
        .strip_suffix(paths::METADATA)
        .map_or(directory, |dir| dir.trim_end_matches('/'));
    let storage = ObjectStorage::open_existing(directory)?;
    let bytes = storage.get(paths::METADATA).await?;
    let mut metadata = decode(&bytes).map_err(|what| FilesError::Malformed {
        path: path.to_owned(),
        what,
    })?;
    let directory = storage.root().to_owned();
    if metadata.root.is_empty() {
        metadata.root.clone_from(&directory);
    }
    Ok(Found {
        directory,
        metadata,
    })
}

/// Deletes objects of a job; those that are gone already count as deleted. Returns the paths that are gone now, and the
/// first error if some are not.
pub(crate) async fn delete(job: &Job, paths: Vec<String>) -> (Vec<String>, Option<FilesError>) {
    let storage = match ObjectStorage::open(&job.settings.checkpoint_dir) {
        Ok(storage) => storage,
        Err(error) => return (Vec::new(), Some(error.into())),
    };
    let mut gone = Vec::with_capacity(paths.len());
    Failpoint::BeforeDeletion.pass();
    for path in paths {
        if !gone.is_empty() {
            Failpoint::BetweenDeletions.pass();
        }
        match storage.delete(&path).await {
            Ok(()) => gone.push(path),
            Err(error) => return (gone, Some(error.into())),
        }
    }
    (gone, None)
}

/// A job graph on its way to object storage.
#[derive(Debug)]
pub(crate) struct LargeGraph {
    pub object: GraphObject,
    storage: ObjectStorage,
    content: Bytes,
}

impl LargeGraph {
    /// The graph as an object under `checkpoint_dir`.
    pub(crate) fn of(
        graph: &JobGraph,
        checkpoint_dir: &str,
        cluster: &ClusterId,
        namespace: &Namespace,
    ) -> Result<Self, FilesError> {
        let content = Bytes::from(wire::JobGraph::from(graph).encode_to_vec());
        let mut object = GraphObject::of(String::new(), &content);
        object.path = paths::graph(cluster, namespace, &object.sha256);
        Ok(Self {
            object,
            storage: ObjectStorage::open(checkpoint_dir)?,
            content,
        })
    }

    /// Writes the object. Its name follows from its content, so this may be repeated.
    pub(crate) async fn write(&self) -> Result<(), FilesError> {
        let written = self.storage.put(&self.object.path, self.content.clone());
        Ok(written.await?)
    }

    /// Writes the object if it is not there.
    pub(crate) async fn ensure(&self) -> Result<(), FilesError> {
        if self.storage.exists(&self.object.path).await? {
            return Ok(());
        }
        self.write().await
    }
}

/// The whole graph of a job whose graph is too large for the log.
pub(crate) async fn read_graph(job: &Job) -> Result<JobGraph, FilesError> {
    let Some(object) = &job.graph_object else {
        return Ok((*job.graph).clone());
    };
    let storage = ObjectStorage::open(&job.settings.checkpoint_dir)?;
    Ok(object.read(&storage.get(&object.path).await?)?)
}

/// Deletes what is left in the directory of a job that has ended: files that its checkpoints do not name because none
/// of those that would have ever completed. What a savepoint names stays, for those of earlier builds have their files
/// here. Returns how many objects it deleted.
pub(crate) async fn sweep(cluster: &ClusterId, job: &Job) -> Result<usize, FilesError> {
    let storage = ObjectStorage::open(&job.settings.checkpoint_dir)?;
    let directory = paths::job(cluster, &job.namespace, &job.id);
    let kept = job.checkpoints.savepoint_paths();
    let mut deleted = 0;
    for (path, _) in storage.list(&directory).await? {
        if !kept.contains(path.as_str()) {
            storage.delete(&path).await?;
            deleted += 1;
        }
    }
    Ok(deleted)
}

/// Every object in the directory of a job, with its size.
pub(crate) async fn objects(
    cluster: &ClusterId,
    job: &Job,
) -> Result<Vec<(String, u64)>, FilesError> {
    let storage = ObjectStorage::open_existing(&job.settings.checkpoint_dir)?;
    let directory = paths::job(cluster, &job.namespace, &job.id);
    Ok(storage.list(&directory).await?)
}

pub(crate) fn encode(metadata: &wire::CheckpointMetadata) -> Bytes {
    let body = metadata.encode_to_vec();
    let mut object = Vec::with_capacity(HEADER_LEN + body.len());
    object.extend_from_slice(MAGIC);
    object.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    object.extend_from_slice(&body);
    object.into()
}

/// What a metadata object says; or why it is none.
pub(crate) fn decode(object: &[u8]) -> Result<wire::CheckpointMetadata, String> {
    let (magic, rest) = object
        .split_at_checked(MAGIC.len())
        .ok_or("it is too short")?;
    if magic != MAGIC {
        return Err("it does not begin as checkpoint metadata does".to_owned());
    }
    let (crc, body) = rest.split_first_chunk::<4>().ok_or("it is too short")?;
    if u32::from_le_bytes(*crc) != crc32c::crc32c(body) {
        return Err("its checksum does not match; take another checkpoint".to_owned());
    }
    let metadata = wire::CheckpointMetadata::decode(body).map_err(|error| error.to_string())?;
    if metadata.version != 1 {
        return Err(format!(
            "its version {} is unknown to this build",
            metadata.version
        ));
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_round_trips_and_a_flipped_bit_is_noticed() {
        let metadata = wire::CheckpointMetadata {
            version: 1,
            job_name: "delays".into(),
            ..Default::default()
        };
        let object = encode(&metadata);
        assert_eq!(decode(&object), Ok(metadata));
        for at in 0..object.len() {
            let mut damaged = object.to_vec();
            damaged[at] ^= 1;
            assert!(decode(&damaged).is_err(), "byte {at}");
        }
        for len in 0..object.len() {
            assert!(decode(&object[..len]).is_err(), "length {len}");
        }
    }

    #[test]
    fn any_bytes_are_metadata_or_refused() {
        let metadata = wire::CheckpointMetadata {
            version: 1,
            job_name: "delays".into(),
            vertices: vec![wire::VertexState {
                uid: "v".into(),
                parallelism: 2,
                subtasks: vec![wire::SubtaskState::default()],
                ..Default::default()
            }],
            ..Default::default()
        };
        let seeds = flott_decoders::Seeds::of([encode(&metadata).to_vec()]);
        flott_decoders::check!(seeds).for_each(|object: &[u8]| {
            // As they are, and where the checksum is right whatever they say.
            let mut sealed = object.to_vec();
            if let Some((magic_and_crc, body)) = sealed.split_at_mut_checked(HEADER_LEN) {
                magic_and_crc[..MAGIC.len()].copy_from_slice(MAGIC);
                let crc = crc32c::crc32c(body).to_le_bytes();
                magic_and_crc[MAGIC.len()..].copy_from_slice(&crc);
            }
            for object in [object, &sealed[..]] {
                match flott_decoders::told(decode(object)) {
                    Ok(read) => assert_eq!(decode(&encode(&read)), Ok(read)),
                    Err(reason) => assert!(!reason.is_empty()),
                }
            }
        });
    }
}
