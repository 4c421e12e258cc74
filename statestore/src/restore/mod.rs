//! From object storage back to local state.
//!
//! - [`plan`]: which files make up the state of a range of key groups (pure).
//! - `download`: brings them here and checks them. `fetch`: does it again for what came damaged.
//! - `open`: opens the tablets on their files as they are, whoever had them before: nothing is rewritten.
//! - `rebuild`: where that cannot be, copies what belongs to the new owner.
//! - `saved`: a tablet for who only wants to look.
//!
//! What must stay true: a restore either has every entry of its range or fails; damage and loss are never silent.

mod download;
mod fetch;
mod open;
pub mod plan;
mod rebuild;
mod saved;

use std::path::Path;

use flott_node::storage::ObjectStorage;
use flott_proto::key_group::KeyGroupRange;
use flott_proto::state_handle::SubtaskState;

use self::plan::{RestorePlan, plan};
pub use self::saved::SavedTablet;
use crate::blocking;
use crate::error::Error;
use crate::keyed::{BackendOptions, KeyedBackend};
use crate::local::LocalFiles;

/// Where the files of a state come from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The root that their paths are relative to.
    pub storage: ObjectStorage,
    /// Of the same root: what is here already.
    pub local: Option<LocalFiles>,
}

impl From<ObjectStorage> for Source {
    fn from(storage: ObjectStorage) -> Self {
        Self {
            storage,
            local: None,
        }
    }
}

/// Makes the backend of `key_groups` from what subtasks once saved: one state if the parallelism is unchanged, several
/// otherwise (those whose ranges touch this one are enough). Without files in any of them the backend starts empty.
/// [`KeyedBackend::restored_files`] says what a checkpoint need not upload again.
///
/// `dir` is as for [`KeyedBackend::create`]; after an error
/// it may hold a part of the state, and the caller removes it.
pub async fn restore(
    dir: &Path,
    source: &Source,
    states: &[SubtaskState],
    max_parallelism: u32,
    key_groups: KeyGroupRange,
    options: BackendOptions,
) -> Result<KeyedBackend, Error> {
    let parts = match plan(key_groups, states)? {
        RestorePlan::Empty => {
            let dir = dir.to_owned();
            return blocking("restore", move || {
                KeyedBackend::create(&dir, max_parallelism, key_groups, options)
            })
            .await;
        }
        RestorePlan::Open(parts) => {
            let opened =
                open::open(dir, source, &parts, max_parallelism, key_groups, options).await?;
            if let Some(backend) = opened {
                return Ok(backend);
            }
            parts
        }
        RestorePlan::Rebuild(parts) => parts,
    };
    rebuild::rebuild(dir, source, &parts, max_parallelism, key_groups, options).await
}
