//! A development CA: what `flott certs`, `flott local --tls` and the tests make their certificates with.
//!
//! A directory holds `ca.pem`, `ca.key` and a pair of files for each certificate. Keys are readable by their owner only,
//! and nothing is overwritten, except a certificate that is renewed. Whoever has `ca.key` can be anybody in the cluster.
//!
//! The cluster's name stands in the CA's certificate, so that it is said once. Keys are ECDSA on P-256.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;

use super::error::TlsError;
use super::identity::{Identity, Role};
use super::material::{Contents, Files, Material};

const CA_SCHEME: &str = "flott-ca://";
const DAY_SECONDS: i64 = 86_400;
/// Clocks of other machines may be behind.
const BACKDATED_SECONDS: i64 = 3600;

/// A CA that can issue certificates.
pub struct Authority {
    dir: PathBuf,
    cluster: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("dir", &self.dir)
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

/// For how long something is valid.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    pub now_ms: i64,
    pub days: u32,
}

impl Validity {
    fn apply(self, params: &mut CertificateParams) -> Result<i64, TlsError> {
        let now = self.now_ms / 1000;
        let until = now + i64::from(self.days) * DAY_SECONDS;
        let time = |seconds| OffsetDateTime::from_unix_timestamp(seconds).map_err(cannot_issue);
        params.not_before = time(now - BACKDATED_SECONDS)?;
        params.not_after = time(until)?;
        Ok(until)
    }
}

fn cannot_issue(reason: impl ToString) -> TlsError {
    TlsError::Issue(reason.to_string())
}

/// A certificate that was issued, and where it is.
#[derive(Clone, Debug)]
pub struct Issued {
    pub identity: Identity,
    pub hosts: Vec<String>,
    /// Seconds since the epoch.
    pub expires: i64,
    pub files: Files,
}

impl Authority {
    /// Makes a CA for a cluster of that name in `dir`, which is made if missing.
    pub fn create(dir: &Path, cluster: &str, validity: Validity) -> Result<Self, TlsError> {
        // What can be in no identity would be of no use.
        Identity::new(cluster, Role::Client, "x").map_err(cannot_issue)?;
        std::fs::create_dir_all(dir).map_err(write_failed(dir))?;
        let key = KeyPair::generate().map_err(cannot_issue)?;
        let mut params = authority_params(cluster, &key)?;
        validity.apply(&mut params)?;
        let certificate = params.self_signed(&key).map_err(cannot_issue)?;
        // The key first: without it nobody takes the certificate for a CA that works.
        write_new(&dir.join("ca.key"), &key.serialize_pem(), Secrecy::Secret)?;
        write_new(&dir.join("ca.pem"), &certificate.pem(), Secrecy::Public)?;
        Ok(Self::new(dir, cluster, params, key))
    }

    /// The CA that was made in `dir` before.
    pub fn open(dir: &Path) -> Result<Self, TlsError> {
        let (certificate, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        let malformed = |path: &Path, reason: String| TlsError::Malformed {
            path: path.to_owned(),
            reason,
        };
        let text = read(&certificate)?;
        let der = CertificateDer::from_pem_slice(&text)
            .map_err(|error| malformed(&certificate, error.to_string()))?;
        let parsed = webpki::EndEntityCert::try_from(&der)
            .map_err(|error| malformed(&certificate, error.to_string()))?;
        let cluster = parsed
            .valid_uri_names()
            .find_map(|uri| uri.strip_prefix(CA_SCHEME))
            .ok_or_else(|| malformed(&certificate, "not a CA of `flott certs init`".to_owned()))?
            .to_owned();
        let text =
            String::from_utf8(read(&key)?).map_err(|error| malformed(&key, error.to_string()))?;
        let pair = KeyPair::from_pem(&text).map_err(|error| malformed(&key, error.to_string()))?;
        let params = authority_params(&cluster, &pair)?;
        Ok(Self::new(dir, &cluster, params, pair))
    }

    fn new(dir: &Path, cluster: &str, params: CertificateParams, key: KeyPair) -> Self {
        Self {
            dir: dir.to_owned(),
            cluster: cluster.to_owned(),
            issuer: Issuer::new(params, key),
        }
    }

    /// The name of the cluster that it is for.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The certificate to be trusted.
    pub fn certificate(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// The key that makes certificates.
    pub fn key(&self) -> PathBuf {
        self.dir.join("ca.key")
    }

    /// Issues a certificate for `name` in that role, which is good for these hosts (names or addresses) when its holder
    /// is dialled. Fails if there is one already.
    pub fn issue(
        &self,
        role: Role,
        name: &str,
        hosts: &[String],
        validity: Validity,
    ) -> Result<Issued, TlsError> {
        let key = KeyPair::generate().map_err(cannot_issue)?;
        let (issued, pem) = self.sign(role, name, hosts, validity, &key)?;
        write_new(&issued.files.key, &key.serialize_pem(), Secrecy::Secret)?;
        write_new(&issued.files.certificate, &pem, Secrecy::Public)?;
        check(issued)
    }

    /// Replaces the certificate that [`Self::issue`] made by a newer one for the same key, in one step: whoever reads it
    /// meanwhile gets the one or the other.
    pub fn renew(
        &self,
        role: Role,
        name: &str,
        hosts: &[String],
        validity: Validity,
    ) -> Result<Issued, TlsError> {
        let files = self.files(role, name);
        let malformed = |reason: String| TlsError::Malformed {
            path: files.key.clone(),
            reason,
        };
        let text =
            String::from_utf8(read(&files.key)?).map_err(|error| malformed(error.to_string()))?;
        let key = KeyPair::from_pem(&text).map_err(|error| malformed(error.to_string()))?;
        let (issued, pem) = self.sign(role, name, hosts, validity, &key)?;
        replace(&issued.files.certificate, &pem)?;
        check(issued)
    }

    fn sign(
        &self,
        role: Role,
        name: &str,
        hosts: &[String],
        validity: Validity,
        key: &KeyPair,
    ) -> Result<(Issued, String), TlsError> {
        let identity = Identity::new(&self.cluster, role, name).map_err(cannot_issue)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("{role} {name}"));
        params.subject_alt_names = vec![SanType::URI(ia5(&identity.to_string())?)];
        for host in hosts {
            params.subject_alt_names.push(match host.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(dns_name(host)?),
            });
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match role {
            Role::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Role::JobManager | Role::TaskManager => vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
        };
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial_number(validity.now_ms, key));
        let expires = validity.apply(&mut params)?;
        let certificate = params.signed_by(key, &self.issuer).map_err(cannot_issue)?;
        let issued = Issued {
            identity,
            hosts: hosts.to_vec(),
            expires,
            files: self.files(role, name),
        };
        Ok((issued, certificate.pem()))
    }

