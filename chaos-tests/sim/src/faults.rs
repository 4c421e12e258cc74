//! What goes wrong with machines and links, and how it is mended: the same for groups and for clusters, which choose.

use flott_chaos_basis::random::Random;

use crate::kernel::hosts::HostId;
use crate::kernel::{MILLISECOND, SECOND, with};

/// Latency and jitter of links that are as they should be; one pair for all links of a run.
pub const GOOD_LINKS: [(u64, u64); 4] = [
    (50_000, 100_000),
    (200_000, 500_000),
    (1_000_000, 3_000_000),
    (4_000_000, 8_000_000),
];
/// How long a machine is away.
const AWAY: (u64, u64) = (50 * MILLISECOND, 3 * SECOND);
/// A fault lasts at least so long.
const LASTS_LEAST: u64 = 100 * MILLISECOND;
/// Millionths by which clocks are wrong: two of them together by less than what leases allow for.
const DRIFT_PPM: u64 = 15_000;

/// How long a machine is away.
pub fn away(random: &mut Random) -> u64 {
    random.between(AWAY.0, AWAY.1)
}

/// How long a fault lasts, at most `most`.
pub fn lasts(random: &mut Random, most: u64) -> u64 {
    // Most are short, some are long enough for the log to be purged meanwhile.
    let most = if random.permille(700) { most / 4 } else { most };
    random.between(LASTS_LEAST, most)
}

/// How long it is until something happens again that does so each `every`, on average.
pub fn pause(random: &mut Random, every: u64) -> u64 {
    random.between(every / 2, every * 3 / 2)
}

/// The links between a machine and the others, in both directions.
pub fn between(host: HostId, others: impl IntoIterator<Item = HostId>) -> Vec<(HostId, HostId)> {
    let others = others.into_iter();
    others
        .flat_map(|other| [(host, other), (other, host)])
        .collect()
}

/// These links do not work, or work again.
pub fn set_cut(links: &[(HostId, HostId)], cut: bool) {
    with(|kernel| {
        for (from, to) in links {
            kernel.set_link(*from, *to, |link| link.is_cut = cut);
        }
    });
}

/// These links are slow, or lose much.
pub fn worsen(links: &[(HostId, HostId)], jitter: u64, loss_permille: u64) {
    with(|kernel| {
        for (from, to) in links {
            kernel.set_link(*from, *to, |link| {
                link.jitter = jitter.max(link.jitter);
                link.loss_permille = loss_permille;
            });
        }
    });
}

/// These links are not slow any more and lose nothing.
pub fn improve(links: &[(HostId, HostId)], jitter: u64) {
    with(|kernel| {
        for (from, to) in links {
            kernel.set_link(*from, *to, |link| {
                (link.jitter, link.loss_permille) = (jitter, 0);
            });
        }
    });
}

/// A machine's clock runs too fast or too slow from now on.
pub fn drift(random: &mut Random, host: HostId) {
    let ppm = random.below(2 * DRIFT_PPM + 1) as i64 - DRIFT_PPM as i64;
    with(|kernel| {
        let now = kernel.now;
        kernel.hosts[host].clock.set_drift(now, ppm);
    });
}

/// Everything works again, and links have this latency and jitter. Clocks stay as they are.
pub fn mend(latency: u64, jitter: u64) {
    with(|kernel| {
        (kernel.dies_at_step_permille, kernel.proposals_wait_permille) = (0, 0);
        let hosts = kernel.hosts.len();
        for from in 0..hosts {
            for to in 0..hosts {
                kernel.set_link(from, to, |link| {
                    (link.latency, link.jitter) = (latency, jitter);
                    (link.loss_permille, link.is_cut) = (0, false);
                });
            }
        }
        for host in &mut kernel.hosts {
            host.disk = Default::default();
            (host.disk_hangs_until, host.disk_free) = (0, 50 << 30);
            (host.disk_is_full, host.sync_fails_permille) = (false, 0);
            host.dies_in_file_operation = None;
            host.resume();
        }
    });
}
