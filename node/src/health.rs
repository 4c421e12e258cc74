//! The HTTP port that every process has, for probes and for Prometheus.
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 while the process answers at all |
//! | `/readyz` | 200 when it can do its work, otherwise 503 and why not |
//! | `/leaderz` | 200 on the leading JobManager only, otherwise 503: for load balancers |
//! | `/metrics` | Prometheus' text format |
//!
//! Nothing can be changed over it, so nobody has to show who he is: over TLS it shows its own certificate and asks for
//! none.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use futures::{Stream, StreamExt};
use tokio::net::TcpListener;

use crate::clock::SharedClock;
use crate::config::options;
use crate::tasks::{OnFailure, Tasks};
use crate::telemetry;
use crate::tls::{Connection, Protocol, Transport};

/// What the port asks the process. Both are called for each request, and must not wait.
#[derive(Clone)]
pub struct Probes {
    /// Whether the process can do its work, or why it cannot.
    pub ready: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// Whether it is the leading JobManager.
    pub leader: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl fmt::Debug for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Probes")
    }
}

/// Where the port is.
#[derive(Clone, Debug)]
pub struct HttpPort {
    pub bind: String,
    /// 0: any free one.
    pub port: u16,
    /// Plain text, or TLS, as in [`Transport::from_configuration`] and [`Transport::without_tls`].
    pub transport: Transport,
}

impl HttpPort {
    /// What `rest.*` and `security.ssl.rest.enabled` say, in a process that uses `transport` otherwise.
    pub fn from_configuration(
        configuration: &crate::config::Configuration,
        transport: &Transport,
    ) -> Result<Self, crate::config::ConfigError> {
        let tls = configuration.get(&options::SSL_REST_ENABLED)?;
        Ok(Self {
            bind: configuration.get(&options::REST_BIND)?,
            port: configuration.get(&options::REST_PORT)?,
            transport: if tls {
                transport.clone()
            } else {
                transport.without_tls()
            },
        })
    }
}

/// Listens there and answers until the tasks are cancelled. The address it listens on.
///
/// Fails if the address cannot be listened on, or must not in plain text; the message names it and what to change.
pub async fn serve(
    port: &HttpPort,
    probes: Probes,
    tasks: &Tasks,
    clock: &SharedClock,
) -> std::io::Result<SocketAddr> {
    let HttpPort {
        bind,
        port,
        transport,
    } = port;
    #[cfg(feature = "simulation")]
    if crate::simulation::is_on() {
        // Nobody asks.
        return Ok(SocketAddr::from(([127, 0, 0, 1], *port)));
    }
    let in_use = |error: std::io::Error| {
        let text =
            format!("cannot listen on {bind}:{port} (rest.bind-address, rest.port): {error}");
        std::io::Error::new(error.kind(), text)
    };
    let listener = TcpListener::bind((bind.as_str(), *port))
        .await
        .map_err(in_use)?;
    let address = listener.local_addr()?;
    transport
        .check_listener(address, options::REST_BIND.key())
        .map_err(std::io::Error::other)?;
    let listener = Incoming {
        connections: transport.incoming(listener, Protocol::Http, tasks, clock),
        address,
    };
    let cancelled = tasks.cancellation().clone().cancelled_owned();
    let app = router(probes);
    tasks.spawn("http", OnFailure::Log, async move {
        // Idle keep-alive connections of a scraper must not hold up the end of the process, so no graceful drain.
        tokio::select! {
            served = axum::serve(listener, app).into_future() => served,
            () = cancelled => Ok(()),
        }
    });
    Ok(address)
}

/// Connections as axum takes them.
struct Incoming<S> {
    connections: S,
    address: SocketAddr,
}

impl<S> axum::serve::Listener for Incoming<S>
where
    S: Stream<Item = std::io::Result<Connection>> + Send + Unpin + 'static,
{
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.connections.next().await {
                Some(Ok(connection)) => return (connection, self.address),
                Some(Err(_)) => {}
                // The process is ending.
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.address)
    }
}

fn router(probes: Probes) -> Router {
    // The recorder has to exist before the first metric, not before the first scrape.
    let metrics = telemetry::metrics();
    let render = move || async move {
        (
            [(
                header::CONTENT_TYPE,
                "text/plain; version=0.0.4; charset=utf-8",
            )],
            metrics.render(),
        )
    };
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/leaderz", get(leaderz))
        .route("/metrics", get(render))
        .with_state(probes)
}

async fn readyz(State(probes): State<Probes>) -> impl IntoResponse {
    match (probes.ready)() {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn leaderz(State(probes): State<Probes>) -> impl IntoResponse {
    if (probes.leader)() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not the leader\n")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn probes_answer_as_the_process_says() {
        let tasks = Tasks::default();
        let flag = Arc::new(AtomicBool::new(false));
        let (ready, leader) = (flag.clone(), flag.clone());
        let probes = Probes {
            ready: Arc::new(move || {
                if ready.load(Ordering::Relaxed) {
                    Ok(())
                } else {
                    Err("no leader yet".to_owned())
                }
            }),
            leader: Arc::new(move || leader.load(Ordering::Relaxed)),
        };
        let port = |port| HttpPort {
            bind: "127.0.0.1".to_owned(),
            port,
            transport: Transport::loopback(),
        };
        let clock = crate::SystemClock::shared();
        let address = serve(&port(0), probes.clone(), &tasks, &clock)
            .await
            .unwrap();
        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
        let answer = get(address, "/readyz").await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.contains("no leader yet"),
            "{answer}"
        );
        assert!(get(address, "/leaderz").await.starts_with("HTTP/1.1 503"));
        flag.store(true, Ordering::Relaxed);
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/leaderz").await.starts_with("HTTP/1.1 200"));
        let metrics = get(address, "/metrics").await;
        assert!(
            metrics.contains("text/plain") && metrics.contains("flott_build_info"),
            "{metrics}"
        );

        let refused = serve(&port(address.port()), probes.clone(), &tasks, &clock)
            .await
            .unwrap_err();
        assert!(refused.to_string().contains("rest.port"), "{refused}");
        let everywhere = HttpPort {
            bind: "0.0.0.0".to_owned(),
            ..port(0)
        };
        let refused = serve(&everywhere, probes, &tasks, &clock)
            .await
            .unwrap_err();
        assert!(
            refused.to_string().contains("`rest.bind-address`"),
            "{refused}"
        );
        tasks.shutdown(Duration::from_secs(5)).await.unwrap();
    }
}
