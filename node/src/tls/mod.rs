//! How this process makes and accepts connections: over mutual TLS, or in plain text where that is allowed.
//!
//! ```text
//!   configuration ──▶ Transport ──connect(address, whom)──▶ Connection    gRPC clients: Transport::connector
//!                        │      ──accept, incoming───────▶ Connection    gRPC servers, the data exchange
//!                        └── watch: reads the files again, swaps what is used for new connections
//! ```
//!
//! - [`identity`]: who a certificate says that somebody is, and what follows from it (pure). [`material`]: PEM files to
//!   what rustls needs, checked. [`expiry`]: until when a certificate is valid (pure).
//! - [`connection`]: the bytes, and who is at the other end. [`connect`], [`accept`]: how they come about.
//! - [`reload`]: renewed files. [`authority`]: a development CA. [`metrics`]: what there is to watch.
//!
//! What must stay true:
//! - A process of a cluster with TLS never speaks plain text on a port of its own but the HTTP port for probes.
//! - Plain text leaves the machine only if somebody said so ([`options::INSECURE`](crate::config::options::INSECURE)).
//! - No byte of a request leaves before the other side's certificate was checked: its CA, the host that was dialled,
//!   the cluster, and the role. Whoever accepts checks what the caller may do with each request.
//! - The provider of cryptography is named explicitly (ring): nothing depends on the process's default.
//!
//! TLS 1.3 only, since both ends are ours. Sessions are never resumed: each connection shows its certificate to the CA
//! that is in force when it is made.

mod accept;
pub mod authority;
mod connect;
mod connection;
mod error;
mod expiry;
mod identity;
mod material;
mod metrics;
mod reload;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::{Configuration, options};
use material::Material;

pub use connect::{Connector, Whom};
pub use connection::{Connection, Halves, Peer};
pub use error::{PlainTextRefused, TlsError, plain_text_refused, refusal};
pub use identity::{Identity, Role, host_of};
pub use material::Files;

/// What a connection is for. The two cannot be mixed up: each is a protocol of its own in the handshake (ALPN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    Http2,
    /// The data exchange between TaskManagers.
    Data,
    /// The HTTP port: it shows a certificate and asks for none. Only accepted, never dialled.
    Http,
}

/// How this process makes and accepts connections. Clones share what is loaded.
#[derive(Clone)]
pub struct Transport(Mode);

#[derive(Clone)]
enum Mode {
    PlainText { beyond_loopback: bool },
    Tls(Arc<Tls>),
}

pub(crate) struct Tls {
    files: Files,
    /// The HTTP port is to be plain text even where others can reach it.
    beyond_loopback: bool,
    current: ArcSwap<Material>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Mode::PlainText { beyond_loopback } => f
                .debug_struct("PlainText")
                .field("beyond_loopback", beyond_loopback)
                .finish(),
            Mode::Tls(tls) => f
                .debug_struct("Tls")
                .field("identity", &tls.current.load().identity.to_string())
                .finish(),
        }
    }
}

impl Transport {
    /// Plain text, which does not leave this machine.
    pub fn loopback() -> Self {
        Self(Mode::PlainText {
            beyond_loopback: false,
        })
    }

    /// Plain text, also over a network.
    pub fn insecure() -> Self {
        Self(Mode::PlainText {
            beyond_loopback: true,
        })
    }

    /// Mutual TLS with what is in the files. Fails if any of it is missing, malformed, expired, or does not fit the rest.
    pub fn tls(files: Files) -> Result<Self, TlsError> {
        Self::with_files(files, false)
    }

    fn with_files(files: Files, beyond_loopback: bool) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(Material::load(&files)?);
        Ok(Self(Mode::Tls(Arc::new(Tls {
            files,
            beyond_loopback,
            current,
        }))))
    }

    /// What `security.ssl.internal.*` and `security.insecure` say, for a process of that role: its certificate must be
    /// of that role, too.
    pub fn from_configuration(configuration: &Configuration, role: Role) -> Result<Self, TlsError> {
        let insecure = configuration.get(&options::INSECURE)?;
        if !configuration.get(&options::SSL_ENABLED)? {
            return Ok(if insecure {
                Self::insecure()
            } else {
                Self::loopback()
            });
        }
        let transport = Self::with_files(Files::from_configuration(configuration)?, insecure)?;
        match transport.identity() {
            Some(own) if own.role != role => Err(TlsError::OtherRole {
                own: Box::new(own),
                role,
            }),
            _ => Ok(transport),
        }
    }

    /// Who this process is, as its certificate says; None without TLS.
    pub fn identity(&self) -> Option<Identity> {
        match &self.0 {
            Mode::PlainText { .. } => None,
            Mode::Tls(tls) => Some(tls.current.load().identity.clone()),
        }
    }

    pub fn is_tls(&self) -> bool {
        matches!(self.0, Mode::Tls(_))
    }

    /// Whether a port of this process may be open at `address`: over TLS anywhere, in plain text on loopback, or if it
    /// was said that plain text is wanted. `key` is the setting from which the address comes.
    pub fn check_listener(&self, address: SocketAddr, key: &'static str) -> Result<(), TlsError> {
        match &self.0 {
            Mode::Tls(_) => Ok(()),
            Mode::PlainText { beyond_loopback }
                if *beyond_loopback || is_loopback(address.ip()) =>
            {
                Ok(())
            }
            Mode::PlainText { .. } => Err(TlsError::PlainTextListener { address, key }),
        }
    }

    /// Whether others that dial this process as `host` will take its certificate for that of whom they want.
    pub fn check_own_host(&self, host: &str, key: &'static str) -> Result<(), TlsError> {
        let Mode::Tls(tls) = &self.0 else {
            return Ok(());
        };
        let material = tls.current.load();
        let host = host_of(host);
        if material.is_for(host) {
            return Ok(());
        }
        Err(TlsError::OtherHost {
            own: Box::new(material.identity.clone()),
            host: host.to_owned(),
            key,
        })
    }

    /// How to listen on a port that is plain text although the others may be TLS.
    pub fn without_tls(&self) -> Self {
        let beyond_loopback = match &self.0 {
            Mode::PlainText { beyond_loopback } => *beyond_loopback,
            Mode::Tls(tls) => tls.beyond_loopback,
        };
        Self(Mode::PlainText { beyond_loopback })
    }
}

/// Whether what is sent there stays on this machine.
pub(crate) fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
