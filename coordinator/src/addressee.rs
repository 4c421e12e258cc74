//! Whether a client's request is for this cluster, and which cluster its answer is from.
//!
//! In plain text nothing tells a client who listens at an address that it knows: a JobManager of another cluster may
//! have taken the port while ours was down. So every answer names this cluster in the header `flott-cluster-id`, a client
//! names in the same header the cluster that it has spoken to, and what is for another cluster is refused.
//!
//! | the request names | this JobManager | |
//! |---|---|---|
//! | no cluster | is of any, or of none yet | served: a first request, or a client that knows nothing of the header |
//! | A | is of A | served |
//! | A | is of B | refused |
//! | A | is of none yet, and configured for A | served: `cluster init` may name what it makes |
//! | A | is of none yet | refused: it has nothing of A's to tell, and no other cluster is made by a client of A |
//!
//! What must stay true: of a request that is refused here nothing reaches a service.

use std::task::{Context, Poll};

use flott_proto::header;
use flott_proto::ids::ClusterId;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;
use tracing::debug;

use crate::raft::RaftNode;

/// A service for clients that is asked only what is for this JobManager's cluster.
#[derive(Clone, Debug)]
pub(crate) struct Addressee<S> {
    raft: RaftNode,
    service: S,
}

impl<S> Addressee<S> {
    /// Puts the service behind the check.
    pub(crate) fn of(raft: &RaftNode, service: S) -> Self {
        let raft = raft.clone();
        Self { raft, service }
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), Status> {
        let Some(named) = headers.get(header::CLUSTER_ID) else {
            return Ok(());
        };
        let named: ClusterId = String::from_utf8_lossy(named.as_bytes()).parse()?;
        let (own, configured) = (self.raft.cluster_id(), self.raft.configured_cluster());
        match why_not(&named, own.as_ref(), configured) {
            None => Ok(()),
            Some(why) => {
                // A client asks again and again until its patience ends.
                debug!(%named, own = ?own, "request for another cluster refused");
                Err(Status::failed_precondition(why))
            }
        }
    }
}

/// Why a request that names this cluster is refused; `None`: it is not. `own`: what this JobManager belongs to;
/// `configured`: the only one that it may come to belong to.
fn why_not(
    named: &ClusterId,
    own: Option<&ClusterId>,
    configured: Option<&ClusterId>,
) -> Option<String> {
    if own.or(configured) == Some(named) {
        return None;
    }
    let (here, otherwise) = match own {
        Some(own) => (
            format!("is of cluster {own}"),
            "if this cluster is meant, start the client anew or have it name this one",
        ),
        None => (
            "belongs to no cluster yet".to_owned(),
            "to make a new cluster of it, name none",
        ),
    };
    Some(format!(
        "the request is for cluster {named}, and this JobManager {here}: nothing was carried out; correct the client's \
         addresses (-m, FLOTT_JOBMANAGER), or {otherwise} (--cluster-id, FLOTT_CLUSTER_ID)"
    ))
}

/// Says in the answer which cluster it is from.
fn sign(headers: &mut HeaderMap, raft: &RaftNode) {
    let own = raft.cluster_id();
    // Every id consists of characters that a header may have.
    let own = own.and_then(|own| HeaderValue::from_str(own.as_str()).ok());
    if let Some(own) = own {
        headers.insert(HeaderName::from_static(header::CLUSTER_ID), own);
    }
}

impl<S, B> Service<Request<B>> for Addressee<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let raft = self.raft.clone();
        match self.check(request.headers()) {
            Ok(()) => {
                let answering = self.service.call(request);
                Box::pin(async move {
                    let mut answer = answering.await?;
                    // Afterwards, since the request may be the one that makes the cluster.
                    sign(answer.headers_mut(), &raft);
                    Ok(answer)
                })
            }
            Err(refusal) => {
                let mut answer = refusal.into_http();
                sign(answer.headers_mut(), &raft);
                Box::pin(async move { Ok(answer) })
            }
        }
    }
}

impl<S: NamedService> NamedService for Addressee<S> {
    const NAME: &'static str = S::NAME;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_for_another_cluster_is_refused_with_both_ids() {
        let id = |text: &str| text.parse::<ClusterId>().unwrap();
        let (ours, other) = (id("ours"), id("other"));
        for (own, configured, served) in [
            (Some(&ours), None, true),
            (Some(&ours), Some(&ours), true),
            (None, Some(&ours), true),
            (Some(&other), None, false),
            (Some(&other), Some(&other), false),
            (None, Some(&other), false),
            (None, None, false),
        ] {
            let why = why_not(&ours, own, configured);
            assert_eq!(why.is_none(), served, "{own:?} {configured:?} {why:?}");
            let Some(why) = why else { continue };
            assert!(why.contains("cluster ours"), "{why}");
            let here = own.map_or("no cluster".to_owned(), |own| format!("of cluster {own}"));
            assert!(why.contains(&here), "{why}");
            assert!(why.contains("--cluster-id"), "{why}");
        }
    }
}
