//! A job graph that is too large for the log: an object named by its SHA-256, of which the log has the hash.
//!
//! The replicated state then has an outline of the graph (vertices with their parallelism, no operators), which is all
//! that deciding needs. A leader reads the object when it deploys the job, and believes nothing that does not have the
//! hash.
//!
//! The name follows from the content, so jobs of one namespace may share an object. It is retired when the last of them
//! ends, by the entry that ends it; until it is deleted nobody can be submitted with it.

use flott_proto::Malformed;
use flott_proto::ids::Namespace;
use flott_proto::job_graph::JobGraph;
use flott_proto::wire;
use prost::Message;
use sha2::{Digest, Sha256};

use super::job::Job;
use super::state::ClusterState;

/// Where a graph is and what it has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphObject {
    /// Relative to the job's checkpoint root.
    pub path: String,
    pub sha256: [u8; 32],
    pub size: u64,
}

/// What was read is not the graph that was submitted.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    #[error(
        "{path} is damaged: it has {found} bytes of another content than the {expected} that were submitted"
    )]
    Damaged {
        path: String,
        expected: u64,
        found: usize,
    },
    #[error("{path} is no job graph")]
    Malformed { path: String, source: Malformed },
    #[error("{path} is no job graph")]
    Undecodable {
        path: String,
        source: prost::DecodeError,
    },
}

impl GraphObject {
    /// Of an object with this content at `path`.
    pub fn of(path: String, content: &[u8]) -> Self {
        Self {
            path,
            sha256: Sha256::digest(content).into(),
            size: content.len() as u64,
        }
    }

    /// The graph that the object's content is, if it is the one that was submitted.
    pub fn read(&self, content: &[u8]) -> Result<JobGraph, GraphError> {
        if Sha256::digest(content)[..] != self.sha256 {
            return Err(GraphError::Damaged {
                path: self.path.clone(),
                expected: self.size,
                found: content.len(),
            });
        }
        let graph = wire::JobGraph::decode(content).map_err(|source| GraphError::Undecodable {
            path: self.path.clone(),
            source,
        })?;
        JobGraph::try_from(graph).map_err(|source| GraphError::Malformed {
            path: self.path.clone(),
            source,
        })
    }

    pub(crate) fn to_wire(&self) -> wire::GraphObject {
        wire::GraphObject {
            path: self.path.clone(),
            sha256: self.sha256.to_vec().into(),
            size: self.size,
        }
    }

    pub(super) fn from_wire(object: &wire::GraphObject) -> Result<Self, Malformed> {
        let sha256 = <[u8; 32]>::try_from(&object.sha256[..]);
        Ok(Self {
            path: object.path.clone(),
            sha256: sha256
                .map_err(|_| Malformed::new("graph object", "has a SHA-256 of another length"))?,
            size: object.size,
        })
    }
}

/// The graph as a submission or a snapshot carries it: whole, or an outline and where the rest is.
pub(super) fn graph_from_wire(
    graph: Option<wire::JobGraph>,
    object: Option<&wire::GraphObject>,
) -> Result<(JobGraph, Option<GraphObject>), Malformed> {
    let graph = graph.ok_or_else(|| Malformed::new("job", "has no job graph"))?;
    match object {
        None => Ok((graph.try_into()?, None)),
        Some(object) => {
            let object = GraphObject::from_wire(object)?;
            Ok((JobGraph::outline_from_wire(graph)?, Some(object)))
        }
    }
}

impl ClusterState {
    /// Whether an active job of the namespace other than `job` has the same graph object.
    pub(super) fn shares_graph(&self, job: &Job) -> bool {
        let mut others = self.jobs_in(&job.namespace).filter(|other| {
            other.id != job.id
                && !other.status.is_terminal()
                && other.settings.checkpoint_dir == job.settings.checkpoint_dir
        });
        let path = |job: &Job| job.graph_object.as_ref().map(|object| object.path.clone());
        let own = path(job);
        others.any(|other| path(other) == own)
    }

    /// Whether the object is about to be deleted: a job must not be submitted with it now.
    pub(crate) fn is_graph_retired(&self, namespace: &Namespace, object: &GraphObject) -> bool {
        let mut jobs = self.jobs_in(namespace);
        jobs.any(|job| job.checkpoints.retired.contains(&object.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::graph;

    #[test]
    fn a_graph_is_believed_only_with_its_hash() {
        let content = wire::JobGraph::from(&graph(2)).encode_to_vec();
        let object = GraphObject::of("c/n/graphs/x".into(), &content);
        assert_eq!(object.read(&content).unwrap(), graph(2));
        for at in [0, content.len() / 2, content.len() - 1] {
            let mut damaged = content.clone();
            damaged[at] ^= 1;
            let error = object.read(&damaged).unwrap_err();
            assert!(matches!(error, GraphError::Damaged { .. }), "{error}");
        }
        let nonsense = b"no graph at all, but with its own hash".as_slice();
        let object = GraphObject::of("x".into(), nonsense);
        assert!(object.read(nonsense).is_err());
        assert_eq!(GraphObject::from_wire(&object.to_wire()), Ok(object));
    }
}
