//! Names of the gRPC metadata that both ends of a connection must agree on.

/// Of a client's request: the id of the cluster that it is for; absent: whichever answers. Of every answer to a client,
/// refusals too: the id of the cluster that answers; absent: it belongs to none yet.
pub const CLUSTER_ID: &str = "flott-cluster-id";
