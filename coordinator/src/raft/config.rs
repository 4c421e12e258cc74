//! What is configured about a Raft node, and what follows from it for openraft and the connections.
//!
//! openraft waits for its lease (its `election_timeout_max`) *and then* for a random election timeout before a follower
//! stands for election. So the lease is half of the longest silence that is configured, and the rest is drawn: with
//! 200 ms and 400 ms the lease is 200 ms and an election starts 300 to 400 ms after the last heartbeat. Draws too close
//! to each other split votes; so a quarter of the longest silence is always drawn from.
//!
//! When the leader's process has died, its connections say so at once, and nobody waits longer than the lease: see
//! [`super::suspicion`].

use std::path::PathBuf;
use std::time::Duration;

use flott_node::Transport;
use flott_proto::ids::{ClusterId, NodeId};
use openraft::{Config, SnapshotPolicy};

use super::error::RaftError;
use super::network::NetworkTiming;

/// How one JobManager takes part in its Raft group.
#[derive(Clone, Debug)]
pub struct RaftConfig {
    /// The data directory: log and snapshots.
    pub dir: PathBuf,
    /// None: drawn at the first start, and what the directory says from then on.
    pub node_id: Option<NodeId>,
    /// Where the other JobManagers and the clients reach this process's gRPC server, `host:port`.
    pub address: String,
    /// The only cluster that this node may belong to. None: whatever the directory says.
    pub cluster_id: Option<ClusterId>,
    pub heartbeat_interval: Duration,
    pub election_timeout_min: Duration,
    pub election_timeout_max: Duration,
    /// Log entries between two snapshots.
    pub snapshot_entries: u64,
    /// Bytes of log entries between two snapshots, if that is sooner. A state that is larger is written less often.
    pub snapshot_bytes: u64,
    /// With fewer bytes free on its disk, a leader takes nothing new that is large.
    pub disk_free_soft: u64,
    /// With fewer, this node hands over and ends.
    pub disk_free_hard: u64,
    /// How the other members are reached.
    pub transport: Transport,
}

/// The durations that openraft and the connections are given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    heartbeat: Duration,
    election_min: Duration,
    election_max: Duration,
}

impl Timing {
    pub(crate) fn of(config: &RaftConfig) -> Result<Self, RaftError> {
        let lease = config.election_timeout_max / 2;
        let drawn_min = config.election_timeout_min.saturating_sub(lease);
        let drawn_min = drawn_min.clamp(lease / 2, lease * 3 / 4);
        let timing = Self {
            heartbeat: config.heartbeat_interval,
            election_min: drawn_min,
            election_max: lease,
        };
        let ordered = config.election_timeout_min < config.election_timeout_max;
        if timing.heartbeat < Duration::from_millis(1) || timing.heartbeat >= drawn_min || !ordered
        {
            let what = format!(
                "heartbeat-interval {:?} must be at least 1 ms and below a quarter of election-timeout-max, and \
                 election-timeout-min {:?} must be below election-timeout-max {:?}",
                config.heartbeat_interval, config.election_timeout_min, config.election_timeout_max
            );
            return Err(RaftError::Configuration(what));
        }
        Ok(timing)
    }

    /// For how long a quorum's acknowledgement keeps others from being elected.
    pub(crate) fn lease(self) -> Duration {
        self.election_max
    }

    /// After this time without a quorum the leader must not rely on its lease any more. Half of the margin is for clocks
    /// that run at different speeds, half for answers that count as newer than they are.
    pub(crate) fn lease_certain(self) -> Duration {
        self.election_max * 9 / 10
    }

    /// For a member to answer a question outside consensus.
    pub(crate) fn question(self) -> Duration {
        self.election_max * 2
    }

    pub(crate) fn network(self) -> NetworkTiming {
        NetworkTiming {
            connect: self.election_max,
            keep_alive_interval: self.heartbeat * 4,
            keep_alive_timeout: self.election_max * 3,
            append_progress: Duration::from_secs(5).max(self.election_max * 10),
            answer_tolerance: (self.lease() - self.lease_certain()) / 2,
            snapshot_idle: Duration::from_secs(10),
            snapshot_install: Duration::from_secs(120),
        }
    }
}

