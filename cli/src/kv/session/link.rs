//! One connection to one member.

use std::error::Error as _;

use flott_node::tls::Whom;
use flott_proto::wire::key_value_client::KeyValueClient;
use flott_proto::wire::{KvRequests, KvResponses};
use tokio::sync::mpsc;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use super::SessionOptions;
use crate::known_cluster::Stranger;

/// Messages that the connection has not taken yet. Small, so that what waits for a slow connection waits where it is
/// gathered into larger messages.
const OUTGOING_MAX: usize = 2;
/// The largest answer: as many entries as a member puts into one.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// What may be under way to us without our having read it: several of the largest values for each caller.
const WINDOW_BYTES: u32 = 8 << 20;

/// An open stream to a member.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) outgoing: mpsc::Sender<KvRequests>,
    pub(super) incoming: Streaming<KvResponses>,
    /// What the member said beside its first answer: which cluster it is of.
    pub(super) said: MetadataMap,
}

/// Why there is no stream to a member.
#[derive(Debug)]
pub(super) struct NotOpened {
    /// What a person should know.
    pub(super) why: String,
    /// The member is one of another cluster.
    pub(super) stranger: Option<Stranger>,
}

impl From<String> for NotOpened {
    fn from(why: String) -> Self {
        let stranger = None;
        Self { why, stranger }
    }
}

/// Connects, and opens the stream.
pub(super) async fn open(address: String, options: SessionOptions) -> Result<Open, NotOpened> {
    let opening = async {
        let channel = channel(&address, &options).await?;
        let (outgoing, mut requests) = mpsc::channel(OUTGOING_MAX);
        let requests = futures::stream::poll_fn(move |context| requests.poll_recv(context));
        let mut client = KeyValueClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let mut request = Request::new(requests);
        options.cluster.name_in(request.metadata_mut());
        let (said, answered) = match client.pipeline(request).await {
            Ok(opened) => (opened.metadata().clone(), Ok(opened.into_inner())),
            Err(status) => (status.metadata().clone(), Err(describe(&address, &status))),
        };
        if let Err(stranger) = options.cluster.check(&said) {
            let why = stranger.to_string();
            let stranger = Some(stranger);
            return Err(NotOpened { why, stranger });
        }
        Ok(Open {
            outgoing,
            incoming: answered?,
            said,
        })
    };
    // Twice: to connect, and to be answered.
    let limit = options.connect_timeout * 2;
    match tokio::time::timeout(limit, opening).await {
        Ok(opened) => opened,
        Err(_) => Err(format!("{address}: no connection within {} s", limit.as_secs_f64()).into()),
    }
}

/// A connection that breaks when the member gives no sign of life.
pub(in crate::kv) async fn channel(
    address: &str,
    options: &SessionOptions,
) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| format!("{address}: {error}"))?;
    let connected = endpoint
        .connect_timeout(options.connect_timeout)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_keep_alive_interval(options.ping_interval)
        .keep_alive_timeout(options.ping_timeout)
        .connect_with_connector(options.transport.connector(Whom::JobManager))
        .await;
    connected.map_err(|error| format!("{address}: {}", innermost(&error)))
}

/// The member and the innermost cause: `127.0.0.1:6123: connection refused`.
pub(in crate::kv) fn describe(address: &str, status: &Status) -> String {
    format!("{address}: {}", cause(status))
}

/// The innermost cause of a call's failure.
pub(super) fn cause(status: &Status) -> String {
    match status.source() {
        Some(source) => innermost(source),
        None => status.message().to_owned(),
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}
