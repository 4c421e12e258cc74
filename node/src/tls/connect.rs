//! Connecting: to an address, and to nobody else than whom it is meant for.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::{TlsConnector, TlsStream};
use tower_service::Service;

use super::connection::{Connection, Peer};
use super::error::PlainTextRefused;
use super::identity::{Role, host_of};
use super::material::explain;
use super::{Mode, Protocol, Tls, Transport, is_loopback};

/// Who has to be at the other end. All have to hold a certificate for the host that is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// A JobManager, dialled under any name that its certificate has.
    JobManager,
    /// The JobManager that the others know under the dialled address.
    Member,
    /// A TaskManager, for data.
    TaskManager,
}

impl Whom {
    fn protocol(self) -> Protocol {
        match self {
            Self::JobManager | Self::Member => Protocol::Http2,
            Self::TaskManager => Protocol::Data,
        }
    }

    fn check(self, peer: &Peer, address: &str) -> Result<(), String> {
        let role = match self {
            Self::JobManager | Self::Member => Role::JobManager,
            Self::TaskManager => Role::TaskManager,
        };
        peer.admit(&[role])?;
        match peer.identity() {
            // Which node it should be is in the first request; a certificate that is bound to a node id is checked there.
            Some(identity) if self == Self::Member && identity.node_id().is_none() => {
                if identity.names_member(0, address) {
                    return Ok(());
                }
                Err(format!("the certificate is that of {identity}"))
            }
            _ => Ok(()),
        }
    }
}

impl Transport {
    /// Connects to `host:port`. No byte of ours is sent before it is known that `whom` is there; without TLS, only to
    /// this machine unless plain text was asked for ([`PlainTextRefused`] within the error).
    ///
    /// Has no deadline of its own.
    pub async fn connect(&self, address: &str, whom: Whom) -> io::Result<Connection> {
        #[cfg(feature = "simulation")]
        if let Some(environment) = crate::simulation::environment() {
            let stream = environment.connect(address).await?;
            return Ok(Connection::simulated(stream, address));
        }
        let stream = self.dial(address).await?;
        stream.set_nodelay(true)?;
        match &self.0 {
            Mode::PlainText { .. } => Ok(Connection::plain_text(stream, address)),
            Mode::Tls(tls) => handshake(tls, stream, address, whom).await,
        }
    }

    /// Refuses what is certain to be refused when it is dialled: plain text to an address of another machine. What a name
    /// stands for is known only then.
    pub fn check_address(&self, address: &str) -> Result<(), PlainTextRefused> {
        match (&self.0, host_of(address).parse()) {
            (
                Mode::PlainText {
                    beyond_loopback: false,
                },
                Ok(ip),
            ) if !is_loopback(ip) => Err(PlainTextRefused {
                address: address.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    async fn dial(&self, address: &str) -> io::Result<TcpStream> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for resolved in lookup_host(address).await? {
            self.check_target(address, resolved)?;
            match TcpStream::connect(resolved).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn check_target(&self, address: &str, resolved: SocketAddr) -> io::Result<()> {
        match &self.0 {
            Mode::PlainText {
                beyond_loopback: false,
            } if !is_loopback(resolved.ip()) => {
                let address = address.to_owned();
                let refused = PlainTextRefused { address };
                Err(io::Error::new(io::ErrorKind::PermissionDenied, refused))
            }
            _ => Ok(()),
        }
    }

    /// For [`tonic::transport::Endpoint::connect_with_connector`]: as [`Self::connect`], to the authority of the URI.
    pub fn connector(&self, whom: Whom) -> Connector {
        Connector {
            transport: self.clone(),
            whom,
        }
    }
}

async fn handshake(
    tls: &Arc<Tls>,
    stream: TcpStream,
    address: &str,
    whom: Whom,
) -> io::Result<Connection> {
    let material = tls.current.load_full();
    let invalid =
        |reason: String| io::Error::new(io::ErrorKind::InvalidData, format!("{address}: {reason}"));
    let name = ServerName::try_from(host_of(address).to_owned())
        .map_err(|error| invalid(error.to_string()))?;
    let connector = TlsConnector::from(material.client(whom.protocol()));
    let stream = connector.connect(name, stream).await.map_err(|error| {
        let text = match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(rustls::Error::InvalidMessage(_)) => "does not speak TLS".to_owned(),
            Some(rustls::Error::AlertReceived(alert)) => {
                format!("does not want this connection (TLS alert {alert:?})")
            }
            Some(rustls::Error::InvalidCertificate(certificate)) => {
                let error = rustls::Error::InvalidCertificate(certificate.clone());
                format!(
                    "its certificate is refused: {}",
                    explain(&error, &tls.files)
                )
            }
            Some(other) => other.to_string(),
            None if matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
            ) =>
            {
                "closed the connection instead of speaking TLS".to_owned()
            }
            None => return error,
        };
        invalid(text)
    })?;
    let connection = Connection::tls(TlsStream::Client(stream), &material.identity, address);
    whom.check(connection.peer(), address).map_err(invalid)?;
    Ok(connection)
}

/// Makes connections for tonic.
#[derive(Clone)]
pub struct Connector {
    transport: Transport,
    whom: Whom,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("transport", &self.transport)
            .field("whom", &self.whom)
            .finish()
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { transport, whom } = self.clone();
        Box::pin(async move {
            let authority = uri.authority().map(|authority| authority.as_str());
            let address = authority.ok_or(io::ErrorKind::InvalidInput)?;
            transport.connect(address, whom).await.map(TokioIo::new)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::Identity;
    use super::*;

    #[test]
    fn only_whom_it_is_meant_for_is_talked_to() {
        let peer = |role, name| Peer::Certified(Identity::new("c", role, name).unwrap().into());
        let jobmanager = |name| peer(Role::JobManager, name);
        let address = "h1:6123";
        for (whom, peer, accepted) in [
            (Whom::JobManager, jobmanager("other"), true),
            (Whom::JobManager, peer(Role::TaskManager, "h1"), false),
            (Whom::JobManager, peer(Role::Client, "h1"), false),
            (Whom::JobManager, Peer::Unidentified("x".into()), false),
            (Whom::JobManager, Peer::PlainText, true),
            (Whom::Member, jobmanager("h1"), true),
            (Whom::Member, jobmanager("h1:6123"), true),
            (Whom::Member, jobmanager("3"), true),
            (Whom::Member, jobmanager("h1:6124"), false),
            (Whom::Member, jobmanager("h2"), false),
            (Whom::Member, peer(Role::TaskManager, "h1"), false),
            (Whom::TaskManager, peer(Role::TaskManager, "any"), true),
            (Whom::TaskManager, jobmanager("h1"), false),
        ] {
            let checked = whom.check(&peer, address);
            assert_eq!(checked.is_ok(), accepted, "{whom:?} {peer:?}: {checked:?}");
        }
    }
}
