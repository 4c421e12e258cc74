//! The state in a savepoint or checkpoint, for people: who has some, and what it says.
//!
//! An operator has its own state, called [`OPERATOR`], and keyed states by their names, each with its timers under
//! `<name>`[`TIMERS`]. Reading brings one tablet after the other into a scratch directory and gives records as they come, so
//! neither memory nor disk holds more than one of them. What the state was read from is never changed.
//!
//! - [`summary`] (pure): how much there is, where. [`records`]: entries to records. [`operator`]: what operators themselves
//!   keep.

mod operator;
mod records;
pub mod summary;

use std::ops::ControlFlow;
use std::path::Path;

use flott_node::storage::ObjectStorage;
use flott_proto::key_group::KeyGroupRange;
use flott_proto::state_handle::SubtaskState;
use flott_proto::wire::CheckpointMetadata;
use flott_statestore::{SavedTablet, Source, StateId, Timer};

use self::records::{Keyed, Printer};
use crate::Error;
use crate::operators::window::read::StoredValue;

/// The name of what an operator itself keeps.
pub const OPERATOR: &str = "operator";
/// Behind the name of a keyed state: its timers.
pub const TIMERS: &str = "/timers";

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFormat {
    /// With a header.
    Csv,
    /// An object a line.
    Json,
}

/// What is to be read.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The operator's uid.
    pub operator: &'a str,
    /// None: its first keyed state, or what it keeps itself if it has none.
    pub state: Option<&'a str>,
    /// Entries at most.
    pub limit: Option<u64>,
    pub format: RecordFormat,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub entries: u64,
    /// That the types are not known, and entries are given as hexadecimal digits.
    pub is_raw: bool,
}

/// Gives the records of a state to `out`, until that breaks off. `metadata` says where its files lie. `scratch` is an empty
/// directory, which the caller removes.
pub async fn read(
    metadata: &CheckpointMetadata,
    wanted: Wanted<'_>,
    scratch: &Path,
    out: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<Done, Error> {
    let vertex = summary::vertex_of(metadata, wanted.operator)?;
    let keyed = Keyed::of(vertex, wanted.operator)?;
    let keyed = match (keyed, wanted.state) {
        (Some(keyed), state) if state != Some(OPERATOR) => keyed,
        (_, Some(OPERATOR) | None) => {
            let records = operator::records(vertex, wanted.operator)?;
            let mut printer = Printer::new(records.schema_ref(), wanted, out)?;
            printer.print(&records)?;
            return Ok(printer.done(false));
        }
        (_, Some(state)) => return Err(no_such_state(wanted.operator, state, &[])),
    };
    let timers = wanted.state.and_then(|state| state.strip_suffix(TIMERS));
    let schema = if timers.is_some() {
        keyed.timer_schema()
    } else {
        keyed.value_schema()
    };
    let mut printer = Printer::new(&schema, wanted, out)?;
    let storage = ObjectStorage::open_existing(&metadata.root);
    let storage = storage.map_err(|error| Error::Storage {
        root: metadata.root.clone(),
        what: error.to_string(),
    })?;
    let source = Source::from(storage);
    let max_parallelism = vertex.max_parallelism;
    for state in &vertex.subtasks {
        let own = KeyGroupRange::of_subtask(state.subtask, max_parallelism, vertex.parallelism);
        let state = SubtaskState::try_from(state.clone())?;
        for tablet in SavedTablet::all_of(&state) {
            let Some(own) = tablet.intersection(own).filter(|_| !printer.is_full()) else {
                continue;
            };
            let dir = scratch.join("tablet");
            std::fs::create_dir(&dir).map_err(Error::io("create", &dir))?;
            let opened = SavedTablet::open(&dir, &source, &state, tablet, max_parallelism).await?;
            let id = find(&opened, wanted.operator, timers.or(wanted.state))?;
            match timers {
                Some(_) => printer.print_all(
                    |batch: &[Timer]| keyed.timers(batch),
                    |each| opened.for_each_timer(id, own, each),
                )?,
                None => printer.print_all(
                    |batch: &[StoredValue]| keyed.values(batch),
                    |each| {
                        opened.for_each_value(id, own, |key, namespace, value| {
                            each(StoredValue {
                                key,
                                namespace,
                                value: value.to_vec(),
                            })
                        })
                    },
                )?,
            }
            drop(opened);
            std::fs::remove_dir_all(&dir).map_err(Error::io("remove", &dir))?;
        }
    }
    Ok(printer.done(keyed.is_raw()))
}

/// The keyed state of that name; without a name the first.
fn find(tablet: &SavedTablet, operator: &str, name: Option<&str>) -> Result<StateId, Error> {
    let states = tablet.states_of(operator);
    let mut named = states.iter();
    let found = named.find(|(known, _)| name.is_none_or(|name| *known == name));
    let known: Vec<&str> = states.iter().map(|(name, _)| *name).collect();
    found
        .map(|(_, id)| *id)
        .ok_or_else(|| no_such_state(operator, name.unwrap_or_default(), &known))
}

fn no_such_state(operator: &str, name: &str, keyed: &[&str]) -> Error {
    let mut known = vec![OPERATOR.to_owned()];
    for name in keyed {
        known.extend([(*name).to_owned(), format!("{name}{TIMERS}")]);
    }
    let known = known.join(", ");
    let what = format!("has no state {name:?}; it has {known}");
    Error::user(format!("operator {operator}"), what)
}
