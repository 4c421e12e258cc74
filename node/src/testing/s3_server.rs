//! An S3 server in the test's own process: it checks signatures, keeps its objects in a directory, and lets go wrong
//! what the test plans.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header, request};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::PrivateKeyDer;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{ACCESS_KEY, BUCKET, Call, Fault, Operation, SECRET_KEY, open};
use crate::storage::ObjectStorage;
use crate::{OnFailure, SystemClock, Tasks};

type Body = UnsyncBoxBody<Bytes, io::Error>;
type Plan = Box<dyn Fn(&Call) -> Option<Fault> + Send + Sync>;

/// A server with one bucket. It ends with the test's runtime.
#[derive(Debug)]
pub struct S3Server {
    url: String,
    shared: Arc<Shared>,
}

impl S3Server {
    /// Starts a server at which nothing goes wrong yet.
    pub async fn start() -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST.into()).await
    }

    /// The same on another address of this machine.
    pub async fn start_on(host: IpAddr) -> Self {
        Self::start_with(host, None).await
    }

    /// As [`Self::start`], over TLS, with a certificate that no authority of this machine vouches for.
    pub async fn start_with_tls() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = ["127.0.0.1".to_owned()];
        let certificate = rcgen::CertificateParams::new(names).unwrap();
        let certificate = certificate.self_signed(&key).unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let server = Self::start_with(Ipv4Addr::LOCALHOST.into(), Some(acceptor)).await;
        std::fs::write(server.certificate_file(), certificate.pem()).unwrap();
        server
    }

    async fn start_with(host: IpAddr, tls: Option<TlsAcceptor>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(BUCKET)).unwrap();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(dir.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let shared = Arc::new(Shared {
            service: service.build(),
            dir,
            faults: Mutex::new(Faults {
                plan: Box::new(|_| None),
                calls: Vec::new(),
                attempts: HashMap::new(),
                listings: HashMap::new(),
            }),
        });
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let tasks = Tasks::default();
        let (accepting, served) = (tasks.clone(), Arc::clone(&shared));
        tasks.spawn("S3 server", OnFailure::Log, async move {
            loop {
                let (socket, _) = listener.accept().await?;
                let (served, tls) = (Arc::clone(&served), tls.clone());
                accepting.spawn("S3 connection", OnFailure::Log, async move {
                    match tls {
                        None => served.serve(socket).await,
                        Some(tls) => served.serve(tls.accept(socket).await?).await,
                    }
                    Ok::<_, io::Error>(())
                });
            }
            #[expect(unreachable_code, reason = "names the type of the task's error")]
            Ok::<_, io::Error>(())
        });
        Self { url, shared }
    }

    /// Where the server is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The certificate of a server with TLS.
    pub fn certificate_file(&self) -> PathBuf {
        self.shared.dir.path().join("certificate.pem")
    }

    /// The server's bucket.
    pub fn storage(&self) -> ObjectStorage {
        self.open(&format!("s3://{BUCKET}"), SECRET_KEY)
    }

    /// Another root at this server, or the same with another key.
    pub fn open(&self, root: &str, secret_key: &str) -> ObjectStorage {
        open(root, &self.url, secret_key)
    }

    /// From now on `plan` says what goes wrong with each request. Attempts are counted anew.
    pub fn plan(&self, plan: impl Fn(&Call) -> Option<Fault> + Send + Sync + 'static) {
        let mut faults = self.shared.faults();
        faults.plan = Box::new(plan);
        faults.attempts.clear();
        faults.calls.clear();
    }

    /// From now on all goes well.
    pub fn heal(&self) {
        self.plan(|_| None);
    }

    /// All requests since the plan was made, in the order in which they came.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.faults().calls.clone()
    }

    /// Parts of uploads that were neither completed nor aborted.
    pub fn orphaned_parts(&self) -> usize {
        let files = std::fs::read_dir(self.shared.dir.path()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(".upload_id-")).count()
    }
}

struct Shared {
    service: S3Service,
    dir: TempDir,
    faults: Mutex<Faults>,
}

struct Faults {
    plan: Plan,
    calls: Vec<Call>,
    /// By method and URI.
    attempts: HashMap<(Method, String), usize>,
    /// What each listing showed last.
    listings: HashMap<String, Bytes>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(
        self: Arc<Self>,
        connection: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) {
        let answers = service_fn(move |request| Arc::clone(&self).answer(request));
        let served = http1::Builder::new().serve_connection(TokioIo::new(connection), answers);
        // Breaking connections is what it is here for.
        let _ = served.await;
    }

