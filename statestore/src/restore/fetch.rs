//! What was damaged on its way is fetched again.

use flott_proto::state_handle::StateFile;
use tracing::warn;

use crate::error::Error;

/// Downloads of a file whose content does not fit its checksum. What was damaged on the line, or by a proxy, comes right
/// the next time; what is damaged in the storage never does, and two more downloads are a small price to know.
const TRIES_MAX: usize = 3;

/// Runs a `download` of `file`, again if what came was [`Error::Corrupt`].
pub(super) async fn fetch<F, T>(
    file: &StateFile,
    mut download: impl FnMut() -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    for _ in 1..TRIES_MAX {
        match download().await {
            Err(error @ Error::Corrupt { .. }) => {
                warn!(path = file.path, %error, "a state file came damaged, fetching it again");
            }
            other => return other,
        }
    }
    download().await
}
