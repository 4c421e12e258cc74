//! How much state a savepoint or checkpoint has, and where. Pure.

use flott_proto::key_group::{KeyGroupRange, MAX_PARALLELISM_MAX};
use flott_proto::state_schema::kind_name;
use flott_proto::wire::{
    CheckpointMetadata, OperatorStateHead, StateFile, StateFileKind, StateKind, VertexState,
};
use prost::Message;

use crate::Error;

/// One operator's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorSummary {
    pub uid: String,
    /// The vertex that it runs in.
    pub vertex: String,
    /// What a person calls it.
    pub kind: &'static str,
    pub parallelism: u32,
    pub max_parallelism: u32,
    pub subtasks: Vec<SubtaskSummary>,
}

/// One subtask's share of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubtaskSummary {
    pub subtask: u32,
    /// That it owns.
    pub key_groups: KeyGroupRange,
    /// Of keyed state, which only one operator of a vertex has.
    pub files: u64,
    pub file_bytes: u64,
    /// Of what the operator itself keeps.
    pub operator_bytes: u64,
}

/// All operators that have state, in the order of vertices and uids.
pub fn operators(metadata: &CheckpointMetadata) -> Result<Vec<OperatorSummary>, Error> {
    let mut operators = Vec::new();
    for vertex in &metadata.vertices {
        check(vertex)?;
        let uids = uids_of(vertex);
        let keyed = uids.iter().find(|uid| is_keyed(vertex, uid)).cloned();
        for uid in uids {
            let mut states = states_of(vertex, &uid).peekable();
            let kind = states.peek().map(|(_, state)| kind_of(state));
            let is_keyed = keyed.as_deref() == Some(&uid);
            operators.push(OperatorSummary {
                kind: kind_name(kind.unwrap_or(StateKind::Unspecified)),
                vertex: vertex.uid.clone(),
                parallelism: vertex.parallelism,
                max_parallelism: vertex.max_parallelism,
                subtasks: subtasks(vertex, &uid, is_keyed),
                uid: uid.clone(),
            });
        }
    }
    Ok(operators)
}

fn subtasks(vertex: &VertexState, uid: &str, is_keyed: bool) -> Vec<SubtaskSummary> {
    let summary = |state: &flott_proto::wire::SubtaskState| {
        let is_its_own = |file: &&StateFile| is_keyed && file.kind() == StateFileKind::Keyed;
        let files = state.files.iter().filter(is_its_own);
        let own = state.operators.iter().filter(|own| own.operator_uid == uid);
        let (max, parallelism) = (vertex.max_parallelism, vertex.parallelism);
        SubtaskSummary {
            subtask: state.subtask,
            key_groups: KeyGroupRange::of_subtask(state.subtask, max, parallelism),
            files: files.clone().count() as u64,
            file_bytes: files.map(|file| file.size).sum(),
            operator_bytes: own.map(|own| own.value.len() as u64).sum(),
        }
    };
    vertex.subtasks.iter().map(summary).collect()
}

/// The vertex with the operator of that uid; the error names those that there are.
pub fn vertex_of<'a>(
    metadata: &'a CheckpointMetadata,
    uid: &str,
) -> Result<&'a VertexState, Error> {
    let mut vertices = metadata.vertices.iter();
    let found = vertices.find(|vertex| states_of(vertex, uid).next().is_some());
    let found = found.ok_or_else(|| {
        let known = metadata.vertices.iter().flat_map(uids_of);
        let known: Vec<String> = known.collect();
        let what = format!("has no state here; there is state of {}", known.join(", "));
        Error::user(format!("operator {uid}"), what)
    })?;
    check(found)?;
    Ok(found)
}

/// The numbers come from outside, and key groups follow from them.
fn check(vertex: &VertexState) -> Result<(), Error> {
    let (parallelism, max) = (vertex.parallelism, vertex.max_parallelism);
    let highest = vertex.subtasks.iter().map(|state| state.subtask).max();
    if highest.is_none_or(|subtask| subtask < parallelism)
        && parallelism <= max
        && max <= MAX_PARALLELISM_MAX
    {
        return Ok(());
    }
    let what = format!("has subtask {highest:?} of {parallelism}, and {max} key groups");
    Err(Error::user(format!("vertex {}", vertex.uid), what))
}

/// The state of each subtask of an operator.
pub(super) fn states_of<'a>(
    vertex: &'a VertexState,
    uid: &str,
) -> impl Iterator<Item = (u32, &'a [u8])> {
    vertex.subtasks.iter().filter_map(move |state| {
        let mut operators = state.operators.iter();
        let own = operators.find(|own| own.operator_uid == uid)?;
        Some((state.subtask, &own.value[..]))
    })
}

/// Whose state that is.
pub(super) fn kind_of(state: &[u8]) -> StateKind {
    let head = OperatorStateHead::decode(state).unwrap_or_default();
    head.origin.unwrap_or_default().kind()
}

fn uids_of(vertex: &VertexState) -> Vec<String> {
    let operators = vertex.subtasks.iter().flat_map(|state| &state.operators);
    let mut uids: Vec<String> = operators.map(|own| own.operator_uid.clone()).collect();
    uids.sort_unstable();
    uids.dedup();
    uids
}

/// Whether the files of the vertex are this operator's: a window aggregation's, or that of the only operator.
fn is_keyed(vertex: &VertexState, uid: &str) -> bool {
    let kind = states_of(vertex, uid)
        .next()
        .map(|(_, state)| kind_of(state));
    kind == Some(StateKind::WindowAggregate)
        || (kind == Some(StateKind::Unspecified) && uids_of(vertex).len() == 1)
}
