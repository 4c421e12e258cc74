//! The state in a savepoint or checkpoint, for people: who has some, and what it says.
//!
//! An operator has its own state, called [`OPERATOR`], and keyed states by their names, each with its timers under
//! `<name>`[`TIMERS`]. Reading brings one tablet after the other into a scratch directory and gives records as they come, so
//! neither memory nor disk holds more than one of them. What the state was read from is never changed.
//!
//! - [`summary`] (pure): how much there is, where. [`records`]: entries to records. [`operator`]: what operators themselves
//!   keep. [`printer`]: records to bytes.

mod operator;
mod printer;
mod records;
pub mod summary;

use std::ops::ControlFlow;
use std::path::Path;

use flott_node::storage::ObjectStorage;
use flott_proto::key_group::KeyGroupRange;
use flott_proto::state_handle::SubtaskState;
use flott_proto::wire::{CheckpointMetadata, VertexState};
use flott_statestore::{SavedTablet, Source, StateId, Timer};

use self::printer::Printer;
use self::records::Keyed;
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
    /// One file, compressed with zstd.
    Parquet,
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
    match (Keyed::of(vertex, wanted.operator)?, wanted.state) {
        (Some(keyed), state) if state != Some(OPERATOR) => {
            let source = Source::from(open(&metadata.root)?);
            read_keyed(&source, vertex, &keyed, wanted, scratch, out).await
        }
        (_, Some(OPERATOR) | None) => {
            let records = operator::records(vertex, wanted.operator)?;
            let mut printer = Printer::new(records.schema_ref(), wanted, out)?;
            printer.print(&records)?;
            printer.done(false)
        }
        (_, Some(state)) => Err(no_such_state(wanted.operator, state, &[])),
    }
}

async fn read_keyed(
    source: &Source,
    vertex: &VertexState,
    keyed: &Keyed,
    wanted: Wanted<'_>,
    scratch: &Path,
    out: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<Done, Error> {
    let timers_of = wanted.state.and_then(|state| state.strip_suffix(TIMERS));
    let schema = match timers_of {
        Some(_) => keyed.timer_schema(),
        None => keyed.value_schema(),
    };
    let mut printer = Printer::new(&schema, wanted, out)?;
    let max_parallelism = vertex.max_parallelism;
    for state in &vertex.subtasks {
        let own = KeyGroupRange::of_subtask(state.subtask, max_parallelism, vertex.parallelism);
        let state = SubtaskState::try_from(state.clone())?.without_channels();
        for part in SavedTablet::parts_of(&state, own)? {
            if printer.is_full() {
                break;
            }
            let dir = scratch.join("tablet");
            std::fs::create_dir(&dir).map_err(Error::io("create", &dir))?;
            let tablet = SavedTablet::open(&dir, source, &part, max_parallelism).await?;
            let id = find(&tablet, wanted.operator, timers_of.or(wanted.state))?;
            if timers_of.is_some() {
                printer.print_all(
                    |timers: &[Timer]| keyed.timers(timers),
                    |each| tablet.for_each_timer(id, each),
                )?;
            } else {
                printer.print_all(
                    |values: &[StoredValue]| keyed.values(values),
                    |each| {
                        tablet.for_each_value(id, |key, namespace, value| {
                            let value = value.to_vec();
                            each(StoredValue {
                                key,
                                namespace,
                                value,
                            })
                        })
                    },
                )?;
            }
            drop(tablet);
            std::fs::remove_dir_all(&dir).map_err(Error::io("remove", &dir))?;
        }
    }
    printer.done(keyed.is_raw())
}

fn open(root: &str) -> Result<ObjectStorage, Error> {
    ObjectStorage::open_existing(root).map_err(|error| Error::Storage {
        root: root.to_owned(),
        what: error.to_string(),
    })
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
