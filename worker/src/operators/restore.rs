//! An operator's state from the states of one or many earlier subtasks.
//!
//! Every operator state says which subtask of how many wrote it. At an unchanged parallelism a subtask gets its own
//! state back. At another one it gets the states of all, and takes from each what is its own: so a state that is
//! missing there would be lost rows, and is refused.

use bytes::Bytes;
use flott_proto::state_schema::kind_name;
use flott_proto::wire::{self, StateKind, StateOrigin};
use prost::Message;

use super::OperatorContext;
use crate::Error;

/// An operator state that says who wrote it.
pub(crate) trait OriginatedState: Message + Default {
    const KIND: StateKind;

    fn origin(&self) -> Option<&StateOrigin>;
}

macro_rules! originated {
    ($($state:ident: $kind:ident),*) => {$(
        impl OriginatedState for wire::$state {
            const KIND: StateKind = StateKind::$kind;

            fn origin(&self) -> Option<&StateOrigin> {
                self.origin.as_ref()
            }
        }
    )*};
}
originated!(
    FileSourceState: FileSource,
    NexmarkSourceState: NexmarkSource,
    AssignWatermarkState: AssignWatermark,
    WindowAggregateState: WindowAggregate,
    FileSinkState: FileSink
);

/// The origin of the state `S` that this subtask writes.
pub(crate) fn origin<S: OriginatedState>(ctx: &OperatorContext<'_>) -> StateOrigin {
    StateOrigin {
        kind: S::KIND.into(),
        subtask: ctx.chain.task.subtask.subtask,
        parallelism: ctx.chain.parallelism,
    }
}

/// The restored states that concern this subtask; none for a fresh start or an operator that is new in the job.
///
/// One state, its own, where the parallelism is as it was; otherwise those of all subtasks, in their order.
pub(crate) fn states_of<S: OriginatedState>(ctx: &OperatorContext<'_>) -> Result<Vec<S>, Error> {
    let (states, complete) = decode::<S>(ctx)?;
    if complete {
        return Ok(states);
    }
    Err(Error::user(
        place(ctx),
        format!(
            "the restored checkpoint holds the state of {} subtasks, which is not all of them; \
             restore from a complete checkpoint",
            states.len()
        ),
    ))
}

/// Like [`states_of`] for a state of which any part is valid alone, such as a watermark.
pub(crate) fn partial_states_of<S: OriginatedState>(
    ctx: &OperatorContext<'_>,
) -> Result<Vec<S>, Error> {
    decode(ctx).map(|(states, _)| states)
}

/// The states, and whether they are all that this subtask needs.
fn decode<S: OriginatedState>(ctx: &OperatorContext<'_>) -> Result<(Vec<S>, bool), Error> {
    let mut states = Vec::new();
    for operators in &ctx.chain.restored {
        if let Some(bytes) = operators.get(ctx.uid) {
            states.push(decode_one::<S>(ctx, bytes)?);
        }
    }
    if states.is_empty() {
        return Ok((Vec::new(), true));
    }
    states.sort_by_key(|(origin, _)| (origin.parallelism, origin.subtask));
    let own = origin::<S>(ctx);
    let is_own = |origin: &StateOrigin| {
        (origin.subtask, origin.parallelism) == (own.subtask, own.parallelism)
    };
    if let Some(at) = states.iter().position(|(origin, _)| is_own(origin)) {
        return Ok((vec![states.swap_remove(at).1], true));
    }
    let complete = states.iter().enumerate().all(|(at, (origin, _))| {
        origin.subtask as usize == at && origin.parallelism as usize == states.len()
    });
    Ok((
        states.into_iter().map(|(_, state)| state).collect(),
        complete,
    ))
}

fn decode_one<S: OriginatedState>(
    ctx: &OperatorContext<'_>,
    bytes: &Bytes,
) -> Result<(StateOrigin, S), Error> {
    let state = S::decode(bytes.clone()).map_err(|error| {
        Error::user(place(ctx), format!("restored state is unreadable: {error}"))
    })?;
    let origin = *state
        .origin()
        .ok_or_else(|| Error::user(place(ctx), "restored state does not say who wrote it"))?;
    if origin.kind() != S::KIND && origin.kind() != StateKind::Unspecified {
        let (found, own) = (kind_name(origin.kind()), kind_name(S::KIND));
        return Err(Error::user(
            place(ctx),
            format!(
                "restored state is that of a {found} and not of a {own}; give the operator a new uid"
            ),
        ));
    }
    Ok((origin, state))
}

fn place(ctx: &OperatorContext<'_>) -> String {
    format!("operator {} of {}", ctx.uid, ctx.chain.task)
}
