//! A connection that stands: the bytes, and who is at the other end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tonic::transport::server::Connected;

use super::identity::{Identity, Role};
use super::material;

/// Who is at the other end. A gRPC service finds it among the extensions of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Anybody: there is no TLS.
    PlainText,
    /// The holder of a certificate of our CA and our cluster.
    Certified(Arc<Identity>),
    /// The holder of a certificate of our CA that says nothing which is of use here; why.
    Unidentified(String),
}

impl Peer {
    pub(super) fn of(certificates: Option<&[CertificateDer<'_>]>, own: &Identity) -> Self {
        let Some(certificate) = certificates.and_then(<[_]>::first) else {
            return Self::Unidentified("it shows no certificate".to_owned());
        };
        match material::identity_of(certificate) {
            Ok(identity) if identity.cluster == own.cluster => Self::Certified(Arc::new(identity)),
            Ok(other) => Self::Unidentified(format!(
                "the certificate is that of {other}, of another cluster than {}",
                own.cluster
            )),
            Err(reason) => Self::Unidentified(format!("the certificate is of no use: {reason}")),
        }
    }

    /// None without TLS, or if the certificate says nothing of use.
    pub fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Certified(identity) => Some(identity),
            Self::PlainText | Self::Unidentified(_) => None,
        }
    }

    /// Whether it may do what only these roles may. Without TLS everybody may do everything.
    pub fn admit(&self, roles: &[Role]) -> Result<(), String> {
        match self {
            Self::PlainText => Ok(()),
            Self::Certified(identity) if roles.contains(&identity.role) => Ok(()),
            Self::Certified(identity) => {
                let roles: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
                Err(format!(
                    "the certificate is that of {identity}, and this needs that of a {}",
                    roles.join(" or ")
                ))
            }
            Self::Unidentified(reason) => Err(reason.clone()),
        }
    }
}

/// A stream of bytes to or from another process.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    peer: Peer,
    /// Of the other side, for messages.
    address: Arc<str>,
}

#[derive(Debug)]
enum Stream {
    PlainText(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    #[cfg(feature = "simulation")]
    Simulated(Box<dyn crate::simulation::Stream>),
}

/// The two directions of a [`Connection`].
#[derive(Debug)]
pub enum Halves {
    PlainText(TcpStream),
    /// To be split in the general way, which costs a lock; what it protects costs far more.
    Tls(Box<Connection>),
}

/// What one write may hand to TLS before it has to wait for the network: full records, and several in one system call.
const TLS_BUFFER_BYTES: usize = 256 << 10;

impl Connection {
    pub(super) fn plain_text(stream: TcpStream, address: &str) -> Self {
        Self {
            stream: Stream::PlainText(stream),
            peer: Peer::PlainText,
            address: address.into(),
        }
    }

    /// One of a simulation, in plain text.
    #[cfg(feature = "simulation")]
    pub fn simulated(stream: Box<dyn crate::simulation::Stream>, address: &str) -> Self {
        Self {
            stream: Stream::Simulated(stream),
            peer: Peer::PlainText,
            address: address.into(),
        }
    }

    pub(super) fn tls(mut stream: TlsStream<TcpStream>, own: &Identity, address: &str) -> Self {
        match &mut stream {
            TlsStream::Client(stream) => {
                stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_BYTES))
            }
            TlsStream::Server(stream) => {
                stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_BYTES))
            }
        }
        let (_, session) = stream.get_ref();
        let peer = Peer::of(session.peer_certificates(), own);
        Self {
            stream: Stream::Tls(Box::new(stream)),
            peer,
            address: address.into(),
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// For splitting into two directions, without the cost of TLS where there is none.
    pub fn into_halves(self) -> Halves {
        match self.stream {
            Stream::PlainText(stream) => Halves::PlainText(stream),
            Stream::Tls(_) => Halves::Tls(Box::new(self)),
            #[cfg(feature = "simulation")]
            Stream::Simulated(_) => Halves::Tls(Box::new(self)),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

/// An alert says why the other side does not want us, in words that are for people who know TLS.
fn explain(error: io::Error, address: &str) -> io::Error {
    let refused =
        |inner: &(dyn std::error::Error + Send + Sync + 'static)| match inner.downcast_ref() {
            Some(rustls::Error::AlertReceived(alert)) => Some(*alert),
            _ => None,
        };
    match error.get_ref().and_then(refused) {
        Some(alert) => io::Error::new(
            error.kind(),
            format!(
                "{address} refuses the certificate of this process (TLS alert {alert:?}); it may be of a CA that is \
                     not trusted there, or expired"
            ),
        ),
        None => error,
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.stream {
            Stream::PlainText(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => {
                let read = ready!(Pin::new(stream.as_mut()).poll_read(context, buffer));
                Poll::Ready(read.map_err(|error| explain(error, &this.address)))
            }
            #[cfg(feature = "simulation")]
            Stream::Simulated(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::PlainText(stream) => Pin::new(stream).poll_write(context, buffer),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, buffer),
            #[cfg(feature = "simulation")]
            Stream::Simulated(stream) => Pin::new(stream).poll_write(context, buffer),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::PlainText(stream) => Pin::new(stream).poll_write_vectored(context, buffers),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(context, buffers),
            #[cfg(feature = "simulation")]
            Stream::Simulated(stream) => Pin::new(stream).poll_write_vectored(context, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::PlainText(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
            #[cfg(feature = "simulation")]
            Stream::Simulated(_) => false,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::PlainText(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
            #[cfg(feature = "simulation")]
            Stream::Simulated(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::PlainText(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
            #[cfg(feature = "simulation")]
            Stream::Simulated(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_certified_may_do_nothing_that_needs_a_role() {
        let certified = |role| Peer::Certified(Identity::new("c", role, "n").unwrap().into());
        let refused = |peer: Peer, roles: &[Role]| peer.admit(roles).unwrap_err();
        assert!(Peer::PlainText.admit(&[]).is_ok());
        assert!(
            certified(Role::Client)
                .admit(&[Role::JobManager, Role::Client])
                .is_ok()
        );
        let text = refused(
            certified(Role::TaskManager),
            &[Role::JobManager, Role::Client],
        );
        assert!(
            text.contains("flott://c/taskmanager/n") && text.contains("jobmanager or client"),
            "{text}"
        );
        assert_eq!(refused(Peer::Unidentified("why".into()), &Role::ALL), "why");
        assert!(certified(Role::JobManager).admit(&[]).is_err());
    }
}
