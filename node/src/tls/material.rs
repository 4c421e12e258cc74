//! From three PEM files to what rustls needs: read whole, checked against each other, and never used in part.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig};

use super::error::TlsError;
use super::identity::{Identity, Role};
use super::{Protocol, expiry};
use crate::config::{ConfigOption, Configuration, options};

/// A certificate with its chain is some kilobytes; this is no certificate.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where the PEM files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Certificates of the CAs that are trusted: what Flink has in its truststore. Several while one replaces another.
    pub ca: PathBuf,
    /// This process's certificate, then those of intermediate CAs: with the key what Flink has in its keystore.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Files {
    pub(super) fn from_configuration(configuration: &Configuration) -> Result<Self, TlsError> {
        let path = |option: &ConfigOption<String>| {
            let text = configuration.get(option)?;
            if text.is_empty() {
                let missing = option.key();
                return Err(TlsError::Incomplete { missing });
            }
            Ok(PathBuf::from(text))
        };
        Ok(Self {
            ca: path(&options::SSL_CA)?,
            certificate: path(&options::SSL_CERT)?,
            key: path(&options::SSL_KEY)?,
        })
    }
}

/// What the files hold.
#[derive(PartialEq, Eq)]
pub(super) struct Contents {
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Contents {
    pub(super) fn read(files: &Files) -> Result<Self, TlsError> {
        Ok(Self {
            ca: read(&files.ca)?,
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read {
        path: path.to_owned(),
        source,
    };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > FILE_BYTES_MAX {
        let reason = format!("{length} bytes are more than PEM of this kind has");
        return Err(malformed(path, reason));
    }
    std::fs::read(path).map_err(failed)
}

fn malformed(path: &Path, reason: impl ToString) -> TlsError {
    TlsError::Malformed {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

/// All that new connections need.
pub(super) struct Material {
    pub(super) identity: Identity,
    /// Seconds since the epoch.
    pub(super) expires: i64,
    /// That of the CA which expires first.
    pub(super) ca_expires: i64,
    contents: Contents,
    own: CertificateDer<'static>,
    /// By protocol, as `Protocol` numbers them.
    server: [Arc<ServerConfig>; 3],
    client: [Arc<ClientConfig>; 2],
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl Protocol {
    fn alpn(self) -> Vec<u8> {
        match self {
            Self::Http2 => b"h2".to_vec(),
            Self::Data => b"flott-data/1".to_vec(),
            Self::Http => b"http/1.1".to_vec(),
        }
    }
}

impl Material {
    pub(super) fn load(files: &Files) -> Result<Self, TlsError> {
        Self::of(Contents::read(files)?, files)
    }

    pub(super) fn is_of(&self, contents: &Contents) -> bool {
        self.contents == *contents
    }

    /// Whether those who dial this host will take the certificate.
    pub(super) fn is_for(&self, host: &str) -> bool {
        let name = ServerName::try_from(host);
        let certificate = ParsedCertificate::try_from(&self.own);
        matches!((name, certificate), (Ok(name), Ok(certificate)) if verify_server_name(&certificate, &name).is_ok())
    }

    pub(super) fn server(&self, protocol: Protocol) -> Arc<ServerConfig> {
        Arc::clone(&self.server[protocol as usize])
    }

    /// Panics for [`Protocol::Http`], which is never dialled.
    pub(super) fn client(&self, protocol: Protocol) -> Arc<ClientConfig> {
        Arc::clone(&self.client[protocol as usize])
    }

    pub(super) fn of(contents: Contents, files: &Files) -> Result<Self, TlsError> {
        let authorities = certificates(&contents.ca, &files.ca)?;
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            let added = roots.add(authority.clone());
            added.map_err(|error| malformed(&files.ca, error))?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&contents.certificate, &files.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|error| malformed(&files.key, format!("no private key in PEM: {error}")))?;
        let identity = identity_of(&chain[0]).map_err(|reason| TlsError::Certificate {
            path: files.certificate.clone(),
            reason,
        })?;
        let refused = |error: rustls::Error| TlsError::Certificate {
            path: files.certificate.clone(),
            reason: explain(&error, files),
        };
        let provider = Arc::new(ring::default_provider());
        check_own(&identity, &chain, &roots, &provider).map_err(refused)?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|error| malformed(&files.ca, error))?;

        let server = |protocol: Protocol| {
            let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[&TLS13])?;
            let builder = match protocol {
                Protocol::Http2 | Protocol::Data => {
                    builder.with_client_cert_verifier(Arc::clone(&verifier))
                }
                Protocol::Http => builder.with_no_client_auth(),
            };
            let mut config = builder.with_single_cert(chain.clone(), key.clone_key())?;
            config.alpn_protocols = vec![protocol.alpn()];
            config.send_tls13_tickets = 0;
            Ok(Arc::new(config))
        };
        let client = |protocol: Protocol| {
            let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[&TLS13])?
                .with_root_certificates(Arc::clone(&roots))
                .with_client_auth_cert(chain.clone(), key.clone_key())?;
            config.alpn_protocols = vec![protocol.alpn()];
            config.resumption = Resumption::disabled();
            Ok(Arc::new(config))
        };
        Ok(Self {
            server: [
                server(Protocol::Http2).map_err(refused)?,
                server(Protocol::Data).map_err(refused)?,
                server(Protocol::Http).map_err(refused)?,
            ],
            client: [
                client(Protocol::Http2).map_err(refused)?,
                client(Protocol::Data).map_err(refused)?,
            ],
            expires: expiry::not_after(&chain[0]).unwrap_or(i64::MAX),
            ca_expires: authorities
                .iter()
                .filter_map(|authority| expiry::not_after(authority))
                .min()
                .unwrap_or(i64::MAX),
            identity,
            own: chain[0].clone(),
            contents,
        })
    }
}

/// All certificates of a file; at least one.
fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = read.map_err(|error| malformed(path, error))?;
    if certificates.is_empty() {
        return Err(malformed(path, "no certificate in PEM"));
    }
    Ok(certificates)
}

/// Who a certificate says that its holder is.
pub(super) fn identity_of(certificate: &CertificateDer<'_>) -> Result<Identity, String> {
    let parsed = webpki::EndEntityCert::try_from(certificate)
        .map_err(|error| format!("it is malformed: {error}"))?;
    Identity::among(parsed.valid_uri_names())
}

/// What the others will check: better to learn it here than from them.
fn check_own(
    identity: &Identity,
    chain: &[CertificateDer<'static>],
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<(), rustls::Error> {
    let now = UnixTime::now();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
    verifier.verify_client_cert(&chain[0], &chain[1..], now)?;
    if identity.role == Role::Client {
        return Ok(());
    }
    verify_server_cert_signed_by_trust_anchor(
        &ParsedCertificate::try_from(&chain[0])?,
        roots,
        &chain[1..],
        now,
        provider.signature_verification_algorithms.all,
    )
}

/// What is wrong with a certificate, for people.
pub(super) fn explain(error: &rustls::Error, files: &Files) -> String {
    use CertificateError::{BadSignature, Expired, ExpiredContext, UnknownIssuer};
    match error {
        // A bad signature is that of another CA with the same name.
        rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature) => {
            format!("it was not issued by a CA in {}", files.ca.display())
        }
        rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => {
            format!("{error}; issue a new one")
        }
        rustls::Error::InconsistentKeys(_) => {
            format!("it does not belong to the key in {}", files.key.display())
        }
        other => other.to_string(),
    }
}
