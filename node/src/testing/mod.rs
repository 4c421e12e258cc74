//! S3 servers for tests; not part of any program.
//!
//! - [`S3Server`]: in the test's own process, and with faults as the test plans them ([`Fault`]).
//! - [`SeaweedFs`]: a real one in a process of its own, for what an imitation cannot show.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fault;
mod s3_server;
mod seaweedfs;

use std::collections::BTreeMap;
use std::net::SocketAddr;

pub use self::fault::{Call, Fault, Operation};
pub use self::s3_server::S3Server;
pub use self::seaweedfs::SeaweedFs;
use crate::storage::ObjectStorage;

const BUCKET: &str = "checkpoints";
const ACCESS_KEY: &str = "flott";
const SECRET_KEY: &str = "a secret of the tests";

/// Opens `root` at a server, with its credentials.
fn open(root: &str, server: SocketAddr, secret_key: &str) -> ObjectStorage {
    let options = [
        ("AWS_ENDPOINT", format!("http://{server}")),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", secret_key.to_owned()),
    ];
    let options: BTreeMap<String, String> = options
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    ObjectStorage::open_with(root, &options).unwrap()
}
