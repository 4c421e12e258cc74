//! What all who ask JobManagers have: a channel to each, and patience.

use std::time::Duration;

use flott_chaos_basis::random::Random;
use flott_node::Transport;
use flott_node::tls::Whom;
use tonic::transport::{Channel, Endpoint};

use crate::kernel::hosts::HostId;
use crate::raft_group::member;

/// A channel to the JobManager of that host, which connects when it is used.
pub fn channel(host: HostId) -> Channel {
    let address = member::address(host);
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint.expect("an address of a host is one");
    let endpoint = endpoint
        .connect_timeout(Duration::from_secs(1))
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(2));
    let connector = Transport::loopback().connector(Whom::JobManager);
    endpoint.connect_with_connector_lazy(connector)
}

/// Does nothing for at most so many milliseconds.
#[expect(
    clippy::disallowed_methods,
    reason = "a caller's pauses are its own; their time is virtual"
)]
pub async fn pause(random: &mut Random, ms_max: u64) {
    let ms = random.between(1, ms_max);
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
