//! The kinds of keyed state that Flink has, with their names, over the entries of a [`KeyedBackend`].
//!
//! ```text
//!                        namespace of an entry                  its value
//! value                  as given                               the value
//! reducing, aggregating  as given                               the accumulator
//! map                    as given, escaped │ the map's key      what the map has there
//! list                   as given, escaped │ number u64         one element
//! any, with a TTL        the same                               time of the last write i64 │ the same
//! ```
//!
//! - [`value`], [`map`], [`list`], [`merging`]: the kinds. `cells`: what they have in common, and the TTL.
//!
//! To add to a list reads nothing: elements are numbered, and the numbers of a later owner of the key are above those of an
//! earlier one (see [`super::registry`]). So a list is as long as the disk is large, and a long one is not written again when
//! it grows.
//!
//! **TTL.** With one, as Flink's with `OnCreateAndWrite` and `NeverReturnExpired`: an entry expires so long after it was last
//! written, by the time that [`KeyedBackend::advance_time`] says; each entry of a map and each element of a list for itself.
//! The TTL may be another after a restart; whether there is one may not.
//!
//! Changes are collected in a [`StateBatch`], and what is read is as of the last [`KeyedBackend::write`].

mod cells;
mod list;
mod map;
mod merging;
mod value;

use std::time::Duration;

pub use self::list::ListState;
pub use self::map::MapState;
pub use self::merging::{AggregatingState, ReducingState};
pub use self::value::ValueState;
#[cfg(doc)]
use super::{KeyedBackend, StateBatch};

/// What a state is called, and how long its entries live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateDescriptor<'a> {
    pub operator_uid: &'a str,
    /// Within the operator.
    pub name: &'a str,
    /// More than zero. `None`: for ever.
    pub ttl: Option<Duration>,
}
