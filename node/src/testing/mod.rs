//! S3 servers for tests; not part of any program.
//!
//! - [`S3Server`]: in the test's own process, and with faults as the test plans them ([`Fault`]).
//! - [`SeaweedFs`]: a real one in a process of its own, for what an imitation cannot show.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fault;
mod s3_server;
mod seaweedfs;

use std::collections::BTreeMap;

pub use self::fault::{Call, Fault, Operation};
pub use self::s3_server::S3Server;
pub use self::seaweedfs::SeaweedFs;
use crate::storage::ObjectStorage;

/// The servers' bucket.
pub const BUCKET: &str = "checkpoints";

/// The servers' one access key.
pub const ACCESS_KEY: &str = "flott";

/// What belongs to it.
pub const SECRET_KEY: &str = "a secret of the tests";

/// Opens `root` at the server of that URL.
fn open(root: &str, url: &str, secret_key: &str) -> ObjectStorage {
    let options = [
        ("AWS_ENDPOINT", url),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", secret_key),
    ];
    let options = options.map(|(name, value)| (name.to_owned(), value.to_owned()));
    ObjectStorage::open_with(root, &BTreeMap::from(options)).unwrap()
}