    fn record(&self, request: &request::Parts) -> (Operation, Option<Fault>) {
        let mut faults = self.faults();
        let attempts = faults
            .attempts
            .entry((request.method.clone(), request.uri.to_string()));
        let attempt = *attempts.and_modify(|attempt| *attempt += 1).or_insert(1);
        let path = request.uri.path().trim_start_matches('/');
        let (_, path) = path.split_once('/').unwrap_or_default();
        let call = Call {
            operation: Operation::of(&request.method, &request.uri),
            path: path.to_owned(),
            attempt,
        };
        faults.calls.push(call.clone());
        (call.operation, (faults.plan)(&call))
    }

    /// The server behind this one calls that a refusal, where S3 says that there is no such upload.
    fn is_of_unknown_upload(&self, uri: &Uri) -> bool {
        let mut query = uri.query().unwrap_or_default().split('&');
        let id = query.find_map(|parameter| parameter.strip_prefix("uploadId="));
        let known = |id| self.dir.path().join(format!(".upload-{id}.json")).exists();
        id.is_some_and(|id| !known(id))
    }

    /// An error closes the connection without an answer.
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let (parts, mut body) = request.into_parts();
        let (operation, fault) = self.record(&parts);
        let uploads = matches!(operation, Operation::Put | Operation::PutPart);
        if let Some(Fault::Status(status)) = fault {
            read(body).await?;
            return Ok(failure(StatusCode::from_u16(status).unwrap()));
        }
        if fault == Some(Fault::Reset) && operation != Operation::Get {
            body.frame().await;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let mut content = read(body).await?;
        if fault == Some(Fault::FlippedBit) && uploads {
            content = with_flipped_bit(&content);
        }
        if self.is_of_unknown_upload(&parts.uri) {
            return Ok(failure(StatusCode::NOT_FOUND));
        }
        let uri = parts.uri.to_string();
        let request = Request::from_parts(parts, s3s::Body::from(content));
        let answer = self.service.call(request).await;
        let (mut parts, body) = answer.map_err(io::Error::other)?.into_parts();
        let mut content = read(body).await?;
        if operation == Operation::List {
            let mut faults = self.faults();
            match faults.listings.get(&uri) {
                Some(stale) if fault == Some(Fault::StaleList) => content = stale.clone(),
                _ => drop(faults.listings.insert(uri, content.clone())),
            }
        }
        // The body is whole by now.
        parts.headers.remove(header::TRANSFER_ENCODING);
        if operation != Operation::Head {
            parts
                .headers
                .insert(header::CONTENT_LENGTH, HeaderValue::from(content.len()));
        }
        let gets = operation == Operation::Get;
        let body = match fault {
            Some(Fault::NoAnswer) => std::future::pending().await,
            Some(Fault::Slow(pause)) => {
                SystemClock::shared().sleep(pause).await;
                slowly(content, pause)
            }
            Some(Fault::Reset) => broken_off(&content),
            Some(Fault::FlippedBit) if gets => whole(with_flipped_bit(&content)),
            _ => whole(content),
        };
        Ok(Response::from_parts(parts, body))
    }
}

async fn read<B>(body: B) -> io::Result<Bytes>
where
    B: hyper::body::Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let read = BodyExt::collect(body).await.map_err(io::Error::other)?;
    Ok(read.to_bytes())
}

/// The answer of a server that does nothing.
fn failure(status: StatusCode) -> Response<Body> {
    let code = match status.as_u16() {
        403 => "AccessDenied",
        404 => "NoSuchUpload",
        429 | 503 => "SlowDown",
        _ => "InternalError",
    };
    let text = format!("<Error><Code>{code}</Code><Message>planned by the test</Message></Error>");
    let mut answer = Response::new(whole(text.into()));
    *answer.status_mut() = status;
    answer
}

fn whole(content: Bytes) -> Body {
    Full::new(content)
        .map_err(|never| match never {})
        .boxed_unsync()
}

fn broken_off(content: &Bytes) -> Body {
    let half = Frame::data(content.slice(..content.len() / 2));
    let reset = io::Error::from(io::ErrorKind::ConnectionReset);
    StreamBody::new(stream::iter([Ok(half), Err(reset)])).boxed_unsync()
}

fn slowly(content: Bytes, pause: Duration) -> Body {
    let piece = content.len().div_ceil(10).max(1);
    let starts = (0..content.len()).step_by(piece);
    let pieces: Vec<Bytes> = starts
        .map(|start| content.slice(start..content.len().min(start + piece)))
        .collect();
    let pieces = stream::iter(pieces).then(move |piece| async move {
        SystemClock::shared().sleep(pause).await;
        Ok(Frame::data(piece))
    });
    StreamBody::new(pieces).boxed_unsync()
}

fn with_flipped_bit(content: &Bytes) -> Bytes {
    let mut flipped = content.to_vec();
    if let Some(byte) = flipped.get_mut(content.len() / 2) {
        *byte ^= 4;
    }
    flipped.into()
}
