//! What is wrong with the files, or with the wish for plain text. Each message says what to do.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::identity::{Identity, Role};
use crate::config::{ConfigError, options};

/// Why TLS, or its absence, cannot be as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("`{missing}` is not set; TLS needs a certificate, its key and the CA's certificate")]
    Incomplete { missing: &'static str },
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not usable: {reason}", path.display())]
    Malformed { path: PathBuf, reason: String },
    /// The three do not belong together, or are not valid at present.
    #[error("certificate {}: {reason}", path.display())]
    Certificate { path: PathBuf, reason: String },
    #[error(
        "the certificate is that of {own}, and this process is a {role}; issue one with `flott certs issue {role} NAME`"
    )]
    OtherRole { own: Box<Identity>, role: Role },
    #[error(
        "the certificate is that of {own}, which is neither `{address}`, nor its host, nor node id {node}; a JobManager's \
         certificate is bound to its address (or node id): issue one with `flott certs issue jobmanager {address}`, or \
         correct jobmanager.rpc.address"
    )]
    OtherMember {
        own: Box<Identity>,
        node: u64,
        address: String,
    },
    #[error(
        "the certificate of {own} is not for `{host}`, under which others dial this process ({key}); issue one with \
         --host {host}"
    )]
    OtherHost {
        own: Box<Identity>,
        host: String,
        key: &'static str,
    },
    /// A renewed certificate speaks for somebody else than the one before.
    #[error("certificate {} is that of {new}, and this process is {own}; restart it to make it somebody else", path.display())]
    OtherIdentity {
        path: PathBuf,
        own: Box<Identity>,
        new: Box<Identity>,
    },
    #[error(
        "`{key}` makes this process listen on {address} in plain text, for everybody who can reach that address; configure \
         TLS (`{}: true`, `flott certs` makes certificates), listen on 127.0.0.1, or, in a network that you trust, say \
         --insecure (`{}: true`)",
        options::SSL_ENABLED.key(), options::INSECURE.key()
    )]
    PlainTextListener {
        address: SocketAddr,
        key: &'static str,
    },
    #[error("cannot make a certificate: {0}")]
    Issue(String),
    #[error("{} is there already, and nothing is overwritten; choose another --dir, or delete it", path.display())]
    Exists { path: PathBuf },
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A connection in plain text to another machine that nobody has allowed: trying again is useless.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{address} is not on this machine, and plain text would be readable and forgeable on the way; use TLS (clients: \
     --tls-ca, --tls-cert, --tls-key; processes: security.ssl.internal.*), or, in a network that you trust, say --insecure"
)]
pub struct PlainTextRefused {
    pub address: String,
}

/// The [`PlainTextRefused`] among the causes of an error.
pub fn plain_text_refused<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e PlainTextRefused> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// Why a connection was not made, if that is for a person to change rather than for time: the wrong certificate, or no
/// TLS at one end.
pub fn refusal(error: &(dyn StdError + 'static)) -> Option<String> {
    let refused = |io: &&io::Error| {
        matches!(
            io.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::PermissionDenied
        )
    };
    causes(error)
        .filter_map(|cause| cause.downcast_ref())
        .find(refused)
        .map(ToString::to_string)
}

/// The error, its sources, and what an `io::Error` wraps, which it does not count among them.
fn causes<'e>(
    error: &'e (dyn StdError + 'static),
) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error: &&'e (dyn StdError + 'static)| {
        let wrapped = error
            .downcast_ref::<io::Error>()
            .and_then(|io| io.get_ref());
        match wrapped {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        }
    })
}