/// Milliseconds for a snapshot to be sent and installed. openraft's default of 200 ms is for chunks.
const SNAPSHOT_TOTAL_MS: u64 = 600_000;

/// openraft's own configuration.
pub(crate) fn openraft_config(config: &RaftConfig, timing: Timing) -> Result<Config, RaftError> {
    let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let entries = config.snapshot_entries.max(1);
    let built = Config {
        cluster_name: "flott".to_owned(),
        heartbeat_interval: milliseconds(timing.heartbeat),
        election_timeout_min: milliseconds(timing.election_min),
        election_timeout_max: milliseconds(timing.election_max),
        heartbeat_min_interval: Some(0),
        install_snapshot_timeout: SNAPSHOT_TOTAL_MS,
        max_payload_entries: 1024,
        max_append_entries: Some(4096),
        // Beyond what is kept of the log, so that a snapshot is sent only to those whom the log no longer helps.
        replication_lag_threshold: entries.saturating_mul(3),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(entries),
        // Nothing goes by openraft's own measure: `log_bound` alone says what may.
        max_in_snapshot_log_to_keep: u64::MAX,
        api_channel_size: Some(8192),
        state_machine_channel_size: Some(1024),
        broadcast_submitted_on_append: Some(true),
        // A node that was cut off must not depose a leader that has a quorum.
        enable_pre_vote: Some(true),
        // A restarted leader is a new leader, with a new term: tasks of its former life must not pass for its own.
        enable_leader_restore: Some(false),
        // A follower whose log has become shorter lost its disk, and with it acknowledged entries.
        allow_log_reversion: Some(false),
        backoff: "50ms 100ms 200ms ...500ms".to_owned(),
        ..Config::default()
    };
    built
        .validate()
        .map_err(|error| RaftError::Configuration(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(heartbeat: u64, min: u64, max: u64) -> RaftConfig {
        RaftConfig {
            dir: PathBuf::new(),
            node_id: None,
            address: String::new(),
            cluster_id: None,
            heartbeat_interval: Duration::from_millis(heartbeat),
            election_timeout_min: Duration::from_millis(min),
            election_timeout_max: Duration::from_millis(max),
            snapshot_entries: 50_000,
            snapshot_bytes: 64 << 20,
            disk_free_soft: 0,
            disk_free_hard: 0,
            transport: Transport::loopback(),
        }
    }

    #[test]
    fn a_silence_is_as_long_as_configured_before_a_member_stands_for_election() {
        for (min, max, from) in [
            (200, 400, 300),
            (350, 400, 350),
            (390, 400, 350),
            (400, 800, 600),
        ] {
            let config = config(50, min, max);
            let timing = Timing::of(&config).unwrap();
            let openraft = openraft_config(&config, timing).unwrap();
            let (least, most) = (openraft.election_timeout_min, openraft.election_timeout_max);
            assert_eq!((most + least, most + most), (from, max), "{min} {max}");
            assert!(timing.lease_certain() < timing.lease());
        }
    }

    #[test]
    fn the_hazardous_defaults_of_openraft_are_off() {
        let config = config(50, 200, 400);
        let openraft = openraft_config(&config, Timing::of(&config).unwrap()).unwrap();
        assert_eq!(openraft.enable_pre_vote, Some(true));
        assert_eq!(openraft.enable_leader_restore, Some(false));
        assert!(openraft.install_snapshot_timeout > 60_000);
        assert_eq!(openraft.max_in_snapshot_log_to_keep, u64::MAX);
        // What `log_bound` leaves there is sent, before a snapshot is.
        assert!(openraft.replication_lag_threshold > 2 * config.snapshot_entries);
    }

    #[test]
    fn timings_out_of_order_are_refused() {
        for (heartbeat, min, max) in [
            (0, 200, 400),
            (100, 200, 400),
            (50, 400, 200),
            (50, 200, 200),
        ] {
            assert!(
                Timing::of(&config(heartbeat, min, max)).is_err(),
                "{heartbeat} {min} {max}"
            );
        }
    }
}
