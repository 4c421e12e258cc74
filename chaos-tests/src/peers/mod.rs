//! Other systems under the load of `flott bench metadata`, and the comparison.
//!
//! - [`etcd`]: unary calls on several channels. [`zookeeper`]: pipelined sessions; [`jute`] is its wire format.
//! - [`compare`]: medians and ratios over rounds of reports.
//!
//! Both clients are written from the public protocols and do the least that the load needs. Only the load generator is
//! shared with Flott: `flott_cli::bench`.

pub mod compare;
pub mod etcd;
pub mod jute;
pub mod zookeeper;

/// Connections that share a load, at most; as many as the reference measurements used.
pub const SESSIONS_MAX: u64 = 12;

/// The longest wait for an answer: a server that hangs shall fail the measurement, not hold it up.
pub const ANSWER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Which server each of `sessions` connections goes to: spread over all, a single one to the leader.
pub fn spread(servers: usize, leader: usize, sessions: usize) -> Vec<usize> {
    if sessions == 1 {
        return vec![leader];
    }
    (0..sessions).map(|session| session % servers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_session_goes_to_the_leader_and_several_to_all() {
        assert_eq!(spread(3, 2, 1), [2]);
        assert_eq!(spread(3, 2, 7), [0, 1, 2, 0, 1, 2, 0]);
    }
}