    /// Where the certificate of that name is, or would be.
    pub fn files(&self, role: Role, name: &str) -> Files {
        let portable = |c: char| {
            if c.is_ascii_alphanumeric() || ".-".contains(c) {
                c
            } else {
                '_'
            }
        };
        let stem = format!("{role}-{}", name.chars().map(portable).collect::<String>());
        Files {
            ca: self.certificate(),
            certificate: self.dir.join(format!("{stem}.pem")),
            key: self.dir.join(format!("{stem}.key")),
        }
    }
}

/// The same for the same name and key: what a CA issues names it by these words.
fn authority_params(cluster: &str, key: &KeyPair) -> Result<CertificateParams, TlsError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // Two CAs of one name are told apart by their keys.
    let mark = key_mark(key).map(|byte| format!("{byte:02x}"));
    let name = format!(
        "Flott development CA of {cluster} ({})",
        mark.collect::<String>()
    );
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::URI(ia5(&format!("{CA_SCHEME}{cluster}"))?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn ia5(text: &str) -> Result<Ia5String, TlsError> {
    Ia5String::try_from(text.to_owned()).map_err(cannot_issue)
}

fn dns_name(host: &str) -> Result<Ia5String, TlsError> {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let valid = rustls::pki_types::DnsName::try_from(name).is_ok();
    if !valid {
        return Err(cannot_issue(format!(
            "{host:?} is neither an IP address nor a DNS name"
        )));
    }
    ia5(host)
}

/// The time, so that a renewed certificate has another one, and the beginning of the key, so that two of one moment do.
fn serial_number(now_ms: i64, key: &KeyPair) -> SerialNumber {
    let mut bytes = vec![1];
    bytes.extend(now_ms.to_be_bytes());
    bytes.extend(key_mark(key));
    SerialNumber::from_slice(&bytes)
}

/// The beginning of the public key, after the byte that says how the point is written.
fn key_mark(key: &KeyPair) -> impl Iterator<Item = u8> + '_ {
    key.der_bytes().iter().skip(1).take(8).copied()
}

/// What this process would not take from others it must not make.
fn check(issued: Issued) -> Result<Issued, TlsError> {
    Material::of(Contents::read(&issued.files)?, &issued.files)?;
    Ok(issued)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

fn write_failed(path: &Path) -> impl FnOnce(io::Error) -> TlsError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::AlreadyExists => TlsError::Exists { path },
        _ => TlsError::Write { path, source },
    }
}

#[derive(Clone, Copy)]
enum Secrecy {
    Public,
    /// Its owner alone may read it.
    Secret,
}

fn write_new(path: &Path, text: &str, secrecy: Secrecy) -> Result<(), TlsError> {
    let mode = match secrecy {
        Secrecy::Public => 0o644,
        Secrecy::Secret => 0o600,
    };
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(write_failed(path))
}

fn replace(path: &Path, text: &str) -> Result<(), TlsError> {
    let temporary = path.with_extension("pem.tmp");
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(write_failed(path))
}
