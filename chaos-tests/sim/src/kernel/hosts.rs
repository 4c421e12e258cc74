//! Machines: a clock of its own, a disk of some speed, and one process.

use std::task::Waker;

/// The number of a machine.
pub type HostId = usize;

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Death {
    /// By itself, and why.
    Exited(String),
    /// It was killed; what it had written stays.
    Killed,
    /// With its machine; what it had not synced is gone, or half of it.
    PowerLost,
}

/// A clock that may run too fast or too slow, and whose wall time may jump.
#[derive(Debug, Default)]
pub struct HostClock {
    /// Millionths by which it runs too fast.
    pub drift_ppm: i64,
    /// Its monotonic time, and the true time then.
    base: u64,
    since: u64,
    /// By so much its wall time is wrong, ns.
    pub wall_offset: i64,
}

/// When simulations begin: 2026-01-01.
const EPOCH: u64 = 1_767_225_600 * super::SECOND;
/// Monotonic time does not begin at 0.
const UPTIME: u64 = 1000 * super::SECOND;

impl HostClock {
    fn scaled(&self, passed: u64) -> u64 {
        let by = i128::from(passed) * i128::from(self.drift_ppm) / 1_000_000;
        (i128::from(passed) + by) as u64
    }

    /// Monotonic nanoseconds.
    pub fn monotonic(&self, now: u64) -> u64 {
        UPTIME + self.base + self.scaled(now - self.since)
    }

    /// Nanoseconds since 1970, as it believes.
    pub fn wall(&self, now: u64) -> u64 {
        (EPOCH + now).saturating_add_signed(self.wall_offset)
    }

    /// How long it really is until this clock has advanced so far.
    pub fn until(&self, by: u64) -> u64 {
        let real = i128::from(by) * 1_000_000 / i128::from(1_000_000 + self.drift_ppm);
        real as u64 + 1
    }

    /// Runs at another speed from now on.
    pub fn set_drift(&mut self, now: u64, ppm: i64) {
        self.base += self.scaled(now - self.since);
        self.since = now;
        self.drift_ppm = ppm;
    }
}

/// How long the machine's disk takes for a write of the log, ns.
#[derive(Clone, Copy, Debug)]
pub struct DiskSpeed {
    /// At least.
    pub least: u64,
    /// At most.
    pub most: u64,
}

impl Default for DiskSpeed {
    fn default() -> Self {
        Self {
            least: 200_000,
            most: 2_000_000,
        }
    }
}

/// A machine.
#[derive(Debug)]
pub struct Host {
    /// Which process it is that runs here.
    pub life: u32,
    /// A process runs, or is stopped.
    pub is_up: bool,
    /// The machine has power. Without a process its kernel refuses connections.
    pub has_power: bool,
    /// The process is stopped, as by SIGSTOP.
    pub is_paused: bool,
    /// The process has died in the step that it is in.
    pub death: Option<Death>,
    /// Its clock.
    pub clock: HostClock,
    /// Its disk.
    pub disk: DiskSpeed,
    /// Until then the disk answers nothing.
    pub disk_hangs_until: u64,
    /// Bytes that are free on the disk.
    pub disk_free: u64,
    /// Writes fail for lack of room.
    pub disk_is_full: bool,
    /// Of a thousand syncs so many fail.
    pub sync_fails_permille: u64,
    /// It ends like that in the course of so many file operations.
    pub dies_in_file_operation: Option<(u32, Death)>,
    /// Something has happened that its process can see.
    pub is_runnable: bool,
    /// The process has nothing to do.
    pub(crate) is_idle: bool,
    /// When it has something to do by itself.
    pub(crate) deadline: Option<u64>,
    /// Who runs it.
    pub(crate) root: Option<Waker>,
    pub(crate) looks: u32,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            life: 0,
            is_up: false,
            has_power: true,
            is_paused: false,
            death: None,
            clock: HostClock::default(),
            disk: DiskSpeed::default(),
            disk_hangs_until: 0,
            disk_free: 50 << 30,
            disk_is_full: false,
            sync_fails_permille: 0,
            dies_in_file_operation: None,
            is_runnable: false,
            is_idle: false,
            deadline: None,
            root: None,
            looks: 0,
        }
    }
}

impl Host {
    /// Its process is not stopped any more.
    pub fn resume(&mut self) {
        if self.is_paused {
            (self.is_paused, self.is_runnable) = (false, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_drifts_never_goes_back() {
        let mut clock = HostClock::default();
        clock.set_drift(0, 20_000);
        let before = clock.monotonic(1_000_000);
        assert_eq!(before, UPTIME + 1_020_000);
        clock.set_drift(1_000_000, -20_000);
        assert_eq!(clock.monotonic(1_000_000), before);
        assert_eq!(clock.monotonic(2_000_000), before + 980_000);
        assert!(clock.monotonic(2_000_000 + clock.until(500)) >= before + 980_500);
    }
}
